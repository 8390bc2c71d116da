"""What agents remember, from settings."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from symbi.adapters.sqlite import SqliteStore
from symbi.audit.log import AuditLog
from symbi.clock import Clock, IdSource
from symbi.config import Settings
from symbi.context.context import Context
from symbi.context.keeping import MemoryKeeping
from symbi.context.kinds import MemoryTerms
from symbi.context.meanings import Meanings
from symbi.context.memory import Memory, MemoryConfig, MemoryRooms
from symbi.guard.gate import Guard


@asynccontextmanager
async def opened_memory(
    settings: Settings,
    store: SqliteStore,
    log: AuditLog,
    guard: Guard,
    times: tuple[Clock, IdSource],
    meanings: Meanings | None = None,
) -> AsyncIterator[Context]:
    """What agents remember, for as long as it is entered; what a crash left half done is mended first.

    Args:
        settings: The configuration.
        store: The one store.
        log: Makes rows durable.
        guard: The gate.
        times: Wall time, and ids.
        meanings: Vectors of what is remembered; None where there is no embedder.
    """
    clock, ids = times
    retention_days = float(settings.context.knowledge_retention_days)
    rooms = MemoryRooms(guard, log, store, clock, ids, settings.principal, lambda _agent: MemoryTerms(), meanings)
    memory = Memory(rooms, MemoryConfig(retention_days, settings.context.context_cache_size))
    keeping = MemoryKeeping(memory, store.let_go)
    await keeping.sweep()
    await keeping.mend()
    try:
        yield Context(memory, keeping)
    finally:
        await memory.close()
