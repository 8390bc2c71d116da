"""The times at which schedules are due: which of them are owed, and the port that keeps what became of each.

```
 due ──► claimed, with the id of its run ──► done
  └────► skipped: nobody ran then, or its agent was still at work
```

An occurrence is claimed before its run begins, under the id that the run will have. Who finds it claimed after a crash
starts that run if there is none by this id, and goes on with it if there is: so each is run once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from symbi.dsl.timetable import NS, Timetable
from symbi.types import RunId

NO_RUN: Final = RunId("")
MAX_COUNTED: Final = 1000  # missed occurrences that are counted one by one

# How far back a missed occurrence is looked for, in growing steps, so that frequent ones cost little.
_LOOKS_BACK_S: Final = (3600, 86_400, 31 * 86_400, 366 * 86_400, 9 * 366 * 86_400)


class OccurrenceState(StrEnum):
    """What became of an occurrence."""

    CLAIMED = "claimed"
    DONE = "done"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Occurrence:
    """One time that a schedule was due.

    Attributes:
        schedule: File and name of the schedule.
        at_ns: When it was due, in nanoseconds since the epoch.
        run_id: Of its run; empty where it was skipped.
        state: What became of it.
        reason: Why it was skipped, or how its run ended.
    """

    schedule: str
    at_ns: int
    run_id: RunId = NO_RUN
    state: OccurrenceState = OccurrenceState.CLAIMED
    reason: str = ""


class OccurrenceStore(Protocol):
    """Durable occurrences; the methods block, and those that write run inside the store's running transaction."""

    def take_up_schedule(self, schedule: str, now_ns: int) -> int:
        """Since when a schedule is known, in nanoseconds since the epoch: nothing before that is owed.

        Raises:
            StoreUnavailable: The store cannot be written.
        """

    def put_occurrence(self, occurrence: Occurrence) -> None:
        """Insert an occurrence; of those before it, what is over need not be kept: the trail has it.

        Raises:
            InternalError: It is there already.
            StoreUnavailable: The store cannot be written.
        """

    def end_occurrence(self, occurrence: Occurrence, state: OccurrenceState, reason: str) -> None:
        """Note what became of a claimed occurrence; of one that is over, nothing is changed.

        Raises:
            StoreUnavailable: The store cannot be written.
        """

    def last_occurrence(self, schedule: str) -> Occurrence | None:
        """The latest occurrence of a schedule, or None.

        Raises:
            StoreUnavailable: The store cannot be read.
        """

    def open_occurrences(self) -> Sequence[Occurrence]:
        """Those that were claimed and are not over, oldest first.

        Raises:
            StoreUnavailable: The store cannot be read.
        """


@dataclass(frozen=True, slots=True)
class Owed:
    """What a schedule owes.

    Attributes:
        at_ns: The latest time that it was due, which is to be run; the ones before it are missed.
        missed: How many those are.
        more: There are more of them than were counted.
    """

    at_ns: int
    missed: int = 0
    more: bool = False


def owed(timetable: Timetable, since_ns: int, now_ns: int) -> Owed | None:
    """What a timetable owes, of all that was due after one moment and up to another; None where that is nothing.

    However much was missed, one run makes up for it: the latest.
    """
    latest_ns = _latest(timetable, since_ns, now_ns)
    if latest_ns is None:
        return None
    missed, at_ns = 0, timetable.after(since_ns)
    while at_ns is not None and at_ns < latest_ns and missed < MAX_COUNTED:
        missed, at_ns = missed + 1, timetable.after(at_ns)
    return Owed(latest_ns, missed, more=at_ns is not None and at_ns < latest_ns)


def _latest(timetable: Timetable, since_ns: int, now_ns: int) -> int | None:
    for back_s in _LOOKS_BACK_S:
        start_ns = max(since_ns, now_ns - back_s * NS)
        found: int | None = None
        at_ns = timetable.after(start_ns)
        while at_ns is not None and at_ns <= now_ns:
            found, at_ns = at_ns, timetable.after(at_ns)
        if found is not None or start_ns == since_ns:
            return found
    return None
