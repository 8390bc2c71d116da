"""What starts next: order, ageing, backfilling, bounds, and what it costs."""

from dataclasses import replace
from itertools import pairwise

import pytest

from symbi.errors import InputError, Overloaded
from symbi.runtime.resources import Amount, Node, NodeId, ResourcePool, Strategy
from symbi.runtime.scheduler import (
    AGEING_S,
    BACKFILL_LIMIT,
    WINDOW,
    SchedulerCore,
    Start,
    Task,
    TaskId,
    Wait,
)
from symbi.types import Priority


def pool(memory_mib=100, **changes):
    return ResourcePool((Node.empty(NodeId("a"), Amount(memory_mib=memory_mib)),), **changes)


def core(memory_mib=100, max_running=1000, **bounds):
    return SchedulerCore(pool(memory_mib), max_running=max_running, **bounds)


def task(name, memory_mib=1, priority=Priority.NORMAL):
    return Task(TaskId(str(name)), Amount(memory_mib=memory_mib), priority)


def started(decisions):
    return [one.task.id for one in decisions if isinstance(one, Start)]


def one_by_one(scheduler, now_s=0.0):
    """The order in which tasks start when each ends before the next may."""
    order = []
    while starts := started(scheduler.plan(now_s, limit=1)):
        order += starts
        scheduler.finish(starts[0])
    return order


def test_higher_classes_go_first_and_a_class_is_first_in_first_out():
    scheduler = core()
    for number, priority in enumerate([Priority.LOW, Priority.CRITICAL, Priority.NORMAL, Priority.HIGH] * 2):
        scheduler.submit(task(f"{priority}-{number}", priority=priority), now_s=0.0)
    assert one_by_one(scheduler) == [
        "critical-1", "critical-5", "high-3", "high-7", "normal-2", "normal-6", "low-0", "low-4",
    ]  # fmt: skip


def test_a_task_that_has_waited_long_goes_ahead_of_a_higher_class():
    scheduler = core()
    scheduler.submit(task("old", priority=Priority.LOW), now_s=0.0)
    scheduler.submit(task("just ahead", priority=Priority.CRITICAL), now_s=3 * AGEING_S - 1)
    scheduler.submit(task("too late", priority=Priority.CRITICAL), now_s=3 * AGEING_S + 1)
    assert one_by_one(scheduler) == ["just ahead", "old", "too late"]


def test_no_stream_of_critical_tasks_starves_a_low_one():
    scheduler = core(memory_mib=1)
    scheduler.submit(task("low", priority=Priority.LOW), now_s=0.0)
    order = []
    for second in range(int(3 * AGEING_S) + 2):
        scheduler.submit(task(second, priority=Priority.CRITICAL), now_s=float(second))
        starts = started(scheduler.plan(float(second)))
        order += starts
        scheduler.finish(starts[0])
    assert order.index("low") == 3 * AGEING_S  # behind as many critical ones as were submitted in time


def test_a_start_takes_its_claim_and_the_end_gives_it_back():
    scheduler = core()
    scheduler.submit(task("a", 60), now_s=1.0)
    (start,) = scheduler.plan(3.5)
    assert (start.task.id, start.waited_s, start.placement.node) == ("a", 2.5, "a")
    assert scheduler.pool.free == Amount(memory_mib=40)
    assert [run.placement for run in scheduler.running.values()] == [start.placement]
    assert scheduler.finish(TaskId("a")) == start.task
    assert scheduler.pool == pool()
    assert not scheduler.running


def test_small_tasks_start_behind_a_large_head_that_has_to_wait():
    scheduler = core()
    scheduler.submit(task("running", 50), now_s=0.0)
    scheduler.plan(0.0)
    for name, size in (("large", 80), ("small", 10), ("too large", 60), ("tiny", 1)):
        scheduler.submit(task(name, size), now_s=0.0)
    decisions = scheduler.plan(5.0)
    assert started(decisions) == ["small", "tiny"]
    assert decisions[-1] == Wait(task("large", 80), "resources", 5.0, overtaken=2)


