"""Questions to a client that takes no requests: one a round, however many a server has at once."""

from types import SimpleNamespace

import anyio
import pytest

from symbi.api.mcp.exchange import Conversation

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
                answer = SimpleNamespace(model_dump=lambda said=message, **_: {"said": said})
                talk.answered(ctx, answer)
    assert heard == {"first": {"said": "first"}, "second": {"said": "second"}}
