"""When a schedule is due: against a reference that looks at every minute, and over changes of clocks."""

from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symbi.dsl.timetable import NS, Timetable, parse_cron, parse_moment
from symbi.errors import InputError


def ns(text, zone="UTC"):
    return round(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()) * NS


def due(table, after_ns, count):
    found = []
    while len(found) < count and (after_ns := table.after(after_ns)) is not None:
        found.append(after_ns)
    return found


def local(found, zone):
    return [f"{datetime.fromtimestamp(one // NS, ZoneInfo(zone)):%m-%d %H:%M %z}" for one in found]


def parts(field, low, high):
    """The numbers of a field, by its POSIX meaning."""
    found = set()
    for part in field.split(","):
        span, _, step = part.partition("/")
        if span == "*":
            first, last = low, high
        elif "-" in span:
            first, last = map(int, span.split("-"))
        else:
            first, last = int(span), high if step else int(span)
        found |= set(range(first, last + 1, int(step or 1)))
    return found


def reference(cron, start, minutes):
    """Every minute that the expression names, found by looking at each."""
    minute, hour, day, month, weekday = cron.split()
    hours, months = parts(hour, 0, 23), parts(month, 1, 12)
    days, weekdays = parts(day, 1, 31), {one % 7 for one in parts(weekday, 0, 7)}
    allowed = parts(minute, 0, 59)
    for number in range(1, minutes + 1):
        at = start + timedelta(minutes=number)
        if at.minute not in allowed or at.hour not in hours or at.month not in months:
            continue
        by_day, by_weekday = at.day in days, at.isoweekday() % 7 in weekdays
        both = day[0] != "*" and weekday[0] != "*"
        either = by_day or by_weekday if both else by_day and by_weekday
        if either:
            yield round(at.timestamp()) * NS


YEAR = 366 * 24 * 60


@pytest.mark.parametrize(
    "cron",
    ["0 9 * * 1-5", "*/7 3 * * *", "30 4 1,15 * 5", "15 0 29 2 *", "0 0 * * 7", "59 23 31 * *", "5 4 */10 1-6/2 *"],
)
def test_a_year_of_occurrences_is_that_of_the_reference(cron):
    start = datetime(2027, 6, 1, tzinfo=UTC)  # over the 29th of February 2028
    expected = list(reference(cron, start, YEAR))
    found = due(parse_cron(cron), round(start.timestamp()) * NS, len(expected) + 1)
    assert found[: len(expected)] == expected
    assert found[-1] > expected[-1]
    assert found[-1] > round((start + timedelta(minutes=YEAR)).timestamp()) * NS


numbers = st.integers


@st.composite
def expressions(draw):
    def field(low, high):
        number = draw(numbers(low, high))
        other = draw(numbers(low, high))
        return draw(
            st.sampled_from(
                [
                    "*",
                    str(number),
                    f"{min(number, other)}-{max(number, other)}",
                    f"*/{draw(numbers(1, 9))}",
                    f"{number},{other}",
                ]
            )
        )

    return " ".join((field(0, 59), field(0, 23), field(1, 28), "*", field(0, 7)))


@given(expressions(), numbers(0, 10**9))
def test_occurrences_are_those_of_the_reference(cron, second):
    start = datetime.fromtimestamp(1_600_000_000 + second, UTC)
    expected = list(islice(reference(cron, start.replace(second=0), 3 * 24 * 60), 20))
    after = round(start.timestamp()) * NS + 5
    expected = [one for one in expected if one > after]
    assert due(parse_cron(cron), after, len(expected)) == expected


def test_occurrences_lie_after_the_moment_also_within_a_second():
    table = parse_cron("* * * * *")
    minute = ns("2026-01-01T00:01:00")
    assert table.after(minute - 1) == minute
    assert table.after(minute) == minute + 60 * NS
    assert table.after(minute + 1) == minute + 60 * NS


def test_seconds_stand_in_front():
    table = parse_cron("*/20 30 9 * * *")
    assert due(table, ns("2026-01-01T09:30:00"), 3) == [
        ns("2026-01-01T09:30:20"), ns("2026-01-01T09:30:40"), ns("2026-01-02T09:30:00"),
    ]  # fmt: skip


