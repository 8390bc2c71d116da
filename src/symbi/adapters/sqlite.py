"""The embedded store: trail, ledger, runs and pins in one SQLite file (WAL, synchronous=FULL).

One process owns a data folder: an exclusive `flock` on `owner.lock`, held as long as the store is open, so that a
second writer is refused at once and a dead owner holds nothing. Each owner takes the next epoch; a write with an
older epoch than the stored one is refused. Statements stand in `sql/sqlite.sql`.
"""

import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from symbi.agent.journal import RUN_MOVES, RunRecord, RunState
from symbi.audit.port import StoredEvent
from symbi.errors import InternalError, StoreUnavailable
from symbi.guard.ledger import MOVES, EffectRecord, EffectState
from symbi.tools.port import Pin
from symbi.types import AgentId, EffectId, RecoveryClass, RunId

T = TypeVar("T")

STORE_VERSION: Final = 1
DATABASE_NAME: Final = "symbi.db"
LOCK_NAME: Final = "owner.lock"
BUSY_TIMEOUT_S: Final = 5.0  # readers never block the writer in WAL mode; this bounds checkpoints and backups
READ_PAGE: Final = 1000  # events fetched at once by a reader; bounds memory and the length of a read transaction
_LAST: Final = 2**63 - 1


def _statements() -> Mapping[str, str]:
    text = files("symbi.adapters").joinpath("sql/sqlite.sql").read_text(encoding="utf-8")
    named = (part.split("\n", 1) for part in text.split("-- name: ")[1:])
    return {name.strip(): sql.strip() for name, sql in named}


_SQL: Final = _statements()


