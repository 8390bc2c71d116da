"""A memory on a real gate and store, for tests and measurements of what agents remember."""

import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np

from symbi.adapters.keys import FileKeyStore
from symbi.clock import Clock
from symbi.context.keeping import MemoryKeeping
from symbi.context.kinds import ContextItem, Form, MemoryKind, MemoryTerms
from symbi.context.meanings import Meanings, VectorRooms
from symbi.context.memory import Memory, MemoryConfig, MemoryRooms
from symbi.context.port import ContextStore, Meaning, Row
from symbi.context.sealing import Body, level_of, resealed
from symbi.context.words import counted, plain_json, same_as, tokens_of, words_in
from symbi.guard.action import ReadData, WriteData
from symbi.guard.gate import no_probe
from symbi.guard.permit import Permit
from symbi.guard.vault import NO_KEYS
from symbi.inference.port import EmbedderId, TextPurpose, Vectors
from symbi.knowledge.vectors import VectorSpace
from symbi.testing.gate import ALLOW_ALL, Gate, open_gate
from symbi.testing.vectors import BruteForceVectors
from symbi.types import AgentId, Principal

DIMENSION = 32


SMALL = MemoryConfig(cache_bytes=1_000_000)


class WordEmbedder:
    """Texts with the same words mean the same: each word has a direction of its own."""

    @property
    def model(self) -> EmbedderId:
        """Made up for tests."""
        return EmbedderId("words", "0", DIMENSION, "testing")

    async def embed(
        self, _permit: Permit[ReadData] | Permit[WriteData], texts: Sequence[str], _purpose: TextPurpose
    ) -> Vectors:
        """A row for each text."""
        rows = np.zeros((len(texts), DIMENSION), dtype=np.float32)
        for number, text in enumerate(texts):
            for word in words_in(text):
                digest = np.frombuffer(sha256(word.encode()).digest(), dtype=np.uint8)
                rows[number] += digest[:DIMENSION].astype(np.float32) - 127.5
            rows[number] /= float(np.linalg.norm(rows[number])) or 1.0
        return rows


@dataclass(frozen=True, slots=True)
class OpenMemory:
    """An open memory and all that it stands on."""

    memory: Memory
    keeping: MemoryKeeping
    gate: Gate
    index: BruteForceVectors


@asynccontextmanager
async def open_memory(  # noqa: PLR0913 - one option for each part of it
    policies: str = ALLOW_ALL,
    *,
    folder: Path | None = None,
    keys: Path | None = None,
    config: MemoryConfig = SMALL,
    terms: Callable[[AgentId], MemoryTerms] = lambda _agent: MemoryTerms(),
    principal: Callable[[AgentId], Principal] = Principal,
    clock: Clock | None = None,
    probe: Callable[[str], None] = no_probe,
    all_agents: bool = False,
    index: BruteForceVectors | None = None,
) -> AsyncIterator[OpenMemory]:
    """A memory over some policies; in memory, or in a folder where it is to last; with keys it can seal.

    Args:
        policies: Text of the policies.
        folder: The data folder.
        keys: Where keys are.
        config: What the room is told.
        terms: The terms of an agent's memory.
        principal: An agent as policies see it.
        clock: By hand if None.
        probe: Called at named points around an effect.
        all_agents: Seal everything.
        index: The vectors that were left by one that was open before.
    """
    store = None if keys is None else FileKeyStore(keys)
    async with open_gate(policies, folder=folder, keys=store, clock=clock, probe=probe, all_agents=all_agents) as gate:
        space = VectorSpace("words", "0", DIMENSION)
        vectors = BruteForceVectors(gate.guard.authority, space, {} if index is None else index.points)

        async def opened() -> VectorRooms:
            return VectorRooms(WordEmbedder(), vectors, vectors)

        meanings = Meanings(opened)
        rooms = MemoryRooms(gate.guard, gate.log, gate.store, gate.clock, gate.ids, principal, terms, meanings)
        memory = Memory(rooms, config)
        keeping = MemoryKeeping(memory, gate.store.let_go)
        await keeping.take_up()
        await keeping.mend()
        yield OpenMemory(memory, keeping, gate, vectors)
        await memory.close()


class ManyItems:
    """Items that are put into a store as they would be, without a decision for each: for measurements.

    Args:
        agent: Whose.
        words: So many words there are, the frequent ones far more often than the others.
        words_of_one: So many an item has.
        tags: So many tags there are; an item has one.
    """

    def __init__(self, agent: AgentId, words: int, words_of_one: int, tags: int) -> None:
        self._agent = agent
        self._words = [f"word{number}" for number in range(words)]
        self._weights = [1 / rank for rank in range(1, words + 1)]
        self._words_of_one = words_of_one
        self._tags = tags
        self._chance = random.Random(7)  # noqa: S311 - made-up words, not secrets

    def put(self, store: ContextStore, ids: Sequence[str], first: int, since_ms: int) -> None:
        """Put some items, a millisecond apart; inside the store's transaction.

        Args:
            store: Where.
            ids: An id for each.
            first: How many there are already.
            since_ms: When the first of all was kept.
        """
        for number, one in enumerate(ids, first):
            store.put_item(self._row(one, number, since_ms + number), (f"t{number % self._tags}",))

    def _row(self, one: str, number: int, at_ms: int) -> Row:
        text = " ".join(self._chance.choices(self._words, self._weights, k=self._words_of_one))
        kind = (MemoryKind.LONG_TERM, MemoryKind.SHORT_TERM, MemoryKind.SHARED)[number % 3]
        item = ContextItem(text, kind, (f"t{number % self._tags}",), (number % 10) / 10)
        row = Row(
            one, self._agent, kind, Form.FACT, kind is MemoryKind.SHARED, level_of(item.label), at_ms, None,
            item.importance, 30.0, tokens_of(len(text)), 1, same_as(text), Meaning.DUE, b"", plain_json(counted(text)),
        )  # fmt: skip
        return resealed(row, Body.of(item, ""), NO_KEYS)