@pytest.mark.parametrize(("weekday", "day"), [("0", "Sun"), ("7", "Sun"), ("SUN", "Sun"), ("1", "Mon"), ("6", "Sat")])
def test_weekdays_are_those_of_posix(weekday, day):
    (found,) = due(parse_cron(f"0 12 * * {weekday}"), ns("2026-01-01T00:00:00"), 1)
    assert f"{datetime.fromtimestamp(found // NS, UTC):%a}" == day


def test_where_clocks_are_put_forward_what_falls_into_the_gap_is_due_behind_it_once():
    table = parse_cron("30 2 * * *", "Europe/Berlin")
    found = due(table, ns("2026-03-28T12:00:00", "Europe/Berlin"), 2)
    assert local(found, "Europe/Berlin") == ["03-29 03:00 +0200", "03-30 02:30 +0200"]


def test_where_clocks_are_put_back_a_fixed_time_is_due_once_and_every_hour_twice():
    found = due(parse_cron("30 2 * * *", "Europe/Berlin"), ns("2026-10-24T12:00:00", "Europe/Berlin"), 2)
    assert local(found, "Europe/Berlin") == ["10-25 02:30 +0200", "10-26 02:30 +0100"]
    found = due(parse_cron("0 * * * *", "Europe/Berlin"), ns("2026-10-25T01:30:00", "Europe/Berlin"), 3)
    assert local(found, "Europe/Berlin") == ["10-25 02:00 +0200", "10-25 02:00 +0100", "10-25 03:00 +0100"]


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe"])
def test_every_day_of_a_year_has_one_occurrence_of_a_fixed_time(zone):
    found = due(parse_cron("30 2 * * *", zone), ns("2026-01-01T00:00:00", zone), 365)
    days = [datetime.fromtimestamp(one // NS, ZoneInfo(zone)).date() for one in found]
    assert len(set(days)) == 365
    assert found == sorted(set(found))


def test_a_moment_is_due_once():
    table = parse_moment("2026-12-24 18:00", "Europe/Berlin")
    assert table == Timetable(at_ns=ns("2026-12-24T17:00:00"), zone="Europe/Berlin")
    assert table.after(0) == table.at_ns
    assert table.after(table.at_ns) is None
    assert parse_moment("2026-12-24T18:00:00+05:30").at_ns == ns("2026-12-24T12:30:00")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "has 0 fields"),
        ("* * * *", "has 4 fields"),
        ("* * * * * * *", "has 7 fields"),
        ("60 * * * *", "the minute is wrong"),
        ("* 24 * * *", "the hour is wrong"),
        ("* * 0 * *", "the day-of-month is wrong"),
        ("* * * 13 *", "the month is wrong"),
        ("* * * * 8", "the day-of-week is wrong"),
        ("*/0 * * * *", "the minute is wrong"),
        ("5-1 * * * *", "the minute is wrong"),
        ("-1 * * * *", "the minute is wrong"),
        ("1.5 * * * *", "the minute is wrong"),
        ("a b c d e", "is wrong"),
        ("0 0 30 2 *", "the day-of-month is wrong"),
        ("* * */20 * 1L", "is never due"),
        ("0 0 * 2 MON#6", "the day-of-week is wrong"),
        ("@dayly", "is no cron expression"),
        ("* " * 1000, "is no cron expression"),
    ],
)
def test_what_is_no_cron_expression_is_refused_with_the_field(text, says):
    with pytest.raises(InputError, match=says) as refused:
        parse_cron(text)
    assert refused.value.code == "schedule.cron"


def test_nicknames_stand_for_expressions():
    assert parse_cron("@daily").cron == "0 0 * * *"
    with pytest.raises(InputError) as refused:
        parse_cron("@dayly")
    assert "@daily" in refused.value.hint


@pytest.mark.parametrize("text", ["", "tomorrow", "2026-13-01", "2026-02-30 10:00", "9999-12-31T00:00:00Z"])
def test_what_is_no_moment_is_refused(text):
    with pytest.raises(InputError):
        parse_moment(text)


def test_a_moment_that_clocks_leave_out_is_refused():
    with pytest.raises(InputError, match="clocks are put forward over it"):
        parse_moment("2026-03-29 02:30", "Europe/Berlin")


@pytest.mark.parametrize("zone", ["", "Europe/Berlinn", "../etc/passwd", "/etc/passwd", "UTC\0", "x" * 500])
def test_what_is_no_time_zone_is_refused(zone):
    for parse, text in ((parse_cron, "* * * * *"), (parse_moment, "2026-01-01 10:00")):
        with pytest.raises(InputError, match="there is no time zone"):
            parse(text, zone)
