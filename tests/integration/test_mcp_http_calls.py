"""Calls of the protocol without sessions over HTTP, as requests: what they wait for, and what their headers have to say."""

import sys
from textwrap import dedent

import httpx2
import pytest

from symbi.testing.door import ACCEPT, MODERN, spoken
from symbi.testing.gateway_http import over_http
from symbi.testing.mcp_gateway import open_gateway

pytestmark = pytest.mark.anyio

ALLOW = '@id("all") permit (principal, action, resource);'
CONFIG = """
[gateway]
port = 0
[mcp]
tool_verification = "tofu"
[mcp.clients.ann]
"""
WEATHER = """
    import anyio
    import mcp_types as types
    from mcp.server.lowlevel import Server
    from mcp.server.stdio import stdio_server

    CITY = {"type": "object", "properties": {"city": {"type": "string", "x-mcp-header": "City"}}}

    async def list_tools(ctx, params):
        return types.ListToolsResult(tools=[types.Tool(name="rain", description="Says it.", input_schema=CITY)])

    async def call_tool(ctx, params):
        return types.CallToolResult(content=[types.TextContent(type="text", text="it rains")])

    async def main():
        server = Server("weather", on_list_tools=list_tools, on_call_tool=call_tool)
        async with stdio_server() as streams:
            await server.run(*streams, server.create_initialization_options())

    anyio.run(main)
"""


@pytest.fixture
def weather(tmp_path):
    program = tmp_path / "weather.py"
    program.write_text(dedent(WEATHER))

    def open_it(*servers):
        tables = [
            f'[mcp.servers.{one}]\ncommand = ["{sys.executable}", "{program}"]\nsame_names = ["*"]' for one in servers
        ]
        config = CONFIG + "\n".join(tables)
        return open_gateway(tmp_path, config=config, policies=ALLOW, agents="agent a { with { 1 } }")

    return open_it


def http_of(served, name="ann"):
    headers = {**ACCEPT, "authorization": f"Bearer {served.tokens[name]}"}
    return httpx2.AsyncClient(headers=headers, timeout=60)


async def called(served, http, tool, arguments, **headers):
    """The answer to a call, as HTTP has it."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    params = {"name": tool, "arguments": arguments, "_meta": meta}
    said = {"mcp-protocol-version": MODERN, "mcp-method": "tools/call", "mcp-name": tool}
    said |= {name.replace("_", "-"): value for name, value in headers.items()}
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    return await http.post(served.url, json=message, headers=said)


async def test_a_call_waits_for_no_server_but_its_own(weather):
    async with weather("near", "far") as one, over_http(one, ["ann"]) as served, http_of(served) as http:
        answer = await called(served, http, "near__rain", {"city": "Bonn"}, mcp_param_city="Bonn")
        assert spoken(answer)["result"]["content"][0]["text"] == "it rains"
        (session,) = one.gateway.sessions.values()
        assert session.servers == {"near"}
        assert not session.coming
        assert not session.down


async def test_a_header_that_says_something_else_than_the_call_is_refused(weather):
    async with weather("near") as one, over_http(one, ["ann"]) as served, http_of(served) as http:
        assert (await called(served, http, "near__rain", {"city": "Bonn"}, mcp_param_city="Bonn")).status_code == 200
        for headers in ({"mcp_param_city": "Rome"}, {}):
            refused = await called(served, http, "near__rain", {"city": "Bonn"}, **headers)
            assert refused.status_code == 400
            assert "Mcp-Param-City" in spoken(refused)["error"]["message"]
