"""Runs or resumes an agent, killed with SIGKILL at the n-th passing of a named point around an effect: approval_run.py FOLDER.

Each line that it reads is `POINT N` or `POINT N --resume`, and is carried out in a fork of its own, with a whole runtime;
with POINT `-` that ends by itself. A line that it writes is how it ended, as `subprocess` says it.
"""

import os
import signal
import sys
from pathlib import Path

import anyio

from symbi.cli.run import Told, resume_run, start_run
from symbi.config import load_settings
from symbi.errors import ApprovalPending
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


async def main(folder: Path, point: str, number: int, *more: str) -> int:
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
    for line in sys.stdin:
        point, number, *more = line.split()
        child = os.fork()
        if child == 0:
            sys.exit(anyio.run(main, Path(sys.argv[1]), point, int(number), *more))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
