"""What mypy must refuse, it refuses."""

import subprocess
import sys

import pytest


@pytest.mark.slow
def test_an_effect_without_the_right_permit_does_not_type_check(root):
    command = [sys.executable, "-m", "mypy", "--follow-imports=silent", "tests/typing/permits.py"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
