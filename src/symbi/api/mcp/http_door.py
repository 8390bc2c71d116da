"""The gateway's door over HTTP: who comes in, by which name, with how much.

Each request passes, in this order: path, headers that are there once, `Host` and `Origin` (a page in a browser may not use
this machine's name), the bearer token, the client's share of requests, the size and time of the body. What is refused
reaches no session. Each client has a room of its own, with a server and sessions that no other client's requests reach, so a
session's id is worth nothing to anybody else.
"""

import json
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, Final, Self, TypeAlias

import anyio
from anyio.abc import TaskGroup, TaskStatus
from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

from symbi.api.mcp.pages import for_page, let_ask
from symbi.api.mcp.terms import MAX_HEADER_BYTES, DoorTerms
from symbi.api.mcp.tokens import Client, ClientBook
from symbi.errors import Denied, InputError, SymbiError

_log = logging.getLogger("symbi.mcp")

PATH: Final = "/mcp"
HEALTH_PATH: Final = "/health"
REALM: Final = "symbi"
LOOK_S: Final = 1.0  # between two looks for clients that were revoked while they have streams open
RETRY_S: Final = 1
LISTENING: Final = b"subscriptions/listen"
"""The method, as a header has to repeat it, of a request whose answer is a stream that lasts."""
UNKNOWN: Final = "the gateway was started with a configuration that has no such client: it has to be started anew"
SINGLE: Final = frozenset(
    {b"host", b"origin", b"authorization", b"content-type", b"content-length", b"mcp-session-id", b"last-event-id"}
)
"""Headers of which a second one would leave it open which counts."""

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]

ServerOf: TypeAlias = Callable[[str], AbstractAsyncContextManager[Server[Any]]]
"""The server that a client is served by, while the context is open."""


