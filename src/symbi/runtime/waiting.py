"""Waiting tasks in the order in which they are to start: pure.

Lanes. Each class has a lane; batch work has one below them all, real-time work one above. Lanes are compared by their
first tasks: by the time of submission, moved back by `AGEING_S` for each level. So a higher lane goes ahead, and a task
that has waited so much longer than the first of the next lane goes ahead of that.

Owners. Within a lane owners take turns (start-time fair queueing, Goyal, Vin and Cheng 1996): a task is tagged at its
submission with the turn that it gets, one after the owner's last and no earlier than the turn that is being served. So
an owner who submits ten thousand tasks is served one for each task of every other owner, and the tasks of one owner
are first in, first out. An owner of whom nothing waits has its next turn no later than the one after that which is being
served: what it withdrew costs it nothing. A turn ends once `TURN_OWNERS` have had it of whom nothing waits, so that
newcomers without end do not hold up the next one. In the lane of real-time work the earliest deadline goes first.

Tags never change, so a submission, a start and a withdrawal each are O(log n).
"""

from bisect import insort
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from heapq import heapify, heappop, heappush
from typing import Final, NewType, TypeAlias

from symbi.runtime.resources import Amount
from symbi.types import Priority

TaskId = NewType("TaskId", str)
"""One piece of work that waits or runs; unique among those."""

AGEING_S: Final = 60.0  # a task that has waited so much longer is worth a level
WINDOW: Final = 16  # waiting tasks that one plan looks at
TURN_OWNERS: Final = 1024  # owners that have had a turn, and want nothing more, before the next one begins
_SPARE: Final = 64  # dead entries that a heap may have before it is swept out


class Lane(IntEnum):
    """Where a task waits; a level is worth `AGEING_S`."""

    BATCH = -1
    LOW = 0
    NORMAL = 1
    HIGH = 2
    CRITICAL = 3
    REAL_TIME = 4


@dataclass(frozen=True, slots=True)
class Task:
    """Work that wants to run.

    Attributes:
        id: Unique among what waits and runs.
        claim: What it takes while it runs.
        priority: Its class.
        owner: Whose turn it takes.
        batch: It may wait behind everything else.
        deadline_s: Monotonic time by which it must have started, or it is not worth starting; real-time work.
        preemptible: It may be suspended for a critical task.
    """

    id: TaskId
    claim: Amount
    priority: Priority = Priority.NORMAL
    owner: str = ""
    batch: bool = False
    deadline_s: float | None = None
    preemptible: bool = True

    @property
    def lane(self) -> Lane:
        """Where it waits."""
        if self.deadline_s is not None:
            return Lane.REAL_TIME
        return Lane.BATCH if self.batch else Lane[self.priority.name]


class Entry:
    """A task that waits, or runs and may have to wait again.

    Attributes:
        task: The task.
        number: Of its submission.
        submitted_s: When that was.
        tag: Its turn in its lane.
        overtaken: How many started ahead of it while it was first and did not fit.
        preempted: How often it was suspended for another.
        alive: It waits; False for what was withdrawn and is still in a heap.
    """

    __slots__ = ("alive", "number", "overtaken", "preempted", "submitted_s", "tag", "task")

    def __init__(self, task: Task, number: int, submitted_s: float, tag: float) -> None:
        self.task = task
        self.number = number
        self.submitted_s = submitted_s
        self.tag = tag
        self.overtaken = 0
        self.preempted = 0
        self.alive = True


_Ranked: TypeAlias = tuple[float, int, Entry]  # tag, number, entry; the number settles every tie


