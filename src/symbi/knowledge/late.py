"""What is opened when somebody asks for it first, by a task of its own: whoever asks may end before it is closed."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Generic, Self, TypeVar

import anyio
from anyio.abc import TaskGroup

from symbi.errors import StoreUnavailable, SymbiError

T = TypeVar("T")


class Late(Generic[T]):
    """Opens something once, and closes it with itself; to be entered.

    Args:
        opening: Opens it.
    """

    def __init__(self, opening: Callable[[], AbstractAsyncContextManager[T]]) -> None:
        self._opening = opening
        self._turn = anyio.Lock()
        self._wanted, self._told, self._over = anyio.Event(), anyio.Event(), anyio.Event()
        self._open: list[T] = []
        self._failure: SymbiError | None = None
        self._closing: SymbiError | None = None
        self._attempt: anyio.CancelScope | None = None  # to open it
        self._tasks: TaskGroup | None = None

    async def __aenter__(self) -> Self:
        """Nothing is opened yet."""
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        self._tasks.start_soon(self._keep)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close what was opened, also after a cancellation; what is just being opened is not waited for.

        Raises:
            SymbiError: It was opened and cannot be closed.
        """
        tasks, self._tasks = self._tasks, None
        assert tasks is not None
        self._over.set()
        self._wanted.set()
        if self._attempt is not None and not self._open:
            self._attempt.cancel("it is closed before it was open")
        await tasks.__aexit__(None, None, None)
        if self._closing is not None:
            raise self._closing

    @property
    def is_open(self) -> bool:
        """Whether somebody has had it opened."""
        return bool(self._open)

    async def opened(self) -> T:
        """What is behind it; where it could not be opened, the next who asks has it tried again.

        Raises:
            StoreUnavailable: It is closed.
            SymbiError: It cannot be opened.
        """
        async with self._turn:
            if self._over.is_set():
                msg = "it is closed"
                raise StoreUnavailable(msg)
            if not self._open:
                told = self._told
                self._wanted.set()
                await told.wait()
            if not self._open:
                failure = self._failure or StoreUnavailable("it is closed")
                raise failure.with_traceback(None)
            return self._open[0]

    async def _keep(self) -> None:
        with anyio.CancelScope(shield=True):  # it ends with `_over` alone, in order
            try:
                while not self._over.is_set():
                    await self._wanted.wait()
                    if not self._over.is_set():
                        await self._keep_open()
                    told, self._told = self._told, anyio.Event()
                    told.set()
            finally:
                self._over.set()  # also where what opens it has a fault: nobody waits for it any more
                self._told.set()

    async def _keep_open(self) -> None:
        self._wanted, self._failure, was_open = anyio.Event(), None, False
        try:
            with anyio.CancelScope() as self._attempt:
                async with self._opening() as opened:
                    was_open = True
                    self._open.append(opened)
                    self._told.set()
                    try:
                        await self._over.wait()
                    finally:
                        self._open.clear()
        except SymbiError as error:
            if was_open:
                self._closing = error
                self._over.set()
            else:
                self._failure = error
