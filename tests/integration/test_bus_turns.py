"""What comes while something else is waited for: a policy set, a grant, another reader, a store that is away."""

import anyio
import pytest

from symbi.bus.parcels import ConsumerTerms
from symbi.bus.receiving import RetryTerms
from symbi.bus.rooms import BusTerms
from symbi.errors import ConfigError, Denied, InputError, MessageRefused, StoreUnavailable, TimeLimit
from symbi.guard.action import SubscribeTopic
from symbi.testing.gate import DENY_ALL
from symbi.testing.open_bus import bus_over, collect, settled
from symbi.types import Confidentiality, Integrity, Label

pytestmark = pytest.mark.anyio

MANY = 5_000  # more than any window would know of

OTHER = Label(Integrity.UNTRUSTED, Confidentiality.INTERNAL)
ONLY_PUBLISH = 'permit (principal, action == Action::"PublishMessage", resource);'
LISTEN = '\npermit (principal, action == Action::"SubscribeTopic", resource);'
FEW = BusTerms(retry=RetryTerms(attempts=3, first_s=1.0, most_s=10.0))


# --- a policy set that comes meanwhile ----------------------------------------------------------


@pytest.mark.parametrize("durable", ["", "name"])
async def test_who_may_listen_no_more_gets_nothing_of_what_it_has_taken(durable):
    async with bus_over() as open_:
        got, gate = [], anyio.Event()

        async def slow(message):
            got.append(message.body)
            await gate.wait()

        listener = await open_.bus.subscribe("c", "t", slow, terms=ConsumerTerms(durable=durable))
        await open_.bus.publish_many("a", "t", [1, 2, 3])
        await settled(lambda: got)
        open_.set_policies(ONLY_PUBLISH)
        gate.set()
        await settled(lambda: listener.ended)
        assert got == [1]
        assert isinstance(listener.ended, Denied)


async def test_a_question_that_waits_for_its_turn_is_decided_again_before_it_is_worked_on(later):
    async with bus_over() as open_:
        begun, gate = [], anyio.Event()

        async def slow(message):
            begun.append(message.body)
            await gate.wait()

        async def ask(number):
            with pytest.raises((TimeLimit, Denied)):
                await open_.bus.request("a", "b", number, timeout_s=60)

        await open_.bus.open_mailbox("b", slow)
        async with anyio.create_task_group() as tasks:
            for number in range(300):
                tasks.start_soon(ask, number)
            await settled(lambda: len(begun) == 256)
            open_.set_policies(DENY_ALL)
            gate.set()
            await settled()
            assert len(begun) == 256
            await later(61, open_.gate.log)


async def test_a_question_whose_time_is_over_before_its_turn_is_not_worked_on():
    async with bus_over() as open_:
        begun, gate = [], anyio.Event()

        async def slow(message):
            begun.append(message.body)
            await gate.wait()

        await open_.bus.open_mailbox("b", slow)
        async with anyio.create_task_group() as tasks:
            for number in range(257):
                tasks.start_soon(lambda number=number: open_.bus.request("a", "b", number, timeout_s=60))
            await settled(lambda: len(begun) == 256)
            await open_.sleep.advance(61)
            gate.set()
            await settled(lambda: open_.bus.record._window.refused["message.expired"])
            tasks.cancel_scope.cancel()
        assert len(begun) == 256
        assert len(open_.bus.questions) == 0


async def test_a_policy_set_that_comes_while_it_is_decided_who_listens_counts():
    async with bus_over() as open_:
        got = []
        listener = await open_.bus.subscribe("c", "t", collect(got))
        open_.set_policies(ONLY_PUBLISH + LISTEN)
        redeem, changes = open_.gate.guard.authority.redeem, [1]

        def redeem_late(permit, kind, *more):
            if changes and kind is SubscribeTopic:
                changes.pop()
                open_.set_policies(ONLY_PUBLISH)
            return redeem(permit, kind, *more)

        open_.gate.guard.authority.redeem = redeem_late
        await open_.bus.publish("a", "t", 1)
        await settled(lambda: got or listener.ended)
        assert got == []
        assert isinstance(listener.ended, Denied)


# --- what overtakes -------------------------------------------------------------------------------


