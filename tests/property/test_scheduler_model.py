"""Scheduler and pool against a model of the documentation, in whatever order things happen; and what starves nowhere."""

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from symbi.runtime.resources import Amount, Strategy
from symbi.runtime.scheduler import Start, Task, TaskId
from symbi.testing.scheduling import LEVELS, OVERTAKING, SECONDS_OF_A_LEVEL, SchedulerTwin
from symbi.testing.scheduling_walk import SchedulerWalk
from symbi.types import Priority

SIZE = 12
PARTS = st.integers(0, SIZE)
CAPACITIES = st.lists(st.builds(Amount, *[st.integers(SIZE // 2, SIZE)] * 4), min_size=1, max_size=4)
PICKS = st.integers(0, 10_000)
STEPS = 50_000  # in this suite; `tools/walk_scheduler.py` takes a million


class Scheduler(RuleBasedStateMachine):
    """Each step is taken by the scheduler and by the model."""

    @initialize(
        capacities=CAPACITIES,
        strategy=st.sampled_from(Strategy),
        max_running=st.integers(1, 8),
        max_queued=st.integers(2, 40),
    )
    def begin(self, capacities, strategy, max_running, max_queued):
        self.twin = SchedulerTwin(capacities, strategy, max_running, max_queued)
        self.count = 0

    @rule(seconds=st.sampled_from([0.25, 1.0, 30.0, 61.0, 200.0]))
    def time_passes(self, seconds):
        self.twin.now_s += seconds

    @rule(
        claims=st.lists(st.tuples(PARTS, PARTS, PARTS, PARTS), min_size=1, max_size=8),
        priority=st.sampled_from(Priority),
        owner=st.sampled_from(["ada", "bob", "cyd"]),
        batch=st.booleans(),
        deadline_s=st.none() | st.none() | st.floats(-1, 100),
        preemptible=st.sampled_from([True, True, True, False]),
    )
    def submit(self, claims, priority, owner, batch, deadline_s, preemptible):
        for parts in claims:
            self.count += 1
            late = None if deadline_s is None else self.twin.now_s + deadline_s
            self.twin.submit(Task(TaskId(str(self.count)), Amount(*parts), priority, owner, batch, late, preemptible))

    @rule(pick=PICKS)
    def withdraw(self, pick):
        if waiting := self.twin.waiting:
            self.twin.withdraw(waiting[pick % len(waiting)])

    @rule(limit=st.integers(1, 20))
    def plan(self, limit):
        self.twin.plan(limit)

    @rule(pick=PICKS)
    def finish(self, pick):
        if held := list(self.twin.held):
            self.twin.finish(held[pick % len(held)])

    @rule(pick=PICKS)
    def stop(self, pick):
        if told := self.twin.told:
            self.twin.suspended(told[pick % len(told)])

    @invariant()
    def nothing_is_lost_or_given_out_twice(self):
        if hasattr(self, "twin"):
            self.twin.check()

    def teardown(self):
        if hasattr(self, "twin"):
            self.twin.run_out()


TestScheduler = Scheduler.TestCase
TestScheduler.settings = settings(max_examples=150, stateful_step_count=60)


def test_scheduler_and_model_agree_over_many_steps():
    walk = SchedulerWalk(20_261_126)
    walk.run(STEPS)
    assert walk.worlds > STEPS // SchedulerWalk.STEPS_OF_A_WORLD
    assert min(walk.counts[how] for how in ("finished", "withdrawn", "late", "suspended")) > 100


CLASSES = st.tuples(st.sampled_from(Priority), st.booleans())


@given(
    kind=CLASSES,
    size=st.integers(1, SIZE),
    flood=st.lists(
        st.tuples(CLASSES, st.integers(1, SIZE), st.sampled_from(["ada", "bob", "cyd"])), min_size=2, max_size=12
    ),
    lasts=st.integers(1, 4),
    strategy=st.sampled_from([Strategy.FIRST_FIT, Strategy.BEST_FIT]),
)
@settings(max_examples=60)
def test_whatever_is_submitted_behind_it_nothing_waits_beyond_its_bound(kind, size, flood, lasts, strategy):
    """Tasks come faster than they are served; each runs for a bounded time. One task of an owner of its own waits.

    The bound: what comes after it by more than all levels are worth (300 s) goes ahead of it only by overtaking those
    that were ahead of it, at most `OVERTAKING` each; and it starts.
    """
    oldest_s = 5 * SECONDS_OF_A_LEVEL
    twin = SchedulerTwin([Amount(SIZE)], strategy, max_running=6, max_queued=10_000)
    ends: dict[str, float] = {}
    twin.submit(Task(TaskId("first"), Amount(SIZE), owner="dan"))
    twin.plan()
    ends["first"] = lasts
    (priority, batch) = kind
    ours = Task(TaskId("ours"), Amount(size), priority, "eve", batch, preemptible=False)
    twin.submit(ours)
    came: dict[str, float] = {}
    ahead: list[str] = []
    later: list[str] = []
    while "ours" in twin.waiting:
        twin.now_s += 5.0
        for task_id in [one for one in twin.held if ends[one] <= twin.now_s]:
            twin.finish(task_id)
        for task_id in twin.told:
            twin.suspended(task_id)
        if len(came) < 4000:
            for (priority, batch), claim, owner in flood:
                name = TaskId(f"{len(came)}")
                came[name] = twin.now_s
                twin.submit(Task(name, Amount(claim), priority, owner, batch))
        for decision in twin.plan():
            if isinstance(decision, Start) and decision.task.id != "ours":
                ends[decision.task.id] = twin.now_s + 5.0 * lasts
                (later if came[decision.task.id] > oldest_s else ahead).append(decision.task.id)
        twin.check()
        assert len(later) <= (len(ahead) + 1) * OVERTAKING
        assert twin.now_s < oldest_s + 5.0 * lasts * (len(ahead) + len(later) + 2)


@given(
    st.lists(st.tuples(st.sampled_from("abcd"), st.integers(1, 3)), min_size=1, max_size=60),
    st.integers(1, 3),
)
def test_no_owner_is_served_twice_while_another_waits_for_its_turn(submissions, slots):
    """Also where an owner submits one at a time, each when the last has started: whoever waits is served between."""
    twin = SchedulerTwin([Amount(SIZE)], Strategy.FIRST_FIT, max_running=slots, max_queued=1000)
    first: dict[str, list[str]] = {}
    for number, (owner, count) in enumerate(submissions):
        for copy in range(count if owner != "a" else 1):
            twin.submit(Task(TaskId(f"{owner}{number}.{copy}"), Amount(), LEVELS[1], owner))
        for decision in twin.plan():
            if isinstance(decision, Start):
                first.pop(decision.task.owner, None)
                for served in first.values():
                    served.append(decision.task.owner)
        waiting = {task_id[0] for task_id in twin.waiting}
        first = {one: first.get(one, []) for one in waiting}
        for served in first.values():
            assert all(served.count(one) <= 2 for one in served), (
                "an owner waits, and another is served again and again"
            )
        if len(twin.held) == slots:
            twin.finish(next(iter(twin.held)))
