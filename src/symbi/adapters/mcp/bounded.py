"""HTTP as a tool server is spoken to: every answer bounded in size and time, redirects and compression refused.

It stands below the SDK's transport, which reads answers whole and knows no bound in time. Whatever goes wrong with one
request becomes the answer to that request, so that a server that fails one call ends no other. What was wrong is kept
by the request's id, and put in the place of what the SDK makes of it.
"""

import json
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final, cast
from urllib.parse import urlsplit

import anyio
import httpcore2
import httpx2
from mcp_types import ErrorData

from symbi.adapters.mcp.network import CONNECT_S, LOOPBACK_NAMES, AddressRefused, JudgedNetwork, Resolve, resolve
from symbi.adapters.mcp.traffic import MAX_MESSAGE_BYTES, MAX_UNASKED_BYTES, TOO_LARGE, UNREACHABLE, Fault, Traffic
from symbi.tools.text import cut, printable

MAX_ERROR_BYTES: Final = 65_536  # of an answer with an error's status
MAX_OTHER_BYTES: Final = 1_048_576  # of what is no message: tokens and metadata for authorisation
MAX_STREAM_BYTES: Final = MAX_MESSAGE_BYTES + MAX_UNASKED_BYTES  # of the stream that answers one request
NOTICE_S: Final = 10.0  # for the answer to what is no call: a notification, an answer of ours, a stream to listen on
WRITE_S: Final = 10.0  # for a server to take what is sent
BYE_S: Final = 2.0  # for a session to be ended
GETS: Final = 8  # streams that may be opened in a row without a call of ours
GET_AGAIN_S: Final = 5.0  # after which one more may be
MAX_CONNECTIONS: Final = 80  # to one server: its calls, and some to listen on and to answer

_JSON: Final = "application/json"
_SSE: Final = "text/event-stream"
_CUT: Final = b"\n\ndata: {}\n\n"
"""Ends a stream for the SDK: an event that is no message, which it answers the request with an error for."""

_NOBODY_WAITS: Final = ErrorData(code=UNREACHABLE, message="was not waited for")

Ended = Callable[[str], None]


@dataclass(slots=True)
class _Exchange:
    """A request of ours whose answer is not there yet."""

    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    over: bool = False


