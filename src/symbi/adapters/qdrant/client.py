"""How a Qdrant server is reached: with bounds, over TLS that is checked, and in words that say nothing of what was asked."""

import os
import ssl
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from importlib import import_module
from math import ceil
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import urlsplit
from uuid import UUID

import anyio

from symbi.errors import ConfigError, Overloaded, StoreUnavailable, SymbiError, Unavailable

if TYPE_CHECKING:
    import httpx
    from qdrant_client import AsyncQdrantClient

PORT: Final = 6333
MAX_ANSWER: Final = 512 * 1024 * 1024
MAX_CONNECTIONS: Final = 100
RETRY_AFTER_S: Final = 1.0  # where a server that is busy does not say
OWNER_FILE: Final = "server-owner"
_BUSY: Final = 429


def connect(url: str, *, key: str | None, timeout_s: float) -> "AsyncQdrantClient":
    """A client of a server; nothing is sent yet.

    The server's certificate is checked against the authorities of the system (or those of `SSL_CERT_FILE`), proxies are
    not asked, and no redirect is followed.

    Args:
        url: Of the server.
        key: Sent as `api-key`; nothing is sent if None.
        timeout_s: How long a request may take, from its first byte to the last one of its answer.

    Raises:
        ConfigError: No such address.
        Unavailable: qdrant-client is not installed.
    """
    library = _library()
    try:
        parts = urlsplit(url)
        known, port = parts.scheme in {"http", "https"} and bool(parts.hostname), parts.port or PORT
    except ValueError:
        known, port = False, PORT
    if not known:
        raise ConfigError(f"`{url}` is no address of a Qdrant server", code="config.vectors")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Api key is used with an insecure connection")  # `refuse_unsafe` says it
        client: AsyncQdrantClient = library.AsyncQdrantClient(
            url=url,
            port=port,
            api_key=key,
            timeout=max(1, ceil(timeout_s)),  # it takes whole seconds; what counts is the transport's
            check_compatibility=False,
            trust_env=False,
            follow_redirects=False,
            transport=_Bounded(timeout_s),
        )
    return client


class _Bounded:
    """Sends for the client; a whole request has a bound in time, and its answer one in size."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._http: Any = import_module("httpx")
        limits = self._http.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=0)
        self._inner: httpx.AsyncHTTPTransport = self._http.AsyncHTTPTransport(
            verify=ssl.create_default_context(), trust_env=False, limits=limits
        )

    async def __aenter__(self) -> Self:
        await self._inner.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._inner.__aexit__(kind, error, trace)

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def handle_async_request(self, request: "httpx.Request") -> "httpx.Response":
        with anyio.fail_after(self._timeout_s):
            answer = await self._inner.handle_async_request(request)
            try:
                data = bytearray()
                async for piece in answer.stream:  # type: ignore[union-attr]
                    data += piece
                    if len(data) > MAX_ANSWER:
                        raise OverflowError
            finally:
                with anyio.CancelScope(shield=True):
                    await answer.aclose()
        made: httpx.Response = self._http.Response(
            answer.status_code, headers=answer.headers, content=None, stream=self._http.ByteStream(bytes(data))
        )
        return made


@asynccontextmanager
async def asking() -> AsyncIterator[None]:
    """Whatever the client raises is the server's fault, and says nothing of what was asked."""
    failures = import_module("qdrant_client.http.exceptions")
    resting = import_module("qdrant_client.common.client_exceptions").QdrantException
    try:
        yield
    except SymbiError:
        raise
    except failures.UnexpectedResponse as error:
        if error.status_code == _BUSY:
            raise Overloaded("the vector database is busy", retry_after_s=RETRY_AFTER_S) from None
        raise StoreUnavailable(f"the vector database answered {error.status_code}") from None
    except resting as error:
        asked_s = float(getattr(error, "retry_after_s", RETRY_AFTER_S))
        raise Overloaded("the vector database is busy", retry_after_s=max(asked_s, 0.0)) from None
    except failures.ApiException as error:
        raise _unanswered(getattr(error, "source", error)) from None
    except (ValueError, OSError, AssertionError) as error:  # the client asserts that there is a result
        raise StoreUnavailable(f"the vector database gave no answer that is one: {type(error).__name__}") from error


def folder_id(folder: Path, new: str) -> str:
    """By what vectors on a server are known to be those of a data folder.

    Args:
        folder: Where it is kept.
        new: A UUID; kept there where there is none yet.

    Raises:
        StoreUnavailable: It can be neither read nor written, or is none.
    """
    file, own = folder / OWNER_FILE, folder / f"{OWNER_FILE}.{new}"
    try:
        if not file.exists():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            own.write_text(f"{new}\n", "utf-8")
            with suppress(FileExistsError):
                os.link(own, file)  # whole, and the first one
            own.unlink()
        return str(UUID(file.read_text("utf-8").strip()))
    except OSError as error:
        raise StoreUnavailable(f"`{file}` cannot be used: {error.strerror}") from error
    except ValueError as error:
        raise StoreUnavailable(f"`{file}` does not say to whom vectors on a server belong") from error


def _unanswered(error: BaseException) -> StoreUnavailable:
    http = import_module("httpx")
    match error:
        case TimeoutError() | http.TimeoutException():
            why = "took too long to answer"
        case http.ConnectError():  # which names no more than where, and what is wrong with a certificate
            why = f"cannot be reached: {error}"
        case http.TransportError() | OSError():
            why = f"cannot be reached: {type(error).__name__}"
        case OverflowError():
            why = "answers more than it was asked for"
        case _:
            why = f"gave no answer that is one: {type(error).__name__}"
    return StoreUnavailable(f"the vector database {why}")


def _library() -> Any:
    try:
        return import_module("qdrant_client")
    except ImportError as error:
        hint = "pip install 'symbi[qdrant]', or set `context.vector_db_url` to `qdrant-edge:`"
        raise Unavailable("qdrant-client is not installed", code="unavailable.vectors", hint=hint) from error
