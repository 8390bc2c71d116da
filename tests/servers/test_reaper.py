"""Nothing survives: runs that are cancelled, run out of time, or whose runtime is killed, on a real engine.

`SYMBI_STORM_RUNS` says how many runs; few by default, for each takes most of a second.
"""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from anyio import to_thread

from symbi.adapters.docker import Engine, reaping

RUNS = int(os.environ.get("SYMBI_STORM_RUNS", "12"))

pytestmark = [pytest.mark.servers, pytest.mark.anyio, pytest.mark.timeout(120 + 10 * RUNS)]

PER_PROCESS = 8
SETTLES_WITHIN_S = 40.0
LIVE = """
import random, sys
import anyio
from symbi.adapters.docker import DockerOptions, DockerSandbox, Engine
from symbi.errors import SymbiError
from symbi.guard.permit import Authority
from symbi.testing.clock import ManualClock
from symbi.testing.contracts import SandboxUnderTest
from symbi.types import SecurityTier

host, image, seed, runs = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
CODES = ["6 * 7", "while True:\\n    pass", "import os\\nos.fork()\\nwhile True: pass", "open('/tmp/x', 'w').write('x' * 99999)"]

async def main():
    dice, authority = random.Random(seed), Authority(ManualClock())
    async with Engine(host) as engine:
        for tier, runtime in ((SecurityTier.TIER1, "runc"), (SecurityTier.TIER2, "runsc")):
            options = DockerOptions(image=image, runtime=runtime, instance="storm")
            sandbox = SandboxUnderTest(DockerSandbox(authority, tier, engine, options), authority)
            for _ in range(runs // 2):
                print("run", flush=True)
                with anyio.move_on_after(dice.uniform(0.0, 2.5)):
                    try:
                        await sandbox.run(dice.choice(CODES), timeout_s=dice.uniform(0.1, 1.0))
                    except SymbiError:
                        pass

anyio.run(main)
"""


def sandboxes_of(folder):
    """Processes of containers, and what is mounted for them."""
    shims = [
        entry.name
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and _is_sandbox(_command(entry), str(folder).encode())
    ]
    mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    return shims, [one for one in mounts if one.startswith(f"{folder}/") and ("overlay2/" in one or "shm" in one)]


def _command(entry):
    try:
        return (entry / "cmdline").read_bytes()
    except OSError:
        return b""


def _is_sandbox(command, folder):
    return folder in command and any(part in command for part in (b"containerd-shim", b"runsc", b"runc"))


async def test_after_a_storm_of_cancels_time_outs_and_kills_the_next_start_leaves_nothing(docker):
    assert await to_thread.run_sync(storm, docker)
    async with Engine(docker.host) as engine:
        with anyio.fail_after(SETTLES_WITHIN_S):
            async with reaping(
                engine, "storm"
            ):  # the engine may be at work on what those that were killed had asked for
                while await engine.containers("symbi.instance=storm") or sandboxes_of(docker.folder) != ([], []):
                    await anyio.lowlevel.checkpoint()


def storm(docker):
    """Begin runs in one process after the other; how many of these were killed in the middle."""
    dice = random.Random(7)
    killed = begun = 0
    while begun < RUNS:
        command = [sys.executable, "-c", LIVE, docker.host, docker.image, str(begun), str(PER_PROCESS)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as runtime:
            until = dice.randint(1, PER_PROCESS)
            for _ in range(until):
                if not runtime.stdout.readline():
                    break
                begun += 1
            if dice.random() < 0.7:
                runtime.send_signal(signal.SIGKILL)
                killed += 1
            else:
                begun += sum(1 for _ in runtime.stdout)
    return killed
