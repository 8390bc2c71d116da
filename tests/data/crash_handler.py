"""Receives messages of the bus; the one that says `bad` kills the process.

python crash_handler.py FOLDER first|again    prints each body with its attempt; `first` sends them before
"""

import os
import signal
import sys
from pathlib import Path

import anyio

from symbi.bus import outbox
from symbi.testing.runtime import open_in

CONFIG = """
[agents.a]
[agents.b]
[bus]
attempts = 2
"""


async def main(folder: Path, *, first: bool) -> None:
    outbox.MAX_BEGINNINGS = 3
    policies = "permit (principal, action, resource);"
    async with open_in(folder, 'agent a() { with { "done" } }', config=CONFIG, policies=policies) as running:
        bus, over = running.runtime.bus, anyio.Event()
        if first:
            for body in ("good", "bad", "next"):
                await bus.send_message("a", "b", body)

        def receive(message):
            print(message.body, message.attempt, flush=True)
            if message.body == "bad":
                os.kill(os.getpid(), signal.SIGKILL)
            over.set()

        await bus.open_mailbox("b", receive)
        while not await bus.dead():  # noqa: ASYNC110 - the store tells nobody
            await anyio.sleep(0.01)
        await over.wait()
        print([(one.code, one.attempts) for one in await bus.dead()], flush=True)


anyio.run(lambda: main(Path(sys.argv[1]), first=sys.argv[2] == "first"))
