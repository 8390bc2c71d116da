"""What is enlisted with the trail's writer shares the next commit, and is durable with it or refused with it."""

from typing import Any

import anyio
import pytest

from symbi.adapters.sqlite import SqliteStore
from symbi.audit.event import AuditEventType, Draft, parse_event
from symbi.audit.log import AuditLog
from symbi.audit.verify import verify_trail
from symbi.clock import IdSource
from symbi.errors import InputError, StoreUnavailable
from symbi.testing.clock import ManualClock
from symbi.testing.trail import fixed_signing_key
from symbi.types import AgentId

pytestmark = pytest.mark.anyio

KEY = fixed_signing_key()
KEYS = {KEY.key_id: KEY.verifying_key()}


def draft(number: int) -> Draft:
    return Draft(AuditEventType.RUN_STARTED, AgentId("a"), {"n": number})


def log_on(store: SqliteStore, clock: ManualClock | None = None, **more: Any) -> AuditLog:
    clock = clock or ManualClock()
    return AuditLog(store, KEY, clock, IdSource(clock), **more)


def verify(store: SqliteStore) -> int:
    head = store.head()
    assert head is not None
    return verify_trail(store.read(1), head[1], KEYS).events


def counting(store, monkeypatch):
    """The number of events in each commit, as they come."""
    commits, append = [], store.append

    def note(commit):
        append(commit)
        commits.append(len(commit.events))

    monkeypatch.setattr(store, "append", note)
    return commits


async def test_what_is_enlisted_shares_the_commit_of_the_next_and_stands_before_it(tmp_path, monkeypatch):
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
