"""Runs at work, measured: each has a meter, charges its time, and is held to what it claimed where that is configured."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

import anyio

from symbi.agent.turn import Turn
from symbi.audit.event import AuditEventType, Draft
from symbi.runtime.budgets import Budgets
from symbi.runtime.metering import Breach, RunMeter
from symbi.runtime.rooms import AtWork, Rooms
from symbi.runtime.turns import Turns
from symbi.runtime.usage import UsageBook, Whose
from symbi.telemetry import BREACHES
from symbi.types import OnBreach, Principal, ResourceLimits, RunId

SAMPLE_S: Final = 1.0  # between two looks at the runs that are held to their claim
KEEPER: Final = "symbi.limits"
"""Who suspends or stops an agent that uses more than it claimed."""


class Measuring:
    """Measures what is at work in one runtime.

    Args:
        rooms: What the runtime stands on.
        turns: Where agents are suspended.
        budgets: Where their time is charged.
        wait: Waits for so many seconds.

    Attributes:
        book: The totals.
    """

    def __init__(
        self, rooms: Rooms, turns: Turns, budgets: Budgets, wait: Callable[[float], Awaitable[None]] = anyio.sleep
    ) -> None:
        self._rooms = rooms
        self._turns = turns
        self._budgets = budgets
        self._wait = wait
        self._meters: dict[RunId, RunMeter] = {}
        self._watched: dict[RunId, RunMeter] = {}
        self._somebody = anyio.Event()
        self.book = UsageBook(rooms.world.guard.metrics)
        rooms.workers.tell = self._computed
        rooms.workers.held = self._watched.__contains__

    @asynccontextmanager
    async def measured(
        self, one: AtWork, principal: Principal, limits: ResourceLimits, turn: Turn
    ) -> AsyncIterator[RunMeter]:
        """The meter of a run, for as long as it is at work; what it has used is charged when the block ends.

        Raises:
            StoreUnavailable: That cannot be made durable.
        """
        run_id = one.record.run_id
        whose = Whose(principal.name, principal.agent, principal.owner)
        meter = RunMeter(whose, run_id, self._rooms.world.clock, limits, turn)
        if one.line:
            meter.charge_to(one.line, partial(self._budgets.charge, run_id))
        remedy = self._rooms.terms(principal.agent).on_breach
        if remedy is not None:
            meter.watch(remedy, partial(self._act, one), self._wait)
            self._watched[run_id] = meter
            self._somebody.set()
        self._meters[run_id] = meter
        self.book.begin(run_id, meter)
        try:
            yield meter
        finally:
            self.book.end(run_id)
            del self._meters[run_id]
            self._watched.pop(run_id, None)
            with anyio.CancelScope(shield=True):
                await meter.pay()

    async def run(self) -> None:
        """Look at the runs that are held to their claim, again and again, and wait for nothing while there are none."""
        while True:
            if not self._watched:
                self._somebody = anyio.Event()
                await self._somebody.wait()
            await self._wait(SAMPLE_S)
            memory = await self._looked()
            for run_id, meter in tuple(self._watched.items()):
                breach = meter.breach(memory.get(run_id, 0))
                if breach is not None and breach.remedy is not OnBreach.THROTTLE and run_id in self._watched:
                    await meter.act(breach)

    async def _looked(self) -> dict[RunId, int]:
        """The memory that the code of each run takes; what it has used until now is counted. All at a time: one may take long."""
        memory: dict[RunId, int] = {}

        async def look(run_id: RunId) -> None:
            memory[run_id] = await self._rooms.workers.look(run_id)

        async with anyio.create_task_group() as looks:
            for run_id in tuple(self._watched):
                looks.start_soon(look, run_id)
        return memory

    def _computed(self, run_id: RunId, cpu_ns: int, memory_bytes: int) -> None:
        meter = self._meters.get(run_id)
        if meter is not None:
            meter.computed(cpu_ns, memory_bytes)

    async def _act(self, one: AtWork, breach: Breach) -> None:
        """Put a breach on record, and suspend or stop the agent.

        Raises:
            StoreUnavailable: It cannot be recorded.
        """
        life = one.life
        draft = Draft(AuditEventType.AGENT_BREACH, life.agent, breach.facts(), life.run_id)
        await self._rooms.world.log.transact(lambda: (None, (draft,)), wait=True)
        self._rooms.world.guard.metrics.inc(BREACHES, what=breach.what, remedy=breach.remedy.value)
        if breach.remedy is OnBreach.STOP:
            one.stopped_by = f"{KEEPER}: {breach.what}"
            one.scope.cancel(f"stopped by {one.stopped_by}")
        elif breach.remedy is OnBreach.SUSPEND:
            seat = self._turns.seat_of(life.agent)
            if seat is not None and seat.stopped_by is None:
                await self._turns.suspend(life.agent, f"{KEEPER}: {breach.what}")