class BoundedTransport(httpx2.AsyncBaseTransport):
    """The connections to one server.

    Args:
        url: The endpoint.
        traffic: Counts what answers nothing.
        ended: Told half a sentence where the server can be spoken to no more.
        private: Addresses of private networks may be connected, too.
        look_up: Finds the addresses of a name.
        issuer: Who gives out its tokens, where the operator says so; empty for nobody.

    Attributes:
        verdicts: What was wrong with the answer to a request, by its id.
        ended: Requests whose stream ended before the SDK had the answer; it may be taken up again.
    """

    def __init__(
        self,
        url: httpx2.URL,
        traffic: Traffic,
        ended: Ended,
        *,
        private: bool,
        look_up: Resolve = resolve,
        issuer: str = "",
    ) -> None:
        self.verdicts: dict[str, ErrorData] = {}
        self.ended: set[str] = set()
        self._url = url
        written = {(url.scheme, url.host), (urlsplit(issuer).scheme, urlsplit(issuer).hostname or "")}
        self._own = LOOPBACK_NAMES & {host for _, host in written}
        self._in_the_clear = self._own | {host for scheme, host in written if scheme == "http"}
        self._traffic = traffic
        self._ended = ended
        self._open: dict[str, _Exchange] = {}
        self._gets = float(GETS)
        self._gets_at_s = anyio.current_time()
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=_tls(),
            max_connections=MAX_CONNECTIONS,
            keepalive_expiry=5.0,
            network_backend=JudgedNetwork(private=private, look_up=look_up, own=self._own),
        )

    async def aclose(self) -> None:
        """Close every connection."""
        await self._pool.aclose()

    def abandon(self, request_id: str) -> None:
        """End the exchange of a request that nobody waits for."""
        self.verdicts.pop(request_id, None)
        self.ended.discard(request_id)
        exchange = self._open.get(request_id)
        if exchange is not None:
            exchange.over = True
            exchange.scope.cancel()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """One request; what is no answer of the endpoint's raises nothing, but is an answer of ours that says so."""
        request.extensions = {
            **request.extensions,
            "timeout": {"connect": CONNECT_S, "pool": CONNECT_S, "write": WRITE_S, "read": None},
        }
        if not self._is_endpoint(request.url):
            return await self._other(request)
        match request.method:
            case "POST":
                request_id = _rpc_id(request.content)
                if request_id is not None:
                    return await self._call(request, request_id)
                return await self._notice(request, NOTICE_S)
            case "GET":
                return await self._listen(request)
            case _:
                return await self._notice(request, BYE_S)

    def _is_endpoint(self, url: httpx2.URL) -> bool:
        ours = self._url
        return (url.scheme, url.host, url.port, url.path) == (ours.scheme, ours.host, ours.port, ours.path)

    # --- calls -------------------------------------------------------------------------------------

    async def _call(self, request: httpx2.Request, request_id: str) -> httpx2.Response:
        self._gets = float(GETS)
        self.verdicts.pop(request_id, None)  # a request that was refused for want of a token is sent again with one
        exchange = self._open[request_id] = _Exchange()
        response: httpx2.Response | None = None
        why, streams = _NOBODY_WAITS, False
        try:
            with exchange.scope:
                response = await self._send(request)
                why, whole = await self._judged(request, response, request_id)
                if whole is not None:
                    return _answer(response, whole)
                if not why.message:
                    streams = True
                    chunks = self._stream(_body(response), request_id, exchange)
                    response.stream = _Bounded(chunks, _body(response))
                    return response
        except _Failed as failed:
            why = failed.why
        finally:
            if not streams:
                self._open.pop(request_id, None)
                await _close(response)
        return self._refusal(request_id, why)

    async def _judged(
        self, request: httpx2.Request, response: httpx2.Response, request_id: str
    ) -> tuple[ErrorData, bytes | None]:
        """What is wrong with an answer, or nothing; and all of it, where it is to be read whole."""
        fine = ErrorData(code=0, message="")
        kind = _kind(response)
        why = _misfit(response)
        if why:
            return ErrorData(code=UNREACHABLE, message=why), None
        if response.status_code == httpx2.codes.NOT_FOUND and "mcp-session-id" in request.headers:
            self._ended("has ended the session")
            return ErrorData(code=UNREACHABLE, message="has ended the session"), None
        if response.status_code >= httpx2.codes.BAD_REQUEST:
            whole = await self._whole(response, MAX_ERROR_BYTES)
            if not _is_error(whole):
                # The answer stays as it is, for whoever gets tokens looks at it; this stands for it if it is the last.
                said = f"answers with the status {response.status_code}"
                self.verdicts[request_id] = ErrorData(code=UNREACHABLE, message=said)
            return fine, whole
        if kind == _JSON:
            whole = await self._whole(response, MAX_MESSAGE_BYTES)
            if not _answers(whole, request_id):
                return ErrorData(code=-32700, message="its answer is not JSON-RPC, or to another request"), None
            return fine, whole
        if kind == _SSE:
            return fine, None
        return fine, b""

    def _refusal(self, request_id: str, why: ErrorData) -> httpx2.Response:
        """An answer of ours in the place of the server's."""
        self.verdicts[request_id] = why
        number: int | str = int(request_id) if request_id.isdecimal() else request_id
        error = {"code": why.code, "message": why.message}
        return httpx2.Response(200, json={"jsonrpc": "2.0", "id": number, "error": error})

    async def _stream(self, body: httpx2.AsyncByteStream, request_id: str, exchange: _Exchange) -> AsyncIterator[bytes]:
        """The stream that answers a call, up to its bounds; one that breaks off has reached its end, and may be resumed."""
        source = aiter(body)
        size = event = 0
        tail = b""
        try:
            while not exchange.over:
                chunk = b""
                exchange.scope = anyio.CancelScope()
                with exchange.scope:
                    chunk = await _chunk(source)
                if not chunk and not exchange.over:
                    self.ended.add(request_id)
                    return
                size += len(chunk)
                event, tail = _since_event(chunk, event, tail)
                if event > MAX_MESSAGE_BYTES or size > MAX_STREAM_BYTES:
                    most = MAX_MESSAGE_BYTES if event > MAX_MESSAGE_BYTES else MAX_STREAM_BYTES
                    self.verdicts[request_id] = ErrorData(
                        code=TOO_LARGE, message=f"its answer has more than {most} bytes"
                    )
                    break
                yield chunk
            yield _CUT
        finally:
            self._open.pop(request_id, None)

    # --- all else ----------------------------------------------------------------------------------

    async def _notice(self, request: httpx2.Request, within_s: float) -> httpx2.Response:
        """What has no answer of interest."""
        response: httpx2.Response | None = None
        status: int = httpx2.codes.SERVICE_UNAVAILABLE
        try:
            with anyio.move_on_after(within_s):
                response = await self._send(request)
                status = response.status_code
        except _Failed:
            pass  # the next call says so
        finally:
            await _close(response)
        if httpx2.codes.is_redirect(status):
            status = httpx2.codes.BAD_GATEWAY
        return httpx2.Response(status)

    async def _listen(self, request: httpx2.Request) -> httpx2.Response:
        """A stream that the server tells things on, or goes on with an answer on; too many in a row are refused."""
        now_s = anyio.current_time()
        self._gets = min(float(GETS), self._gets + (now_s - self._gets_at_s) / GET_AGAIN_S)
        self._gets_at_s = now_s
        if self._gets < 1:
            return httpx2.Response(httpx2.codes.TOO_MANY_REQUESTS)
        self._gets -= 1
        response: httpx2.Response | None = None
        try:
            with anyio.move_on_after(NOTICE_S):
                response = await self._send(request)
        except _Failed:
            return httpx2.Response(httpx2.codes.SERVICE_UNAVAILABLE)
        if response is None:
            return httpx2.Response(httpx2.codes.GATEWAY_TIMEOUT)
        if _misfit(response) or _kind(response) != _SSE or response.status_code != httpx2.codes.OK:
            status = response.status_code
            await _close(response)
            fits = status >= httpx2.codes.BAD_REQUEST
            return httpx2.Response(status if fits else httpx2.codes.METHOD_NOT_ALLOWED)
        response.stream = _Bounded(self._told(_body(response)), _body(response))
        return response

    async def _told(self, body: httpx2.AsyncByteStream) -> AsyncIterator[bytes]:
        source = aiter(body)
        event, tail = 0, b""
        while chunk := await _chunk(source):
            event, tail = _since_event(chunk, event, tail)
            if event > MAX_MESSAGE_BYTES:  # the SDK keeps it until it ends, however many calls there are meanwhile
                self._ended(f"wrote a message of more than {MAX_MESSAGE_BYTES} bytes, and was left")
                return
            try:
                self._traffic.count(len(chunk))
            except Fault as fault:
                self._ended(f"{fault}, and was left")
                return
            yield chunk

    async def _other(self, request: httpx2.Request) -> httpx2.Response:
        """What authorisation asks of whoever gives out tokens."""
        response: httpx2.Response | None = None
        if request.url.scheme != "https" and request.url.host not in self._in_the_clear:
            return httpx2.Response(httpx2.codes.SERVICE_UNAVAILABLE)  # a token would be read by whoever is between
        try:
            with anyio.move_on_after(NOTICE_S):
                response = await self._send(request)
                return _answer(response, await self._whole(response, MAX_OTHER_BYTES))
        except _Failed:
            return httpx2.Response(httpx2.codes.SERVICE_UNAVAILABLE)
        finally:
            await _close(response)
        return httpx2.Response(httpx2.codes.GATEWAY_TIMEOUT)

    async def _whole(self, response: httpx2.Response, most: int) -> bytes:
        """All of an answer.

        Raises:
            _Failed: It has more than `most` bytes, or breaks off.
        """
        whole = bytearray()
        try:
            async for chunk in _body(response):
                whole += chunk
                if len(whole) > most:
                    raise _Failed(TOO_LARGE, f"its answer has more than {most} bytes")
        except _BROKEN as error:
            raise _Failed(UNREACHABLE, f"broke off its answer: {_said(error)}") from None
        return bytes(whole)

    async def _send(self, request: httpx2.Request) -> httpx2.Response:
        """The head of an answer.

        Raises:
            _Failed: There is none.
        """
        core = httpcore2.Request(
            method=request.method,
            url=httpcore2.URL(
                scheme=request.url.raw_scheme,
                host=request.url.raw_host,
                port=request.url.port,
                target=request.url.raw_path,
            ),
            headers=request.headers.raw,
            content=request.stream,
            extensions=request.extensions,
        )
        try:
            found = await self._pool.handle_async_request(core)
        except AddressRefused as refused:
            self._lost(request, str(refused))
            raise _Failed(UNREACHABLE, str(refused)) from None
        except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
            self._lost(request, f"cannot be reached: {_said(error)}")
            raise _Failed(UNREACHABLE, f"cannot be reached: {_said(error)}") from None
        except _BROKEN as error:
            raise _Failed(UNREACHABLE, f"broke off its answer: {_said(error)}") from None
        return httpx2.Response(found.status, headers=found.headers, stream=_Plain(found), extensions=found.extensions)

    def _lost(self, request: httpx2.Request, why: str) -> None:
        if self._is_endpoint(request.url):
            self._ended(why)


