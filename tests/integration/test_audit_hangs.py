"""A store that hangs: nobody waits for it longer than a commit may take."""

import threading
from typing import Any

import anyio
import pytest

from symbi.adapters.sqlite import SqliteStore
from symbi.audit import log as audit_log
from symbi.audit.event import AuditEventType, Draft
from symbi.audit.log import AuditLog, Cadence
from symbi.audit.verify import verify_trail
from symbi.clock import IdSource
from symbi.errors import StoreUnavailable
from symbi.testing.clock import ManualClock
from symbi.testing.trail import fixed_signing_key
from symbi.types import AgentId

pytestmark = pytest.mark.anyio

KEY = fixed_signing_key()


def draft(number: int) -> Draft:
    return Draft(AuditEventType.RUN_STARTED, AgentId("a"), {"n": number})


def log_on(store: SqliteStore, clock: ManualClock | None = None, **more: Any) -> AuditLog:
    clock = clock or ManualClock()
    return AuditLog(store, KEY, clock, IdSource(clock), **more)


def verify(store: SqliteStore) -> int:
    head = store.head()
    assert head is not None
    return verify_trail(store.read(1), head[1], {KEY.key_id: KEY.verifying_key()}).events


async def test_nobody_waits_longer_than_a_commit_may_take_and_what_comes_late_is_told_of(tmp_path, monkeypatch):
    stuck, told = threading.Event(), []

    class Stuck(SqliteStore):
        def append(self, commit):
            if b'"n":1' in commit.events[-1].record:
                stuck.wait(30)
            super().append(commit)

    monkeypatch.setattr(audit_log, "WATCH_INTERVAL_S", 0.01)
    with Stuck(tmp_path) as store:
        log = log_on(store)
        async with log:
            log.on_commit(lambda events: told.extend(event.sequence for event in events))
            refused = []
            monkeypatch.setattr(audit_log, "COMMIT_TIMEOUT_S", 0.05)

            async def append(number):
                try:
                    await log.append(draft(number))
                except StoreUnavailable as error:
                    refused.append((number, error.message))

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(append, 1)
                while not log._group:
                    await anyio.lowlevel.checkpoint()
                tasks.start_soon(append, 2)
            with anyio.fail_after(10):
                await append(3)  # also who comes while the commit still hangs
            assert sorted(refused) == [(number, "the store did not commit within 0.05 s") for number in (1, 2, 3)]
            monkeypatch.setattr(audit_log, "COMMIT_TIMEOUT_S", 60)
            stuck.set()
            assert (await log.append(draft(4))).sequence == 3  # after the late one, and without what never began
        assert told == [2, 3]
        assert verify(store) == 3


async def test_nobody_waits_for_a_checkpoint_that_hangs_either(tmp_path, monkeypatch):
    begun, stuck = threading.Event(), threading.Event()

    class Stuck(SqliteStore):
        def put_checkpoint(self, size, note):
            begun.set()
            stuck.wait(30)
            super().put_checkpoint(size, note)

    monkeypatch.setattr(audit_log, "WATCH_INTERVAL_S", 0.01)
    clock = ManualClock()
    with Stuck(tmp_path) as store:
        async with log_on(store, clock, cadence=Cadence(1000, 0.01)) as log:
            monkeypatch.setattr(audit_log, "COMMIT_TIMEOUT_S", 0.05)
            clock.advance(1)
            while not begun.is_set():
                await anyio.lowlevel.checkpoint()
            try:
                with anyio.fail_after(10), pytest.raises(StoreUnavailable, match="did not commit within"):
                    await log.append(draft(1))
            finally:
                monkeypatch.setattr(audit_log, "COMMIT_TIMEOUT_S", 60)
                stuck.set()
            assert (await log.append(draft(2))).sequence == 2
        assert verify(store) == 2
