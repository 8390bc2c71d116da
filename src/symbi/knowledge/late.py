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
        """Close what was opened, also after a cancellation."""
        tasks, self._tasks = self._tasks, None
        assert tasks is not None
        self._over.set()
        self._wanted.set()
        await tasks.__aexit__(None, None, None)

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
            while not self._over.is_set():
                await self._wanted.wait()
                if not self._over.is_set():
                    await self._keep_open()
                told, self._told = self._told, anyio.Event()
                told.set()

    async def _keep_open(self) -> None:
        self._wanted = anyio.Event()
        try:
            async with self._opening() as opened:
                self._open.append(opened)
                self._told.set()
                await self._over.wait()
                self._open.clear()
        except SymbiError as error:
            if self._open:
                raise
            self._failure = error
