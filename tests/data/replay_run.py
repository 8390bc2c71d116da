"""Replays a dead letter and kills itself with SIGKILL before or after the commit, or while the new run is at work.

python replay_run.py FOLDER LETTER before|after|at_work
"""

import os
import signal
import sys
from pathlib import Path

import anyio

from symbi.config import load_settings
from symbi.types import RunId
from symbi.wiring import compile_agents, open_runtime


def die(*_arguments) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def main(folder: Path, letter: str, point: str) -> None:
    settings = load_settings(folder / "symbi.toml", overrides={"runtime.log_level": "error"})

    def at_work(passed: str) -> None:
        if point == "at_work" and passed == "dispatched" and begun:
            die()

    begun = []
    async with open_runtime(settings, probe=at_work) as runtime:
        compiled = compile_agents(folder / "agent.symbi")
        if point == "before":
            put_run = runtime.rooms.runs.put_run
            type(runtime.rooms.runs).put_run = lambda _self, record: (put_run(record), die())
        begun.append(await runtime.replay(compiled, RunId(letter), "ada"))
        if point == "after":
            die()
        await runtime.resume(compiled, compiled.agents[0], begun[0].record)


if __name__ == "__main__":
    anyio.run(lambda: main(Path(sys.argv[1]), sys.argv[2], sys.argv[3]))
