"""Sandboxes that are kept ready, so that a run need not wait until one has started.

A sandbox is for one use: whoever takes one is the first to put foreign code in it, and the last, for it ends with the
use. So none goes from one agent, run or trust domain to another. Which kinds are kept follows what was asked for last.
The number is bounded; one that is asked for beyond it is started while the asker waits. Each is looked at before it is
handed out, and now and then while it waits.
"""

import logging
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Generic, Self, TypeAlias, TypeVar

import anyio
from anyio.abc import TaskGroup

from symbi.clock import Clock
from symbi.errors import SandboxUnavailable

MAX_AGE_S: Final = 600.0  # an older one is replaced: what it was found to be is no news any more
LOOK_S: Final = 30.0  # between looks at those that wait
REST_S: Final = 10.0  # after one that did not start

K = TypeVar("K", bound=Hashable)
S = TypeVar("S")
Open: TypeAlias = Callable[[], AbstractAsyncContextManager[S]]

_log = logging.getLogger("symbi.sandbox")


@dataclass(frozen=True, slots=True)
class _Waiting(Generic[K, S]):
    """A sandbox that was started and is nobody's yet; its stack ends it."""

    key: K
    sandbox: S
    stack: AsyncExitStack
    since_s: float


class WarmPool(Generic[K, S]):
    """Keeps some sandboxes ready; an async context manager that ends those that nobody took.

    Args:
        open_one: Starts one of a kind: a context manager that ends it.
        fit: Whether one that waits can be used; it answers within a bound and raises nothing.
        size: How many are kept.
        first: The kind that is kept before any was asked for.
        clock: Tells their age.
        pause: Waits so many seconds, or until the event if that is set earlier.
    """

    def __init__(
        self,
        open_one: Callable[[K], AbstractAsyncContextManager[S]],
        fit: Callable[[S], Awaitable[bool]],
        *,
        size: int,
        first: K,
        clock: Clock,
        pause: Callable[[float, anyio.Event], Awaitable[None]] | None = None,
    ) -> None:
        self._open_one = open_one
        self._fit = fit
        self._size = size
        self._clock = clock
        self._pause = pause or _pause
        self._asked: deque[K] = deque([first] * size, maxlen=size)  # the last so many that were asked for
        self._waiting: list[_Waiting[K, S]] = []
        self._stir = anyio.Event()
        self._full = anyio.Event()
        self._said = ""
        self._tasks: TaskGroup | None = None

    @property
    def waiting(self) -> int:
        """How many are ready."""
        return len(self._waiting)

    async def __aenter__(self) -> Self:
        """Begin to start them; nobody waits for it."""
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        if self._size:
            self._tasks.start_soon(self._keep)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all that wait, also after a cancellation."""
        assert self._tasks is not None
        self._tasks.cancel_scope.cancel("the driver ends")
        await self._tasks.__aexit__(None, None, None)  # without the body's error, which would come out wrapped
        with anyio.CancelScope(shield=True):
            async with anyio.create_task_group() as ends:
                while self._waiting:
                    ends.start_soon(self._waiting.pop().stack.aclose)

    async def filled(self) -> None:
        """Wait until as many are ready as are kept."""
        while len(self._waiting) < self._size:
            if self._full.is_set():
                self._full = anyio.Event()
            await self._full.wait()

    @asynccontextmanager
    async def take(self, key: K, cold: Open[S]) -> AsyncIterator[tuple[S, bool]]:
        """A sandbox of a kind for one use, and whether it was ready; it ends with the body.

        Args:
            key: The kind.
            cold: Starts one where none is ready.

        Raises:
            SandboxUnavailable: None was ready, and none starts.
        """
        self._asked.append(key)
        async with AsyncExitStack() as stack:
            found = await self._take_waiting(key, stack)
            taken = (found.sandbox, True) if found else (await stack.enter_async_context(cold()), False)
            self._stir.set()  # not before: two that start at a time make each other late
            yield taken

    async def _take_waiting(self, key: K, stack: AsyncExitStack) -> _Waiting[K, S] | None:
        """The oldest that is fit, now the stack's; those that are not fit end."""
        while (found := next((one for one in self._waiting if one.key == key), None)) is not None:
            self._waiting.remove(found)
            async with AsyncExitStack() as held:
                held.push_async_exit(found.stack)
                if await self._is_fit(found):
                    stack.push_async_exit(held.pop_all())
                    return found
        return None

    async def _is_fit(self, one: _Waiting[K, S]) -> bool:
        return self._clock.monotonic_s() - one.since_s <= MAX_AGE_S and await self._fit(one.sandbox)

    async def _keep(self) -> None:
        while True:
            self._stir = anyio.Event()
            try:
                await self._tend()
            except SandboxUnavailable as error:
                # Nobody asked for this one: who does is told by the start of their own.
                if str(error) != self._said:
                    _log.warning("no sandbox can be kept ready: %s", error)
                self._said = str(error)
                await self._pause(REST_S, anyio.Event())
                continue
            self._said = ""
            self._full.set()
            await self._pause(LOOK_S, self._stir)

    async def _tend(self) -> None:
        """Replace those that are no longer fit or asked for."""
        for one in tuple(self._waiting):
            if one in self._waiting:  # else it was taken meanwhile
                self._waiting.remove(one)
                async with AsyncExitStack() as held:
                    held.push_async_exit(one.stack)
                    if await self._is_fit(one) and self._has_use(one.key):
                        self._waiting.append(one)
                        held.pop_all()
        while (key := self._lacking()) is not None:
            stack = AsyncExitStack()
            sandbox = await stack.enter_async_context(self._open_one(key))
            self._waiting.append(_Waiting(key, sandbox, stack, self._clock.monotonic_s()))

    def _has_use(self, key: K) -> bool:
        """Whether one more of a kind is wanted beside those that wait."""
        return Counter(one.key for one in self._waiting)[key] < Counter(self._asked)[key]

    def _lacking(self) -> K | None:
        """A kind of which more are wanted, if there is room."""
        if len(self._waiting) >= self._size:
            return None
        return next((key for key in reversed(self._asked) if self._has_use(key)), None)


async def _pause(seconds: float, until: anyio.Event) -> None:
    with anyio.move_on_after(seconds):
        await until.wait()
