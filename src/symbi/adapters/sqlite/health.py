"""What is wrong with a store, and what of it can still be read: for `symbi doctor`, in bounded time."""

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from symbi.adapters.sqlite.file import DAMAGED_HINT, SQL, stored_event
from symbi.adapters.sqlite.reader import SqliteReader
from symbi.audit.event import index_of, parse_event
from symbi.clock import Clock
from symbi.errors import ChainBroken, StoreUnavailable

CHECK_TIME_S: Final = 20.0  # for all that is looked at; a store of some GiB is looked at in part
STEPS_BETWEEN_LOOKS: Final = 10_000  # of SQLite's machine, between two looks at the clock
MAX_FAULTS: Final = 3  # that are told of SQLite's own check
MAX_RANGES: Final = 5  # of events, that are told
GIVE_UP_AFTER: Final = 10_000  # events in a row that cannot be read
INDEX_SAMPLE: Final = 2_000  # newest events whose index is compared with what they say

_WHAT_TO_DO: Final = (
    "keep a copy of the folder before anything else; `symbi audit verify` names the first bad event, and a trail that"
    " verifies can be exported; then restore the folder from a copy, or begin a new trail in another one"
    " (`runtime.data_dir`); what was sealed in the audit storage can be verified there"
)
_SEARCH: Final = "the events can be read and verified, but not searched: restore the folder from a copy"
_PARTLY: Final = "; not all of it was looked at in the time there is"


@dataclass(frozen=True, slots=True)
class StoreHealth:
    """What was found.

    Attributes:
        ok: Nothing is wrong, as far as was looked.
        detail: What was found, one line.
        hint: What to do; empty where nothing is wrong.
    """

    ok: bool
    detail: str
    hint: str = ""


class _TimeUp(Exception):
    """The time for looking is over."""


def check_store(folder: Path, clock: Clock, *, time_s: float = CHECK_TIME_S) -> StoreHealth:
    """Look at the store of a data folder: whether it is there and sound, and which events can be read.

    Nothing is changed, and its owner goes on working.

    Args:
        folder: The data folder.
        clock: Bounds the time.
        time_s: How long to look.
    """
    deadline_s = clock.monotonic_s() + time_s
    try:
        with SqliteReader(folder) as reader, reader.looking() as db:
            db.set_progress_handler(lambda: clock.monotonic_s() > deadline_s, STEPS_BETWEEN_LOOKS)
            return _Look(db).health()
    except StoreUnavailable as error:
        if error.code == "unavailable.store_absent":
            return StoreHealth(ok=True, detail=f"{error.message}; a first start makes it")
        hint = _WHAT_TO_DO if error.hint in {None, DAMAGED_HINT} else error.hint or ""
        return StoreHealth(ok=False, detail=error.message, hint=hint)


class _Look:
    """One look at an open store."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._partly = ""

    def health(self) -> StoreHealth:
        faults = self._faults()
        if faults:
            told = f"damaged: {'; '.join(faults)}; {self._readable()}"
            return StoreHealth(ok=False, detail=told + self._partly, hint=_WHAT_TO_DO)
        try:
            count = self._end("last_sequence")
            fault = self._newest_fault()
        except sqlite3.Error as error:
            return StoreHealth(ok=False, detail=f"damaged: {error}; {self._readable()}{self._partly}", hint=_WHAT_TO_DO)
        except ChainBroken as error:
            return StoreHealth(ok=False, detail=error.message + self._partly, hint=_WHAT_TO_DO)
        if fault:
            told = f"the index does not say of event {fault} what the event says"
            return StoreHealth(ok=False, detail=told + self._partly, hint=_SEARCH)
        return StoreHealth(ok=True, detail=f"{count} events, sound{self._partly}")

    def _ask(self, sql: str, values: Sequence[object] = ()) -> list[Any]:
        """Rows.

        Raises:
            _TimeUp: There was no time for them.
            sqlite3.Error: They cannot be read.
        """
        try:
            return self._db.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:
                self._partly = _PARTLY
                raise _TimeUp from error
            raise
        except UnicodeDecodeError as error:  # SQLite's words quote damaged bytes
            raise sqlite3.DatabaseError(error.object.decode(errors="replace")) from error

    def _faults(self) -> list[str]:
        """What SQLite's own check finds; nothing where there was no time to find it."""
        try:
            rows = self._ask(f"PRAGMA quick_check({MAX_FAULTS})")
        except _TimeUp:
            return []
        except sqlite3.Error as error:
            return [str(error)]
        lines = [
            line.removeprefix("*** in database main ***").strip() for row in rows for line in str(row[0]).split("\n")
        ]
        return [line for line in lines if line and line != "ok"][:MAX_FAULTS]

    def _newest_fault(self) -> int:
        """The first of the newest events whose index says something else than the event; 0 where none does.

        Raises:
            ChainBroken: One cannot be read as an event.
            sqlite3.Error: One cannot be read at all.
        """
        try:
            rows = self._ask(SQL["newest_with_index"], (INDEX_SAMPLE,))
            for sequence, record, chain_hash, *found in rows:
                stored = stored_event((sequence, record, chain_hash))
                event = parse_event(stored.record, sequence=sequence)
                index = index_of(event.agent_id, event.run_id, event.event_type, event.details)
                if tuple(found) != index[:4]:
                    return int(sequence)
                if not all(self._ask(SQL["has_policy"], (policy, sequence)) for policy in index.policies):
                    return int(sequence)
        except _TimeUp:
            return 0
        return 0

    def _readable(self) -> str:
        """Which events can be read, in words."""
        first, last = self._end("first_sequence") or 1, self._end("last_sequence")
        ranges: list[list[int]] = []
        for sequence in self._readable_events(first, last):
            if ranges and sequence == ranges[-1][1] + 1:
                ranges[-1][1] = sequence
            else:
                ranges.append([sequence, sequence])
        told = [f"{one} to {other}" if one != other else str(one) for one, other in ranges[:MAX_RANGES]]
        if not told:
            return "no event can be read"
        more = f" and {len(ranges) - MAX_RANGES} more ranges" if len(ranges) > MAX_RANGES else ""
        return f"events {', '.join(told)}{more} can be read" + (f", of {last}" if last else "")

    def _end(self, name: str) -> int:
        """Sequence number at an end of the trail; 0 where it cannot be told."""
        try:
            rows = self._ask(SQL[name])
        except (_TimeUp, sqlite3.Error):
            return 0
        return int(rows[0][0]) if rows else 0

    def _readable_events(self, first: int, last: int) -> Iterator[int]:
        """The events that can be read, one by one: a page that cannot be read hides only what is on it."""
        sequence, missed = first, 0
        while missed < GIVE_UP_AFTER and (sequence <= last or not last):
            try:
                rows = self._ask(SQL["read_events"], (sequence, sequence, 1))
                if rows and parse_event(stored_event(rows[0]).record, sequence=sequence).sequence == sequence:
                    missed = 0
                    yield sequence
                else:
                    missed += 1
            except _TimeUp:
                return
            except (sqlite3.Error, ChainBroken):
                missed += 1  # it is not among those that can be read
            sequence += 1


__all__ = ["StoreHealth", "check_store"]
