"""Units of work on their way into one commit."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, TypeVar

import anyio

from symbi.audit.event import Draft, Prepared, Receipt

T = TypeVar("T")

Work = Callable[[], tuple[T, Sequence[Draft]]]


class Group:
    """Units that are committed together, and wait for the same event."""

    __slots__ = ("awaited", "done", "since_s", "units")

    def __init__(self) -> None:
        self.units: list[Unit[Any]] = []
        self.awaited = False
        self.since_s = anyio.current_time()
        self.done = anyio.Event()

    def fail(self, error: Exception) -> None:
        """End it, with an error for everybody in it."""
        for unit in self.units:
            unit.error, unit.receipts = error, ()
        self.done.set()


class Unit(Generic[T]):
    """One unit of work: a function, or an event that was prepared already and touches nothing else."""

    __slots__ = ("error", "receipts", "result", "work")

    def __init__(self, work: Work[T] | Prepared) -> None:
        self.work = work
        self.result: T | None = None
        self.receipts: tuple[Receipt, ...] = ()
        self.error: Exception | None = None


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
