"""Has an agent remember things until it is ended by SIGKILL: `crash_memory.py FOLDER POINT N`; a line on standard output
for each item that was acknowledged.

At the N-th passing of a named point it kills itself; points of the index are `upsert` and `upserted`.
"""

import os
import signal
import sys
from pathlib import Path

import anyio

from symbi.context.kinds import ContextItem, ContextQuery, MemoryKind
from symbi.testing.runtime import open_in
from symbi.types import AgentId

ITEMS = 6
AGENT = "agent a() { with { 1 } }"
ALL = '@id("all") permit (principal, action, resource);'


def crash_at(point: str, number: int):
    seen = 0

    def probe(passed: str) -> None:
        nonlocal seen
        seen += passed == point
        if passed == point and seen == number:
            os.kill(os.getpid(), signal.SIGKILL)

    return probe


async def main(folder: Path, point: str, number: int) -> None:
    probe = crash_at(point, number)
    async with open_in(folder, AGENT, policies=ALL, probe=probe) as opened:
        context = opened.runtime.context
        meanings = context.memory.rooms.meanings
        put = meanings.put

        async def probed(permit, rows, vectors):
            probe("upsert")
            await put(permit, rows, vectors)
            probe("upserted")

        object.__setattr__(meanings, "put", probed)
        for n in range(ITEMS):
            kind = MemoryKind.LONG_TERM if n % 2 else MemoryKind.SHORT_TERM
            await context.store_context(AgentId("a"), ContextItem(f"item number {n}", kind))
            os.write(1, f"{n}\n".encode())
            if n == ITEMS // 2:
                probe("forget")
                found = await context.retrieve_context(AgentId("a"), ContextQuery(text="number 0"))
                await context.forget(AgentId("a"), [one.id for one in found])
                os.write(1, b"-0\n")


if __name__ == "__main__":
    anyio.run(main, Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