class SqliteStore:
    """AuditStore, EffectStore, RunStore and PinStore on one file, for its one owner.

    Args:
        folder: The data folder; made with mode 0700 if it is not there. None keeps everything in memory, for
            `audit_enabled = false` and for tests.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._lock_fd: int | None = None
        self._connection: sqlite3.Connection | None = None
        self._epoch = 0

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
        if connection is not None:
            connection.close()
        descriptor, self._lock_fd = self._lock_fd, None
        if descriptor is not None:
            os.close(descriptor)

    def _open(self) -> None:
        if self._folder is None:
            self._connection = _connect(":memory:")
        else:
            self._lock_fd = _take_folder(self._folder)
            self._connection = _connect(str(self._folder / DATABASE_NAME))
        with _mapped("open"):
            version = self._one("PRAGMA user_version")[0]
            if version not in {0, STORE_VERSION}:
                msg = f"the store in `{self._folder}` has version {version}, and this release reads {STORE_VERSION}"
                raise StoreUnavailable(msg, code="unavailable.store_version", hint="use the release that wrote it")
            with self.transaction():
                if version == 0:
                    schema = files("symbi.adapters").joinpath("sql/sqlite_schema.sql").read_text(encoding="utf-8")
                    for statement in _split(schema):
                        self._db.execute(statement)
                    self._db.execute(f"PRAGMA user_version = {STORE_VERSION}")
                row = self._db.execute(_SQL["get_meta"], ("epoch",)).fetchone()
                self._epoch = int(row[0]) + 1 if row else 1
                self._db.execute(_SQL["put_meta"], ("epoch", str(self._epoch)))

    @property
    def _db(self) -> sqlite3.Connection:
        if self._connection is None:
            msg = "the store is closed"
            raise StoreUnavailable(msg)
        return self._connection

    def _one(self, sql: str, values: tuple[object, ...] = ()) -> Any:
        with _mapped("read"):
            return self._db.execute(sql, values).fetchone()

    def _all(self, sql: str, values: tuple[object, ...] = ()) -> list[Any]:
        with _mapped("read"):
            return self._db.execute(sql, values).fetchall()

    def _write(self, sql: str, values: tuple[object, ...]) -> int:
        with _mapped("write"):
            return self._db.execute(sql, values).rowcount

    # --- transactions ---------------------------------------------------------------------------

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """One transaction, durable when left without an error."""
        with _mapped("begin"):
            self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        try:
            with _mapped("commit"):
                self._db.execute("COMMIT")
        except StoreUnavailable:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """A part of the transaction that is undone alone if it raises."""
        with _mapped("begin"):
            self._db.execute("SAVEPOINT unit")
        try:
            yield
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK TO unit")
                self._db.execute("RELEASE unit")
            raise
        with _mapped("write"):
            self._db.execute("RELEASE unit")

    # --- AuditStore -----------------------------------------------------------------------------

    def append(self, events: list[StoredEvent], head: bytes) -> None:
        """Add events and replace the signed head."""
        with _mapped("write"):
            self._db.executemany(_SQL["append_event"], [(e.sequence, e.record, e.chain_hash) for e in events])
            self._db.execute(_SQL["put_head"], (head,))

    def head(self) -> tuple[StoredEvent, bytes] | None:
        """The last event and the signed head."""
        return _head(self._db)

    def read(self, first: int, last: int | None = None) -> Iterator[StoredEvent]:
        """Events in order, a page at a time."""
        return _read(self._db, first, last)

    # --- EffectStore ----------------------------------------------------------------------------

    def put_effect(self, record: EffectRecord) -> None:
        """Insert an effect."""
        values = (
            record.effect_id, record.run_id, record.position, record.agent_id, record.action, record.resource,
            record.arguments_digest, record.recovery.value, record.policy_version, record.decision, record.label,
            record.epoch, record.attempt, record.state.value, record.result, record.error,
        )  # fmt: skip
        self._fence(record.epoch)
        self._insert("put_effect", values, f"effect `{record.effect_id}`")

    def move_effect(self, record: EffectRecord, was: EffectState) -> None:
        """Move an effect on, if it still stands where the caller saw it."""
        if record.state not in MOVES[was]:
            msg = f"an effect cannot move from {was.value} to {record.state.value}"
            raise InternalError(msg, code="internal.effect_move")
        self._fence(record.epoch)
        values = (
            record.policy_version, record.decision, record.epoch, record.attempt, record.state.value, record.result,
            record.error, record.effect_id, was.value, record.epoch,
        )  # fmt: skip
        if self._write(_SQL["move_effect"], values) != 1:
            msg = f"effect `{record.effect_id}` is not {was.value} any more"
            raise InternalError(msg, code="internal.effect_stale", effect_id=record.effect_id)

    def effect_at(self, run_id: RunId, position: int) -> EffectRecord | None:
        """The effect at a place in a run."""
        row = self._one(_SQL["effect_at"], (run_id, position))
        return None if row is None else _effect(row)

    def effects_of(self, run_id: RunId) -> Sequence[EffectRecord]:
        """The effects of a run, by position."""
        return [_effect(row) for row in self._all(_SQL["effects_of"], (run_id,))]

    def effects_in(self, state: EffectState) -> Sequence[EffectRecord]:
        """The effects in a state, oldest first."""
        return [_effect(row) for row in self._all(_SQL["effects_in"], (state.value,))]

    def _fence(self, epoch: int) -> None:
        stored = int(self._one(_SQL["get_meta"], ("epoch",))[0])
        if epoch != stored:
            msg = f"this process is owner {epoch} of the data folder, which owner {stored} has taken over"
            raise StoreUnavailable(msg, code="unavailable.store_fenced")

    # --- RunStore -------------------------------------------------------------------------------

    def put_run(self, record: RunRecord) -> None:
        """Insert a run."""
        values = (
            record.run_id, record.agent_id, record.file, record.source_digest, record.inputs, record.state.value,
            record.output, record.error, record.started_at, record.finished_at,
        )  # fmt: skip
        self._insert("put_run", values, f"run `{record.run_id}`")

    def move_run(self, record: RunRecord, was: RunState) -> None:
        """Move a run on, if it still stands where the caller saw it."""
        if record.state not in RUN_MOVES[was]:
            msg = f"a run cannot move from {was.value} to {record.state.value}"
            raise InternalError(msg, code="internal.run_move")
        values = (record.state.value, record.output, record.error, record.finished_at, record.run_id, was.value)
        if self._write(_SQL["move_run"], values) != 1:
            msg = f"run `{record.run_id}` is not {was.value} any more"
            raise InternalError(msg, code="internal.run_stale")

    def get_run(self, run_id: RunId) -> RunRecord | None:
        """One run."""
        row = self._one(_SQL["get_run"], (run_id,))
        return None if row is None else _run(row)

    def runs(self, limit: int) -> Sequence[RunRecord]:
        """The newest runs first."""
        return [_run(row) for row in self._all(_SQL["runs"], (limit,))]

    # --- PinStore -------------------------------------------------------------------------------

    def get_pin(self, tool: str) -> Pin | None:
        """The pin of a tool."""
        row = self._one(_SQL["get_pin"], (tool,))
        return None if row is None else Pin(*row)

    def put_pin(self, pin: Pin) -> None:
        """Insert or replace a pin."""
        values = (pin.tool, pin.key_fingerprint, pin.digest, pin.form, pin.definition, pin.pinned_at, pin.state)
        self._write(_SQL["put_pin"], values)

    def pins(self) -> Sequence[Pin]:
        """All pins, by tool."""
        return [Pin(*row) for row in self._all(_SQL["pins"])]

    def _insert(self, name: str, values: tuple[object, ...], what: str) -> None:
        try:
            self._db.execute(_SQL[name], values)
        except sqlite3.IntegrityError as error:
            msg = f"{what} is recorded already: {error}"
            raise InternalError(msg, code="internal.duplicate") from error
        except sqlite3.Error as error:
            raise _unavailable("write", error) from error


class SqliteReader:
    """Reads a store without owning it, as it is at the first look, beside its owner if there is one.

    Args:
        folder: The data folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._connection: sqlite3.Connection | None = None

    def __enter__(self) -> Self:
        """Open the file read-only.

        Raises:
            StoreUnavailable: There is no store, or it cannot be read.
        """
        path = self._folder / DATABASE_NAME
        if not path.is_file():
            msg = f"there is no store in `{self._folder}`"
            raise StoreUnavailable(msg, code="unavailable.store_absent", hint="run an agent first, or name the folder")
        self._connection = _connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        with _mapped("read"):
            self._connection.execute("BEGIN")  # one snapshot, so that events and head fit while the owner goes on
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _use(self, read: Callable[[sqlite3.Connection], T]) -> T:
        if self._connection is None:
            msg = "the store is closed"
            raise StoreUnavailable(msg)
        with _mapped("read"):
            return read(self._connection)

    def head_record(self) -> bytes | None:
        """The signed head as it stands, or None; whether it fits the events is for the verifier."""
        row = self._use(lambda db: db.execute(_SQL["get_head"]).fetchone())
        return None if row is None else bytes(row[0])

    def event_count(self) -> int:
        """Sequence number of the last event; 0 where there is none."""
        row = self._use(lambda db: db.execute(_SQL["last_event"]).fetchone())
        return 0 if row is None else int(row[0])

    def read(self, first: int, last: int | None = None) -> Iterator[StoredEvent]:
        """Events in order, a page at a time."""
        return self._use(lambda db: _read(db, first, last))

    def runs(self, limit: int) -> Sequence[RunRecord]:
        """The newest runs first."""
        return self._use(lambda db: [_run(row) for row in db.execute(_SQL["runs"], (limit,))])

    def get_run(self, run_id: RunId) -> RunRecord | None:
        """One run."""
        return self._use(lambda db: next((_run(row) for row in db.execute(_SQL["get_run"], (run_id,))), None))

    def effects_of(self, run_id: RunId) -> Sequence[EffectRecord]:
        """The effects of a run, by position."""
        return self._use(lambda db: [_effect(row) for row in db.execute(_SQL["effects_of"], (run_id,))])

    def effects_in(self, state: EffectState) -> Sequence[EffectRecord]:
        """The effects in a state, oldest first."""
        return self._use(lambda db: [_effect(row) for row in db.execute(_SQL["effects_in"], (state.value,))])

    def pins(self) -> Sequence[Pin]:
        """All pins, by tool."""
        return self._use(lambda db: [Pin(*row) for row in db.execute(_SQL["pins"])])


