"""A process with one shard in it, and how it is asked."""

import os
import struct
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import anyio
import anyio.abc
import msgspec
from anyio.streams.buffered import BufferedByteReceiveStream

from symbi.errors import InputError, Overloaded, StoreUnavailable

PROGRAM: Final = Path(__file__).with_name("program.py")
ANSWER_S: Final = 120.0  # for one question; a scan of some millions of whole vectors takes seconds
END_S: Final = 10.0
MAX_WAITING: Final = 1_000  # who wait for their turn; further ones are refused
RETRY_AFTER_S: Final = 0.5
MAX_ANSWER: Final = 512 * 1024 * 1024
_GONE: Final = (anyio.BrokenResourceError, anyio.EndOfStream, anyio.IncompleteRead, anyio.ClosedResourceError)


class EngineProcess:
    """One engine; an async context manager that ends its process."""

    def __init__(self) -> None:
        self._process: anyio.abc.Process | None = None
        self._answers: BufferedByteReceiveStream | None = None
        self._turn = anyio.Lock()

    async def __aenter__(self) -> Self:
        """Start it.

        Raises:
            StoreUnavailable: It cannot be started.
        """
        command = [sys.executable, "-I", str(PROGRAM), str(os.getpid())]
        try:
            self._process = await anyio.open_process(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=None
            )
        except OSError as error:
            raise StoreUnavailable(f"the engine of vectors cannot be started: {error.strerror}") from error
        assert self._process.stdout is not None
        self._answers = BufferedByteReceiveStream(self._process.stdout)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let the shard go and end the process, also after a cancellation."""
        with anyio.CancelScope(shield=True):
            if self.alive:
                with suppress(StoreUnavailable, InputError, Overloaded):
                    await self.ask("close", wait_s=END_S)
            await self.end()

    @property
    def alive(self) -> bool:
        """Whether it can be asked."""
        return self._process is not None and self._process.returncode is None

    @property
    def pid(self) -> int:
        """Of the process; 0 where there is none."""
        return self._process.pid if self._process is not None else 0

    async def ask(self, *request: object, wait_s: float | None = ANSWER_S) -> Any:
        """Ask, after whoever asked before; a question that was sent is waited for, also where its asker is cancelled.

        Args:
            request: The operation and its arguments.
            wait_s: How long the answer may take. None for as long as it takes; a cancellation then ends the process.

        Raises:
            InputError: An id is another namespace's.
            StoreUnavailable: The engine failed, or it is gone, or took too long and was ended.
            Overloaded: Too many wait for their turn.
        """
        if self._turn.statistics().tasks_waiting >= MAX_WAITING:
            raise Overloaded("too many questions wait for the engine of vectors", retry_after_s=RETRY_AFTER_S)
        async with self._turn:
            if not self.alive:
                raise StoreUnavailable("the engine of vectors has ended", hint="asking again starts it anew")
            answered = False
            reply: Any = None
            try:
                with anyio.move_on_after(wait_s, shield=wait_s is not None):
                    reply = await self._exchange(msgspec.msgpack.encode(request))
                    answered = True
            except _GONE as error:
                raise StoreUnavailable("the engine of vectors has ended while it was asked") from error
            finally:
                if not answered:
                    await self.end()
        if not answered:
            raise StoreUnavailable(f"the engine of vectors gave no answer in {wait_s:g} s")
        match reply:
            case ["ok", value]:
                return value
            case ["error", "taken", name]:
                raise InputError("another namespace has a point of this id", code="vectors.id", id=name)
            case ["error", _, text]:
                raise StoreUnavailable(f"the engine of vectors refused: {text}")
            case _:
                raise StoreUnavailable("the engine of vectors gave no answer that is one")

    async def end(self) -> None:
        """End the process at once; what it acknowledged is in its log."""
        process, self._process = self._process, None
        if process is None:
            return
        with anyio.CancelScope(shield=True):
            with suppress(ProcessLookupError):
                process.kill()
            await process.aclose()

    async def _exchange(self, question: bytes) -> Any:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._answers is not None
        await self._process.stdin.send(struct.pack("<I", len(question)) + question)
        (length,) = struct.unpack("<I", await self._answers.receive_exactly(4))
        if length > MAX_ANSWER:
            raise anyio.BrokenResourceError
        return msgspec.msgpack.decode(await self._answers.receive_exactly(length))
