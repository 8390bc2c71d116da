"""KNOW-2: search among a million vectors; KNOW-3: how soon one is found; KNOW-4: how much smaller they are.

All of it through the port, in the engine's own process, with a namespace in every query, as agents ask.
"""

import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from os import getloadavg
from pathlib import Path
from time import perf_counter_ns
from typing import Any, Final
from uuid import UUID

import anyio
import numpy as np
import psutil
from numpy.typing import NDArray

from symbi.bench.kept import Kept, keep
from symbi.bench.machine import describe_file_system
from symbi.bench.measure import Measurement, Scale, Target, latency, rate, sample_async, single
from symbi.bench.vector_data import BLOCK, DIMENSION, blocks, exact, queries
from symbi.errors import InternalError
from symbi.guard.actions.data import DataRef
from symbi.knowledge.config import Quantization, VectorConfig
from symbi.knowledge.vectors import Between, Filter, Namespace, Scope, VectorPoint, VectorQuery, VectorSpace
from symbi.testing.contracts_vectors import Permits, open_permits
from symbi.testing.edge import EdgeVectors, edge_vectors

VECTORS: Final = 1_000_000  # at full scale
SMALLER: Final = 100_000  # of KNOW-3 and KNOW-4
LEAST: Final = 600
BATCH: Final = 2_000  # points that are handed over together
QUERIES: Final = 200
UPDATES: Final = 500
ROUNDS: Final = 5  # in which each query is measured
K: Final = 10
BYTES_WHILE_BUILT: Final = (
    25_000  # of one vector: whole and quantised, in the index, its copy, and what is made of that
)
BUSY: Final = 2.0  # processes that want a core, beyond which it is said of a measurement
SELECTED: Final = (100, 50, 10, 1)  # percent of the vectors that a filter leaves
OVERSAMPLED: Final = (1, 2, 4)
DATA: Final = DataRef("Knowledge", "bench")
SPACE_NAME: Final = Namespace("Knowledge", "bench")
SPACE: Final = VectorSpace("synthetic", "0" * 64, DIMENSION)

_QUICK: Final = Target(50, at_least=False, note="ours")
_FOUND: Final = Target(95, at_least=True, note="ours")
_SOON: Final = Target(10, at_least=False, note="ours")
_SMALL: Final = Target(87, at_least=True, note="ours")
_KEPT: Final = Target(98, at_least=True, note="ours")


@dataclass(frozen=True, slots=True)
class Asked:
    """What is looked for, and what is right.

    Attributes:
        wanted: One query in each row.
        right: Numbers of the nearest, by the percentage of the vectors that is looked at.
    """

    wanted: NDArray[np.float32]
    right: dict[int, NDArray[np.int64]]


@dataclass(frozen=True, slots=True)
class Bench:
    """An index with vectors in it, and what is asked of it.

    Attributes:
        index: The index.
        permits: For its data.
        asked: What is looked for.
        how: What is in it, for the rows.
    """

    index: EdgeVectors
    permits: Permits
    asked: Asked
    how: str

    async def measure(self) -> list[Measurement]:
        """Rows of an index that is in order."""
        rows = await self.compare("graph", (_QUICK, _FOUND))
        for oversampling in OVERSAMPLED:
            rows += await self.compare(f"graph, oversampling {oversampling}", oversampling=oversampling)
        for percent in SELECTED[1:]:
            rows += await self.compare(f"graph, a filter leaves {percent} %", (_QUICK, _FOUND), percent=percent)
        stats = await self.index.stats()
        memory = psutil.Process(self.index.engine_pid).memory_info()
        mib, count = 2**20, stats.points
        own = memory.rss - getattr(memory, "shared", 0)
        kept = "resident; the system takes back what it has of files when it needs room"
        return [
            *rows,
            single("KNOW-2", "disk", stats.disk_bytes / mib, unit="MiB", n=count, target=None, method=self.how),
            single(
                "KNOW-2", "memory of the engine, its own", own / mib, unit="MiB", n=count, target=None,
                method="resident and not shared with files",
            ),
            single(
                "KNOW-2", "memory of the engine, with its files", memory.rss / mib, unit="MiB", n=count, target=None,
                method=kept,
            ),
        ]  # fmt: skip

    async def compare(
        self,
        name: str,
        targets: tuple[Target | None, Target | None] = (None, None),
        *,
        oversampling: float | None = None,
        percent: int = 100,
        rounds: int = ROUNDS,
    ) -> list[Measurement]:
        """How long queries take, and how much of what is right they find."""
        left = Filter(() if percent == 100 else (Between("time", None, percent - 1),))  # noqa: PLR2004 - all of them
        scope, read = Scope((SPACE_NAME,), left), self.permits.read(DATA)
        wanted = [VectorQuery(one, K, scope, oversampling=oversampling) for one in self.asked.wanted]
        found: dict[int, set[int]] = {}

        async def one(number: int) -> None:
            at = number % len(wanted)
            found[at] = {hit.id.int for hit in await self.index.query(read, wanted[at])}

        samples = await sample_async(one, rounds * len(wanted), warm=len(wanted))
        right = sum(len(set(row.tolist()) & found[at]) for at, row in enumerate(self.asked.right[percent]))
        return [
            latency(
                "KNOW-2", f"query, {name}", samples, unit="ms", target=targets[0],
                method=f"{self.how}; {K} hits, one query after another, each asked once before",
            ),
            single(
                "KNOW-2", f"recall@{K}, {name}", 100 * right / (K * len(wanted)), unit="%", n=len(wanted),
                target=targets[1], method="of what comparing with every vector finds",
            ),
        ]  # fmt: skip


