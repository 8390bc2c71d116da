"""Over HTTP, too, clients hear of resources that change: on the stream that they listen on, in either era."""

import sys

import anyio
import mcp_types as types
import pytest

from symbi.api.mcp import watching
from symbi.testing.gateway_http import over_http
from symbi.testing.mcp_gateway import open_gateway

pytestmark = pytest.mark.anyio

MODERN = "2026-07-28"
URI = "note://1"


@pytest.mark.parametrize("mode", ["legacy", MODERN])
async def test_changes_of_a_resource_are_told_over_http(tmp_path, root, mode, monkeypatch):
    monkeypatch.setattr(watching, "TELL_EVERY_S", 0.0)
    heard = anyio.Event()

    async def take(message):
        if isinstance(message, types.ResourceUpdatedNotification) and str(message.params.uri) == URI:
            heard.set()

    config = f"""
[gateway]
port = 0
calls_rate = 10000.0
[mcp]
tool_verification = "tofu"
[mcp.servers.house]
command = ["{sys.executable}", "{root / "tests" / "data" / "servers" / "watched.py"}"]
[mcp.clients.ann]
"""
    allow = '@id("all") permit (principal, action, resource);'
    async with (
        open_gateway(tmp_path, config=config, policies=allow, agents="agent a { with { 1 } }") as one,
        over_http(one, ["ann"]) as served,
        served.client("ann", mode=mode, message_handler=take) as client,
    ):
        await client.list_tools()
        if mode == MODERN:
            async with client.listen(resource_subscriptions=[URI]) as stream:
                assert stream.honored.resource_subscriptions == [URI]
                await touched(client, heard)
        else:
            subscribe = types.SubscribeRequest(params=types.SubscribeRequestParams(uri=URI))
            await client.session.send_request(subscribe, types.EmptyResult)
            await touched(client, heard)
        with anyio.fail_after(30):
            while mode == MODERN and next(iter(one.gateway.sessions.values())).watched:
                await anyio.lowlevel.checkpoint()
    assert not one.gateway.watch._hears, "nothing is left behind"


async def touched(client, heard):
    """The resource changes, until the client hears of it: its stream may be opened after it has subscribed."""
    with anyio.fail_after(60):
        while not heard.is_set():
            await client.call_tool("house__touch", {"uri": URI})
            await anyio.lowlevel.checkpoint()
