"""How events, their index and their tree are written; and how a trail of an earlier version is given both."""

import sqlite3
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import chain
from typing import Final

from symbi.adapters.sqlite.file import READ_PAGE, SQL, mapped, stored_event
from symbi.audit.event import index_of, parse_event
from symbi.audit.port import EventIndex, StoredEvent, Tile, TrailCommit
from symbi.audit.tree import Tree
from symbi.errors import ChainBroken, StoreUnavailable

_INSERT_SIZES: Final = (256, 64, 16, 4, 1)  # rows of one statement; the statements are prepared once


def write_commit(db: sqlite3.Connection, commit: TrailCommit) -> None:
    """Add events with their index and tiles, and replace the head."""
    _write_events(db, commit.events, commit.index, commit.tiles)
    db.execute(SQL["put_head"], (commit.head,))
    if commit.keep:
        db.execute(SQL["put_checkpoint"], (commit.events[-1].sequence, commit.head))


def _write_events(
    db: sqlite3.Connection, events: Sequence[StoredEvent], index: Sequence[EventIndex], tiles: Sequence[Tile]
) -> None:
    rows = [(one.sequence, one.chain_hash, *at[:4], one.record) for one, at in zip(events, index, strict=True)]
    _insert(db, "append_event", rows)
    policies = [
        (policy, one.sequence) for one, at in zip(events, index, strict=True) if at.policies for policy in at.policies
    ]
    if policies:
        _insert(db, "append_policy", policies)
    if tiles:
        db.executemany(SQL["append_tile"], [(tile.level, tile.number, tile.hashes) for tile in tiles])


def _insert(db: sqlite3.Connection, name: str, rows: Sequence[tuple[object, ...]]) -> None:
    """Insert rows by few statements of many rows.

    The interpreter lets go of its lock for each statement and may wait long to get it back while the event loop is
    busy; one statement for each row would wait as often.
    """
    at, left = 0, len(rows)
    for size in _INSERT_SIZES:
        while left >= size:
            db.execute(_many(name, size), list(chain.from_iterable(rows[at : at + size])))
            at, left = at + size, left - size


@lru_cache
def _many(name: str, rows: int) -> str:
    """A statement that inserts one row, for many."""
    head, values = SQL[name].split("VALUES")
    return f"{head}VALUES{', '.join([values] * rows)}"


def set_trail_aside(db: sqlite3.Connection) -> None:
    """Make room for the tables of this version, inside the transaction that opens the store."""
    db.execute("ALTER TABLE events RENAME TO events_before")


def take_trail_back(db: sqlite3.Connection) -> None:
    """Move the events set aside into their new table, as they are, with an index and a tree over them.

    What they say is not judged here, only read: the head stays as it was, for the log that opens the trail to check and
    to replace.

    Raises:
        StoreUnavailable: The trail cannot be read, so that nothing is changed.
    """
    tree = Tree()
    for page in _pages(db):
        if [one.sequence for one in page] != list(range(tree.size + 1, tree.size + 1 + len(page))):
            raise _not_brought(f"an event is missing after event {tree.size}")
        try:
            parsed = [parse_event(one.record, sequence=one.sequence) for one in page]
        except ChainBroken as error:
            raise _not_brought(error.message) from error
        index = [index_of(one.agent_id, one.run_id, one.event_type, one.details) for one in parsed]
        _write_events(db, page, index, tree.extend([one.record for one in page]))
    db.execute("DROP TABLE events_before")


def _pages(db: sqlite3.Connection) -> Iterator[Sequence[StoredEvent]]:
    after = 0
    while True:
        with mapped("read"):
            rows = db.execute(SQL["read_events_before"], (after, READ_PAGE)).fetchall()
        if rows:
            yield [stored_event(row) for row in rows]
        if len(rows) < READ_PAGE:
            return
        after = rows[-1][0]


def _not_brought(why: str) -> StoreUnavailable:
    msg = f"the trail cannot be brought up to date: {why}"
    hint = "restore the data folder from a copy, or verify it with the release that wrote it"
    return StoreUnavailable(msg, code="unavailable.store_damaged", hint=hint)
