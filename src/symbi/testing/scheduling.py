"""A model of the scheduler: a list that is sorted anew for every question, written from docs/reference/scheduling.md.

`SchedulerModel` answers as `symbi.runtime.scheduler.SchedulerCore` has to, and shares nothing with it but the values
that go in and come out. `SchedulerTwin` asks both and compares the answers, whole; beside that it keeps books of what
was promised to everybody, whoever decides.
"""

from collections.abc import Iterator, Sequence
from typing import Final, TypeAlias

from symbi.errors import InputError, Overloaded
from symbi.runtime.resources import Amount, Node, NodeId, Placement, ResourcePool, Strategy
from symbi.runtime.scheduler import Decision, Late, Preempt, Resume, SchedulerCore, Start, Task, TaskId, Wait
from symbi.types import Priority

# What the documentation promises, in numbers: a constant of the code that differs is found.
SECONDS_OF_A_LEVEL: Final = 60
OVERTAKING: Final = 32
LOOKS: Final = 16
SUSPENSIONS: Final = 3
PROMISES: Final = 64
LEVELS: Final = tuple(Priority)
BATCH, REAL_TIME, CRITICAL = -1, 4, 3

_Parts: TypeAlias = tuple[int, ...]


class Waiting:
    """A task that waits or runs, as the model sees it."""

    __slots__ = ("kind", "level", "number", "overtaken", "parts", "since_s", "suspended", "task", "turn")

    def __init__(self, task: Task, number: int, since_s: float, level: int, turn: float) -> None:
        self.task = task
        self.number = number
        self.since_s = since_s
        self.level = level  # of the lane in which it waits
        self.turn = turn
        self.kind = BATCH if task.batch else LEVELS.index(task.priority)  # by which it is suspended
        self.parts = task.claim.parts
        self.overtaken = 0
        self.suspended = 0


