"""Runs or resumes the example and kills itself with SIGKILL at the n-th passing of a named point around an effect.

python crash_run.py FOLDER; what it is told (`symbi.testing.forks`) is POINT, N and perhaps `--resume`.
"""

import os
import signal
import sys
from pathlib import Path

from symbi.cli.run import Told, resume_run, start_run
from symbi.config import load_settings
from symbi.testing.forks import in_forks
from symbi.wiring import open_runtime


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
            await resume_run(runtime, None, None)
        else:
            await start_run(runtime, folder / "triage.symbi", Told([f"log={folder / 'logs' / 'access.log'}"]), None)
    return 0


if __name__ == "__main__":
    in_forks(main)
