"""SBX-4: the interpreter sandbox, warm and cold."""

from time import perf_counter_ns
from typing import Final

from symbi.bench.measure import Measurement, Scale, Target, latency, sample_async
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
    """Warm runs of two sizes, and the start of a driver with its first run."""
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
    return rows


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
