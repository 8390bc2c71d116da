"""Questions and broadcasts on the bus: answers, time, cancellation, and who may answer."""

import anyio
import pytest

from symbi.bus.content import Kind
from symbi.bus.rooms import BusTerms, Labelled
from symbi.errors import (
    AskFailed,
    InputError,
    Overloaded,
    TimeLimit,
)
from symbi.testing.open_bus import bus_over, collect, settled
from symbi.types import Confidentiality, Integrity, Label

pytestmark = pytest.mark.anyio

SECRET = Label(Integrity.UNTRUSTED, Confidentiality.SECRET, ("file",), ("health",))


# --- request ------------------------------------------------------------------------------------


async def test_a_question_gets_its_answer_with_its_label():
    async with bus_over() as open_:
        await open_.bus.open_mailbox("b", lambda message: {"twice": message.body * 2}, int)
        await open_.bus.open_mailbox("c", lambda message: Labelled(message.body, SECRET), int)
        answer = await open_.bus.request("a", "b", 21, timeout_s=5, answer=dict[str, int])
        assert (answer.body, answer.sender, answer.label) == ({"twice": 42}, "b", Label())
        assert (await open_.bus.request("a", "c", 1, timeout_s=5)).label == SECRET
        assert len(open_.bus.questions) == open_.bus.questions.working == 0


async def test_answers_find_their_questions_however_many_wait():
    async with bus_over() as open_:
        order, answers = [], {}

        async def handler(message):
            order.append(message.body)
            await settled(lambda: len(order) == 50)
            return message.body

        async def ask(number):
            answers[number] = (await open_.bus.request("a", "b", number, timeout_s=30)).body

        await open_.bus.open_mailbox("b", handler)
        async with anyio.create_task_group() as tasks:
            for number in range(50):
                tasks.start_soon(ask, number)
        assert answers == {number: number for number in range(50)}
        assert len(open_.bus.questions) == 0


async def test_nobody_waits_longer_than_it_says_and_whoever_was_asked_is_stopped(later):
    async with bus_over() as open_:
        begun, stopped = anyio.Event(), []

        async def handler(_message):
            begun.set()
            try:
                await anyio.sleep_forever()
            except anyio.get_cancelled_exc_class():
                stopped.append(True)
                raise

        await open_.bus.open_mailbox("b", handler)

        async def ask():
            with pytest.raises(TimeLimit) as late:
                await open_.bus.request("a", "b", 1, timeout_s=60)
            assert late.value.code == "limit.answer"

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            await begun.wait()
            await later(61, open_.gate.log)
        await settled(lambda: stopped)
        assert stopped == [True]
        assert len(open_.bus.questions) == open_.bus.questions.working == 0


async def test_who_stops_to_wait_leaves_nothing_and_stops_whom_it_asked():
    async with bus_over() as open_:
        begun, stopped = anyio.Event(), []

        async def handler(_message):
            begun.set()
            try:
                await anyio.sleep_forever()
            finally:
                stopped.append(True)

        async def ask():
            await open_.bus.request("a", "b", 1, timeout_s=60)

        await open_.bus.open_mailbox("b", handler)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            await begun.wait()
            tasks.cancel_scope.cancel("enough")
        await settled(lambda: stopped)
        assert stopped == [True]
        assert len(open_.bus.questions) == open_.bus.questions.working == 0


async def test_an_error_comes_back_as_its_code_and_tells_nothing_else():
    async with bus_over() as open_:

        def handler(_message):
            msg = "the password is hunter2"
            raise ValueError(msg)

        await open_.bus.open_mailbox("b", handler)
        with pytest.raises(AskFailed) as failed:
            await open_.bus.request("a", "b", 1, timeout_s=5)
        assert failed.value.fields["reason"] == "message.handler"
        assert "hunter2" not in str(failed.value)


async def test_an_answer_from_anyone_but_the_asked_is_refused():
    async with bus_over() as open_:
        asked, go_on, forge = anyio.Event(), anyio.Event(), []

        async def handler(message):
            forge.append(message.id)
            asked.set()
            await go_on.wait()
            return "honest"

        await open_.bus.open_mailbox("b", handler)
        answers = []

        async def ask():
            answers.append((await open_.bus.request("a", "b", 1, timeout_s=30)).body)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            await asked.wait()
            await open_.bus.sender.signal("c", "a", Kind.ANSWER, forge[0], "forged")
            await settled()
            assert answers == []
            go_on.set()
        assert answers == ["honest"]
        assert open_.bus.record.of("a.a").refused == 1


async def test_who_is_not_there_is_not_asked():
    async with bus_over() as open_:
        with pytest.raises(InputError, match="no mailbox open"):
            await open_.bus.request("a", "b", 1, timeout_s=5)
        for name in ("nobody", "", "a b", "a.>", "é"):
            with pytest.raises(InputError):
                await open_.bus.send_message("a", name, 1)
            with pytest.raises(InputError):
                await open_.bus.request("a", name, 1, timeout_s=5)


# --- broadcast ----------------------------------------------------------------------------------


async def test_a_broadcast_reaches_the_group_and_waits_for_nobody():
    async with bus_over(terms=BusTerms(mailbox=2)) as open_:
        got, gate = [], anyio.Event()

        async def stuck(_message):
            await gate.wait()

        await open_.bus.open_mailbox("b", collect(got), groups=["team"])
        await open_.bus.open_mailbox("c", stuck, groups=["team"])
        await open_.bus.open_mailbox("d", collect(got))
        outcomes = [await open_.bus.broadcast("a", "team", number) for number in range(5)]
        await settled(lambda: len(got) == 5)
        assert got == list(range(5))
        assert all(outcome["b"] is None for outcome in outcomes)
        assert isinstance(outcomes[-1]["c"], Overloaded)
        assert set(outcomes[0]) == {"b", "c"}
        gate.set()
