"""The file itself: how it is opened, its statements and rows, and the one place where SQLite's errors become ours."""

import re
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from symbi.agent.journal import RunRecord, RunState
from symbi.audit.port import StoredEvent
from symbi.audit.tree import TILE_BYTES
from symbi.errors import ChainBroken, StoreUnavailable
from symbi.guard.ledger import EffectRecord, EffectState
from symbi.types import AgentId, EffectId, RecoveryClass, RunId

STORE_VERSION: Final = 4
DATABASE_NAME: Final = "symbi.db"
LOCK_NAME: Final = "owner.lock"
BUSY_TIMEOUT_S: Final = 5.0  # readers never block the writer in WAL mode; this bounds checkpoints and backups
READ_PAGE: Final = 1000  # events fetched at once by a reader; bounds memory and the length of a read transaction
_LAST: Final = 2**63 - 1


REFERENCE: Final = b"\x02"  # begins a column that refers to a payload, see `symbi.adapters.sqlite.payloads`
_WHOLE: Final = re.compile(r"WHOLE\(([\w.]+)\)")


def whole(sql: str) -> str:
    """A statement with `WHOLE(column)` spelt out: what the column holds, or the payload that it refers to.

    A reference to what is not there stays as it is, and is no value that anybody reads.
    """
    payload = r"ifnull((SELECT bytes FROM payloads WHERE digest = substr(\1, 2)), \1)"
    return _WHOLE.sub(rf"CASE WHEN substr(\1, 1, 1) = x'02' THEN {payload} ELSE \1 END", sql)


def _statements() -> Mapping[str, str]:
    text = files("symbi.adapters").joinpath("sql/sqlite.sql").read_text(encoding="utf-8")
    named = (part.split("\n", 1) for part in text.split("-- name: ")[1:])
    return {name.strip(): whole(sql.strip()) for name, sql in named}


SQL: Final = _statements()


def connect(database: str, *, uri: bool = False) -> sqlite3.Connection:
    """Open a file, or, by a URI, read it."""
    with mapped("open"):
        connection = sqlite3.connect(
            database, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False, uri=uri
        )
    try:
        with mapped("open"):
            if not uri:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = FULL")
                connection.execute("PRAGMA fullfsync = ON")
                connection.execute("PRAGMA checkpoint_fullfsync = ON")
                connection.execute("PRAGMA secure_delete = ON")  # what is removed is overwritten, not only unlinked
            connection.execute("PRAGMA trusted_schema = OFF")
            connection.execute("PRAGMA cell_size_check = ON")
    except StoreUnavailable:
        connection.close()
        raise
    return connection


def refuse_version(version: int, folder: Path | None) -> None:
    """Return if a file is of the version that this release reads."""
    if version == 0:
        msg = f"the file of the store in `{folder}` is empty"
        raise StoreUnavailable(
            msg, code="unavailable.store_absent", hint="run an agent first, or restore it from a copy"
        )
    if version != STORE_VERSION:
        msg = f"the store in `{folder}` has version {version}, and this release reads {STORE_VERSION}"
        older = version < STORE_VERSION
        hint = (
            "a command that writes, such as `symbi run`, brings it up to date"
            if older
            else "use the release that wrote it"
        )
        raise StoreUnavailable(msg, code="unavailable.store_version", hint=hint)


DAMAGED_HINT: Final = "the file is damaged: keep a copy of the folder; `symbi doctor` says what of it can still be read"

_HINTS: Final = {
    "full": "the disk is full: free some space and start again; nothing that was acknowledged is lost",
    "readonly": "the file or its folder is read-only",
    "malformed": DAMAGED_HINT,
    "not a database": DAMAGED_HINT,
    "locked": "another process holds the file",
    "I/O": "the disk is full or failing: `symbi doctor` and the system's own log say more",
}


def unavailable(doing: str, error: sqlite3.Error) -> StoreUnavailable:
    """An error of SQLite as one of ours."""
    text = str(error)
    hint = next((hint for word, hint in _HINTS.items() if word in text), None)
    return StoreUnavailable(f"the store cannot {doing}: {text}", hint=hint)


@contextmanager
def mapped(doing: str) -> Iterator[None]:
    """The one place where SQLite's errors become ours."""
    try:
        yield
    except sqlite3.Error as error:
        raise unavailable(doing, error) from error
    except UnicodeDecodeError as error:  # an error of SQLite that quotes damaged bytes
        msg = f"the store cannot {doing}: {error.object.decode(errors='replace')}"
        raise StoreUnavailable(msg, hint=DAMAGED_HINT) from error


def last_event(db: sqlite3.Connection) -> tuple[StoredEvent, bytes] | None:
    """The last event and the head; None where there is neither."""
    with mapped("read"):
        last = db.execute(SQL["last_event"]).fetchone()
        head = db.execute(SQL["get_head"]).fetchone()
    if last is None and head is None:
        return None
    if last is None or head is None:
        msg = "the trail has events without a signed head, or a head without events: something was removed"
        raise StoreUnavailable(msg, code="unavailable.store_truncated", hint="run `symbi audit verify`")
    return stored_event(last), head_bytes(head[0], last[0])