class _Lane:
    """One lane: its first tasks in order, and the rest in a heap."""

    __slots__ = ("_dead", "_had", "_heap", "_last", "_served", "_waiting", "front", "level")

    def __init__(self, level: int) -> None:
        self.level = level
        self.front: list[_Ranked] = []  # each is before all that are in the heap
        self._heap: list[_Ranked] = []
        self._dead = 0  # withdrawn entries that are still in the heap
        self._served = 0.0  # the latest turn that was served
        self._last: dict[str, float] = {}  # an owner's last turn, as long as that counts
        self._had: dict[str, None] = {}  # owners that have had the turn which is served, and of whom nothing waits
        self._waiting: dict[str, int] = {}  # an owner's waiting tasks

    def turn_of(self, task: Task) -> float:
        """The tag of a task that is submitted now."""
        if task.deadline_s is not None:
            return task.deadline_s
        last = self._last.get(task.owner)
        turn = self._served if last is None else max(self._served, last + 1.0)
        self._last[task.owner] = turn
        self._had.pop(task.owner, None)
        return turn

    def put(self, entry: Entry) -> None:
        """Add an entry at its turn."""
        owner, ranked = entry.task.owner, (entry.tag, entry.number, entry)
        self._waiting[owner] = self._waiting.get(owner, 0) + 1
        if self.front and ranked < self.front[-1]:
            insort(self.front, ranked)
            if len(self.front) > WINDOW:
                heappush(self._heap, self.front.pop())
        else:
            heappush(self._heap, ranked)
            self.refill()

    def take(self, index: int) -> None:
        """The task at a position of the front starts."""
        entry = self.front.pop(index)[2]
        self.served(entry)
        self._left(entry)
        self.refill()

    def served(self, entry: Entry) -> None:
        """It is the turn of an entry."""
        if entry.task.deadline_s is None and entry.tag > self._served:
            self._serve(entry.tag)

    def remove(self, entry: Entry) -> None:
        """An entry waits no more."""
        ranked = (entry.tag, entry.number, entry)
        self._left(entry)
        if ranked in self.front:
            self.front.remove(ranked)
            self.refill()
            return
        entry.alive = False
        self._dead += 1
        if self._dead * 2 > len(self._heap):  # half of it: the cost is spread over as many withdrawals
            self._heap = [kept for kept in self._heap if kept[2].alive]
            heapify(self._heap)
            self._dead = 0

    def refill(self) -> None:
        """Move the next tasks up into the front."""
        while len(self.front) < WINDOW and self._heap:
            ranked = heappop(self._heap)
            if ranked[2].alive:
                self.front.append(ranked)
            else:
                self._dead -= 1

    def _left(self, entry: Entry) -> None:
        owner = entry.task.owner
        self._waiting[owner] -= 1
        if not self._waiting[owner]:
            del self._waiting[owner]
            last = self._last.get(owner)
            if last is not None and last < self._served:
                del self._last[owner]  # as good as new
            elif last is not None:
                self._last[owner] = self._served  # whatever it has withdrawn
                self._had[owner] = None
                if len(self._had) > TURN_OWNERS:
                    self._serve(self._served + 1.0)

    def _serve(self, turn: float) -> None:
        """A later turn is served: who has had the last one, and wants nothing more, is as good as new."""
        self._served = turn
        for owner in self._had:
            del self._last[owner]
        self._had = {}


