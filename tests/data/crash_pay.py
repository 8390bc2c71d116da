"""Pays 100 euros each, many at once, through a gate, and kills itself with SIGKILL at the n-th passing of a named point.

python crash_pay.py FOLDER POINT N POLICIES HISTORY
"""

import os
import signal
import sys
from pathlib import Path

import anyio

from symbi.errors import PolicyDenied
from symbi.guard.action import InvokeTool, ToolRef
from symbi.policy.catalog import ToolType
from symbi.testing.gate import open_gate
from symbi.types import AgentId, Principal, ToolName

SCHEMA = {"type": "object", "properties": {"amount": {"type": "number"}}}


async def main(folder: Path, point: str, number: int, policies: str, history: str) -> None:
    seen = 0

    def probe(passed: str) -> None:
        nonlocal seen
        seen += passed == point
        if seen == number:
            os.kill(os.getpid(), signal.SIGKILL)

    tools = [ToolType(ToolName("bank.pay"), SCHEMA)]
    async with open_gate(policies, history=history, folder=folder, tools=tools, probe=probe) as gate:
        await gate.guard.open()

        async def pay(index: int) -> None:
            action = InvokeTool(
                principal=Principal(AgentId(f"a{index}"), "ada"),
                tool=ToolRef(ToolName("bank.pay"), "bank", "d" * 64, SCHEMA, verified=True),
                values={"amount": 100},
            )
            try:
                async with gate.guard.enforce(action) as permit:
                    gate.guard.authority.redeem(permit, InvokeTool)
            except PolicyDenied:
                pass

        async with anyio.create_task_group() as tasks:
            for index in range(50):
                tasks.start_soon(pay, index)


if __name__ == "__main__":
    _, place, point, number, policies, history = sys.argv
    anyio.run(main, Path(place), point, int(number), policies, history)
