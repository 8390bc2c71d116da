"""Applications at a port of this machine, and servers that answer by script, for tests of what speaks HTTP."""

import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final, TypeAlias

import anyio
from anyio.abc import ByteStream

START_S: Final = 20.0  # for an application to be up

Script: TypeAlias = Callable[["Heard", ByteStream], Awaitable[None]]


@contextmanager
def served(application: Any) -> Iterator[str]:
    """An ASGI application on a thread of its own, while it lasts; its address."""
    import uvicorn  # noqa: PLC0415 - of tests alone

    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()  # who comes before the thread is up waits, and is not refused
    server = uvicorn.Server(uvicorn.Config(application, log_level="error", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(START_S)
        listener.close()


class Heard:
    """A request that was heard.

    Attributes:
        method: Of HTTP.
        path: With its query.
        headers: By name in lower case.
        body: All of it.
    """

    def __init__(self, head: str, body: bytes) -> None:
        first, *lines = head.split("\r\n")
        self.method, self.path, _ = first.split(" ", 2)
        self.headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        self.body = body


@asynccontextmanager
async def scripted(script: Script) -> AsyncIterator[tuple[str, list[Heard]]]:
    """A server that reads one request of each connection, and hands the connection to the script; what it heard."""
    heard: list[Heard] = []

    async def serve(stream: ByteStream) -> None:
        async with stream:
            try:
                data = b""
                while b"\r\n\r\n" not in data:
                    data += await stream.receive()
                head, _, body = data.partition(b"\r\n\r\n")
                request = Heard(head.decode("latin-1"), body)
                missing = int(request.headers.get("content-length", "0")) - len(body)
                while missing > 0:
                    more = await stream.receive()
                    request.body += more
                    missing -= len(more)
                heard.append(request)
                await script(request, stream)
            except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
                pass  # whoever asked has gone

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)  # noqa: S610 - no Django
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, serve)
        try:
            yield f"http://127.0.0.1:{port}", heard
        finally:
            tasks.cancel_scope.cancel()
