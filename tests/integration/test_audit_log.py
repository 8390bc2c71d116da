"""The trail's writer on a real store: order, group commit, overload, time, damage, kill -9."""

import signal
import subprocess
import sys
import textwrap
import threading
from functools import partial
from typing import Any

import anyio
import pytest

from symbi.adapters.sqlite import SqliteReader, SqliteStore
from symbi.audit.checkpoint import parse_note, verify_note
from symbi.audit.event import AuditEventType, Draft, Signing, key_rotated, parse_event, signing_changed
from symbi.audit.log import AuditLog, Cadence
from symbi.audit.verify import verify_trail
from symbi.clock import IdSource, SystemClock
from symbi.crypto.merkle import Frontier, leaf_hash
from symbi.errors import ChainBroken, InputError, Overloaded, StoreUnavailable
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


async def test_who_waits_for_room_gets_it_before_others_and_also_while_the_log_is_closed(tmp_path):
    free, kinds = threading.Event(), []

    class Slow(SqliteStore):
        def append(self, commit):
            free.wait(30)
            super().append(commit)
            kinds.extend(parse_event(event.record).details.get("n") for event in commit.events)

    free.set()
    with Slow(tmp_path) as store:
        log, refused = log_on(store, max_pending=1), []

        async def append(number):
            try:
                await log.append(draft(number))
            except Overloaded:
                refused.append(number)

        async def let_go():
            while log._open:
                await anyio.lowlevel.checkpoint()
            free.set()

        async with anyio.create_task_group() as tasks, log:
            free.clear()
            tasks.start_soon(append, 1)
            while log._group is None or log._waiting:  # the first is being committed
                await anyio.lowlevel.checkpoint()
            tasks.start_soon(append, 2)
            await anyio.lowlevel.checkpoint()
            for number in (3, 4, 5):
                tasks.start_soon(partial(log.transact, partial(lambda n: (None, (draft(n),)), number), wait=True))
                await anyio.lowlevel.checkpoint()
            tasks.start_soon(append, 6)
            tasks.start_soon(let_go)
            await anyio.lowlevel.checkpoint()
        assert refused == [6]
        assert kinds == [None, 1, 2, 3, 4, 5]
        assert verify(store) == 6
        with pytest.raises(StoreUnavailable, match="closed"):
            await log.append(draft(7))


async def test_a_callback_that_raises_ends_the_log_and_what_was_acknowledged_stays(tmp_path):
    def broken(_events):
        msg = "broken"
        raise RuntimeError(msg)

    with SqliteStore(tmp_path) as store:
        with pytest.raises(BaseExceptionGroup) as caught:
            async with log_on(store) as log:
                log.on_commit(broken)
                await log.append(draft(1))
                await anyio.sleep_forever()
        assert [str(error) for error in caught.value.exceptions] == ["broken"]
        assert verify(store) == 2


async def test_a_caller_in_a_cancelled_scope_learns_what_became_of_its_event(tmp_path):
    with SqliteStore(tmp_path) as store:
        async with log_on(store) as log:
            with anyio.CancelScope() as scope:
                scope.cancel()
                receipt = await log.append(draft(1))
            assert receipt.sequence == 2
        assert verify(store) == 2


# --- checkpoints --------------------------------------------------------------------------------------------


def kept(store: SqliteStore) -> list[int]:
    for size, note in store.checkpoints(1):
        checkpoint = parse_note(note).checkpoint
        verify_note(parse_note(note), KEY.verifying_key())
        tree = Frontier()
        for event in store.read(1, size):
            tree.append(leaf_hash(event.record))
        assert (checkpoint.size, checkpoint.root) == (size, tree.root())
    return [size for size, _ in store.checkpoints(1)]


async def test_a_checkpoint_is_kept_after_so_many_events_and_at_the_end(tmp_path):
    with SqliteStore(tmp_path) as store:
        async with log_on(store, cadence=Cadence(events=3, interval_s=1e9)) as log:
            for number in range(7):
                await log.append(draft(number))
            assert kept(store) == [3, 6]
        assert kept(store) == [3, 6, 8]
        async with log_on(store, cadence=Cadence(events=3, interval_s=1e9)) as log:
            pass
        assert kept(store) == [3, 6, 8]  # nothing was added
        async with log_on(store, cadence=Cadence(events=3, interval_s=1e9)) as log:
            for number in range(3):
                await log.append(draft(number))
        assert kept(store) == [3, 6, 8, 11]


async def test_a_checkpoint_is_kept_after_so_long(tmp_path):
    clock = ManualClock()
    with SqliteStore(tmp_path) as store:
        async with log_on(store, clock, cadence=Cadence(events=1000, interval_s=60)) as log:
            await log.append(draft(1))
            clock.advance(59)
            await log.append(draft(2))
            assert kept(store) == []
            clock.advance(1)
            await log.append(draft(3))
            assert kept(store) == [4]
            clock.advance(59)
            await log.append(draft(4))
            assert kept(store) == [4]


