"""SCHED-3: one scheduling decision while a great many tasks wait."""

from collections.abc import Mapping
from itertools import islice
from random import Random
from time import perf_counter_ns
from typing import Final

from symbi.bench.measure import Measurement, Scale, Target, latency, sample
from symbi.errors import InternalError
from symbi.runtime.resources import Amount, Node, NodeId, ResourcePool
from symbi.runtime.scheduler import SchedulerCore, Start, Task, TaskId
from symbi.types import Priority

QUEUED: Final = 100_000
NODES: Final = (1, 4)
RUNNING: Final = 1_000  # about as many as the pool has room for

_METHOD: Final = (
    f"pure core, one thread; a pool full with about {RUNNING:,} tasks of 32 to 128 MiB, four classes and twenty owners; one task ends,"
    " then the plan is timed: all starts that it makes room for, back-filling included"
)
_STEP_S: Final = 0.001  # time that passes between two decisions


async def scheduler(scale: Scale) -> list[Measurement]:
    """A decision on a full pool, and a submission, with the queue at its length throughout."""
    return [row for nodes in NODES for row in _on(nodes, scale)]


def _on(nodes: int, scale: Scale) -> list[Measurement]:
    queued, decisions = scale.of(QUEUED, least=100), scale.of(20_000, least=20)
    capacity = Amount(64 * RUNNING // nodes, 100 * RUNNING // nodes)
    pool = ResourcePool(tuple(Node.empty(NodeId(f"node-{n}"), capacity) for n in range(nodes)))
    core = SchedulerCore(pool, max_running=RUNNING * 2)
    tasks = _Tasks()
    submissions = sample(lambda number: core.submit(tasks.new(), number * _STEP_S), queued + RUNNING)
    now_s = (queued + RUNNING) * _STEP_S
    while any(isinstance(decision, Start) for decision in core.plan(now_s)):
        now_s += _STEP_S
    durations = []
    for _ in range(decisions):
        now_s += _STEP_S
        core.finish(tasks.one_of(core.running))
        begun = perf_counter_ns()
        plan = core.plan(now_s)
        durations.append(perf_counter_ns() - begun)
        for decision in plan:
            if isinstance(decision, Start):
                core.submit(tasks.new(), now_s)
    waiting = sum(core.queued.values())
    if waiting < queued // 2:
        msg = f"only {waiting} tasks wait at the end, so that the queue was not as long as it says"
        raise InternalError(msg)
    target = Target(0.1, at_least=False, note="ours")
    where = f"{queued:,} tasks queued, {nodes} node{'s' if nodes > 1 else ''}"
    return [
        latency("SCHED-3", f"plan, {where}", durations, unit="ms", target=target, method=_METHOD),
        latency("SCHED-3", f"submission, up to {where}", submissions, unit="ms", target=None, method=_METHOD),
    ]


class _Tasks:
    """Tasks of mixed size and class, the same in every run."""

    def __init__(self) -> None:
        self._random = Random(3)  # noqa: S311 - a mixture, not a secret
        self._count = 0

    def new(self) -> Task:
        self._count += 1
        claim = Amount(self._random.choice((32, 64, 64, 128)), self._random.choice((50, 100, 100, 200)))
        priority, owner = self._random.choice(tuple(Priority)), f"owner-{self._random.randrange(20)}"
        return Task(TaskId(f"task-{self._count}"), claim, priority, owner, preemptible=False)

    def one_of(self, running: Mapping[TaskId, object]) -> TaskId:
        """One of the fifty that run longest."""
        oldest = list(islice(running, 50))
        return self._random.choice(oldest)