async def search(scale: Scale) -> list[Measurement]:
    """KNOW-2: building, searching by scan and by graph, with filters, and what it takes."""
    count = scale.of(VECTORS, least=LEAST)
    permits = open_permits()
    with keep(scale.keep, f"vectors-{count}", count * BYTES_WHILE_BUILT) as kept:
        async with edge_vectors(permits, kept.folder / "index", SPACE) as index:
            how = f"{count:,} clustered vectors of {DIMENSION:,} dimensions on {describe_file_system(kept.folder)}"
            bench = Bench(index, permits, _asked(kept.folder / "asked.npz", count), how)
            if not kept.built.rows:
                kept.done(await _build(bench, kept, count))
            return [*kept.built.rows, *await bench.measure()]


async def _build(bench: Bench, kept: Kept, count: int) -> list[Measurement]:
    """Put the vectors in, as far as they are not there yet, and the index in order."""
    index, permits = bench.index, bench.permits
    there = await index.count(permits.read(DATA), Scope((SPACE_NAME,)))
    begun = perf_counter_ns()
    for number in range(there // BLOCK, -(-count // BLOCK)):
        await fill(index, permits, min(count, (number + 1) * BLOCK), skip=number)
        begun = kept.note(begun, getloadavg()[0])
    rows = [
        rate(
            "KNOW-2", "vectors put in", count, kept.built.took_ns, unit="vectors/s", target=None,
            method=f"{bench.how}, {BATCH:,} a call, and made meanwhile; each call is in the engine's log before it returns{_told(kept.built.load)}",
        ),
        *await bench.compare("scan", rounds=1),  # a tenth of a second each among a million
    ]  # fmt: skip
    begun = perf_counter_ns()
    await index.optimize()
    took_s = (perf_counter_ns() - begun) / 1e9
    told = _told(max(kept.built.load, getloadavg()[0]))
    how = f"m = 16, ef_construct = 200, on a copy in a process of its own while reads and writes go on{told}"
    return [*rows, single("KNOW-2", "graph built", took_s, unit="s", n=count, target=None, method=how)]


def _told(load: float) -> str:
    """Of a busy machine, that it was one: what is kept was not built when it is measured."""
    return f"; {load:.0f} processes wanted a core meanwhile" if load > BUSY else ""


async def update(scale: Scale) -> list[Measurement]:
    """KNOW-3: from handing a vector over to having found it, idle and while the index is put in order."""
    count, updates = scale.of(SMALLER, least=LEAST), scale.of(UPDATES, least=20)
    async with _index(VectorConfig(scan_below=170)) as (index, permits, folder):
        await fill(index, permits, count)
        await index.optimize()
        fresh = queries(3 * updates)
        write, read = permits.write(DATA), permits.read(DATA)

        async def one(number: int) -> None:
            point = VectorPoint(UUID(int=2**64 + number), fresh[number], SPACE_NAME, {"time": 0})
            await index.upsert(write, [point])
            (hit,) = await index.query(read, VectorQuery(point.vector, 1, Scope((SPACE_NAME,))))
            if hit.id != point.id:
                msg = "a vector that was put in is not found"
                raise InternalError(msg)

        how = f"put into {count:,} on {describe_file_system(folder)}, and found by a query for it"
        idle = await sample_async(one, updates, warm=20)
        rows = [latency("KNOW-3", "an update is found", idle, unit="ms", target=_SOON, method=how)]
        await fill(index, permits, max(LEAST, count // 10), first=2**40)  # so that there is something to do
        busy: list[int] = []
        ended = anyio.Event()

        async def optimize() -> None:
            await index.optimize()
            ended.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(optimize)
            while not ended.is_set() and len(busy) < updates:
                taken = await sample_async(partial(_shifted, one, updates + 20 + len(busy)), 1)
                if (await index.stats()).optimizing:
                    busy += taken
        if busy:
            rows.append(
                latency(
                    "KNOW-3",
                    "an update is found while the index is put in order",
                    busy,
                    unit="ms",
                    target=None,
                    method=how,
                )
            )
        return rows


async def smaller(scale: Scale) -> list[Measurement]:
    """KNOW-4: what quantisation saves, and what it loses beside a graph of whole vectors."""
    count = scale.of(SMALLER, least=LEAST)
    asked, found, size, how = ask(count), {}, {}, f"{count:,} clustered vectors of {DIMENSION:,} dimensions"
    for kind in (Quantization.NONE, Quantization.TURBO4):
        async with _index(VectorConfig(quantization=kind, scan_below=170)) as (index, permits, folder):
            await fill(index, permits, count)
            await index.optimize()
            _, recall = await Bench(index, permits, asked, how).compare("graph")
            found[kind] = recall.value or 0.0
            size[kind] = _vector_bytes(folder, "quantized" if kind is Quantization.TURBO4 else "vectors")
    saved = 100 * (1 - size[Quantization.TURBO4] / (4 * DIMENSION * count))
    return [
        single(
            "KNOW-4", "how much smaller a vector is that a search goes through", saved, unit="%", n=count, target=_SMALL,
            method=f"{how}: files of the quantised ones beside four bytes a number; whole ones stay on the disk for the last step",
        ),
        single(
            "KNOW-4", "recall kept, of that of whole vectors", 100 * found[Quantization.TURBO4] / found[Quantization.NONE], unit="%",
            n=len(asked.wanted), target=_KEPT, method=f"{how}; recall@{K} with quantisation by recall@{K} without it",
        ),
    ]  # fmt: skip


def ask(count: int) -> Asked:
    """Queries, and what comparing with every vector finds."""
    wanted = queries(QUERIES if count >= SMALLER else 20)
    return Asked(wanted, exact(count, wanted, K, SELECTED))


def _asked(path: Path, count: int) -> Asked:
    """Likewise, from a file if it is there; else it is written."""
    if path.exists():
        with np.load(path) as there:
            return Asked(there["wanted"], {one: there[f"right_{one}"] for one in SELECTED})
    asked = ask(count)
    new = path.with_suffix(".new.npz")
    arrays: dict[str, Any] = {f"right_{one}": rows for one, rows in asked.right.items()}
    np.savez(new, wanted=asked.wanted, **arrays)
    new.replace(path)
    return asked


async def fill(index: EdgeVectors, permits: Permits, count: int, first: int = 0, *, skip: int = 0) -> None:
    """Put vectors in, without those of the first blocks."""
    write, number = permits.write(DATA), first + skip * BLOCK
    for block in blocks(count, skip=skip):
        for at in range(0, len(block), BATCH):
            part = block[at : at + BATCH]
            points = [
                VectorPoint(UUID(int=number + one), row, SPACE_NAME, {"time": (number + one) % 100})
                for one, row in enumerate(part)
            ]
            await index.upsert(write, points)
            number += len(part)


async def _shifted(one: Callable[[int], Awaitable[None]], by: int, number: int) -> None:
    await one(by + number)


def _vector_bytes(folder: Path, kind: str) -> int:
    """What the files of the vectors take, without the rest of their blocks; those of a segment that is in order."""
    found = [one for one in folder.rglob("*") if one.is_file() and "vector_storage" in one.parts]
    return sum(one.stat().st_size for one in found if kind in one.name or kind in one.parent.name)


@asynccontextmanager
async def _index(config: VectorConfig | None = None) -> AsyncIterator[tuple[EdgeVectors, Permits, Path]]:
    permits = open_permits()
    with tempfile.TemporaryDirectory(prefix="symbi-bench-") as name:
        folder = Path(name)
        async with edge_vectors(permits, folder / "vectors", SPACE, config) as index:
            yield index, permits, folder
