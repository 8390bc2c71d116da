"""The scheduler against a simple model of it, and promises that hold in whatever order things happen."""

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from symbi.errors import InputError, Overloaded
from symbi.runtime.resources import Amount, Node, NodeId, ResourcePool
from symbi.runtime.scheduler import AGEING_S, BACKFILL_LIMIT, WINDOW, SchedulerCore, Start, Task, TaskId, Wait
from symbi.types import Priority

SIZE = 20
MAX_QUEUED = 60
LEVELS = list(Priority)


class Scheduler(RuleBasedStateMachine):
    """A list that is sorted anew for every question stands for the scheduler."""

    @initialize(max_running=st.integers(1, 8))
    def begin(self, max_running):
        node = Node.empty(NodeId("a"), Amount(memory_mib=SIZE))
        self.core = SchedulerCore(ResourcePool((node,)), max_running=max_running, max_queued=MAX_QUEUED)
        self.max_running = max_running
        self.waiting = []  # [rank, number, task]
        self.running = {}
        self.overtaken = {}
        self.now_s = 0.0
        self.count = 0

    @rule(seconds=st.floats(0, 2 * AGEING_S))
    def time_passes(self, seconds):
        self.now_s += seconds

    @rule(sizes=st.lists(st.integers(0, SIZE + 1), min_size=1, max_size=12), priority=st.sampled_from(Priority))
    def submit(self, sizes, priority):
        for size in sizes:
            task = Task(TaskId(str(self.count)), Amount(memory_mib=size), priority, preemptible=False)
            try:
                self.core.submit(task, self.now_s)
            except InputError:
                assert size > SIZE
            except Overloaded:
                assert len(self.waiting) == MAX_QUEUED
            else:
                assert size <= SIZE
                assert len(self.waiting) < MAX_QUEUED
                self.waiting.append((self.now_s - LEVELS.index(priority) * AGEING_S, self.count, task))
            self.count += 1

    @rule(pick=st.integers(0, 10_000))
    def withdraw(self, pick):
        if self.waiting:
            ranked = self.waiting.pop(pick % len(self.waiting))
            assert self.core.withdraw(ranked[2].id) == ranked[2]

    @rule(pick=st.integers(0, 10_000))
    def finish(self, pick):
        if self.running:
            name = sorted(self.running)[pick % len(self.running)]
            assert self.core.finish(name) == self.running.pop(name)

    @rule(limit=st.integers(1, 20))
    def plan(self, limit):
        decisions = self.core.plan(self.now_s, limit)
        expected, waits = self.expected(limit)
        assert [one.task for one in decisions if isinstance(one, Start)] == expected
        assert [one.task for one in decisions if isinstance(one, Wait)] == waits

    def expected(self, limit):
        """What the model starts, and what it says has to wait."""
        starts, index, head = [], 0, None
        while len(starts) < limit and index < min(len(self.waiting), WINDOW):
            self.waiting.sort()
            if head is None and len(self.running) >= self.max_running:
                return starts, [self.waiting[0][2]]
            task = self.waiting[index][2]
            overtaken = self.overtaken.get(head, 0)
            if head is not None and (overtaken >= BACKFILL_LIMIT or len(self.running) >= self.max_running):
                break
            if task.claim.memory_mib <= SIZE - sum(held.claim.memory_mib for held in self.running.values()):
                del self.waiting[index]
                self.running[task.id] = task
                starts.append(task)
                if head is not None:
                    self.overtaken[head] = overtaken + 1
            else:
                head = head or task.id
                index += 1
        return starts, [ranked[2] for ranked in self.waiting if ranked[2].id == head]

    @invariant()
    def resources_and_counts_agree(self):
        if not hasattr(self, "core"):
            return
        held = sum(task.claim.memory_mib for task in self.running.values())
        assert 0 <= held <= SIZE
        assert self.core.pool.free == Amount(memory_mib=SIZE - held)
        assert self.core.running.keys() == self.running.keys()
        assert sum(self.core.queued.values()) == len(self.waiting)


TestScheduler = Scheduler.TestCase

TASKS = st.lists(
    st.tuples(st.integers(1, SIZE), st.sampled_from(Priority), st.floats(0, AGEING_S)), min_size=1, max_size=80
)


@given(TASKS, st.integers(1, 5))
def test_everything_that_is_submitted_starts_in_the_end_and_every_resource_comes_back(tasks, max_running):
    core = SchedulerCore(ResourcePool((Node.empty(NodeId("a"), Amount(memory_mib=SIZE)),)), max_running=max_running)
    now_s = 0.0
    order = []
    for number, (size, priority, pause_s) in enumerate(tasks):
        now_s += pause_s
        core.submit(Task(TaskId(str(number)), Amount(memory_mib=size), priority), now_s)
    while (starts := [one for one in core.plan(now_s) if isinstance(one, Start)]) or core.running:
        order += [one.task.id for one in starts if one.task.id not in order]
        core.finish(next(iter(core.running)))  # the oldest ends
    assert sorted(order, key=int) == [str(number) for number in range(len(tasks))]
    assert core.pool.free == Amount(memory_mib=SIZE)


@given(TASKS)
def test_a_class_is_first_in_first_out_where_everything_fits(tasks):
    core = SchedulerCore(
        ResourcePool((Node.empty(NodeId("a"), Amount(memory_mib=SIZE * len(tasks))),)), max_running=len(tasks)
    )
    now_s = 0.0
    for number, (size, priority, pause_s) in enumerate(tasks):
        now_s += pause_s
        core.submit(Task(TaskId(str(number)), Amount(memory_mib=size), priority), now_s)
    order = [one.task for one in core.plan(now_s)]
    for priority in Priority:
        numbers = [int(task.id) for task in order if task.priority is priority]
        assert numbers == sorted(numbers)
