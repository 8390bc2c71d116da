"""The store as anybody may read it."""

import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from symbi.adapters.sqlite.approvals import approval_of, approvals_in
from symbi.adapters.sqlite.facts import FactReader
from symbi.adapters.sqlite.file import (
    DATABASE_NAME,
    LOCK_NAME,
    SQL,
    connect,
    head_bytes,
    mapped,
    read_events,
    refuse_version,
    to_effect,
    to_run,
)
from symbi.adapters.sqlite.subjects import SubjectReader
from symbi.agent.journal import RunRecord
from symbi.audit.port import StoredEvent
from symbi.errors import StoreUnavailable
from symbi.guard.approval import ApprovalRecord, ApprovalState
from symbi.guard.ledger import EffectRecord, EffectState
from symbi.tools.port import Pin
from symbi.types import RunId

T = TypeVar("T")


class SqliteReader(FactReader, SubjectReader):
    """Reads a store without owning it, as it is at the first look, beside its owner if there is one.

    Args:
        folder: The data folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._connection: sqlite3.Connection | None = None
        self._lock_fd: int | None = None

    def __enter__(self) -> Self:
        """Open the file read-only.

        Raises:
            StoreUnavailable: There is no store, or it cannot be read.
        """
        path = self._folder / DATABASE_NAME
        if not path.is_file():
            msg = f"there is no store in `{self._folder}`"
            raise StoreUnavailable(msg, code="unavailable.store_absent", hint="run an agent first, or name the folder")
        try:
            self._connection = _snapshot(path, "mode=ro")
        except StoreUnavailable:
            # A disk that is full or read-only has no room for what readers and an owner share; without an owner
            # nothing need be shared.
            self._lock_fd = _lock_at_rest(self._folder)
            if self._lock_fd is None:
                raise
            try:
                self._connection = _snapshot(path, "mode=ro&immutable=1")
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

    def runs(self, limit: int) -> Sequence[RunRecord]:
        """The newest runs first."""
        return self._use(lambda db: [to_run(row) for row in db.execute(SQL["runs"], (limit,))])

    def get_run(self, run_id: RunId) -> RunRecord | None:
        """One run."""
        return self._use(lambda db: next((to_run(row) for row in db.execute(SQL["get_run"], (run_id,))), None))

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


def _snapshot(path: Path, options: str) -> sqlite3.Connection:
    """Open a store for reading: one transaction, so that events and head fit while the owner goes on."""
    connection = connect(f"{path.absolute().as_uri()}?{options}", uri=True)
    try:
        with mapped("read"):
            connection.execute("BEGIN")
            version = connection.execute("PRAGMA user_version").fetchone()[0]
        refuse_version(version, path.parent)
    except StoreUnavailable:
        connection.close()
        raise
    return connection
