"""Questions to a client that takes no requests: what a server asks at once is one round, each with an answer that fits."""

from types import SimpleNamespace

import anyio
import mcp_types as types
import pytest
from mcp.shared.exceptions import MCPError

from symbi.api.mcp.exchange import QUESTION, Conversation, carry

FORM = {"mode": "form", "message": "how many?", "requestedSchema": {"type": "object", "properties": {}}}

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(20)]


def asking(session=None):
    capabilities = SimpleNamespace(elicitation={}, sampling={})
    ctx = SimpleNamespace(protocol_version="2026-07-28", session=SimpleNamespace(client_capabilities=capabilities))
    return Conversation(session, ctx), ctx


def yes(**content):
    return types.ElicitResult(action="accept", content=content)


async def test_what_comes_while_the_client_is_asked_is_asked_in_the_next_round():
    (talk, ctx), heard = asking(), {}

    async def ask(message):
        schema = {"type": "object", "properties": {}}
        question = {"mode": "form", "message": message, "requestedSchema": schema}
        heard[message] = await talk.ask("elicitation", question)

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask, "first")
            await talk.turn.wait()
            talk.sent = tuple(talk.questions)
            tasks.start_soon(ask, "second")
            while len(talk.questions) < 2:
                await anyio.lowlevel.checkpoint()
            assert (talk.sent, list(talk.questions)) == (("symbi",), ["symbi", "symbi-2"])
            for number, key in enumerate(("symbi", "symbi-2")):
                await talk.turn.wait()
                talk.sent = tuple(talk.questions)
                assert talk.sent == (key,) or number == 0
                message = talk.questions[key].request.params.message
                talk.sent = (key,)
                talk.answered(ctx, talk.fitting({key: yes(said=message)}))
    assert {message: answer["content"] for message, answer in heard.items()} == {
        "first": {"said": "first"},
        "second": {"said": "second"},
    }


async def test_what_a_server_asks_at_once_is_one_round_under_its_own_names():
    (talk, ctx), heard = asking(), {}

    async def ask(name):
        heard[name] = (await talk.ask("elicitation", FORM, name, 3))["content"]

    names = ["who", "symbi", "no name of a key"]
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            for number, name in enumerate(names, 1):
                assert not talk.turn.is_set(), "the client is asked once all is there"
                tasks.start_soon(ask, name)
                while len(talk.questions) < number:
                    await anyio.lowlevel.checkpoint()
            assert talk.turn.is_set()
            talk.sent = tuple(talk.questions)
            assert talk.sent == ("who", "symbi", "symbi-2"), "no server speaks under the gateway's name"
            answers = {key: yes(n=number) for number, key in enumerate(talk.sent)}
            for missing in talk.sent:
                assert talk.fitting({key: one for key, one in answers.items() if key != missing}) is None
            assert talk.fitting(None) is None
            talk.answered(ctx, talk.fitting(answers))
    assert heard == {"who": {"n": 0}, "symbi": {"n": 1}, "no name of a key": {"n": 2}}
    assert not talk.questions


@pytest.mark.parametrize("name", ["", "who"])
async def test_no_answer_to_what_was_given_up_is_taken_for_one_to_what_is_asked_since(name):
    (talk, ctx), heard = asking(), []

    async def ask(number):
        heard.append((number, (await talk.ask("elicitation", FORM, name))["content"]))

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            async with anyio.create_task_group() as first:
                first.start_soon(ask, "first")
                await talk.turn.wait()
                talk.sent = tuple(talk.questions)
                first.cancel_scope.cancel()
            tasks.start_soon(ask, "second")
            while not talk.questions:
                await anyio.lowlevel.checkpoint()
            talk.answered(ctx, talk.fitting({talk.sent[0]: yes(of="first")}))
            await talk.turn.wait()
            assert heard == []
            talk.sent = tuple(talk.questions)
            talk.answered(ctx, talk.fitting({talk.sent[0]: yes(of="second")}))
    assert heard == [("second", {"of": "second"})]


async def test_what_does_not_answer_the_question_leaves_the_work_where_it_waits():
    ctx = SimpleNamespace(
        protocol_version="2026-07-28",
        session=SimpleNamespace(client_capabilities=SimpleNamespace(elicitation={}, sampling={})),
    )

    async def work(talk):
        return await talk.ask("elicitation", FORM)

    def params(state=None, answers=None):
        return SimpleNamespace(request_state=state, input_responses=answers)

    said = types.TextContent(type="text", text="4")
    thought = types.CreateMessageResult(role="assistant", content=said, model="m")
    wrong = [
        ("another request", {QUESTION: yes(n=1)}),
        ("call", {}),
        ("call", None),
        ("call", {"else": yes(n=1)}),
        ("call", {QUESTION: thought}),
        ("call", {QUESTION: types.ListRootsResult(roots=[])}),
    ]
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            session = SimpleNamespace(parked={}, tasks=tasks)
            first = await carry(session, ctx, params(), "call", work)
            for key, answers in wrong:
                with pytest.raises(MCPError):
                    await carry(session, ctx, params(first.request_state, answers), key, work)
                assert list(session.parked) == [first.request_state]
            done = await carry(session, ctx, params(first.request_state, {QUESTION: yes(n=1)}), "call", work)
            assert done["content"] == {"n": 1}
            with pytest.raises(MCPError):
                await carry(session, ctx, params(first.request_state, {QUESTION: yes(n=1)}), "call", work)
