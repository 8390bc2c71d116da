"""Connections to servers on the network: a name's addresses are judged before one is connected, and that one is.

What a name resolves to is not looked up a second time, so a name that changes its address in between gains nothing. The
operator's own URL may lead to this machine (`localhost`, `127.0.0.1`, `::1`), for it says so itself; what a server names
may not. Any other address that is not public needs `private_addresses`; link-local ones, among them the metadata services of clouds, are never
connected.
"""

import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final

import anyio
import httpcore2

from symbi.sandbox.addresses import why_not_public

CONNECT_S: Final = 10.0  # to resolve, to connect, and to agree on TLS, each
LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "::1"})
PRIVATE: Final = frozenset({"loopback", "private", "shared by a carrier"})
"""What `private_addresses` opens."""

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]


class AddressRefused(Exception):
    """A name has an address that may not be connected."""


async def resolve(host: str, port: int) -> Sequence[str]:
    """The addresses of a name, as the system's resolver gives them.

    Raises:
        OSError: It has none.
    """
    found = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def why_refused(host: str, address: str, *, private: bool, own: frozenset[str] = LOOPBACK_NAMES) -> str:
    """Why an address of a name may not be connected; empty where it may. Of `own`, this machine may be."""
    why = why_not_public(address)
    if not why or (private and why in PRIVATE):
        return ""
    if why == "loopback" and host in own:
        return ""
    return why


class JudgedNetwork(httpcore2.AsyncNetworkBackend):
    """Connects to addresses that were judged.

    Args:
        private: Addresses of private networks may be connected, too.
        look_up: Finds the addresses of a name.
        own: Names of this machine that the operator has written.
    """

    def __init__(self, *, private: bool, look_up: Resolve = resolve, own: frozenset[str] = LOOPBACK_NAMES) -> None:
        self._own = own
        self._private = private
        self._look_up = look_up
        self._inner = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the library's own parameter
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Connect to the first of a name's addresses that answers; to none if one of them may not be connected."""
        within_s = min(timeout or CONNECT_S, CONNECT_S)
        try:
            with anyio.fail_after(within_s):
                addresses = await self._look_up(host, port)
        except TimeoutError:
            msg = f"its name is not found within {within_s:g} s"
            raise httpcore2.ConnectTimeout(msg) from None
        except OSError as error:
            msg = f"its name is not found: {error.strerror or error}"
            raise httpcore2.ConnectError(msg) from None
        for address in addresses:
            why = why_refused(host, address, private=self._private, own=self._own)
            if why:
                msg = f"has the address {address}, which is {why}"
                raise AddressRefused(msg)
        failure: Exception = httpcore2.ConnectError("its name has no address")
        for address in addresses:
            try:
                return await self._inner.connect_tcp(address, port, within_s, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failure = error
        raise failure

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ASYNC109 - the library's own parameter
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Never."""
        del timeout, socket_options
        msg = f"`{path}` is no address on the network"
        raise AddressRefused(msg)

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await anyio.sleep(seconds)
