"""Critical tasks on a full pool: who makes room, what is kept for whom, and that nobody is thrown out for ever."""

import pytest

from symbi.errors import InputError
from symbi.runtime.preemption import MAX_PREEMPTIONS
from symbi.runtime.resources import Amount, Node, NodeId, ResourcePool
from symbi.runtime.scheduler import BACKFILL_LIMIT, Late, Preempt, Resume, SchedulerCore, Start, Task, TaskId, Wait
from symbi.types import Priority

LOW, NORMAL, HIGH, CRITICAL = Priority


def core(*memory_mib, max_running=1000):
    nodes = (Node.empty(NodeId(str(number)), Amount(size, size)) for number, size in enumerate(memory_mib))
    return SchedulerCore(ResourcePool(tuple(nodes)), max_running=max_running)


def task(name, memory_mib=10, priority=NORMAL, **more):
    return Task(TaskId(name), Amount(memory_mib), priority, **more)


def running(scheduler, *tasks):
    for one in tasks:
        scheduler.submit(one, 0.0)
    scheduler.plan(0.0)
    assert len(scheduler.running) == len(tasks)
    return scheduler


def told_to_stop(decisions):
    return [one.task.id for one in decisions if isinstance(one, Preempt)]


def started(decisions):
    return [one.task.id for one in decisions if isinstance(one, Start)]


def test_the_lowest_class_makes_room_and_of_it_what_started_last_and_it_is_resumed():
    scheduler = running(core(30), task("high", priority=HIGH), task("low-1", priority=LOW), task("low-2", priority=LOW))
    scheduler.submit(task("now", priority=CRITICAL), 1.0)
    decisions = scheduler.plan(1.0)
    assert decisions[0] == Preempt(task("low-2", priority=LOW), TaskId("now"))
    assert isinstance(decisions[-1], Wait)
    assert told_to_stop(scheduler.plan(1.5)) == []  # once is enough
    scheduler.suspended(TaskId("low-2"))
    assert started(scheduler.plan(2.0)) == ["now"]
    scheduler.finish(TaskId("now"))
    (resumed,) = scheduler.plan(3.0)
    assert isinstance(resumed, Resume)
    assert (resumed.task.id, resumed.waited_s) == ("low-2", 3.0)
    assert scheduler.pool.free.memory_mib == 0


def test_batch_work_makes_room_before_any_class():
    scheduler = running(core(20), task("batch", batch=True, priority=HIGH), task("low", priority=LOW))
    scheduler.submit(task("now", priority=CRITICAL), 1.0)
    assert told_to_stop(scheduler.plan(1.0)) == ["batch"]


def test_nothing_critical_and_nothing_that_may_not_be_is_preempted():
    scheduler = running(core(20), task("critical", priority=CRITICAL), task("fixed", preemptible=False))
    scheduler.submit(task("now", priority=CRITICAL), 1.0)
    assert told_to_stop(scheduler.plan(1.0)) == []
    scheduler.finish(TaskId("fixed"))
    assert started(scheduler.plan(1.0)) == ["now"]


def test_only_critical_tasks_preempt():
    scheduler = running(core(10), task("low", priority=LOW))
    for number, priority in enumerate((LOW, NORMAL, HIGH)):
        scheduler.submit(task(f"{number}", priority=priority), 1.0)
    scheduler.submit(task("soon", deadline_s=50.0), 1.0)
    assert told_to_stop(scheduler.plan(1.0)) == []


def test_several_make_room_on_the_node_where_the_victims_are_lowest_and_fewest():
    scheduler = core(20, 20, 20)
    running(
        scheduler, task("a1", priority=HIGH), task("a2", priority=LOW), task("b1"), task("b2"),
        task("c1", priority=LOW), task("c2", priority=LOW),
    )  # fmt: skip
    scheduler.submit(task("now", 20, CRITICAL), 1.0)
    assert told_to_stop(scheduler.plan(1.0)) == ["c2", "c1"]


def test_who_holds_nothing_of_what_is_lacking_goes_on():
    scheduler = core(10)
    memory = Task(TaskId("memory"), Amount(memory_mib=10), LOW)
    scheduler.submit(memory, 0.0)
    scheduler.submit(Task(TaskId("cpu"), Amount(cpu_milli=10), LOW), 0.0)
    scheduler.plan(0.0)
    scheduler.submit(Task(TaskId("now"), Amount(memory_mib=5), CRITICAL), 1.0)
    assert told_to_stop(scheduler.plan(1.0)) == ["memory"]


