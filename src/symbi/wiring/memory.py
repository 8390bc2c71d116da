"""What agents remember, from settings."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

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
from symbi.errors import SymbiError
from symbi.guard.gate import Guard
from symbi.guard.permit import Authority
from symbi.knowledge.door import KnowledgeDoor
from symbi.runtime.policy_watch import watching
from symbi.wiring.knowledge import open_embedder, open_vectors

COLLECTION = "memory"


class LateVectors:
    """Embedder and index, opened when they are asked for first, by a task that also closes them.

    Args:
        settings: The configuration.
        authority: Where permits are checked.
    """

    def __init__(self, settings: Settings, authority: Authority) -> None:
        self._settings = settings
        self._authority = authority
        self._wanted, self._told, self._over = anyio.Event(), anyio.Event(), anyio.Event()
        self._closed = anyio.Event()
        self._rooms: VectorRooms | None = None
        self._failure: SymbiError | None = None

    async def opened(self) -> VectorRooms:
        """The two, open.

        Raises:
            ConfigError, Unavailable: They cannot be opened; the next start tries it again.
        """
        self._wanted.set()
        await self._told.wait()
        if self._failure is not None:
            raise self._failure.with_traceback(None)
        assert self._rooms is not None
        return self._rooms

    async def run(self) -> None:
        """Open them once they are wanted, and close them once it is over."""
        try:
            await self._wanted.wait()
            if not self._over.is_set():
                await self._keep_open()
        finally:
            self._closed.set()

    async def _keep_open(self) -> None:
        try:
            async with (
                open_embedder(self._settings, self._authority) as embedder,
                open_vectors(self._settings, self._authority, COLLECTION, embedder) as index,
            ):
                self._rooms = VectorRooms(embedder, index, index)
                self._told.set()
                await self._over.wait()
        except SymbiError as error:
            if self._told.is_set():
                raise
            self._failure = error  # for each who wants them
            self._told.set()

    async def end(self) -> None:
        """Have them closed; returns once they are."""
        self._over.set()
        self._wanted.set()
        with anyio.CancelScope(shield=True):
            await self._closed.wait()


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

    Args:
        settings: The configuration.
        store: The one store.
        log: Makes rows durable.
        guard: The gate.
        times: Wall time, and ids.
        door: To documents.
    """
    clock, ids = times
    late = LateVectors(settings, guard.authority)
    meanings = (
        Meanings(late.opened) if settings.security.audit_enabled else None
    )  # else nothing is to be left on a disk
    rooms = MemoryRooms(guard, log, store, clock, ids, settings.principal, lambda _agent: MemoryTerms(), meanings)
    retention_days = float(settings.context.knowledge_retention_days)
    memory = Memory(rooms, MemoryConfig(retention_days, settings.context.context_cache_size))
    keeping = MemoryKeeping(memory, store.let_go)
    async with watching([late]):
        try:
            await keeping.tidy()
            yield Context(memory, keeping, Library(door.opened, guard.authority))
        finally:
            await memory.close()
            await late.end()
