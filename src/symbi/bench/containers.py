"""LIFE-5: the container tiers, cold and warm, beside plain `docker run` on the same engine."""

import logging
import os
import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter_ns
from typing import Final

import anyio
from anyio import to_thread

from symbi.bench.measure import Measurement, Scale, Target, latency, single
from symbi.clock import SystemClock
from symbi.errors import InternalError, SandboxUnavailable
from symbi.testing.docker_engine import DockerEngine
from symbi.testing.sandbox import RUNTIMES, ContainersUnderTest, open_containers
from symbi.types import EffectId, SecurityTier

LEAST_SCALE: Final = 0.02  # below it a look is not worth an engine's start
SAMPLES: Final = 30
IDLE: Final = 5  # sandboxes whose memory is measured
READY_S: Final = 120.0  # until what is kept ready is ready
PLAIN_S: Final = 60.0  # one `docker run`

_CODE: Final = (
    "import time\ntime.time_ns() // 1000"  # when the code began, in whole microseconds: JSON holds them exactly
)

_log = logging.getLogger("symbi.bench")


@dataclass(frozen=True, slots=True)
class _Times:
    """Of some runs, in nanoseconds each: until the code began, and until the sandbox was gone."""

    starts: list[int]
    wholes: list[int]


async def containers(scale: Scale) -> list[Measurement]:
    """Both tiers on an engine of our own; nothing where there is none, or at a scale that is not worth its start."""
    missing = [name for name in ("dockerd", "runsc", "docker") if shutil.which(name) is None]
    if scale.factor < LEAST_SCALE or missing or os.geteuid() != 0:
        _log.info(
            "container tiers are not measured: %s", ", ".join(missing) or "it takes root, and a scale from 0.02 on"
        )
        return []
    docker = DockerEngine()
    try:
        try:
            await to_thread.run_sync(docker.__enter__)
        except SandboxUnavailable as error:
            _log.warning("container tiers are not measured: %s", error)
            return []
        await to_thread.run_sync(docker.import_python)
        return [row for tier in RUNTIMES for row in await _tier(docker, tier, scale)]
    finally:
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(docker.__exit__, None, None, None)


async def _tier(docker: DockerEngine, tier: SecurityTier, scale: Scale) -> list[Measurement]:
    count = scale.of(SAMPLES, least=2)
    cold, plain, warm = _Times([], []), [], _Times([], [])
    async with open_containers(docker, tier, warm=0) as under_test:
        for number in range(-1, count):  # one after the other, so that both meet the same machine
            took = await to_thread.run_sync(_plain, docker, RUNTIMES[tier])
            await _run(under_test, cold, warm=False, counted=number >= 0)
            if number >= 0:
                plain.append(took)
    async with open_containers(docker, tier, warm=1) as under_test:
        for number in range(-1, count):
            await _filled(under_test)
            await _run(under_test, warm, warm=True, counted=number >= 0)
    async with open_containers(docker, tier, warm=IDLE) as under_test:
        await _filled(under_test)
        idle = [
            await to_thread.run_sync(_memory_mib, container, first)
            for container, first in (await under_test.first_processes()).items()
        ]
    runtime = RUNTIMES[tier]
    until = f"{runtime}, limits and filter set, looked at from inside; until the first line of the code; one at a time"
    judged = tier is SecurityTier.TIER2
    cold_target = Target(300.0, at_least=False, note="ours, cold gVisor") if judged else None
    warm_target = Target(50.0, at_least=False, note="ours, warm gVisor") if judged else None
    whole = f"{runtime}; from the request until value and output are there and the container is removed"
    raw = (
        f"`docker run --rm --network none --runtime {runtime}` of Python with the same line, in turn with our cold runs"
    )
    size = "proportional set size of its processes on the host (shim, runner, gVisor's kernel), kept ready and idle"
    return [
        latency("LIFE-5", f"start-up in a cold `{tier}` sandbox", cold.starts, unit="ms", target=cold_target, method=until),
        latency("LIFE-5", f"start-up in a warm `{tier}` sandbox", warm.starts, unit="ms", target=warm_target, method=until),
        latency("LIFE-5", f"whole run in a cold `{tier}` sandbox", cold.wholes, unit="ms", target=None, method=whole),
        latency("LIFE-5", f"whole run in a warm `{tier}` sandbox", warm.wholes, unit="ms", target=None, method=whole),
        latency("LIFE-5", f"plain `docker run` with {runtime}", plain, unit="ms", target=None, method=raw),
        single(
            "LIFE-5", f"memory of an idle `{tier}` sandbox", sum(idle) / len(idle),
            unit="MiB", n=len(idle), target=None, method=size,
        ),
    ]  # fmt: skip


async def _filled(under_test: ContainersUnderTest) -> None:
    with anyio.fail_after(READY_S):
        await under_test.driver.filled()


async def _run(under_test: ContainersUnderTest, times: _Times, *, warm: bool, counted: bool) -> None:
    permit = under_test.sandbox.authority.mint(EffectId("bench"), under_test.sandbox.action(_CODE))
    clock = SystemClock()
    begun_ns, counter = clock.now_ns(), perf_counter_ns()
    result = await under_test.driver.run(permit)
    whole = perf_counter_ns() - counter
    noted = permit.noted["sandbox"]
    if not isinstance(noted, dict) or noted.get("warm") is not warm or not isinstance(result.value, int):
        msg = f"the measured run was not {'warm' if warm else 'cold'}: {noted}"
        raise InternalError(msg)
    if counted:
        times.starts.append(result.value * 1000 - begun_ns)
        times.wholes.append(whole)


def _plain(docker: DockerEngine, runtime: str) -> int:
    begun = perf_counter_ns()
    docker_run = [shutil.which("docker") or "docker", "-H", docker.host, "run", "--rm", "--network", "none"]
    code = f"{_CODE.splitlines()[0]}; print(time.time_ns())"
    subprocess.run(  # noqa: S603 - a program of this machine
        [*docker_run, "--runtime", runtime, docker.image, "python3", "-I", "-B", "-c", code],
        check=True,
        capture_output=True,
        timeout=PLAIN_S,
    )
    return perf_counter_ns() - begun


def _memory_mib(container: str, first: int) -> float:
    """Memory that the processes of a container take on the host, what they share with others in proportion."""
    parents, named = _processes(container)
    ours = {*named, str(first)}
    while more := {pid for pid, parent in parents.items() if parent in ours} - ours:
        ours |= more
    kib = 0
    for pid in ours:
        with suppress(OSError):
            rollup = Path("/proc", pid, "smaps_rollup").read_text(encoding="utf-8")
            kib += next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    return kib / 1024


def _processes(container: str) -> tuple[dict[str, str], set[str]]:
    """The parent of each process, and the processes whose command line names a container."""
    parents, named = {}, set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                parents[entry.name] = (entry / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1]
                if container.encode() in (entry / "cmdline").read_bytes():
                    named.add(entry.name)
    return parents, named
