"""Whose turn it is: owners, batch work, deadlines."""

import pytest

from symbi.errors import InputError
from symbi.runtime.resources import Amount, Node, NodeId, ResourcePool
from symbi.runtime.scheduler import AGEING_S, Late, SchedulerCore, Start, Task, TaskId
from symbi.runtime.waiting import TURN_OWNERS
from symbi.types import Priority


def core(max_running=1000):
    return SchedulerCore(ResourcePool((Node.empty(NodeId("a"), Amount(memory_mib=1)),)), max_running=max_running)


def task(name, **more):
    return Task(TaskId(str(name)), Amount(memory_mib=1), **more)


def one_by_one(scheduler, now_s=0.0):
    order = []
    while starts := [one.task.id for one in scheduler.plan(now_s, limit=1) if isinstance(one, Start)]:
        order += starts
        scheduler.finish(starts[0])
    return order


def test_owners_take_turns_however_much_one_of_them_wants():
    scheduler = core()
    for number in range(100):
        scheduler.submit(task(f"a{number}", owner="a"), now_s=0.0)
    for number in range(3):
        scheduler.submit(task(f"b{number}", owner="b"), now_s=1.0)
    order = one_by_one(scheduler, 1.0)
    assert order[:6] == ["a0", "b0", "a1", "b1", "a2", "b2"]
    assert order[6:] == [f"a{number}" for number in range(3, 100)]


def test_an_owner_who_comes_late_is_served_next_and_earns_no_credit_for_the_time_before():
    scheduler = core()
    for number in range(50):
        scheduler.submit(task(f"a{number}", owner="a"), now_s=0.0)
    for _ in range(20):
        (start, *_) = scheduler.plan(0.0, limit=1)
        scheduler.finish(start.task.id)
    for number in range(20):
        scheduler.submit(task(f"b{number}", owner="b"), now_s=5.0)
    order = one_by_one(scheduler, 5.0)
    assert order.index("b0") <= 1
    first = order[:20]
    assert abs(sum(name[0] == "a" for name in first) - 10) <= 1


def test_an_owner_who_submits_whenever_it_was_served_holds_up_no_other():
    scheduler = core()
    for number in range(4):
        scheduler.submit(task(f"b{number}", owner="b"), now_s=0.0)
    order = []
    for number in range(4):
        scheduler.submit(task(f"a{number}", owner="a"), now_s=0.0)
        while f"a{number}" not in order:
            (start, *_) = scheduler.plan(0.0, limit=1)
            scheduler.finish(start.task.id)
            order.append(start.task.id)
    assert order == ["b0", "a0", "b1", "a1", "b2", "a2", "b3", "a3"]


def test_what_an_owner_withdraws_costs_it_no_turn():
    scheduler = core()
    for number in range(100):
        scheduler.submit(task(f"a{number}", owner="a"), now_s=0.0)
    for number in range(100):
        scheduler.withdraw(TaskId(f"a{number}"))
    for number in range(100):
        scheduler.submit(task(f"b{number}", owner="b"), now_s=0.0)
    scheduler.submit(task("a", owner="a"), now_s=0.0)
    assert one_by_one(scheduler).index("a") <= 2


def test_newcomers_without_end_hold_up_nobody_for_ever_and_are_forgotten():
    scheduler = core()
    for number in range(2):
        scheduler.submit(task(f"b{number}", owner="b"), now_s=0.0)
    order = []
    for number in range(5 * TURN_OWNERS):
        scheduler.submit(task(f"new-{number}", owner=f"new-{number}"), now_s=0.0)
        (start, *_) = scheduler.plan(0.0, limit=1)
        scheduler.finish(start.task.id)
        order.append(start.task.id)
    assert order[0] == "b0"
    assert order.index("b1") <= TURN_OWNERS + 3
    assert all(len(lane._last) <= TURN_OWNERS + 2 for lane in scheduler._waiting._lanes.values())


def test_deadlines_far_away_are_not_kept_once_their_tasks_have_started():
    scheduler = core()
    for number in range(3000):
        scheduler.submit(task(number, deadline_s=1e12), now_s=0.0)
        if number % 3:
            scheduler.finish(scheduler.plan(0.0)[0].task.id)
        else:
            scheduler.withdraw(TaskId(str(number)))
    assert len(scheduler._waiting._deadlines) < 100


def test_owners_take_turns_in_each_class_by_itself():
    scheduler = core()
    for number in range(5):
        scheduler.submit(task(f"n{number}", owner="a"), now_s=0.0)
    scheduler.submit(task("c", owner="a", priority=Priority.CRITICAL), now_s=0.0)
    assert one_by_one(scheduler)[0] == "c"


def test_owners_that_come_and_go_leave_nothing_behind():
    scheduler = core()
    for number in range(20_000):
        scheduler.submit(task(number, owner=f"owner-{number}"), now_s=0.0)
        (start,) = scheduler.plan(0.0)
        scheduler.finish(start.task.id)
    lanes = scheduler._waiting._lanes.values()
    assert sum(len(lane._last) + len(lane._waiting) for lane in lanes) < 5_000


def test_batch_work_goes_last_and_ages_like_everything_else():
    scheduler = core()
    scheduler.submit(task("batch", batch=True, priority=Priority.HIGH), now_s=0.0)
    scheduler.submit(task("low", priority=Priority.LOW), now_s=AGEING_S - 1)
    scheduler.submit(task("later", priority=Priority.LOW), now_s=AGEING_S + 1)
    assert one_by_one(scheduler, AGEING_S + 1) == ["low", "batch", "later"]


def test_real_time_work_goes_first_by_its_deadline():
    scheduler = core()
    scheduler.submit(task("critical", priority=Priority.CRITICAL), now_s=0.0)
    scheduler.submit(task("later", deadline_s=20.0), now_s=0.0)
    scheduler.submit(task("sooner", deadline_s=10.0), now_s=0.0)
    assert one_by_one(scheduler) == ["sooner", "later", "critical"]


def test_what_has_not_started_by_its_deadline_is_given_back_as_late_even_behind_others():
    scheduler = core()
    scheduler.submit(task("runs"), now_s=0.0)
    scheduler.plan(0.0)
    for number in range(50):
        scheduler.submit(task(number, deadline_s=100.0 - number), now_s=0.0)
    late = scheduler.plan(60.0)
    assert [one.task.id for one in late if isinstance(one, Late)] == [str(number) for number in range(49, 39, -1)]
    assert sum(scheduler.queued.values()) == 40
    scheduler.finish(TaskId("runs"))
    assert one_by_one(scheduler, 60.0)[0] == "39"


@pytest.mark.parametrize("deadline_s", [float("nan"), float("inf")])
def test_a_deadline_is_a_time(deadline_s):
    with pytest.raises(InputError, match="is no deadline"):
        core().submit(task("a", deadline_s=deadline_s), now_s=0.0)
