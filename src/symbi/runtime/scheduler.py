"""Which task starts next: `SchedulerCore` decides and does nothing; pure.

Order. Every task gets a rank when it is submitted: the time of submission, moved back by `AGEING_S` for each class
above the lowest. Lower ranks go first. So a class is first in, first out; a higher class goes ahead; and, because all
that wait age at one pace, ranks never change: nothing that is submitted more than 3 x `AGEING_S` after a task can
ever go ahead of it, however critical it is.

Backfilling. While the first task does not fit, those behind it that do fit may start: at most `BACKFILL_LIMIT` of them
overtake one waiting head, and only the first `WINDOW` tasks are looked at. Once as many have overtaken it, nothing else
starts until the head has; what runs then ends, each task within its time limit, and the head fits. So a large task
holds up the small ones behind it for a while and never for ever, and they never starve it.

Cost. A submission is one push on a heap; a start one pop, one placement and at most `WINDOW` looks besides: O(log n)
in the number of waiting tasks, and O(nodes) in the pool.
"""

from bisect import insort
from collections.abc import Mapping
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from types import MappingProxyType
from typing import Final, NewType, TypeAlias

from symbi.errors import InputError, Overloaded
from symbi.runtime.resources import Amount, Placement, ResourcePool
from symbi.types import Priority

TaskId = NewType("TaskId", str)
"""One piece of work that waits or runs; unique among those."""

AGEING_S: Final = 60.0  # a task that has waited so much longer is worth a class
BACKFILL_LIMIT: Final = 32  # tasks that may overtake one waiting head
WINDOW: Final = 16  # waiting tasks that one plan looks at
MAX_QUEUED: Final = 200_000  # waiting tasks; one takes about 0.5 kB
MAX_STARTS: Final = 256  # starts in one plan, so that planning never holds up the event loop for long
RETRY_AFTER_S: Final = 1.0  # what a caller is told whose task finds the queue full
_LEVEL: Final[Mapping[Priority, int]] = MappingProxyType({priority: level for level, priority in enumerate(Priority)})


@dataclass(frozen=True, slots=True)
class Task:
    """Work that wants to run.

    Attributes:
        id: Unique among what waits and runs.
        claim: What it takes while it runs.
        priority: Its class.
    """

    id: TaskId
    claim: Amount
    priority: Priority = Priority.NORMAL


@dataclass(frozen=True, slots=True)
class Start:
    """Start this task now.

    Attributes:
        task: The task; its claim is taken from the pool.
        placement: Where it runs.
        waited_s: How long it waited.
    """

    task: Task
    placement: Placement
    waited_s: float


@dataclass(frozen=True, slots=True)
class Wait:
    """The first task has to wait, and others with it.

    Attributes:
        task: The head of the queue.
        reason: `resources`: it does not fit; `concurrency`: as many run as may.
        waited_s: How long it has waited.
        overtaken: How many have started ahead of it while it waited for resources.
    """

    task: Task
    reason: str
    waited_s: float
    overtaken: int


Decision: TypeAlias = Start | Wait


class _Entry:
    """A waiting task."""

    __slots__ = ("alive", "overtaken", "submitted_s", "task")

    def __init__(self, task: Task, submitted_s: float) -> None:
        self.task = task
        self.submitted_s = submitted_s
        self.overtaken = 0
        self.alive = True


_Ranked: TypeAlias = "tuple[float, int, _Entry]"  # rank, number of submission, entry; the number settles every tie


