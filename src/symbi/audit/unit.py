"""Units of work on their way into one commit."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Generic, TypeVar

import anyio
import anyio.lowlevel

from symbi.audit.event import Draft, Prepared, Receipt

T = TypeVar("T")

TOLD_AT_ONCE: Final = 16  # of those who wait for a commit

Work = Callable[[], tuple[T, Sequence[Draft]]]


class Unit(Generic[T]):
    """One unit of work: a function, or an event that was prepared already and touches nothing else."""

    __slots__ = ("done", "error", "receipts", "result", "work")

    def __init__(self, work: Work[T] | Prepared) -> None:
        self.work = work
        self.done: anyio.Event | None = None  # set once its commit is over; None until it is in a group
        self.result: T | None = None
        self.receipts: tuple[Receipt, ...] = ()
        self.error: Exception | None = None


class Group:
    """Units that are committed together.

    Those who wait for them are told a few at a time: a thousand agents that went on in one turn of the event loop would
    hold up everybody else for as long as all of them take to their next wait.
    """

    __slots__ = ("_events", "awaited", "over", "since_s", "units")

    def __init__(self) -> None:
        self.units: list[Unit[Any]] = []
        self.awaited = False
        self.over = False
        self.since_s = anyio.current_time()
        self._events: list[anyio.Event] = []

    def add(self, unit: Unit[Any]) -> None:
        """Take a unit."""
        if len(self.units) % TOLD_AT_ONCE == 0:
            self._events.append(anyio.Event())
        self.units.append(unit)
        unit.done = self._events[-1]

    def fail(self, error: Exception) -> None:
        """End it, with an error for everybody in it."""
        for unit in self.units:
            unit.error, unit.receipts = error, ()
        self.tell_all()

    def tell_all(self) -> None:
        """Tell all who wait that it is over."""
        self.over = True
        for event in self._events:
            event.set()

    def tell_some(self) -> bool:
        """Tell the first few; returns whether these were all."""
        self.over = True
        self._events[0].set()
        return len(self._events) == 1

    async def tell_others(self) -> None:
        """Tell the others, a few in each turn of the event loop; all at once if that ends."""
        try:
            for event in self._events[1:]:
                await anyio.lowlevel.checkpoint()
                event.set()
        finally:
            self.tell_all()


class Enlisted(Generic[T]):
    """A unit of work that is on its way; made by `AuditLog.enlist`.

    Args:
        wait: Waits for its commit, and raises as `AuditLog.transact`.
    """

    __slots__ = ("_wait",)

    def __init__(self, wait: Callable[[], Awaitable[None]]) -> None:
        self._wait = wait

    async def durable(self) -> None:
        """Return once it is durable.

        Raises:
            StoreUnavailable: It is not durable, or nobody can tell.
            SymbiError: Whatever the work raised; nothing of it is left.
        """
        await self._wait()