def test_a_large_head_is_overtaken_by_a_bounded_number_of_tasks_and_then_starts_first():
    scheduler = core()
    scheduler.submit(task("running", 50), now_s=0.0)
    scheduler.plan(0.0)
    scheduler.submit(task("large", 100), now_s=0.0)
    overtaking = []
    for number in range(3 * BACKFILL_LIMIT):
        scheduler.submit(task(number, 1), now_s=0.0)
        for start in started(scheduler.plan(0.0)):
            overtaking.append(start)
            scheduler.finish(start)
    assert len(overtaking) == BACKFILL_LIMIT
    scheduler.finish(TaskId("running"))
    assert started(scheduler.plan(0.0)) == ["large"]
    scheduler.finish(TaskId("large"))
    assert len(started(scheduler.plan(0.0))) == 2 * BACKFILL_LIMIT


def test_only_the_first_tasks_behind_a_head_are_looked_at():
    scheduler = core()
    scheduler.submit(task("running", 50), now_s=0.0)
    scheduler.plan(0.0)
    for number in range(WINDOW):
        scheduler.submit(task(f"large-{number}", 100), now_s=0.0)
    scheduler.submit(task("small", 1), now_s=0.0)
    assert started(scheduler.plan(0.0)) == []
    scheduler.withdraw(TaskId("large-3"))
    assert started(scheduler.plan(0.0)) == ["small"]


def test_no_more_run_at_once_than_may():
    scheduler = core(max_running=2)
    for number in range(3):
        scheduler.submit(task(number), now_s=0.0)
    decisions = scheduler.plan(1.0)
    assert started(decisions) == ["0", "1"]
    assert decisions[-1] == Wait(task(2), "concurrency", 1.0, overtaken=0)
    scheduler.finish(TaskId("0"))
    assert started(scheduler.plan(1.0)) == ["2"]


def test_a_plan_starts_no_more_than_its_limit():
    scheduler = core()
    for number in range(10):
        scheduler.submit(task(number), now_s=0.0)
    assert started(scheduler.plan(0.0, limit=4)) == ["0", "1", "2", "3"]
    assert len(started(scheduler.plan(0.0))) == 6
    assert scheduler.plan(0.0) == []


def test_a_full_queue_refuses_and_says_when_to_try_again():
    scheduler = core(max_queued=2)
    for number in range(2):
        scheduler.submit(task(number), now_s=0.0)
    with pytest.raises(Overloaded, match="2 tasks wait already") as caught:
        scheduler.submit(task("third"), now_s=0.0)
    assert caught.value.retry_after_s > 0
    scheduler.plan(0.0)
    scheduler.submit(task("third"), now_s=0.0)


def test_a_task_that_can_never_run_is_refused_at_once():
    scheduler = core()
    with pytest.raises(InputError, match="can never be met"):
        scheduler.submit(task("huge", 101), now_s=0.0)
    assert not any(scheduler.queued.values())


def test_a_task_is_scheduled_once_at_a_time():
    scheduler = core()
    scheduler.submit(task("a"), now_s=0.0)
    with pytest.raises(InputError, match="`a` is already scheduled"):
        scheduler.submit(task("a"), now_s=0.0)
    scheduler.plan(0.0)
    with pytest.raises(InputError, match="`a` is already scheduled"):
        scheduler.submit(task("a"), now_s=0.0)
    scheduler.finish(TaskId("a"))
    scheduler.submit(task("a"), now_s=0.0)


def test_what_does_not_run_cannot_end_and_what_does_not_wait_cannot_be_withdrawn():
    scheduler = core()
    scheduler.submit(task("a"), now_s=0.0)
    with pytest.raises(InputError, match="`a` does not run"):
        scheduler.finish(TaskId("a"))
    scheduler.plan(0.0)
    with pytest.raises(InputError, match="`a` does not wait"):
        scheduler.withdraw(TaskId("a"))
    scheduler.finish(TaskId("a"))
    with pytest.raises(InputError, match="`a` does not run"):
        scheduler.finish(TaskId("a"))


@pytest.mark.parametrize("count", [5, 500])
def test_withdrawn_tasks_never_start_and_are_counted_out(count):
    scheduler = core(max_running=10_000, memory_mib=10_000)
    for number in range(count):
        scheduler.submit(task(number), now_s=0.0)
    for number in range(0, count, 3):
        assert scheduler.withdraw(TaskId(str(number))) == task(number)
    kept = [str(number) for number in range(count) if number % 3]
    assert scheduler.queued[Priority.NORMAL] == len(kept)
    assert started(scheduler.plan(0.0, limit=count)) == kept