class SchedulerCore:
    """Waiting and running tasks, and the resources that these hold. Pure: time comes in, decisions go out.

    Args:
        pool: What tasks are placed on.
        max_running: How many may run at once.
        max_queued: How many may wait.
    """

    def __init__(self, pool: ResourcePool, *, max_running: int, max_queued: int = MAX_QUEUED) -> None:
        self._pool = pool
        self._max_running = max_running
        self._max_queued = max_queued
        self._front: list[_Ranked] = []  # the first tasks in order; each is before all that are in the heap
        self._heap: list[_Ranked] = []
        self._dead = 0  # withdrawn entries that are still in the heap
        self._waiting: dict[TaskId, _Ranked] = {}
        self._running: dict[TaskId, Start] = {}
        self._queued = dict.fromkeys(Priority, 0)
        self._submissions = 0
        self._now_s = float("-inf")

    @property
    def pool(self) -> ResourcePool:
        """What is free now."""
        return self._pool

    @property
    def running(self) -> Mapping[TaskId, Start]:
        """What runs, by task."""
        return MappingProxyType(self._running)

    @property
    def queued(self) -> Mapping[Priority, int]:
        """How many wait in each class."""
        return MappingProxyType(self._queued)

    def submit(self, task: Task, now_s: float) -> None:
        """Queue a task.

        Args:
            task: The task.
            now_s: A monotonic time in seconds; one that goes back counts as the latest seen.

        Raises:
            InputError: A task of this id waits or runs, or its claim can never be met.
            Overloaded: As many wait as may.
        """
        if task.id in self._waiting or task.id in self._running:
            msg = f"task `{task.id}` is already scheduled"
            raise InputError(msg, code="scheduler.duplicate")
        self._pool.require_possible(task.claim, task.priority)
        if len(self._waiting) >= self._max_queued:
            msg = f"{self._max_queued} tasks wait already"
            raise Overloaded(msg, retry_after_s=RETRY_AFTER_S)
        self._now_s = max(self._now_s, now_s)
        rank_s = self._now_s - _LEVEL[task.priority] * AGEING_S
        self._submissions += 1
        ranked = (rank_s, self._submissions, _Entry(task, self._now_s))
        self._waiting[task.id] = ranked
        self._queued[task.priority] += 1
        if self._front and ranked < self._front[-1]:
            insort(self._front, ranked)
            if len(self._front) > WINDOW:
                heappush(self._heap, self._front.pop())
        else:
            heappush(self._heap, ranked)

    def withdraw(self, task_id: TaskId) -> Task:
        """Take a waiting task out of the queue.

        Raises:
            InputError: It does not wait.
        """
        ranked = self._waiting.pop(task_id, None)
        if ranked is None:
            msg = f"task `{task_id}` does not wait"
            raise InputError(msg, code="scheduler.unknown")
        entry = ranked[2]
        self._queued[entry.task.priority] -= 1
        if ranked in self._front:
            self._front.remove(ranked)
        else:
            entry.alive = False
            self._dead += 1
            if self._dead * 2 > len(self._heap):  # half of it: the cost is spread over as many withdrawals
                self._heap = [kept for kept in self._heap if kept[2].alive]
                heapify(self._heap)
                self._dead = 0
        return entry.task

    def plan(self, now_s: float, limit: int = MAX_STARTS) -> list[Decision]:
        """Decide what starts now, and take its claim from the pool.

        Args:
            now_s: A monotonic time in seconds.
            limit: Starts at most; as many in the answer mean that there may be more.

        Returns:
            Starts in their order, and at the end one `Wait` if the first task has to wait.
        """
        self._now_s = max(self._now_s, now_s)
        decisions: list[Decision] = []
        self._refill()
        while self._front and len(decisions) < limit:
            head = self._front[0][2]
            if len(self._running) >= self._max_running:
                decisions.append(self._wait(head, "concurrency"))
                break
            start = self._start_at(0)
            if start is None:
                decisions += self._backfill(head, limit - len(decisions))
                decisions.append(self._wait(head, "resources"))
                break
            decisions.append(start)
        return decisions

    def finish(self, task_id: TaskId) -> Start:
        """Give back what a running task held; returns how it was started.

        Raises:
            InputError: It does not run.
        """
        start = self._running.pop(task_id, None)
        if start is None:
            msg = f"task `{task_id}` does not run"
            raise InputError(msg, code="scheduler.unknown")
        self._pool = self._pool.release(start.placement)
        return start

    def _backfill(self, head: _Entry, limit: int) -> list[Start]:
        """Start what fits behind a head that does not."""
        starts: list[Start] = []
        index = 1
        while (
            index < len(self._front)
            and len(starts) < limit
            and head.overtaken < BACKFILL_LIMIT
            and len(self._running) < self._max_running
        ):
            start = self._start_at(index)
            if start is None:
                index += 1
            else:
                starts.append(start)
                head.overtaken += 1
        return starts

    def _start_at(self, index: int) -> Start | None:
        """Start the task at a position of the front, if it fits."""
        entry = self._front[index][2]
        answer = self._pool.allocate_possible(entry.task.claim, entry.task.priority)
        if answer is None:
            return None
        self._pool, placement = answer
        del self._front[index]
        del self._waiting[entry.task.id]
        self._queued[entry.task.priority] -= 1
        self._refill()
        start = Start(entry.task, placement, self._now_s - entry.submitted_s)
        self._running[entry.task.id] = start
        return start

    def _refill(self) -> None:
        """Move the next tasks up into the front."""
        while len(self._front) < WINDOW and self._heap:
            ranked = heappop(self._heap)
            if ranked[2].alive:
                self._front.append(ranked)
            else:
                self._dead -= 1

    def _wait(self, entry: _Entry, reason: str) -> Wait:
        return Wait(entry.task, reason, self._now_s - entry.submitted_s, entry.overtaken)
