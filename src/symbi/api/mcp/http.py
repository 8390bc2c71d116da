"""The gateway over streamable HTTP, both eras of the protocol: the SDK's sessions behind a door of our own."""

import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import anyio
import uvicorn

from symbi.api.mcp.http_door import PATH, HttpDoor, ServerOf
from symbi.api.mcp.terms import MAX_HEADER_BYTES, DoorTerms
from symbi.api.mcp.tokens import ClientBook
from symbi.api.mcp.wire import KEEP_ALIVE_S, Listener, QuietServer, bounded
from symbi.errors import ConfigError

CLOSE_S: Final = 5  # for connections to end once everything is answered


@dataclass(frozen=True, slots=True)
class Place:
    """Where requests come in, once it is open.

    Attributes:
        listener: Listens.
        tls: What it speaks; None for plain HTTP.
    """

    listener: socket.socket
    tls: ssl.SSLContext | None


def open_place(terms: DoorTerms) -> Place:
    """Listen.

    Raises:
        ConfigError: The address cannot be listened on, or certificate and key are none.
    """
    tls = None
    if terms.tls_cert is not None:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            tls.load_cert_chain(terms.tls_cert, terms.tls_key)
        except OSError as error:  # also what `ssl` says of files that are none
            msg = f"cannot serve TLS with `{terms.tls_cert}` and `{terms.tls_key}`: {error.strerror or error}"
            raise ConfigError(msg, code="config.tls") from error
    family = socket.AF_INET6 if ":" in terms.host else socket.AF_INET
    try:
        made = socket.create_server((terms.host, terms.port), family=family, backlog=128)
    except OSError as error:
        msg = f"cannot listen on `{terms.host}`, port {terms.port}: {error.strerror or error}"
        raise ConfigError(msg, code="config.address", hint="`gateway.host` and `gateway.port` say where") from error
    return Place(Listener(made, terms.max_connections), tls)


class HttpGateway:
    """Serves until it is told to stop.

    Args:
        terms: Where, and bounds.
        clients: Who may come in.
        server_of: What serves a client.
        place: Where, if it is open already.
    """

    def __init__(self, terms: DoorTerms, clients: ClientBook, server_of: ServerOf, place: Place | None = None) -> None:
        self.terms = terms
        self._place = place
        self.door = HttpDoor(terms, clients, server_of)
        self.app: Any = self.door  # what is served; tests put something in front
        self._stop = anyio.Event()

    def stop(self) -> None:
        """Take no more requests; those at work may end within the grace."""
        self._stop.set()

    async def serve(self, started: Callable[[str], None]) -> None:
        """Listen and serve.

        Args:
            started: Told the URL once requests are taken.

        Raises:
            ConfigError: The address cannot be listened on, or certificate and key are none.
        """
        place = self._place or open_place(self.terms)
        with place.listener as listener:
            ready = anyio.Event()
            server = QuietServer(self._config(place), ready)
            async with self.door, anyio.create_task_group() as tasks:
                tasks.start_soon(partial(server.serve, sockets=[listener]))
                try:
                    await ready.wait()
                    started(self.url(listener.getsockname()[1]))
                    await self._stop.wait()
                    with anyio.move_on_after(self.terms.grace_s):
                        await self.door.drain()
                finally:
                    self.door.close()
                    server.should_exit = True

    def url(self, port: int) -> str:
        """Where clients find it."""
        scheme = "https" if self.terms.tls_cert else "http"
        host = f"[{self.terms.host}]" if ":" in self.terms.host else self.terms.host
        return f"{scheme}://{host}:{port}{PATH}"

    def _config(self, place: Place) -> uvicorn.Config:
        terms = self.terms
        config = uvicorn.Config(
            self.app,
            http=bounded(terms.header_s),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=CLOSE_S,
            h11_max_incomplete_event_size=MAX_HEADER_BYTES,
            ssl_context_factory=None if place.tls is None else lambda _config, _default: place.tls,  # type: ignore[arg-type, return-value] # it is one
        )
        config.load()
        return config
