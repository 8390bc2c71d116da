"""When a schedule is due: a cron expression in a time zone, or one moment. Pure, but that the rules of a zone are read once.

| written | means |
|---|---|
| `"30 9 * * MON-FRI"` | minute, hour, day of the month, month, day of the week (0 to 7, Sunday is 0 and 7); POSIX |
| `"*/15 30 9 * * *"` | with seconds in front |
| `"2026-12-24T18:00:00Z"`, `"2026-12-24 18:00"` | one moment; without an offset, in the time zone |

Where both days are restricted, so that neither begins with `*`, either counts, as POSIX says. Where clocks are put forward, a fixed time in the hour that
is not there is due when it would have been over; where they are put back, a fixed time is due once, the first time.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from symbi.errors import InputError, did_you_mean

NS: Final = 1_000_000_000
MAX_CRON_CHARS: Final = 256
LAST_YEAR: Final = 9000  # later moments are nobody's plan
_FIELDS: Final = (5, 6)
_NICKNAMES: Final = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_FIELD_NAMES: Final = ("second", "minute", "hour", "day-of-month", "month", "day-of-week")


@dataclass(frozen=True, slots=True)
class Timetable:
    """When something is due.

    Attributes:
        cron: Expression of five or six fields; empty where it is one moment.
        at_ns: That moment, in nanoseconds since the epoch; None where there is an expression.
        zone: IANA time zone in which the expression counts.
    """

    cron: str = ""
    at_ns: int | None = None
    zone: str = "UTC"

    def after(self, moment_ns: int) -> int | None:
        """The first time it is due after a moment, in nanoseconds since the epoch; None where it never is again."""
        if self.at_ns is not None:
            return self.at_ns if self.at_ns > moment_ns else None
        zone = _zone(self.zone)
        start = datetime.fromtimestamp(moment_ns // NS, UTC).astimezone(zone)
        if fixed := _is_fixed(self.cron):  # by what clocks show, whatever becomes of them meanwhile
            start = start.replace(tzinfo=None)
        for found in CronSim(self.cron, start):
            due_ns = round((_shown(found, zone) if fixed else found).timestamp()) * NS
            if due_ns > moment_ns:
                return due_ns
        return None


def _is_fixed(cron: str) -> bool:
    """Whether an expression names times of the day, and is no pattern of minutes or hours."""
    minute, hour = cron.split()[-5:-3]
    return not minute.startswith("*") and not hour.startswith("*")


def _shown(wall: datetime, zone: ZoneInfo) -> datetime:
    """The first moment at which the clocks of a zone show a time, or, where they leave it out, a later one."""
    moment = wall.replace(tzinfo=zone, fold=0)
    if moment.astimezone(UTC).astimezone(zone).replace(tzinfo=None) == wall:
        return moment
    moment = moment.replace(second=0)
    while moment.astimezone(UTC).astimezone(zone).replace(tzinfo=None) != moment.replace(tzinfo=None):
        moment += timedelta(minutes=1)
    return moment


def parse_cron(text: str, zone: str = "UTC") -> Timetable:
    """The timetable of a cron expression.

    Raises:
        InputError: It is none, is never due, or there is no such time zone; the message says which field is wrong.
    """
    _zone(zone)
    words = _NICKNAMES.get(text.strip().lower(), text).upper().split()
    if len(text) > MAX_CRON_CHARS or len(words) not in _FIELDS:
        hint = "five fields: minute hour day-of-month month day-of-week; six with seconds in front"
        if text.startswith("@"):
            hint = did_you_mean(text.lower(), _NICKNAMES) or f"there are {', '.join(_NICKNAMES)}"
        msg = f"`{text[:MAX_CRON_CHARS]}` is no cron expression: it has {len(words)} fields"
        raise InputError(msg, code="schedule.cron", hint=hint)
    cron = " ".join(words)
    try:
        found = next(CronSim(cron, datetime(2000, 1, 1, tzinfo=UTC)), None)
    except CronSimError as error:
        field = str(error).removeprefix("Bad ")
        named = f": the {field} is wrong" if field in _FIELD_NAMES else ""
        msg = f"`{text}` is no cron expression{named}"
        raise InputError(msg, code="schedule.cron", hint=_RANGES.get(field)) from None
    if found is None:
        msg = f"`{text}` is never due"
        raise InputError(msg, code="schedule.cron", hint="no month has such a day")
    return Timetable(cron=cron, zone=zone)


_RANGES: Final = {
    "second": "0 to 59",
    "minute": "0 to 59",
    "hour": "0 to 23",
    "day-of-month": "1 to 31, or `L` for the last one",
    "month": "1 to 12, or JAN to DEC",
    "day-of-week": "0 to 7 or SUN to SAT; Sunday is 0 and 7",
}


def parse_moment(text: str, zone: str = "UTC") -> Timetable:
    """The timetable of one moment.

    Raises:
        InputError: It is no time, one that a change of clocks leaves out, or there is no such time zone.
    """
    hint = 'write "2026-12-24T18:00:00Z", or "2026-12-24 18:00" in the time zone'
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        msg = f"`{text[:64]}` is no time"
        raise InputError(msg, code="schedule.at", hint=hint) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=_zone(zone))
        if moment.astimezone(UTC).astimezone(moment.tzinfo).replace(tzinfo=None) != moment.replace(tzinfo=None):
            msg = f"there is no `{text}` in {zone}: clocks are put forward over it"
            raise InputError(msg, code="schedule.at", hint="take another time, or write the offset")
    else:
        _zone(zone)
    if moment.year > LAST_YEAR:
        msg = f"`{text[:64]}` is too far away"
        raise InputError(msg, code="schedule.at", hint=hint)
    whole = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    return Timetable(at_ns=whole * 1000, zone=zone)


@lru_cache(maxsize=64)
def _zone(name: str) -> ZoneInfo:
    """A time zone.

    Raises:
        InputError: There is none of that name.
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        msg = f"there is no time zone `{name[:64]}`"
        raise InputError(msg, code="schedule.timezone", hint="an IANA name such as `Europe/Berlin`, or `UTC`") from None
