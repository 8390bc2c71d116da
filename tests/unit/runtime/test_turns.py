"""Seats in the pool: who waits, who steps aside, and what is given back however it ends."""

import anyio
import pytest

from symbi.agent.turn import RunClock
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
    async with low.idle():
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
    async with low.idle():
        now = await place.take("now", Priority.CRITICAL)
    await place.turns.leave(low)
    await place.turns.leave(now)
    assert await place.free() == 64
    assert await place.scheduler.next_decisions(timeout_s=0.0) == ()


async def test_what_is_its_own_again_while_it_still_waits_for_people_can_be_taken_again():
    place = Place()
    low = await place.take("low")
    async with anyio.create_task_group() as tasks:
        async with low.idle():
            now = await place.take("now", Priority.CRITICAL)
            tasks.start_soon(place.take, "other")
            await anyio.wait_all_tasks_blocked()
            await place.turns.leave(now)
            await anyio.wait_all_tasks_blocked()
            assert low.holds
            assert low.must_stop  # it has not come back yet
            now = await place.take("now", Priority.CRITICAL)
            await place.turns.leave(now)
        await low.keep()
        assert place.notes == [("low", Event.PREEMPTED, "now"), ("low", Event.RESUMED, None)]
        assert not low.must_stop
        await place.turns.leave(low)


async def test_who_was_told_to_stop_and_then_waits_for_people_stops_at_once():
    place = Place()
    low = await place.take("low")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(place.take, "now", Priority.CRITICAL)
        await anyio.wait_all_tasks_blocked()
        async with low.idle():
            await anyio.wait_all_tasks_blocked()
            assert place.turns._seats[AgentId("now")].holds
        await place.turns.suspend(AgentId("now"), "ada")
        now = place.turns._seats[AgentId("now")]
        async with now.idle():
            assert not now.holds
            await low.keep()


async def test_stepping_aside_while_it_waits_for_people_is_tried_again_where_it_could_not_be_recorded():
    place = Place()
    low = await place.take("low")
    async with low.idle(), anyio.create_task_group() as tasks:
        place.fails = True
        tasks.start_soon(place.take, "now", Priority.CRITICAL)
        await anyio.wait_all_tasks_blocked()
        assert low.holds
        place.fails = False
        place.scheduler._changed.set()  # in a second, whoever waits asks again
        tasks.start_soon(place.take, "next", Priority.HIGH)
        with anyio.fail_after(10):
            while not place.turns._seats[AgentId("now")].holds:
                await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()


async def test_who_an_operator_has_suspended_holds_nothing_and_waits_for_nothing():
    place = Place()
    low = await place.take("low")
    async with anyio.create_task_group() as tasks:
        async with low.idle():
            now = await place.take("now", Priority.CRITICAL)
            await place.turns.suspend(AgentId("low"), "ada")
        tasks.start_soon(low.keep)
        tasks.start_soon(place.take, "other")
        await anyio.wait_all_tasks_blocked()
        await place.turns.leave(now)
        await anyio.wait_all_tasks_blocked()
        other = place.turns._seats[AgentId("other")]
        assert other.holds
        assert not low.holds
        place.turns.resume(AgentId("low"))
        await place.turns.leave(other)
    assert place.notes == [("low", Event.PREEMPTED, "now"), ("low", Event.RESUMED, None)]
    assert not low.must_stop
    await place.turns.leave(low)
    assert await place.free() == 64


async def test_an_operator_suspends_one_that_waits_for_its_turn_to_come_back():
    place = Place()
    low = await place.take("low")
    async with low.idle():
        now = await place.take("now", Priority.CRITICAL)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(low.keep)
        await anyio.wait_all_tasks_blocked()
        await place.turns.suspend(AgentId("low"), "ada")
        await place.turns.leave(now)
        await anyio.wait_all_tasks_blocked()
        assert not low.holds
        assert await place.free() == 64
        place.turns.resume(AgentId("low"))
    assert low.holds
    await place.turns.leave(low)
    assert await place.free() == 64


async def test_the_seat_of_one_that_is_suspended_is_taken_by_no_other_of_its_name():
    place = Place()
    low = await place.take("low")
    async with low.idle():
        await place.turns.suspend(AgentId("low"), "ada")
        with pytest.raises(InputError, match="already scheduled"):
            await place.take("low")
        await place.turns.leave(low)
    again = await place.take("low")
    await place.turns.leave(again)
    assert await place.free() == 64


async def test_a_suspension_that_cannot_be_recorded_is_none():
    place = Place()
    low = await place.take("low")
    async with low.idle():
        place.fails = True
        with pytest.raises(StoreUnavailable):
            await place.turns.suspend(AgentId("low"), "ada")
        place.fails = False
        assert low.holds
        assert not low.must_stop
        await place.turns.suspend(AgentId("low"), "ada")
        assert not low.holds


async def test_a_run_that_ends_while_its_stop_is_recorded_gives_back_once():
    place = Place()
    low = await place.take("low")
    inside, go = anyio.Event(), anyio.Event()

    async def slow(*_):
        inside.set()
        await go.wait()

    low.note = slow
    async with low.idle(), anyio.create_task_group() as tasks:
        tasks.start_soon(place.take, "now", Priority.CRITICAL)
        await inside.wait()
        await place.turns.leave(low)
        go.set()
        await anyio.wait_all_tasks_blocked()
        now = place.turns._seats[AgentId("now")]
        place.scheduler._changed.set()
        with anyio.fail_after(10):
            while not now.holds:
                await anyio.lowlevel.checkpoint()
    await place.turns.leave(now)
    assert await place.free() == 64


async def test_a_run_whose_turn_did_not_come_back_has_no_further_effect():
    place = Place()
    low = await place.take("low")
    clock = RunClock(low)
    async with low.idle():
        now = await place.take("now", Priority.CRITICAL)
    place.turns._timeout_s = 0.0
    with pytest.raises(TimeLimit):
        await clock.boundary()
    place.turns._timeout_s = 30.0
    await place.turns.leave(now)
    with pytest.raises(TimeLimit):  # there is room again: but the place of the run that was passed over has no record
        await clock.boundary()
    await place.turns.leave(low)
    assert await place.free() == 64
