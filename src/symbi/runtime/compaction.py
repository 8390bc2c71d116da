"""The journal does not grow for ever: what it keeps of runs that ended long ago is removed, and the trail keeps the evidence.

1. a run that has ended for longer than `journal_retention_days` loses the records of its effects, with results and
   requests, in steps of bounded size, each of them one commit with an event of its own;
2. then its grant, the labels of its inputs and its usage go, and its inputs, value and error are emptied: that there
   was such a run stays, so that nobody carries it out again;
3. what the runtime did by itself goes by its own age;
4. nothing is touched of a run of which anything is in doubt, that is open or asked for by an open one, that waits in a
   mailbox, a schedule or among the dead letters, or that is about somebody whose data is on hold.
"""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, Protocol

import anyio

from symbi.audit.event import AuditEventType, Draft
from symbi.audit.log import AuditLog
from symbi.clock import Clock, rfc3339
from symbi.errors import Overloaded
from symbi.types import SYSTEM_AGENT, JsonValue

_log = logging.getLogger("symbi.runtime")

DAY_NS: Final = 86_400 * 1_000_000_000
INTERVAL_S: Final = 3600.0  # between two sweeps
STEP_EFFECTS: Final = 500  # removed by one commit, so that nobody waits for it long
STEP_RUNS: Final = 100  # looked at by one commit


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a sweep is, and what it has removed.

    Attributes:
        after: The run behind which it goes on; None once all runs were looked at.
        own_after: Likewise of the effects of the runtime itself.
        runs, effects, requests: How many were removed by the last step.
    """

    after: str | None = ""
    own_after: str | None = ""
    runs: int = 0
    effects: int = 0
    requests: int = 0

    @property
    def over(self) -> bool:
        """Everything was looked at."""
        return self.after is None and self.own_after is None


class JournalStore(Protocol):
    """Removes what is no longer needed of runs that are over, in the store's running transaction."""

    def compact(self, progress: Progress, before: str, effects: int, runs: int) -> Progress:
        """One step of a sweep.

        Args:
            progress: Where the last step has stopped.
            before: What ended before this time (RFC 3339) is old enough.
            effects: Most effects to remove.
            runs: Most runs to look at.

        Raises:
            StoreUnavailable: The store cannot be written.
        """


@dataclass(slots=True)
class Removed:
    """What a sweep has removed."""

    before: str
    runs: int = 0
    effects: int = 0
    requests: int = 0

    def facts(self) -> dict[str, JsonValue]:
        """For events and answers."""
        return {"before": self.before, "runs": self.runs, "effects": self.effects, "requests": self.requests}


@dataclass(slots=True)
class Compactor:
    """Sweeps the journal.

    Attributes:
        log: Makes each step durable, with its event.
        store: The journal and the ledger, in the log's store.
        clock: Says how old something is.
        days: Age from which on something is removed; 0 for never.
    """

    log: AuditLog
    store: JournalStore
    clock: Clock
    days: int
    _turn: anyio.Lock = field(default_factory=anyio.Lock)

    async def sweep(self, days: int | None = None) -> Removed:
        """Remove all that is old enough.

        Args:
            days: Age from which on; as configured if None.

        Raises:
            StoreUnavailable: It cannot be made durable; what earlier steps removed stays so.
        """
        age = self.days if days is None else days
        before = rfc3339(self.clock.now_ns() - age * DAY_NS)
        removed = Removed(before)
        if age == 0 and days is None:
            return removed
        async with self._turn:
            progress = Progress()
            while not progress.over:
                progress = await self._step(progress, before)
                removed.runs += progress.runs
                removed.effects += progress.effects
                removed.requests += progress.requests
        return removed

    async def _step(self, progress: Progress, before: str) -> Progress:
        def work() -> tuple[Progress, tuple[Draft, ...]]:
            done = self.store.compact(progress, before, STEP_EFFECTS, STEP_RUNS)
            if not (done.runs or done.effects):
                return done, ()
            told = Removed(before, done.runs, done.effects, done.requests).facts()
            return done, (Draft(AuditEventType.JOURNAL_COMPACTED, SYSTEM_AGENT, told),)

        done, _ = await self.log.transact(work, wait=True)
        return done

    def kept_small(self, wait: Callable[[float], Awaitable[None]] = anyio.sleep) -> AbstractAsyncContextManager[None]:
        """While it lasts, the journal is swept on a cadence.

        Args:
            wait: Waits for some seconds.
        """
        return _sweeping(self, wait)


@asynccontextmanager
async def _sweeping(compactor: Compactor, wait: Callable[[float], Awaitable[None]]) -> AsyncIterator[None]:
    async def sweep() -> None:
        while True:
            try:
                removed = await compactor.sweep()
            except Overloaded as overload:
                _log.warning("the journal was not compacted: %s", overload.code)
            else:
                if removed.runs or removed.effects:
                    _log.info("the journal was compacted: %d runs, %d effects", removed.runs, removed.effects)
            await wait(INTERVAL_S)

    async with anyio.create_task_group() as tasks:
        if compactor.days:
            tasks.start_soon(sweep)
        try:
            yield
        finally:
            tasks.cancel_scope.cancel("the runtime ends")
