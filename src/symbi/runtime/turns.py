"""Turns: agents wait for the scheduler here, work, and step aside where it needs what they hold for others.

Whoever waits and has the lock asks the scheduler for all; nobody has a task for that alone. An agent that is told to
stop does so before its next effect, or at once where it waits for people; both ends of that are on its record before
anything is given back or taken again.
"""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Final, TypeAlias

import anyio

from symbi.errors import TimeLimit, Unavailable
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
        agent: The agent.
        note: Puts its moves on record.
    """

    def __init__(self, turns: "Turns", agent: AgentId, note: Note) -> None:
        self._turns = turns
        self._moving = anyio.Lock()
        self.agent = agent
        self.note = note
        self.holds = False  # what it claimed
        self.late = False
        self.waits_for_others = False
        self.told: Preempt | None = None

    @property
    def must_stop(self) -> bool:
        """Somebody else needs what it holds, or has it already."""
        return self.told is not None or not self.holds

    def answered(self) -> bool:
        """The scheduler has let it start, or never will."""
        return self.holds or self.late

    @contextmanager
    def idle(self) -> Iterator[None]:
        """While the agent waits for people, it can be suspended at once."""
        self.waits_for_others = True
        try:
            yield
        finally:
            self.waits_for_others = False

    async def keep(self) -> None:
        """Step aside if it was told to, and return when it may go on.

        Raises:
            TimeLimit: Its turn does not come back in time.
            StoreUnavailable: It cannot be recorded.
        """
        await self.step_aside()
        if not self.holds:
            await self._turns.wait(self)
            await self.note(Event.RESUMED, {})

    async def step_aside(self) -> None:
        """Give up what it holds, once that is on record."""
        async with self._moving:
            told = self.told
            if told is None or not self.holds:
                return
            await self.note(Event.PREEMPTED, {"for": told.for_task, "reason": "a critical task needs what it holds"})
            with anyio.CancelScope(shield=True):
                self.told = None
                self.holds = False
                await self._turns.scheduler.agent_suspended(self.agent)


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

    async def take(self, config: AgentConfig, note: Note) -> Seat:
        """Queue an agent and wait until it may start.

        Raises:
            InputError: It is scheduled already, or asks for more than any node has.
            Overloaded: As many wait as may.
            TimeLimit: Its turn does not come in time.
        """
        await self.scheduler.schedule_agent(config)
        seat = self._seats[config.agent] = Seat(self, config.agent, note)
        try:
            await self.wait(seat)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self.leave(seat)
            raise
        return seat

    async def leave(self, seat: Seat) -> None:
        """Give a seat back, or stop waiting for it."""
        del self._seats[seat.agent]
        if seat.late:
            return
        if seat.holds:
            await self.scheduler.agent_ended(seat.agent)
        else:
            await self.scheduler.withdraw_agent(seat.agent)

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
            msg = f"agent `{seat.agent}` was not started within {self._timeout_s:g} s"
            raise TimeLimit(
                msg, hint="other agents hold the pool; `limits.memory_mb` and `limits.cpu_cores` size it"
            ) from None
        if seat.late:
            msg = f"agent `{seat.agent}` could not be started by its deadline"
            raise TimeLimit(msg, hint="other agents hold the pool")

    async def _ask(self) -> None:
        idle: list[Seat] = []
        for decision in await self.scheduler.next_decisions(timeout_s=TURN_S):  # all of them, before anything else
            seat = self._seats[AgentId(decision.task.id)]
            match decision:
                case Start():
                    seat.holds = True
                case Preempt():
                    seat.told = decision
                    idle += [seat] if seat.waits_for_others else []
                case Late():
                    seat.late = True
        for seat in idle:
            with suppress(Unavailable):  # it was told, and steps aside by itself when it goes on
                await seat.step_aside()
