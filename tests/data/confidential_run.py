"""Runs or resumes the agent of a folder and kills itself with SIGKILL at the n-th passing of a point around an effect.

python confidential_run.py FOLDER POINT N [--resume] [--subject WHO]... [NAME=VALUE]...

With POINT `-` it ends by itself, with exit code 7 where it is held.
"""

import argparse
import sys
from pathlib import Path

import anyio
from approval_run import HELD, crash_at

from symbi.cli.run import Told, resume_run, start_run
from symbi.config import load_settings
from symbi.errors import ApprovalPending
from symbi.wiring import open_runtime


async def main(told: argparse.Namespace) -> int:
    settings = load_settings(told.folder / "symbi.toml", overrides={"runtime.log_level": "error"})
    async with open_runtime(settings, probe=crash_at(told.point, told.number)) as runtime:
        if told.resume:
            outcome = await resume_run(runtime, None, None)
        else:
            wanted = Told(told.inputs, (), None, told.subject)
            outcome = await start_run(runtime, told.folder / "work.symbi", wanted, None)
        if isinstance(outcome.error, ApprovalPending):
            return HELD
        if outcome.error is not None:
            raise outcome.error
        return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("point")
    parser.add_argument("number", type=int)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--subject", action="append", default=[])
    parser.add_argument("inputs", nargs="*")
    sys.exit(anyio.run(main, parser.parse_args()))
