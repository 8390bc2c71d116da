"""What a server says while a call is at work is remembered as its answer is, and what a client answers it is judged."""

import sys

import mcp_types as types
import pytest

from symbi.audit.event import parse_event
from symbi.audit.query import EventFilter
from symbi.policy.library import BASE, GATEWAY
from symbi.testing.mcp_gateway import open_gateway

pytestmark = pytest.mark.anyio
ERAS = pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
ASKING = """
@id("test.asks")
permit (principal, action in [Action::"ServerElicitation", Action::"ServerSampling"], resource);
"""
SHIPPED = "\n".join([BASE.text, *(source.text for source in GATEWAY.values()), ASKING])
SECRETLY = """
[tools.steps.output]
"$" = { confidentiality = "secret" }
"""
CARD = 4929123456789012  # as `read_record` has it


@pytest.fixture
def opened(tmp_path, root):
    servers = root / "tests" / "data" / "servers"

    def open_it(declared=""):
        manifest = tmp_path / "desk.toml"
        manifest.write_text((servers / "desk.toml").read_text() + declared)
        config = f"""
[mcp]
tool_verification = "tofu"
[mcp.servers.desk]
command = ["{sys.executable}", "{servers / "desk.py"}"]
manifest = "{manifest}"
asks = ["elicitation", "sampling"]
"""
        return open_gateway(tmp_path, config=config, policies=SHIPPED, agents="agent a { with { 1 } }")

    return open_it


async def denials(one):
    log = one.runtime.rooms.world.log
    wanted = EventFilter(verdict="deny", policy="gateway.no-confidential-answer")
    rows = await log.read(lambda: list(one.runtime.rooms.effects.select(wanted)))
    return [parse_event(row.record, sequence=row.sequence) for row in rows]


@pytest.mark.parametrize(("declared", "is_denied"), [(SECRETLY, True), ("", False)])
async def test_progress_is_as_confidential_as_the_answer_is_declared(opened, declared, is_denied):
    async def progress(done, total, message):
        pass

    async with opened(declared) as one, one.client() as client:
        await client.call_tool("desk__steps", {}, progress_callback=progress)
        sent = await client.call_tool("desk__send_mail", {"to": "bob@firm.org", "body": "so far: step 2"})
        assert sent.is_error is is_denied
        if is_denied:
            assert sent.meta["symbi/error"]["policies"] == ["gateway.secrets-stay"]


@ERAS
async def test_what_a_person_answers_a_server_is_held_against_what_was_read(opened, mode):
    answers = [4, CARD, 4]

    async def answer(context, params):
        return types.ElicitResult(action="accept", content={"n": answers.pop(0)})

    async with opened() as one, one.client(mode=mode, elicitation_callback=answer) as client:
        await client.call_tool("desk__read_record", {})
        passed = await client.call_tool("desk__asks", {})
        assert passed.content[0].text == "accept {'n': 4}"
        refused = await client.call_tool("desk__asks", {})
        assert str(CARD) not in str(refused)
        [denied] = await denials(one)
        assert denied.details["session"]
        assert str(CARD) not in str(denied)
        again = await client.call_tool("desk__asks", {})
        assert again.content[0].text == "accept {'n': 4}", "one refusal ends nothing else"


async def test_what_a_model_answers_a_server_is_held_against_what_was_read(opened):
    async def think(context, params):
        said = types.TextContent(type="text", text="it is 4929 1234 5678 9012")
        return types.CreateMessageResult(role="assistant", content=said, model="m")

    async with opened() as one, one.client(sampling_callback=think) as client:
        await client.call_tool("desk__read_record", {})
        refused = await client.call_tool("desk__thinks", {})
        assert "4929" not in str(refused)
        assert len(await denials(one)) == 1