def test_a_clock_that_goes_back_changes_no_order():
    scheduler = core()
    for number, now_s in enumerate([10.0, 5.0, 7.0]):
        scheduler.submit(task(number), now_s)
    starts = scheduler.plan(1.0)
    assert started(starts) == ["0", "1", "2"]
    assert [one.waited_s for one in starts] == [0.0, 0.0, 0.0]


def test_critical_tasks_use_what_the_pool_keeps_for_them():
    scheduler = SchedulerCore(pool(strategy=Strategy.PRIORITY_BASED, critical_share=200), max_running=10)
    scheduler.submit(task("normal", 80), now_s=0.0)
    scheduler.submit(task("high", 10, Priority.HIGH), now_s=0.0)
    scheduler.submit(task("critical", 20, Priority.CRITICAL), now_s=0.0)
    decisions = scheduler.plan(0.0)
    assert started(decisions) == ["critical", "high"]
    assert isinstance(decisions[-1], Wait)


class Counted(float):
    """A time that counts how often it is compared."""

    comparisons = 0

    def __lt__(self, other):
        Counted.comparisons += 1
        return float(self) < float(other)

    def __gt__(self, other):
        Counted.comparisons += 1
        return float(self) > float(other)

    def __eq__(self, other):
        Counted.comparisons += 1
        return float(self) == float(other)

    def __hash__(self):
        return hash(float(self))

    def __sub__(self, other):
        return Counted(float(self) - float(other))


class CountedPool(ResourcePool):
    """A pool that counts how often it is asked."""

    asked = 0

    def allocate_possible(self, claim, priority=Priority.NORMAL):
        CountedPool.asked += 1
        return super().allocate_possible(claim, priority)


def cost_per_task(count):
    """Comparisons and looks at the pool per task, with so many tasks waiting in front of a full pool."""
    Counted.comparisons = CountedPool.asked = 0
    node = Node.empty(NodeId("a"), Amount(memory_mib=1))
    scheduler = SchedulerCore(CountedPool((node,)), max_running=10)
    classes = list(Priority)
    for number in range(count):
        mixed = number * 7919 % count  # neither rising nor falling
        scheduler.submit(task(number, priority=classes[mixed % 4]), Counted(mixed / 100))
    for _ in range(count):
        (running, *_) = started(scheduler.plan(Counted(0)))
        scheduler.finish(running)
    return Counted.comparisons / count, CountedPool.asked / count


def test_a_decision_costs_the_logarithm_of_what_waits_and_a_bounded_number_of_looks():
    costs = {count: cost_per_task(count) for count in (256, 1024, 4096, 16384)}
    comparisons = [cost[0] for cost in costs.values()]
    for compared, asked in costs.values():
        assert compared < 8 * WINDOW  # lanes are compared by their first tasks, and heaps by turns
        assert asked <= WINDOW + 1
    for smaller, larger in pairwise(comparisons):
        assert larger - smaller < 8  # four times as many tasks add two levels, not four times the work


def test_a_place_among_deadlines_costs_the_logarithm_of_what_waits():
    costs = []
    for count in (256, 1024, 4096):
        Counted.comparisons = 0
        scheduler = core()
        for number in range(count):
            deadline_s = Counted(1000 + number * 7919 % count)
            scheduler.submit(replace(task(number), deadline_s=deadline_s), 0.0)
        for _ in range(count):
            scheduler.finish(started(scheduler.plan(0.0, limit=1))[0])
        costs.append(Counted.comparisons / count)
    for smaller, larger in pairwise(costs):
        assert larger - smaller < 16  # two more levels, in the lane and among the deadlines


def test_withdrawing_costs_a_bounded_number_of_steps_on_average():
    costs = []
    for count in (1024, 4096):
        scheduler = core()
        for number in range(count):
            scheduler.submit(task(number), Counted(number))
        scheduler.plan(Counted(count), limit=0)
        Counted.comparisons = 0
        for number in range(count - 1, -1, -1):
            scheduler.withdraw(TaskId(str(number)))
        costs.append(Counted.comparisons / count)
    assert max(costs) < 2 * WINDOW + 12
