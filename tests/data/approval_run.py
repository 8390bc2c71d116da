"""Runs or resumes an agent, killed with SIGKILL at the n-th passing of a named point around an effect: approval_run.py FOLDER.

What it is told (`symbi.testing.forks`) is POINT, N and perhaps `--resume`; each time it opens a whole runtime. With POINT `-` it
ends by itself.
"""

import os
import signal
import sys
from pathlib import Path

from symbi.cli.run import Told, resume_run, start_run
from symbi.config import load_settings
from symbi.errors import ApprovalPending
from symbi.testing.forks import in_forks
from symbi.wiring import open_runtime

HELD = 7


def crash_at(point: str, number: int):
    seen = 0

    def probe(passed: str) -> None:
        nonlocal seen
        if passed == point:
            seen += 1
            if seen == number:
                os.kill(os.getpid(), signal.SIGKILL)

    return probe


async def main(point: str, number: int, *more: str) -> int:
    folder = Path(sys.argv[1])
    settings = load_settings(folder / "symbi.toml", overrides={"runtime.log_level": "error"})
    async with open_runtime(settings, probe=crash_at(point, number)) as runtime:
        if "--resume" in more:
            outcome = await resume_run(runtime, None, None)
        else:
            outcome = await start_run(runtime, folder / "work.symbi", Told(["text=hello"]), None)
        if isinstance(outcome.error, ApprovalPending):
            return HELD
        if outcome.error is not None:
            raise outcome.error
        return 0


if __name__ == "__main__":
    in_forks(main)
