"""Turns: agents wait for the scheduler here, work, and step aside where it needs what they hold for others.

Whoever waits and has the lock asks the scheduler for all; nobody has a task for that alone. An agent that is told to
stop does so before its next effect, or at once where it waits for people; that is on its record before anything is
given back, and its return is before it goes on. What it held may be its own again while it still waits for people.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Final, TypeAlias

import anyio

from symbi.errors import InputError, TimeLimit, Unavailable, did_you_mean
from symbi.runtime.agent_scheduler import AgentConfig, AgentScheduler
from symbi.runtime.lifecycle import Event
from symbi.runtime.scheduler import Late, Preempt, Start
from symbi.types import AgentId, JsonValue

TURN_S: Final = 1.0  # how long one waiter asks the scheduler before another may

Note: TypeAlias = Callable[[Event, Mapping[str, JsonValue]], Awaitable[None]]
"""Puts a move of an agent's life on record; returns when it is durable."""


class Seat:
    """An agent's place in the pool, for as long as it works.

    Args:
        turns: Who hands it out.
        config: The agent, and what it claims.
        note: Puts its moves on record.
    """

    def __init__(self, turns: "Turns", config: AgentConfig, note: Note) -> None:
        self._turns = turns
        self._moving = anyio.Lock()
        self._let_go = anyio.Event()
        self.config = config
        self.note = note
        self.holds = False  # what it claimed
        self.waits = True  # for that, in the scheduler
        self.late = False
        self.suspended = False  # that is on record, and its return is not
        self.waits_for_others = False
        self.has_been_away = False
        self.is_away = False  # others have what it holds, while it waits for the end of another run
        self.told: Preempt | None = None
        self.stopped_by: str | None = None  # the operator who suspended it

    @property
    def must_stop(self) -> bool:
        """Somebody else needs what it holds, or has it already, or an operator has suspended it, or it has not yet returned."""
        return self.told is not None or self.stopped_by is not None or not self.holds or self.suspended

    def answered(self) -> bool:
        """The scheduler has let it start, or never will, or there is nothing to wait for while an operator suspends it."""
        return self.holds or self.late or (self.suspended and self.stopped_by is not None)

    @asynccontextmanager
    async def idle(self) -> AsyncIterator[None]:
        """While the agent waits for people, it can be suspended at once; who was told to stop before does so now.

        Raises:
            StoreUnavailable: It cannot be recorded.
        """
        self.waits_for_others = True
        try:
            if self.must_stop:
                await self.step_aside()
            yield
        finally:
            self.waits_for_others = False

    @asynccontextmanager
    async def away(self) -> AsyncIterator[None]:
        """While the agent waits for another, others have what it holds: it has not moved, and `keep` takes it up again."""
        self.is_away = self.has_been_away = self.waits_for_others = True
        await self._turns.give_back(self)
        try:
            yield
        finally:
            self.is_away = self.waits_for_others = False

    async def keep(self) -> None:
        """Step aside if it was told to, and return when it may go on.

        Raises:
            TimeLimit: Its turn does not come back in time.
            StoreUnavailable: It cannot be recorded.
        """
        while self.must_stop:
            await self.step_aside()
            if self.stopped_by is not None:
                await self._let_go.wait()
            elif not self.holds:
                if not self.waits:
                    await self._turns.queue(self)
                await self._turns.wait(self)
            elif self.suspended and self.told is None:
                await self.note(Event.RESUMED, {})
                self.suspended = False

    async def step_aside(self) -> None:
        """Give up what it holds, or its place among those who wait, once that is on record."""
        async with self._moving:
            told, by = self.told, self.stopped_by
            if by is not None and (self.holds or self.waits or self.is_away):
                await self._suspended(Event.OPERATOR_SUSPENDED, {"by": by})
                await self._turns.give_back(self)
            elif told is not None and self.holds:
                why = "a critical task needs what it holds"
                await self._suspended(Event.PREEMPTED, {"for": told.for_task, "reason": why})
                if self.told is told:  # its run may have ended meanwhile
                    self.told, self.holds, self.waits = None, False, True
                    await self._turns.scheduler.agent_suspended(self.config.agent)

    async def _suspended(self, event: Event, more: Mapping[str, JsonValue]) -> None:
        """Put it on record that it is suspended, where that is not on record already."""
        if not self.suspended:
            await self.note(event, more)
            self.suspended = True

    def let_go(self) -> None:
        """The operator lets it go on."""
        self.stopped_by = None
        self._let_go.set()
        self._let_go = anyio.Event()


