"""Lets agents that stay carry out messages to one another, and kills itself with SIGKILL at the n-th passing of a named point.

python crash_mail.py FOLDER POINT N
"""

import os
import signal
import sys
from pathlib import Path

import anyio
import anyio.lowlevel

from symbi.runtime.course import Order
from symbi.testing.runtime import open_in
from symbi.types import AgentId

AGENTS = """
agent first(n: int) {
    with {
        for i in range(n) { send("second", { n: i }); }
        let heard = publish("news", { n: 100 });
        return [heard, ask("second", { n: 1000 })];
    }
}
agent second(n: int) { with { return { n: n, luck: random() }; } }
agent ears(n: int) { with { return n; } }
"""
ALL = '@id("all") permit (principal, action, resource);'
CONFIG = (
    "".join(f'[agents.{name}]\nmode = "persistent"\n' for name in ("first", "second", "ears")) + 'topics = ["news"]\n'
)
MESSAGES = 3
MADE = ("first", "second", "ears", "ears/1")


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
    async with (
        open_in(folder, AGENTS, policies=ALL, config=CONFIG, probe=crash_at(point, number)) as opened,
        anyio.create_task_group() as tasks,
    ):
        runtime, log = opened.runtime, opened.runtime.rooms.world.log
        specs = {spec.id: spec for spec in opened.compiled.agents}
        runtime.roster.declare(opened.compiled)
        for name in MADE:
            if await log.read(lambda name=name: runtime.rooms.agents.get_agent(AgentId(name))) is None:
                declared, _, instance = name.partition("/")
                await runtime.spawn(Order(opened.compiled, specs[declared]), [instance])
        begun = folder / "begun"
        if not begun.exists():
            message = await runtime.send(AgentId("first"), {"n": MESSAGES})
            begun.write_text(message)
        tasks.start_soon(runtime.carry_out_messages)
        await anyio.wait_all_tasks_blocked()
        while not runtime.dispatch.idle:
            await anyio.lowlevel.checkpoint()
        runtime.dispatch.stop()


if __name__ == "__main__":
    anyio.run(main, Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
