"""An owner of a data folder that stops itself at a named point, and another that takes over: crash_zombie.py FOLDER POINT.

The tool is not idempotent: each call adds its key to the file `happened`. Who takes over says of what is in doubt what
that file says, and goes on with the run.
"""

import json
import os
import signal
import sys
from pathlib import Path

import anyio

from symbi.errors import SymbiError
from symbi.runtime.doubt import Doubt, Word
from symbi.testing.runtime import open_in
from symbi.testing.servers import in_place_of, simulated
from symbi.tools.port import RawToolResult
from symbi.types import RunId

AGENT = """
agent sender { capabilities = ["svc.send"]
    with sandbox = interpreter { tool("svc.send", text = "x"); 1 } }
"""
CONFIG = """
[mcp]
tool_verification = "tofu"
[mcp.servers.svc]
command = ["none"]
timeout_s = 0.2
[runtime]
log_level = "error"
"""
ALL = '@id("all") permit (principal, action, resource);'
RUN = RunId("00000000-0000-7000-8000-000000000001")


async def main(folder: Path, point: str) -> dict:
    taking_over = point == "take-over"
    happened = folder / "happened"

    async def send(_values, effect_id):
        with happened.open("a") as file:
            file.write(effect_id + "\n")
        return RawToolResult("", {"done": True}, is_error=False)

    calling = False

    def probe(name: str) -> None:
        nonlocal calling
        # Creation, connection and resources come before the one effect that counts.
        if name == point and (calling or point == "run_ending"):
            os.kill(os.getpid(), signal.SIGSTOP)

    def emit(_agent, _text):
        pass

    with in_place_of({"svc": simulated("svc", {"send": send})}):
        async with open_in(folder, AGENT, config=CONFIG, policies=ALL, probe=probe, emit=emit) as one:
            spec = one.compiled.agents[0]
            prepare = one.runtime.rooms.world.invoker.prepare

            def prepared(*given, **more):
                nonlocal calling
                calling = True
                return prepare(*given, **more)

            one.runtime.rooms.world.invoker.prepare = prepared
            if not taking_over:
                outcome = await one.runtime.run(one.compiled, spec, {}, run_id=RUN)
                return {"state": outcome.state.value, "error": outcome.error and outcome.error.code}
            seen = happened.read_text().split() if happened.exists() else []
            doubt = Doubt(one.runtime.rooms)
            for effect in await doubt.listed():
                if effect.resource == "Tool::svc.send":
                    await doubt.settle(effect.effect_id, Word(effect.effect_id in seen, "person", "looked"))
            outcome = await one.runtime.resume(one.compiled, spec, one.runtime.rooms.runs.get_run(RUN))
    return {"state": outcome.state.value, "happened": happened.read_text().splitlines()}


if __name__ == "__main__":
    try:
        said = anyio.run(main, Path(sys.argv[1]), sys.argv[2])
    except SymbiError as error:
        said = {"error": error.code}
    except BaseExceptionGroup as group:
        said = {"error": group.exceptions[0].code}
    print(json.dumps(said))
