"""Questions to a client that takes no requests: one a round, however many a server has at once, each with an answer that fits."""

from types import SimpleNamespace

import anyio
import mcp_types as types
import pytest
from mcp.shared.exceptions import MCPError

from symbi.api.mcp.exchange import QUESTION, Conversation, carry

FORM = {"mode": "form", "message": "how many?", "requestedSchema": {"type": "object", "properties": {}}}

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(20)]


async def test_two_questions_at_once_are_answered_one_after_the_other():
    capabilities = SimpleNamespace(elicitation={})
    ctx = SimpleNamespace(protocol_version="2026-07-28", session=SimpleNamespace(client_capabilities=capabilities))
    talk, heard = Conversation(None, ctx), {}

    async def ask(message):
        schema = {"type": "object", "properties": {}}
        question = {"mode": "form", "message": message, "requestedSchema": schema}
        heard[message] = await talk.ask("elicitation", question)

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask, "first")
            tasks.start_soon(ask, "second")
            for _ in range(2):
                await talk.turn.wait()
                message = talk.question.params.message
                answer = types.ElicitResult(action="accept", content={"said": message})
                talk.answered(ctx, answer)
    assert {message: answer["content"] for message, answer in heard.items()} == {
        "first": {"said": "first"},
        "second": {"said": "second"},
    }


async def test_what_does_not_answer_the_question_leaves_the_work_where_it_waits():
    ctx = SimpleNamespace(
        protocol_version="2026-07-28",
        session=SimpleNamespace(client_capabilities=SimpleNamespace(elicitation={}, sampling={})),
    )

    async def work(talk):
        return await talk.ask("elicitation", FORM)

    def params(state=None, answers=None):
        return SimpleNamespace(request_state=state, input_responses=answers)

    yes = types.ElicitResult(action="accept", content={"n": 1})
    said = types.TextContent(type="text", text="4")
    thought = types.CreateMessageResult(role="assistant", content=said, model="m")
    wrong = [
        ("another request", {QUESTION: yes}),
        ("call", {}),
        ("call", None),
        ("call", {"else": yes}),
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
            done = await carry(session, ctx, params(first.request_state, {QUESTION: yes}), "call", work)
            assert done["content"] == {"n": 1}
            with pytest.raises(MCPError):
                await carry(session, ctx, params(first.request_state, {QUESTION: yes}), "call", work)
