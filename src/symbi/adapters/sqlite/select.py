"""Finding events by the index: sorted lists of sequence numbers, one for each value, intersected by leaps.

Each part of a filter is a list of sequence numbers in order, or the union of a few. All lists are led to the same number:
whoever is behind leaps to the one ahead. So an answer costs about as many steps as the shortest of the lists has entries
in the range, whichever that is, and no statistics are needed to know it. Times are found by bisection: they never go back
in a trail.
"""

import sqlite3
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import islice, pairwise
from typing import Any, Final, Never, Protocol

from symbi.adapters.sqlite.file import SQL, mapped, stored_event
from symbi.audit.event import parse_event
from symbi.audit.port import StoredEvent
from symbi.audit.query import LARGEST_SEQUENCE, EventFilter
from symbi.errors import ChainBroken, StoreUnavailable

LIST_PAGE: Final = 64  # entries of a list that are fetched at once
SCAN_PAGE: Final = 256  # events that are fetched at once where no list is asked


def select_events(
    db: sqlite3.Connection, wanted: EventFilter, after: int = 0, limit: int | None = None, *, descending: bool = False
) -> Iterator[StoredEvent]:
    """Events that the index says fit; see `symbi.audit.query.EventSource`."""
    low, high = _range(db, wanted, after, descending=descending)
    if low > high:
        return iter(())
    parts = _parts(db, wanted, descending=descending)
    ends = (-high, -low) if descending else (low, high)
    found = _at(db, (abs(key) for key in _leap(parts, *ends))) if parts else _scan(db, *ends)
    return islice(found, limit)


def last_sequence(db: sqlite3.Connection) -> int:
    """Sequence number of the last event; 0 where there is none."""
    with mapped("read"):
        row = db.execute(SQL["last_sequence"]).fetchone()
    return 0 if row is None else int(row[0])


# --- lists ----------------------------------------------------------------------------------------------------------------
# A walk goes up in keys: sequence numbers, or, newest first, their negatives. So the same code goes both ways.


class _Walk(Protocol):
    """Keys in ascending order."""

    def at_or_beyond(self, key: int) -> int | None:
        """The first key that is not below this one; None where there is none. What is asked for never goes back."""


class _List:
    """The events that have one value of one kind."""

    def __init__(self, db: sqlite3.Connection, kind: str, value: str, *, descending: bool) -> None:
        self._db = db
        self._sql = SQL[f"events_by_{kind}_down" if descending else f"events_by_{kind}"]
        self._value = value
        self._sign = -1 if descending else 1
        self._keys: Sequence[int] = ()  # without a gap from the last key that was asked of the store
        self._ended = False

    def at_or_beyond(self, key: int) -> int | None:
        if not self._keys or self._keys[-1] < key:
            if self._ended:
                return None
            with mapped("read"):
                rows = self._db.execute(self._sql, (self._value, self._sign * key, LIST_PAGE)).fetchall()
            self._keys = [self._sign * row[0] for row in rows]
            self._ended = len(rows) < LIST_PAGE
            if not self._keys:
                return None
            if self._keys[0] < key or any(one >= other for one, other in pairwise(self._keys)):
                _disordered(abs(key))
        return self._keys[bisect_left(self._keys, key)]


class _Union:
    """The events that are in any of some lists."""

    def __init__(self, walks: Sequence[_Walk]) -> None:
        self._walks = walks

    def at_or_beyond(self, key: int) -> int | None:
        found = [beyond for walk in self._walks if (beyond := walk.at_or_beyond(key)) is not None]
        return min(found, default=None)


def _parts(db: sqlite3.Connection, wanted: EventFilter, *, descending: bool) -> list[_Walk]:
    asked: list[tuple[str, Sequence[str]]] = [
        ("run", [wanted.run] if wanted.run else []),
        ("policy", [wanted.policy] if wanted.policy else []),
        ("verdict", wanted.verdicts),
        ("type", wanted.types),
        ("agent", [wanted.agent] if wanted.agent else []),
    ]
    parts: list[_Walk] = []
    for kind, values in asked:
        walks = [_List(db, kind, str(value), descending=descending) for value in values]
        if walks:
            parts.append(walks[0] if len(walks) == 1 else _Union(walks))
    return parts


def _leap(parts: Sequence[_Walk], low: int, high: int) -> Iterator[int]:
    """The keys from `low` to `high` that are in all parts."""
    key = low
    while True:
        reached = key
        for part in parts:
            beyond = part.at_or_beyond(reached)
            if beyond is None or beyond > high:
                return
            reached = beyond
        if reached == key:
            yield key
            key += 1
        else:
            key = reached


# --- events ---------------------------------------------------------------------------------------------------------------


def _at(db: sqlite3.Connection, sequences: Iterator[int]) -> Iterator[StoredEvent]:
    for sequence in sequences:
        stored = _next_event(db, sequence, sequence)
        if stored is None:
            msg = f"event {sequence} is in the store's index and not in the store"
            raise ChainBroken(msg, sequence=sequence, reason="index")
        yield stored


def _next_event(db: sqlite3.Connection, low: int, high: int) -> StoredEvent | None:
    """The first event between two sequence numbers."""
    with mapped("read"):
        row = db.execute(SQL["read_events"], (low, high, 1)).fetchone()
    return None if row is None else stored_event(row)


def _scan(db: sqlite3.Connection, low: int, high: int) -> Iterator[StoredEvent]:
    """All events between two keys, a page at a time; those before damage one by one, before it is told."""
    sign, sql = (1, SQL["read_events"]) if low > 0 else (-1, SQL["read_events_down"])
    size = SCAN_PAGE
    while low <= high:
        try:
            with mapped("read"):
                rows: list[Any] = db.execute(sql, (sign * low, sign * high, size)).fetchall()
        except StoreUnavailable:
            if size == 1:
                raise
            size = 1  # a page is lost whole with one bad event in it
            continue
        for row in rows:
            stored = stored_event(row)
            if sign * stored.sequence < low:
                _disordered(stored.sequence)
            low = sign * stored.sequence + 1
            yield stored
        if len(rows) < size:
            return


def _disordered(sequence: int) -> Never:
    msg = f"the store gives events out of order near event {sequence}"
    raise ChainBroken(msg, sequence=sequence, reason="index", hint="the file is damaged: `symbi doctor` says more")


# --- ranges ---------------------------------------------------------------------------------------------------------------


def _range(db: sqlite3.Connection, wanted: EventFilter, after: int, *, descending: bool) -> tuple[int, int]:
    """Least and largest sequence number that can fit."""
    with mapped("read"):
        row = db.execute(SQL["first_sequence"]).fetchone()
    low = max(wanted.first or 1, 1 if row is None else int(row[0]))
    high = min(wanted.last or LARGEST_SEQUENCE, last_sequence(db))
    if descending:
        high = min(high, after - 1) if after else high
    else:
        low = max(low, after + 1)
    if wanted.since is not None:
        low = _first_at(db, wanted.since, low, high)
    if wanted.until is not None:
        high = _first_at(db, wanted.until, low, high) - 1
    return low, high


def _first_at(db: sqlite3.Connection, time: str, low: int, high: int) -> int:
    """The first sequence number between two with an event that is not before a time; one more than the last if none is."""
    end = high + 1
    while low < end:
        middle = (low + end) // 2
        stored = _next_event(db, middle, high)
        if stored is not None and parse_event(stored.record, sequence=stored.sequence).timestamp < time:
            low = stored.sequence + 1
        else:
            end = middle
    return low
