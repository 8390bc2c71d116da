"""HTTP on the wire, bounded before anybody is known: connections, headers, and the time that they may take.

uvicorn ends a connection that is idle after an answer. It does not end one that sends its headers a byte at a time, nor
does it bound how many there are; both are added here. Over TLS it does not even know of one before it has agreed on a key,
so connections are counted where they come in.
"""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final
from weakref import WeakSet

import anyio
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

KEEP_ALIVE_S: Final = 30


class Listener(socket.socket):
    """Listens, and takes no more connections than may be open at a time; one that comes beyond them is closed at once.

    Args:
        made: Listens already; it is taken over.
        max_connections: At a time.
    """

    def __init__(self, made: socket.socket, max_connections: int) -> None:
        super().__init__(fileno=made.detach())
        self._most = max_connections
        self._taken: WeakSet[socket.socket] = WeakSet()

    def accept(self) -> tuple[socket.socket, Any]:
        """The next connection.

        Raises:
            ConnectionAbortedError: It was one too many.
        """
        connection, address = super().accept()
        if sum(one.fileno() >= 0 for one in self._taken) >= self._most:
            connection.close()
            raise ConnectionAbortedError
        self._taken.add(connection)
        return connection, address


def bounded(header_s: float) -> type[asyncio.Protocol]:
    """The protocol of one connection.

    Args:
        header_s: How long the headers of a request may take, from the connection or from the end of the last request.
    """

    class Bounded(H11Protocol):
        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            self._late: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as that of uvicorn
            super().connection_made(transport)
            # asyncio does it only where the listening socket names its protocol; without it an answer in two writes
            # waits for the other end's delayed acknowledgement.
            transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._late = self.loop.call_later(header_s, self._end)

        def handle_events(self) -> None:
            super().handle_events()
            if self._is_at_work():
                self._in_time()  # a request has begun: what serves it bounds the rest
            elif self._late is None and not self.transport.is_closing():
                self._late = self.loop.call_later(header_s, self._end)

        def connection_lost(self, exc: Exception | None) -> None:
            self._in_time()
            super().connection_lost(exc)

        def _is_at_work(self) -> bool:
            cycle: Any = self.cycle  # None until the first request
            return cycle is not None and not cycle.response_complete

        def _in_time(self) -> None:
            if self._late is not None:
                self._late.cancel()
                self._late = None

        def _end(self) -> None:
            self._late = None
            if not self._is_at_work() and not self.transport.is_closing():
                self.transport.abort()

    return Bounded


class QuietServer(uvicorn.Server):
    """uvicorn that leaves signals to the command that runs it, and says when it listens.

    Args:
        config: Its own.
        ready: Set once it listens.
    """

    def __init__(self, config: uvicorn.Config, ready: anyio.Event) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen."""
        await super().startup(sockets=sockets)
        self._ready.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield
