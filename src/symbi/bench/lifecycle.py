"""LIFE-5: an agent's start-up, in this process."""

import tempfile
from pathlib import Path
from time import perf_counter_ns
from typing import Final

from symbi.agent.journal import RunState
from symbi.bench.machine import describe_file_system
from symbi.bench.measure import Measurement, Scale, Target, latency
from symbi.errors import InternalError
from symbi.testing.runtime import RunningRuntime, open_in

_AGENT: Final = """\
agent bench() -> int {
    policy start {
        allow: allocate(pool)
    }
    with sandbox = interpreter { 7 }
}
"""
_POLICIES: Final = 'permit (principal, action == Action::"CreateAgent", resource);'
_ANSWER: Final = 7


async def lifecycle(scale: Scale) -> list[Measurement]:
    """Start-up and whole life of an agent whose body is one number."""
    first: list[int] = []

    def probe(point: str) -> None:
        if point == "working":
            first.append(perf_counter_ns())

    starts, lives = [], []
    with tempfile.TemporaryDirectory(prefix="symbi-bench-") as folder:
        on = describe_file_system(Path(folder))
        async with open_in(Path(folder), _AGENT, policies=_POLICIES, probe=probe) as running:
            for number in range(-scale.of(5), scale.of(500, least=3)):
                first.clear()
                begun = perf_counter_ns()
                await _live(running)
                if number >= 0:  # those before it only warm up
                    lives.append(perf_counter_ns() - begun)
                    starts.append(first[0] - begun)
    method = (
        f"in an open runtime, durable store on {on}, no tool server; start-up: run recorded, risk assessed, policies put"
        " in force, creation and resources decided by the gate, until the body's first step; life: until its end is"
        " recorded"
    )
    target = Target(5.0, at_least=False, note="ours, in process")
    return [
        latency("LIFE-5", "start-up of an agent", starts, unit="ms", target=target, method=method),
        latency("LIFE-5", "life of an agent with an empty body", lives, unit="ms", target=None, method=method),
    ]


async def _live(running: RunningRuntime) -> None:
    outcome = await running.runtime.run(running.compiled, running.compiled.agents[0], {})
    if outcome.state is not RunState.FINISHED or outcome.output != _ANSWER:
        msg = f"the measured agent is {outcome.state} with {outcome.output!r}"
        raise InternalError(msg)
