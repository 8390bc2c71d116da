"""Names to addresses, once, and connections to addresses, never to names."""

import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import anyio
import psutil
from anyio.abc import ByteStream
from anyio.streams.tls import TLSStream

from symbi.errors import Denied, Unavailable
from symbi.sandbox.addresses import parse_address, why_not_public

MAX_ADDRESSES: Final = 16  # of one name
RESOLVE_TIMEOUT_S: Final = 10.0

Resolve = Callable[[str], Awaitable[Sequence[str]]]
Dial = Callable[[str, int, str | None, ssl.SSLContext], Awaitable[ByteStream]]


async def resolve(host: str) -> Sequence[str]:
    """The addresses of a name, as this machine knows them; of the name itself, not of one in a search domain.

    Raises:
        OSError: There are none.
    """
    found = await anyio.getaddrinfo(host + ".", None, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(str(one[4][0]) for one in found))


async def dial(address: str, port: int, name: str | None, context: ssl.SSLContext) -> ByteStream:
    """Connect with an address.

    Args:
        address: Pinned.
        port: There.
        name: Whom the certificate must name; None for no TLS.
        context: Verifies it.

    Raises:
        OSError: There is no connection, or the other end is not who it should be.
    """
    stream = await anyio.connect_tcp(address, port)
    if name is None:
        return stream
    try:
        return await TLSStream.wrap(stream, server_side=False, hostname=name, ssl_context=context)
    except BaseException:
        await anyio.aclose_forcefully(stream)
        raise


def own_addresses() -> frozenset[str]:
    """The addresses of this machine, public ones among them: what listens on them is not for a sandbox."""
    found = (one.address.partition("%")[0] for several in psutil.net_if_addrs().values() for one in several)
    return frozenset(address for address in found if parse_address(address) is not None)


async def pin(host: str, resolver: Resolve, permitted: frozenset[str]) -> tuple[str, ...]:
    """The addresses of a granted host, for as long as the grant lasts.

    One that is not public refuses the name with all its addresses: who answers with such is not to be trusted with the rest.

    Args:
        host: As in the grant.
        resolver: Asked once.
        permitted: Addresses that pass whatever they are; for tests.

    Raises:
        Denied: An address is not public, or is this machine's (`egress.address`).
        Unavailable: There is none (`unavailable.name`).
    """
    try:
        with anyio.fail_after(RESOLVE_TIMEOUT_S):
            found = [host] if parse_address(host) is not None else list(await resolver(host))
    except (OSError, TimeoutError):
        found = []
    if not found or len(found) > MAX_ADDRESSES:
        msg = f"the name `{host}` has {'too many addresses' if found else 'no address that can be found now'}"
        raise Unavailable(msg, code="unavailable.name", host=host)
    own = own_addresses()
    for address in found:
        why = why_not_public(address) or ("this machine" if address in own else "")
        if why and address not in permitted:
            msg = f"`{host}` is at an address that a sandbox may not reach: {why}"
            raise Denied(msg, code="egress.address", host=host)
    return tuple(found)
