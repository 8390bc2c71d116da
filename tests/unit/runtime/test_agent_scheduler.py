"""The public scheduler: agents in, starts out, and how it stands."""

import anyio
import pytest

from symbi.errors import InputError
from symbi.runtime.agent_scheduler import AgentConfig, AgentScheduler, SystemStatus
from symbi.runtime.resources import Amount, Node, NodeId, ResourcePool
from symbi.testing.clock import ManualClock
from symbi.types import AgentId, Priority, ResourceLimits

pytestmark = pytest.mark.anyio


def pool():
    return ResourcePool((Node.empty(NodeId("a"), Amount(memory_mib=100)),))


def started(starts):
    return [one.task.id for one in starts]


async def test_the_public_scheduler_hands_out_what_may_start():
    clock = ManualClock()
    scheduler = AgentScheduler(pool(), clock, max_running=10)
    config = AgentConfig(AgentId("triage"), ResourceLimits(memory_mb=60, cpu_cores=0.0), Priority.HIGH)
    assert await scheduler.schedule_agent(config) == "triage"
    await scheduler.schedule_agent(AgentConfig(AgentId("other"), ResourceLimits(memory_mb=60, cpu_cores=0.0)))
    clock.advance(2.0)
    (start,) = await scheduler.next_decisions(timeout_s=10.0)
    assert (start.task.id, start.waited_s) == ("triage", 2.0)
    assert await scheduler.get_system_status() == SystemStatus(
        running=1,
        max_running=10,
        queued={Priority.LOW: 0, Priority.NORMAL: 1, Priority.HIGH: 0, Priority.CRITICAL: 0},
        capacity=Amount(memory_mib=100),
        free=Amount(memory_mib=40),
    )
    await scheduler.agent_ended(AgentId("triage"))
    assert started(await scheduler.next_decisions(timeout_s=10.0)) == ["other"]
    await scheduler.agent_ended(AgentId("other"))
    assert (await scheduler.get_system_status()).free == Amount(memory_mib=100)


@pytest.mark.parametrize("change", ["schedule", "end", "withdraw"])
async def test_whoever_waits_for_a_start_is_woken_by_what_makes_one_possible(change):
    scheduler = AgentScheduler(pool(), ManualClock(), max_running=10)
    big = ResourceLimits(memory_mb=100, cpu_cores=0.0)
    for name in ("running", "head") if change != "schedule" else ():
        await scheduler.schedule_agent(AgentConfig(AgentId(name), big))
    if change != "schedule":
        await scheduler.next_decisions(timeout_s=10.0)
    found = []

    async def wait():
        found.extend(started(await scheduler.next_decisions(timeout_s=10.0)))

    with anyio.fail_after(5.0):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
            if change == "schedule":
                await scheduler.schedule_agent(AgentConfig(AgentId("head"), big))
            elif change == "end":
                await scheduler.agent_ended(AgentId("running"))
            else:
                await scheduler.withdraw_agent(AgentId("head"))
                await anyio.wait_all_tasks_blocked()
                assert found == []
                await scheduler.schedule_agent(AgentConfig(AgentId("head"), big))
                await scheduler.agent_ended(AgentId("running"))
    assert found == ["head"]


async def test_a_wait_for_a_start_is_bounded():
    scheduler = AgentScheduler(pool(), ManualClock(), max_running=10)
    assert await scheduler.next_decisions(timeout_s=0.0) == ()


async def test_an_agent_that_asks_for_too_much_is_refused():
    scheduler = AgentScheduler(pool(), ManualClock(), max_running=10)
    with pytest.raises(InputError, match="can never be met"):
        await scheduler.schedule_agent(AgentConfig(AgentId("a"), ResourceLimits(memory_mb=1000)))
    assert (await scheduler.get_system_status()).free == Amount(memory_mib=100)
