"""The store as anybody may read it."""

import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from symbi.adapters.sqlite.approvals import approval_of, approvals_in
from symbi.adapters.sqlite.bus import BusReader
from symbi.adapters.sqlite.dead_letters import letters_in, to_letter
from symbi.adapters.sqlite.facts import FactReader
from symbi.adapters.sqlite.file import (
    DATABASE_NAME,
    LOCK_NAME,
    READ_PAGE,
    SQL,
    connect,
    head_bytes,
    mapped,
    read_checkpoints,
    read_events,
    record_of,
    refuse_version,
    stored_event,
    tile_of,
    to_effect,
    to_run,
)
from symbi.adapters.sqlite.keeping import anchors_in, segments_in
from symbi.adapters.sqlite.mark import read_mark, refuse_lost
from symbi.adapters.sqlite.outbox import OutboxReader
from symbi.adapters.sqlite.reviews import reviews_in
from symbi.adapters.sqlite.select import select_events
from symbi.adapters.sqlite.subjects import SubjectReader
from symbi.agent.journal import RunRecord
from symbi.audit.anchor import Anchor
from symbi.audit.port import StoredEvent
from symbi.audit.query import EventFilter
from symbi.audit.segments import Segment
from symbi.errors import StoreUnavailable
from symbi.guard.approval import ApprovalRecord, ApprovalState
from symbi.guard.ledger import EffectRecord, EffectState
from symbi.runtime.letters import DeadLetter, Wanted
from symbi.tools.port import Pin, Review
from symbi.types import RunId

T = TypeVar("T")


