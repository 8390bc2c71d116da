"""One run of a tool server: its process, and its pipes as a bounded MCP transport.

The SDK's own transport keeps a line of any length and starts a task for every message that a server sends. Here a
server that floods, stalls, speaks garbage or never ends meets a bound at each point, and its whole process group is
ended when the session ends.
"""

import os
import re
import signal
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final, Protocol, TypeAlias

import anyio
from anyio.abc import ByteReceiveStream, ByteSendStream, Process
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.client import Transport
from mcp.shared.message import SessionMessage
from mcp_types import PARSE_ERROR, ErrorData, JSONRPCError, JSONRPCMessage, jsonrpc_message_adapter

from symbi.adapters.mcp.traffic import (
    MAX_MESSAGE_BYTES,
    TOO_LARGE,
    Fault,
    Traffic,
)
from symbi.tools.text import printable

MAX_LINE_BYTES: Final = MAX_MESSAGE_BYTES  # one message
MAX_QUEUED: Final = 64  # messages of ours that wait for the server to read
MAX_STDERR_BYTES: Final = 4_096  # the last words that are kept for messages
MAX_STDERR_LINE_BYTES: Final = 1_024  # a longer line is named by its size; half of one could hold half a secret
WRITE_STALL_S: Final = 10.0  # a server that does not read for so long is ended
GRACE_S: Final = 2.0  # to end by itself once its standard input is closed
TERMINATE_S: Final = 1.0  # from SIGTERM to SIGKILL
REAP_S: Final = 2.0  # for the kernel to report a killed process
LAST_WORDS_S: Final = 0.2  # to read what a dead server's pipe still holds
STOP_S: Final = GRACE_S + TERMINATE_S + REAP_S + LAST_WORDS_S  # the longest that ending a server takes

_ANSWER_ID: Final = re.compile(rb'\s*\{\s*(?:"jsonrpc"\s*:\s*"2\.0"\s*,\s*)?"id"\s*:\s*"?(\d{1,18})"?\s*,')
"""The head of a message that names what it answers before it begins to be long."""


_PIPE_ENDED: Final = (anyio.EndOfStream, anyio.ClosedResourceError, anyio.BrokenResourceError, OSError)
"""What a pipe raises whose other end, or whose session, is gone."""


