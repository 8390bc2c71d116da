"""The store as its one owner holds it."""

import fcntl
import os
import re
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.resources import files
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from symbi.adapters.sqlite.agents import AgentTable
from symbi.adapters.sqlite.approvals import ApprovalTable
from symbi.adapters.sqlite.backfill import MOST_PAGES, Backfill
from symbi.adapters.sqlite.budgets import BudgetTable
from symbi.adapters.sqlite.bus import BusTable
from symbi.adapters.sqlite.compaction import CompactionTable
from symbi.adapters.sqlite.context import MemoryTable
from symbi.adapters.sqlite.dead_letters import DeadLetterTable
from symbi.adapters.sqlite.facts import write_facts
from symbi.adapters.sqlite.file import (
    DATABASE_NAME,
    LOCK_NAME,
    SQL,
    STORE_VERSION,
    connect,
    head_bytes,
    last_event,
    mapped,
    read_checkpoints,
    read_events,
    record_of,
    refuse_version,
    tile_of,
    to_effect,
    to_run,
    unavailable,
)
from symbi.adapters.sqlite.history import TalliesInSqlite
from symbi.adapters.sqlite.keeping import SegmentTable
from symbi.adapters.sqlite.knowledge import KnowledgeTable
from symbi.adapters.sqlite.lineage import LineageTable
from symbi.adapters.sqlite.mailbox import MailboxTable
from symbi.adapters.sqlite.mark import flush_folder, origin_in, read_mark, refuse_lost, refuse_other, write_mark
from symbi.adapters.sqlite.occurrences import OccurrenceTable
from symbi.adapters.sqlite.outbox import OutboxTable
from symbi.adapters.sqlite.payloads import triggers
from symbi.adapters.sqlite.policy_notes import PolicyNotes
from symbi.adapters.sqlite.privacy import PrivacyTable
from symbi.adapters.sqlite.reviews import ReviewTable
from symbi.adapters.sqlite.select import last_sequence, select_events
from symbi.adapters.sqlite.standing import WaitingCounts
from symbi.adapters.sqlite.subjects import SubjectTable
from symbi.adapters.sqlite.trail import set_trail_aside, take_trail_back, write_commit
from symbi.agent.journal import RUN_MOVES, RunRecord, RunState
from symbi.audit.port import StoredEvent, TrailCommit
from symbi.audit.query import EventFilter
from symbi.errors import InternalError, StoreUnavailable
from symbi.guard.ledger import MOVES, EffectRecord, EffectState
from symbi.tools.port import Pin, PinHead
from symbi.types import RunId

STORE_VERSIONS_BEFORE: Final = frozenset({1, 2})  # of a trail without index and tree, which it is given
STORE_VERSIONS_READ: Final = STORE_VERSIONS_BEFORE | {3}  # and of messages that were kept as they were said
ADDED_COLUMNS: Final = {
    "mailbox": "epoch INTEGER NOT NULL DEFAULT 0",
    "dead_letters": "epoch INTEGER NOT NULL DEFAULT 0",
}
_MADE: Final = re.compile(r"^CREATE (?:UNIQUE |VIRTUAL )?(?:TABLE|INDEX) (\w+)", re.MULTILINE)


