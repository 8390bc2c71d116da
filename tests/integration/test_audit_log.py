"""The trail's writer on a real store: order, group commit, overload, time, damage, kill -9."""

import signal
import subprocess
import sys
import textwrap

import anyio
import pytest

from symbi.adapters.sqlite import SqliteReader, SqliteStore
from symbi.audit.event import AuditEventType, Draft, parse_event
from symbi.audit.log import AuditLog
from symbi.audit.verify import verify_trail
from symbi.clock import IdSource
from symbi.errors import ChainBroken, InputError, Overloaded, StoreUnavailable
from symbi.testing.clock import ManualClock
from symbi.testing.trail import fixed_signing_key
from symbi.types import AgentId

pytestmark = pytest.mark.anyio

KEY = fixed_signing_key()
KEYS = {KEY.key_id: KEY.verifying_key()}


def draft(number: int) -> Draft:
    return Draft(AuditEventType.RUN_STARTED, AgentId("a"), {"n": number})


def log_on(store: SqliteStore, clock: ManualClock | None = None, **more: int) -> AuditLog:
    clock = clock or ManualClock()
    return AuditLog(store, KEY, clock, IdSource(clock), **more)


def verify(store: SqliteStore) -> int:
    head = store.head()
    assert head is not None
    return verify_trail(store.read(1), head[1], KEYS).events


async def test_a_new_trail_begins_with_the_public_key_and_an_old_one_is_taken_up(tmp_path):
    with SqliteStore(tmp_path) as store:
        async with log_on(store) as log:
            receipt = await log.append(draft(1))
            assert receipt.sequence == 2
    with SqliteStore(tmp_path) as store:
        async with log_on(store) as log:
            assert (await log.append(draft(2))).sequence == 3
        assert verify(store) == 3
        assert parse_event(next(store.read(1)).record).event_type == AuditEventType.TRAIL_STARTED


async def test_many_appenders_share_commits_and_the_chain_verifies(tmp_path):
    commits = 0

    class Counting(SqliteStore):
        def append(self, commit):
            nonlocal commits
            commits += 1
            super().append(commit)

    with Counting(tmp_path) as store:
        async with log_on(store) as log, anyio.create_task_group() as tasks:
            for number in range(400):
                tasks.start_soon(log.append, draft(number))
        assert verify(store) == 401
        assert commits < 100  # each commit took what had arrived during the last one


async def test_a_unit_of_work_that_raises_leaves_nothing_and_harms_no_other(tmp_path):
    def failing():
        msg = "not today"
        raise InputError(msg)

    with SqliteStore(tmp_path) as store:
        async with log_on(store) as log:

            async def fails():
                with pytest.raises(InputError, match="not today"):
                    await log.transact(failing)

            async with anyio.create_task_group() as tasks:
                for number in range(20):
                    tasks.start_soon(log.append, draft(number))
                    tasks.start_soon(fails)
        assert verify(store) == 21


async def test_details_that_have_no_canonical_form_are_refused_and_leave_no_gap(tmp_path):
    with SqliteStore(tmp_path) as store:
        async with log_on(store) as log:
            with pytest.raises(InputError):
                await log.append(Draft(AuditEventType.RUN_STARTED, AgentId("a"), {"n": float("nan")}))
            assert (await log.append(draft(1))).sequence == 2
        assert verify(store) == 2


async def test_what_waits_is_bounded(tmp_path):
    with SqliteStore(tmp_path) as store:
        async with log_on(store, max_pending=4) as log:
            overloads = 0

            async def append(number):
                nonlocal overloads
                try:
                    await log.append(draft(number))
                except Overloaded as overload:
                    overloads += overload.retry_after_s > 0

            async with anyio.create_task_group() as tasks:
                for number in range(50):
                    tasks.start_soon(append, number)
            assert overloads > 0
        assert verify(store) == 51 - overloads


async def test_times_never_go_back_whatever_the_clock_does(tmp_path):
    clock = ManualClock()
    with SqliteStore(tmp_path) as store:
        async with log_on(store, clock) as log:
            await log.append(draft(1))
            clock.set_ns(clock.now_ns() - 3_600_000_000_000)
            await log.append(draft(2))
        times = [parse_event(event.record).timestamp for event in store.read(1)]
        assert times == sorted(times)
        assert verify(store) == 3


async def test_a_failed_commit_fails_all_who_waited_and_the_chain_goes_on_after_it(tmp_path, monkeypatch):
    with SqliteStore(tmp_path) as store:
        async with log_on(store) as log:

            def full(*_):
                msg = "the disk is full"
                raise StoreUnavailable(msg)

            monkeypatch.setattr(store, "append", full)
            for number in range(3):
                with pytest.raises(StoreUnavailable):
                    await log.append(draft(number))
            monkeypatch.undo()
            assert (await log.append(draft(9))).sequence == 2
        assert verify(store) == 2


async def test_a_truncated_trail_is_not_taken_up(tmp_path):
    with SqliteStore(tmp_path) as store:
        async with log_on(store) as log:
            for number in range(3):
                await log.append(draft(number))
        store._db.execute("DELETE FROM events WHERE sequence = 4")
    with SqliteStore(tmp_path) as store, pytest.raises(ChainBroken):
        async with log_on(store):
            pytest.fail("a broken trail was taken up")


async def test_a_closed_log_refuses(tmp_path):
    with SqliteStore(tmp_path) as store:
        log = log_on(store)
        async with log:
            pass
        with pytest.raises(StoreUnavailable, match="closed"):
            await log.append(draft(1))


WRITER = textwrap.dedent(
    """
    import sys, anyio
    from pathlib import Path
    from symbi.adapters.sqlite import SqliteStore
    from symbi.audit.event import AuditEventType, Draft
    from symbi.audit.log import AuditLog
    from symbi.clock import IdSource, SystemClock
    from symbi.testing.trail import fixed_signing_key

    async def main():
        clock = SystemClock()
        with SqliteStore(Path(sys.argv[1])) as store:
            async with AuditLog(store, fixed_signing_key(), clock, IdSource(clock)) as log, anyio.create_task_group() as tasks:
                async def append(worker):
                    for number in range(100000):
                        receipt = await log.append(Draft(AuditEventType.RUN_STARTED, "a", {"worker": worker, "n": number}))
                        sys.stdout.write(f"{receipt.sequence} {receipt.chain_hash}\\n")
                        sys.stdout.flush()
                for worker in range(4):
                    tasks.start_soon(append, worker)

    anyio.run(main)
    """
)


@pytest.mark.parametrize("lines", [1, 7, 40, 200])
def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path, lines):
    for _ in range(2):
        child = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        acknowledged = [child.stdout.readline().split() for _ in range(lines)]
        child.send_signal(signal.SIGKILL)
        acknowledged += [line.split() for line in child.stdout.read().splitlines() if len(line.split()) == 2]
        child.wait(timeout=30)
        child.stdout.close()
        with SqliteReader(tmp_path) as reader:
            events = {event.sequence: event.chain_hash for event in reader.read(1)}
            verify_trail(reader.read(1), reader.head_record(), KEYS)
        for sequence, chain_hash in (pair for pair in acknowledged if len(pair[1]) == 64):
            assert events[int(sequence)] == chain_hash