async def test_what_waits_for_its_grant_is_not_a_replay_of_what_overtook_it():
    async with bus_over() as open_:
        got, asked, gate = [], anyio.Event(), anyio.Event()
        await open_.bus.subscribe("b", "t", collect(got), terms=ConsumerTerms(most=10_000))
        await open_.bus.publish("a", "t", "first")
        renew = open_.bus.passages._renew

        async def slowly(*args):
            asked.set()
            await gate.wait()
            await renew(*args)

        open_.bus.passages._renew = slowly
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: open_.bus.publish("a", "t", "late", label=OTHER))
            await asked.wait()
            await open_.bus.publish_many("a", "t", list(range(MANY + 10)))
            await settled(lambda: len(got) == MANY + 11)
            gate.set()
        await settled()
        assert got[-1] == "late"


# --- a store that is away, and retries ------------------------------------------------------------


AWAY = [StoreUnavailable("away", code="unavailable.store"), ConfigError("another master", code="config.master_key")]


def once(open_, error):
    """The store, or the master key, is away for one look."""
    read, away = open_.gate.log.read, [True]

    async def read_or_not(*args):
        if away:
            away.pop()
            raise error
        return await read(*args)

    open_.gate.log.read = read_or_not


@pytest.mark.parametrize("error", AWAY, ids=lambda error: error.code)
async def test_a_durable_subscription_goes_on_once_the_store_is_there_again(error):
    async with bus_over() as open_:
        got = []
        await open_.bus.subscribe("b", "t", collect(got), terms=ConsumerTerms(durable="d"))
        once(open_, error)
        await open_.bus.publish("a", "t", 1)
        await settled(lambda: open_.sleep._sleepers)
        await open_.sleep.advance(2)
        await settled(lambda: got)
        assert got == [1]


@pytest.mark.parametrize("error", AWAY, ids=lambda error: error.code)
async def test_a_mailbox_goes_on_once_the_store_is_there_again(error):
    async with bus_over() as open_:
        got = []
        await open_.bus.send_message("a", "b", 1)
        once(open_, error)
        await open_.bus.open_mailbox("b", collect(got))
        await settled(lambda: open_.sleep._sleepers)
        assert got == []
        await open_.sleep.advance(2)
        await settled(lambda: got)
        assert got == [1]


async def test_a_sender_that_is_held_up_does_not_have_its_messages_opened_with_each_of_others():
    async with bus_over(terms=FEW) as open_:
        opened, got = [], []

        def handler(message):
            if message.sender == "a":
                raise ValueError
            got.append(message.body)

        read = open_.bus.desk.read
        object.__setattr__(open_.bus.desk, "read", lambda *args: opened.append(1) or read(*args))
        await open_.bus.open_mailbox("b", handler)
        for number in range(50):
            await open_.bus.send_message("a", "b", number)
        await settled()
        opened.clear()
        for number in range(20):
            await open_.bus.send_message("c", "b", number)
            await settled(lambda number=number: len(got) == number + 1)
        assert len(opened) <= 2 * 20
        assert len(open_.sleep._sleepers) <= 2


# --- bad input ------------------------------------------------------------------------------------


async def test_a_bad_body_is_the_error_of_its_own_sender_alone():
    async with bus_over(terms=BusTerms(message_bytes=100)) as open_:
        got, errors = [], []

        async def publish(body):
            try:
                await open_.bus.publish("a", "t", body)
            except (InputError, MessageRefused) as error:
                errors.append(error.code)

        await open_.bus.subscribe("b", "t", collect(got))
        async with anyio.create_task_group() as tasks:
            for body in (1, object(), 2, "x" * 1000, 3):
                tasks.start_soon(publish, body)
        await settled(lambda: len(got) == 3)
        assert got == [1, 2, 3]
        assert sorted(errors) == ["message.body", "message.size"]


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), -1.0, 0.0, 1e300])
async def test_times_that_are_none_are_named_errors(seconds):
    async with bus_over() as open_:
        await open_.bus.open_mailbox("b", lambda message: message.body)
        with pytest.raises(InputError) as bad:
            await open_.bus.send_message("a", "b", 1, ttl_s=seconds)
        assert bad.value.code == "input.time"
        with pytest.raises(InputError) as bad:
            await open_.bus.request("a", "b", 1, timeout_s=seconds)
        assert bad.value.code == "input.time"


async def test_what_has_expired_makes_room_for_what_is_sent_to_who_is_away():
    async with bus_over(terms=BusTerms(mailbox=2)) as open_:
        await open_.bus.send_message("a", "b", 1, ttl_s=5)
        await open_.bus.send_message("a", "b", 2, ttl_s=5)
        await open_.sleep.advance(6)
        await open_.bus.send_message("a", "b", 3, ttl_s=5)
        dead = await open_.bus.dead()
        assert [one.code for one in dead] == ["message.expired"] * 2
        got = []
        await open_.bus.open_mailbox("b", collect(got))
        await settled(lambda: got)
        assert got == [3]
