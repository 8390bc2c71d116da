"""Where servers at an address may be: what their names resolve to is judged before it is connected."""

import httpcore2
import httpx2
import pytest

from symbi.adapters.mcp import HttpToolServer
from symbi.adapters.mcp.bounded import BoundedTransport
from symbi.adapters.mcp.network import AddressRefused, JudgedNetwork
from symbi.adapters.mcp.traffic import Traffic
from symbi.clock import SystemClock
from symbi.errors import ConfigError
from symbi.guard.permit import Authority

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("host", "address", "private", "refused"),
    [
        ("tools.example", "8.8.8.8", False, ""),
        ("tools.example", "127.0.0.1", False, "loopback"),
        ("tools.example", "::1", False, "loopback"),
        ("tools.example", "10.0.0.7", False, "private"),
        ("tools.example", "10.0.0.7", True, ""),
        ("tools.example", "fd00::7", True, ""),
        ("tools.example", "169.254.169.254", False, "link-local"),
        ("tools.example", "169.254.169.254", True, "link-local"),
        ("tools.example", "fd00:ec2::254", True, "metadata"),
        ("tools.example", "fd20:ce::254", True, "metadata"),
        ("tools.example", "100.100.100.200", True, "metadata"),
        ("tools.example", "168.63.129.16", True, "metadata"),
        ("tools.example", "fe80::1", True, "link-local"),
        ("tools.example", "64:ff9b::7f00:1", True, "IPv4 in IPv6"),
        ("localhost", "127.0.0.1", False, ""),
        ("localhost", "10.0.0.7", False, "private"),
    ],
)
async def test_addresses_are_judged_before_they_are_connected(host, address, private, refused):
    connected = []

    async def look_up(_host, _port):
        return [address]

    class Inner(httpcore2.AsyncNetworkBackend):
        async def connect_tcp(self, host, port, *_):
            connected.append((host, port))
            return "stream"

    network = JudgedNetwork(private=private, look_up=look_up)
    network._inner = Inner()
    if refused:
        with pytest.raises(AddressRefused, match=refused):
            await network.connect_tcp(host, 443)
        assert connected == []
    else:
        assert await network.connect_tcp(host, 443) == "stream"
        assert connected == [(address, 443)], "what was judged is what is connected, without a second look-up"


@pytest.mark.parametrize(
    ("url", "issuer", "asked", "reached"),
    [
        ("https://tools.example/mcp", "", "http://localhost:6333/collections", False),
        ("https://tools.example/mcp", "", "https://127.0.0.1/x", False),
        ("https://tools.example/mcp", "", "http://login.example/token", False),
        ("https://tools.example/mcp", "https://login.example", "https://[::1]/x", False),
        ("http://localhost:1/mcp", "", "http://localhost:2/token", True),
        ("https://tools.example/mcp", "http://127.0.0.1:3", "http://127.0.0.1:3/token", True),
        ("https://tools.example/mcp", "", "https://login.example/token", True),
        ("http://login.example/mcp", "", "http://login.example/token", True),
        ("https://tools.example/mcp", "http://login.example", "http://login.example/token", True),
    ],
)
async def test_what_a_server_names_for_tokens_is_not_asked_on_this_machine_or_in_the_clear(url, issuer, asked, reached):
    asked_for, connected = [], []

    async def look_up(host, _port):
        asked_for.append(host)
        return ["8.8.8.8" if host == "login.example" else "127.0.0.1"]

    class Inner(httpcore2.AsyncNetworkBackend):
        async def connect_tcp(self, host, port, *_):
            connected.append((host, port))
            raise httpcore2.ConnectError("as far as this goes")

    transport = BoundedTransport(
        httpx2.URL(url), Traffic(), lambda _why: None, private=False, look_up=look_up, issuer=issuer
    )
    transport._pool._network_backend._inner = Inner()
    async with httpx2.AsyncClient(transport=transport, trust_env=False) as client:
        assert (await client.get(asked)).status_code == 503
    assert bool(connected) is reached


async def test_one_address_that_may_not_be_connected_is_enough_to_connect_none():
    async def look_up(_host, _port):
        return ["8.8.8.8", "127.0.0.1"]

    with pytest.raises(AddressRefused):
        await JudgedNetwork(private=False, look_up=look_up).connect_tcp("tools.example", 443)


@pytest.mark.parametrize(
    ("url", "headers"),
    [
        ("http://tools.example/mcp", {}),
        ("https://name:word@tools.example/mcp", {}),
        ("ftp://tools.example/", {}),
        ("https:///mcp", {}),
        ("https://tools.example/mcp#part", {}),
        ("https://tools.example/mcp", {"Host": "other"}),
        ("https://tools.example/mcp", {"Mcp-Session-Id": "x"}),
        ("https://tools.example/mcp", {"X-A": "a\r\nX-B: b"}),
    ],
)
def test_an_address_or_header_that_cannot_be_used_is_refused_at_once(url, headers):
    with pytest.raises(ConfigError):
        HttpToolServer("s", url, Authority(SystemClock()), headers=headers)