class SchedulerModel:
    """What the documentation says, with lists and loops.

    Args:
        pool: Nodes, all free, and a strategy.
        max_running: How many may run at once.
    """

    def __init__(self, pool: ResourcePool, max_running: int) -> None:
        self.nodes: dict[NodeId, _Parts] = {node.id: node.capacity.parts for node in pool.nodes}
        self.strategy = pool.strategy
        self.share = pool.critical_share
        self.max_running = max_running
        self.waiting: list[Waiting] = []
        self.running: dict[TaskId, tuple[Waiting, NodeId]] = {}  # oldest start first
        self.stopping: set[TaskId] = set()
        self.promised: dict[TaskId, NodeId] = {}
        self.free: dict[NodeId, _Parts] = dict(self.nodes)
        self.now_s = float("-inf")
        self._count = 0
        self._last: dict[tuple[int, str], float] = {}  # an owner's last turn in a lane
        self._served: dict[int, float] = {}  # of each lane, the latest turn that was served

    def submit(self, task: Task, now_s: float) -> None:
        """A task waits."""
        self.now_s = max(self.now_s, now_s)
        self._count += 1
        level = REAL_TIME if task.deadline_s is not None else BATCH if task.batch else LEVELS.index(task.priority)
        turn = task.deadline_s
        if turn is None:
            served = self._served.get(level, 0.0)
            turn = max(served, self._last.get((level, task.owner), served - 1) + 1)
            self._last[level, task.owner] = turn
        self.waiting.append(Waiting(task, self._count, self.now_s, level, turn))

    def withdraw(self, task_id: TaskId) -> None:
        """A task waits no more."""
        self._forgive(self._out(task_id))

    def finish(self, task_id: TaskId) -> None:
        """A task has ended."""
        del self.running[task_id]
        self.stopping.discard(task_id)

    def suspended(self, task_id: TaskId) -> None:
        """A task has stopped, and waits again with the turn that it had."""
        one, _ = self.running[task_id]
        self.finish(task_id)
        one.suspended += 1
        self.waiting.append(one)

    def in_order(self) -> Iterator[Waiting]:
        """All that wait, the first first: in each lane by turns, and the lanes by the age of their first."""
        lanes: list[list[Waiting]] = [[] for _ in range(REAL_TIME - BATCH + 1)]
        for one in self.waiting:
            lanes[one.level - BATCH].append(one)
        for lane in lanes:
            lane.sort(key=lambda one: (one.turn, one.number), reverse=True)
        while firsts := [lane for lane in lanes if lane]:
            yield min(firsts, key=_rank).pop()

    def plan(self, now_s: float, limit: int) -> list[Decision]:
        """What starts, stops, is late and has to wait."""
        self.now_s = max(self.now_s, now_s)
        late = [one for one in self.waiting if one.level == REAL_TIME and one.turn <= self.now_s and not one.suspended]
        late.sort(key=lambda one: (one.turn, one.number))
        for one in late:
            self._out(one.task.id)
        self.free = {node: self._left(node) for node in self.nodes}
        starts = self._kept_promises(limit)
        preempts: list[Preempt] | None = None
        head, reason, passed = None, "resources", 0
        for one in self.in_order():
            if len(starts) >= limit or passed >= LOOKS:
                break
            slots = self.max_running - len(self.running) - len(self.promised)
            if head is None and slots <= 0:
                head, reason = one, "concurrency"
            elif head is None or (head.overtaken < OVERTAKING and slots > 0):
                node = self._place(one)
                if node is not None:
                    starts.append(self._start(one, node))
                    if head is not None:
                        head.overtaken += 1
                    continue
                head = head or one
            may_be = head is one or head.overtaken < OVERTAKING
            if preempts is None and may_be and one.kind == CRITICAL and one.task.id not in self.promised:
                preempts = self._make_room(one)
                if one.task.id in self.promised and head is not one:
                    head.overtaken += 1
            passed += 1
        waits = [] if head is None else [Wait(head.task, reason, self.now_s - head.since_s, head.overtaken)]
        return [*(Late(one.task) for one in late), *starts, *(preempts or ()), *waits]

    # --- steps ----------------------------------------------------------------------------------

    def _out(self, task_id: TaskId) -> Waiting:
        one = next(one for one in self.waiting if one.task.id == task_id)
        self.waiting.remove(one)
        self.promised.pop(task_id, None)
        return one

    def _forgive(self, gone: Waiting) -> None:
        """An owner of whom nothing waits in a lane has its next turn there no later than as if it was just served."""
        key = gone.level, gone.task.owner
        if gone.level != REAL_TIME and not any((one.level, one.task.owner) == key for one in self.waiting):
            self._last[key] = min(self._last[key], self._served.get(gone.level, 0.0))

    def _left(self, node: NodeId) -> _Parts:
        """What nobody holds of a node."""
        free = self.nodes[node]
        for one, where in self.running.values():
            if where == node:
                free = _minus(free, one.parts)
        return free

    def _start(self, one: Waiting, node: NodeId) -> Start:
        self._out(one.task.id)
        self.running[one.task.id] = (one, node)
        self.free[node] = _minus(self.free[node], one.parts)
        if one.level != REAL_TIME:
            self._served[one.level] = max(self._served.get(one.level, 0.0), one.turn)
        self._forgive(one)
        kind = Resume if one.suspended else Start
        return kind(one.task, Placement(node, one.task.claim), self.now_s - one.since_s)

    def _kept_promises(self, limit: int) -> list[Start]:
        starts: list[Start] = []
        for task_id, node in list(self.promised.items()):
            if len(starts) >= limit or len(self.running) >= self.max_running:
                break
            one = next(one for one in self.waiting if one.task.id == task_id)
            if _fits(one.parts, self.free[node]):
                starts.append(self._start(one, node))
        return starts

    def _kept(self, node: NodeId) -> _Parts:
        """What is kept on a node for those to whom it is promised."""
        kept: _Parts = (0, 0, 0, 0)
        for one in self.waiting:
            if self.promised.get(one.task.id) == node:
                kept = _plus(kept, one.parts)
        return kept

    def _place(self, one: Waiting) -> NodeId | None:
        """The node on which a task starts."""
        rooms: list[tuple[int, NodeId]] = []
        for node, capacity in self.nodes.items():
            free = self.free[node]
            if self.promised:
                free = tuple(max(0, part) for part in _minus(free, self._kept(node)))
            if self.strategy is Strategy.PRIORITY_BASED and one.task.priority is not Priority.CRITICAL:
                spared = tuple(part * self.share // 1000 for part in capacity)
            else:
                spared = (0, 0, 0, 0)
            if _fits(one.parts, free) and _fits(_plus(one.parts, spared), free):
                left = _minus(free, one.parts)
                rooms.append(
                    (sum(mine * 10_000 // all_ for mine, all_ in zip(left, capacity, strict=True) if all_), node)
                )
        if not rooms:
            return None
        if self.strategy is Strategy.FIRST_FIT:
            return rooms[0][1]
        if self.strategy is Strategy.PRIORITY_BASED and one.task.priority is Priority.CRITICAL:
            return max(rooms, key=lambda room: room[0])[1]
        return min(rooms, key=lambda room: room[0])[1]

    def _make_room(self, critical: Waiting) -> list[Preempt]:
        """Promise a critical task a node, and tell who has to stop there."""
        slots = self.max_running - len(self.running) - len(self.promised) + len(self.stopping)
        ways: list[tuple[int, int, int]] = []
        told: list[list[Waiting]] = []
        nodes = list(self.nodes)
        for number, node in enumerate(nodes):
            victims = self._victims(node, critical, max(0, 1 - slots))
            told.append(victims or [])
            if victims is not None:
                ways.append((max((one.kind for one in victims), default=BATCH), len(victims), number))
        if not ways or len(self.promised) >= PROMISES:
            return []
        chosen = min(ways)[2]
        self.promised[critical.task.id] = nodes[chosen]
        self.stopping |= {one.task.id for one in told[chosen]}
        return [Preempt(one.task, critical.task.id) for one in told[chosen]]

    def _victims(self, node: NodeId, critical: Waiting, needed: int) -> list[Waiting] | None:
        """Who stops on a node so that a critical task fits there; None where it cannot be."""
        there = [one for one, where in self.running.values() if where == node]
        room, wanted = self.free[node], _plus(critical.parts, self._kept(node))
        if not _fits(wanted, self.nodes[node]):
            return None
        for one in there:
            if one.task.id in self.stopping:
                room = _plus(room, one.parts)
        able = [one for one in reversed(there) if one.task.id not in self.stopping and one.kind < CRITICAL]
        able = [one for one in able if one.task.preemptible and one.suspended < SUSPENSIONS]
        able.sort(key=lambda one: one.kind)  # what started last still comes first within a class
        found: list[Waiting] = []
        for one in able:
            enough = _fits(wanted, room)
            if enough and len(found) >= needed:
                break
            if enough or any(mine and want > has for mine, want, has in zip(one.parts, wanted, room, strict=True)):
                found.append(one)
                room = _plus(room, one.parts)
        return found if _fits(wanted, room) and len(found) >= needed else None


class SchedulerTwin:
    """Scheduler and model side by side; each step is taken by both, and whatever they answer must be the same.

    Args:
        capacities: Of the nodes.
        strategy: How a node is chosen.
        max_running: How many may run at once.
        max_queued: How many may wait.

    Raises:
        AssertionError: From each step, where they differ or a promise is broken.
    """

    def __init__(self, capacities: Sequence[Amount], strategy: Strategy, max_running: int, max_queued: int) -> None:
        nodes = tuple(Node.empty(NodeId(f"node-{number}"), one) for number, one in enumerate(capacities))
        pool = ResourcePool(nodes, strategy)
        self.core = SchedulerCore(pool, max_running=max_running, max_queued=max_queued)
        self.model = SchedulerModel(pool, max_running)
        self.max_queued = max_queued
        self.now_s = 0.0
        self.submitted: set[TaskId] = set()
        self.ended: dict[TaskId, str] = {}
        self.held: dict[TaskId, Placement] = {}
        self.suspensions: dict[TaskId, int] = {}
        self.overtaken: dict[TaskId, int] = {}

    @property
    def waiting(self) -> list[TaskId]:
        """What waits, oldest submission first but for what was suspended."""
        return [one.task.id for one in self.model.waiting]

    @property
    def told(self) -> list[TaskId]:
        """What was told to stop and has not."""
        return [task_id for task_id in self.held if task_id in self.model.stopping]

    def submit(self, task: Task) -> bool:
        """Submit a task; whether it was taken."""
        full = len(self.model.waiting) >= self.max_queued
        try:
            self.core.submit(task, self.now_s)
        except Overloaded:
            assert full, "a queue that is not full is overloaded"
            return False
        except InputError:
            assert not self._possible(task), f"{task} could run"
            return False
        assert not full, "a full queue takes one more"
        assert self._possible(task), f"{task} can never run"
        self.model.submit(task, self.now_s)
        self.submitted.add(task.id)
        return True

    def withdraw(self, task_id: TaskId) -> None:
        """Withdraw what waits."""
        assert self.core.withdraw(task_id).id == task_id
        self.model.withdraw(task_id)
        self._end(task_id, "withdrawn")

    def finish(self, task_id: TaskId) -> None:
        """End what runs."""
        assert self.core.finish(task_id).id == task_id
        self.model.finish(task_id)
        del self.held[task_id]
        self._end(task_id, "finished")

    def suspended(self, task_id: TaskId) -> None:
        """Let what was told to stop do so."""
        self.core.suspended(task_id)
        self.model.suspended(task_id)
        del self.held[task_id]
        self.suspensions[task_id] = self.suspensions.get(task_id, 0) + 1
        assert self.suspensions[task_id] <= SUSPENSIONS, f"{task_id} is suspended again and again"

    def plan(self, limit: int = 256) -> list[Decision]:
        """Plan, and compare."""
        first = next(self.model.in_order(), None)
        decisions = self.core.plan(self.now_s, limit)
        expected = self.model.plan(self.now_s, limit)
        assert decisions == expected, f"decided {decisions}, and the documentation says {expected}"
        starts = 0
        for decision in decisions:
            task_id = decision.task.id
            if isinstance(decision, Start):
                assert task_id not in self.held
                assert isinstance(decision, Resume) is (task_id in self.suspensions)
                self.held[task_id] = decision.placement
                self.overtaken.pop(task_id, None)
                starts += 1
            elif isinstance(decision, Late):
                self._end(task_id, "late")
        assert starts <= limit
        assert len(self.held) <= self.model.max_running
        self._count_overtaking(first, starts)
        return decisions

    def check(self) -> None:
        """What holds after each step: all that there is is free or held, and everybody is somewhere, once."""
        free: dict[NodeId, _Parts] = {node.id: node.free.parts for node in self.core.pool.nodes}
        for placement in self.held.values():
            free[placement.node] = _plus(free[placement.node], placement.claim.parts)
        assert free == self.model.nodes, "what is free and what is held is not what there is"
        assert all(min(node.free.parts) >= 0 for node in self.core.pool.nodes)
        assert self.core.running.keys() == self.held.keys() == self.model.running.keys()
        counts = dict.fromkeys(Priority, 0)
        for one in self.model.waiting:
            counts[one.task.priority] += 1
        assert self.core.queued == counts
        assert len(self.submitted) == len(self.ended) + len(self.held) + len(self.model.waiting)

    def run_out(self) -> None:
        """Nothing more comes, and time stands still: everything that waits runs, everything that runs ends, once."""
        bound = 8 * (len(self.model.waiting) + len(self.held)) + 8  # a task starts four times at most
        for _ in range(bound):
            self.plan()
            for task_id in self.told:
                self.suspended(task_id)
            self.plan()
            self.check()
            if not self.held:
                break
            self.finish(next(iter(self.held)))
        assert not self.held
        assert not self.model.waiting, f"{self.waiting} wait for ever"
        assert self.ended.keys() == self.submitted
        assert self.core.pool.free == self.core.pool.capacity

    def _possible(self, task: Task) -> bool:
        spare = self.model.strategy is Strategy.PRIORITY_BASED and task.priority is not Priority.CRITICAL
        share = self.model.share if spare else 0
        return any(
            _fits(task.claim.parts, tuple(part - part * share // 1000 for part in parts))
            for parts in self.model.nodes.values()
        )

    def _end(self, task_id: TaskId, how: str) -> None:
        assert task_id in self.submitted
        assert task_id not in self.ended, f"{task_id} has {self.ended[task_id]}, and is {how}"
        self.ended[task_id] = how
        self.overtaken.pop(task_id, None)

    def _count_overtaking(self, first: Waiting | None, starts: int) -> None:
        """Whatever starts while one stays the first overtakes it: as many as may, and those that had a promise before."""
        if first is not None and starts and first is next(self.model.in_order(), None):
            count = self.overtaken.get(first.task.id, 0) + starts
            self.overtaken[first.task.id] = count
            assert count <= (1 + first.suspended) * (OVERTAKING + PROMISES), f"{count} have overtaken {first.task}"


def _rank(lane: list[Waiting]) -> tuple[float, int]:
    """Of a lane, by its first: 60 s are worth a class."""
    first = lane[-1]
    return first.since_s - first.level * SECONDS_OF_A_LEVEL, first.number


def _fits(claim: _Parts, room: _Parts) -> bool:
    return all(part <= there for part, there in zip(claim, room, strict=True))


def _plus(one: _Parts, other: _Parts) -> _Parts:
    return tuple(mine + its for mine, its in zip(one, other, strict=True))


def _minus(one: _Parts, other: _Parts) -> _Parts:
    return tuple(mine - its for mine, its in zip(one, other, strict=True))