class SqliteReader(FactReader, SubjectReader, BusReader, OutboxReader):
    """Reads a store without owning it, as it is at the first look, beside its owner if there is one.

    Args:
        folder: The data folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._connection: sqlite3.Connection | None = None
        self._lock_fd: int | None = None
        self._seen = 0  # SQLite's counter of what others committed
        self._file: tuple[int, int] | None = None

    def __enter__(self) -> Self:
        """Open the file read-only.

        Raises:
            StoreUnavailable: There is no store, or it cannot be read.
        """
        path = self._folder / DATABASE_NAME
        refuse_lost(self._folder, read_mark(self._folder))
        if not path.is_file():
            msg = f"there is no store in `{self._folder}`"
            raise StoreUnavailable(msg, code="unavailable.store_absent", hint="run an agent first, or name the folder")
        self._file = _identity(path)
        try:
            self._connection, self._seen = _snapshot(path, "mode=ro")
        except StoreUnavailable:
            # A disk that is full or read-only has no room for what readers and an owner share; without an owner
            # nothing need be shared.
            self._lock_fd = _lock_at_rest(self._folder)
            if self._lock_fd is None:
                raise
            try:
                self._connection, self._seen = _snapshot(path, "mode=ro&immutable=1")
            except StoreUnavailable:
                os.close(self._lock_fd)
                self._lock_fd = None
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
        descriptor, self._lock_fd = self._lock_fd, None
        if descriptor is not None:
            os.close(descriptor)

    def _use(self, read: Callable[[sqlite3.Connection], T]) -> T:
        if self._connection is None:
            msg = "the store is closed"
            raise StoreUnavailable(msg)
        with mapped("read"):
            return read(self._connection)

    @contextmanager
    def looking(self) -> Iterator[sqlite3.Connection]:
        """The connection itself, to look for damage with; its progress handler is taken away afterwards."""
        if self._connection is None:
            msg = "the store is closed"
            raise StoreUnavailable(msg)
        try:
            yield self._connection
        finally:
            self._connection.set_progress_handler(None, 0)

    def head_record(self) -> bytes | None:
        """The signed head as it stands, or None; whether it fits the events is for the verifier."""
        row = self._use(lambda db: db.execute(SQL["get_head"]).fetchone())
        return None if row is None else head_bytes(row[0], self.event_count())

    def event_count(self) -> int:
        """Sequence number of the last event; 0 where there is none."""
        row = self._use(lambda db: db.execute(SQL["last_event"]).fetchone())
        return 0 if row is None else int(row[0])

    def read(self, first: int, last: int | None = None) -> Iterator[StoredEvent]:
        """Events in order, a page at a time."""
        return self._use(lambda db: read_events(db, first, last))

    def tile(self, level: int, number: int) -> bytes | None:
        """The hashes of a complete tile, or None where it is not complete."""
        return self._use(lambda db: tile_of(db, level, number))

    def record(self, sequence: int) -> bytes:
        """The record of one event."""
        return self._use(lambda db: record_of(db, sequence))

    def checkpoints(self, first: int, last: int | None = None) -> Iterator[tuple[int, bytes]]:
        """Kept checkpoints and their sizes in order, a page at a time."""
        return self._use(lambda db: read_checkpoints(db, first, last))

    def first_event(self) -> int:
        """Sequence number of the first event that is here; those before it are in the audit storage."""
        row = self._use(lambda db: db.execute(SQL["first_sequence"]).fetchone())
        return 1 if row is None else int(row[0])

    def events_of_type(self, event_type: str, limit: int = READ_PAGE) -> Sequence[StoredEvent]:
        """The newest events of a type, newest first."""
        return self._use(
            lambda db: [stored_event(row) for row in db.execute(SQL["events_of_type"], (event_type, limit))]
        )

    def segments(self) -> Sequence[Segment]:
        """All segments that were sealed, by their first event."""
        return self._use(segments_in)

    def anchors(self, first: int, last: int | None = None) -> Sequence[Anchor]:
        """Time stamps of the checkpoints with a size from `first` to `last`, by size."""
        return self._use(lambda db: anchors_in(db, first, last))

    def select(
        self, wanted: EventFilter, after: int = 0, limit: int | None = None, *, descending: bool = False
    ) -> Iterator[StoredEvent]:
        """Events that the index says fit; see `symbi.audit.query.EventSource`."""
        return self._use(lambda db: select_events(db, wanted, after, limit, descending=descending))

    def refresh(self) -> bool:
        """Look again: whether anything was committed since the last look, which is then seen.

        Raises:
            StoreUnavailable: The store is gone, was replaced, or cannot be read while an owner changes it.
        """
        if self._lock_fd is not None:
            msg = "the disk has no room, or takes no writing, for what a reader and an owner share"
            raise StoreUnavailable(msg, hint="what is stored can be read; what comes cannot be waited for here")
        if _identity(self._folder / DATABASE_NAME) != self._file:
            msg = f"the store in `{self._folder}` was removed or replaced"
            raise StoreUnavailable(msg, code="unavailable.store_absent")
        return self._use(self._look_again)

    def _look_again(self, db: sqlite3.Connection) -> bool:
        if db.in_transaction:
            db.execute("ROLLBACK")  # between two looks nothing is held, so that the owner's log of changes can end
        (seen,) = db.execute("PRAGMA data_version").fetchone()
        if seen == self._seen:
            return False
        self._seen = seen
        db.execute("BEGIN")
        return True

    def runs(self, limit: int) -> Sequence[RunRecord]:
        """The newest runs first."""
        return self._use(lambda db: [to_run(row) for row in db.execute(SQL["runs"], (limit,))])

    def get_run(self, run_id: RunId) -> RunRecord | None:
        """One run."""
        return self._use(lambda db: next((to_run(row) for row in db.execute(SQL["get_run"], (run_id,))), None))

    def letters(self, wanted: Wanted) -> Sequence[DeadLetter]:
        """Some dead letters, newest first."""
        return self._use(lambda db: letters_in(db, wanted))

    def get_letter(self, run_id: RunId) -> DeadLetter | None:
        """The dead letter of a run."""
        return self._use(lambda db: next((to_letter(row) for row in db.execute(SQL["get_letter"], (run_id,))), None))

    def effects_of(self, run_id: RunId) -> Sequence[EffectRecord]:
        """The effects of a run, by position."""
        return self._use(lambda db: [to_effect(row) for row in db.execute(SQL["effects_of"], (run_id,))])

    def effects_in(self, state: EffectState) -> Sequence[EffectRecord]:
        """The effects in a state, oldest first."""
        return self._use(lambda db: [to_effect(row) for row in db.execute(SQL["effects_in"], (state.value,))])

    def approvals(self, states: Sequence[ApprovalState], limit: int) -> Sequence[ApprovalRecord]:
        """The newest approvals in some states, newest first."""
        return self._use(lambda db: approvals_in(db, states, limit))

    def get_approval(self, approval_id: str) -> ApprovalRecord | None:
        """One approval."""
        return self._use(lambda db: approval_of(db, approval_id))

    def reviews(self) -> Sequence[Review]:
        """What waits for a person, and what people have said, by kind and name."""
        return self._use(reviews_in)

    def pins(self) -> Sequence[Pin]:
        """All pins, by tool."""
        return self._use(lambda db: [Pin(*row) for row in db.execute(SQL["pins"])])


def _lock_at_rest(folder: Path) -> int | None:
    """Keep owners away from a store that was closed in order; None where it has an owner or was left open."""
    log = folder / f"{DATABASE_NAME}-wal"
    try:
        if log.exists() and log.stat().st_size:
            return None
        descriptor = os.open(folder / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _identity(path: Path) -> tuple[int, int] | None:
    """Which file this is; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _snapshot(path: Path, options: str) -> tuple[sqlite3.Connection, int]:
    """Open a store for reading: one transaction, so that events and head fit while the owner goes on.

    Returns:
        The connection, and SQLite's counter of what others committed.
    """
    connection = connect(f"{path.absolute().as_uri()}?{options}", uri=True)
    try:
        with mapped("read"):
            (seen,) = connection.execute("PRAGMA data_version").fetchone()
            if connection.execute(SQL["has_payloads"]).fetchone() is None:  # no owner has opened it since there are any
                connection.execute("CREATE TEMP TABLE payloads (digest BLOB PRIMARY KEY, bytes BLOB NOT NULL) STRICT")
            connection.execute("BEGIN")
            version = connection.execute("PRAGMA user_version").fetchone()[0]
        refuse_version(version, path.parent)
    except StoreUnavailable:
        connection.close()
        raise
    return connection, seen
