"""A data folder that cannot be used, and a disk that is full: effects stop, what was recorded can be read, a run goes on later."""

import contextlib
import fcntl
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

INPUT, UNAVAILABLE = 2, 5
RUN = ("run", "work.symbi", "--input", "text=hello")
READERS = (("audit", "verify"), ("audit", "show", "--last", "3"), ("tools", "list"), ("check", "work.symbi"))


# --- the folder --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [RUN, ("audit", "verify"), ("tools", "verify")])
def test_a_data_folder_that_cannot_be_made(workshop, arguments):
    """Below a regular file not even root can make one."""
    workshop.put("file", "in the way")
    place = str(workshop.folder / "file" / "data")
    workshop.symbi(*arguments, env={"SYMBI_RUNTIME_DATA_DIR": place}).error(UNAVAILABLE, place)
    assert (workshop.folder / "file").read_text() == "in the way"
    workshop.works()


@pytest.mark.parametrize(
    ("name", "made", "code"),
    [
        ("symbi.db", "folder", UNAVAILABLE),
        ("symbi.db", "text", UNAVAILABLE),
        ("keys", "text", INPUT),
        ("owner.lock", "folder", UNAVAILABLE),
    ],
)
def test_a_data_folder_in_which_something_else_is_in_the_way(workshop, name, made, code):
    data = workshop.folder / ".symbi"
    data.mkdir(mode=0o700)
    if made == "folder":
        (data / name).mkdir()
    else:
        (data / name).write_text("this is not what belongs here, and there is enough of it to see that " * 20)
    for arguments in (RUN, ("tools", "verify")):
        workshop.inside(*arguments).error(code)
    for arguments in (("audit", "show"), ("audit", "verify"), ("tools", "list"), ("check", "work.symbi")):
        workshop.inside(*arguments)  # fails on any other exception than an exit
    shutil.rmtree(data)
    workshop.works()


