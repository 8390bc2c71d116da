"""KNOW-5: a question, from analysis to citations; and a document, from its bytes to being found (KNOW-3)."""

import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter_ns
from typing import Final

from symbi.bench.measure import Measurement, Scale, Target, latency, sample_async
from symbi.clock import SystemClock
from symbi.inference.static import StaticEmbedder
from symbi.knowledge.knowledge import Knowledge
from symbi.knowledge.rag import KnowledgeRooms
from symbi.knowledge.readings import Reader
from symbi.knowledge.rules import Rules
from symbi.knowledge.vectors import VectorSpace
from symbi.testing.edge import EdgeVectors
from symbi.testing.gate import open_gate
from symbi.testing.knowledge import extract_here
from symbi.types import AgentId, Principal

DOCUMENTS: Final = 5_000
QUESTIONS: Final = 500
UPDATES: Final = 300
WORDS: Final = 4_000  # that documents are made of; some are in many of them, as words of a language are
WHO: Final = Principal(AgentId("bench"))
_PARAGRAPHS: Final = 4
_PARAGRAPH_WORDS: Final = 90


async def rag(scale: Scale) -> list[Measurement]:
    """Questions to a collection, each end to end without a model, and documents that are put in while it stands."""
    chance = random.Random(7)  # noqa: S311 - the same texts on every machine
    words = ["".join(chance.choice("bcdfglmnprstv") + chance.choice("aeiou") for _ in range(3)) for _ in range(WORDS)]
    ranks = [1 / (place + 5) for place in range(WORDS)]

    def text(number: int, paragraphs: int = _PARAGRAPHS) -> bytes:
        said = [" ".join(chance.choices(words, ranks, k=_PARAGRAPH_WORDS)) for _ in range(paragraphs)]
        return f"# Page {number}\n\n".encode() + "\n\n".join(said).encode()

    count = scale.of(DOCUMENTS, least=20)
    with TemporaryDirectory(prefix="symbi-bench-") as name:
        folder = Path(name)
        for number in range(count):
            (folder / "docs").mkdir(exist_ok=True)
            (folder / "docs" / f"{number}.md").write_bytes(text(number))
        async with _opened(folder) as knowledge:
            listing, after = await knowledge.plan("bench", folder / "docs"), None
            while True:
                after = (await knowledge.step(WHO, "bench", listing, after)).next
                if after is None:
                    break
            (stats,) = await knowledge.stats()
            method = f"{stats.documents} documents, {stats.chunks} chunks, the built-in model and engine; one after the other"

            async def ask(_: int) -> None:
                await knowledge.answer(Reader(WHO), " ".join(chance.choices(words, k=6)))

            async def put(number: int) -> None:
                await knowledge.put(WHO, "bench", "moving.md", text(number, 1))

            asked = await sample_async(ask, scale.of(QUESTIONS, least=5), warm=3)
            updated = await sample_async(put, scale.of(UPDATES, least=5), warm=3)
            found = await _found_after(knowledge, scale.of(50, least=3), text)
    return [
        latency("KNOW-5", "a question answered with citations", asked, unit="ms", target=Target(100, at_least=False, note="ours"), method=method),
        latency("KNOW-5", "a document written: decision, vectors, rows, outcome", updated, unit="ms", target=Target(10, at_least=False, note="KNOW-3, ours"), method=method),
        latency("KNOW-5", "a document written and found by a search", found, unit="ms", target=None, method=method),
    ]  # fmt: skip


async def _found_after(knowledge: Knowledge, count: int, text: Callable[[int, int], bytes]) -> list[int]:
    samples = []
    for number in range(count):
        word = f"zq{number}zq"
        begun = perf_counter_ns()
        await knowledge.put(WHO, "bench", "found.md", text(number, 1) + f" {word}".encode())
        result = await knowledge.search(Reader(WHO), word)
        samples.append(perf_counter_ns() - begun)
        if not any(word in one.text for one in result.passages):
            msg = "a document that was written is not found"
            raise RuntimeError(msg)
    return samples


@asynccontextmanager
async def _opened(folder: Path) -> AsyncIterator[Knowledge]:
    async with open_gate(folder=folder / "data", clock=SystemClock()) as gate:
        authority = gate.guard.authority
        embedder = StaticEmbedder(authority)
        space = VectorSpace(embedder.model.name, embedder.model.digest, embedder.model.dimension)
        async with EdgeVectors(authority, folder / "vectors", space) as index:
            rooms = KnowledgeRooms(gate.guard, gate.log, gate.store, index, embedder, gate.clock, None, Rules())
            async with Knowledge(rooms, extract_here) as knowledge:
                yield knowledge
