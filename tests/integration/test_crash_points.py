"""`kill -9` at named points around effects, for each point over many operations; and an owner that was only asleep.

What is called counts in a process of its own: nothing happens twice, nothing is lost, and what was in doubt is settled.
`CRASH_TESTS=full` takes a thousand operations and more kills for each point; `make test-crash` sets it.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from symbi.adapters.sqlite import SqliteReader
from symbi.audit.event import parse_event
from symbi.audit.verify import verify_trail
from symbi.config import load_settings
from symbi.wiring import verifying_keys

DATA = Path(__file__).parents[1] / "data"
FULL = os.environ.get("CRASH_TESTS") == "full"
RUNS, EFFECTS, KILLS = (20, 50, 12) if FULL else (8, 9, 2)
POINTS = [
    "asked", "decided", "before_dispatch", "reserving", "reserved", "recording", "recorded", "appended", "committing",
    "committed", "dispatched", "called", "answered", "done", "before_settle", "settled", "run_ending", "run_ended",
    "called,looked_up", "called,concluding", "called,concluded", "time",
]  # fmt: skip
MEMORY = Path("/dev/shm")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def folder():
    made = Path(tempfile.mkdtemp(prefix="symbi-points-", dir=MEMORY if MEMORY.is_dir() else None))
    yield made
    shutil.rmtree(made)


@pytest.mark.parametrize("points", POINTS)
def test_whatever_kills_it_each_effect_happens_once_and_each_run_ends_once(folder, points):
    words = [folder, points, RUNS, EFFECTS, KILLS, 1 + POINTS.index(points)]
    command = [sys.executable, str(DATA / "crash_ledger.py"), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=580, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    said = json.loads(done.stdout)
    assert set(said["killed_at"]) == set(points.split(","))
    assert said["operations"] == RUNS * EFFECTS
    assert (said["duplicates"], said["lost"], said["strange"]) == (0, 0, 0), said
    assert set(said["effects"]) <= {"confirmed", "reconciled"}
    assert sum(said["effects"].values()) == RUNS * EFFECTS
    assert said["unsettled"] == 0
    assert said["runs"] == {"finished": RUNS}
    assert said["ended"] == [1]
    if FULL and points in {"dispatched", "called", "answered", "done", "before_settle"}:
        assert said["unknown"] > 0  # kills fell between dispatch and outcome, or this would prove nothing


@pytest.mark.parametrize(
    ("point", "error"),
    [("before_dispatch", "store_fenced"), ("dispatched", "store_fenced"), ("done", "store_fenced"), ("run_ending", "store_fenced")],
)  # fmt: skip
def test_an_owner_that_slept_while_another_took_over_writes_nothing_and_calls_nothing(folder, point, error):
    command = [sys.executable, str(DATA / "crash_zombie.py"), str(folder)]
    zombie = subprocess.Popen([*command, point], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    _, status = os.waitpid(zombie.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    # The lock is on the file: a new owner comes where somebody takes that away, or where the disk forgets who held it.
    (folder / ".symbi" / "owner.lock").unlink()
    second = subprocess.run([*command, "take-over"], capture_output=True, text=True, timeout=60, check=False)
    assert second.returncode == 0, second.stderr[-3000:]
    before = events(folder)
    os.kill(zombie.pid, signal.SIGCONT)
    said, complained = zombie.communicate(timeout=60)
    assert zombie.returncode == 0, complained[-3000:]
    assert json.loads(said) == {"error": f"unavailable.{error}"}
    assert events(folder) == before
    taken = json.loads(second.stdout)
    assert taken["state"] == "finished"
    assert (folder / "happened").read_text().splitlines() == taken["happened"]
    assert len(taken["happened"]) == 1


def events(folder):
    (folder / "symbi.toml").touch()
    settings = load_settings(folder / "symbi.toml")
    with SqliteReader(folder / ".symbi") as reader:
        verify_trail(reader.read(1), reader.head_record(), verifying_keys(settings))
        return [parse_event(stored.record) for stored in reader.read(1)]
