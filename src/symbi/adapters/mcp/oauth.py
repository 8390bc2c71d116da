"""Tokens for servers that want some, as the SDK gets them (OAuth 2.1 with PKCE, RFC 8707, 9207 and 9728).

With credentials of our own (`client_credentials`), with a key of our own that signs who we are (`private_key_jwt`, RFC 7523)
or with what an identity provider has signed of it (`identity_assertion`), which need nobody; or with the consent of a person
(`authorization_code`). For that we never open a browser: the address of the page is shown to the operator, who opens it
where he likes, and the code comes back to a port of this machine. Tokens are kept in memory alone; secrets of clients
are vault references, resolved when the server is connected.
"""

import logging
import re
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final, Protocol
from urllib.parse import parse_qs, urlsplit

import anyio
import httpx2
from anyio.abc import ByteStream
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from mcp.client.auth import OAuthClientProvider, OAuthFlowError
from mcp.client.auth.extensions.client_credentials import (
    ClientCredentialsOAuthProvider,
    PrivateKeyJWTOAuthProvider,
    SignedJWTParameters,
)
from mcp.client.auth.extensions.identity_assertion import IdentityAssertionOAuthProvider
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientInformationFull, OAuthClientMetadata, OAuthToken
from pydantic import AnyUrl, ValidationError

from symbi.adapters.mcp.network import LOOPBACK_NAMES
from symbi.errors import ConfigError
from symbi.tools.text import cut, printable

_log = logging.getLogger("symbi.tools.server")

LOGIN_S: Final = 300.0  # for a person to agree
MAX_REQUEST_BYTES: Final = 8_192  # of what comes back from a browser
BROWSER_S: Final = 10.0  # for it to say so
AUTHORIZATION: Final = "authorization"
CREDENTIALS: Final = "client_credentials"
CODE: Final = "authorization_code"
KEY: Final = "private_key_jwt"
IDENTITY: Final = "identity_assertion"
ASSERTION_S: Final = 300  # for which what our key signs is good: clocks differ
MIN_RSA_BITS: Final = 2048
MAX_SAID_CHARS: Final = 2_000  # of what went wrong that is looked at
_SIGNED: Final = re.compile(r"eyJ[A-Za-z0-9_.-]*")
"""An assertion or a token that whoever refuses it quotes."""

# It writes what went wrong to the log, which quotes what the other side sent.
logging.getLogger("mcp.client.auth").setLevel(logging.CRITICAL)


@dataclass(frozen=True, slots=True)
class OAuthTerms:
    """How a server's tokens are got.

    Attributes:
        grant: `client_credentials`, `private_key_jwt`, `identity_assertion` or `authorization_code`.
        issuer: Who gives them out; the flow stops where the server leads to anybody else. Empty: whom it names.
        client_id: Who we are there; empty to be registered by the flow.
        client_secret: The `vault://` reference of our secret there; empty if there is none.
        scope: What is asked for; empty to leave that to the server.
        redirect_uri: Where the code comes back to, on this machine: `http://127.0.0.1:PORT/callback`.
        metadata_url: Where our description is published, for servers that take that as a client's id.
        private_key: The `vault://` reference of our key there, in PEM; empty if there is none.
        assertion: The `vault://` reference of what an identity provider has signed of us; empty if there is none.
    """

    grant: str
    issuer: str = ""
    client_id: str = ""
    client_secret: str = ""
    scope: str = ""
    redirect_uri: str = ""
    metadata_url: str = ""
    private_key: str = ""
    assertion: str = ""

    @property
    def references(self) -> tuple[str, str, str]:
        """What has to be resolved, in the order of `OAuthSecrets`."""
        return self.client_secret, self.private_key, self.assertion


@dataclass(frozen=True, slots=True)
class OAuthSecrets:
    """What the references of the terms stand for; each empty if there is none, and none shown.

    Attributes:
        client_secret: Our secret.
        private_key: Our key, in PEM.
        assertion: What an identity provider has signed of us.
    """

    client_secret: str = field(default="", repr=False)
    private_key: str = field(default="", repr=False)
    assertion: str = field(default="", repr=False)


class _OurScope(OAuthClientMetadata):
    """What is asked for is what the operator wrote: the SDK would put what the server names in its place."""

    def __setattr__(self, name: str, value: object) -> None:
        if name != "scope":
            super().__setattr__(name, value)


