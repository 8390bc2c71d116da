"""Has an agent answer, until it is ended by SIGKILL: `crash_answer.py FOLDER URL POINT N`.

At the N-th passing of a named point of the gate, counted from the start of the run, it kills itself.
"""

import os
import signal
import sys
from pathlib import Path

import anyio

from symbi.testing.runtime import open_in

AGENT = """
agent reader(question: String) {
    capabilities = ["answer", "log"]
    with {
        let said = answer(question, "ops");
        log("answered");
        said
    }
}
"""
POLICIES = """
@id("live") permit (principal, action in [Action::"CreateAgent", Action::"AllocateResources", Action::"WriteLog"], resource);
@id("books") permit (principal, action in [Action::"ReadData", Action::"WriteData"], resource is Knowledge);
@id("asks") permit (principal == Agent::"reader", action == Action::"CallModel", resource == Model::"tiny");
"""
QUESTION = "flush the mail queue"


def config(url: str) -> str:
    return f'[knowledge]\nanswer_model = "tiny"\nanswer_base_url = "{url}"\n'


async def main(folder: Path, url: str, point: str, number: int) -> None:
    seen, counts = 0, False

    def probe(passed: str) -> None:
        nonlocal seen
        seen += counts and passed == point
        if counts and passed == point and seen == number:
            os.kill(os.getpid(), signal.SIGKILL)

    async with open_in(folder, AGENT, policies=POLICIES, config=config(url), probe=probe) as opened:
        (spec,) = opened.compiled.agents
        counts = True
        await opened.runtime.run(opened.compiled, spec, {"question": QUESTION})


if __name__ == "__main__":
    anyio.run(main, Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]))
