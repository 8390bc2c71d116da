"""An engine's socket on this machine, as connections of the HTTP client.

The client's own connections let the loop set a future as soon as the socket can be read. Where somebody gives up waiting
in the very turn in which the answer comes, that future is over already, and the loop reports an error of a callback that
nobody can act on. These wait for the socket in a way that takes both at once.
"""

import select
import socket
from collections.abc import AsyncIterator, Iterable
from typing import Any, Final

import anyio
import anyio.lowlevel
import httpcore2
import httpx2

CROWDED_S: Final = 0.02  # between two attempts where as many wait for the engine to accept them as may


class LocalStream(httpcore2.AsyncNetworkStream):
    """Both directions of a connected socket of this machine, read by one task and written by one at a time.

    Args:
        connected: It, not blocking; closed with this.
    """

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - the library's own parameter
        """The next bytes; empty at the end.

        Raises:
            httpcore2.ReadError: The connection is gone.
            httpcore2.ReadTimeout: None came in time.
        """
        try:
            with anyio.fail_after(timeout):
                await anyio.lowlevel.checkpoint()
                while (piece := self._piece(max_bytes)) is None:
                    await anyio.wait_readable(self._socket)
                return piece
        except TimeoutError as error:
            raise httpcore2.ReadTimeout(str(error)) from error
        except (OSError, anyio.ClosedResourceError) as error:
            raise httpcore2.ReadError(str(error)) from error

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 - the library's own parameter
        """Send it all.

        Raises:
            httpcore2.WriteError: The connection is gone.
            httpcore2.WriteTimeout: Not all was taken in time.
        """
        try:
            with anyio.fail_after(timeout):
                await anyio.lowlevel.checkpoint()
                left = self._unsent(memoryview(buffer))
                while left:
                    await anyio.wait_writable(self._socket)
                    left = self._unsent(left)
        except TimeoutError as error:
            raise httpcore2.WriteTimeout(str(error)) from error
        except (OSError, anyio.ClosedResourceError) as error:
            raise httpcore2.WriteError(str(error)) from error

    async def aclose(self) -> None:
        """Close it; who waits at it is told."""
        if self._socket.fileno() >= 0:
            anyio.notify_closing(self._socket)
            self._socket.close()

    def _piece(self, max_bytes: int) -> bytes | None:
        """What there is; None where that is nothing yet."""
        try:
            return self._socket.recv(max_bytes)
        except BlockingIOError:
            return None

    def _unsent(self, data: memoryview) -> memoryview:
        """What is left when as much was sent as is taken at once."""
        try:
            return data[self._socket.send(data) :]
        except BlockingIOError:
            return data

    def get_extra_info(self, info: str) -> Any:
        """The socket, and whether there is something to read, by which the client knows that the engine has hung up."""
        match info:
            case "socket":
                return self._socket
            case "is_readable":
                return _is_readable(self._socket)
            case _:
                return None


class LocalNetwork(httpcore2.AsyncNetworkBackend):
    """Connects to sockets of this machine, and to nothing else."""

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ASYNC109 - the library's own parameter
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Connect to the socket at a path.

        Raises:
            httpcore2.ConnectError: Nobody listens there, or it may not be used.
            httpcore2.ConnectTimeout: It did not accept in time.
        """
        connecting = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            connecting.setblocking(False)
            for option in socket_options or ():
                connecting.setsockopt(*option)
            with anyio.fail_after(timeout):
                await anyio.lowlevel.checkpoint()
                while not _is_connected(connecting, path):  # noqa: ASYNC110 - nothing tells when there is room again
                    await anyio.sleep(CROWDED_S)
        except BaseException as error:
            connecting.close()
            if isinstance(error, TimeoutError):
                raise httpcore2.ConnectTimeout(str(error)) from error
            if isinstance(error, OSError):
                raise httpcore2.ConnectError(str(error)) from error
            raise
        return LocalStream(connecting)

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await anyio.sleep(seconds)


class LocalTransport(httpx2.AsyncBaseTransport):
    """Exchanges with the engine behind a socket of this machine.

    Args:
        path: Of the socket.
        limits: How many connections there may be, and how many are kept.
    """

    def __init__(self, path: str, limits: httpx2.Limits) -> None:
        self._pool = httpcore2.AsyncConnectionPool(
            uds=path,
            max_connections=limits.max_connections,
            max_keepalive_connections=limits.max_keepalive_connections,
            keepalive_expiry=limits.keepalive_expiry,
            network_backend=LocalNetwork(),
        )

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """One exchange; what it raises is `httpcore2`'s."""
        found = await self._pool.handle_async_request(
            httpcore2.Request(
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
        )
        return httpx2.Response(found.status, headers=found.headers, stream=_Body(found), extensions=found.extensions)

    async def aclose(self) -> None:
        """Close every connection."""
        await self._pool.aclose()


class _Body(httpx2.AsyncByteStream):
    """The content of an answer, as it comes."""

    def __init__(self, answer: httpcore2.Response) -> None:
        self._answer = answer

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._answer.aiter_stream():
            yield piece

    async def aclose(self) -> None:
        await self._answer.aclose()


def _is_connected(connecting: socket.socket, path: str) -> bool:
    """Connect, unless as many wait to be accepted as may."""
    try:
        connecting.connect(path)
    except BlockingIOError:
        return False
    return True


def _is_readable(connected: socket.socket) -> bool:
    """Whether something can be read at once, or it is closed."""
    number = connected.fileno()
    if number < 0:
        return True
    poll = select.poll()
    poll.register(number, select.POLLIN)
    return bool(poll.poll(0))
