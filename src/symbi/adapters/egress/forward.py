"""One forward request: read from the sandbox, written anew to the outside, and its answer written anew to the sandbox.

h11 frames the bodies. Heads are our own: what the sandbox sent was read by `symbi.sandbox.heads`.
"""

import re
from collections.abc import AsyncIterator, Iterable
from http import HTTPStatus
from typing import Final, NamedTuple

import anyio
import anyio.to_thread
import h11

from symbi.adapters.egress.credential import Secret
from symbi.adapters.egress.record import Cut
from symbi.adapters.egress.streams import Inside, Outside
from symbi.sandbox.heads import HOP_BY_HOP, MALFORMED, Head, Refusal, Route

WRONG_ANSWER: Final = Refusal("egress.answer", HTTPStatus.BAD_GATEWAY)
SHOWS: Final = Refusal("egress.credential", HTTPStatus.BAD_GATEWAY)
IDLE: Final = Refusal("egress.time", HTTPStatus.GATEWAY_TIMEOUT)
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_TOKENS: Final = re.compile(rb"[ \t]*,[ \t]*")
_NOT_WITH_SECRET: Final = frozenset({b"accept-encoding", b"if-range", b"range"})
"""What makes an answer come packed or in parts, in which a secret could not be seen."""
_OTHER_METHODS: Final = frozenset({b"x-http-method", b"x-http-method-override", b"x-method-override"})
"""By which some hosts take a request for one of another method than was looked at."""
_NOT_BACK: Final = HOP_BY_HOP | {b"alt-svc", b"content-length"}

Headers = list[tuple[bytes, bytes]]


class _Answer(NamedTuple):
    status: int
    reason: bytes
    headers: Headers


async def forward(inside: Inside, outside: Outside, head: Head, route: Route, secret: Secret | None) -> None:
    """Carry one request out and its answer back.

    Args:
        inside: The sandbox.
        outside: Who was granted; with TLS where the route says so.
        head: Of the request.
        route: Where it goes.
        secret: What is put in.

    Raises:
        Cut: It breaks a rule or a bound, of either side.
        BrokenResourceError: A side is gone.
    """
    far = h11.Connection(h11.CLIENT, max_incomplete_event_size=inside.limits.head_bytes)
    near = h11.Connection(h11.SERVER, max_incomplete_event_size=inside.limits.head_bytes)
    near.receive_data(_synthetic(head))
    near.next_event()
    try:
        await _request(inside, outside, head, _headers(head, route, secret), (near, far))
    except h11.ProtocolError:
        raise Cut(MALFORMED) from None
    except TimeoutError:
        raise Cut(IDLE) from None
    try:
        await _answer(inside, outside, head, (near, far), secret)
    except h11.ProtocolError:
        raise Cut(WRONG_ANSWER) from None
    except TimeoutError:
        raise Cut(IDLE) from None


def _synthetic(head: Head) -> bytes:
    """A head for h11, which then reads the body as we have understood that it is framed."""
    framing = "transfer-encoding: chunked" if head.length is None else f"content-length: {head.length}"
    version = "1.0" if head.old else "1.1"
    return f"{head.method} / HTTP/{version}\r\nhost: x\r\n{framing}\r\nconnection: close\r\n\r\n".encode("ascii")


def _headers(head: Head, route: Route, secret: Secret | None) -> Headers:
    endpoint = route.endpoint
    host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
    default = 443 if route.tls else 80
    made: Headers = [(b"host", (host if endpoint.port == default else f"{host}:{endpoint.port}").encode("ascii"))]
    gone = _OTHER_METHODS if endpoint.methods else frozenset[bytes]()
    if secret is not None:
        gone |= _NOT_WITH_SECRET | {secret.header[0]}
        made += [secret.header, (b"accept-encoding", b"identity")]
    made += [(name, value) for name, value in head.headers if name not in gone]
    if head.length is None:
        made.append((b"transfer-encoding", b"chunked"))
    elif head.length or head.method in {"POST", "PUT", "PATCH"}:
        made.append((b"content-length", str(head.length).encode("ascii")))
    return [*made, (b"connection", b"close")]


async def _request(
    inside: Inside, outside: Outside, head: Head, headers: Headers, ends: tuple[h11.Connection, h11.Connection]
) -> None:
    near, far = ends
    if head.expects:
        with anyio.fail_after(inside.idle_s):
            await inside.tell_to_go_on(_CONTINUE)
    request = h11.Request(method=head.method, target=head.path, headers=headers)
    with anyio.fail_after(inside.idle_s):
        await outside.send(far.send(request) or b"")
    while True:
        event = near.next_event()
        if event is h11.NEED_DATA:
            with anyio.fail_after(inside.idle_s):
                near.receive_data(await inside.receive())
        elif isinstance(event, h11.Data):
            with anyio.fail_after(inside.idle_s):
                await outside.send(far.send(event) or b"")
        elif isinstance(event, h11.EndOfMessage):
            with anyio.fail_after(inside.idle_s):
                await outside.send(far.send(h11.EndOfMessage()) or b"")  # trailers go no further
            return
        else:
            raise Cut(MALFORMED)


async def _answer(
    inside: Inside, outside: Outside, head: Head, ends: tuple[h11.Connection, h11.Connection], secret: Secret | None
) -> None:
    near, far = ends
    begun = await _begun(inside, outside, far)
    pieces = _pieces(inside, outside, far)
    if secret is not None:
        body = await _looked_through(inside, begun, pieces, secret)
        if body or not _has_no_body(head, begun):
            begun.headers[:] = [one for one in begun.headers if one[0] != b"content-length"]
            begun.headers.append((b"content-length", str(len(body)).encode("ascii")))
        pieces = _one(body)
    response = h11.Response(status_code=begun.status, reason=begun.reason, headers=begun.headers)
    await _tell(inside, near.send(response))
    async for piece in pieces:
        await _tell(inside, near.send(h11.Data(data=piece)))
    await _tell(inside, near.send(h11.EndOfMessage()))


async def _begun(inside: Inside, outside: Outside, far: h11.Connection) -> _Answer:
    """The head of the answer, cleaned; interim answers are passed over."""
    while True:
        event = far.next_event()
        if event is h11.NEED_DATA:
            with anyio.fail_after(inside.idle_s):
                far.receive_data(await outside.receive())
        elif isinstance(event, h11.Response):
            break
        elif not isinstance(event, h11.InformationalResponse):
            raise Cut(WRONG_ANSWER)
    named = _TOKENS.split(b",".join(value for name, value in event.headers if name == b"connection").lower())
    gone = _NOT_BACK | frozenset(named)
    headers: Headers = [
        (name, value) for name, value in event.headers if name not in gone and not name.startswith(b"proxy-")
    ]
    lengths = [value for name, value in event.headers if name == b"content-length"]
    if lengths and not any(name == b"transfer-encoding" for name, _ in event.headers):
        headers.append((b"content-length", lengths[0]))
    headers.append((b"connection", b"close"))
    return _Answer(event.status_code, event.reason, headers)


async def _pieces(inside: Inside, outside: Outside, far: h11.Connection) -> AsyncIterator[bytes]:
    """The answer's body."""
    while True:
        event = far.next_event()
        if event is h11.NEED_DATA:
            with anyio.fail_after(inside.idle_s):
                far.receive_data(await outside.receive())
        elif isinstance(event, h11.Data):
            yield bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            return
        else:
            raise Cut(WRONG_ANSWER)


def _has_no_body(head: Head, begun: _Answer) -> bool:
    """Whether a length, if there is one, is that of what another request would give."""
    return head.method == "HEAD" or begun.status in {HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED}


async def _one(body: bytes) -> AsyncIterator[bytes]:
    if body:
        yield body


async def _looked_through(inside: Inside, begun: _Answer, pieces: AsyncIterator[bytes], secret: Secret) -> bytes:
    """The whole body of an answer in which the secret does not show.

    Raises:
        Cut: It does show, or it could not be seen if it did, or the answer is too large to be kept.
    """
    packed = any(name == b"content-encoding" and value.lower() != b"identity" for name, value in begun.headers)
    if packed or begun.status == HTTPStatus.PARTIAL_CONTENT or secret.shows_in(_written(begun)):
        raise Cut(SHOWS)
    body = bytearray()
    async for piece in pieces:
        body += piece
        if len(body) > inside.limits.masked_bytes:
            raise Cut(Refusal("egress.bytes", HTTPStatus.BAD_GATEWAY))
    if await anyio.to_thread.run_sync(secret.shows_in, bytes(body)):  # megabytes of `%41` take a while
        raise Cut(SHOWS)
    return bytes(body)


def _written(begun: _Answer) -> bytes:
    lines: Iterable[bytes] = (name + b": " + value for name, value in begun.headers)
    return b"\n".join([begun.reason, *lines])


async def _tell(inside: Inside, data: bytes | None) -> None:
    if data:
        with anyio.fail_after(inside.idle_s):
            await inside.send(data)
