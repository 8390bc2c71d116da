"""Schedules and their occurrences: a part of the store."""

import sqlite3
from collections.abc import Sequence
from typing import Any

from symbi.adapters.sqlite.file import SQL, damaged, unavailable
from symbi.adapters.sqlite.rows import Rows
from symbi.errors import InternalError
from symbi.runtime.occurrences import Occurrence, OccurrenceState
from symbi.types import RunId


class OccurrenceTable(Rows):
    """OccurrenceStore, for the store that has the connection."""

    def take_up_schedule(self, schedule: str, now_ns: int) -> int:
        """Since when a schedule is known; from now on, if it is new."""
        self._fence(self._epoch)
        self._write(SQL["put_schedule"], (schedule, now_ns))
        return int(self._one(SQL["get_schedule"], (schedule,))[0])

    def put_occurrence(self, occurrence: Occurrence) -> None:
        """Insert an occurrence; those of its schedule that are over before it are on the trail, and nowhere else any more."""
        self._fence(self._epoch)
        values = (
            occurrence.schedule, occurrence.at_ns, occurrence.run_id, occurrence.state.value, occurrence.reason
        )  # fmt: skip
        try:
            self._db.execute(SQL["put_occurrence"], values)
        except sqlite3.IntegrityError as error:
            msg = f"schedule `{occurrence.schedule}` was due at {occurrence.at_ns} before"
            raise InternalError(msg, code="internal.duplicate") from error
        except sqlite3.Error as error:
            raise unavailable("write", error) from error
        self._write(SQL["forget_occurrences"], (occurrence.schedule, occurrence.at_ns))

    def end_occurrence(self, occurrence: Occurrence, state: OccurrenceState, reason: str) -> None:
        """What became of a claimed occurrence."""
        self._fence(self._epoch)
        self._write(SQL["end_occurrence"], (state.value, reason, occurrence.schedule, occurrence.at_ns))

    def last_occurrence(self, schedule: str) -> Occurrence | None:
        """The latest one of a schedule."""
        row = self._one(SQL["last_occurrence"], (schedule,))
        return None if row is None else _occurrence(row)

    def open_occurrences(self) -> Sequence[Occurrence]:
        """Those that were claimed and are not over, oldest first."""
        return [_occurrence(row) for row in self._all(SQL["open_occurrences"])]


def _occurrence(row: Any) -> Occurrence:
    schedule, at_ns, run_id, state, reason = row
    try:
        return Occurrence(schedule, at_ns, RunId(run_id), OccurrenceState(state), reason)
    except ValueError as unknown:
        raise damaged(unknown) from unknown
