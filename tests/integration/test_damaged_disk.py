"""A store whose file was damaged, torn, lost, exchanged or made read-only: named, never guessed at, never begun anew."""

import contextlib
import json
import os
import pwd
import shutil
import tempfile
from pathlib import Path

import anyio
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from symbi.adapters.sqlite import SqliteReader, SqliteStore, check_store
from symbi.adapters.sqlite.mark import MARK_NAME
from symbi.audit.event import AuditEventType, Draft, parse_event
from symbi.audit.log import AuditLog
from symbi.audit.query import EventFilter, judged
from symbi.audit.verify import verify_trail
from symbi.clock import IdSource, SystemClock
from symbi.errors import ChainBroken, StoreUnavailable
from symbi.testing.clock import ManualClock
from symbi.testing.log import open_log
from symbi.testing.trail import fixed_signing_key, sample_draft
from symbi.types import AgentId

INPUT, VERIFICATION, UNAVAILABLE = 2, 4, 5
PAGE = 4096
KEY = fixed_signing_key()
KEYS = {KEY.key_id: KEY.verifying_key()}
READERS = (
    ("audit", "verify"), ("audit", "show", "--json"), ("audit", "show", "--verdict", "deny"), ("tools", "list"),
    ("approvals", "list"), ("doctor",),
)  # fmt: skip

damages = st.lists(
    st.tuples(
        st.integers(0, 10_000),  # the page, counted round
        st.integers(0, PAGE - 1) | st.integers(0, 12),  # where in it; its head counts most
        st.sampled_from(["bit", "byte", "rest", "page"]),
        st.integers(0, 255),
    ),
    min_size=1,
    max_size=8,
)


def damage(data: bytes, where) -> bytes:
    done = bytearray(data)
    for page, offset, how, value in where:
        at = (page % (len(data) // PAGE)) * PAGE
        if how == "bit":
            done[at + offset] ^= 1 << value % 8
        elif how == "byte":
            done[at + offset] = value
        elif how == "rest":
            done[at + offset : at + PAGE] = bytes((value,)) * (PAGE - offset)
        else:
            done[at : at + PAGE] = bytes((value,)) * PAGE
    return bytes(done)


def put(folder: Path, data: bytes) -> None:
    for name in ("symbi.db-wal", "symbi.db-shm"):
        (folder / name).unlink(missing_ok=True)
    (folder / "symbi.db").write_bytes(data)


def named(said) -> None:
    """A command on a damaged store ends well, or says what is wrong and what to do."""
    assert said.code in {0, VERIFICATION, UNAVAILABLE}, said
    assert "Traceback" not in said.stdout + said.stderr
    if said.code and said.stderr:
        assert "error: " in said.stderr, said  # a run that had begun says first what it enforces
        assert "hint: " in said.stderr or said.code == VERIFICATION, said


def test_no_damage_of_any_page_ends_in_anything_but_a_name_or_a_trail_that_verifies(workshop):
    workshop.works()
    folder = workshop.folder / ".symbi"
    good, trail = (folder / "symbi.db").read_bytes(), workshop.trail()

    @settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow], deadline=None)
    @given(damages)
    def holds(where):
        put(folder, damage(good, where))
        for arguments in READERS:
            said = workshop.inside(*arguments)
            named(said)
            if arguments[1:] == ("verify",) and said.code == 0:
                assert workshop.trail() == trail

    holds()


def test_a_run_on_a_damaged_store_ends_well_or_has_no_effect(workshop):
    """What the run does not touch may be damaged without stopping it; then its trail verifies, or says where it does not."""
    workshop.works()
    folder, kept = workshop.folder / ".symbi", workshop.folder / "kept"
    shutil.copytree(folder, kept)
    good, first = (folder / "symbi.db").read_bytes(), workshop.trail()[0]

    # A run takes a second or two; a case that fails is shown as it was found.
    @settings(max_examples=6, suppress_health_check=[HealthCheck.too_slow], deadline=None, phases=[Phase.generate])
    @given(damages)
    def holds(where):
        shutil.rmtree(folder)
        shutil.copytree(kept, folder)
        put(folder, damage(good, where))
        before = len(workshop.sent())
        said = workshop.run_inside()
        named(said)
        named(workshop.inside("audit", "verify"))
        done = len(workshop.sent()) - before
        assert done <= 1
        if workshop.inside("audit", "verify").code == 0:
            trail = workshop.trail()
            assert trail[0] == first  # never a new one
            allowed = [
                e for e in trail if e.event_type == "decision.allow" and e.details["resource"] == "Tool::desk.send"
            ]
            assert len(allowed) == 1 + done

    holds()


