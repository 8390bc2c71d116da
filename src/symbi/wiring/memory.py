"""What agents remember, from settings."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

from symbi.adapters.qdrant_edge.folder import CollectionFolder
from symbi.adapters.sqlite import SqliteStore
from symbi.audit.log import AuditLog
from symbi.clock import Clock, IdSource
from symbi.config import Settings
from symbi.context.context import Context
from symbi.context.keeping import MemoryKeeping
from symbi.context.kinds import MemoryTerms
from symbi.context.library import Library
from symbi.context.meanings import Meanings, VectorRooms
from symbi.context.memory import Memory, MemoryConfig, MemoryRooms
from symbi.guard.gate import Guard
from symbi.guard.permit import Authority
from symbi.knowledge.door import KnowledgeDoor
from symbi.knowledge.late import Late
from symbi.wiring.knowledge import open_embedder, open_vectors, vectors_folder

COLLECTION = "memory"


@asynccontextmanager
async def _opened(
    settings: Settings, authority: Authority, empty: Callable[[], Awaitable[None]]
) -> AsyncIterator[VectorRooms]:
    """Embedder and index; where this has nothing in it, that is told."""
    async with (
        open_embedder(settings, authority) as embedder,
        open_vectors(settings, authority, COLLECTION, embedder) as index,
    ):
        if not (await index.stats()).points:
            await empty()
        yield VectorRooms(embedder, index, index)


@asynccontextmanager
async def opened_memory(
    settings: Settings,
    store: SqliteStore,
    log: AuditLog,
    guard: Guard,
    times: tuple[Clock, IdSource],
    door: KnowledgeDoor,
) -> AsyncIterator[Context]:
    """What agents remember, for as long as it is entered; what a crash left half done is mended first.

    What is not to last any longer goes first and last.

    Args:
        settings: The configuration.
        store: The one store.
        log: Makes rows durable.
        guard: The gate.
        times: Wall time, and ids.
        door: To documents.
    """
    clock, ids = times

    async def empty() -> None:
        await keeping.index_is_empty()

    late = Late(partial(_opened, settings, guard.authority, empty))

    def left() -> bool:
        return late.is_open or CollectionFolder(vectors_folder(settings) / COLLECTION).holds_gone()

    meanings = (
        Meanings(late.opened, left) if settings.security.audit_enabled else None
    )  # else nothing is to be left on a disk
    rooms = MemoryRooms(guard, log, store, clock, ids, settings.principal, lambda _agent: MemoryTerms(), meanings)
    retention_days = float(settings.context.knowledge_retention_days)
    memory = Memory(rooms, MemoryConfig(retention_days, settings.context.context_cache_size))
    keeping = MemoryKeeping(memory, store.let_go)
    async with late:
        await keeping.take_up()
        try:
            await keeping.tidy()
            library = Library(door.opened, guard.authority, lambda agent: settings.of_agent(agent).purpose)
            try:
                yield Context(memory, keeping, library)
            finally:
                await keeping.close()  # also where it ends by an error, or is cancelled
        finally:
            await memory.close()
