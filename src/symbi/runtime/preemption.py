"""What runs, and which of it makes room for a critical task: pure.

Whose turn it is to be suspended: batch work first, then the lowest class; of a class, what started last, for it has
least to lose. Only what is of a lower class than the critical task, may be preempted, and was not preempted
`MAX_PREEMPTIONS` times before: so no task is thrown out for ever. Of several nodes, the one where the victims are of
the lowest class, and fewest.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from symbi.runtime.resources import NOTHING, Amount, Node, NodeId, Placement, ResourcePool
from symbi.runtime.waiting import Entry, Lane, Task, TaskId

MAX_PREEMPTIONS: Final = 3  # times that one task is suspended for others

_VICTIMS: Final = tuple(lane for lane in Lane if lane < Lane.CRITICAL)  # lowest first


@dataclass(slots=True)
class Run:
    """A task that runs.

    Attributes:
        entry: Its place in the order, for when it has to wait again.
        placement: What it holds.
        stopping: It was told to stop, and holds its claim until it has.
    """

    entry: Entry
    placement: Placement
    stopping: bool = False


class RunningTasks:
    """All that runs, by node and class."""

    def __init__(self) -> None:
        self._runs: dict[TaskId, Run] = {}
        self._by_class: dict[tuple[NodeId, Lane], dict[TaskId, None]] = {}
        self._stopping: dict[NodeId, Amount] = {}
        self._able = 0  # runs that could be told to stop
        self.stopping = 0

    def __len__(self) -> int:
        return len(self._runs)

    def __contains__(self, task_id: object) -> bool:
        return task_id in self._runs

    @property
    def runs(self) -> Mapping[TaskId, Run]:
        """By task."""
        return MappingProxyType(self._runs)

    def add(self, entry: Entry, placement: Placement) -> None:
        """A task runs from now on."""
        task = entry.task
        self._runs[task.id] = Run(entry, placement)
        self._able += _is_able(entry)
        self._by_class.setdefault((placement.node, _class(task)), {})[task.id] = None

    def remove(self, task_id: TaskId) -> Run | None:
        """A task runs no more; None where it does not."""
        run = self._runs.pop(task_id, None)
        if run is None:
            return None
        node = run.placement.node
        del self._by_class[node, _class(run.entry.task)][task_id]
        if not run.stopping:
            self._able -= _is_able(run.entry)
        else:
            self.stopping -= 1
            self._stopping[node] = self._stopping[node].minus(run.placement.claim)
        return run

    def stop(self, task_id: TaskId) -> Run:
        """A task is told to stop."""
        run = self._runs[task_id]
        run.stopping = True
        self._able -= 1
        self.stopping += 1
        node = run.placement.node
        self._stopping[node] = self._stopping.get(node, NOTHING).plus(run.placement.claim)
        return run

    def victims(
        self, pool: ResourcePool, kept: Mapping[NodeId, Amount], claim: Amount, *, slots: int
    ) -> tuple[NodeId, list[TaskId]] | None:
        """Who has to stop so that a critical claim fits on a node.

        Args:
            pool: What is free.
            kept: What of that, and of what is stopping, is promised to others, by node.
            claim: The claim.
            slots: How many runs have to end besides what is stopping; 0 or 1.

        Returns:
            The node, and those who are to stop besides those who are stopping; None where it cannot be.
        """
        if not self._able and not self.stopping:
            return None
        best: tuple[int, int, int] | None = None
        chosen: tuple[NodeId, list[TaskId]] | None = None
        for number, node in enumerate(pool.nodes):
            found = self._on(node, claim.plus(kept.get(node.id, NOTHING)), slots)
            if found is not None:
                highest = max((_class(self._runs[one].entry.task) for one in found), default=Lane.BATCH)
                cost = (highest, len(found), number)
                if best is None or cost < best:
                    best, chosen = cost, (node.id, found)
        return chosen

    def _on(self, node: Node, claim: Amount, slots: int) -> list[TaskId] | None:
        """The victims on one node, for a claim together with what is promised there."""
        room = node.free.plus(self._stopping.get(node.id, NOTHING))
        if not claim.fits(node.capacity):
            return None
        found: list[TaskId] = []
        for task_id in self._those_able(node.id):
            if claim.fits(room) and len(found) >= slots:
                break
            freed = self._runs[task_id].placement.claim
            if claim.fits(room) or _helps(freed, claim, room):
                found.append(task_id)
                room = room.plus(freed)
        return found if claim.fits(room) and len(found) >= slots else None

    def _those_able(self, node: NodeId) -> Iterator[TaskId]:
        for lane in _VICTIMS:
            for task_id in reversed(self._by_class.get((node, lane), {})):
                run = self._runs[task_id]
                if not run.stopping and _is_able(run.entry):
                    yield task_id


def _class(task: Task) -> Lane:
    """Real-time work is suspended as its class is."""
    return Lane.BATCH if task.batch else Lane[task.priority.name]


def _is_able(entry: Entry) -> bool:
    """Whether a run may be suspended for another."""
    task = entry.task
    return task.preemptible and entry.preempted < MAX_PREEMPTIONS and _class(task) < Lane.CRITICAL


def _helps(freed: Amount, claim: Amount, room: Amount) -> bool:
    """Whether what is given back is of a kind that is lacking."""
    parts = zip(freed.parts, claim.parts, room.parts, strict=True)
    return any(gives and wanted > there for gives, wanted, there in parts)