def _take_folder(folder: Path) -> int:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        msg = f"cannot use the data folder `{folder}`: {error.strerror}"
        raise StoreUnavailable(
            msg, hint="check its permissions and the disk, or name another with `runtime.data_dir`"
        ) from error
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


def _connect(database: str, *, uri: bool = False) -> sqlite3.Connection:
    with _mapped("open"):
        connection = sqlite3.connect(
            database, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False, uri=uri
        )
    try:
        with _mapped("open"):
            if not uri:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = FULL")
                connection.execute("PRAGMA fullfsync = ON")
                connection.execute("PRAGMA checkpoint_fullfsync = ON")
            connection.execute("PRAGMA trusted_schema = OFF")
            connection.execute("PRAGMA cell_size_check = ON")
    except StoreUnavailable:
        connection.close()
        raise
    return connection


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


_HINTS: Final = {
    "full": "the disk is full: free some space and start again; nothing that was acknowledged is lost",
    "readonly": "the file or its folder is read-only",
    "malformed": "the file is damaged: keep a copy, then `symbi audit verify` says how far it can be trusted",
    "locked": "another process holds the file",
}


def _unavailable(doing: str, error: sqlite3.Error) -> StoreUnavailable:
    text = str(error)
    hint = next((hint for word, hint in _HINTS.items() if word in text), None)
    return StoreUnavailable(f"the store cannot {doing}: {text}", hint=hint)


