"""SCHED-7: what a runtime costs that has nothing to do."""

import resource
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Final

import anyio

from symbi.agent.journal import RunState
from symbi.bench.machine import describe_file_system
from symbi.bench.measure import Measurement, Scale, Target
from symbi.errors import InternalError
from symbi.testing.runtime import RunningRuntime, open_in

IDLE_S: Final = 60.0
SETTLE_S: Final = 3.0  # after the last work, for what follows it
AGENTS: Final = 10_000
AT_ONCE: Final = 200
_CONFIG: Final = """\
[limits]
memory_mb = 1000000000
cpu_cores = 65536.0
"""
_POLICIES: Final = "permit (principal, action, resource);"
_AGENT: Final = "agent idle() -> int { with sandbox = interpreter, timeout = 3000.seconds { 7 } }"


async def idle(scale: Scale) -> list[Measurement]:
    """Processor time over wall time while nothing is due, in a runtime that has worked before."""
    agents, seconds = scale.of(AGENTS, least=20), max(1.0, IDLE_S * scale.factor)
    with tempfile.TemporaryDirectory(prefix="symbi-bench-") as folder:
        on = describe_file_system(Path(folder))
        async with open_in(Path(folder), _AGENT, config=_CONFIG, policies=_POLICIES) as running:
            await _live(running, agents)
            await anyio.sleep(SETTLE_S)
            before, begun = resource.getrusage(resource.RUSAGE_SELF), perf_counter()
            await anyio.sleep(seconds)
            after, took_s = resource.getrusage(resource.RUSAGE_SELF), perf_counter() - begun
    spent_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    target = Target(0.5, at_least=False, note="ours; of one core")
    value = spent_s / took_s * 100
    row = Measurement(
        id="SCHED-7",
        metric=f"processor time of an idle runtime that has run {agents:,} agents",
        unit="%",
        value=value,
        p50=None,
        p95=None,
        p99=None,
        target=target.text("", "%"),
        met=target.met(value),
        n=agents,
        method=(
            f"open runtime, durable store on {on}; after its agents have worked, processor time of the process over wall time in"
            f" {took_s:.0f} s; it woke {after.ru_nvcsw - before.ru_nvcsw:,} times"
        ),
    )
    return [row]


async def _live(running: RunningRuntime, agents: int) -> None:
    numbers = iter(range(agents))
    spec = running.compiled.agents[0]

    async def in_turn() -> None:
        for number in numbers:
            outcome = await running.runtime.run(running.compiled, spec, {}, instance=str(number))
            if outcome.state is not RunState.FINISHED:
                msg = f"an agent is {outcome.state}"
                raise InternalError(msg)

    async with anyio.create_task_group() as tasks:
        for _ in range(AT_ONCE):
            tasks.start_soon(in_turn)
