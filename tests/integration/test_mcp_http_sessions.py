"""Sessions of the gateway over HTTP: each conversation its own, and none longer than it is used."""

import anyio
import httpx2
import pytest

from symbi.audit.event import parse_event
from symbi.audit.query import EventFilter
from symbi.testing.door import MODERN, started_session
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


async def idle(under_test, later, left):
    """Let more time pass than sessions may be idle, from whenever they are."""
    while len(sessions := under_test.gateway.sessions) > left:
        await later(61, under_test.runtime.rooms.world.log)
        for _ in range(1_000):
            await anyio.lowlevel.checkpoint()
    assert len(sessions) == left


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


async def test_requests_without_sessions_share_one_for_each_client_until_it_is_idle(tmp_path, later):
    async with (
        gateway(tmp_path, "session_idle_s = 60.0") as under_test,
        over_http(under_test, ["ann", "bob"]) as served,
    ):
        sessions = under_test.gateway.sessions
        for name in ("ann", "ann", "bob"):
            async with served.client(name, mode=MODERN) as client:
                await client.list_tools()
        assert sorted(session.client.name for session in sessions.values()) == ["ann", "bob"]
        await idle(under_test, later, 0)


async def test_changes_are_told_of_over_http_too(tmp_path):
    async with (
        gateway(tmp_path) as under_test,
        over_http(under_test, ["ann"]) as served,
        served.client("ann", mode="legacy") as client,
    ):
        assert client.session.server_capabilities.tools.list_changed


async def test_a_session_of_the_older_revision_lasts_as_long_as_its_client_listens(tmp_path, later):
    async with (
        gateway(tmp_path, "session_idle_s = 60.0") as under_test,
        over_http(under_test, ["ann", "bob"]) as served,
        served.client("ann", mode="legacy") as client,
    ):
        await client.list_tools()
        sessions = under_test.gateway.sessions
        own = set(sessions)
        async with served.client("bob", mode=MODERN) as other:
            await other.list_tools()
        await idle(under_test, later, 1)
        assert set(sessions) == own, "what it has read is still known, and what it subscribed to"
        await client.list_tools()
        assert set(sessions) == own


async def test_a_session_of_the_older_revision_whose_client_is_gone_ends_once_it_is_idle(tmp_path, later):
    async with (
        gateway(tmp_path, "session_idle_s = 60.0") as under_test,
        over_http(under_test, ["ann"]) as served,
        httpx2.AsyncClient(headers={"authorization": f"Bearer {served.tokens['ann']}"}, timeout=30) as client,
    ):
        headers = await started_session(client, served.url)
        listing = {"jsonrpc": "2.0", "id": 2, "method": "tools/list"}
        assert (await client.post(served.url, json=listing, headers=headers)).status_code == 200
        assert len(under_test.gateway.sessions) == 1
        await idle(under_test, later, 0)
        assert (await client.post(served.url, json=listing, headers=headers)).status_code == 404


async def test_a_client_that_the_configuration_did_not_have_at_the_start_is_told_what_is_to_be_done(tmp_path):
    async with gateway(tmp_path) as under_test, over_http(under_test, ["eve"]) as served:
        headers = {"authorization": f"Bearer {served.tokens['eve']}"}
        async with httpx2.AsyncClient(headers=headers, timeout=30) as client:
            refused = await client.post(served.url, json={})
        assert refused.status_code == 403
        assert "has to be started anew" in refused.json()["error_description"]
