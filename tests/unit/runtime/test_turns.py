"""Seats in the pool: who waits, who steps aside, and what is given back however it ends."""

import anyio
import pytest

from symbi.errors import InputError, StoreUnavailable, TimeLimit
from symbi.runtime.agent_scheduler import AgentConfig, AgentScheduler
from symbi.runtime.lifecycle import Event
from symbi.runtime.resources import Amount, Node, NodeId, ResourcePool
from symbi.runtime.turns import Turns
from symbi.testing.clock import ManualClock
from symbi.types import AgentId, Priority, ResourceLimits

pytestmark = pytest.mark.anyio
ALL = ResourceLimits(memory_mb=64, cpu_cores=0.0)


class Place:
    def __init__(self, timeout_s=30.0):
        self.clock = ManualClock()
        pool = ResourcePool((Node.empty(NodeId("a"), Amount(memory_mib=64)),))
        self.scheduler = AgentScheduler(pool, self.clock, max_running=10)
        self.turns = Turns(self.scheduler, timeout_s)
        self.notes = []
        self.fails = False

    async def take(self, name, priority=Priority.LOW, **more):
        async def note(event, details):
            if self.fails:
                raise StoreUnavailable("no store")
            self.notes.append((name, event, details.get("for")))

        return await self.turns.take(AgentConfig(AgentId(name), ALL, priority, **more), note)

    async def free(self):
        return (await self.scheduler.get_system_status()).free.memory_mib


async def test_a_seat_is_handed_on_when_it_is_given_back():
    place = Place()
    first = await place.take("first")
    assert not first.must_stop
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(place.take, "second")
        await anyio.wait_all_tasks_blocked()
        await place.turns.leave(first)
    assert await place.free() == 0
    with anyio.fail_after(5):
        await place.turns.leave(place.turns._seats[AgentId("second")])
    assert await place.free() == 64


async def test_who_waits_too_long_or_is_cancelled_takes_nothing():
    place = Place(timeout_s=0.0)
    await place.scheduler.schedule_agent(AgentConfig(AgentId("other"), ALL))
    await place.scheduler.next_decisions(timeout_s=1.0)
    with pytest.raises(TimeLimit, match="was not started within 0 s"):
        await place.take("late")
    place = Place()
    first = await place.take("first")
    with anyio.move_on_after(0.0):
        await place.take("cancelled")
    await place.turns.leave(first)
    assert await place.free() == 64
    assert await place.scheduler.next_decisions(timeout_s=0.0) == ()


async def test_an_agent_has_one_seat():
    place = Place()
    await place.take("a")
    with pytest.raises(InputError, match="already scheduled"):
        await place.take("a")
    assert await place.free() == 0


async def test_what_cannot_start_by_its_deadline_is_told_so():
    place = Place()
    first = await place.take("first")

    async def late():
        with pytest.raises(TimeLimit, match="could not be started by its deadline"):
            await place.take("late", deadline_s=10.0)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(late)
        await anyio.wait_all_tasks_blocked()
        place.clock.advance(11.0)
        await place.turns.leave(first)
    assert await place.free() == 64


async def test_stepping_aside_is_on_record_before_anything_is_given_back_and_coming_back_after():
    place = Place()
    low = await place.take("low")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(place.take, "now", Priority.CRITICAL)
        await anyio.wait_all_tasks_blocked()
        assert low.must_stop
        tasks.start_soon(low.keep)
        await anyio.wait_all_tasks_blocked()
        assert place.notes == [("low", Event.PREEMPTED, "now")]
        now = place.turns._seats[AgentId("now")]
        assert now.holds
        assert low.must_stop
        await place.turns.leave(now)
    assert place.notes[1:] == [("low", Event.RESUMED, None)]
    assert not low.must_stop
    await place.turns.leave(low)
    assert await place.free() == 64


async def test_who_waits_for_people_is_suspended_at_once():
    place = Place()
    low = await place.take("low")
    with low.idle():
        with anyio.fail_after(5):
            now = await place.take("now", Priority.CRITICAL)
        assert place.notes == [("low", Event.PREEMPTED, "now")]
        assert not low.holds
    await place.turns.leave(now)
    with anyio.fail_after(5):
        await low.keep()
    assert low.holds


async def test_where_it_cannot_be_recorded_nothing_is_given_back():
    place = Place()
    low = await place.take("low")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(place.take, "now", Priority.CRITICAL)
        await anyio.wait_all_tasks_blocked()
        place.fails = True
        with pytest.raises(StoreUnavailable):
            await low.keep()
        assert low.holds
        assert await place.free() == 0
        await place.turns.leave(low)  # its run ends
        await anyio.wait_all_tasks_blocked()
        assert place.turns._seats[AgentId("now")].holds


async def test_who_is_suspended_and_ends_gives_up_its_turn():
    place = Place()
    low = await place.take("low")
    with low.idle():
        now = await place.take("now", Priority.CRITICAL)
    await place.turns.leave(low)
    await place.turns.leave(now)
    assert await place.free() == 64
    assert await place.scheduler.next_decisions(timeout_s=0.0) == ()
