"""Segments: sealed into the storage, verified there, removed from the live store; and a storage that fails."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import anyio
import anyio.from_thread
import pytest

from symbi.adapters import audit_storage
from symbi.adapters.sqlite import SqliteReader
from symbi.audit.checkpoint import parse_note
from symbi.audit.event import AuditEventType, Draft, Signing
from symbi.audit.segments import segment_folder
from symbi.audit.verify import in_process
from symbi.cli.audit_archive import verify_archive
from symbi.errors import ChainBroken, StoreUnavailable, Unavailable
from symbi.telemetry import HealthState
from symbi.testing.clock import ManualClock
from symbi.testing.keeping import OTHER_KEY, RULES, open_kept, trusted
from symbi.testing.trail import fixed_signing_key
from symbi.types import AgentId
from symbi.wiring.keeping import verify_live, verify_segment

pytestmark = pytest.mark.anyio
DAY_S = 86_400.0


@pytest.fixture
def storage(tmp_path):
    folder = tmp_path / "storage"
    folder.mkdir()
    return folder


def folders(storage):
    return sorted(path.name for path in storage.glob("*/*"))


def kinds(kept):
    return [event.event_type for event in kept.events()]


# --- sealing --------------------------------------------------------------------------------------


async def test_full_segments_are_sealed_and_verify_there_alone(storage):
    async with open_kept(None, storage) as kept:
        await kept.append(700)
        await kept.keeper.open()
        segments = kept.store.segments()
        assert kept.keeper.status.failure == ""
        assert (await kept.keeper.check()).state is HealthState.HEALTHY
        assert segments[0].first == 1
        assert segments[-1].last >= 700
        assert all(after.first == before.last + 1 for before, after in pairwise(segments))
        for segment in segments:
            folder = kept.storage.path(segment.folder)
            report = verify_segment(trusted, folder)
            assert (report.first, report.last, report.chain_hash) == (segment.first, segment.last, segment.chain_hash)
            events = (folder / "events.jsonl").read_bytes()
            assert hashlib.sha256(events).hexdigest() == segment.digest
            assert events.count(b"\n") == segment.events
            assert (folder / "frontier.json").exists() is (segment.first > 1)
        said = [event for event in kept.events() if event.event_type == AuditEventType.SEGMENT_SEALED]
        assert [event.details["last"] for event in said] == [segment.last for segment in segments]


@pytest.mark.parametrize("signing", list(Signing))
async def test_segments_verify_alone_and_in_a_row_in_both_modes_and_across_a_rotation(tmp_path, storage, signing):
    async with open_kept(tmp_path / "data", storage, signing=signing) as kept:
        await kept.append(300)
        await kept.keeper.look()
        await kept.append(100)
        await kept.log.rotate(fixed_signing_key(OTHER_KEY))
        await kept.append(400)
        await kept.keeper.look()
        await kept.append(300)
        await kept.keeper.look()
        assert kept.keeper.status.failure == ""
        kept.clock.advance(40 * DAY_S)
        await kept.keeper.look()
        segments = kept.store.segments()
        assert len(segments) == 3
        assert [bool(one.removed_at) for one in segments] == [True, True, False]
    folders = [kept.storage.path(one.folder) for one in segments]
    for folder in folders:
        verify_segment(trusted, folder)
        verifier = Path(__file__).parents[2] / "tools/verify_audit.py"
        await anyio.run_process((sys.executable, str(verifier), str(folder)))  # raises unless it says that all holds
    whole = verify_archive(folders, trusted(), run=in_process, track=iter)
    assert (whole.events, len(whole.key_ids)) == (segments[-1].last, 2)
    old = fixed_signing_key().verifying_key()
    assert verify_archive(folders, {old.key_id: old}, run=in_process, track=iter).events == whole.events
    with pytest.raises(ChainBroken):  # the new key alone is trusted by nobody at the beginning
        new = fixed_signing_key(OTHER_KEY).verifying_key()
        verify_archive(folders, {new.key_id: new}, run=in_process, track=iter)
    with SqliteReader(tmp_path / "data") as reader:
        assert verify_live(reader, trusted()).first == segments[1].last + 1


async def test_what_is_not_full_stays_open_until_its_interval_is_over(storage):
    async with open_kept(None, storage) as kept:
        await kept.append(10)
        await kept.keeper.open()
        assert kept.store.segments() == []
        kept.clock.advance(3600)
        await kept.keeper.look()
        assert [(one.first, one.last) for one in kept.store.segments()] == [(1, 11)]


async def test_keeping_alone_closes_no_segment(storage):
    async with open_kept(None, storage) as kept:
        await kept.append(10)
        await kept.keeper.open()
        for _ in range(20):
            kept.clock.advance(3600)
            await kept.keeper.look()
        assert len(kept.store.segments()) == 1
        await kept.append(1)
        kept.clock.advance(3600)
        await kept.keeper.look()
        assert len(kept.store.segments()) == 2


async def test_a_commit_wakes_the_keeper_when_a_segment_is_full(storage):
    async with open_kept(None, storage) as kept:
        await kept.keeper.open()
        kept.log.on_commit(kept.keeper.committed)
        await kept.append(254)
        assert not kept.keeper._wake.is_set()
        await kept.append(1)
        assert kept.keeper._wake.is_set()


# --- a storage that fails ---------------------------------------------------------------------------


async def test_a_storage_that_fails_is_tried_again_and_waited_for_longer_each_time(storage, caplog):
    async with open_kept(None, storage / "absent") as kept:
        await kept.append(300)
        waits = []
        for _ in range(12):
            await kept.keeper.look()
            waits.append(kept.keeper._next_s - kept.clock.monotonic_s())
            kept.clock.advance(waits[-1])
        assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]
        assert kept.keeper.status.waiting == 1
        assert "absent" in kept.keeper.status.failure
        assert [record.levelname for record in caplog.records] == ["ERROR"]  # told once
        (storage / "absent").mkdir()
        await kept.keeper.look()
        assert kept.keeper.status.failure == ""
        assert len(kept.store.segments()) == 1


async def test_it_is_left_alone_until_its_time(storage):
    async with open_kept(None, storage / "absent") as kept:
        await kept.append(300)
        await kept.keeper.look()
        (storage / "absent").mkdir()
        await kept.keeper.look()
        assert kept.store.segments() == []
        kept.clock.advance(1)
        await kept.keeper.look()
        assert len(kept.store.segments()) == 1


async def test_a_storage_that_is_full_in_the_middle_leaves_nothing_with_a_name(storage, monkeypatch):
    async with open_kept(None, storage) as kept:
        await kept.append(300)

        def full(_descriptor):
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", full)
            with pytest.raises(Unavailable, match="No space left"):
                kept.storage.put("t/000000000001-000000000002", [b"x"], {})
        assert folders(storage) in ([], [".000000000001-000000000002.partial"])


async def test_a_keeper_that_is_cancelled_in_the_middle_leaves_nothing_with_a_name(storage):
    scope = anyio.CancelScope()

    def probe(point):
        if point == "writing" and not scope.cancel_called:
            anyio.from_thread.run_sync(scope.cancel)

    async with open_kept(None, storage, probe=probe) as kept:
        await kept.append(5000)
        with scope:
            await kept.keeper.look()
        assert scope.cancelled_caught
        assert kept.store.segments() == []
        for name in folders(storage):
            if not name.startswith("."):
                verify_segment(trusted, next(storage.glob(f"*/{name}")))
        await kept.keeper.look()
        assert kept.keeper.status.failure == ""
        verify_archive(
            [kept.storage.path(one.folder) for one in kept.store.segments()], trusted(), run=in_process, track=iter
        )


async def test_a_segment_that_was_noted_too_late_to_be_heard_of_is_not_noted_again(storage, monkeypatch):
    async with open_kept(None, storage) as kept:
        await kept.append(300)
        transact = kept.log.transact

        async def late(work, *, wait=False):
            found = await transact(work, wait=wait)
            if kept.store.segments():
                monkeypatch.undo()
                msg = "the store did not commit within 60 s"
                raise StoreUnavailable(msg)
            return found

        monkeypatch.setattr(kept.log, "transact", late)
        await kept.keeper.look()
        assert kept.keeper.status.failure
        kept.clock.advance(60)
        await kept.append(300)
        await kept.keeper.look()
        assert kept.keeper.status.failure == ""
        segments = kept.store.segments()
        assert [one.first for one in segments] == [1, segments[0].last + 1]


async def test_a_segment_whose_time_is_over_waits_for_a_required_storage_like_a_full_one(tmp_path):
    storage = tmp_path / "absent"
    async with open_kept(None, storage, rules=replace(RULES, required=True, max_waiting=0)) as kept:
        await kept.append(10)
        await kept.keeper.open()
        kept.keeper.barrier()
        kept.clock.advance(3600)
        await kept.keeper.look()
        with pytest.raises(StoreUnavailable, match="1 segments of the trail wait"):
            kept.keeper.barrier()
        storage.mkdir()
        kept.clock.advance(60)
        await kept.keeper.look()
        kept.keeper.barrier()
        assert (kept.keeper.status.waiting, kept.keeper.status.failure) == (0, "")


async def test_effects_stop_only_where_the_storage_is_required_and_too_far_behind(storage):
    rules = replace(RULES, required=True, max_waiting=1)
    for required in (True, False):
        async with open_kept(None, storage / "absent", rules=replace(rules, required=required)) as kept:
            await kept.append(400)
            assert (await kept.keeper.check()).state is HealthState.DEGRADED
            await kept.keeper.open()
            kept.keeper.barrier()
            await kept.append(200)
            assert (await kept.keeper.check()).state is (HealthState.UNHEALTHY if required else HealthState.DEGRADED)
            if required:
                with pytest.raises(StoreUnavailable, match="2 segments of the trail wait") as refused:
                    kept.keeper.barrier()
                assert "absent" in refused.value.hint
            else:
                kept.keeper.barrier()


@pytest.mark.parametrize("what", ["another trail", "half a segment"])
async def test_a_folder_that_holds_something_else_is_neither_trusted_nor_written_over(tmp_path, storage, what):
    other = tmp_path / "other"
    other.mkdir()
    async with open_kept(None, other) as kept:  # of the same key, and as long
        await kept.append(300)
        await kept.keeper.look()
        there = kept.storage.path(kept.store.segments()[0].folder)
    async with open_kept(None, storage) as kept:
        await kept.append(300)
        origin = parse_note(kept.store.head()[1]).checkpoint.origin
        place = kept.storage.path(segment_folder(origin, 1, 301))
        shutil.copytree(there, place)
        if what == "half a segment":
            data = (place / "events.jsonl").read_bytes()
            (place / "events.jsonl").write_bytes(data[: len(data) // 2])
        before = (place / "events.jsonl").read_bytes()
        await kept.keeper.look()
        assert kept.store.segments() == []
        assert kept.keeper.status.failure
        assert (place / "events.jsonl").read_bytes() == before


@pytest.fixture
def disk():
    """A disk of its own, outside of the folder that pytest tidies up by itself."""
    place = Path(tempfile.mkdtemp(prefix="symbi-storage-"))
    command = [shutil.which("mount") or "", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)]
    if not command[0] or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("only root may mount a disk; the tests before this one have the same failures by another way")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)
    place.rmdir()


async def test_a_real_disk_that_is_full_or_read_only_takes_segments_once_it_can(disk):
    async with open_kept(None, disk) as kept:
        await kept.append(1000)
        for option, said in (("size=256k", "No space left"), ("ro,size=30m", "Read-only"), ("rw,size=30m", "")):
            await anyio.run_process(["mount", "-o", f"remount,{option}", str(disk)])
            kept.clock.advance(400)
            await kept.keeper.look()
            assert said in kept.keeper.status.failure
            assert (kept.store.segments() == []) is bool(said)
            await kept.append(1)
        assert kept.keeper.status.failure == ""
        for segment in kept.store.segments():
            verify_segment(trusted, kept.storage.path(segment.folder))


# --- removing -----------------------------------------------------------------------------------------


async def test_old_segments_leave_whole_and_the_rest_goes_on(tmp_path, storage):
    async with open_kept(tmp_path / "data", storage) as kept:
        await kept.append(700)
        await kept.keeper.open()
        sealed = kept.store.segments()
        kept.clock.advance(29 * DAY_S)
        await kept.keeper.look()
        assert kept.events()[0].sequence == 1
        kept.clock.advance(1 * DAY_S)
        await kept.append(300)
        await kept.keeper.look()
        gone = [one for one in kept.store.segments() if one.removed_at]
        assert [one.first for one in gone] == [one.first for one in sealed]
        assert kept.events()[0].sequence == gone[-1].last + 1
        assert kinds(kept).count(AuditEventType.SEGMENT_REMOVED) == len(gone)
        for one in gone:
            verify_segment(trusted, kept.storage.path(one.folder))
        await kept.append(10)
    async with open_kept(tmp_path / "data", storage, clock=kept.clock) as again:  # the trail is taken up where it ends
        await again.append(300)
        await again.keeper.open()
        assert again.keeper.status.failure == ""


async def test_an_event_that_must_stay_keeps_its_segment(storage):
    async with open_kept(None, storage) as kept:
        await kept.log.append(Draft(AuditEventType.DECISION_ALLOW, AgentId("a"), {"retention_days": 90}))
        await kept.append(700)
        await kept.keeper.open()
        for days, first in ((89, 1), (1, None)):
            kept.clock.advance(days * DAY_S)
            await kept.append(300)
            await kept.keeper.look()
            here = kept.events()[0].sequence
            assert here == 1 if first else here > 1


async def test_a_copy_that_was_altered_keeps_the_original(storage):
    async with open_kept(None, storage) as kept:
        await kept.append(700)
        await kept.keeper.open()
        events = kept.storage.path(kept.store.segments()[0].folder) / "events.jsonl"
        data = bytearray(events.read_bytes())
        data[1000] ^= 1
        events.chmod(0o600)
        events.write_bytes(data)
        kept.clock.advance(60 * DAY_S)
        await kept.append(300)
        await kept.keeper.look()
        assert kept.keeper.status.failure
        assert kept.events()[0].sequence == 1


async def test_a_copy_that_is_not_the_one_that_was_sealed_keeps_the_original(storage):
    async with open_kept(None, storage) as kept:
        await kept.append(700)
        await kept.keeper.open()
        kept.store._db.execute("UPDATE segments SET digest = ?", ("00" * 32,))
        kept.clock.advance(60 * DAY_S)
        await kept.append(300)
        await kept.keeper.look()
        assert "not the copy that was sealed" in kept.keeper.status.failure
        assert kept.events()[0].sequence == 1


async def test_a_copy_that_is_gone_keeps_the_original(storage):
    async with open_kept(None, storage) as kept:
        await kept.append(700)
        await kept.keeper.open()
        place = kept.storage.path(kept.store.segments()[0].folder)
        place.rename(place.with_name("elsewhere"))
        kept.clock.advance(60 * DAY_S)
        await kept.append(300)
        await kept.keeper.look()
        assert kept.keeper.status.failure
        assert kept.events()[0].sequence == 1


async def test_a_name_that_a_killed_process_gave_is_flushed_before_the_segment_counts_as_sealed(storage, monkeypatch):
    def killed(point):
        if point == "renamed":
            raise Unavailable(point)  # before the folder is flushed

    flushed = []
    async with open_kept(None, storage, probe=killed) as kept:
        await kept.append(300)
        await kept.keeper.open()
        assert kept.store.segments() == []
        monkeypatch.setattr(audit_storage, "_flush_folder", flushed.append)
        kept.clock.advance(60)
        await kept.keeper.look()
        place = kept.storage.path(kept.store.segments()[0].folder)
        assert flushed == [place.parent, storage]


# --- kill -9 ---------------------------------------------------------------------------------------------

POINTS = ["closed", "writing", "written", "renamed", "stored", "verified", "sealed", "removing", "removed"]


@pytest.fixture(scope="module")
def crashed(tmp_path_factory):
    """A folder for each point at which a process was killed, and how many events it had acknowledged."""
    folder = tmp_path_factory.mktemp("crashed")
    script = Path(__file__).parents[1] / "data/crash_keep.py"
    done = subprocess.run(
        (sys.executable, str(script), str(folder), *POINTS), check=True, capture_output=True, text=True
    )
    rows = [line.split() for line in done.stdout.splitlines()]
    assert [(name, int(by)) for name, by, _ in rows] == [(name, signal.SIGKILL) for name in POINTS]
    return {name: (folder / name, int(count)) for name, _, count in rows}


@pytest.mark.parametrize("point", POINTS)
async def test_kill_9_at_any_step_leaves_nothing_half_and_the_next_start_goes_on(crashed, point):
    folder, written = crashed[point]
    storage, clock = folder / "storage", ManualClock()
    clock.advance(61 * DAY_S)
    for name in folders(storage):  # what has a name is whole
        if not name.startswith("."):
            verify_segment(trusted, next(storage.glob(f"*/{name}")))
    async with open_kept(folder / "data", storage, clock=clock) as kept:
        assert kept.log.sequence >= written
        await kept.append(600)
        await kept.keeper.open()
        assert kept.keeper.status.failure == ""
        segments = kept.store.segments()
        assert segments[-1].last >= written
        whole = b"".join((kept.storage.path(one.folder) / "events.jsonl").read_bytes() for one in segments)
        assert [one.first for one in segments] == [1, *(one.last + 1 for one in segments[:-1])]
        assert whole.count(b"\n") == segments[-1].last
        assert kept.events()[0].sequence == max((one.last for one in segments if one.removed_at), default=0) + 1
        assert [name for name in folders(storage) if name.startswith(".")] == []
        for one in segments:
            verify_segment(trusted, kept.storage.path(one.folder))
