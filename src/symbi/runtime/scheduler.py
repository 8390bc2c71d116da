"""Which task starts next: `SchedulerCore` decides and does nothing; pure.

Order. `symbi.runtime.waiting`: classes with ageing, owners in turn, batch work last, real-time work first and by its
deadline. What has not started by its deadline is given back as late.

Backfilling. While the first task does not fit, those behind it that do fit may start, or be promised a node: at most
`BACKFILL_LIMIT` of them overtake one waiting head, and only the first `WINDOW` tasks are looked at. Once as many have overtaken it, nothing else
starts until the head has; what runs then ends, each task within its time limit, and the head fits. So a large task
holds up the small ones behind it for a while and never for ever, and they never starve it.

Preemption. A critical task among the first that does not fit is promised a node: those who have to make room there are
told to stop (`symbi.runtime.preemption`), what is free there is kept for it, and it starts as soon as they have. What
was suspended waits again at the turn that it had, and is resumed as others start.

Cost. A submission, a start, a withdrawal and an end each are O(log n) in the number of tasks, and O(nodes) in the pool;
a preemption costs as many looks as there are victims besides.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from symbi.errors import InputError, Overloaded
from symbi.runtime.preemption import Run, RunningTasks
from symbi.runtime.resources import Amount, NodeId, Placement, ResourcePool
from symbi.runtime.waiting import AGEING_S, WINDOW, Entry, Look, Task, TaskId, WaitingTasks
from symbi.types import Priority

__all__ = [
    "AGEING_S", "BACKFILL_LIMIT", "MAX_QUEUED", "WINDOW",
    "Decision", "Late", "Preempt", "Resume", "SchedulerCore", "Start", "Task", "TaskId", "Wait",
]  # fmt: skip

BACKFILL_LIMIT: Final = 32  # tasks that may overtake one waiting head
MAX_QUEUED: Final = 200_000  # waiting tasks; one takes about 0.5 kB
MAX_STARTS: Final = 256  # decisions of one plan, so that planning never holds up the event loop for long
MAX_PROMISES: Final = 64  # critical tasks that others make room for at a time
RETRY_AFTER_S: Final = 1.0  # what a caller is told whose task finds the queue full


@dataclass(frozen=True, slots=True)
class Start:
    """Start this task now.

    Attributes:
        task: The task; its claim is taken from the pool.
        placement: Where it runs.
        waited_s: How long it has waited since it was submitted.
    """

    task: Task
    placement: Placement
    waited_s: float


@dataclass(frozen=True, slots=True)
class Resume(Start):
    """Let this task, which was preempted, go on now."""


@dataclass(frozen=True, slots=True)
class Preempt:
    """Suspend this task at its next effect boundary, and say so by `suspended`.

    Attributes:
        task: The task; it holds its claim until then.
        for_task: The critical task that needs the room.
    """

    task: Task
    for_task: TaskId


@dataclass(frozen=True, slots=True)
class Late:
    """This task has not started by its deadline, and does not wait any more."""

    task: Task


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


Decision: TypeAlias = Start | Preempt | Late | Wait


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
        self._waiting = WaitingTasks()
        self._running = RunningTasks()
        self._promised: dict[TaskId, NodeId] = {}  # critical tasks, and where room is made for them
        self._now_s = float("-inf")

    @property
    def pool(self) -> ResourcePool:
        """What is free now."""
        return self._pool

    @property
    def running(self) -> Mapping[TaskId, Run]:
        """What runs, and what it holds, by task; oldest start first."""
        return self._running.runs

    @property
    def queued(self) -> Mapping[Priority, int]:
        """How many wait in each class."""
        return dict(self._waiting.queued)

    def submit(self, task: Task, now_s: float) -> None:
        """Queue a task.

        Args:
            task: The task.
            now_s: A monotonic time in seconds; one that goes back counts as the latest seen.

        Raises:
            InputError: A task of this id waits or runs, its claim can never be met, or its deadline is no time.
            Overloaded: As many wait as may.
        """
        if task.id in self._waiting or task.id in self._running:
            msg = f"task `{task.id}` is already scheduled"
            raise InputError(msg, code="scheduler.duplicate")
        if task.deadline_s is not None and not task.deadline_s < float("inf"):
            msg = f"`{task.deadline_s}` is no deadline"
            raise InputError(msg, code="scheduler.deadline")
        self._pool.require_possible(task.claim, task.priority)
        if len(self._waiting) >= self._max_queued:
            msg = f"{self._max_queued} tasks wait already"
            raise Overloaded(msg, retry_after_s=RETRY_AFTER_S)
        self._now_s = max(self._now_s, now_s)
        self._waiting.submit(task, self._now_s)

    def withdraw(self, task_id: TaskId) -> Task:
        """Take a waiting task out of the queue.

        Raises:
            InputError: It does not wait.
        """
        task = self._waiting.remove(task_id)
        if task is None:
            msg = f"task `{task_id}` does not wait"
            raise InputError(msg, code="scheduler.unknown")
        self._promised.pop(task_id, None)
        return task

    def plan(self, now_s: float, limit: int = MAX_STARTS) -> list[Decision]:
        """Decide what starts now, and take its claim from the pool.

        Args:
            now_s: A monotonic time in seconds.
            limit: Starts at most; as many in the answer mean that there may be more.

        Returns:
            What is late, starts and preemptions in their order, and at the end one `Wait` if the first task has to wait.
        """
        self._now_s = max(self._now_s, now_s)
        late = list(self._waiting.late(self._now_s))
        for task in late:
            self._promised.pop(task.id, None)
        starts = self._keep_promises(limit)
        look, head, reason = self._waiting.looks(), None, "resources"
        preempts: list[Preempt] | None = None
        while len(starts) < limit and (entry := look.current()) is not None:
            if head is None and self._slots() <= 0:
                head, reason = entry, "concurrency"
            elif head is not None and (head.overtaken >= BACKFILL_LIMIT or self._slots() <= 0):
                pass
            elif (start := self._placed(entry, look)) is not None:
                starts.append(start)
                if head is not None:
                    head.overtaken += 1
                continue
            elif head is None:
                head = entry
            if preempts is None and self._may_be_promised(entry, head):
                preempts = self._make_room(entry)  # for one in each plan
                if head is not entry and entry.task.id in self._promised:
                    head.overtaken += 1
            look.skip()
        waits = [] if head is None else [self._wait(head, reason)]
        return [*map(Late, late), *starts, *(preempts or ()), *waits]

    def finish(self, task_id: TaskId) -> Task:
        """Give back what a running task held; returns the task.

        Raises:
            InputError: It does not run.
        """
        run = self._running.remove(task_id)
        if run is None:
            msg = f"task `{task_id}` does not run"
            raise InputError(msg, code="scheduler.unknown")
        self._pool = self._pool.release(run.placement)
        return run.entry.task

    def suspended(self, task_id: TaskId) -> None:
        """A task that was told to stop has stopped: it gives back what it held, and waits to be resumed.

        Raises:
            InputError: It does not run, or was not told to stop.
        """
        run = self._running.runs.get(task_id)
        if run is None or not run.stopping:
            msg = f"task `{task_id}` was not told to stop"
            raise InputError(msg, code="scheduler.unknown")
        self.finish(task_id)
        run.entry.preempted += 1
        self._waiting.put(run.entry)

    # --- steps of a plan ------------------------------------------------------------------------

    def _slots(self) -> int:
        """How many more may run, besides those that others make room for."""
        return self._max_running - len(self._running) - len(self._promised)

    def _keep_promises(self, limit: int) -> list[Start]:
        """Start the critical tasks that room was made for."""
        starts: list[Start] = []
        for entry, node, claim in list(self._kept()):
            if len(starts) >= limit or len(self._running) >= self._max_running:
                break
            answer = self._pool.allocate_on(node, claim)
            if answer is not None:
                self._pool, placement = answer
                del self._promised[entry.task.id]
                self._waiting.start(entry)
                starts.append(self._start(entry, placement))
        return starts

    def _placed(self, entry: Entry, look: Look) -> Start | None:
        """Start the task that a look stands at, if it fits beside what is kept for others."""
        task = entry.task
        answer = self._open_pool().allocate_possible(task.claim, task.priority)
        if answer is not None and self._promised:  # what the open pool gives is in the whole one
            answer = self._pool.allocate_on(answer[1].node, task.claim)
        if answer is None:
            return None
        self._pool, placement = answer
        self._promised.pop(task.id, None)
        look.take()
        return self._start(entry, placement)

    def _open_pool(self) -> ResourcePool:
        """The pool without what is kept for the promised."""
        pool = self._pool
        for _, node, claim in self._kept():
            pool = pool.without(node, claim)
        return pool

    def _kept(self) -> Iterator[tuple[Entry, NodeId, Amount]]:
        """The promised, where, and what is kept for them there."""
        for task_id, node in self._promised.items():
            entry = self._waiting.get(task_id)
            assert entry is not None
            yield entry, node, entry.task.claim

    def _start(self, entry: Entry, placement: Placement) -> Start:
        self._running.add(entry, placement)
        kind = Resume if entry.preempted else Start
        return kind(entry.task, placement, self._now_s - entry.submitted_s)

    def _may_be_promised(self, entry: Entry, head: Entry) -> bool:
        """Whether others make room for a task: a critical one, but not when as many as may have overtaken the head."""
        task = entry.task
        if task.priority is not Priority.CRITICAL or task.batch or task.id in self._promised:
            return False
        return entry is head or head.overtaken < BACKFILL_LIMIT

    def _make_room(self, entry: Entry) -> list[Preempt]:
        """Who has to stop for a critical task that does not fit; it is promised the room."""
        task = entry.task
        if len(self._promised) >= MAX_PROMISES:
            return []
        lacking = 1 - (self._slots() + self._running.stopping)
        kept: dict[NodeId, Amount] = {}
        for _, node, claim in self._kept():
            kept[node] = kept[node].plus(claim) if node in kept else claim
        found = self._running.victims(self._pool, kept, task.claim, slots=max(0, lacking))
        if found is None:
            return []
        node, victims = found
        self._promised[task.id] = node
        return [Preempt(self._running.stop(one).entry.task, task.id) for one in victims]

    def _wait(self, entry: Entry, reason: str) -> Wait:
        return Wait(entry.task, reason, self._now_s - entry.submitted_s, entry.overtaken)
