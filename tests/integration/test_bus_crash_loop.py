"""A message of the bus whose handler the process does not survive."""

import signal
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "data" / "crash_handler.py"


def start(folder, how):
    """A process that receives until it is killed, or the dead letter is there; its exit code and what it printed."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder), how], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode in {0, -signal.SIGKILL}, done.stderr
    return done.returncode, done.stdout.splitlines()


def test_a_message_that_kills_its_process_each_time_is_given_up_and_what_is_behind_it_comes(tmp_path):
    starts = [start(tmp_path, "first")]
    while starts[-1][0] and len(starts) < 8:
        starts.append(start(tmp_path, "again"))
    assert starts[0] == (-signal.SIGKILL, ["good 1", "bad 1"])
    # The first one's attempt was not counted, for it was behind another; what that was is not given out again.
    assert [lines for code, lines in starts[1:-1]] == [["bad 1"], ["bad 2"], ["bad 3"]]
    assert starts[-1] == (0, ["next 1", "[('message.crash_loop', 3)]"])
