"""The public scheduler: agents are queued here, and handed out when they may start."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import anyio

from symbi.clock import Clock
from symbi.runtime.resources import Amount, ResourcePool, amount_of
from symbi.runtime.scheduler import MAX_QUEUED, Decision, SchedulerCore, Task, TaskId, Wait
from symbi.runtime.status import Standing
from symbi.types import AgentId, Priority, ResourceLimits


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """An agent that is to run.

    Attributes:
        agent: Its id, and the id of its task.
        limits: What it may use, and therefore takes from the pool.
        priority: Its class.
        owner: Who takes turns with other owners.
        batch: It may wait behind everything else.
        deadline_s: In how many seconds it must have started, or it is not worth starting; None for no such time.
    """

    agent: AgentId
    limits: ResourceLimits
    priority: Priority = Priority.NORMAL
    owner: str = ""
    batch: bool = False
    deadline_s: float | None = None


@dataclass(frozen=True, slots=True)
class SystemStatus:
    """How the scheduler stands, and the runtime that it is part of.

    Attributes:
        running: Agents at work.
        max_running: How many may be.
        queued: Agents that wait, by class.
        capacity: All resources.
        free: Those that nobody holds.
        standing: The rest; None where a scheduler is asked that is part of no runtime.
    """

    running: int
    max_running: int
    queued: Mapping[Priority, int]
    capacity: Amount
    free: Amount
    standing: Standing | None = None


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
        """Queue an agent; it starts when `next_decisions` hands it out.

        Raises:
            InputError: It is scheduled already, or asks for more than any node has.
            Overloaded: As many wait as may.
        """
        now_s = self._clock.monotonic_s()
        deadline_s = None if config.deadline_s is None else now_s + config.deadline_s
        task = Task(
            TaskId(config.agent), amount_of(config.limits), config.priority, config.owner, config.batch, deadline_s
        )
        self._core.submit(task, now_s)
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

    async def agent_suspended(self, agent: AgentId) -> None:
        """An agent that was told to stop has stopped: it gives back what it held, and is resumed in its turn.

        Raises:
            InputError: It was not told to.
        """
        self._core.suspended(TaskId(agent))
        self._changed.set()

    async def next_decisions(self, *, timeout_s: float) -> Sequence[Decision]:
        """What starts, stops or is late now; waits until there is something, or for so long, and then returns nothing.

        One caller at a time.
        """
        with anyio.move_on_after(timeout_s):
            while True:
                self._changed = anyio.Event()
                decisions = [one for one in self._core.plan(self._clock.monotonic_s()) if not isinstance(one, Wait)]
                if decisions:
                    return decisions
                await self._changed.wait()
        return ()

    async def get_system_status(self) -> SystemStatus:
        """How many run and wait, and what is free."""
        pool = self._core.pool
        queued = MappingProxyType(dict(self._core.queued))
        return SystemStatus(len(self._core.running), self._max_running, queued, pool.capacity, pool.free)