class Refused(Exception):
    """A request that gets no further.

    Args:
        status: Of HTTP.
        error: For machines.
        text: For people.
        headers: Beside the usual ones.
    """

    def __init__(self, status: int, error: str, text: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(text)
        self.status, self.error, self.text, self.headers = status, error, text, headers or {}


class _Room:
    """What one client is served by, as long as it has the token that it came with."""

    def __init__(self, manager: StreamableHTTPSessionManager, digest: str) -> None:
        self.manager = manager
        self.digest = digest
        self.scopes: set[anyio.CancelScope] = set()
        self.over = anyio.Event()
        self.ended = anyio.Event()


class HttpDoor:
    """The ASGI application; open while its context is.

    Args:
        terms: Bounds.
        clients: Who may come in.
        server_of: What serves a client.
    """

    def __init__(self, terms: DoorTerms, clients: ClientBook, server_of: ServerOf) -> None:
        self._terms = terms
        self._clients = clients
        self._server_of = server_of
        self._rooms: dict[str, _Room] = {}
        self._opening = anyio.Lock()
        self._busy: Counter[str] = Counter()
        self._quiet = anyio.Event()
        self._tasks: TaskGroup | None = None
        self._closing = False
        self.refused: Counter[str] = Counter()
        """Requests that got no further, by reason."""

    async def __aenter__(self) -> Self:
        """Open it."""
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        self._tasks.start_soon(self._look_for_revoked)
        return self

    async def __aexit__(self, *error: object) -> None:
        """End every session."""
        tasks, self._tasks, self._closing = self._tasks, None, True
        assert tasks is not None
        tasks.cancel_scope.cancel()
        await tasks.__aexit__(None, None, None)

    async def drain(self) -> None:
        """Take no more requests, and wait for those whose answer is still to come, but for no open stream."""
        self._closing = True
        while self._busy.total():
            self._quiet = anyio.Event()
            await self._quiet.wait()

    def close(self) -> None:
        """End every session and stream now."""
        self._closing = True
        for room in self._rooms.values():
            room.over.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            headers = _headers(scope)
            send = self._look_at(scope, headers, send)
            if scope["path"] == HEALTH_PATH:
                await _answer(send, 503 if self._closing else 200, {"status": "closing" if self._closing else "ok"})
                return
            if scope["method"] == "OPTIONS":
                await let_ask(headers, send)
                return
            client = self._authenticate(headers)
            declared = headers.get(b"content-length", b"0")
            if not declared.isdigit() or int(declared) > self._terms.max_body_bytes:  # h11 bounds the number itself
                raise self._too_large()
            stays = scope["method"] == "GET" or headers.get(b"mcp-method") == LISTENING
            await self._serve(client, scope, receive, send, stays=stays)
        except Refused as refused:
            self.refused[refused.error] += 1
            await _answer(
                send, refused.status, {"error": refused.error, "error_description": refused.text}, refused.headers
            )

    # --- who it is -------------------------------------------------------------------------------

    def _look_at(self, scope: Scope, headers: Mapping[bytes, bytes], send: Send) -> Send:
        """What is asked of a request whoever sent it. How it is answered: to a page that may ask, so that its browser lets it read."""
        path, method = scope["path"], scope["method"]
        if path == HEALTH_PATH and method in {"GET", "HEAD"}:
            return send
        host = headers.get(b"host", b"").decode("latin-1")
        if not self._terms.knows_host(host):
            raise Refused(403, "unknown_host", "this is not a name of the gateway; `gateway.hosts` says which are")
        origin = headers.get(b"origin", b"").decode("latin-1")
        if origin and not self._terms.knows_origin(origin, host):
            raise Refused(403, "unknown_origin", "pages of this origin may not ask; `gateway.origins` says which may")
        if path != PATH:
            raise Refused(404, "not_found", f"the gateway is at {PATH}")
        asks_before = method == "OPTIONS" and origin and b"access-control-request-method" in headers
        if method not in {"GET", "POST", "DELETE"} and not asks_before:
            raise Refused(405, "method_not_allowed", "GET, POST or DELETE", {"allow": "GET, POST, DELETE"})
        return for_page(origin, send) if origin else send

    def _authenticate(self, headers: Mapping[bytes, bytes]) -> Client:
        """The client, by its token."""
        given = headers.get(b"authorization")
        if given is None:
            text = "give the token that `symbi mcp clients add` printed"
            raise Refused(401, "unauthorized", text, {"www-authenticate": f'Bearer realm="{REALM}"'})
        scheme, _, token = given.decode("latin-1").partition(" ")
        if scheme.lower() != "bearer" or not token:
            text = "a bearer token is needed"
            raise Refused(401, "unauthorized", text, {"www-authenticate": f'Bearer realm="{REALM}"'})
        try:
            client = self._clients.holder(token.strip())
        except SymbiError as error:
            _log.error("nobody is let in: %s", error)
            raise Refused(503, "unavailable", "nobody can be let in now", {"retry-after": f"{RETRY_S}"}) from None
        if client is None:
            text = "no client has this token"
            challenge = f'Bearer realm="{REALM}", error="invalid_token", error_description="{text}"'
            raise Refused(401, "invalid_token", text, {"www-authenticate": challenge})
        return client

    async def _look_for_revoked(self) -> None:
        """Ends the open streams of clients that may come in no more, or not with the token that they came with."""
        while True:
            await anyio.sleep(LOOK_S)
            known = self._digests()
            for name in [name for name, room in self._rooms.items() if known.get(name) != room.digest]:
                async with self._opening:
                    await self._close(name, known.get(name, ""))

    # --- what it gets ----------------------------------------------------------------------------

    async def _serve(self, client: Client, scope: Scope, receive: Receive, send: Send, *, stays: bool) -> None:
        name = client.name
        if self._closing:
            raise Refused(503, "closing", "the gateway is being closed", {"retry-after": f"{RETRY_S}"})
        room = await self._room(client)
        if len(room.scopes) >= self._terms.max_requests:
            text = f"{self._terms.max_requests} requests of this client are being answered"
            raise Refused(429, "too_many_requests", text, {"retry-after": f"{RETRY_S}"})
        own = anyio.CancelScope()
        room.scopes.add(own)
        self._busy[name] += not stays
        try:
            body = await self._body(receive) if scope["method"] == "POST" else b""
            answer = _Answer(send)
            if own.cancel_called:  # while its body came
                raise self._ended()
            with own:
                await room.manager.handle_request({**scope, "user": _user(name)}, _replay(body, receive), answer)
            if own.cancelled_caught and not answer.begun:
                raise self._ended()
        finally:
            room.scopes.discard(own)
            self._busy[name] -= not stays
            if not self._busy.total():
                self._quiet.set()

    async def _body(self, receive: Receive) -> bytes:
        """The whole body, within its bounds."""
        data = bytearray()
        try:
            with anyio.fail_after(self._terms.body_s):
                while True:
                    message = await receive()
                    if message["type"] != "http.request":
                        raise Refused(400, "disconnected", "the body did not come")
                    data += message.get("body", b"")
                    if len(data) > self._terms.max_body_bytes:
                        raise self._too_large()
                    if not message.get("more_body", False):
                        return bytes(data)
        except TimeoutError:
            text = f"the body did not come within {self._terms.body_s:g} s"
            raise Refused(408, "too_slow", text, {"connection": "close"}) from None

    def _ended(self) -> Refused:
        return Refused(503, "closing", "this client is served no more", {"retry-after": f"{RETRY_S}"})

    def _too_large(self) -> Refused:
        text = f"a request may have {self._terms.max_body_bytes} bytes"
        return Refused(413, "too_large", text, {"connection": "close"})

    async def _room(self, client: Client) -> _Room:
        name = client.name
        async with self._opening:
            # It may have waited here, and its token been replaced meanwhile.
            if self._digests().get(name) != client.digest:
                raise Refused(401, "invalid_token", "no client has this token")
            await self._close(name, client.digest)
            room = self._rooms.get(name)
            if room is None:
                if self._tasks is None:
                    raise Refused(503, "closing", "the gateway is being closed")
                try:
                    room = await self._tasks.start(self._keep, client)
                except (Denied, InputError) as error:
                    _log.warning("client %s is let in nowhere: %s", name, error)
                    text = UNKNOWN if error.code == "mcp.client" else "this client may do nothing here"
                    raise Refused(403, "denied", text) from error
                except SymbiError as error:
                    _log.error("client %s cannot be served: %s", name, error)
                    raise Refused(503, "unavailable", "the gateway cannot serve now") from error
                self._rooms[name] = room
            return room

    async def _keep(self, client: Client, *, task_status: TaskStatus[_Room]) -> None:
        """One client's room, from its first request until it is revoked or the door closes; one that fails is the only one."""
        room: _Room | None = None
        try:
            async with AsyncExitStack() as stack:
                server = await stack.enter_async_context(self._server_of(client.name))
                manager = StreamableHTTPSessionManager(
                    app=server,
                    session_idle_timeout=self._terms.idle_s,
                    max_sessions=self._terms.max_sessions,
                    max_request_body_size=self._terms.max_body_bytes,
                )
                await stack.enter_async_context(manager.run())
                room = _Room(manager, client.digest)
                task_status.started(room)
                try:
                    await room.over.wait()
                finally:
                    for own in list(room.scopes):
                        own.cancel()
                    if self._rooms.get(client.name) is room:
                        del self._rooms[client.name]
                    room.ended.set()
        except Exception as error:
            if room is None:
                raise  # to whoever waits for it
            # Its sessions could not be ended in order, or one of them met a defect: the rooms of others stand.
            _log.error("the room of client %s has failed", client.name, exc_info=error)

    async def _close(self, name: str, digest: str) -> None:
        """End the room of a client, unless it has this token; only one comes here at a time."""
        room = self._rooms.get(name)
        if room is not None and room.digest != digest:
            del self._rooms[name]
            room.over.set()
            await room.ended.wait()

    def _digests(self) -> Mapping[str, str]:
        """The digest of each client's token."""
        try:
            return {client.name: client.digest for client in self._clients.all()}
        except SymbiError:
            return {}  # who may come in cannot be told: nobody may, as whoever asks is told, too


class _Answer:
    """Passes an answer on, and knows whether it has begun."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.begun = False

    async def __call__(self, message: MutableMapping[str, Any]) -> None:
        self.begun = True
        await self._send(message)


def _headers(scope: Scope) -> dict[bytes, bytes]:
    # The wire bounds what has not come whole, so a longer one may have come at once.
    if sum(len(key) + len(value) for key, value in scope["headers"]) > MAX_HEADER_BYTES:
        raise Refused(431, "headers_too_large", f"headers may have {MAX_HEADER_BYTES} bytes", {"connection": "close"})
    found: dict[bytes, bytes] = {}
    for key, value in scope["headers"]:
        if key in SINGLE and key in found:
            raise Refused(400, "repeated_header", f"`{key.decode('latin-1')}` is there twice")
        found[key] = value
    return found


def _user(name: str) -> object:
    """The client as the SDK knows an authenticated user: a session answers the one who opened it alone."""
    from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser  # noqa: PLC0415 - loads only where there is HTTP
    from mcp.server.auth.provider import AccessToken  # noqa: PLC0415 - likewise

    return AuthenticatedUser(AccessToken(token="", client_id=name, scopes=[]))


def _replay(body: bytes, receive: Receive) -> Receive:
    told = False

    async def again() -> MutableMapping[str, Any]:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


async def _answer(
    send: Send, status: int, content: Mapping[str, str], headers: Mapping[str, str] | None = None
) -> None:
    body = json.dumps(content).encode()
    named = {"content-type": "application/json", "content-length": f"{len(body)}", "cache-control": "no-store"}
    fields = [(key.encode(), value.encode("latin-1")) for key, value in (named | dict(headers or {})).items()]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body})