async def test_a_checkpoint_is_kept_in_time_where_nothing_follows(tmp_path):
    with SqliteStore(tmp_path) as store:
        clock = SystemClock()
        log = AuditLog(store, KEY, clock, IdSource(clock), cadence=Cadence(events=1000, interval_s=0.01))
        async with log:
            sequence = (await log.append(draft(1))).sequence
            with anyio.fail_after(10):
                while sequence not in await log.read(lambda: kept(store)):
                    await anyio.lowlevel.checkpoint()


async def test_each_commit_is_told_of_once_in_order_and_only_once_durable(tmp_path):
    told: list[int] = []

    def tell(events):
        assert store.head()[0].sequence >= events[-1].sequence
        told.extend(event.sequence for event in events)

    with SqliteStore(tmp_path) as store:
        async with log_on(store) as log:
            end = log.on_commit(tell)
            async with anyio.create_task_group() as tasks:
                for number in range(50):
                    tasks.start_soon(log.append, draft(number))
            end()
            await log.append(draft(51))
    assert told == list(range(2, 52))


async def test_a_tree_that_does_not_give_the_heads_root_is_not_taken_up(tmp_path):
    with SqliteStore(tmp_path) as store:
        async with log_on(store) as log, anyio.create_task_group() as tasks:
            for number in range(600):
                tasks.start_soon(log.append, draft(number))
        assert store.tile(0, 1) is not None
        store._db.execute("UPDATE tiles SET hashes = zeroblob(8192) WHERE number = 1")
    with SqliteStore(tmp_path) as store, pytest.raises(ChainBroken, match="does not give the root"):
        async with log_on(store):
            pytest.fail("a broken trail was taken up")


@pytest.mark.parametrize("change", ["DELETE FROM tiles", "UPDATE events SET record = x'7b7d' WHERE sequence = 600"])
async def test_an_edge_that_was_changed_is_not_taken_up_and_a_lost_tile_is_made_up_for(tmp_path, change):
    with SqliteStore(tmp_path) as store:
        async with log_on(store) as log, anyio.create_task_group() as tasks:
            for number in range(600):
                tasks.start_soon(log.append, draft(number))
        store._db.execute(change)
    with SqliteStore(tmp_path) as store:
        if "tiles" in change:
            async with log_on(store) as log:
                assert log.sequence == 601
            return
        with pytest.raises(ChainBroken, match="does not give the root"):
            async with log_on(store):
                pytest.fail("a broken trail was taken up")


# --- what signs ---------------------------------------------------------------------------------------------


async def test_in_batch_mode_events_have_no_signature_and_a_change_is_an_event(tmp_path):
    modes = [Signing.EVENT, Signing.BATCH, Signing.BATCH, Signing.EVENT]
    with SqliteStore(tmp_path) as store:
        for mode in modes:
            async with log_on(store, signing=mode) as log:
                await log.append(draft(1))
            assert verify(store) == log.sequence
        events = [parse_event(event.record) for event in store.read(1)]
    assert [(event.event_type, bool(event.signature)) for event in events] == [
        ("trail.started", True),
        ("run.started", True),
        ("signing.changed", True),
        ("run.started", False),
        ("run.started", False),
        ("signing.changed", False),
        ("run.started", True),
    ]
    assert events[0].details["signing"] == "event"
    assert [event.details["signing"] for event in events if event.event_type == "signing.changed"] == ["batch", "event"]


@pytest.mark.parametrize("mode", Signing)
async def test_a_trail_is_handed_over_to_another_key_and_back_to_none(tmp_path, mode):
    keys = [KEY, fixed_signing_key(2), fixed_signing_key(3)]
    with SqliteStore(tmp_path) as store:
        async with log_on(store, signing=mode) as log:
            await log.append(draft(1))
            await log.rotate(keys[1])
            with pytest.raises(InputError, match="signs the trail already"):
                await log.rotate(keys[1])
            assert log.key is keys[1]
        assert verify(store) == 3  # by a head of the first key
        async with log_on(store, signing=mode, others=keys[1:]) as log:
            await log.append(draft(2))
            await log.rotate(keys[2])
            await log.rotate(keys[0])
            await log.append(draft(3))
        assert verify(store) == 7
        events = [parse_event(event.record) for event in store.read(1)]
        assert [event.key_id for event in events] == [keys[number].key_id for number in (0, 0, 0, 1, 1, 2, 0)]
        assert all(event.signature for event in events if event.event_type == "key.rotated")
    with SqliteStore(tmp_path) as store, pytest.raises(ChainBroken, match="not among the keys"):
        async with AuditLog(store, keys[1], ManualClock(), IdSource(ManualClock()), signing=mode):
            pytest.fail("a trail was continued without its key")


async def test_a_key_that_this_runtime_has_not_is_not_handed_over_to(tmp_path):
    with SqliteStore(tmp_path) as store:
        async with log_on(store) as log:
            with pytest.raises(InputError, match="cannot be handed over"):
                await log.append(key_rotated(fixed_signing_key(9).verifying_key(), Signing.EVENT))
            with pytest.raises(InputError, match="not another mode"):
                await log.append(signing_changed(Signing.EVENT))
            await log.append(draft(1))
        assert verify(store) == 2


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
