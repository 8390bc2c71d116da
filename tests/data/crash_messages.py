"""Agents that stay carry out their messages; the process kills itself with SIGKILL at the n-th passing of a named point.

python crash_messages.py FOLDER POINT N
"""

import os
import signal
import sys
from pathlib import Path

import anyio

from symbi.runtime.course import Order
from symbi.testing.runtime import open_in

AGENTS = (
    'agent w(n: int) { with sandbox = interpreter { log(format("{}", n)); let luck = random(); return [n, luck]; } }\n'
)
CONFIG = '[agents.w]\nmode = "persistent"\n[limits]\nmemory_mb = 100000\ncpu_cores = 100.0\n'
ALL = "permit (principal, action, resource);"
INSTANCES = ("a", "b", "c", "d")
EACH = 4


def crash_at(point: str, number: int):
    seen = 0

    def probe(passed: str) -> None:
        nonlocal seen
        if passed == point:
            seen += 1
            if seen == number:
                os.kill(os.getpid(), signal.SIGKILL)

    return probe


async def main(folder: Path, point: str, number: int) -> None:
    async with open_in(folder, AGENTS, config=CONFIG, policies=ALL, probe=crash_at(point, number)) as opened:
        runtime, order = opened.runtime, Order(opened.compiled, opened.compiled.agents[0])
        runtime.roster.declare(opened.compiled)
        if not runtime.roster.counts:
            names = await runtime.spawn(order, INSTANCES)
            for n in range(EACH):
                for name in names:
                    await runtime.send(name, {"n": n})
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(runtime.carry_out_messages)
            while not runtime.dispatch.idle:
                await anyio.lowlevel.checkpoint()
            runtime.dispatch.stop(runtime.at_work)


if __name__ == "__main__":
    anyio.run(main, Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
