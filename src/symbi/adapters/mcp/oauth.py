"""Tokens for servers that want some, as the SDK gets them (OAuth 2.1 with PKCE, RFC 8707, 9207 and 9728).

Two ways: with credentials of our own (`client_credentials`), which needs nobody; or with the consent of a person
(`authorization_code`). For that we never open a browser: the address of the page is shown to the operator, who opens it
where he likes, and the code comes back to a port of this machine. Tokens are kept in memory alone; secrets of clients
are vault references, resolved when the server is connected.
"""

import logging
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Final, Protocol
from urllib.parse import parse_qs, urlsplit

import anyio
import httpx2
from anyio.abc import ByteStream
from mcp.client.auth import OAuthClientProvider, OAuthFlowError
from mcp.client.auth.extensions.client_credentials import ClientCredentialsOAuthProvider
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientInformationFull, OAuthClientMetadata, OAuthToken
from pydantic import AnyUrl, ValidationError

from symbi.adapters.mcp.network import LOOPBACK_NAMES
from symbi.errors import ConfigError
from symbi.tools.text import cut, printable

_log = logging.getLogger("symbi.tools.server")

LOGIN_S: Final = 300.0  # for a person to agree
MAX_REQUEST_BYTES: Final = 8_192  # of what comes back from a browser
BROWSER_S: Final = 10.0  # for it to say so
CREDENTIALS: Final = "client_credentials"
CODE: Final = "authorization_code"

# It writes what went wrong to the log, which quotes what the other side sent.
logging.getLogger("mcp.client.auth").setLevel(logging.CRITICAL)


@dataclass(frozen=True, slots=True)
class OAuthTerms:
    """How a server's tokens are got.

    Attributes:
        grant: `client_credentials` or `authorization_code`.
        issuer: Who gives them out; the flow stops where the server leads to anybody else. Empty: whom it names.
        client_id: Who we are there; empty to be registered by the flow.
        client_secret: The `vault://` reference of our secret there; empty if there is none.
        scope: What is asked for; empty to leave that to the server.
        redirect_uri: Where the code comes back to, on this machine: `http://127.0.0.1:PORT/callback`.
        metadata_url: Where our description is published, for servers that take that as a client's id.
    """

    grant: str
    issuer: str = ""
    client_id: str = ""
    client_secret: str = ""
    scope: str = ""
    redirect_uri: str = ""
    metadata_url: str = ""


class Consent(Protocol):
    """A person who may agree that a server is used in his name."""

    async def show(self, url: str) -> None:
        """Show the address of the page on which it can be agreed to."""

    async def code(self) -> AuthorizationCodeResult:
        """What came back from there.

        Raises:
            OAuthFlowError: Nothing, or no.
        """


class MemoryTokens:
    """Tokens and a registration, as long as the process lives.

    Args:
        told: Told each token, so that it can be kept out of what the server says.

    Attributes:
        client: Who we are registered as.
    """

    def __init__(self, told: Callable[[str], None]) -> None:
        self._told = told
        self._tokens: OAuthToken | None = None
        self.client: OAuthClientInformationFull | None = None

    async def get_tokens(self) -> OAuthToken | None:
        """The tokens."""
        return self._tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        """Keep them."""
        self._tokens = tokens
        for token in (tokens.access_token, tokens.refresh_token):
            if token:
                self._told(token)

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        """The registration."""
        return self.client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        """Keep it."""
        self.client = client_info
        if client_info.client_secret:
            self._told(client_info.client_secret)


