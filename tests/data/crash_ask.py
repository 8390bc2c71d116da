"""Runs or resumes an agent that asks another, and kills itself with SIGKILL at the n-th passing of a named point.

python crash_ask.py FOLDER POINT N
"""

import os
import signal
import sys
from pathlib import Path

import anyio

from symbi.testing.runtime import open_in

AGENTS = """
agent a {
    with {
        let first = ask("b", { n: 1 });
        let second = ask("b", { n: first.n + 1 });
        return [first, second, now()];
    }
}
agent b(n: int) { with { return { n: n, luck: ask("c", {}), chance: random() }; } }
agent c { with { return random(); } }
"""
ALL = '@id("all") permit (principal, action, resource);'


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
    async with open_in(folder, AGENTS, policies=ALL, probe=crash_at(point, number)) as opened:
        runtime, spec = opened.runtime, opened.compiled.agents[0]
        runs = await runtime.rooms.world.log.read(lambda: runtime.rooms.runs.runs(100))
        mine = [run for run in runs if run.agent_id == "a"]
        if mine:
            outcome = await runtime.resume(opened.compiled, spec, mine[0])
        else:
            outcome = await runtime.run(opened.compiled, spec, {})
        if outcome.error is not None:
            raise outcome.error


if __name__ == "__main__":
    anyio.run(main, Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