@contextmanager
def _mapped(doing: str) -> Iterator[None]:
    """The one place where SQLite's errors become ours."""
    try:
        yield
    except sqlite3.Error as error:
        raise _unavailable(doing, error) from error


def _head(db: sqlite3.Connection) -> tuple[StoredEvent, bytes] | None:
    with _mapped("read"):
        last = db.execute(_SQL["last_event"]).fetchone()
        head = db.execute(_SQL["get_head"]).fetchone()
    if last is None and head is None:
        return None
    if last is None or head is None:
        msg = "the trail has events without a signed head, or a head without events: something was removed"
        raise StoreUnavailable(msg, code="unavailable.store_truncated", hint="run `symbi audit verify`")
    return StoredEvent(*last), head[0]


def _read(db: sqlite3.Connection, first: int, last: int | None) -> Iterator[StoredEvent]:
    upto = _LAST if last is None else last
    while True:
        with _mapped("read"):
            rows = db.execute(_SQL["read_events"], (first, upto, READ_PAGE)).fetchall()
        yield from (StoredEvent(*row) for row in rows)
        if len(rows) < READ_PAGE:
            return
        first = rows[-1][0] + 1


def _effect(row: Any) -> EffectRecord:
    (effect_id, run_id, position, agent_id, action, resource, digest, recovery, version, decision, label, epoch, attempt,
     state, result, error) = row  # fmt: skip
    return EffectRecord(
        EffectId(effect_id), RunId(run_id), position, AgentId(agent_id), action, resource, digest,
        RecoveryClass(recovery), version, decision, label, epoch, attempt, EffectState(state), result, error,
    )  # fmt: skip


def _run(row: Any) -> RunRecord:
    run_id, agent_id, file, digest, inputs, state, output, error, started_at, finished_at = row
    return RunRecord(
        RunId(run_id), AgentId(agent_id), file, digest, inputs, RunState(state), output, error, started_at, finished_at
    )
