"""What a benchmark yields: rows with their targets, and how samples become rows."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter_ns
from typing import Final

NS_PER: Final = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": 1_000_000_000}
"""Nanoseconds in each unit of time."""


@dataclass(frozen=True, slots=True)
class Target:
    """What a row is to reach.

    Attributes:
        bound: In the row's unit.
        at_least: True where more is better, False where the value has to stay below the bound.
        note: Whose target it is, and under which circumstances it was set.
    """

    bound: float
    at_least: bool
    note: str = ""

    def met(self, value: float) -> bool:
        """Whether a value reaches it."""
        return value >= self.bound if self.at_least else value < self.bound

    def text(self, judged: str, unit: str) -> str:
        """As people read it, e.g. `p99 < 0.2 ms (ours)`; `judged` is empty where there is one value only."""
        sign = ">=" if self.at_least else "<"
        return f"{judged} {sign} {self.bound:,g} {unit}{f' ({self.note})' if self.note else ''}".strip()


@dataclass(frozen=True, slots=True)
class Measurement:
    """One row.

    Attributes:
        id: Requirement that it measures.
        metric: What was measured, in a few words.
        unit: Of the value and the percentiles.
        value: What the target judges: a percentile of a latency, a rate, a size; None where it could not be measured.
        p50: Median of the samples; None for a rate. Likewise p95 and p99.
        target: Text of the target; None where none is set.
        met: Whether the value reaches it; None where none is set.
        n: Number of samples, or of operations behind a rate.
        method: How it was measured.
        machine: Where; filled in by the runner.
    """

    id: str
    metric: str
    unit: str
    value: float | None
    p50: float | None
    p95: float | None
    p99: float | None
    target: str | None
    met: bool | None
    n: int
    method: str
    machine: str = ""


@dataclass(frozen=True, slots=True)
class Scale:
    """How large a benchmark runs: 1 as published, less for a look or a test.

    Attributes:
        factor: Above 0, up to 1.
        keep: Folder in which what takes long to build stays, to be measured again; None for none.
    """

    factor: float = 1.0
    keep: Path | None = None

    def of(self, full: int, *, least: int = 1) -> int:
        """A number of operations, or a size, at this scale."""
        return min(full, max(least, round(full * self.factor)))

    def sizes(self, *full: int) -> tuple[int, ...]:
        """Those of several sizes that fit this scale; always the smallest."""
        largest = max(full) * self.factor
        return tuple(size for size in full if size <= largest) or (min(full),)


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile of samples in ascending order.

    Raises:
        ValueError: No samples.
    """
    if not ordered:
        msg = "no samples"
        raise ValueError(msg)
    rank = max(1, -(-len(ordered) * percent // 100))
    return ordered[int(rank) - 1]


def latency(
    id_: str,
    metric: str,
    samples_ns: Sequence[int],
    *,
    unit: str,
    judged: str = "p99",
    target: Target | None,
    method: str,
) -> Measurement:
    """A row of durations.

    Args:
        id_: Requirement.
        metric: What was measured.
        samples_ns: One duration each, in nanoseconds.
        unit: `us`, `ms` or `s`.
        judged: `p50`, `p95` or `p99`: what the value is.
        target: In the unit.
        method: How.
    """
    ordered = sorted(sample / NS_PER[unit] for sample in samples_ns)
    points = {name: percentile(ordered, percent) for name, percent in (("p50", 50), ("p95", 95), ("p99", 99))}
    value = points[judged]
    return Measurement(
        id=id_,
        metric=metric,
        unit=unit,
        value=value,
        p50=points["p50"],
        p95=points["p95"],
        p99=points["p99"],
        target=target.text(judged, unit) if target else None,
        met=target.met(value) if target else None,
        n=len(ordered),
        method=method,
    )


def rate(
    id_: str, metric: str, count: int, elapsed_ns: int, *, unit: str, target: Target | None, method: str
) -> Measurement:
    """A row of operations a second; `unit` names them, e.g. `events/s`."""
    value = count / (max(1, elapsed_ns) / NS_PER["s"])
    return single(id_, metric, value, unit=unit, n=count, target=target, method=method)


def single(
    id_: str, metric: str, value: float, *, unit: str, n: int, target: Target | None, method: str
) -> Measurement:
    """A row of one value, e.g. a size, that `n` things stand behind."""
    return Measurement(
        id=id_,
        metric=metric,
        unit=unit,
        value=value,
        p50=None,
        p95=None,
        p99=None,
        target=target.text("", unit) if target else None,
        met=target.met(value) if target else None,
        n=n,
        method=method,
    )


def missing(id_: str, metric: str, *, unit: str, why: str) -> Measurement:
    """A row of what could not be measured here: it says why, and has no number."""
    return Measurement(
        id=id_, metric=metric, unit=unit, value=None, p50=None, p95=None, p99=None, target=None, met=None, n=0, method=why
    )  # fmt: skip


def sample(operation: Callable[[int], object], count: int, *, warm: int = 0) -> list[int]:
    """Durations in nanoseconds of `operation(0)`, `operation(1)` …, after some that are not counted."""
    for number in range(warm):
        operation(number)
    durations = []
    for number in range(warm, warm + count):
        begun = perf_counter_ns()
        operation(number)
        durations.append(perf_counter_ns() - begun)
    return durations


async def sample_async(operation: Callable[[int], Awaitable[object]], count: int, *, warm: int = 0) -> list[int]:
    """Likewise, of awaited operations, one after the other."""
    for number in range(warm):
        await operation(number)
    durations = []
    for number in range(warm, warm + count):
        begun = perf_counter_ns()
        await operation(number)
        durations.append(perf_counter_ns() - begun)
    return durations
