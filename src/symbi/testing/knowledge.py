"""Knowledge on a real store, with vectors that anybody can follow: of words, by their digests."""

import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np

from symbi.adapters.openai import OpenAIAnswers
from symbi.adapters.transformer import TransformerCrossEncoder
from symbi.clock import Clock
from symbi.crypto.keys import KeyStore
from symbi.errors import PermitRefused
from symbi.guard.action import CallModel, ReadData, WriteData
from symbi.guard.permit import Authority, Permit
from symbi.inference.port import EmbedderId, TextPurpose, Vectors
from symbi.knowledge.answer import AnswerModelId, Told
from symbi.knowledge.extracted import Extracted
from symbi.knowledge.knowledge import Knowledge
from symbi.knowledge.port import AnswerModel, CrossEncoder, VectorIndex
from symbi.knowledge.rag import KnowledgeRooms
from symbi.knowledge.ranking import stems
from symbi.knowledge.readers import read_document
from symbi.knowledge.readings import Reader
from symbi.knowledge.rules import Rules
from symbi.knowledge.vectors import VectorSpace
from symbi.knowledge.writing import no_probe
from symbi.testing.gate import ALLOW_ALL, Gate, open_gate
from symbi.testing.vectors import BruteForceVectors
from symbi.types import Principal

DIMENSION: Final = 256
NO_RULES: Final = Rules()


@dataclass(slots=True)
class WordEmbedder:
    """`symbi.inference.port.Embedder`: texts that share words are near.

    Attributes:
        authority: Where permits are checked.
        digest: Of the model.
        texts: How many were asked for.
    """

    authority: Authority
    digest: str = "words"
    texts: int = 0

    @property
    def model(self) -> EmbedderId:
        """Which model it is."""
        return EmbedderId("words", self.digest, DIMENSION, "testing")

    async def embed(
        self, permit: Permit[ReadData] | Permit[WriteData], texts: Sequence[str], purpose: TextPurpose
    ) -> Vectors:
        """One row for each text."""
        del purpose
        if isinstance(permit.action, WriteData):
            self.authority.check(permit, WriteData)
        else:
            self.authority.check(permit, ReadData)
        self.texts += len(texts)
        return np.stack([vector_of(text) for text in texts]) if texts else np.zeros((0, DIMENSION), np.float32)


def vector_of(text: str) -> Vectors:
    """A unit vector over the words of a text."""
    vector = np.zeros(DIMENSION, np.float32)
    for word in stems(text):
        vector[int.from_bytes(hashlib.sha256(word.encode()).digest()[:4]) % DIMENSION] += 1.0
    norm = float(np.linalg.norm(vector))
    return vector / norm if norm else vector


@dataclass(slots=True)
class ScriptedAnswers:
    """`symbi.knowledge.port.AnswerModel` that says what it was told to, once for each question.

    Attributes:
        authority: Where permits are spent.
        answers: What it says, in order.
        prompts: What it was asked.
    """

    authority: Authority
    answers: list[str]
    prompts: list[Told] = field(default_factory=list)
    remote: bool = False

    @property
    def model(self) -> AnswerModelId:
        """Which model it is."""
        return AnswerModelId("scripted", "testing", self.remote)

    async def write(self, permit: Permit[CallModel]) -> str:
        """The next answer."""
        self.prompts.append(Told.read(self.authority.redeem(permit, CallModel).prompt))
        return self.answers.pop(0)


@dataclass(slots=True)
class WordCrossEncoder:
    """`symbi.knowledge.port.CrossEncoder`: 1 for what holds a word, 0 for everything else.

    Attributes:
        authority: Where permits are checked.
        word: Which.
    """

    authority: Authority
    word: str

    async def scores(self, permit: Permit[ReadData], question: str, texts: Sequence[str]) -> Sequence[float]:
        """For each text."""
        del question
        if self.authority.check(permit, ReadData) is None:
            raise PermitRefused("no permit", code="permit.unknown")
        return [float(self.word in text) for text in texts]


async def extract_here(data: bytes, name: str) -> tuple[str, Extracted]:
    """Read a text in this process; for tests of what comes after."""
    return read_document(data, name)


@dataclass(frozen=True, slots=True)
class OpenKnowledge:
    """Knowledge and all that it stands on."""

    knowledge: Knowledge
    gate: Gate
    vectors: BruteForceVectors
    embedder: WordEmbedder


@asynccontextmanager
async def open_knowledge(  # noqa: PLR0913 - one option for each part
    policies: str = ALLOW_ALL,
    *,
    folder: Path | None = None,
    rules: Rules = NO_RULES,
    keys: KeyStore | None = None,
    clock: Clock | None = None,
    index: Callable[[Authority, VectorSpace], VectorIndex] | None = None,
    answers: Sequence[str] | None = None,
    cross_encoder: Callable[[Authority], CrossEncoder] | None = None,
    bar: float = 0.3,
    probe: Callable[[str], None] = no_probe,
    vectors: BruteForceVectors | None = None,
) -> AsyncIterator[OpenKnowledge]:
    """Knowledge over some policies, in memory or in a folder."""
    async with open_gate(policies, folder=folder, keys=keys, clock=clock) as gate:
        authority = gate.guard.authority
        embedder = WordEmbedder(authority)
        space = VectorSpace("words", embedder.digest, DIMENSION)
        brute = vectors or BruteForceVectors(authority, space)
        brute.authority = authority
        model: AnswerModel | None = None if answers is None else ScriptedAnswers(authority, list(answers))
        rooms = KnowledgeRooms(
            gate.guard, gate.log, gate.store, brute if index is None else index(authority, space), embedder, gate.clock,
            gate.vault, rules, cross_encoder=None if cross_encoder is None else cross_encoder(authority),
            subjects=brute if index is None else None,
        )  # fmt: skip
        async with Knowledge(rooms, extract_here, bar=bar, model=model, probe=probe) as knowledge:
            yield OpenKnowledge(knowledge, gate, brute, embedder)


UNREACHABLE: Final = AnswerModelId("m", "localhost", remote=True)
"""A model where nobody answers."""


async def ask_unreachable_model(knowledge: Knowledge, authority: Authority, principal: Principal) -> None:
    """Have a search ranked again by the real cross-encoder's adapter, and a model asked that cannot be reached.

    Raises:
        AssertionError: The answer does not say that it could not.
    """

    async def at_once(_: float) -> None:
        """Wait for nothing."""

    encoder = TransformerCrossEncoder(authority, _Halves(), None)
    rooms = replace(knowledge.rooms, cross_encoder=encoder)
    async with OpenAIAnswers(authority, UNREACHABLE, url="http://127.0.0.1:1", pause=at_once) as model:
        asked = Knowledge(rooms, extract_here, bar=0.0, model=model)
        async with asked:
            answer = await asked.answer(Reader(principal), "page", written=True)
    if not answer.unwritten.startswith("unavailable."):
        raise AssertionError(answer.unwritten)


class _Halves:
    """A loaded model that finds everything as good as anything."""

    def predict(self, pairs: Sequence[object], **_: object) -> list[float]:
        return [0.0] * len(pairs)
