"""Sessions of one client have a bound of their own: whoever opens as many as there are shuts nobody else out."""

import pytest
from mcp.shared.exceptions import MCPError

from symbi.api.mcp.clients import client_of
from symbi.errors import Overloaded
from symbi.testing.gateway_http import over_http
from symbi.testing.mcp_gateway import open_gateway

pytestmark = pytest.mark.anyio

CONFIG = """\
[gateway]
port = 0
max_sessions = {most}
max_client_sessions = 2
[mcp.clients.ann]
[mcp.clients.bob]
"""


def gateway(folder, most=8):
    config = CONFIG.format(most=most)
    return open_gateway(folder, config=config, policies='@id("all") permit (principal, action, resource);', agents="")


async def test_one_client_cannot_shut_the_others_out(tmp_path):
    async with gateway(tmp_path) as one, one.client("ann"), one.client("ann"):
        ann, bob = client_of(one.settings, "ann"), client_of(one.settings, "bob")
        with pytest.raises(Overloaded) as refused:
            async with one.gateway.session(ann, "memory"):
                pass
        assert refused.value.code == "mcp.client_sessions"
        with pytest.raises(Overloaded):
            one.gateway.check_room(ann)
        async with one.client("bob") as client:
            await client.list_tools()
            one.gateway.check_room(bob)
        assert one.ended == ["bob"]


async def test_what_ends_makes_room_for_its_client(tmp_path):
    async with gateway(tmp_path) as one, one.client("ann"):
        for _ in range(4):
            async with one.client("ann") as client:
                await client.list_tools()


async def test_all_together_have_the_bound_that_they_had(tmp_path):
    async with gateway(tmp_path, most=3) as one, one.client("ann"), one.client("ann"), one.client("bob"):
        with pytest.raises(Overloaded) as refused:
            one.gateway.check_room(client_of(one.settings, "bob"))
        assert refused.value.code == "mcp.sessions"


async def test_at_the_door_it_is_the_same_bound(tmp_path):
    async with (
        gateway(tmp_path) as one,
        over_http(one, ["ann", "bob"]) as served,
        served.client("ann", mode="legacy") as first,
        served.client("ann", mode="legacy") as second,
    ):
        for client in (first, second):
            await client.list_tools()
        with pytest.raises((MCPError, ExceptionGroup)):
            async with served.client("ann", mode="legacy") as third:
                await third.list_tools()
        async with served.client("bob", mode="legacy") as other:
            await other.list_tools()
