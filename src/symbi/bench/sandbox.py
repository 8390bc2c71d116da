"""SBX-4: the interpreter sandbox, warm and cold."""

import os
from contextlib import suppress
from time import perf_counter_ns
from typing import Final

import anyio
import psutil

from symbi.bench.measure import Measurement, Scale, Target, latency, rate, sample_async, single
from symbi.errors import InternalError
from symbi.guard.action import ExecuteCode
from symbi.testing.contracts import SandboxUnderTest
from symbi.testing.sandbox import open_interpreter
from symbi.types import EffectId, JsonValue

_SUM: Final = "sum([n * n for n in numbers])"
_NUMBERS: Final[dict[str, JsonValue]] = {"numbers": list(range(10))}
_SQUARES: Final = 285
_LINES: Final[list[JsonValue]] = [
    f"10.0.0.{n % 50} GET /page/{n % 7} {500 if n % 10 == 0 else 200}" for n in range(1_000)
]
_COUNT: Final = """
counts = {}
for line in lines:
    parts = line.split(" ")
    if parts[3] == "500":
        counts[parts[2]] = counts.get(parts[2], 0) + 1
sum(counts.values())
"""


async def sandbox(scale: Scale) -> list[Measurement]:
    """Warm runs of two sizes, how many there are in a second, a driver's start with its first run, and an idle worker."""
    rows = []
    async with open_interpreter() as under_test:
        small = await sample_async(
            lambda _: _run(under_test, _SUM, _NUMBERS, _SQUARES), scale.of(2_000, least=10), warm=scale.of(50, least=2)
        )
        large = await sample_async(
            lambda _: _run(under_test, _COUNT, {"lines": _LINES}, 100), scale.of(300, least=5), warm=2
        )
    warm = "one worker; a session of its own for each run, limits set, permit redeemed; without gate and trail"
    target = Target(1.0, at_least=False, note="ours")
    rows.append(latency("SBX-4", "warm run, a sum", small, unit="ms", judged="p50", target=target, method=warm))
    rows.append(
        latency("SBX-4", "warm run, counting in 1,000 lines", large, unit="ms", judged="p50", target=None, method=warm)
    )
    cold = [await _cold() for _ in range(scale.of(30, least=2))]
    method = "a driver with one worker is started and runs once; its end is not counted"
    rows.append(latency("SBX-4", "cold start and first run", cold, unit="ms", judged="p50", target=None, method=method))
    return [*rows, *[await _many(workers, scale) for workers in sorted({1, _cores()})], await _idle(scale)]


async def _many(workers: int, scale: Scale) -> Measurement:
    """Runs in a second, where there is always one that waits for a worker."""
    each = scale.of(2_000, least=10)

    async def in_a_row(count: int) -> None:
        for _ in range(count):
            await _run(under_test, _SUM, _NUMBERS, _SQUARES)

    async def at_once(count: int) -> int:
        begun = perf_counter_ns()
        async with anyio.create_task_group() as tasks:
            for _ in range(workers + 1):
                tasks.start_soon(in_a_row, count)
        return perf_counter_ns() - begun

    async with open_interpreter(workers=workers) as under_test:
        await at_once(scale.of(50, least=2))  # so that all workers are there
        elapsed = await at_once(each)
    method = (
        "as warm runs, a sum each; one run more at a time than there are workers, from the first to the last answer"
    )
    name = f"warm runs, {workers} worker{'s' if workers > 1 else ''}"
    return rate("SBX-4", name, each * (workers + 1), elapsed, unit="runs/s", target=None, method=method)


async def _idle(scale: Scale) -> Measurement:
    """Memory of a worker that has run once and waits."""
    sizes = []
    for _ in range(scale.of(5)):
        before = _below()
        async with open_interpreter() as under_test:
            await _run(under_test, _SUM, _NUMBERS, _SQUARES)
            sizes.append(sum(mib for pid, mib in _below().items() if pid not in before))
    mean, method = (
        sum(sizes) / len(sizes),
        "proportional set size of its process, where the machine tells; else the unique",
    )
    return single("SBX-4", "memory of an idle worker", mean, unit="MiB", n=len(sizes), target=None, method=method)


def _below() -> dict[int, float]:
    """Mebibytes of each process that descends from this one."""
    found: dict[int, float] = {}
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            memory = process.memory_full_info()
            found[process.pid] = getattr(memory, "pss", memory.uss) / 2**20
    return found


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


async def _run(under_test: SandboxUnderTest, code: str, inputs: dict[str, JsonValue], expected: JsonValue) -> None:
    action: ExecuteCode = under_test.action(code, inputs)
    permit = under_test.authority.mint(EffectId("bench"), action)
    result = await under_test.driver.run(permit)
    under_test.authority.close(permit)
    if result.value != expected:
        msg = f"the measured code gave {result.value!r} instead of {expected!r}"
        raise InternalError(msg)


async def _cold() -> int:
    begun = perf_counter_ns()
    async with open_interpreter() as under_test:
        await _run(under_test, _SUM, _NUMBERS, _SQUARES)
        return perf_counter_ns() - begun
