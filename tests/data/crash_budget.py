"""Calls a tool from four runs that share a budget, many at once, and kills itself with SIGKILL at the n-th passing of a point.

python crash_budget.py FOLDER POINT N START

Each call that really happens leaves a line in FOLDER/calls. Places in the runs begin at START.
"""

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import anyio

from symbi.errors import BudgetExceeded
from symbi.guard.action import InvokeTool, RunSlot, ToolRef
from symbi.guard.budget import Account, open_account
from symbi.guard.spending import Budget
from symbi.policy.catalog import ToolType
from symbi.testing.gate import open_gate
from symbi.types import AgentId, Principal, RunId, ToolName

MOST = 170
TREE = {"root": ("", MOST), "one": ("root", None), "two": ("root", 40), "below": ("one", None)}
TOOL = ToolRef(ToolName("mail.send"), "mail", "d" * 64, {}, verified=True)


def open_tree(store) -> None:
    for run, (parent, most) in TREE.items():
        if store.account_of(RunId(run)) is None:
            open_account(store, Account(RunId(run), AgentId("a"), RunId(parent), Budget(calls=most)))


async def main(folder: Path, point: str, number: int, start: int) -> None:
    seen = 0

    def probe(passed: str) -> None:
        nonlocal seen
        seen += passed == point
        if seen == number:
            os.kill(os.getpid(), signal.SIGKILL)

    calls = os.open(folder / "calls", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    async with open_gate(folder=folder / "store", tools=[ToolType(TOOL.name, {})], probe=probe) as gate:
        await gate.guard.open()
        await gate.log.transact(lambda: (open_tree(gate.store), ()))

        async def call(run: str, position: int) -> None:
            action = InvokeTool(
                principal=Principal(AgentId("a")), slot=RunSlot(RunId(run), position), tool=TOOL, values={}
            )
            with suppress(BudgetExceeded):
                async with gate.guard.enforce(action) as permit:
                    gate.guard.authority.redeem(permit, InvokeTool)
                    os.write(calls, f"{run}\n".encode())

        async with anyio.create_task_group() as tasks:
            for position in range(start, start + 12):
                for run in TREE:
                    tasks.start_soon(call, run, position)


if __name__ == "__main__":
    _, place, point, number, start = sys.argv
    anyio.run(main, Path(place), point, int(number), int(start))
