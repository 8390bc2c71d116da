"""`HttpToolServer`: an MCP server at an endpoint of its own, over streamable HTTP.

The SDK's transport keeps the session's id, resumes streams, and ends the session; what reaches it is bounded by
`BoundedTransport` below it, and counted by `Traffic` above it.
"""

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from contextvars import Context
from types import TracebackType
from typing import Final, Self

import anyio
import httpx2
from mcp.client import Transport
from mcp.client._transport import ReadStream, TransportStreams, WriteStream
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.message import SessionMessage
from mcp_types import CONNECTION_CLOSED, ErrorData, JSONRPCError, JSONRPCNotification, JSONRPCResponse

from symbi.adapters.mcp.base import McpServer
from symbi.adapters.mcp.bounded import BoundedTransport
from symbi.adapters.mcp.network import LOOPBACK_NAMES
from symbi.adapters.mcp.oauth import (
    CODE,
    LOGIN_S,
    CarefulAuth,
    Consent,
    LoopbackConsent,
    MemoryTokens,
    OAuthSecrets,
    OAuthTerms,
    provider,
)
from symbi.adapters.mcp.traffic import UNREACHABLE, Fault, Line, Traffic
from symbi.errors import ConfigError
from symbi.guard.permit import Authority
from symbi.tools.mask import MIN_SECRET_CHARS, put_in, references
from symbi.tools.port import SecretSource

MAX_URL_CHARS: Final = 2_048
MAX_TOKENS: Final = 128  # of one server that are looked for in what it says
OWN_HEADERS: Final = frozenset(
    {
        "accept", "accept-encoding", "connection", "content-length", "content-type", "host", "last-event-id",
        "mcp-method", "mcp-name", "mcp-protocol-version", "mcp-session-id", "transfer-encoding",
    }
)  # fmt: skip
"""Headers that are the protocol's, and cannot be configured."""

# They write ids of sessions, addresses with what was asked there, and what could not be read to the log.
for _talkative in ("mcp.client.streamable_http", "httpx2"):
    logging.getLogger(_talkative).setLevel(logging.CRITICAL)


class _Incoming:
    """What the server says, as far as it goes on to the session."""

    def __init__(self, inner: ReadStream[SessionMessage | Exception], line: "HttpLine") -> None:
        self._inner = inner
        self._line = line

    @property
    def last_context(self) -> Context | None:
        """The context of the request whose answer the last message came in; the SDK looks for it."""
        return getattr(self._inner, "last_context", None)

    async def receive(self) -> SessionMessage | Exception:
        """The next message that goes on."""
        while True:
            item = await self._inner.receive()
            taken = self._line.take(item)
            if taken is not None:
                return taken

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        try:
            return await self.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None

    async def aclose(self) -> None:
        """Close it."""
        await self._inner.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


class _Outgoing:
    """What we say, noted."""

    def __init__(self, inner: WriteStream[SessionMessage], line: "HttpLine") -> None:
        self._inner = inner
        self._line = line

    async def send(self, item: SessionMessage, /) -> None:
        """Say it."""
        self._line.sent(item)
        await self._inner.send(item)
        self._line.after(item)

    async def aclose(self) -> None:
        """Close it."""
        await self._inner.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


