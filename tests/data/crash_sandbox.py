"""Runs code in containers that ends well, is cut off, or runs out of time: `crash_sandbox.py FOLDER SEED RUNS`.

Says `up` when the runtime is up, and `end KIND` as each run ends. Whoever started it may kill it at any time. Without any
run the runtime is there until standard input ends.
"""

import random
import sys
from pathlib import Path

import anyio
import anyio.to_thread

from symbi.agent.journal import RunState
from symbi.config import load_settings
from symbi.errors import SymbiError
from symbi.wiring import compile_agents, open_runtime

AT_ONCE = 4
FORKS = "import os\nfor _ in range(2):\n    if os.fork() == 0:\n        os.setsid()\n        while True: pass\n"
CODE = {
    "well": "open('/tmp/left', 'w').write('x' * 1000)",
    "cut": "import time\ntime.sleep(60)",
    "late": f"{FORKS}import time\ntime.sleep(60)",
    "orphans": f"{FORKS}1",
    "gone": "import os\nos.kill(os.getppid(), 9)\nos._exit(3)",
}


async def main(folder: Path, seed: int, runs: int) -> None:
    chance = random.Random(seed)
    settings = load_settings(folder / "symbi.toml", overrides={"runtime.log_level": "error"})
    compiled = compile_agents(folder / "work.symbi")
    limit = anyio.Semaphore(AT_ONCE)
    async with open_runtime(settings) as runtime:
        print("up", flush=True)

        async def one(kind: str, delay_s: float, number: int) -> None:
            async with limit:
                outcome = None
                with anyio.move_on_after(delay_s):
                    agent = compiled.agents[number % len(compiled.agents)]
                    try:
                        outcome = await runtime.run(compiled, agent, {"code": CODE[kind]}, instance=str(number))
                    except SymbiError as error:
                        print("error", kind, error.code, error, flush=True)
                state = "cancelled" if outcome is None else outcome.state
                assert kind != "well" or outcome is None or state is RunState.FINISHED, outcome
                print("end", kind, state, flush=True)

        async with anyio.create_task_group() as tasks:
            for number in range(runs):
                kind = chance.choice(list(CODE))
                delay_s = chance.uniform(0.0, 4.0) if kind == "cut" or chance.random() < 0.2 else 600.0
                tasks.start_soon(one, kind, delay_s, number)
        if not runs:
            await anyio.to_thread.run_sync(sys.stdin.buffer.read)


if __name__ == "__main__":
    anyio.run(main, Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