def test_what_is_freed_is_kept_for_whom_it_was_freed():
    scheduler = running(core(20), task("low-1", priority=LOW), task("low-2", priority=LOW))
    scheduler.submit(task("now", 20, CRITICAL), 1.0)
    assert told_to_stop(scheduler.plan(1.0)) == ["low-2", "low-1"]
    scheduler.suspended(TaskId("low-2"))
    scheduler.submit(task("small", 1, HIGH), 1.0)
    assert started(scheduler.plan(1.0)) == []
    scheduler.suspended(TaskId("low-1"))
    assert started(scheduler.plan(1.0)) == ["now"]


def test_two_critical_tasks_each_get_room_of_their_own():
    scheduler = running(core(20), task("low-1", priority=LOW), task("low-2", priority=LOW))
    for name in ("now-1", "now-2"):
        scheduler.submit(task(name, priority=CRITICAL), 1.0)
    stopped = told_to_stop(scheduler.plan(1.0)) + told_to_stop(scheduler.plan(1.0))
    assert stopped == ["low-2", "low-1"]
    for name in stopped:
        scheduler.suspended(TaskId(name))
    assert started(scheduler.plan(1.0)) == ["now-1", "now-2"]


def test_where_as_many_run_as_may_one_makes_a_place():
    scheduler = running(core(100, max_running=2), task("low", priority=LOW), task("normal"))
    scheduler.submit(task("now", priority=CRITICAL), 1.0)
    assert told_to_stop(scheduler.plan(1.0)) == ["low"]
    scheduler.suspended(TaskId("low"))
    assert started(scheduler.plan(1.0)) == ["now"]


def test_a_victim_that_ends_by_itself_makes_room_as_well():
    scheduler = running(core(10), task("low", priority=LOW))
    scheduler.submit(task("now", priority=CRITICAL), 1.0)
    assert told_to_stop(scheduler.plan(1.0)) == ["low"]
    scheduler.finish(TaskId("low"))
    assert started(scheduler.plan(1.0)) == ["now"]
    assert scheduler.queued[LOW] == 0


def test_a_critical_task_that_is_withdrawn_keeps_no_room():
    scheduler = running(core(10), task("low", priority=LOW))
    scheduler.submit(task("now", priority=CRITICAL), 1.0)
    scheduler.plan(1.0)
    scheduler.withdraw(TaskId("now"))
    scheduler.suspended(TaskId("low"))
    assert started(scheduler.plan(1.0)) == ["low"]


def test_a_task_is_suspended_a_bounded_number_of_times_and_then_left_alone():
    scheduler = running(core(10), task("low", priority=LOW))
    for number in range(MAX_PREEMPTIONS):
        scheduler.submit(task(f"now-{number}", priority=CRITICAL), 1.0)
        assert told_to_stop(scheduler.plan(1.0)) == ["low"]
        scheduler.suspended(TaskId("low"))
        scheduler.plan(1.0)
        scheduler.finish(TaskId(f"now-{number}"))
        assert started(scheduler.plan(1.0)) == ["low"]
    scheduler.submit(task("again", priority=CRITICAL), 1.0)
    assert told_to_stop(scheduler.plan(1.0)) == []


def test_who_was_not_told_to_stop_has_not_been_suspended():
    scheduler = running(core(10), task("low", priority=LOW))
    for name in ("low", "nobody"):
        with pytest.raises(InputError, match="was not told to stop"):
            scheduler.suspended(TaskId(name))


def test_critical_tasks_behind_a_head_overtake_it_as_often_as_others_may_and_then_wait():
    """A head that has waited long, and critical tasks that come after it: none is made room for without end."""
    scheduler = running(core(40), task("stays", 10, HIGH))
    scheduler.submit(task("large", 40, LOW), 0.0)
    overtook = 0
    for number in range(4 * BACKFILL_LIMIT):
        scheduler.submit(task(f"now-{number}", 10, CRITICAL), 1000.0)
        for one in started(scheduler.plan(1000.0)):
            overtook += 1
            scheduler.finish(TaskId(one))
    assert overtook == BACKFILL_LIMIT
    scheduler.finish(TaskId("stays"))
    assert started(scheduler.plan(1000.0))[0] == "large"


def test_nobody_makes_room_for_batch_work_whatever_its_class():
    scheduler = running(core(10), task("low", priority=LOW))
    scheduler.submit(task("batch", priority=CRITICAL, batch=True), 1.0)
    assert told_to_stop(scheduler.plan(1.0)) == []


def test_what_has_started_once_is_not_late_when_its_deadline_passes_while_it_is_suspended():
    scheduler = running(core(10), task("low", priority=LOW, deadline_s=5.0))
    scheduler.submit(task("now", priority=CRITICAL), 1.0)
    scheduler.plan(1.0)
    scheduler.suspended(TaskId("low"))
    assert started(scheduler.plan(1.0)) == ["now"]
    assert not [one for one in scheduler.plan(9.0) if isinstance(one, Late)]
    scheduler.finish(TaskId("now"))
    assert started(scheduler.plan(9.0)) == ["low"]