class HttpLine:
    """One session with an endpoint.

    Args:
        url: Where it is.
        headers: What goes along with every request.
        private: Addresses of private networks may be connected.
        auth: Gets tokens, if the server wants any.
        issuer: Who gives them out, where the operator says so.
    """

    def __init__(
        self, url: httpx2.URL, headers: Mapping[str, str], *, private: bool, auth: httpx2.Auth | None, issuer: str = ""
    ) -> None:
        self._url = url
        self._headers = dict(headers)
        self._private = private
        self._auth = auth
        self._issuer = issuer
        self._traffic = Traffic()
        self._ended = anyio.Event()
        self._fault = ""
        self._transport: BoundedTransport | None = None

    @property
    def ended(self) -> anyio.Event:
        """Set as soon as it can be spoken to no more."""
        return self._ended

    def how_it_ended(self) -> str:
        """Half a sentence on the server."""
        return self._fault or "has been left"

    def last_said(self) -> str:
        """Nothing beside the protocol."""
        return ""

    def fail(self, why: str) -> None:
        """It can be spoken to no more."""
        self._fault = self._fault or why
        self._ended.set()

    def transport(self) -> Transport:
        """The endpoint as an MCP transport."""
        return self._streams()

    @asynccontextmanager
    async def _streams(self) -> AsyncIterator[TransportStreams]:
        self._transport = BoundedTransport(
            self._url, self._traffic, self.fail, private=self._private, issuer=self._issuer
        )
        client = httpx2.AsyncClient(
            transport=self._transport,
            headers={"accept-encoding": "identity", "user-agent": "symbi", **self._headers},
            auth=None if self._auth is None else CarefulAuth(self._auth, self.fail),
            follow_redirects=False,
            trust_env=False,
            timeout=None,
        )
        try:
            async with (
                client,
                streamable_http_client(str(self._url), http_client=client, max_sse_event_size=None) as (read, write),
            ):
                yield _Incoming(read, self), _Outgoing(write, self)
        finally:
            self._ended.set()

    def take(self, item: SessionMessage | Exception) -> SessionMessage | None:
        """A message that goes on to the session, or None.

        Raises:
            EndOfStream: The server did what it is left for.
        """
        if isinstance(item, SessionMessage) and isinstance(item.message, JSONRPCResponse | JSONRPCError):
            item = self._told(item)
        try:
            if isinstance(item, Exception):
                self._traffic.garbage(0, "messages")
                return None
            return item if self._traffic.admits(item.message, 0) else None
        except Fault as fault:
            self.fail(f"{fault}, and was left")
            raise anyio.EndOfStream from None

    def _told(self, item: SessionMessage) -> SessionMessage:
        """An answer, or what was wrong with it."""
        assert isinstance(item.message, JSONRPCResponse | JSONRPCError)
        answered = item.message.id
        if self._transport is None or answered is None:
            return item
        why = self._transport.verdicts.pop(str(answered), None)
        if str(answered) in self._transport.ended:
            self._transport.ended.discard(str(answered))
            if isinstance(item.message, JSONRPCError) and item.message.error.code == CONNECTION_CLOSED:
                why = ErrorData(code=UNREACHABLE, message="broke off its answer")
        if why is None:
            return item
        return SessionMessage(JSONRPCError(jsonrpc="2.0", id=answered, error=why))

    def sent(self, item: SessionMessage) -> None:
        """Note what is about to be said."""
        self._traffic.sent(item.message)

    def after(self, item: SessionMessage) -> None:
        """A request that was given up is not waited for on the network, either."""
        message = item.message
        if isinstance(message, JSONRPCNotification) and message.method == "notifications/cancelled":
            request_id = (message.params or {}).get("requestId")
            if self._transport is not None and request_id is not None:
                self._transport.abandon(str(request_id))