class _ByIdentity(IdentityAssertionOAuthProvider):
    """Likewise."""

    def _build_token_request(self, scope: str | None, assertion: str) -> httpx2.Request:
        return super()._build_token_request(self._scope or scope, assertion)


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

    The SDK's flow lets one request at a time wait for its answer; with a token that was good before, none goes that way
    unless the server refuses it.

    Args:
        inner: The SDK's flow.
        failed: Told half a sentence.
    """

    requires_response_body = True

    def __init__(self, inner: httpx2.Auth, failed: Callable[[str], None]) -> None:
        self._inner = inner
        self._failed = failed
        self._is_over = False
        self._good: str | None = None  # the header of a request that was not refused; empty where none was wanted

    async def async_auth_flow(self, request: httpx2.Request) -> AsyncGenerator[httpx2.Request, httpx2.Response]:
        """The inner flow; after a failure the request has the answer that it had, and no token is asked for again."""
        refused: httpx2.Response | None = None
        given = self._good
        if given is not None or self._is_over:
            if given:
                request.headers[AUTHORIZATION] = given
            refused = yield request
            if self._is_over or not _is_refused(refused):
                return
        flow = self._inner.async_auth_flow(request)
        try:
            outgoing = await anext(flow)
            if refused is not None and outgoing is request and request.headers.get(AUTHORIZATION, "") == given:
                outgoing = await flow.asend(refused)  # it would be refused again; there may be another token by now
            while True:
                response = yield outgoing
                if outgoing is request and not _is_refused(response):
                    self._good = request.headers.get(AUTHORIZATION, "")
                outgoing = await flow.asend(response)
        except StopAsyncIteration:
            return
        except (OAuthFlowError, ValidationError, ValueError) as error:
            self._is_over = True
            self._failed(f"wants authorisation, which fails{_said(error)}")
        finally:
            await flow.aclose()


def _is_refused(response: httpx2.Response) -> bool:
    """Whether a server wants a token, or another one."""
    return response.status_code in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}


def _said(error: Exception) -> str:
    """What went wrong, without what was signed: whoever refuses it may quote it."""
    if isinstance(error, ValidationError):
        return ""
    return f": {cut(_SIGNED.sub('(withheld)', printable(str(error)[:MAX_SAID_CHARS])), 200)}"


def algorithm_of(pem: str) -> str:
    """By which algorithm of RFC 7518 a private key signs: `ES256` or `RS256`.

    Raises:
        ConfigError: It is none that signs so. The message never quotes it.
    """
    try:
        key = serialization.load_pem_private_key(pem.encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # The cause is not kept: its text may quote the key.
        msg = "what `oauth_private_key` names is no unencrypted private key in PEM"
        raise ConfigError(msg, hint="it begins with `-----BEGIN PRIVATE KEY-----`") from None
    if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1):
        return "ES256"
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size >= MIN_RSA_BITS:
        return "RS256"
    msg = "what `oauth_private_key` names is a key of another kind than those that sign for tokens"
    raise ConfigError(msg, hint=f"P-256 signs by ES256, and RSA of {MIN_RSA_BITS} bits or more by RS256")


def provider(
    url: str, terms: OAuthTerms, secrets: OAuthSecrets, tokens: MemoryTokens, consent: Consent | None
) -> httpx2.Auth:
    """The SDK's flow for a server.

    Args:
        url: The server.
        terms: How its tokens are got; where they name a scope, nothing else is asked for, whatever the server names.
        secrets: What the references of the terms stand for.
        tokens: Where they are kept.
        consent: Whom to ask; needed for `authorization_code`.

    Raises:
        ConfigError: The terms do not fit together, or the key signs nothing.
    """
    if terms.grant == IDENTITY:
        return _by_identity(url, terms, secrets, tokens)
    flow: OAuthClientProvider
    if terms.grant == CREDENTIALS:
        _need(terms, client_secret=secrets.client_secret)
        flow = ClientCredentialsOAuthProvider(url, tokens, terms.client_id, secrets.client_secret, issuer=terms.issuer)
    elif terms.grant == KEY:
        flow = _by_key(url, terms, secrets.private_key, tokens)
    else:
        flow = _by_consent(url, terms, secrets.client_secret, tokens, consent)
    if terms.scope:
        known = flow.context.client_metadata.model_dump()
        flow.context.client_metadata = _OurScope.model_validate({**known, "scope": terms.scope})
    return flow


def _need(terms: OAuthTerms, **secrets: str) -> None:
    """Return if all is there that a grant without a person needs.

    Raises:
        ConfigError: Something is not.
    """
    needed = {"issuer": terms.issuer, "client_id": terms.client_id, **secrets}
    if not all(needed.values()):
        *first, last = (f"`{name}`" for name in needed)
        msg = f"tokens by `{terms.grant}` need {', '.join(first)} and {last}"
        raise ConfigError(msg)


def _by_key(url: str, terms: OAuthTerms, pem: str, tokens: MemoryTokens) -> OAuthClientProvider:
    _need(terms, private_key=pem)
    signing = SignedJWTParameters(
        issuer=terms.client_id,
        subject=terms.client_id,
        signing_key=pem,
        signing_algorithm=algorithm_of(pem),
        lifetime_seconds=ASSERTION_S,
    )
    # What is signed is for the issuer that the terms name, which the SDK holds against what it finds there.
    signed = signing.create_assertion_provider()
    return PrivateKeyJWTOAuthProvider(url, tokens, terms.client_id, signed, issuer=terms.issuer)


def _by_identity(url: str, terms: OAuthTerms, secrets: OAuthSecrets, tokens: MemoryTokens) -> httpx2.Auth:
    _need(terms, client_secret=secrets.client_secret, assertion=secrets.assertion)

    async def assertion(_audience: str, _resource: str) -> str:
        return secrets.assertion  # whoever put it there had it signed for this issuer, which looks at that

    return _ByIdentity(
        url,
        tokens,
        terms.client_id,
        secrets.client_secret,
        terms.issuer,
        assertion,
        scope=terms.scope or None,
        token_endpoint_auth_method="client_secret_basic",  # noqa: S106 - as for `client_credentials`
    )


def _by_consent(
    url: str, terms: OAuthTerms, secret: str, tokens: MemoryTokens, consent: Consent | None
) -> OAuthClientProvider:
    if terms.grant != CODE or consent is None or not terms.redirect_uri:
        msg = f"tokens are got by `{CREDENTIALS}`, `{KEY}`, `{IDENTITY}`, or by `{CODE}` with a `redirect_uri`"
        raise ConfigError(msg)
    known = OAuthClientMetadata(
        client_name="symbi",
        redirect_uris=[AnyUrl(terms.redirect_uri)],
        grant_types=["authorization_code", "refresh_token"],
        response_types=["code"],
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