def test_a_data_folder_that_another_process_owns(workshop):
    workshop.works()
    before = len(workshop.trail())
    with (workshop.folder / ".symbi" / "owner.lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "another process (pid " in workshop.run().error(UNAVAILABLE, "unavailable.store_owned")
        for arguments in READERS:
            assert workshop.inside(*arguments).code == 0
        assert len(workshop.trail()) == before
    assert workshop.sent() == ["hello"]
    assert workshop.run().code == 0


@pytest.mark.parametrize("damage", ["recovery = 'whatever', state = 'dispatched'", "state = 'whatever'"])
def test_a_ledger_that_somebody_wrote_into_is_not_guessed_at(workshop, damage):
    workshop.works()
    with contextlib.closing(sqlite3.connect(workshop.folder / ".symbi" / "symbi.db")) as db, db:
        db.execute(f"UPDATE effects SET {damage}")
        db.execute("UPDATE runs SET state = 'running'")
    workshop.inside("run", "--resume").error(UNAVAILABLE, "unavailable.store_damaged")
    assert workshop.sent() == ["hello"]


# --- a full disk ---------------------------------------------------------------------------------------------------------

MESSAGES = 60
SENDING = f'for i in range({MESSAGES}) {{ tool("desk.send", to = "oncall@example.com", text = str(i)); }}'
ALL = [*(str(number) for number in range(MESSAGES)), "hello"]


def check_stopped(workshop, done) -> None:
    """Whatever was done had been decided, and that was durable, before; then nothing more was done."""
    done.error(UNAVAILABLE, "unavailable.store", "the disk is full")
    allowed = [
        event for event in workshop.trail()
        if event.event_type == "decision.allow" and event.details["resource"] == "Tool::desk.send"
    ]  # fmt: skip
    sent = workshop.sent()
    assert sent == ALL[: len(sent)]
    assert 0 < len(sent) == len(allowed) < MESSAGES
    assert workshop.reports() == {}


def check_resumed(workshop) -> None:
    done = workshop.symbi("run", "--resume")
    assert (done.code, done.stdout) == (0, "done\n"), done.stderr
    assert workshop.sent() == ALL
    assert workshop.reports() == {"report.md": "hello"}
    assert workshop.recorded("run.finished", "finished")


def test_a_store_that_may_not_grow_stops_all_effects_and_the_run_goes_on_later(workshop):
    workshop.write(SENDING)
    check_stopped(workshop, workshop.symbi(*RUN, largest_file=1_300_000))
    for arguments in READERS:
        read = workshop.symbi(*arguments, largest_file=1_100_000)
        assert read.code == 0, read.stderr
    check_resumed(workshop)


@contextlib.contextmanager
def small_disk(size: str) -> Iterator[Path]:
    """A disk of its own, where this user may mount one; outside of the folder that pytest tidies up by itself."""
    place = Path(tempfile.mkdtemp(prefix="symbi-disk-"))
    mount = shutil.which("mount")
    command = [mount or "", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    if not mount or subprocess.run(command, capture_output=True, timeout=30, check=False).returncode != 0:
        pytest.skip("only root may mount a disk; the test before this one has the same failure by another way")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], timeout=30, check=True)
        place.rmdir()


def remount(place: Path, option: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{option}", str(place)], timeout=30, check=True)


def forget_readers(disk: Path) -> None:
    """Remove what readers left behind to share with an owner; it holds no event."""
    assert not (disk / "data" / "symbi.db-wal").stat().st_size
    for name in ("symbi.db-wal", "symbi.db-shm"):
        (disk / "data" / name).unlink()


def test_a_full_disk_stops_all_effects_and_can_still_be_read(workshop):
    workshop.write(SENDING)
    with small_disk("1400k") as disk:
        workshop.environ["SYMBI_RUNTIME_DATA_DIR"] = str(disk / "data")
        check_stopped(workshop, workshop.symbi(*RUN))
        for arguments in READERS:
            assert workshop.inside(*arguments).code == 0
        workshop.inside(*RUN).error(UNAVAILABLE, "the disk is full")
        remount(disk, "size=30m")
        check_resumed(workshop)
        # Filled by others after the store was closed: nothing can be written, all can be read.
        forget_readers(disk)
        with contextlib.suppress(OSError), (disk / "filling").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        workshop.inside(*RUN).error(UNAVAILABLE, "the disk is full")
        for arguments in READERS:
            read = workshop.inside(*arguments)
            assert read.code == 0, read.stderr
        (disk / "filling").unlink()
        # And a disk that takes no writing at all.
        remount(disk, "ro")
        workshop.inside(*RUN).error(UNAVAILABLE, "Read-only file system")
        for arguments in READERS:
            read = workshop.inside(*arguments)
            assert read.code == 0, read.stderr
        remount(disk, "rw")
        before = len(workshop.sent())
        workshop.write()
        assert workshop.inside(*RUN).code == 0
        assert len(workshop.sent()) == before + 1


def test_an_export_is_written_whole_or_not_at_all(workshop):
    workshop.works()
    done = workshop.symbi("audit", "export", "evidence", largest_file=4096)
    done.error(INPUT, "cannot write in `evidence`")
    assert not (workshop.folder / "evidence").exists()
    assert workshop.inside("audit", "export", "evidence").code == 0
    assert workshop.inside("audit", "verify", "--export", "evidence").code == 0


def test_formatting_never_loses_a_file(workshop):
    file = workshop.folder / "work.symbi"
    workshop.put("work.symbi", file.read_text().replace("    with", "  with") + "// filling\n" * 1000)
    before = file.read_bytes()
    workshop.symbi("fmt", "work.symbi", largest_file=4096).error(INPUT, "cannot write `work.symbi`")
    assert file.read_bytes() == before
    assert list(workshop.folder.glob(".work*")) == []
    assert workshop.inside("fmt", "work.symbi").code == 0
    assert file.read_bytes() != before


def test_a_copy_of_the_example_is_whole_or_not_there(workshop):
    workshop.symbi("demo", "copy", largest_file=4096).error(INPUT, "cannot copy the example to `copy`")
    assert not (workshop.folder / "copy").exists()
    workshop.inside("demo", "symbi.toml").error(INPUT, "`symbi.toml` exists already")
    workshop.inside("demo", "symbi.toml/copy").error(INPUT, "cannot make `symbi.toml/copy`")