class HttpToolServer(McpServer):
    """A server at an endpoint.

    Args:
        name: Its name in the configuration.
        url: `https://…`; `http://…` on this machine, or where private addresses are allowed.
        authority: Redeems permits.
        headers: What goes along with every request; a `vault://path` value resolves when it is connected.
        secrets: Where those references resolve.
        private_addresses: It may be on a private network.
        start_timeout_s: Seconds to connect, agree on a protocol version and list the tools.

    Attributes:
        oauth: How its tokens are got, if it wants any; set before it is connected.
        consent: Whom to ask for a token that a person has to agree to; by default, the operator by way of the log.

    Raises:
        ConfigError: The URL or a header cannot be used.
    """

    def __init__(
        self,
        name: str,
        url: str,
        authority: Authority,
        *,
        headers: Mapping[str, str] | None = None,
        secrets: SecretSource | None = None,
        private_addresses: bool = False,
        start_timeout_s: float = 30.0,
    ) -> None:
        super().__init__(name, authority, secrets, start_timeout_s)
        self._url = _endpoint(name, url, private=private_addresses)
        self._headers = _checked(name, headers or {})
        self._private = private_addresses
        self.oauth: OAuthTerms | None = None
        self.consent: Consent | None = None
        self._auth: tuple[OAuthSecrets, httpx2.Auth] | None = None
        self._tokens_told = 0

    @property
    def pid(self) -> int | None:
        """It has no process of ours."""
        return None

    @property
    def command_line(self) -> str:
        """The URL."""
        return str(self._url)

    @property
    def secret_paths(self) -> tuple[str, ...]:
        """The vault paths that its headers and its tokens ask for, sorted."""
        ours = () if self.oauth is None else self.oauth.references
        return tuple(sorted(set(references([*self._headers.values(), *ours]))))

    @property
    def start_timeout_s(self) -> float:
        """Longer where a person has to agree first."""
        waits = self.oauth is not None and self.oauth.grant == CODE
        return max(self._start_timeout_s, LOGIN_S) if waits else self._start_timeout_s

    def _line(self, secrets: Mapping[str, str]) -> Line:
        """A session with the endpoint, vault references in its headers resolved."""
        headers = {name: str(put_in(value, secrets)) for name, value in self._headers.items()}
        issuer = "" if self.oauth is None else self.oauth.issuer
        return HttpLine(self._url, headers, private=self._private, auth=self._flow(secrets), issuer=issuer)

    def _flow(self, secrets: Mapping[str, str]) -> httpx2.Auth | None:
        """How tokens are got; the same one, with its tokens, for every session under the same secrets."""
        if self.oauth is None:
            return None
        ours = OAuthSecrets(*(str(put_in(one, secrets)) for one in self.oauth.references))
        if self._auth is None or self._auth[0] != ours:
            consent = self.consent
            if consent is None and self.oauth.grant == CODE:
                consent = LoopbackConsent(self.name, self.oauth.redirect_uri)
            tokens = MemoryTokens(self._keep_out)
            self._auth = (ours, provider(str(self._url), self.oauth, ours, tokens, consent))
        return self._auth[1]

    def _keep_out(self, token: str) -> None:
        """A token is a secret like any other; of very many, the first."""
        self._tokens_told += 1
        if self._tokens_told <= MAX_TOKENS and len(token) >= MIN_SECRET_CHARS:
            self._mask.add({f"oauth/{self.name}": token})


def _endpoint(name: str, url: str, *, private: bool) -> httpx2.URL:
    hint = "write `https://host/path`"
    if len(url) > MAX_URL_CHARS:
        msg = f"the URL of server `{name}` has more than {MAX_URL_CHARS} characters"
        raise ConfigError(msg, hint=hint)
    try:
        found = httpx2.URL(url)
    except (httpx2.InvalidURL, ValueError):
        msg = f"the URL of server `{name}` cannot be read"
        raise ConfigError(msg, hint=hint) from None
    if found.scheme not in {"http", "https"} or not found.host:
        msg = f"the URL of server `{name}` is not one of the web"
        raise ConfigError(msg, hint=hint)
    if found.userinfo or found.fragment:
        msg = f"the URL of server `{name}` holds a name, a password or a fragment"
        raise ConfigError(msg, hint="give a token as a header with a `vault://` value")
    if found.scheme == "http" and found.host not in LOOPBACK_NAMES and not private:
        msg = f"server `{name}` would be spoken to without TLS"
        raise ConfigError(msg, hint="write `https://`, or set `private_addresses` for a server of your own network")
    return found


def _checked(name: str, headers: Mapping[str, str]) -> Mapping[str, str]:
    for header, value in headers.items():
        if header.lower() in OWN_HEADERS:
            msg = f"the header `{header}` of server `{name}` is the protocol's own"
            raise ConfigError(msg)
        if not header.isascii() or not header or any(sign in value for sign in "\r\n\0"):
            msg = f"the header `{header[:64]}` of server `{name}` cannot be sent"
            raise ConfigError(msg)
    return dict(headers)
