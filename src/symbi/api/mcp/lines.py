"""The protocol by lines: one JSON message a line, over standard streams or a socket, each line of bounded length.

A client that does not read its answers is not read from either once many of them wait.
"""

import logging
import os
import select
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, Final

import anyio
import mcp_types as types
from mcp.shared.message import SessionMessage

from symbi.errors import SymbiError, Unavailable

_log = logging.getLogger("symbi.api")

MAX_LINE_BYTES: Final = 16_777_216  # of one message; a longer one ends the connection
MAX_UNREAD: Final = 256  # messages that wait for the client to read; with so many, nothing of it is read meanwhile
_RECEIVE_BYTES: Final = 65_536
_SEND_BYTES: Final = select.PIPE_BUF  # so much can be written where anything can, without waiting

Receive = Callable[[], Awaitable[bytes]]
Send = Callable[[bytes], Awaitable[None]]


async def receive_from(descriptor: int) -> bytes:
    """The next bytes of a pipe, socket, terminal or file; none at its end."""
    with suppress(PermissionError):  # a file, which never waits
        await anyio.wait_readable(descriptor)
    return os.read(descriptor, _RECEIVE_BYTES)


async def send_to(descriptor: int, data: bytes) -> None:
    """Write all bytes to a pipe, socket, terminal or file, and hold up nobody else meanwhile.

    Raises:
        OSError: Nobody reads there any more.
    """
    view = memoryview(data)
    while view:
        with suppress(PermissionError):
            await anyio.wait_writable(descriptor)
        view = view[os.write(descriptor, view[:_SEND_BYTES]) :]


async def lines_of(receive: Receive, rest: bytes = b"") -> AsyncIterator[bytes]:
    """The lines of what comes in, without their ends.

    Args:
        receive: Gives the next bytes.
        rest: What was received already.

    Raises:
        Unavailable: One is too long.
    """
    buffer = bytearray(rest)
    seen = 0
    while True:
        at = buffer.find(b"\n", seen)
        if at >= 0:
            line = bytes(buffer[:at])
            del buffer[: at + 1]
            seen = 0
            yield line
            continue
        seen = len(buffer)
        if seen > MAX_LINE_BYTES:
            msg = f"a message is longer than {MAX_LINE_BYTES} bytes"
            raise Unavailable(msg, code="unavailable.client")
        part = await receive()
        if not part:
            if buffer.strip():
                yield bytes(buffer)
            return
        buffer += part


@asynccontextmanager
async def line_streams(receive: Receive, send: Send, rest: bytes = b"") -> AsyncIterator[tuple[Any, Any]]:
    """The streams that the SDK's server reads and writes.

    Args:
        receive: Gives the next bytes; none at the end.
        send: Takes bytes.
        rest: What was received already.
    """
    to_server, incoming = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    outgoing, from_server = anyio.create_memory_object_stream[SessionMessage](0)

    refusals = outgoing.clone()
    taken = anyio.Event()

    async def read() -> None:
        async with to_server, refusals:
            try:
                async for line in lines_of(receive, rest):
                    while from_server.statistics().tasks_waiting_send >= MAX_UNREAD:
                        await taken.wait()
                    message = _message(line) if line.strip() else None
                    if isinstance(message, SessionMessage):
                        await to_server.send(message)
                    elif message is not None:
                        await refusals.send(SessionMessage(message))
            except Unavailable as error:
                _log.warning("a client is left: %s", error)
            except (OSError, anyio.BrokenResourceError):
                pass  # it is gone

    async def write() -> None:
        nonlocal taken
        with from_server, suppress(OSError):
            async for message in from_server:
                text = message.message.model_dump_json(by_alias=True, exclude_unset=True)
                await send(text.encode() + b"\n")
                taken.set()
                taken = anyio.Event()
        taken.set()  # nothing waits any more

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read)
        tasks.start_soon(write)
        yield incoming, outgoing
        outgoing.close()
        tasks.cancel_scope.cancel("the session is over")


@contextmanager
def unwrapped() -> Iterator[None]:
    """What ends a group of tasks in here comes out as the error that it is, and not as a group of one."""
    try:
        yield
    except BaseExceptionGroup as group:
        error: BaseException | None = group.split(SymbiError)[0]
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        if error is None:
            raise
        raise error from group


def _message(line: bytes) -> SessionMessage | types.JSONRPCError:
    """The message in a line, or the answer to one that is none; the SDK would pass over it, and its sender wait for ever."""
    try:
        return SessionMessage(types.jsonrpc_message_adapter.validate_json(line, by_name=False))
    except ValueError:
        error = types.ErrorData(code=types.PARSE_ERROR, message="the line is no message of JSON-RPC")
        return types.JSONRPCError(jsonrpc="2.0", id=None, error=error)


@contextmanager
def standard_streams() -> Iterator[tuple[int, int]]:
    """Our standard input and output for the protocol alone.

    In here file descriptor 0 is empty and 1 leads to standard error, so that nothing that anybody else prints, in this
    process or in one that it starts, gets between the messages.
    """
    sys.stdout.flush()
    reading, writing = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    try:
        os.dup2(nothing, 0)
        os.dup2(2, 1)
        yield reading, writing
    finally:
        os.dup2(reading, 0)
        os.dup2(writing, 1)
        for descriptor in (reading, writing, nothing):
            os.close(descriptor)
