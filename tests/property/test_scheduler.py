"""Promises of the scheduler, whatever is submitted; test_scheduler_model.py has it beside a model."""

from hypothesis import given
from hypothesis import strategies as st

from symbi.runtime.resources import Amount, Node, NodeId, ResourcePool
from symbi.runtime.scheduler import AGEING_S, SchedulerCore, Start, Task, TaskId
from symbi.types import Priority

SIZE = 20


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
