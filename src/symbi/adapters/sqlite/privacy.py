"""What the store holds of people, for exports and erasures: sealed columns, erasures, and old bytes let go."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final
from uuid import UUID

from symbi.adapters.sqlite.file import DATABASE_NAME, SQL, connect, mapped
from symbi.adapters.sqlite.rows import Rows
from symbi.adapters.sqlite.subjects import to_subject_key
from symbi.clock import rfc3339
from symbi.compliance.port import Erasure, ErasureState, OpenWork, SealedRow
from symbi.compliance.sealed import MARKED, event_row, sealed_of
from symbi.errors import StoreUnavailable
from symbi.guard.vault import SubjectKey
from symbi.types import KeyId

ROWS_AT_ONCE: Final = 500  # bounds how long a commit waits for a page, and what a page takes

SEALED_STORES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "trail": ("events.record",),
        "effects": ("effects.result", "effects.error"),
        "requests": ("requests.request",),
        "runs": ("runs.inputs", "runs.output", "runs.error", "run_labels.labels", "run_grants.task_grant"),
        "approvals": ("approvals.facts", "approvals.shown", "approvals.votes"),
        "keys": ("subject_holds.note",),
        "letters": (
            "dead_letters.inputs",
            "dead_letters.task_grant",
            "dead_letters.labels",
            "dead_letters.error",
            "dead_letters.note",
        ),
        "mailbox": ("mailbox.body", "mailbox.labels"),
        "answers": ("run_answers.label",),
        "memories": ("memories.body",),
        "knowledge": ("knowledge_documents.body",),
    }
)
"""The stores in this one that hold personal data, and the columns in which they do, in the order of their statements."""

LEAST_ROW: Final = 900  # bytes; a row that a page does not hold whole has more, in whatever table
LEAST_CELL: Final = 2  # bytes; of less, nothing can be in two pages
_HEAD: Final = 4  # key, run, effect and time come before the columns


class PrivacyTable(Rows):
    """`symbi.compliance.port.PrivacyStore` and `SealedRows`, for the store that has the connection."""

    def sealed_rows(self, store: str, after: str) -> tuple[Sequence[SealedRow], str | None]:
        """The next part of a store."""
        if store == "trail":
            return self._trail_rows(int(after or 0))
        rows = self._all(SQL[f"rows_of_{store}"], (after, ROWS_AT_ONCE))
        found: list[SealedRow] = []
        for row in rows:
            key, run_id, effect_id, at = row[:_HEAD]
            for place, data in zip(SEALED_STORES[store], row[_HEAD:], strict=True):
                if data is not None and MARKED in data:
                    table, _, column = place.partition(".")
                    found.append(
                        SealedRow(table, column, key, run_id, effect_id, at or made_at(effect_id or key), data, place)
                    )
        return found, rows[-1][0] if len(rows) == ROWS_AT_ONCE else None

    def _trail_rows(self, after: int) -> tuple[Sequence[SealedRow], str | None]:
        rows = self._all(SQL["rows_of_trail"], (after, ROWS_AT_ONCE))
        found: list[SealedRow] = []
        for sequence, record in rows:
            if MARKED in record:
                found.append(event_row(record, sequence, "events.record"))
        return found, str(rows[-1][0]) if len(rows) == ROWS_AT_ONCE else None

    def operators_texts(self) -> list[bytes]:
        """The policy sets, and the definitions of tools."""
        return [str(text).encode() for (text,) in self._all(SQL["operators_texts"])]

    def first_live(self) -> int:
        """Sequence of the first event that the store still holds."""
        return int(self._one(SQL["first_live"])[0] or 1)

    def put_erasure(self, erasure: Erasure) -> None:
        """Insert or replace."""
        self._fence(self._epoch)
        self._write(SQL["put_erasure"], (erasure.pseudonym, erasure.state.value, erasure.facts, erasure.at))

    def erasures(self, pseudonym: str | None = None) -> Sequence[Erasure]:
        """All, or that of one subject."""
        rows = self._all(SQL["erasures"], (pseudonym,))
        return [Erasure(name, ErasureState(state), facts, at) for name, state, facts, at in rows]

    def all_subject_keys(self, after: KeyId, limit: int) -> Sequence[SubjectKey]:
        """Keys of all subjects, by id."""
        return [to_subject_key(row) for row in self._all(SQL["all_subject_keys"], (after, limit))]

    def open_work(self, keys: frozenset[KeyId]) -> Sequence[OpenWork]:
        """What is under way about a subject."""
        found: dict[tuple[str, str], OpenWork] = {}

        def about(kind: str, name: str, data: Callable[[Any], Sequence[bytes | None]]) -> None:
            for row in self._all(SQL[name]):
                if any(_sealed_by(one, keys) for one in data(row)):
                    found[kind, row[0]] = OpenWork(kind, row[0], row[1])

        about("run", "open_runs", lambda row: (*row[2:], *(one for (one,) in self._all(SQL["results_of"], (row[0],)))))
        about("approval", "open_approvals", lambda row: row[2:])
        about("effect", "open_effects", lambda row: row[2:])
        about("message", "open_messages", lambda row: row[2:])
        return list(found.values())

    def about_both(self, ours: frozenset[KeyId], others: frozenset[KeyId], after: int) -> str | None:
        """Where something stands that is sealed by keys of both, or None; events up to `after` are not looked at."""
        for store in SEALED_STORES:
            at: str | None = str(after) if store == "trail" else ""
            while at is not None:
                rows, at = self.sealed_rows(store, at)
                for row in rows:
                    sealed = sealed_of(row.table, row.data)
                    if sealed and not (ours.isdisjoint(sealed.keys) or others.isdisjoint(sealed.keys)):
                        return f"`{row.place}` of `{row.key}`"
        return None

    def let_go(self, *, rewrite: bool = False) -> None:
        """Cut the write-ahead log to nothing; on request, write the file anew."""
        if rewrite:
            with mapped("be written anew"):
                self._db.execute("VACUUM")
        with self._backfill.held() if self._backfill is not None else nullcontext():
            busy = self._one("PRAGMA wal_checkpoint(TRUNCATE)")[0]
        if busy:
            msg = "a reader still holds old pages of the store, with what was destroyed in them"
            hint = "end other `symbi` commands that read this folder, then ask again: what was begun is finished"
            raise StoreUnavailable(msg, code="unavailable.store_readers", hint=hint)


def large_cells(folder: Path) -> Iterator[tuple[str, Iterator[bytes]]]:
    """What the file holds in pieces, whole: a value that goes from one page to another is not found in its bytes.

    Args:
        folder: The data folder.

    Yields:
        `symbi.db/TABLE.COLUMN/KEY`, and what stands there.

    Raises:
        StoreUnavailable: The store cannot be read.
    """
    path = folder / DATABASE_NAME
    if not path.is_file():
        return
    with mapped("read"), closing(connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
        for (table,) in db.execute(SQL["tables"]).fetchall():
            columns = [(row[1], row[5]) for row in db.execute(f"PRAGMA table_info('{table}')")]
            keys = [name for name, place in columns if place] or [name for name, _ in columns]
            bytes_of = [f'CAST("{name}" AS BLOB)' for name, _ in columns]
            size = " + ".join(f"coalesce(length({one}), 0)" for one in bytes_of)
            large = f'SELECT "{keys[0]}", {", ".join(bytes_of)} FROM "{table}" WHERE {size} > ?'  # noqa: S608 - names of our own schema
            for key, *cells in db.execute(large, (LEAST_ROW,)):
                for (column, _), data in zip(columns, cells, strict=True):
                    if data is not None and len(data) >= LEAST_CELL:
                        yield f"{DATABASE_NAME}/{table}.{column}/{key}", iter((data,))


def made_at(effect_id: str) -> str:
    """When an effect was asked for, as its id (UUIDv7) says; empty where it does not."""
    try:
        number = UUID(effect_id)
    except ValueError:
        return ""
    return rfc3339((number.int >> 80) * 1_000_000)


def _sealed_by(data: bytes | None, keys: frozenset[KeyId]) -> bool:
    sealed = None if data is None else sealed_of("", data)
    return sealed is not None and not keys.isdisjoint(sealed.keys)