class Turns:
    """Hands out seats.

    Args:
        scheduler: Decides.
        timeout_s: How long an agent waits for one.
    """

    def __init__(self, scheduler: AgentScheduler, timeout_s: float) -> None:
        self.scheduler = scheduler
        self._timeout_s = timeout_s
        self._asking = anyio.Lock()
        self._seats: dict[AgentId, Seat] = {}
        self._told: set[Seat] = set()  # to stop, and some of them have

    async def take(self, config: AgentConfig, note: Note) -> Seat:
        """Queue an agent and wait until it may start.

        Raises:
            InputError: It is scheduled already, or asks for more than any node has.
            Overloaded: As many wait as may.
            TimeLimit: Its turn does not come in time.
        """
        seat = Seat(self, config, note)
        await self.queue(seat)
        try:
            await self.wait(seat)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self.leave(seat)
            raise
        return seat

    async def queue(self, seat: Seat) -> None:
        """Let a seat wait in the scheduler.

        Raises:
            InputError: Its agent is scheduled already, or asks for more than any node has.
            Overloaded: As many wait as may.
        """
        agent = seat.config.agent
        if self._seats.get(agent, seat) is not seat:
            msg = f"agent `{agent}` is already scheduled"
            raise InputError(msg, code="scheduler.duplicate", hint="it is suspended; resume it, or stop it")
        # What has started once is not late any more.
        begun = seat.suspended or seat.has_been_away
        await self.scheduler.schedule_agent(replace(seat.config, deadline_s=None) if begun else seat.config)
        seat.waits = True
        self._seats[agent] = seat

    async def leave(self, seat: Seat) -> None:
        """Give a seat back, or stop waiting for it."""
        del self._seats[seat.config.agent]
        self._told.discard(seat)
        await self.give_back(seat)

    async def give_back(self, seat: Seat) -> None:
        """Give back what a seat holds, or its place among those who wait; nothing in here waits, so it is never half done."""
        held, waited = seat.holds, seat.waits and not seat.late
        seat.told, seat.holds, seat.waits = None, False, False
        if held:
            await self.scheduler.agent_ended(seat.config.agent)
        elif waited:
            await self.scheduler.withdraw_agent(seat.config.agent)

    async def suspend(self, agent: AgentId, by: str) -> None:
        """An operator suspends an agent: before its next effect, or at once where it waits for people.

        Raises:
            InputError: It is not at work, or is suspended by an operator already.
            StoreUnavailable: It cannot be recorded.
        """
        seat = self._at_work(agent)
        if seat.stopped_by is not None:
            msg = f"agent `{agent}` is suspended by `{seat.stopped_by}` already"
            raise InputError(msg, code="input.agent")
        seat.stopped_by = by
        try:
            if seat.waits_for_others:
                await seat.step_aside()
        except BaseException:
            seat.let_go()
            raise

    def resume(self, agent: AgentId) -> None:
        """An operator lets a suspended agent go on, in its turn.

        Raises:
            InputError: It is not at work, or no operator has suspended it.
        """
        seat = self._at_work(agent)
        if seat.stopped_by is None:
            msg = f"agent `{agent}` is not suspended by an operator"
            raise InputError(msg, code="input.agent")
        seat.let_go()

    def seat_of(self, agent: AgentId) -> Seat | None:
        """The seat that an agent has or waits for; None where it has none yet."""
        return self._seats.get(agent)

    def _at_work(self, agent: AgentId) -> Seat:
        seat = self._seats.get(agent)
        if seat is None:
            msg = f"agent `{agent}` is not at work"
            hint = did_you_mean(agent, self._seats) or None
            raise InputError(msg, code="input.agent", hint=hint)
        return seat

    async def wait(self, seat: Seat) -> None:
        """Return when a seat holds its claim.

        Raises:
            TimeLimit: It does not in time.
        """
        try:
            with anyio.fail_after(self._timeout_s):
                while not seat.answered():
                    async with self._asking:
                        if not seat.answered():
                            await self._ask()
        except TimeoutError:
            msg = f"agent `{seat.config.agent}` was not started within {self._timeout_s:g} s"
            raise TimeLimit(
                msg, hint="other agents hold the pool; `limits.memory_mb` and `limits.cpu_cores` size it"
            ) from None
        if seat.late:
            msg = f"agent `{seat.config.agent}` could not be started by its deadline"
            raise TimeLimit(msg, hint="other agents hold the pool")

    async def _ask(self) -> None:
        for decision in await self.scheduler.next_decisions(timeout_s=TURN_S):  # all of them, before anything else
            seat = self._seats[AgentId(decision.task.id)]
            match decision:
                case Start():
                    seat.holds, seat.waits = True, False
                case Preempt():
                    seat.told = decision
                    self._told.add(seat)
                case Late():
                    seat.late = True
        self._told = {seat for seat in self._told if seat.told is not None}
        for seat in [seat for seat in self._told if seat.waits_for_others]:
            with suppress(Unavailable):  # whoever asks next tries it again
                await seat.step_aside()
