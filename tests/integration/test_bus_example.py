"""The example of the bus does what its page says."""

import shutil
import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "bus"
BUSY = "something held the event loop"  # as a machine does that has other things to do


def test_the_example_runs(tmp_path):
    shutil.copytree(EXAMPLE, tmp_path / "bus")
    result = subprocess.run(
        [sys.executable, "desk.py"], cwd=tmp_path / "bus", capture_output=True, text=True, timeout=60, check=False
    )
    said = [line for line in result.stderr.splitlines() if BUSY not in line]
    assert (result.returncode, said) == (0, [])
    assert sorted(result.stdout.splitlines()) == [
        "editor finds it fit: True",
        "reporter on news.eu: rain",
        "reporter says: more soon",
        "reporter says: rain again",
    ]


def test_what_its_policies_do_not_permit_is_refused(tmp_path):
    shutil.copytree(EXAMPLE, tmp_path / "bus")
    program = tmp_path / "bus" / "desk.py"
    program.write_text(program.read_text().replace('publish("reporter"', 'publish("reader"'))
    result = subprocess.run(
        [sys.executable, "desk.py"], cwd=tmp_path / "bus", capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode != 0
    assert "PolicyDenied" in result.stderr
    assert "rain" not in result.stdout
