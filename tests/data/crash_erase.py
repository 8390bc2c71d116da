"""Keeps something about two people, or erases one of them and kills itself with SIGKILL at a named point.

python crash_erase.py FOLDER keep
python crash_erase.py FOLDER erase POINT
"""

import json
import os
import signal
import sys
from pathlib import Path

import anyio

from symbi.agent.journal import RunRecord, RunState
from symbi.compliance.rooms import Order
from symbi.config import load_settings
from symbi.guard.vault import place
from symbi.types import AgentId, RunId
from symbi.wiring import open_runtime

JANE, JOHN = "jane@example.com", "john@example.com"
STREET, CITY = "17 Elm Street", "Springfield Heights"


async def keep(folder: Path) -> None:
    async with open_runtime(load_settings(folder / "symbi.toml")) as runtime:
        rooms = runtime.rooms.privacy.rooms

        def put():
            for run, value, subject in (("r1", STREET, JANE), ("r2", CITY, JOHN)):
                keys = rooms.vault.keys_now((subject,))
                sealed = keys.seal(json.dumps({"at": value}).encode(), place("runs", "inputs", run))
                record = RunRecord(
                    RunId(run), AgentId("a"), "/f", "0" * 64, sealed, RunState.RUNNING, started_at="2026"
                )
                rooms.store.put_run(record)
                done = RunRecord(RunId(run), AgentId("a"), "/f", "0" * 64, sealed, RunState.FINISHED, started_at="2026")
                rooms.store.move_run(done, RunState.RUNNING)
            return None, ()

        await rooms.log.transact(put)


async def erase(folder: Path, point: str) -> None:
    def probe(passed: str) -> None:
        if passed == f"erase.{point}":
            os.kill(os.getpid(), signal.SIGKILL)

    async with open_runtime(load_settings(folder / "symbi.toml"), probe=probe) as runtime:
        await runtime.rooms.privacy.erase(Order(JANE))


if __name__ == "__main__":
    if sys.argv[2] == "keep":
        anyio.run(keep, Path(sys.argv[1]))
    else:
        anyio.run(erase, Path(sys.argv[1]), sys.argv[3])
