"""Seals and removes segments, and dies at named points, each in a process and folders of its own: FOLDER POINT…

Prints for each point the signal that ended the process, and how many events it had acknowledged before it kept them.
"""

import os
import signal
import sys
from pathlib import Path

import anyio

from symbi.testing.clock import ManualClock
from symbi.testing.keeping import open_kept

DAY_S = 86_400


async def main(folder, point, days, said):
    def probe(here):
        if here == point:
            os.kill(os.getpid(), signal.SIGKILL)

    clock = ManualClock()
    clock.advance(days * DAY_S)
    async with open_kept(folder / "data", folder / "storage", clock=clock, probe=probe) as kept:
        await kept.append(700)
        os.write(said, b"%d\n" % kept.log.sequence)
        await kept.keeper.open()


def die(folder, point):
    (folder / "storage").mkdir(parents=True)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        for days in (0, 60):
            anyio.run(main, folder, point, days, write)
        os._exit(0)
    os.close(write)
    _, status = os.waitpid(child, 0)
    acknowledged = os.read(read, 100).decode().split()[-1]
    print(point, os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0, acknowledged, flush=True)


for name in sys.argv[2:]:
    die(Path(sys.argv[1]) / name, name)
