"""Agents that stay, at work on their messages, while their process is killed again and again: each task ends once.

`CRASH_TESTS=full` takes a thousand agents and thirty kills, some seconds apart; `make test-crash` sets it.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

DRIVER = Path(__file__).parents[1] / "data" / "crash_storm.py"
FULL = os.environ.get("CRASH_TESTS") == "full"
AGENTS, MESSAGES, KILLS, SPAN_S = (1000, 10, 30, 3.0) if FULL else (100, 5, 8, 0.3)
MEMORY = Path("/dev/shm")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800 if FULL else 300)]


@pytest.fixture
def folder():
    made = Path(tempfile.mkdtemp(prefix="symbi-storm-", dir=MEMORY if MEMORY.is_dir() else None))
    yield made
    shutil.rmtree(made)


def test_a_storm_of_kills_loses_nothing_repeats_nothing_and_leaves_nothing_stuck(folder):
    said = storm(folder, AGENTS, MESSAGES, KILLS, SPAN_S)
    assert said["agents"] == {"Ready": AGENTS + 1}
    assert said["resumed"] > 0


@pytest.mark.parametrize("point", ["claiming", "claimed", "run_ending", "run_ended"])
def test_a_message_is_carried_out_once_whenever_it_is_killed_on_its_way(folder, point):
    agents, messages, kills = (100, 10, 10) if FULL else (10, 4, 2)
    storm(folder, agents, messages, kills, point)


def storm(folder, agents, messages, kills, span):
    """What came out of a storm; whatever holds for all of them was looked at."""
    words = [folder, agents, messages, kills, span, 1]
    done = subprocess.run([sys.executable, str(DRIVER), *map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    said = json.loads(done.stdout)
    assert said["tasks"] == agents * messages
    assert (said["lost"], said["duplicates"], said["strange"]) == (0, 0, 0), said
    assert said["runs"] == {"finished": said["tasks"]}
    assert said["ended"] == [1]
    assert (said["mail"], said["letters"]) == (0, 0)
    assert set(said["effects"]) <= {"confirmed", "reconciled", "denied", "failed"}
    assert said["kills"] == kills
    return said
