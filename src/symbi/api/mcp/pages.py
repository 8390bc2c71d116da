"""What a browser wants to be told before it lets a page of another origin ask, and read what is answered (CORS)."""

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Final, TypeAlias

Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]

FORGET_S: Final = 600  # after which a browser asks again whether a page may
MAY_SEND: Final = frozenset({"accept", "authorization", "content-type", "last-event-id"})
OF_THE_PROTOCOL: Final = "mcp-"  # begins each further header of its own
MAY_READ: Final = b"mcp-session-id, mcp-protocol-version, www-authenticate, retry-after"


def for_page(origin: str, send: Send) -> Send:
    """An answer to a page that may ask.

    Args:
        origin: The page's, which is known.
        send: Sends it.
    """

    async def told(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            ours = [
                (b"access-control-allow-origin", origin.encode("latin-1")),
                (b"access-control-expose-headers", MAY_READ),
                (b"vary", b"origin"),
            ]
            message = {**message, "headers": [*message.get("headers", ()), *ours]}
        await send(message)

    return told


async def let_ask(headers: Mapping[bytes, bytes], send: Send) -> None:
    """Answer the question whether a page that may ask may do it so; it has no token yet."""
    wanted = headers.get(b"access-control-request-headers", b"").decode("latin-1").lower().split(",")
    names = {name.strip() for name in wanted}
    allowed = sorted(name for name in names if name in MAY_SEND or _is_of_the_protocol(name))
    fields = [
        (b"access-control-allow-methods", b"GET, POST, DELETE"),
        (b"access-control-allow-headers", ", ".join(allowed).encode()),
        (b"access-control-max-age", str(FORGET_S).encode()),
        (b"cache-control", b"no-store"),
    ]
    await send({"type": "http.response.start", "status": 204, "headers": fields})
    await send({"type": "http.response.body", "body": b""})


def _is_of_the_protocol(name: str) -> bool:
    return name.startswith(OF_THE_PROTOCOL) and name.isascii() and name.replace("-", "").isalnum()