async def torn(folder: Path) -> tuple[bytes, bytes, list[bytes]]:
    """File and log of a store whose owner was cut off, and the records that were durable then."""
    async with open_log(folder, clock=ManualClock()) as opened:
        for number in range(40):
            await opened.log.append(sample_draft(number))
        records = [stored.record for stored in opened.store.read(1)]
        return (folder / "symbi.db").read_bytes(), (folder / "symbi.db-wal").read_bytes(), records


async def go_on(folder: Path) -> int:
    clock = SystemClock()
    with SqliteStore(folder) as store:
        async with AuditLog(store, KEY, clock, IdSource(clock)) as log:
            return (await log.append(Draft(AuditEventType.RUN_STARTED, AgentId("a"), {}))).sequence


def test_a_torn_log_of_changes_leaves_a_beginning_of_the_trail_or_is_named(tmp_path):
    database, changes, records = anyio.run(torn, tmp_path / "whole")
    assert len(changes) > 20 * PAGE
    count = 0

    @settings(max_examples=40, deadline=None)
    @given(st.integers(0, len(changes)), st.none() | st.integers(0, len(changes) - 1))
    def holds(length, flipped):
        nonlocal count
        count += 1
        folder = tmp_path / str(count)
        folder.mkdir()
        left = bytearray(changes[:length])
        if flipped is not None and flipped < length:
            left[flipped] ^= 0x40
        (folder / "symbi.db").write_bytes(database)
        (folder / "symbi.db-wal").write_bytes(left)
        with contextlib.suppress(StoreUnavailable, ChainBroken):  # which say what is wrong
            with SqliteReader(folder) as reader:
                events = list(reader.read(1))
                assert [stored.record for stored in events] == records[: len(events)]
                if events:
                    verify_trail(events, reader.head_record(), KEYS)
            assert anyio.run(go_on, folder) == max(len(events), 1) + 1
            with SqliteReader(folder) as reader:
                verify_trail(reader.read(1), reader.head_record(), KEYS)
        shutil.rmtree(folder)

    holds()


# --- a store that is gone ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["removed", "emptied", "made anew"])
def test_a_store_that_was_lost_is_not_begun_anew(workshop, how):
    workshop.works()
    data = workshop.folder / ".symbi"
    kept = (data / "symbi.db").read_bytes()
    sent = workshop.sent()
    (data / "symbi.db").unlink()
    if how == "emptied":
        (data / "symbi.db").touch(mode=0o600)
    elif how == "made anew":
        with SqliteStore(workshop.folder / "other"):
            pass
        shutil.copy(workshop.folder / "other" / "symbi.db", data / "symbi.db")
    workshop.run_inside().error(UNAVAILABLE, "unavailable.store_lost", "restore it from a copy")
    assert workshop.sent() == sent
    if how != "made anew":
        workshop.inside("audit", "show").error(UNAVAILABLE, "unavailable.store_lost")
        assert not (data / "symbi.db").exists() or not (data / "symbi.db").stat().st_size
        report = json.loads(workshop.inside("doctor", "--json").stdout)
        (store,) = [finding for finding in report if finding["name"] == "audit store"]
        assert (store["ok"], store["required"], "restore it" in store["hint"]) == (False, True, True)
    put(data, kept)
    assert workshop.run_inside().code == 0
    assert len(workshop.sent()) == len(sent) + 1


def test_the_store_of_another_trail_is_not_taken_for_ours(workshop, tmp_path):
    workshop.works()
    data = workshop.folder / ".symbi"
    anyio.run(torn, tmp_path / "other")
    put(data, (tmp_path / "other" / "symbi.db").read_bytes())
    workshop.run_inside().error(UNAVAILABLE, "unavailable.store_lost", "the folder was that of")


def test_a_folder_without_a_mark_is_given_one_and_a_damaged_mark_is_named(workshop):
    workshop.works()
    mark = workshop.folder / ".symbi" / MARK_NAME
    origin = mark.read_bytes()
    assert origin == f"symbi.trail/{workshop.trail()[0].event_id}\n".encode()
    assert mark.stat().st_mode & 0o777 == 0o600
    mark.unlink()
    assert workshop.run_inside().code == 0
    assert mark.read_bytes() == origin
    mark.write_bytes(b"\xff" * 1000)
    workshop.run_inside().error(UNAVAILABLE, "does not name a trail")


def test_a_first_commit_that_fails_leaves_no_mark(tmp_path, monkeypatch):
    with SqliteStore(tmp_path) as store:
        with monkeypatch.context() as patch:
            patch.setattr(store, "append", _full(store))
            with pytest.raises(StoreUnavailable):
                anyio.run(_begin, store)
        with store.transaction():
            pass
        assert not (tmp_path / MARK_NAME).exists()
        anyio.run(_begin, store)
        assert (tmp_path / MARK_NAME).exists()


def _full(store):
    append = store.append

    def failing(commit):
        append(commit)
        msg = "the disk is full"
        raise StoreUnavailable(msg)

    return failing


