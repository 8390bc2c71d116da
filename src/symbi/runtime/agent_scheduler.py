"""The public scheduler: agents are queued here, and handed out when they may start."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import anyio

from symbi.clock import Clock
from symbi.runtime.resources import Amount, ResourcePool, amount_of
from symbi.runtime.scheduler import MAX_QUEUED, SchedulerCore, Start, Task, TaskId
from symbi.types import AgentId, Priority, ResourceLimits


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """An agent that is to run.

    Attributes:
        agent: Its id, and the id of its task.
        limits: What it may use, and therefore takes from the pool.
        priority: Its class.
    """

    agent: AgentId
    limits: ResourceLimits
    priority: Priority = Priority.NORMAL


@dataclass(frozen=True, slots=True)
class SystemStatus:
    """How the scheduler stands.

    Attributes:
        running: Agents at work.
        max_running: How many may be.
        queued: Agents that wait, by class.
        capacity: All resources.
        free: Those that nobody holds.
    """

    running: int
    max_running: int
    queued: Mapping[Priority, int]
    capacity: Amount
    free: Amount


class AgentScheduler:
    """The public scheduler: a core, a clock, and a bell for whoever starts agents.

    Args:
        pool: What agents are placed on.
        clock: Tells how long agents wait.
        max_running: How many agents may run at once.
        max_queued: How many may wait.
    """

    def __init__(self, pool: ResourcePool, clock: Clock, *, max_running: int, max_queued: int = MAX_QUEUED) -> None:
        self._core = SchedulerCore(pool, max_running=max_running, max_queued=max_queued)
        self._max_running = max_running
        self._clock = clock
        self._changed = anyio.Event()

    async def schedule_agent(self, config: AgentConfig) -> AgentId:
        """Queue an agent; it starts when `next_starts` hands it out.

        Raises:
            InputError: It is scheduled already, or asks for more than any node has.
            Overloaded: As many wait as may.
        """
        task = Task(TaskId(config.agent), amount_of(config.limits), config.priority)
        self._core.submit(task, self._clock.monotonic_s())
        self._changed.set()
        return config.agent

    async def withdraw_agent(self, agent: AgentId) -> None:
        """Take a waiting agent out of the queue.

        Raises:
            InputError: It does not wait.
        """
        self._core.withdraw(TaskId(agent))
        self._changed.set()

    async def agent_ended(self, agent: AgentId) -> None:
        """Give back what a running agent held.

        Raises:
            InputError: It does not run.
        """
        self._core.finish(TaskId(agent))
        self._changed.set()

    async def next_starts(self, *, timeout_s: float) -> Sequence[Start]:
        """What is to start now; waits until there is something, or for so long, and then returns nothing.

        One caller at a time.
        """
        with anyio.move_on_after(timeout_s):
            while True:
                self._changed = anyio.Event()
                starts = [one for one in self._core.plan(self._clock.monotonic_s()) if isinstance(one, Start)]
                if starts:
                    return starts
                await self._changed.wait()
        return ()

    async def get_system_status(self) -> SystemStatus:
        """How many run and wait, and what is free."""
        pool = self._core.pool
        queued = MappingProxyType(dict(self._core.queued))
        return SystemStatus(len(self._core.running), self._max_running, queued, pool.capacity, pool.free)
