"""RES-4: how late the event loop comes while ten thousand agents are at work, and whether agents that ended leave anything."""

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from time import perf_counter_ns
from typing import Final

import anyio
import anyio.lowlevel

from symbi.agent.journal import RunState
from symbi.bench.machine import describe_file_system, resident_bytes
from symbi.bench.measure import Measurement, Scale, Target, latency, percentile, single
from symbi.errors import InternalError
from symbi.testing.runtime import RunningRuntime, open_in

AT_WORK: Final = 10_000
LIVES: Final = 100_000
BATCH: Final = 10_000  # lives between two looks at the memory
AT_ONCE: Final = 100
BEAT_S: Final = 0.005  # of the timer whose lateness is measured
STEPS: Final = 3  # lines that each agent writes, with a computation before each
_CONFIG: Final = """\
[limits]
memory_mb = 1000000000
cpu_cores = 65536.0
"""
_POLICIES: Final = "permit (principal, action, resource);"
_AGENT: Final = f"""\
agent busy() -> int {{
    with sandbox = interpreter, timeout = 3000.seconds {{
        let sum = 0;
        for n in range({STEPS}) {{
            for m in range(20) {{ sum += m; }}
            log("at work");
        }}
        sum
    }}
}}
agent brief() -> int {{
    with sandbox = interpreter, timeout = 3000.seconds {{ 7 }}
}}
"""


async def stall(scale: Scale) -> list[Measurement]:
    """Lateness of the loop among agents at work, and the memory that is left after many lives."""
    with tempfile.TemporaryDirectory(prefix="symbi-bench-") as folder:
        on = describe_file_system(Path(folder))
        async with open_in(Path(folder), _AGENT, config=_CONFIG, policies=_POLICIES) as running:
            late = await _lateness(running, scale.of(AT_WORK, least=50))
        async with open_in(Path(folder) / "lives", _AGENT, config=_CONFIG, policies=_POLICIES) as running:
            sizes = await _sizes(running, scale.of(LIVES, least=400))
    return [_late_row(late, scale.of(AT_WORK, least=50), on), _leak_row(sizes, scale.of(LIVES, least=400), on)]


async def _lateness(running: RunningRuntime, count: int) -> list[int]:
    """How late a timer came, in nanoseconds, from when the first of some agents began until the last one ended."""
    late: list[int] = []

    async def beat() -> None:
        while True:
            due = perf_counter_ns() + round(BEAT_S * 1e9)
            await anyio.sleep(BEAT_S)
            late.append(max(0, perf_counter_ns() - due))

    async with anyio.create_task_group() as beating:
        beating.start_soon(beat)
        await anyio.sleep(10 * BEAT_S)
        late.clear()
        async with anyio.create_task_group() as tasks:
            for number in range(count):
                tasks.start_soon(_live, running, "busy", STEPS * sum(range(20)), number)
                await anyio.lowlevel.checkpoint()  # they do not come in one turn of the loop
        beating.cancel_scope.cancel("measured")
    return late


async def _sizes(running: RunningRuntime, lives: int) -> list[int]:
    """Resident memory in bytes after each tenth of the lives."""
    sizes = []
    each = min(BATCH, max(1, lives // 10))
    for _ in range(lives // each):
        numbers = iter(range(each))
        async with anyio.create_task_group() as tasks:
            for _ in range(AT_ONCE):
                tasks.start_soon(_live_in_turn, running, numbers)
        sizes.append(resident_bytes())
    return sizes


async def _live_in_turn(running: RunningRuntime, numbers: Iterator[int]) -> None:
    for number in numbers:
        await _live(running, "brief", 7, number)


async def _live(running: RunningRuntime, name: str, answer: int, number: int) -> None:
    spec = next(agent for agent in running.compiled.agents if agent.id == name)
    outcome = await running.runtime.run(running.compiled, spec, {}, instance=str(number))
    if outcome.state is not RunState.FINISHED or outcome.output != answer:
        msg = f"the measured agent is {outcome.state} with {outcome.output!r}: {outcome.error}"
        raise InternalError(msg)


def _late_row(late: list[int], count: int, on: str) -> Measurement:
    ordered = sorted(late)
    method = (
        f"open runtime, durable store on {on}; as many runs at once, each of {STEPS} computations and {STEPS} lines through"
        f" the gate; a timer of {BEAT_S * 1000:g} ms, how late it comes, from the first begin to the last end; the longest"
        f" was {ordered[-1] / 1e6:.0f} ms"
    )
    row = latency(
        "RES-4", f"lateness of the event loop, {count:,} agents at work", ordered, unit="ms", target=None, method=method
    )
    target = Target(20.0, at_least=False, note="ours")
    value = percentile(ordered, 99.9) / 1e6
    return replace(row, value=value, target=target.text("p99.9", "ms"), met=target.met(value))


def _leak_row(sizes: list[int], lives: int, on: str) -> Measurement:
    middle = len(sizes) // 2
    first, last = sum(sizes[1:middle]) / max(1, middle - 1), sum(sizes[middle:]) / (len(sizes) - middle)
    method = (
        f"open runtime, durable store on {on}; {AT_ONCE} at a time; resident memory after each tenth, mean of the second half"
        f" over that of the first without its beginning; from {sizes[0] / 2**20:.0f} to {sizes[-1] / 2**20:.0f} MiB"
    )
    return single(
        "RES-4", f"growth of memory over {lives:,} agents that came and went", max((last / (first or 1) - 1) * 100, 0.001),
        unit="%", n=lives, target=Target(5.0, at_least=False, note="ours") if lives >= LIVES else None, method=method,
    )  # fmt: skip
