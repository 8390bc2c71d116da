"""The period of a report, from what a person writes."""

import re
from datetime import UTC, date, datetime, timedelta
from typing import Final

from symbi.clock import rfc3339
from symbi.errors import InputError

NS_PER_S: Final = 1_000_000_000
_DAY: Final = re.compile(r"\d{4}-\d{2}-\d{2}")
HINT: Final = "a day such as 2026-03-31, or a time such as 2026-03-31T12:00:00Z"


def moment(written: str, *, ends: bool) -> str:
    """A day or a time as RFC 3339 in UTC with nine decimals.

    Args:
        written: A day, which is one of UTC, or a time with its offset.
        ends: It ends the period. A day that does is in it, so the moment is the first of the next day.

    Raises:
        InputError: It is neither.
    """
    try:
        if _DAY.fullmatch(written):
            day = date.fromisoformat(written) + timedelta(days=1 if ends else 0)
            at = datetime(day.year, day.month, day.day, tzinfo=UTC)
        else:
            at = datetime.fromisoformat(written)
            if at.tzinfo is None:
                msg = f"`{written}` does not say in which time zone it is"
                raise InputError(msg, code="input.time", hint=HINT)
        seconds = (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1)
    except (ValueError, OverflowError) as error:
        msg = f"`{written[:64]}` is no time"
        raise InputError(msg, code="input.time", hint=HINT) from error
    if seconds < 0:
        msg = f"`{written}` is before 1970"
        raise InputError(msg, code="input.time", hint=HINT)
    return rfc3339(seconds * NS_PER_S + at.microsecond * 1000)


def period_of(since: str | None, until: str | None) -> tuple[str, str]:
    """Beginning and end of a period; empty where they are not given.

    Raises:
        InputError: One of them is no time, or the period ends before it begins.
    """
    first = moment(since, ends=False) if since is not None else ""
    after = moment(until, ends=True) if until is not None else ""
    if first and after and first >= after:
        msg = f"the period from `{since}` to `{until}` is empty"
        raise InputError(msg, code="input.time", hint="`--from` is before `--to`")
    return first, after
