"""Has an agent answer, until it is ended by SIGKILL: `crash_answer.py FOLDER URL POINT N`.

At the N-th passing of a named point of the gate, counted from the start of the run, it kills itself.
"""

import os
import signal
import sys
from pathlib import Path

import anyio

from symbi.testing.answers import AGENT, ASKS, QUESTION, READS, reader_config
from symbi.testing.runtime import open_in


async def main(folder: Path, url: str, point: str, number: int) -> None:
    seen, counts = 0, False

    def probe(passed: str) -> None:
        nonlocal seen
        seen += counts and passed == point
        if counts and passed == point and seen == number:
            os.kill(os.getpid(), signal.SIGKILL)

    async with open_in(folder, AGENT, policies=READS + ASKS, config=reader_config(url), probe=probe) as opened:
        (spec,) = opened.compiled.agents
        counts = True
        await opened.runtime.run(opened.compiled, spec, {"question": QUESTION})


if __name__ == "__main__":
    anyio.run(main, Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]))
