"""The gateway over streamable HTTP, both eras of the protocol: the SDK's sessions behind a door of our own."""

import socket
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import anyio
import uvicorn

from symbi.api.mcp.http_door import PATH, HttpDoor, ServerOf
from symbi.api.mcp.terms import MAX_HEADER_BYTES, DoorTerms
from symbi.api.mcp.tokens import ClientBook
from symbi.api.mcp.wire import KEEP_ALIVE_S, QuietServer, bounded
from symbi.errors import ConfigError

CLOSE_S: Final = 5  # for connections to end once everything is answered


class HttpGateway:
    """Serves until it is told to stop.

    Args:
        terms: Where, and bounds.
        clients: Who may come in.
        server_of: What serves a client.
    """

    def __init__(self, terms: DoorTerms, clients: ClientBook, server_of: ServerOf) -> None:
        self.terms = terms
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
        listener = self._listen()
        with listener:
            ready = anyio.Event()
            server = QuietServer(self._config(), ready)
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

    def _listen(self) -> socket.socket:
        terms = self.terms
        family = socket.AF_INET6 if ":" in terms.host else socket.AF_INET
        try:
            return socket.create_server((terms.host, terms.port), family=family, backlog=128)
        except OSError as error:
            msg = f"cannot listen on `{terms.host}`, port {terms.port}: {error.strerror or error}"
            raise ConfigError(msg, code="config.address", hint="`gateway.host` and `gateway.port` say where") from error

    def _config(self) -> uvicorn.Config:
        terms = self.terms
        config = uvicorn.Config(
            self.app,
            http=bounded(terms.max_connections, terms.header_s),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=CLOSE_S,
            h11_max_incomplete_event_size=MAX_HEADER_BYTES,
            ssl_certfile=terms.tls_cert,
            ssl_keyfile=terms.tls_key,
        )
        try:
            config.load()
        except OSError as error:  # also what `ssl` says of files that are none
            msg = f"cannot serve TLS with `{terms.tls_cert}` and `{terms.tls_key}`: {error.strerror or error}"
            raise ConfigError(msg, code="config.tls") from error
        return config