class SqliteStore(
    PolicyNotes,
    TalliesInSqlite,
    ApprovalTable,
    SegmentTable,
    SubjectTable,
    PrivacyTable,
    OccurrenceTable,
    LineageTable,
    DeadLetterTable,
    AgentTable,
    MailboxTable,
    BusTable,
    BudgetTable,
    KnowledgeTable,
    OutboxTable,
    CompactionTable,
    MemoryTable,
    WaitingCounts,
    ReviewTable,
):
    """Every store of a runtime on one file, for its owner: trail, ledger, tallies, approvals, runs, schedules, pins, subjects' keys.

    Args:
        folder: The data folder; made with mode 0700 if it is not there. None keeps everything in memory, for
            `audit_enabled = false` and for tests.
    """

    def __init__(self, folder: Path | None) -> None:
        super().__init__()
        self._folder = folder
        self._lock_fd: int | None = None
        self.probe: Callable[[str], None] = lambda _point: None  # called at named points of a commit, for tests
        self._unmarked: bytes | None = None  # the origin of a trail whose folder does not name it yet

    @property
    def epoch(self) -> int:
        """Number of this owner; grows by one each time the store is opened."""
        return self._epoch

    def __enter__(self) -> Self:
        """Take the folder and open the file, making it if it is not there.

        Raises:
            StoreUnavailable: Another process owns the folder, or the file cannot be opened, or its version is not ours.
        """
        try:
            self._open()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file and give the folder back. Closing twice does nothing."""
        connection, self._connection = self._connection, None
        backfill, self._backfill = self._backfill, None
        self._close_words()
        if backfill is not None:
            backfill.close()
        if connection is not None:
            connection.close()
        descriptor, self._lock_fd = self._lock_fd, None
        if descriptor is not None:
            os.close(descriptor)

    def _open(self) -> None:
        if self._folder is None:
            self._connection = connect(":memory:")
        else:
            self._lock_fd = _take_folder(self._folder)
            refuse_lost(self._folder, read_mark(self._folder))
            os.close(_open_file(self._folder / DATABASE_NAME))  # made here, so that its mode is ours
            self._connection = connect(str(self._folder / DATABASE_NAME))
            self._one(f"PRAGMA wal_autocheckpoint = {MOST_PAGES}")
            self._backfill = Backfill(self._folder / DATABASE_NAME)
        with mapped("open"):
            version = self._one("PRAGMA user_version")[0]
            if version and version not in STORE_VERSIONS_READ:
                refuse_version(version, self._folder)
            with self.transaction():
                if version in STORE_VERSIONS_BEFORE:
                    set_trail_aside(self._db)
                schema = files("symbi.adapters").joinpath("sql/sqlite_schema.sql").read_text(encoding="utf-8")
                there = {row[0] for row in self._db.execute("SELECT name FROM sqlite_master")}
                if version in STORE_VERSIONS_READ:
                    for table in there & ADDED_COLUMNS.keys():
                        self._db.execute(f"ALTER TABLE {table} ADD COLUMN {ADDED_COLUMNS[table]}")
                for statement in _split(schema):
                    if _MADE.search(statement)[1] not in there:  # type: ignore[index]  # each makes something
                        self._db.execute(statement)
                for name, statement in triggers():
                    if name not in there:
                        self._db.execute(statement)
                if version in STORE_VERSIONS_BEFORE:
                    take_trail_back(self._db)
                if version != STORE_VERSION:
                    self._db.execute(f"PRAGMA user_version = {STORE_VERSION}")
                row = self._db.execute(SQL["get_meta"], ("epoch",)).fetchone()
                self._epoch = int(row[0]) + 1 if row else 1
                self._db.execute(SQL["put_meta"], ("epoch", str(self._epoch)))
                if self._folder is not None:
                    self._check_mark(self._folder)

    def _check_mark(self, folder: Path) -> None:
        """Refuse a store that is not the one of its folder, before anything of this opening is kept."""
        mark, row = read_mark(folder), self._one(SQL["get_head"])
        head = None if row is None else head_bytes(row[0], 0)
        if mark is not None:
            refuse_other(folder, mark, head)
        elif head is not None:
            self._unmarked = origin_in(head)
            self._mark()

    def _mark(self) -> None:
        """Name the trail beside its store. What is durable stays so where that fails; it is tried with each commit."""
        origin = self._unmarked
        if origin is not None and self._folder is not None:
            with suppress(OSError):
                write_mark(self._folder, origin)
                self._unmarked = None

    # --- transactions ---------------------------------------------------------------------------

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """One transaction, durable when left without an error; refused where another owner has taken the folder over."""
        with mapped("begin"):
            self._db.execute("BEGIN IMMEDIATE")
        unmarked = self._unmarked
        try:
            yield
            if self._folder is not None:
                self._fence(self._epoch)
        except BaseException:
            self._unmarked = unmarked
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        try:
            self.probe("committing")
            with mapped("commit"):
                self._db.execute("COMMIT")
            self.probe("committed")
        except StoreUnavailable:
            self._unmarked = unmarked
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        self._mark()
        if self._backfill is not None:
            self._backfill.committed(self._db.total_changes)

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """A part of the transaction that is undone alone if it raises."""
        with mapped("begin"):
            self._db.execute("SAVEPOINT unit")
        try:
            yield
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK TO unit")
                self._db.execute("RELEASE unit")
            raise
        with mapped("write"):
            self._db.execute("RELEASE unit")

    # --- AuditStore -----------------------------------------------------------------------------

    def append(self, commit: TrailCommit) -> None:
        """Add events with their index and tiles, and replace the head."""
        if self._folder is not None:
            self._fence(self._epoch)
        with mapped("write"):
            write_commit(self._db, commit)
        self.probe("appended")
        if commit.events[0].sequence == 1:
            self._unmarked = origin_in(commit.head)

    def put_head(self, note: bytes) -> None:
        """Replace the head alone; one of an earlier version named no trail, so that the folder may not have been marked."""
        self._write(SQL["put_head"], (note,))
        if self._folder is not None and read_mark(self._folder) is None:
            self._unmarked = origin_in(note)

    def put_checkpoint(self, size: int, note: bytes) -> None:
        """Keep a checkpoint, or replace the one of that size."""
        self._write(SQL["put_checkpoint"], (size, note))

    def head(self) -> tuple[StoredEvent, bytes] | None:
        """The last event and the signed head."""
        return last_event(self._db)

    def read(self, first: int, last: int | None = None) -> Iterator[StoredEvent]:
        """Events in order, a page at a time."""
        return read_events(self._db, first, last)

    def select(
        self, wanted: EventFilter, after: int = 0, limit: int | None = None, *, descending: bool = False
    ) -> Iterator[StoredEvent]:
        """Events that the index says fit; see `symbi.audit.query.EventSource`."""
        return select_events(self._db, wanted, after, limit, descending=descending)

    def event_count(self) -> int:
        """Sequence number of the last event; 0 where there is none."""
        return last_sequence(self._db)

    def checkpoints(self, first: int, last: int | None = None) -> Iterator[tuple[int, bytes]]:
        """Kept checkpoints and their sizes in order, a page at a time."""
        return read_checkpoints(self._db, first, last)

    def last_checkpoint(self) -> int:
        """The size of the newest kept checkpoint; 0 where there is none."""
        return int(self._one(SQL["last_checkpoint"])[0])

    def tile(self, level: int, number: int) -> bytes | None:
        """The hashes of a complete tile, or None where it is not complete."""
        return tile_of(self._db, level, number)

    def record(self, sequence: int) -> bytes:
        """The record of one event."""
        return record_of(self._db, sequence)

    # --- EffectStore ----------------------------------------------------------------------------

    def put_effect(self, record: EffectRecord) -> None:
        """Insert an effect."""
        values = (
            record.effect_id, record.run_id, record.position, record.agent_id, record.action, record.resource,
            record.arguments_digest, record.recovery.value, record.policy_version, record.decision, record.label,
            record.epoch, record.attempt, record.state.value, self._kept(record.result), self._kept(record.error),
        )  # fmt: skip
        self._fence(record.epoch)
        self._insert("put_effect", values, f"effect `{record.effect_id}`")
        self.put_facts(record)

    def move_effect(self, record: EffectRecord, was: EffectState) -> None:
        """Move an effect on, if it still stands where the caller saw it."""
        if record.state not in MOVES[was]:
            msg = f"an effect cannot move from {was.value} to {record.state.value}"
            raise InternalError(msg, code="internal.effect_move")
        self._fence(record.epoch)
        values = (
            record.policy_version, record.decision, record.epoch, record.attempt, record.state.value,
            self._kept(record.result), self._kept(record.error), record.effect_id, was.value, record.epoch,
        )  # fmt: skip
        asked = (record.resource, record.arguments_digest, record.recovery.value, record.label)
        anew = was is EffectState.DENIED  # nothing of what was asked for then has happened
        if (
            self._write(SQL["redo_effect"], (*asked, *values)) if anew else self._write(SQL["move_effect"], values)
        ) != 1:
            msg = f"effect `{record.effect_id}` is not {was.value} any more"
            raise InternalError(msg, code="internal.effect_stale", effect_id=record.effect_id)
        if was is not EffectState.DISPATCHED:
            self.put_facts(record)

    def put_facts(self, record: EffectRecord) -> None:
        """Write what a decision was made on: the request, and the policy set if it is not there yet."""
        with mapped("write"):
            write_facts(self._db, record)

    def effect_at(self, run_id: RunId, position: int) -> EffectRecord | None:
        """The effect at a place in a run."""
        row = self._one(SQL["effect_at"], (run_id, position))
        return None if row is None else to_effect(row)

    def effects_of(self, run_id: RunId) -> Sequence[EffectRecord]:
        """The effects of a run, by position."""
        return [to_effect(row) for row in self._all(SQL["effects_of"], (run_id,))]

    def effects_in(self, state: EffectState) -> Sequence[EffectRecord]:
        """The effects in a state, oldest first."""
        is_open = state in {EffectState.DISPATCHED, EffectState.UNKNOWN}  # for which there is an index
        return [
            to_effect(row) for row in self._all(SQL["open_effects_in" if is_open else "effects_in"], (state.value,))
        ]

    # --- RunStore -------------------------------------------------------------------------------

    def put_run(self, record: RunRecord) -> None:
        """Insert a run."""
        values = (
            record.run_id, record.agent_id, record.file, record.source_digest, self._kept(record.inputs),
            record.state.value, self._kept(record.output), self._kept(record.error), record.started_at, record.finished_at,
        )  # fmt: skip
        self._insert("put_run", values, f"run `{record.run_id}`")
        if record.grant is not None:
            self._write(SQL["put_run_grant"], (record.run_id, record.grant))
        if record.labels is not None:
            self._write(SQL["put_run_labels"], (record.run_id, record.labels))

    def move_run(self, record: RunRecord, was: RunState) -> None:
        """Move a run on, if it still stands where the caller saw it."""
        if record.state not in RUN_MOVES[was]:
            msg = f"a run cannot move from {was.value} to {record.state.value}"
            raise InternalError(msg, code="internal.run_move")
        output, error = self._kept(record.output), self._kept(record.error)
        values = (record.state.value, output, error, record.finished_at, record.run_id, was.value)
        if self._write(SQL["move_run"], values) != 1:
            msg = f"run `{record.run_id}` is not {was.value} any more"
            raise InternalError(msg, code="internal.run_stale")
        if record.answer is not None:
            self._write(SQL["put_answer"], (record.run_id, record.answer))

    def get_run(self, run_id: RunId) -> RunRecord | None:
        """One run."""
        row = self._one(SQL["get_run"], (run_id,))
        return None if row is None else to_run(row)

    def runs(self, limit: int) -> Sequence[RunRecord]:
        """The newest runs first."""
        return [to_run(row) for row in self._all(SQL["runs"], (limit,))]

    # --- PinStore -------------------------------------------------------------------------------

    def get_pin(self, tool: str) -> Pin | None:
        """The pin of a tool."""
        row = self._one(SQL["get_pin"], (tool,))
        return None if row is None else Pin(*row)

    def put_pin(self, pin: Pin) -> None:
        """Insert or replace a pin."""
        values = (pin.tool, pin.key_fingerprint, pin.digest, pin.form, pin.definition, pin.pinned_at, pin.state)
        self._write(SQL["put_pin"], values)

    def pins(self) -> Sequence[Pin]:
        """All pins, by tool."""
        return [Pin(*row) for row in self._all(SQL["pins"])]

    def pin_heads(self) -> Sequence[PinHead]:
        """Of all pins what is small, by tool."""
        return [PinHead(*row) for row in self._all(SQL["pin_heads"])]

    def _insert(self, name: str, values: tuple[object, ...], what: str) -> None:
        try:
            self._db.execute(SQL[name], values)
        except sqlite3.IntegrityError as error:
            msg = f"{what} is recorded already: {error}"
            raise InternalError(msg, code="internal.duplicate") from error
        except sqlite3.Error as error:
            raise unavailable("write", error) from error


def _open_file(path: Path) -> int:
    """A file of the data folder, made with mode 0600 if it is not there; never what a link points to."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise _unusable(path.parent, error) from error


