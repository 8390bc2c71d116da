"""Documents that can be searched, from settings."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from symbi.adapters.openai import OpenAIAnswers
from symbi.adapters.reading import DocumentProcess, ReadingLimits
from symbi.adapters.sqlite import SqliteStore
from symbi.adapters.transformer import TransformerCrossEncoder
from symbi.audit.log import AuditLog
from symbi.clock import Clock
from symbi.config import Settings, is_this_machine
from symbi.errors import ConfigError
from symbi.guard.gate import Guard
from symbi.guard.permit import Authority
from symbi.guard.vault import Vault
from symbi.knowledge.answer import EVIDENCE_BAR, AnswerModelId
from symbi.knowledge.door import KnowledgeDoor, Retention
from symbi.knowledge.folders import Limits
from symbi.knowledge.knowledge import Knowledge
from symbi.knowledge.rag import KnowledgeRooms
from symbi.knowledge.ranking import Weights
from symbi.knowledge.rules import CollectionTerms, Rule, Rules
from symbi.wiring.knowledge import open_embedder, open_vectors, vectors_folder

COLLECTION = "knowledge"
OWN_PARTS: Final = ("keys", "trail", "vectors")  # of the data folder


@asynccontextmanager
async def opened_door(
    settings: Settings, store: SqliteStore, log: AuditLog, guard: Guard, sealing: tuple[Vault, Clock]
) -> AsyncIterator[KnowledgeDoor]:
    """Knowledge, opened when somebody asks for it."""
    async with KnowledgeDoor(partial(_opened, settings, store, log, guard, sealing)) as door:
        yield door


def retention(settings: Settings, store: SqliteStore, log: AuditLog, door: KnowledgeDoor, clock: Clock) -> Retention:
    """What removes documents that are too old."""
    return Retention(door, log, store, clock, settings.context.knowledge_retention_days)


@asynccontextmanager
async def _opened(
    settings: Settings, store: SqliteStore, log: AuditLog, guard: Guard, sealing: tuple[Vault, Clock]
) -> AsyncIterator[Knowledge]:
    if not settings.security.audit_enabled:
        msg = "knowledge is kept in the store, and with `security.audit_enabled = false` there is none"
        raise ConfigError(msg, place=settings.origin("security.audit_enabled").place)
    vault, clock = sealing
    knowledge, authority = settings.knowledge, guard.authority
    weights = Weights(
        vector=knowledge.vector_weight,
        keyword=knowledge.keyword_weight,
        recency=knowledge.recency_weight,
        half_life_days=knowledge.recency_half_life_days,
        reranked=knowledge.cross_encoder_weight,
    )
    limits = Limits(knowledge.max_file_size, knowledge.max_files, knowledge.max_depth, own_folders(settings))
    reading_limits = ReadingLimits(
        knowledge.read_timeout_s, max(1, round(knowledge.read_timeout_s)), knowledge.read_memory_mb * 2**20
    )
    bar = EVIDENCE_BAR if knowledge.evidence_bar is None else knowledge.evidence_bar
    async with (
        open_embedder(settings, authority) as embedder,
        open_answers(settings, authority) as model,
        open_vectors(settings, authority, COLLECTION, embedder) as vectors,
        DocumentProcess(reading_limits) as reading,
    ):
        rooms = KnowledgeRooms(
            guard, log, store, vectors, embedder, clock, vault, rules_of(settings), weights, subjects=vectors,
            cross_encoder=await open_cross_encoder(settings, authority),
        )  # fmt: skip
        async with Knowledge(rooms, reading.read, limits, bar=bar, model=model) as opened:
            yield opened


@asynccontextmanager
async def open_answers(settings: Settings, authority: Authority) -> AsyncIterator[OpenAIAnswers | None]:
    """The model that writes answers, where one is configured; nothing is sent."""
    knowledge, key = settings.knowledge, settings.models.openai_api_key
    if knowledge.answer_model is None:
        yield None
        return
    url = knowledge.answer_base_url
    told = AnswerModelId(
        knowledge.answer_model,
        urlsplit(url).hostname or "",
        remote=not (knowledge.answer_local and is_this_machine(url)),
        max_tokens=knowledge.answer_max_tokens,
        timeout_s=knowledge.answer_timeout_s,
    )
    async with OpenAIAnswers(authority, told, url=url, key=None if key is None else key.reveal()) as model:
        yield model


async def open_cross_encoder(settings: Settings, authority: Authority) -> TransformerCrossEncoder | None:
    """What reads question and passage together, where a folder is configured.

    Raises:
        ConfigError: There is no cross-encoder in it.
        Unavailable: What it needs is not installed.
    """
    folder = settings.knowledge.cross_encoder
    return None if folder is None else await TransformerCrossEncoder.open(authority, folder)


def own_folders(settings: Settings) -> tuple[Path, ...]:
    """Where Symbi keeps what is no document."""
    data = settings.runtime.data_dir.resolve()
    shared = settings.folder.resolve().is_relative_to(data)  # with what else is in the folder of the settings
    folders = [*([data / one for one in OWN_PARTS] if shared else [data]), vectors_folder(settings)]
    if settings.audit.storage is not None:
        folders.append(settings.folder / settings.audit.storage)
    return tuple(dict.fromkeys(one.resolve() for one in folders))


def rules_of(settings: Settings) -> Rules:
    """What is said of documents."""
    knowledge = settings.knowledge
    return Rules(
        {one.name: CollectionTerms(one.owner, one.classification, one.purpose) for one in knowledge.collections},
        tuple(
            Rule(
                one.name, one.source, one.collection, one.owner, one.classification, one.purpose, one.subjects,
                one.importance, one.skip,
            )
            for one in knowledge.rules
        ),
    )  # fmt: skip
