"""Sessions of the gateway over HTTP: each conversation its own, and none longer than it is used."""

import anyio
import pytest

from symbi.audit.event import parse_event
from symbi.audit.query import EventFilter
from symbi.testing.door import MODERN
from symbi.testing.gateway_http import over_http
from symbi.testing.mcp_gateway import open_gateway

pytestmark = pytest.mark.anyio

CONFIG = """\
[gateway]
port = 0
{more}
[mcp.clients.ann]
[mcp.clients.bob]
"""
ALLOW = '@id("all") permit (principal, action, resource);'
AGENT = 'agent idle() { with { "done" } }'


def gateway(folder, more=""):
    return open_gateway(folder, config=CONFIG.format(more=more), policies=ALLOW, agents=AGENT)


async def gone(sessions, left):
    with anyio.fail_after(20):
        while len(sessions) > left:  # they end beside this task
            await anyio.lowlevel.checkpoint()


async def test_each_session_of_the_older_revision_is_one_of_the_gateway_and_ends_with_it(tmp_path):
    async with gateway(tmp_path) as under_test, over_http(under_test, ["ann", "bob"]) as served:
        sessions = under_test.gateway.sessions
        async with (
            served.client("ann", mode="legacy") as one,
            served.client("ann", mode="legacy") as two,
            served.client("bob", mode="legacy") as three,
        ):
            for client in (one, two, three, one):
                await client.list_tools()
            assert sorted(session.client.name for session in sessions.values()) == ["ann", "ann", "bob"]
        await gone(sessions, 0)
        with anyio.fail_after(20):
            while (kinds := [event.event_type for event in await events(under_test)]).count("session.closed") < 3:
                pass  # what is gone is on its way to the trail
        assert kinds.count("session.opened") == kinds.count("session.closed") == 3


async def events(under_test):
    rooms = under_test.runtime.rooms
    rows = await rooms.world.log.read(lambda: list(rooms.effects.select(EventFilter())))
    return [parse_event(row.record, sequence=row.sequence) for row in rows]


async def test_requests_without_sessions_share_one_for_each_client_until_it_is_idle(tmp_path):
    async with (
        gateway(tmp_path, "session_idle_s = 1.0") as under_test,
        over_http(under_test, ["ann", "bob"]) as served,
    ):
        sessions = under_test.gateway.sessions
        for name in ("ann", "ann", "bob"):
            async with served.client(name, mode=MODERN) as client:
                await client.list_tools()
        assert sorted(session.client.name for session in sessions.values()) == ["ann", "bob"]
        await gone(sessions, 0)


async def test_changes_are_told_of_over_http_too(tmp_path):
    async with (
        gateway(tmp_path) as under_test,
        over_http(under_test, ["ann"]) as served,
        served.client("ann", mode="legacy") as client,
    ):
        assert client.session.server_capabilities.tools.list_changed