@cache
def _tls() -> ssl.SSLContext:
    """Certificates are verified against the authorities of the system, names included; read once, for that takes long."""
    return ssl.create_default_context()


_BROKEN: Final = (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.TimeoutException)
"""What a connection raises that breaks off."""


class _Failed(Exception):
    """There is no answer."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.why = ErrorData(code=code, message=message)


class _Plain(httpx2.AsyncByteStream):
    """The body of an answer, as it comes."""

    def __init__(self, found: httpcore2.Response) -> None:
        self._found = found

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._found.aiter_stream():
            yield chunk

    async def aclose(self) -> None:
        await self._found.aclose()


class _Bounded(httpx2.AsyncByteStream):
    """A body in place of another, which is closed with it."""

    def __init__(self, chunks: AsyncIterator[bytes], inner: httpx2.AsyncByteStream) -> None:
        self._chunks = chunks
        self._inner = inner

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._chunks:
            yield chunk

    async def aclose(self) -> None:
        with anyio.CancelScope(shield=True), anyio.move_on_after(BYE_S):
            await self._inner.aclose()


async def _close(response: httpx2.Response | None) -> None:
    if response is not None:
        with anyio.CancelScope(shield=True), anyio.move_on_after(BYE_S):
            await _body(response).aclose()


def _body(response: httpx2.Response) -> httpx2.AsyncByteStream:
    return cast("httpx2.AsyncByteStream", response.stream)


async def _chunk(source: AsyncIterator[bytes]) -> bytes:
    """The next part of a stream; empty at its end, or where it breaks off."""
    try:
        return await anext(source)
    except (StopAsyncIteration, *_BROKEN):
        return b""


def _answer(response: httpx2.Response, whole: bytes) -> httpx2.Response:
    """The same answer, with a body that was read."""
    headers = [(name, value) for name, value in response.headers.raw if name.lower() not in _OF_THE_BODY]
    return httpx2.Response(response.status_code, headers=headers, content=whole)


_OF_THE_BODY: Final = (b"content-length", b"transfer-encoding", b"content-encoding")


def _kind(response: httpx2.Response) -> str:
    return response.headers.get("content-type", "").partition(";")[0].strip().lower()


def _misfit(response: httpx2.Response) -> str:
    """Why an answer is none of a tool server; empty where it may be."""
    if httpx2.codes.is_redirect(response.status_code):
        to = cut(printable(response.headers.get("location", "").partition("?")[0]), 200)
        return f"answers with a redirect to `{to}`, which is not followed"
    coding = response.headers.get("content-encoding", "identity").strip().lower()
    if coding not in {"identity", ""}:
        return f"answers in the coding `{cut(printable(coding), 32)}`, which was not asked for"
    return ""


def _rpc_id(content: bytes) -> str | None:
    """The id of a request of ours; None for any other message."""
    message = json.loads(content) if content else {}
    if isinstance(message, dict) and "method" in message and "id" in message:
        return str(message["id"])
    return None


def _answers(whole: bytes, request_id: str) -> bool:
    try:
        message: Any = json.loads(whole)
    except (ValueError, RecursionError):
        return False
    return isinstance(message, dict) and "method" not in message and str(message.get("id")) == request_id


def _is_error(whole: bytes) -> bool:
    try:
        message: Any = json.loads(whole)
    except (ValueError, RecursionError):
        return False
    return isinstance(message, dict) and isinstance(message.get("error"), dict)


def _since_event(chunk: bytes, before: int, tail: bytes) -> tuple[int, bytes]:
    """How many bytes of the event at hand there are after a chunk, and what of it may begin the next event's gap."""
    joined = tail + chunk
    at = max(joined.rfind(gap) + len(gap) if gap in joined else -1 for gap in (b"\n\n", b"\r\n\r\n", b"\r\r"))
    return (len(joined) - at if at >= 0 else before + len(chunk)), joined[-3:]


def _said(error: Exception) -> str:
    return cut(printable(str(error)), 200) or type(error).__name__
