"""Subscribers of the trail: no gap, no repeat, nobody waits for them, and who is too slow is told where to go on."""

import anyio
import anyio.lowlevel
import pytest

from symbi.audit.event import AuditEventType, Draft
from symbi.audit.query import EventFilter
from symbi.audit.stream import STORED_PAGE, AuditStream
from symbi.config import load_settings
from symbi.errors import ChainBroken, Overloaded, Unavailable
from symbi.testing.log import open_log
from symbi.types import AgentId
from symbi.wiring import open_runtime
from symbi.wiring.stream import audit_stream

pytestmark = pytest.mark.anyio


def draft(number: int, agent: str = "a") -> Draft:
    return Draft(AuditEventType.RUN_STARTED, AgentId(agent), {"n": number})


async def append(opened, first: int, count: int) -> None:
    drafts = [draft(number, "ab"[number % 2]) for number in range(first, first + count)]
    await opened.log.transact(lambda: (None, drafts))


async def take(events, count: int) -> list[int]:
    found = []
    with anyio.fail_after(60):
        async for event in events:
            found.append(event.sequence)
            if len(found) == count:
                break
    return found


@pytest.fixture(params=["disk", "memory"])
async def opened(request, tmp_path):
    folder = tmp_path / "data" if request.param == "disk" else None
    async with open_log(folder) as trail, audit_stream(trail.log, trail.store, folder) as stream:
        yield trail, stream


async def test_what_is_stored_comes_first_and_what_comes_follows(opened):
    trail, stream = opened
    await append(trail, 2, 3 * STORED_PAGE)
    async with stream.subscribe() as events, anyio.create_task_group() as tasks:
        tasks.start_soon(append, trail, 2 + 3 * STORED_PAGE, 50)
        assert await take(events, 1 + 3 * STORED_PAGE + 50) == list(range(1, 3 * STORED_PAGE + 52))
        assert events.after == 3 * STORED_PAGE + 51


async def test_only_what_fits_comes_and_only_from_where_it_was_asked(opened):
    trail, stream = opened
    await append(trail, 2, 10)
    async with stream.subscribe(EventFilter(agent="b"), after=5) as events:
        assert await take(events, 3) == [7, 9, 11]
    async with stream.subscribe(EventFilter(agent="b"), after=None) as events, anyio.create_task_group() as tasks:
        tasks.start_soon(append, trail, 12, 4)
        assert await take(events, 2) == [13, 15]


