"""The scheduler with owners, batch work, deadlines and preemption, in whatever order things happen."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from symbi.runtime.preemption import MAX_PREEMPTIONS
from symbi.runtime.resources import Amount, Node, NodeId, ResourcePool, Strategy
from symbi.runtime.scheduler import Late, Preempt, Resume, SchedulerCore, Start, Task, TaskId
from symbi.types import Priority

MAX_RUNNING = 12
STEPS = 3_000


class World:
    """What a runtime would do with the decisions, step by step by chance; keeps books of its own."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.sizes = [self.random.randint(8, 40) for _ in range(self.random.randint(1, 4))]
        nodes = (Node.empty(NodeId(str(number)), Amount(size, size)) for number, size in enumerate(self.sizes))
        strategy = self.random.choice(list(Strategy))
        self.core = SchedulerCore(ResourcePool(tuple(nodes), strategy), max_running=MAX_RUNNING, max_queued=10_000)
        self.now_s = 0.0
        self.waiting: dict[str, Task] = {}
        self.holding: dict[str, tuple[str, Amount]] = {}
        self.stopping: set[str] = set()
        self.preempted: dict[str, int] = {}
        self.ended: dict[str, str] = {}
        self.count = 0

    def submit(self) -> None:
        self.count += 1
        largest = max(self.sizes) // 2
        real_time = self.random.random() < 0.1
        task = Task(
            TaskId(str(self.count)),
            Amount(self.random.randint(0, largest), self.random.randint(0, largest)),
            self.random.choice(list(Priority)),
            owner=f"owner-{self.random.randrange(4)}",
            batch=self.random.random() < 0.2,
            deadline_s=self.now_s + self.random.uniform(0, 30) if real_time else None,
            preemptible=self.random.random() < 0.9,
        )
        self.core.submit(task, self.now_s)
        self.waiting[task.id] = task

    def plan(self) -> None:
        for decision in self.core.plan(self.now_s):
            if isinstance(decision, Start):
                task = self.waiting.pop(decision.task.id)
                assert isinstance(decision, Resume) is (task.id in self.preempted)
                self.holding[task.id] = (decision.placement.node, task.claim)
            elif isinstance(decision, Preempt):
                victim, critical = decision.task, self.waiting[decision.for_task]
                assert critical.priority is Priority.CRITICAL
                assert victim.preemptible
                assert victim.batch or victim.priority is not Priority.CRITICAL
                assert victim.id in self.holding
                assert victim.id not in self.stopping
                self.stopping.add(victim.id)
            elif isinstance(decision, Late):
                task = self.waiting.pop(decision.task.id)
                assert task.deadline_s <= self.now_s
                assert task.id not in self.preempted
                self.end(task.id, "late")
        self.check()

    def suspend(self) -> None:
        if self.stopping:
            victim = self.random.choice(sorted(self.stopping))
            self.stopping.remove(victim)
            self.waiting[victim] = self.core.running[TaskId(victim)].entry.task
            del self.holding[victim]
            self.core.suspended(TaskId(victim))
            self.preempted[victim] = self.preempted.get(victim, 0) + 1
            assert self.preempted[victim] <= MAX_PREEMPTIONS

    def finish(self) -> None:
        if self.holding:
            task_id = self.random.choice(sorted(self.holding))
            self.core.finish(TaskId(task_id))
            del self.holding[task_id]
            self.stopping.discard(task_id)
            self.end(task_id, "finished")

    def withdraw(self) -> None:
        if self.waiting:
            task_id = self.random.choice(sorted(self.waiting))
            assert self.core.withdraw(TaskId(task_id)) == self.waiting.pop(task_id)
            self.end(task_id, "withdrawn")

    def end(self, task_id: str, how: str) -> None:
        assert task_id not in self.ended
        self.ended[task_id] = how

    def check(self) -> None:
        assert self.core.running.keys() == self.holding.keys()
        assert len(self.holding) <= MAX_RUNNING
        assert sum(self.core.queued.values()) == len(self.waiting)
        for number, size in enumerate(self.sizes):
            held = [claim for node, claim in self.holding.values() if node == str(number)]
            free = self.core.pool.nodes[number].free
            assert free.memory_mib == size - sum(claim.memory_mib for claim in held) >= 0
            assert free.cpu_milli == size - sum(claim.cpu_milli for claim in held) >= 0

    def step(self) -> None:
        self.now_s += self.random.choice((0.0, 0.1, 5.0))
        does = self.random.choices(
            (self.submit, self.plan, self.suspend, self.finish, self.withdraw), (30, 40, 20, 20, 3)
        )[0]
        does()

    def run_out(self) -> None:
        """Nothing more comes; everything that waits starts in the end."""
        for _ in range(20 * (len(self.waiting) + len(self.holding)) + 20):
            self.plan()
            while self.stopping:
                self.suspend()
            self.plan()
            if not self.holding:
                break
            self.finish()
        assert not self.waiting
        assert not self.holding
        assert self.ended.keys() == {str(number) for number in range(1, self.count + 1)}
        assert self.core.pool.free == self.core.pool.capacity


@given(st.integers(0, 2**32))
def test_every_task_ends_once_and_nothing_is_given_out_twice(seed):
    world = World(seed)
    for _ in range(200):
        world.step()
    world.run_out()


def test_likewise_over_many_steps():
    world = World(1)
    for _ in range(STEPS):
        world.step()
    world.run_out()
    assert sum(world.preempted.values()) > 20
    assert "late" in world.ended.values()


@given(st.lists(st.integers(1, 30), min_size=2, max_size=5), st.randoms(use_true_random=False))
def test_no_owner_waits_for_more_than_one_turn_of_every_other(counts, random):
    core = SchedulerCore(ResourcePool((Node.empty(NodeId("a"), Amount(memory_mib=1)),)), max_running=1)
    submissions = [owner for owner, count in enumerate(counts) for _ in range(count)]
    random.shuffle(submissions)
    for number, owner in enumerate(submissions):
        core.submit(Task(TaskId(f"{owner}-{number}"), Amount(memory_mib=1), owner=str(owner)), 0.0)
    order = []
    while starts := [one for one in core.plan(0.0) if isinstance(one, Start)]:
        order.append(int(starts[0].task.owner))
        core.finish(starts[0].task.id)
    for owner, count in enumerate(counts):
        for turn, at in enumerate(index for index, one in enumerate(order) if one == owner):
            others = [min(other, turn + 1) for which, other in enumerate(counts) if which != owner]
            assert at <= turn + sum(others)
        assert order.count(owner) == count
