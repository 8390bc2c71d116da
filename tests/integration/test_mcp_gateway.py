"""The gateway, seen by the SDK's own client: what is served, what passes through unharmed, what is refused and how."""

import sys

import pytest

from symbi.testing.mcp_gateway import open_gateway

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]
ERAS = pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
AGENTS = """
agent adder(a: int, b: int) { with { a + b } }
agent guesser(word: String) { with { log(word); word } }
"""
ALLOW = '@id("test.all") permit (principal, action, resource);'


@pytest.fixture
def opened(tmp_path, root):
    servers = root / "tests" / "data" / "servers"

    def open_it(policies=ALLOW, config="", **options):
        text = f"""
[mcp]
tool_verification = "tofu"
[mcp.servers.desk]
command = ["{sys.executable}", "{servers / "desk.py"}"]
manifest = "{servers / "desk.toml"}"
{config}
"""
        return open_gateway(tmp_path, config=text, policies=policies, agents=AGENTS, **options)

    return open_it


@ERAS
async def test_tools_are_served_under_stable_names_and_answer(opened, mode):
    async with opened() as one, one.client(mode=mode) as client:
        names = [tool.name for tool in (await client.list_tools()).tools]
        assert "desk__send_mail" in names
        assert "symbi__run_agent" in names
        result = await client.call_tool("desk__send_mail", {"to": "anna@example.com", "subject": "s", "body": "b"})
        assert (result.is_error, result.content[0].text) == (False, "sent to anna@example.com")