class LastWords:
    """The end of a server's standard error: whole lines, bounded."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque()
        self._kept = 0
        self._partial = bytearray()
        self._dropped = 0

    def feed(self, data: bytes) -> None:
        """Take what was read."""
        *whole, rest = data.split(b"\n")
        for part in whole:
            self._extend(part)
            self._close_line()
        self._extend(rest)

    def text(self) -> str:
        """The last lines, joined by ` | `, without control characters."""
        if self._partial or self._dropped:
            self._close_line()
        return " | ".join(line for line in self._lines if line.strip())

    def _extend(self, part: bytes) -> None:
        room = MAX_STDERR_LINE_BYTES - len(self._partial)
        self._partial += part[:room]
        self._dropped += max(0, len(part) - room)

    def _close_line(self) -> None:
        if self._dropped:
            line = f"[a line of {len(self._partial) + self._dropped} bytes]"
        else:
            line = printable(self._partial.decode("utf-8", "replace").rstrip("\r"))
        self._partial.clear()
        self._dropped = 0
        self._lines.append(line)
        self._kept += len(line)
        while self._kept > MAX_STDERR_BYTES:
            self._kept -= len(self._lines.popleft())


class Running(Protocol):
    """A program that runs, wherever that is."""

    @property
    def stdin(self) -> ByteSendStream | None:
        """What it reads."""

    @property
    def stdout(self) -> ByteReceiveStream | None:
        """What it writes."""

    @property
    def stderr(self) -> ByteReceiveStream | None:
        """What it says beside."""

    @property
    def pid(self) -> int | None:
        """Its process on this machine, if it is one of ours."""

    @property
    def returncode(self) -> int | None:
        """How it ended, once it has."""

    @property
    def hears_the_end(self) -> bool:
        """Whether it is told of the end of its standard input."""

    async def wait(self) -> object:
        """Return once it has ended."""

    async def terminate(self) -> None:
        """Ask it to end."""

    async def kill(self) -> None:
        """End it with all that it has started."""

    async def aclose(self) -> None:
        """Give back what it took."""


Start: TypeAlias = Callable[[Sequence[str], Mapping[str, str], Path | None], Awaitable[Running]]
"""Starts a program: command, environment, working folder."""


class _OwnProcess:
    """A process of ours, with its group."""

    hears_the_end = True

    def __init__(self, process: Process) -> None:
        self._process = process
        self.stdin, self.stdout, self.stderr = process.stdin, process.stdout, process.stderr
        self.pid: int | None = process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.returncode

    async def wait(self) -> object:
        return await self._process.wait()

    async def terminate(self) -> None:
        self._signal(signal.SIGTERM)

    async def kill(self) -> None:
        # What it started may outlive it; while one of the group lives, its number belongs to nobody else.
        self._signal(signal.SIGKILL)

    async def aclose(self) -> None:
        if self.returncode is not None:
            await self._process.aclose()

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)


async def start_here(command: Sequence[str], environment: Mapping[str, str], cwd: Path | None) -> Running:
    """A process of ours, in a group of its own."""
    return _OwnProcess(await anyio.open_process(command, env=environment, cwd=cwd, start_new_session=True))


class ServerProcess:
    """One run of a server.

    Args:
        command: Program and arguments; no shell.
        environment: All of its environment.
        cwd: Its working folder, or None for ours.
        start: Starts it; as a process of ours by default.

    Attributes:
        pid: Its process and its process group, once it runs.
        fault: What it did that it was ended for; empty if nothing.
        exit_code: How it ended, if it ended by itself.
        last_words: The end of its standard error.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], cwd: Path | None, start: Start = start_here
    ) -> None:
        self._start = start
        self._command = list(command)
        self._environment = dict(environment)
        self._cwd = cwd
        self._line = bytearray()
        self._skipping = False
        self._traffic = Traffic()
        self._errors_read = anyio.Event()
        self.pid: int | None = None
        self.fault = ""
        self.exit_code: int | None = None
        self._ended = anyio.Event()
        self.last_words = LastWords()

    @property
    def ended(self) -> anyio.Event:
        """Set as soon as it can be spoken to no more."""
        return self._ended

    def transport(self) -> Transport:
        """The process as an MCP transport: started on entering, ended with its group on leaving.

        Raises:
            OSError: It cannot be started (on entering).
            ValueError: Its command or environment holds a NUL (on entering).
        """
        return self._streams()

    def how_it_ended(self) -> str:
        """Half a sentence on the server."""
        if self.fault:
            return f"{self.fault}, and was ended"
        match self.exit_code:
            case None:
                return "closed its standard input or output"
            case code if code < 0:
                return f"was killed by signal {-code}"
            case code:
                return f"ended with exit status {code}"

    def last_said(self) -> str:
        """The end of its standard error."""
        return self.last_words.text()

    @asynccontextmanager
    async def _streams(
        self,
    ) -> AsyncIterator[
        tuple[MemoryObjectReceiveStream[SessionMessage | Exception], MemoryObjectSendStream[SessionMessage]]
    ]:
        process = await self._start(self._command, self._environment, self._cwd)
        self.pid = process.pid
        to_session, incoming = anyio.create_memory_object_stream[SessionMessage | Exception](0)
        outgoing, from_session = anyio.create_memory_object_stream[SessionMessage](MAX_QUEUED)
        with to_session, incoming, outgoing, from_session:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._read, process, to_session)
                tasks.start_soon(self._write, process, from_session)
                tasks.start_soon(self._read_errors, process)
                try:
                    yield incoming, outgoing
                finally:
                    with anyio.CancelScope(shield=True):
                        await self._stop(process)
                    tasks.cancel_scope.cancel()

    # --- what the server says --------------------------------------------------------------------

    async def _read(self, process: Running, to_session: MemoryObjectSendStream[SessionMessage | Exception]) -> None:
        assert process.stdout is not None
        try:
            while True:
                await self._feed(await process.stdout.receive(), to_session)
        except Fault as fault:
            self.fault = str(fault)
        except _PIPE_ENDED:
            pass  # the server, or the session, is done: `ended` says so
        finally:
            self.ended.set()
            to_session.close()

    async def _feed(self, chunk: bytes, to_session: MemoryObjectSendStream[SessionMessage | Exception]) -> None:
        """Cut what was read into lines; what is left of one that is too long is passed over."""
        parts = chunk.split(b"\n")
        for number, part in enumerate(parts, 1):
            if self._skipping:
                self._traffic.count(len(part))
            else:
                self._line += part
            if len(self._line) > MAX_LINE_BYTES:
                why = ErrorData(code=TOO_LARGE, message=f"its answer has more than {MAX_LINE_BYTES} bytes")
                if not await self._refuse(bytes(self._line), why, to_session):
                    msg = f"wrote a line of more than {MAX_LINE_BYTES} bytes"
                    raise Fault(msg)
                self._line.clear()
                self._skipping = True
            if number < len(parts):
                if not self._skipping:
                    await self._take(bytes(self._line), to_session)
                    self._line.clear()
                self._skipping = False

    async def _take(self, line: bytes, to_session: MemoryObjectSendStream[SessionMessage | Exception]) -> None:
        if not line.strip():
            self._traffic.count(0)
            return
        try:
            message: JSONRPCMessage = jsonrpc_message_adapter.validate_json(line, by_name=False)
        except ValueError:
            if await self._refuse(line, ErrorData(code=PARSE_ERROR, message="its answer is not JSON-RPC"), to_session):
                return
            self._traffic.garbage(len(line), "lines to its standard output")
            return
        if self._traffic.admits(message, len(line)):
            await to_session.send(SessionMessage(message))

    async def _refuse(
        self, line: bytes, why: ErrorData, to_session: MemoryObjectSendStream[SessionMessage | Exception]
    ) -> bool:
        """Answer in the server's place, if the line says what it answers."""
        found = _ANSWER_ID.match(line[:256])
        answered = found[1].decode() if found else ""
        if not self._traffic.waits(answered):
            return False
        self._traffic.answered(answered)
        await to_session.send(SessionMessage(JSONRPCError(jsonrpc="2.0", id=int(answered), error=why)))
        return True

    async def _read_errors(self, process: Running) -> None:
        assert process.stderr is not None
        try:
            while True:
                self.last_words.feed(await process.stderr.receive())
        except _PIPE_ENDED:
            pass  # all that there was to read has been read
        finally:
            self._errors_read.set()

    # --- what we say -----------------------------------------------------------------------------

    async def _write(self, process: Running, from_session: MemoryObjectReceiveStream[SessionMessage]) -> None:
        assert process.stdin is not None
        try:
            async for item in from_session:
                self._traffic.sent(item.message)
                data = item.message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n"
                with anyio.fail_after(WRITE_STALL_S):
                    await process.stdin.send(data)
        except TimeoutError:
            self.fault = f"did not read its standard input for {WRITE_STALL_S:g} s"
        except _PIPE_ENDED:
            pass  # it closed its standard input: it can be told nothing more, which the line below makes known
        finally:
            from_session.close()
            if process.stdout is not None:
                await _close(process.stdout)

    # --- its end ---------------------------------------------------------------------------------

    async def _stop(self, process: Running) -> None:
        """End the process and its group; takes at most `STOP_S`, whatever the server does."""
        assert process.stdin is not None
        await _close(process.stdin)
        if await _exited(process, 0.0 if self.fault or not process.hears_the_end else GRACE_S):
            self.exit_code = process.returncode
        else:
            await process.terminate()
            await _exited(process, TERMINATE_S if process.hears_the_end else 0.0)
        await process.kill()
        await _exited(process, REAP_S)
        with anyio.move_on_after(LAST_WORDS_S):
            await self._errors_read.wait()
        self.ended.set()
        await process.aclose()


async def _close(stream: anyio.abc.AsyncResource) -> None:
    with suppress(*_PIPE_ENDED):
        await stream.aclose()


async def _exited(process: Running, within_s: float) -> bool:
    with anyio.move_on_after(within_s):
        await process.wait()
    return process.returncode is not None
