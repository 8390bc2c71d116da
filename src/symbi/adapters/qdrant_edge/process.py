"""A process with one shard in it, and how it is asked."""

import os
import signal
import struct
import subprocess
import sys
from collections.abc import Mapping
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
LOAD_S: Final = 600.0  # the log of some hundred thousand points may have to be read again
END_S: Final = 10.0  # for what is waited for though nobody wants it any more
TAKEN: Final = "WouldBlock"  # as the engine says that another one has the shard
TRIES: Final = 50  # to load such a one: the engine of an owner that was killed ends just after it
PAUSE_S: Final = 0.1
MAX_WAITING: Final = 1_000  # who wait for their turn; further ones are refused
RETRY_AFTER_S: Final = 0.5
MAX_FRAME: Final = 512 * 1024 * 1024  # a question, or an answer
DYING_S: Final = 5.0  # for one whose streams have ended to end as well: killed meanwhile, it could not be told what of
_SILENT: Final = (
    anyio.BrokenResourceError,
    anyio.EndOfStream,
    anyio.IncompleteRead,
    anyio.ClosedResourceError,
)
_GONE: Final = (*_SILENT, msgspec.MsgspecError)  # who writes such an answer has lost its way
_WHY: Final = {
    signal.SIGBUS: "a disk without room ends it so",
    signal.SIGKILL: "a machine without memory ends it so",
}


class EngineProcess:
    """One engine; an async context manager that ends its process."""

    def __init__(self) -> None:
        self._process: anyio.abc.Process | None = None
        self._answers: BufferedByteReceiveStream | None = None
        self._length: int | None = None  # of the answer that is on its way
        self._number = 0  # of the question that was asked last; its answer bears it
        self._turn = anyio.Lock()

    async def __aenter__(self) -> Self:
        """Start it.

        Raises:
            StoreUnavailable: It cannot be started.
        """
        command = [sys.executable, "-I", str(PROGRAM), str(os.getpid())]
        try:
            self._process = await anyio.open_process(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=None, env={}
            )  # it needs no key that the environment may hold
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

    async def load(self, folder: Path, terms: Mapping[str, object]) -> None:
        """Have it open a shard; where the engine of an owner that was killed still has it, once that has ended.

        Raises:
            StoreUnavailable: It is none, or another engine keeps it.
        """
        for attempt in range(1, TRIES + 1):
            try:
                await self.ask("load", str(folder), terms, wait_s=LOAD_S)
            except StoreUnavailable as error:
                if TAKEN not in error.message or attempt == TRIES:
                    raise
                await anyio.sleep(PAUSE_S)
            else:
                return

    async def ask(self, *request: object, wait_s: float | None = ANSWER_S) -> Any:
        """Ask, after whoever asked before.

        A question that was sent is waited for also where its asker is cancelled, but no longer than `END_S`; the process
        is ended then, so that nobody reads the answer to another's question.

        Args:
            request: The operation and its arguments.
            wait_s: How long the answer may take. None for as long as it takes; a cancellation then ends the process.

        Raises:
            InputError: An id is another namespace's, or it is too much at once.
            StoreUnavailable: The engine failed, or it is gone, or took too long and was ended.
            Overloaded: Too many wait for their turn.
        """
        if self._turn.statistics().tasks_waiting >= MAX_WAITING:
            raise Overloaded("too many questions wait for the engine of vectors", retry_after_s=RETRY_AFTER_S)
        number = self._number = self._number + 1
        question = msgspec.msgpack.encode((number, *request))
        if len(question) > MAX_FRAME:
            raise InputError("that is too much for the engine of vectors at once", code="vectors.size")
        async with self._turn:
            if not self.alive:
                raise StoreUnavailable("the engine of vectors has ended", hint="asking again starts it anew")
            reply = await self._answer(question, wait_s)
            if not isinstance(reply, list) or reply[:1] != [number]:
                await self.end()  # it has lost its way, and so would whoever asks next
                raise StoreUnavailable("the engine of vectors gave no answer that is one")
        match reply[1:]:
            case ["ok", value]:
                return value
            case ["error", "taken", name]:
                raise InputError("another namespace has a point of this id", code="vectors.id", id=name)
            case ["error", _, text]:
                raise StoreUnavailable(f"the engine of vectors refused: {text}")
            case _:
                raise StoreUnavailable("the engine of vectors gave no answer that is one")

    async def end(self, wait_s: float = 0.0) -> int | None:
        """End the process; what it acknowledged is in its log. Returns as what it ended, if it was there.

        Args:
            wait_s: How long it may take to end by itself.
        """
        process, self._process = self._process, None
        if process is None:
            return None
        with anyio.CancelScope(shield=True):
            if wait_s:
                with anyio.move_on_after(wait_s):
                    await process.wait()
            with suppress(ProcessLookupError):
                process.kill()
            await process.aclose()
        return process.returncode

    async def _answer(self, question: bytes, wait_s: float | None) -> Any:
        sent = answered = False
        try:
            with anyio.move_on_after(wait_s):
                await self._send(question)
                sent = True
                reply = await self._receive()
                answered = True
                return reply
        except anyio.get_cancelled_exc_class():
            if sent and wait_s is not None:
                with anyio.move_on_after(END_S, shield=True), suppress(*_GONE):
                    await self._receive()
                    answered = True
            raise
        except _GONE as error:
            code = await self.end(DYING_S if isinstance(error, _SILENT) else 0.0)
            ended = code is not None and code < 0
            how = f" by {signal.Signals(-code).name}" if ended and code is not None else ""
            hint = _WHY.get(signal.Signals(-code)) if ended and code is not None else None
            raise StoreUnavailable(f"the engine of vectors has ended{how} while it was asked", hint=hint) from error
        finally:
            if not answered:
                await self.end()
        raise StoreUnavailable(f"the engine of vectors gave no answer in {wait_s:g} s")

    async def _send(self, question: bytes) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        await self._process.stdin.send(struct.pack("<I", len(question)) + question)

    async def _receive(self) -> Any:
        """The answer; may be asked again where a cancellation came between."""
        assert self._answers is not None
        if self._length is None:
            (self._length,) = struct.unpack("<I", await self._answers.receive_exactly(4))
        assert self._length is not None
        if self._length > MAX_FRAME:
            raise msgspec.DecodeError
        answer = await self._answers.receive_exactly(self._length)
        self._length = None
        return msgspec.msgpack.decode(answer)
