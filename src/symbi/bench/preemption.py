"""SCHED-4: a critical agent starts on a pool that is full of others at work."""

import tempfile
from pathlib import Path
from time import perf_counter_ns
from typing import Final

import anyio

from symbi.agent.journal import RunState
from symbi.bench.machine import describe_file_system
from symbi.bench.measure import Measurement, Scale, Target, latency
from symbi.errors import InternalError
from symbi.testing.runtime import RunningRuntime, open_in

AT_WORK: Final = 8
BATCH: Final = 20  # starts beside the same agents: fewer than they can be suspended for
_MEMORY_MIB: Final = 64  # of each agent
_POLICIES: Final = "permit (principal, action, resource);"
_CONFIG: Final = f"""\
[limits]
memory_mb = {AT_WORK * _MEMORY_MIB}
cpu_cores = 64.0
steps = 1000000000
[agents.urgent]
priority = "critical"
"""
_METHOD: Final = (
    f"an open runtime, durable store on {{on}}; {AT_WORK} agents that hold the whole pool write one log line after the"
    " other, each through the gate; a critical agent is run, from the call until its first step; one of the others is"
    " suspended for it at its next effect boundary, and resumed after it; beside it the same agent on an empty pool"
)


def _agents() -> str:
    body = 'for n in range(10000) { log("at work"); }'
    workers = "".join(
        f"agent w{n} {{ with sandbox = interpreter, timeout = 3000.seconds {{ {body} }} }}\n" for n in range(AT_WORK)
    )
    return workers + 'agent urgent { with sandbox = interpreter { log("urgent"); } }\n'


async def preemption(scale: Scale) -> list[Measurement]:
    """Start-up of a critical agent, on an empty pool and on a full one."""
    with tempfile.TemporaryDirectory(prefix="symbi-bench-") as folder:
        method = _METHOD.format(on=describe_file_system(Path(folder)))
        said: list[int] = []

        def emit(agent: str, _text: str) -> None:
            if agent == "urgent":
                said.append(perf_counter_ns())

        async with open_in(Path(folder), _agents(), config=_CONFIG, policies=_POLICIES, emit=emit) as running:
            alone = await _starts(running, said, scale.of(100, least=3))
            full: list[int] = []
            wanted = scale.of(200, least=3)
            while len(full) < wanted:
                full += await _on_full_pool(running, said, min(BATCH, wanted - len(full)))
    target = Target(50.0, at_least=False, note="ours")
    return [
        latency("SCHED-4", "first step of a critical agent, full pool", full, unit="ms", target=target, method=method),
        latency("SCHED-4", "first step of the same agent, empty pool", alone, unit="ms", target=None, method=method),
    ]


async def _on_full_pool(running: RunningRuntime, said: list[int], count: int) -> list[int]:
    """Starts beside agents that hold the whole pool; new ones each time, for nobody is suspended for ever more."""
    async with anyio.create_task_group() as tasks:
        for number in range(AT_WORK):
            tasks.start_soon(_run, running, f"w{number}")
        while (await running.runtime.get_system_status()).running < AT_WORK:
            await anyio.lowlevel.checkpoint()
        await _starts(running, said, 1)  # which finds some of them still beginning
        durations = await _starts(running, said, count)
        tasks.cancel_scope.cancel("measured")
    return durations


async def _starts(running: RunningRuntime, said: list[int], count: int) -> list[int]:
    durations = []
    for _ in range(count):
        said.clear()
        begun = perf_counter_ns()
        outcome = await _run(running, "urgent")
        if outcome is not RunState.FINISHED or len(said) != 1:
            msg = f"the critical agent is {outcome} and said {len(said)} lines"
            raise InternalError(msg)
        durations.append(said[0] - begun)
    return durations


async def _run(running: RunningRuntime, name: str) -> RunState:
    spec = next(agent for agent in running.compiled.agents if agent.id == name)
    return (await running.runtime.run(running.compiled, spec, {})).state
