"""The stream of the trail: what is stored is read beside the writer, on threads of its own."""

from functools import partial
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread

from symbi.adapters.sqlite import SqliteReader, SqliteStore
from symbi.audit.log import AuditLog
from symbi.audit.query import EventFilter
from symbi.audit.stream import AuditStream, Page, PageReader

READING_THREADS: Final = 2  # pages that are read at once, over all subscribers


def audit_stream(log: AuditLog, store: SqliteStore, folder: Path | None) -> AuditStream:
    """The stream of a log; to be entered.

    Args:
        log: The writer.
        store: Its store.
        folder: The store's data folder; None where it is in memory, and is read between commits.
    """
    return AuditStream(log, _beside(folder) if folder is not None else _between(log, store))


def _beside(folder: Path) -> PageReader:
    threads = anyio.CapacityLimiter(READING_THREADS)

    def page(wanted: EventFilter, after: int, limit: int) -> Page:
        with SqliteReader(folder) as reader:
            return list(reader.select(wanted, after, limit)), reader.event_count()

    async def read(wanted: EventFilter, after: int, limit: int) -> Page:
        return await anyio.to_thread.run_sync(partial(page, wanted, after, limit), limiter=threads)

    return read


def _between(log: AuditLog, store: SqliteStore) -> PageReader:
    async def read(wanted: EventFilter, after: int, limit: int) -> Page:
        return await log.read(lambda: (list(store.select(wanted, after, limit)), store.event_count()))

    return read