async def test_many_subscribers_beside_many_writers_miss_and_repeat_nothing(opened):
    trail, stream = opened
    total = 600

    async def write(worker):
        for number in range(total // 4):
            await trail.log.append(draft(number, "ab"[worker % 2]))

    async def follow(after, found):
        async with stream.subscribe(after=after) as events:
            found += await take(events, total + 1 - after)

    seen = {after: [] for after in (0, 1, 77, 300)}
    async with anyio.create_task_group() as tasks:
        for worker in range(4):
            tasks.start_soon(write, worker)
        for after, found in seen.items():
            tasks.start_soon(follow, after, found)
    for after, found in seen.items():
        assert found == list(range(after + 1, total + 2))
    assert stream.subscribers == 0


@pytest.fixture
async def small(tmp_path):
    """A stream whose subscribers may have ten events waiting, and of whom there may be two."""
    async with open_log(tmp_path) as trail:
        whole = audit_stream(trail.log, trail.store, tmp_path)
        async with AuditStream(trail.log, whole._pages, max_subscribers=2, max_buffered=10) as stream:
            yield trail, stream


async def test_a_slow_reader_is_cut_with_the_place_to_go_on_and_can_go_on_there(small):
    trail, stream = small
    async with stream.subscribe() as events:
        walk = aiter(events)
        assert (await anext(walk)).sequence == 1
        with anyio.fail_after(60):
            waiting = anyio.Event()

            async def next_one():
                waiting.set()
                assert (await anext(walk)).sequence == 2

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(next_one)
                await waiting.wait()
                await append(trail, 2, 1)
        # It reads no more; the writer goes on all the same.
        for number in range(3, 33):
            await append(trail, number, 1)
        assert (await anext(walk)).sequence == 3
        await append(trail, 33, 1)  # there is room again, and it would leave a gap
        with pytest.raises(Overloaded) as cut:
            async for event in events:
                last = event.sequence
        assert cut.value.code == "unavailable.slow_reader"
        assert cut.value.fields["after"] == last == events.after == 12
        assert str(cut.value).endswith("go on after event 12")
    async with stream.subscribe(after=last) as events:
        assert await take(events, 33 - last) == list(range(13, 34))


@pytest.mark.parametrize("stored", [20, 2 * STORED_PAGE])
async def test_a_reader_that_is_still_at_what_is_stored_is_never_cut(small, stored):
    trail, stream = small
    await append(trail, 2, stored)
    async with stream.subscribe() as events:
        found = []
        with anyio.fail_after(60):
            async for event in events:
                found.append(event.sequence)
                if len(found) <= 15:
                    await append(trail, 1 + stored + len(found), 1)  # more than its buffer takes
                if len(found) == stored + 16:
                    break
    assert found == list(range(1, stored + 17))


async def test_a_commit_that_is_larger_than_the_buffer_arrives(small):
    trail, stream = small
    async with stream.subscribe(after=None) as events, anyio.create_task_group() as tasks:
        tasks.start_soon(append, trail, 2, 100)
        assert await take(events, 100) == list(range(2, 102))


async def test_there_are_only_so_many_subscribers(small):
    _, stream = small
    async with stream.subscribe(), stream.subscribe():
        with pytest.raises(Overloaded, match="2 readers follow the trail already"):
            async with stream.subscribe():
                pytest.fail("a third was let in")
    async with stream.subscribe():
        assert stream.subscribers == 1


async def test_subscriptions_end_with_the_stream_once_they_gave_what_they_hold(tmp_path):
    async with open_log(tmp_path) as trail:
        stream = audit_stream(trail.log, trail.store, tmp_path)
        async with stream:
            subscribing = stream.subscribe()
            events = await subscribing.__aenter__()
            walk = aiter(events)
            assert (await anext(walk)).sequence == 1
        with anyio.fail_after(60):
            assert [event.sequence async for event in walk] == []
        await subscribing.__aexit__(None, None, None)
        with pytest.raises(Unavailable, match="closed"):
            async with stream.subscribe():
                pytest.fail("a closed stream took a subscriber")


@pytest.mark.parametrize("stored", [0, 5])
async def test_the_place_to_go_on_is_after_what_was_looked_at_though_nothing_fits(opened, stored):
    trail, stream = opened
    await append(trail, 2, stored)
    async with stream.subscribe(EventFilter(agent="nobody")) as events, anyio.create_task_group() as tasks:
        tasks.start_soon(take, events, 1)
        for more in range(3):
            with anyio.fail_after(60):
                while events.after < 1 + stored + more:
                    await anyio.lowlevel.checkpoint()
            await append(trail, 2 + stored + more, 1)
        tasks.cancel_scope.cancel()


async def test_an_index_that_was_changed_is_told(tmp_path):
    async with open_log(tmp_path) as trail, audit_stream(trail.log, trail.store, tmp_path) as stream:
        await append(trail, 2, 4)
        trail.store._db.execute("UPDATE events SET agent_id = 'b' WHERE sequence = 2")
        async with stream.subscribe(EventFilter(agent="b")) as events:
            with pytest.raises(ChainBroken, match="event 2 is not what the store's index says"):
                await take(events, 2)


async def test_a_runtime_hands_its_events_on(workshop):
    settings = load_settings(workshop.folder / "symbi.toml", environ=workshop.environ)
    async with open_runtime(settings) as runtime:
        async with runtime.events.subscribe(EventFilter(types=(AuditEventType.RUNTIME_STARTED,))) as events:
            (sequence,) = await take(events, 1)
        assert events.after == sequence > 1