class WaitingTasks:
    """All that waits."""

    def __init__(self) -> None:
        self._lanes = {lane: _Lane(lane.value) for lane in reversed(Lane)}
        self._entries: dict[TaskId, Entry] = {}
        self._deadlines: list[_Ranked] = []
        self._dead = 0  # of those, how many have started, or wait no more
        self._submissions = 0
        self.queued = dict.fromkeys(Priority, 0)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, task_id: object) -> bool:
        return task_id in self._entries

    def submit(self, task: Task, now_s: float) -> None:
        """Add a task at the turn that it gets."""
        self._submissions += 1
        self.put(Entry(task, self._submissions, now_s, self._lanes[task.lane].turn_of(task)))

    def put(self, entry: Entry) -> None:
        """Add an entry at the turn that it has had."""
        task = entry.task
        entry.alive = True
        self._entries[task.id] = entry
        self.queued[task.priority] += 1
        self._lanes[task.lane].put(entry)
        if task.deadline_s is not None and not entry.preempted:
            heappush(self._deadlines, (task.deadline_s, entry.number, entry))

    def get(self, task_id: TaskId) -> Entry | None:
        """What waits by this name."""
        return self._entries.get(task_id)

    def remove(self, task_id: TaskId) -> Task | None:
        """Take a task out; None where it does not wait."""
        entry = self._entries.get(task_id)
        if entry is None:
            return None
        self._out(entry)
        self._in_time(entry)
        return entry.task

    def start(self, entry: Entry) -> None:
        """An entry starts, wherever it stands in its lane."""
        self._lanes[entry.task.lane].served(entry)
        self.remove(entry.task.id)

    def late(self, now_s: float) -> Iterator[Task]:
        """Take out what has not started by its deadline; what had started once is not late."""
        while self._deadlines and self._deadlines[0][0] <= now_s:
            _, _, entry = heappop(self._deadlines)
            if self._has_to_start(entry):
                self._out(entry)
                yield entry.task
            else:
                self._dead -= 1

    def looks(self) -> "Look":
        """A look at the first tasks, in order."""
        return Look(list(self._lanes.values()), self)

    def started(self, entry: Entry) -> None:
        """An entry that was taken from a lane waits no more."""
        del self._entries[entry.task.id]
        self.queued[entry.task.priority] -= 1
        self._in_time(entry)

    def _out(self, entry: Entry) -> None:
        del self._entries[entry.task.id]
        self.queued[entry.task.priority] -= 1
        self._lanes[entry.task.lane].remove(entry)

    def _has_to_start(self, entry: Entry) -> bool:
        """Whether the deadline of an entry still counts."""
        return self._entries.get(entry.task.id) is entry and not entry.preempted

    def _in_time(self, entry: Entry) -> None:
        """The deadline of an entry counts no more, and however far away it is, it is not kept for long."""
        if entry.task.deadline_s is None or entry.preempted:
            return
        self._dead += 1
        if self._dead * 2 > len(self._deadlines) + _SPARE:
            self._deadlines = [ranked for ranked in self._deadlines if self._has_to_start(ranked[2])]
            heapify(self._deadlines)
            self._dead = 0


class Look:
    """Walks over the first waiting tasks in order; the one that it stands at can be taken, or passed over.

    Args:
        lanes: All of them, in any order.
        waiting: Whose they are.
    """

    __slots__ = ("_at", "_firsts", "_lanes", "_waiting", "passed")

    def __init__(self, lanes: list[_Lane], waiting: WaitingTasks) -> None:
        self._waiting = waiting
        self._lanes = lanes
        self._at = [0] * len(lanes)
        self._firsts = [(*rank, number) for number in range(len(lanes)) if (rank := self._rank(number)) is not None]
        self.passed = 0

    def current(self) -> Entry | None:
        """The task that it stands at; None where there is none, or as many were passed over as one plan looks at."""
        if self.passed >= WINDOW or not self._firsts:
            return None
        number = min(self._firsts)[2]
        return self._lanes[number].front[self._at[number]][2]

    def take(self) -> None:
        """The task that it stands at starts."""
        first = min(self._firsts)
        lane, at = self._lanes[first[2]], self._at[first[2]]
        entry = lane.front[at][2]
        lane.take(at)
        self._waiting.started(entry)
        self._move(first)

    def skip(self) -> None:
        """Leave the task that it stands at where it is."""
        first = min(self._firsts)
        self._at[first[2]] += 1
        self.passed += 1
        self._move(first)

    def _move(self, first: tuple[float, int, int]) -> None:
        self._firsts.remove(first)
        rank = self._rank(first[2])
        if rank is not None:
            self._firsts.append((*rank, first[2]))

    def _rank(self, number: int) -> tuple[float, int] | None:
        lane, at = self._lanes[number], self._at[number]
        if at >= len(lane.front):
            return None
        entry = lane.front[at][2]
        return entry.submitted_s - lane.level * AGEING_S, entry.number
