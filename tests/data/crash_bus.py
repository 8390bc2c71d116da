"""Sends messages and receives them, until somebody kills it; `drain` receives what is left, and tells all that was done.

python crash_bus.py FOLDER run FIRST      prints each number that was acknowledged, from FIRST on
python crash_bus.py FOLDER drain          prints JSON: what was done, in its order, by sender and number
"""

import json
import sys
from pathlib import Path

import anyio

from symbi.bus.outbox import WithReceipt
from symbi.bus.port import SentState
from symbi.testing.runtime import open_in

AGENT = 'agent a() { with { "done" } }'
CONFIG = "[agents.a]\n[agents.b]\n[agents.c]\n[bus]\nretry_first_s = 0.01\n"
POLICIES = "permit (principal, action, resource);"


async def main(folder: Path, what: str, first: int) -> None:
    async with open_in(folder, AGENT, config=CONFIG, policies=POLICIES) as running:
        bus, store, log = running.runtime.bus, running.runtime.rooms.effects, running.runtime.rooms.world.log

        async def handler(message):
            if message.body["number"] % 7 == 0 and message.attempt == 1:
                msg = "at first it fails"
                raise ValueError(msg)

            def work():
                name = f"done/{message.sender}/{message.body['number']:06}"
                (count,) = store._one("SELECT count(*) FROM meta WHERE key LIKE 'done/%'")
                store._write("INSERT INTO meta (key, value) VALUES (?, ?)", (name, str(count)))

            return WithReceipt(work)

        await bus.open_mailbox("b", handler, dict[str, int])

        async def send(sender: str) -> None:
            number = first
            while True:
                await bus.send_message(
                    sender, "b", {"number": number}, message_id=f"{ord(sender):08x}-0000-7000-8000-{number:012x}"
                )
                print(sender, number, flush=True)
                number += 1

        if what == "run":
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(send, "a")
                tasks.start_soon(send, "c")
        while await log.read(lambda: store.sent(SentState.WAITING, "", 0, 1)):  # noqa: ASYNC110 - the store tells nobody
            await anyio.sleep(0.01)
        rows = await log.read(lambda: store._all("SELECT key, value FROM meta WHERE key LIKE 'done/%'"))
        done = [key.split("/")[1:] for key, _ in sorted(rows, key=lambda row: int(row[1]))]
        dead = [one.code for one in await bus.dead()]
        print(json.dumps({"done": [[sender, int(number)] for sender, number in done], "dead": dead}))


anyio.run(main, Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 0)