def read_events(db: sqlite3.Connection, first: int, last: int | None) -> Iterator[StoredEvent]:
    """Events in order, a page at a time."""
    upto = _LAST if last is None else last
    while True:
        with mapped("read"):
            rows = db.execute(SQL["read_events"], (first, upto, READ_PAGE)).fetchall()
        yield from map(stored_event, rows)
        if len(rows) < READ_PAGE:
            return
        first = rows[-1][0] + 1


def tile_of(db: sqlite3.Connection, level: int, number: int) -> bytes | None:
    """The hashes of a complete tile, or None where it is not complete.

    Raises:
        ChainBroken: It is not stored as a tile is.
    """
    with mapped("read"):
        row = db.execute(SQL["get_tile"], (level, number)).fetchone()
    if row is None:
        return None
    if isinstance(row[0], bytes) and len(row[0]) == TILE_BYTES:
        return row[0]
    msg = f"tile {number} at level {level} of the tree is not stored as a tile is"
    raise ChainBroken(msg, sequence=(number << 8 * (level + 1)) + 1, reason="tile")


def record_of(db: sqlite3.Connection, sequence: int) -> bytes:
    """The record of one event.

    Raises:
        ChainBroken: It is not in the store, or is not stored as a record is.
    """
    with mapped("read"):
        row = db.execute(SQL["get_record"], (sequence,)).fetchone()
    if row is not None and isinstance(row[0], bytes):
        return row[0]
    msg = f"event {sequence} is " + ("missing" if row is None else "not stored as an event is")
    raise ChainBroken(msg, sequence=sequence, reason="sequence" if row is None else "column")


def read_checkpoints(db: sqlite3.Connection, first: int, last: int | None) -> Iterator[tuple[int, bytes]]:
    """Kept checkpoints and their sizes in order, a page at a time.

    Raises:
        ChainBroken: One is not stored as a checkpoint is.
    """
    upto = _LAST if last is None else last
    while True:
        with mapped("read"):
            rows = db.execute(SQL["checkpoints"], (first, upto, READ_PAGE)).fetchall()
        for size, note in rows:
            yield size, head_bytes(note, size)
        if len(rows) < READ_PAGE:
            return
        first = rows[-1][0] + 1


def stored_event(row: tuple[Any, Any, Any]) -> StoredEvent:
    """A row as an event. The tables are strict, but whoever can write the file can make others.

    Raises:
        ChainBroken: It is not stored as an event is.
    """
    sequence, record, chain_hash = row
    if type(sequence) is int and isinstance(record, bytes) and isinstance(chain_hash, str):
        return StoredEvent(sequence, record, chain_hash)
    msg = f"event {sequence} is not stored as an event is: a column is of another type"
    raise ChainBroken(msg, sequence=sequence if type(sequence) is int else 0, reason="column")


def head_bytes(value: object, last: int) -> bytes:
    """The signed head as it stands.

    Raises:
        ChainBroken: It is not stored as a head is.
    """
    if isinstance(value, bytes):
        return value
    msg = f"the head is not stored as a head is, so that nobody can tell whether event {last} is the last"
    raise ChainBroken(msg, sequence=last, reason="head")


def damaged(error: Exception) -> StoreUnavailable:
    """The error for a row that cannot be read as a record."""
    msg = f"the store holds a record that was not written by it: {error}"
    return StoreUnavailable(msg, code="unavailable.store_damaged", hint="restore the data folder from a copy")


def _refuse_references(*values: object) -> None:
    """A value that is still a reference has lost its payload."""
    if any(isinstance(value, bytes) and value.startswith(REFERENCE) for value in values):
        raise damaged(ValueError("the payload that a column refers to is missing"))


def to_effect(row: Any) -> EffectRecord:
    """A row as an effect.

    Raises:
        StoreUnavailable: It is none.
    """
    (effect_id, run_id, position, agent_id, action, resource, digest, recovery, version, decision, label, epoch, attempt,
     state, result, error) = row  # fmt: skip
    _refuse_references(result, error)
    try:
        return EffectRecord(
            EffectId(effect_id), RunId(run_id), position, AgentId(agent_id), action, resource, digest,
            RecoveryClass(recovery), version, decision, label, epoch, attempt, EffectState(state), result, error,
        )  # fmt: skip
    except ValueError as unknown:
        raise damaged(unknown) from unknown


def to_run(row: Any) -> RunRecord:
    """A row as a run.

    Raises:
        StoreUnavailable: It is none.
    """
    run_id, agent_id, file, digest, inputs, state, output, error, started_at, finished_at, grant, labels = row
    _refuse_references(inputs, output, error)
    try:
        return RunRecord(
            RunId(run_id), AgentId(agent_id), file, digest, inputs, RunState(state), output, error, started_at,
            finished_at, grant, labels,
        )  # fmt: skip
    except ValueError as unknown:
        raise damaged(unknown) from unknown
