"""Which benchmarks there are, and running them."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeAlias

import anyio

from symbi.bench.audit import audit
from symbi.bench.audit_query import audit_query
from symbi.bench.bus import cost, throughput
from symbi.bench.containers import containers
from symbi.bench.context import context
from symbi.bench.crypto import crypto
from symbi.bench.embedding import embedding
from symbi.bench.gateway import gateway
from symbi.bench.idle import idle
from symbi.bench.lifecycle import lifecycle
from symbi.bench.machine import describe_machine
from symbi.bench.measure import Measurement, Scale
from symbi.bench.policy import policy
from symbi.bench.population import idle_memory, population
from symbi.bench.preemption import preemption
from symbi.bench.rag import rag
from symbi.bench.sandbox import sandbox
from symbi.bench.scheduler import scheduler
from symbi.bench.stall import stall
from symbi.bench.vectors import search, smaller, update
from symbi.errors import InputError, did_you_mean

Run: TypeAlias = Callable[[Scale], Awaitable[list[Measurement]]]


@dataclass(frozen=True, slots=True)
class Benchmark:
    """The rows of one requirement.

    Attributes:
        id: The requirement.
        title: What is measured, in a few words.
        run: Measures at a scale.
    """

    id: str
    title: str
    run: Run


async def trail(scale: Scale) -> list[Measurement]:
    """Writing and verifying a trail, and questions to a long one."""
    return [*await audit(scale), *await audit_query(scale)]


async def startup(scale: Scale) -> list[Measurement]:
    """Start-up of an agent in this process, and of code in containers."""
    return [*await lifecycle(scale), *await containers(scale)]


BENCHMARKS: Final = (
    Benchmark("POL-5", "policy decisions", policy),
    Benchmark("AUD-4", "audit trail", trail),
    Benchmark("SBX-4", "interpreter sandbox", sandbox),
    Benchmark("SCHED-2", "a population of agents", population),
    Benchmark("SCHED-3", "scheduling decisions", scheduler),
    Benchmark("SCHED-4", "preemption", preemption),
    Benchmark("SCHED-7", "an idle runtime", idle),
    Benchmark("LIFE-5", "agent start-up", startup),
    Benchmark("LIFE-6", "memory of an agent", idle_memory),
    Benchmark("RES-4", "pauses and leaks", stall),
    Benchmark("BUS-4", "throughput of messages", throughput),
    Benchmark("BUS-5", "cost of a message", cost),
    Benchmark("CTX-2", "retrieval from memory", context),
    Benchmark("KNOW-2", "search among vectors", search),
    Benchmark("KNOW-3", "updates of vectors", update),
    Benchmark("KNOW-4", "smaller vectors", smaller),
    Benchmark("KNOW-5", "questions to knowledge", rag),
    Benchmark("KNOW-6", "the built-in embedder", embedding),
    Benchmark("MCP-3", "the MCP gateway", gateway),
    Benchmark("CRY-1", "cryptography of an event", crypto),
)
"""In the order in which they run."""


def choose(only: Sequence[str] = ()) -> tuple[Benchmark, ...]:
    """The benchmarks with these ids, in their own order; all if none is named.

    Raises:
        InputError: There is none for an id.
    """
    known = {benchmark.id: benchmark for benchmark in BENCHMARKS}
    for name in only:
        if name not in known:
            msg = f"there is no benchmark `{name}`"
            hint = did_you_mean(name.upper(), known) or f"there are {', '.join(known)}"
            raise InputError(msg, code="input.benchmark", hint=hint)
    return tuple(benchmark for benchmark in BENCHMARKS if not only or benchmark.id in only)


def run_benchmarks(
    only: Sequence[str] = (),
    *,
    scale: float = 1.0,
    keep: Path | None = None,
    progress: Callable[[Benchmark], None] | None = None,
) -> list[Measurement]:
    """Run benchmarks one after the other, each in an event loop of its own.

    Args:
        only: Ids; all if empty.
        scale: 1 as published; less for a look.
        keep: Folder in which what takes long to build stays, to be measured again; None for none.
        progress: Told of each before it runs.

    Raises:
        InputError: There is no benchmark for an id, or the scale is not above 0 and up to 1.
    """
    if not 0 < scale <= 1:
        msg = f"the scale must be above 0 and at most 1, not `{scale}`"
        raise InputError(msg, code="input.benchmark")
    machine = describe_machine()
    rows: list[Measurement] = []
    for benchmark in choose(only):
        if progress is not None:
            progress(benchmark)
        rows += [replace(row, machine=machine) for row in anyio.run(benchmark.run, Scale(scale, keep))]
    return rows
