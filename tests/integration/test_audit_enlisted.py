"""Units of work that share the commit of what comes after them."""

import anyio
import pytest

from symbi.adapters.sqlite import SqliteStore
from symbi.audit.event import AuditEventType, Draft, parse_event
from symbi.audit.log import AuditLog
from symbi.audit.unit import TOLD_AT_ONCE
from symbi.audit.verify import verify_trail
from symbi.clock import IdSource
from symbi.errors import InputError, StoreUnavailable
from symbi.testing.clock import ManualClock
from symbi.testing.trail import fixed_signing_key
from symbi.types import AgentId

pytestmark = pytest.mark.anyio

KEY = fixed_signing_key()


def draft(number: int) -> Draft:
    return Draft(AuditEventType.RUN_STARTED, AgentId("a"), {"n": number})


def log_on(store: SqliteStore) -> AuditLog:
    clock = ManualClock()
    return AuditLog(store, KEY, clock, IdSource(clock))


def verify(store: SqliteStore) -> int:
    head = store.head()
    assert head is not None
    return verify_trail(store.read(1), head[1], {KEY.key_id: KEY.verifying_key()}).events


def counting(store, monkeypatch):
    """The number of events in each commit, as they come."""
    commits, append = [], store.append

    def note(commit):
        append(commit)
        commits.append(len(commit.events))

    monkeypatch.setattr(store, "append", note)
    return commits


async def test_what_is_enlisted_shares_the_commit_of_the_next_and_stands_before_it(tmp_path, monkeypatch):
    monkeypatch.setattr("symbi.audit.log.LINGER_S", 3600.0)  # however long the next takes to come
    with SqliteStore(tmp_path) as store:
        async with log_on(store) as log:
            commits = counting(store, monkeypatch)
            first = await log.enlist(lambda: (None, (draft(1),)))
            second = await log.enlist(lambda: (None, (draft(2),)))
            await log.append(draft(3))
            await first.durable()
            await second.durable()
            assert commits == [3]
        numbers = [parse_event(event.record).details.get("n") for event in store.read(2)]
        assert numbers == [1, 2, 3]
        assert verify(store) == 4


async def test_what_is_enlisted_is_durable_also_if_nobody_waits_for_it_or_the_log_is_closed(tmp_path, monkeypatch):
    with SqliteStore(tmp_path) as store:
        async with log_on(store) as log:
            commits = counting(store, monkeypatch)
            told = anyio.Event()
            log.on_commit(lambda _events: told.set())
            await log.enlist(lambda: (None, (draft(1),)))
            with anyio.fail_after(10):
                await told.wait()
            assert commits == [1]
            await log.enlist(lambda: (None, (draft(2),)))
        assert commits == [1, 1]
        assert verify(store) == 3


async def test_who_enlisted_what_could_not_be_committed_hears_of_it(tmp_path, monkeypatch):
    def failing():
        msg = "not today"
        raise InputError(msg)

    with SqliteStore(tmp_path) as store:
        async with log_on(store) as log:
            wrong = await log.enlist(failing)
            right = await log.enlist(lambda: (None, (draft(1),)))
            with pytest.raises(InputError, match="not today"):
                await wrong.durable()
            await right.durable()

            def full(*_):
                msg = "the disk is full"
                raise StoreUnavailable(msg)

            with monkeypatch.context() as patch:
                patch.setattr(store, "append", full)
                lost = await log.enlist(lambda: (None, (draft(2),)))
                for _ in range(2):  # however often it asks
                    with pytest.raises(StoreUnavailable, match="full"):
                        await lost.durable()
        assert verify(store) == 2


async def test_who_waits_for_one_commit_goes_on_a_few_at_a_time(tmp_path):
    """Each turn of the event loop lets on no more than a few, and all of them before long."""
    count, woken = 20 * TOLD_AT_ONCE, []

    async def append(log):
        await log.append(draft(1))
        woken.append(turns)

    with SqliteStore(tmp_path) as store:
        async with log_on(store) as log:
            turns = 0
            async with anyio.create_task_group() as tasks:
                for _ in range(count):
                    tasks.start_soon(append, log)
                while len(woken) < count:
                    await anyio.lowlevel.checkpoint()
                    turns += 1
    most = max(woken.count(turn) for turn in set(woken))
    assert most <= 2 * TOLD_AT_ONCE
    assert len(set(woken)) >= 10


async def test_who_waits_while_the_log_is_closed_is_told_all_the_same(tmp_path):
    done = []

    async def append(log):
        await log.append(draft(1))
        done.append(1)

    with SqliteStore(tmp_path) as store:
        async with anyio.create_task_group() as tasks, log_on(store) as log:
            for _ in range(5 * TOLD_AT_ONCE):
                tasks.start_soon(append, log)
            await anyio.lowlevel.checkpoint()
        assert len(done) == 5 * TOLD_AT_ONCE
        assert verify(store) == 5 * TOLD_AT_ONCE + 1