class LoopbackConsent:
    """Shows the page to the operator, in the log, and takes the code at a port of this machine.

    Args:
        server: Name of the server, for the operator.
        redirect_uri: Names the port.
    """

    def __init__(self, server: str, redirect_uri: str) -> None:
        found = urlsplit(redirect_uri)
        if found.scheme != "http" or found.hostname not in LOOPBACK_NAMES or not found.port:
            msg = f"the code for server `{server}` cannot come back to `{redirect_uri}`"
            raise ConfigError(msg, hint="write `http://127.0.0.1:PORT/callback`")
        self._server = server
        self._host, self._port, self._path = found.hostname, found.port, found.path or "/"

    async def show(self, url: str) -> None:
        """The page, in the log."""
        _log.warning("to let server `%s` be used in your name, open %s", self._server, printable(url))

    async def code(self) -> AuthorizationCodeResult:
        """What a browser brings back; the first request to the right path counts."""
        found: list[AuthorizationCodeResult] = []
        done = anyio.Event()

        async def answer(stream: ByteStream) -> None:
            async with stream:
                with anyio.move_on_after(BROWSER_S):
                    result = self._read(await _head(stream))
                    said = b"You can close this page." if result is not None else b"This is no answer."
                    status = b"200 OK" if result is not None else b"404 Not Found"
                    await stream.send(
                        b"HTTP/1.1 " + status + b"\r\ncontent-type: text/plain\r\nconnection: close\r\n"
                        b"content-length: " + str(len(said)).encode() + b"\r\n\r\n" + said
                    )
                    if result is not None:
                        found.append(result)
                        done.set()

        try:
            listener = await anyio.create_tcp_listener(local_host=self._host, local_port=self._port)
        except OSError as error:
            msg = f"port {self._port} of this machine cannot be listened on: {error.strerror or error}"
            raise OAuthFlowError(msg) from None
        async with listener, anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, answer)
            with anyio.move_on_after(LOGIN_S):
                await done.wait()
            tasks.cancel_scope.cancel()
        if not found:
            msg = f"nobody agreed within {LOGIN_S:g} s"
            raise OAuthFlowError(msg)
        return found[0]

    def _read(self, head: str) -> AuthorizationCodeResult | None:
        words = head.split("\r\n", 1)[0].split(" ")
        if len(words) != 3 or words[0] != "GET":  # noqa: PLR2004 - method, target and version
            return None
        target = urlsplit(words[1])
        if target.path != self._path:
            return None
        values = {key: found[0] for key, found in parse_qs(target.query).items()}
        if "code" not in values:
            return None
        return AuthorizationCodeResult(code=values["code"], state=values.get("state"), iss=values.get("iss"))


async def _head(stream: ByteStream) -> str:
    data = b""
    while b"\r\n\r\n" not in data and len(data) < MAX_REQUEST_BYTES:
        data += await stream.receive()
    return data.decode("latin-1")


class CarefulAuth(httpx2.Auth):
    """A flow whose failure ends the session with a reason, and not the program.

    Args:
        inner: The SDK's flow.
        failed: Told half a sentence.
    """

    requires_response_body = True

    def __init__(self, inner: httpx2.Auth, failed: Callable[[str], None]) -> None:
        self._inner = inner
        self._failed = failed

    async def async_auth_flow(self, request: httpx2.Request) -> AsyncGenerator[httpx2.Request, httpx2.Response]:
        """The inner flow; after a failure the request has the answer that it had."""
        flow = self._inner.async_auth_flow(request)
        try:
            outgoing = await anext(flow)
            while True:
                response = yield outgoing
                outgoing = await flow.asend(response)
        except StopAsyncIteration:
            return
        except (OAuthFlowError, ValidationError, ValueError) as error:
            said = "" if isinstance(error, ValidationError) else f": {cut(printable(str(error)), 200)}"
            self._failed(f"wants authorisation, which fails{said}")
        finally:
            await flow.aclose()


def provider(url: str, terms: OAuthTerms, secret: str, tokens: MemoryTokens, consent: Consent | None) -> httpx2.Auth:
    """The SDK's flow for a server.

    Args:
        url: The server.
        terms: How its tokens are got.
        secret: Our secret there; empty if there is none.
        tokens: Where they are kept.
        consent: Whom to ask; needed for `authorization_code`.

    Raises:
        ConfigError: The terms do not fit together.
    """
    if terms.grant == CREDENTIALS:
        if not (terms.client_id and secret and terms.issuer):
            msg = "tokens by `client_credentials` need `issuer`, `client_id` and `client_secret`"
            raise ConfigError(msg)
        return ClientCredentialsOAuthProvider(
            url, tokens, terms.client_id, secret, scope=terms.scope or None, issuer=terms.issuer
        )
    if terms.grant != CODE or consent is None or not terms.redirect_uri:
        msg = f"tokens are got by `{CREDENTIALS}`, or by `{CODE}` with a `redirect_uri`"
        raise ConfigError(msg)
    known = OAuthClientMetadata(
        client_name="symbi",
        redirect_uris=[AnyUrl(terms.redirect_uri)],
        grant_types=["authorization_code", "refresh_token"],
        response_types=["code"],
        scope=terms.scope or None,
    )
    if terms.client_id:
        tokens.client = OAuthClientInformationFull(
            client_id=terms.client_id,
            client_secret=secret or None,
            redirect_uris=[AnyUrl(terms.redirect_uri)],
            token_endpoint_auth_method="client_secret_basic" if secret else "none",
            issuer=terms.issuer or None,
        )
    return OAuthClientProvider(url, known, tokens, consent.show, consent.code, terms.metadata_url or None)
