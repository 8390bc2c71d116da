"""Reads documents in a process of its own (`symbi.knowledge.reading`), which is replaced where a document ends it."""

import subprocess
import sys
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

import anyio
import anyio.streams.buffered
import msgspec
from anyio.abc import Process

from symbi.errors import InputError, StoreUnavailable
from symbi.knowledge.extracted import Extracted
from symbi.knowledge.reading import MAX_FRAME_BYTES, Job, Result, frame

MAX_JOBS: Final = 500  # of one process; what a library leaks ends with it
_LENGTH_BYTES: Final = 4
_START_S: Final = 30.0  # for a process to load its libraries, beside what its first document takes


@dataclass(frozen=True, slots=True)
class ReadingLimits:
    """What one document may take.

    Attributes:
        time_s: Of the clock.
        cpu_s: Of a processor.
        memory_bytes: Of address space, with the process itself.
    """

    time_s: float = 30.0
    cpu_s: int = 20
    memory_bytes: int = 1 << 30


class DocumentProcess:
    """Reads one document after another; to be entered.

    Args:
        limits: What one may take.
    """

    def __init__(self, limits: ReadingLimits = ReadingLimits()) -> None:
        self._limits = limits
        self._process: Process | None = None
        self._jobs = 0
        self._turn = anyio.Lock()

    async def __aenter__(self) -> Self:
        """Nothing is started before something is to be read."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end()

    async def read(self, data: bytes, name: str) -> tuple[str, Extracted]:
        """The kind of a document, and its text.

        Raises:
            InputError: It is none, or takes more than it may; only this document is concerned.
            StoreUnavailable: No process can be started.
        """
        job = frame(msgspec.msgpack.encode(Job(name, data, self._limits.cpu_s)))
        async with self._turn:
            try:
                with anyio.fail_after(self._limits.time_s + (0 if self._process else _START_S)):
                    answer = await self._asked(job)
            except TimeoutError:
                await self._end()
                msg = f"it takes more than {self._limits.time_s:g} s to read"
                raise InputError(msg, code="knowledge.too_slow") from None
            except (anyio.EndOfStream, anyio.IncompleteRead, anyio.BrokenResourceError, OSError) as error:
                await self._end()
                msg = "reading it took more time or memory than one document may, or ended the process that read it"
                raise InputError(msg, code="knowledge.hostile") from error
            except BaseException:
                await self._end()  # it may be in the middle of an answer
                raise
            self._jobs += 1
            if self._jobs >= MAX_JOBS:
                await self._end()
        if answer.extracted is None:
            raise InputError(answer.error, code=answer.code or "knowledge.malformed")
        return answer.kind, answer.extracted

    async def _asked(self, job: bytes) -> Result:
        process = self._process or await self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        await process.stdin.send(job)
        stream = anyio.streams.buffered.BufferedByteReceiveStream(process.stdout)
        length = int.from_bytes(await stream.receive_exactly(_LENGTH_BYTES))
        if length > MAX_FRAME_BYTES:
            raise OSError("the answer is too long")
        try:
            return msgspec.msgpack.decode(await stream.receive_exactly(length), type=Result)
        except msgspec.MsgspecError as error:
            raise OSError("the answer is none") from error

    async def _start(self) -> Process:
        command = [sys.executable, "-I", "-m", "symbi.knowledge.reading", str(self._limits.memory_bytes)]
        try:
            self._process = await anyio.open_process(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={}, cwd="/"
            )
        except OSError as error:
            msg = f"cannot start the process that reads documents: {error.strerror or error}"
            raise StoreUnavailable(msg, code="unavailable.reading") from error
        self._jobs = 0
        return self._process

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with anyio.CancelScope(shield=True):
            if process.returncode is None:
                process.kill()
            await process.aclose()
