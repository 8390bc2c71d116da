"""kill -9 at any moment of appending: nothing that was acknowledged is lost, the trail verifies, a second writer is refused."""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from symbi.adapters.sqlite import SqliteReader
from symbi.audit.export import ExportWriter
from symbi.audit.verify import Start, verify_trail
from symbi.testing.trail import fixed_signing_key

DRIVER = Path(__file__).parents[1] / "data" / "kill_rounds.py"
SECOND_VERIFIER = Path(__file__).parents[2] / "tools" / "verify_audit.py"
ROUNDS = 100  # in each mode
KEY = fixed_signing_key()
MEMORY = Path("/dev/shm")


@pytest.fixture
def folder():
    made = Path(tempfile.mkdtemp(prefix="symbi-kill-", dir=MEMORY if MEMORY.is_dir() else None))
    yield made
    shutil.rmtree(made)


@pytest.mark.parametrize(("signing", "seed"), [("event", 1), ("batch", 2)])
def test_whatever_was_acknowledged_is_there_after_every_kill(folder, signing, seed):
    command = [sys.executable, str(DRIVER), str(folder / "data"), str(ROUNDS), str(seed), signing]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["rounds"] == said["refused"] == ROUNDS
    assert said["acknowledged"] > ROUNDS
    with SqliteReader(folder / "data") as reader:
        keys = {KEY.key_id: KEY.verifying_key()}
        with ExportWriter(folder / "export") as writer:
            report = verify_trail(writer.copy(reader.read(1)), reader.head_record(), keys)
            notes = list(reader.checkpoints(1))
            writer.finish([*notes, (report.events, reader.head_record())], keys, Start())
        sizes = [size for size, _ in notes]
    assert report.events == said["events"] >= said["acknowledged"]
    assert len(sizes) > ROUNDS / 20
    second = subprocess.run(
        [sys.executable, str(SECOND_VERIFIER), str(folder / "export")], capture_output=True, text=True, check=False
    )
    assert second.returncode == 0, second.stdout + second.stderr