async def _begin(store) -> None:
    clock = ManualClock()
    async with AuditLog(store, KEY, clock, IdSource(clock)):
        pass


# --- what can still be read ---------------------------------------------------------------------------------------------------


def test_a_page_that_cannot_be_read_hides_only_its_own_events_and_doctor_says_which(tmp_path):
    anyio.run(torn, tmp_path)
    data = (tmp_path / "symbi.db").read_bytes()
    with SqliteReader(tmp_path) as reader:
        page = _page_of(data, next(reader.read(20, 20)).record)
    put(tmp_path, data[: page * PAGE] + bytes(PAGE) + data[(page + 1) * PAGE :])
    health = check_store(tmp_path, SystemClock())
    assert not health.ok
    assert "audit verify" in health.hint
    with SqliteReader(tmp_path) as reader:
        before = [stored.sequence for stored in _until_damage(reader)]
        last = before[-1]
        assert last < 20
        assert f"events 1 to {last}, " in health.detail
        assert health.detail.endswith("to 41 can be read, of 41")
        assert [stored.sequence for stored in reader.select(EventFilter(first=35))] == list(range(35, 42))


def _page_of(data: bytes, record: bytes) -> int:
    return data.index(record[:200]) // PAGE


def _until_damage(reader):
    for sequence in range(1, 42):
        try:
            yield from reader.select(EventFilter(first=sequence, last=sequence))
        except StoreUnavailable:
            return


def test_an_index_that_lies_is_found_by_whoever_reads_by_it_and_by_doctor(tmp_path):
    anyio.run(torn, tmp_path)
    assert check_store(tmp_path, SystemClock()).detail == "41 events, sound"
    with SqliteStore(tmp_path) as store, store.transaction():
        store._db.execute("DELETE FROM event_policies WHERE sequence = 9")
    assert "event 9" in check_store(tmp_path, SystemClock()).detail
    with SqliteStore(tmp_path) as store, store.transaction():
        store._db.execute("UPDATE events SET verdict = 'deny' WHERE sequence = 7")
    assert "does not say of event 9" in check_store(tmp_path, SystemClock()).detail
    with SqliteReader(tmp_path) as reader:
        wanted = EventFilter(verdict="deny")
        with pytest.raises(ChainBroken, match="event 7 is not what the store's index says"):
            list(judged(wanted, reader.select(wanted)))
        assert len([parse_event(stored.record) for stored in reader.read(1)]) == 41


def test_looking_at_a_store_ends_in_time(tmp_path):
    anyio.run(torn, tmp_path)
    clock = ManualClock()

    class Running:
        def monotonic_s(self) -> float:
            clock.advance(30)
            return clock.monotonic_s()

        def now_ns(self) -> int:
            return clock.now_ns()

    from symbi.adapters.sqlite import health  # noqa: PLC0415 - beside its one use

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(health, "STEPS_BETWEEN_LOOKS", 1)
        found = check_store(tmp_path, Running())
    assert found.ok
    assert found.detail.endswith("not all of it was looked at in the time there is")


# --- a folder that takes no writing -------------------------------------------------------------------------------------------


@contextlib.contextmanager
def as_nobody():
    """As another user, for permissions do not bind root."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    nobody = pwd.getpwnam("nobody")
    os.setegid(nobody.pw_gid)
    os.seteuid(nobody.pw_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


def test_a_folder_that_may_only_be_read_can_be_read_and_takes_no_owner():
    with tempfile.TemporaryDirectory(prefix="symbi-disk-") as place:
        folder = Path(place) / "data"
        anyio.run(torn, folder)
        with SqliteReader(folder) as reader:
            records = [stored.record for stored in reader.read(1)]
        for path in (Path(place), folder, *folder.iterdir()):
            path.chmod(0o555 if path.is_dir() else 0o444)
        with as_nobody():
            with pytest.raises(StoreUnavailable, match="Permission denied"), SqliteStore(folder):
                pytest.fail("a folder that takes no writing has an owner")
            with SqliteReader(folder) as reader:
                assert [stored.record for stored in reader.select(EventFilter(agent="triage"))] == records[1:]
            assert check_store(folder, SystemClock()).detail == "41 events, sound"
            folder_of_others = folder / "keys"
            with pytest.raises(StoreUnavailable, match="Permission denied"), SqliteStore(folder_of_others):
                pytest.fail("a folder was made where nothing can be")


def test_a_folder_that_may_not_even_be_read_is_named():
    with tempfile.TemporaryDirectory(prefix="symbi-disk-") as place:
        folder = Path(place) / "data"
        anyio.run(torn, folder)
        Path(place).chmod(0o755)
        with as_nobody():
            with pytest.raises(StoreUnavailable, match="Permission denied"), SqliteReader(folder):
                pytest.fail("what may not be read was read")
            health = check_store(folder, SystemClock())
            assert (health.ok, "Permission denied" in health.detail) == (False, True)
