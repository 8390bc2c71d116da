"""A listener of a test on a socket of this machine, and its connections, which may be given up at any moment.

Those of `anyio` let the loop report an error of a callback where waiting is cancelled in the turn in which there is
something to read (see `symbi.adapters.docker.local`), and a test ends by cancelling what it serves.
"""

import socket
from contextlib import asynccontextmanager

import anyio


class Connection:
    """Both directions, by the names that streams of `anyio` have."""

    def __init__(self, connected):
        self._socket = connected
        connected.setblocking(False)

    async def __aenter__(self):
        return self

    async def __aexit__(self, *error):
        await self.aclose()

    def _raise_if_closed(self):
        if self._socket.fileno() < 0:
            raise anyio.ClosedResourceError

    async def receive(self):
        self._raise_if_closed()
        try:
            await anyio.wait_readable(self._socket)
            data = self._socket.recv(65_536)
        except OSError as error:
            raise anyio.BrokenResourceError from error
        if not data:
            raise anyio.EndOfStream
        return data

    async def send(self, data):
        self._raise_if_closed()
        left = memoryview(data)
        try:
            while left:
                await anyio.wait_writable(self._socket)
                left = left[self._socket.send(left) :]
        except OSError as error:
            raise anyio.BrokenResourceError from error

    async def aclose(self):
        if self._socket.fileno() >= 0:
            anyio.notify_closing(self._socket)
            self._socket.close()


@asynccontextmanager
async def listening(path, serve):
    """Call `serve` with each connection to the socket at a path, until the end."""
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(path)
        bound.listen()
        bound.setblocking(False)

        async def accept():
            while True:
                await anyio.wait_readable(bound)
                tasks.start_soon(serve, Connection(bound.accept()[0]))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(accept)
            yield
            tasks.cancel_scope.cancel()
