"""Whoever seals is killed at any time: no key and sequence ever come twice, and what was durable opens once."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROUNDS = Path(__file__).parents[1] / "data" / "crash_keys.py"


@pytest.mark.parametrize("seed", [1, 2])
def test_kill_9_repeats_no_sequence_under_a_key(tmp_path, seed):
    command = [sys.executable, str(ROUNDS), str(tmp_path / "data"), "15", str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["sealed"] > told["opened"] > 15