def _unusable(folder: Path, error: OSError) -> StoreUnavailable:
    msg = f"cannot use the data folder `{folder}`: {error.strerror}"
    return StoreUnavailable(msg, hint="check its permissions and the disk, or name another with `runtime.data_dir`")


def _take_folder(folder: Path) -> int:
    try:
        above = [path.parent for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for parent in above:
            flush_folder(parent)  # SQLite does it for its own files, and so in the folder itself
    except OSError as error:
        raise _unusable(folder, error) from error
    descriptor = _open_file(folder / LOCK_NAME)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        owner = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
        os.close(descriptor)
        msg = f"another process (pid {owner}) owns the data folder `{folder}`"
        raise StoreUnavailable(
            msg, code="unavailable.store_owned", hint="wait for it to end, or use another folder"
        ) from error
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    except OSError as error:
        os.close(descriptor)
        msg = f"cannot write in the data folder `{folder}`: {error.strerror}"
        raise StoreUnavailable(msg, hint="is the disk full or read-only?") from error
    return descriptor


def _split(script: str) -> list[str]:
    """Statements of a script, for `executescript` would commit the running transaction."""
    statements: list[str] = []
    current = ""
    for line in script.splitlines(keepends=True):
        current += line
        if sqlite3.complete_statement(current):
            statements.append(current)
            current = ""
    return statements
