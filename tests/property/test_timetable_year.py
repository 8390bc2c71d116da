"""A year of occurrences of many expressions, in zones that change their clocks, against looking at every minute of it."""

from datetime import UTC, datetime, time, timedelta
from random import Random
from zoneinfo import ZoneInfo

import pytest

from symbi.dsl.timetable import NS, parse_cron
from symbi.errors import InputError

BEGIN = datetime(2027, 7, 1, tzinfo=UTC)  # over a 29th of February, and both changes of clocks
MINUTES = 366 * 24 * 60
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/St_Johns", "Africa/Casablanca")
EXPRESSIONS_OF_A_ZONE = 24
DENSE = 1500  # occurrences; of what is due more often, stretches are compared
STRETCH = 120
MONTHS = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"]
DAYS = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"]


class Year:
    """Every minute of the year as the clocks of a zone show it, by days."""

    def __init__(self, zone):
        self.days = {}
        self.walls = {}
        info = ZoneInfo(zone)
        first = round(BEGIN.timestamp())
        for number in range(-2 * 1440, MINUTES + 2 * 1440):
            at_s = first + 60 * number
            wall = datetime.fromtimestamp(at_s, info).replace(tzinfo=None)
            self.days.setdefault(wall.date(), []).append((at_s, wall.hour, wall.minute))
            self.walls.setdefault(wall, at_s)  # the first time that clocks show it

    def due(self, expression):
        """The seconds since the epoch at which an expression is due, found by looking at each minute."""
        *seconds, minute, hour, day, month, weekday = expression.split()
        seconds = sorted(numbers(seconds[0], 0, 59)) if seconds else [0]
        minutes, hours = numbers(minute, 0, 59), numbers(hour, 0, 23)
        days, months = numbers(day, 1, 31), numbers(month, 1, 12, MONTHS, 1)
        weekdays = {one % 7 for one in numbers(weekday, 0, 7, DAYS, 0)}
        fixed = minute[0] != "*" and hour[0] != "*"
        either = day[0] != "*" and weekday[0] != "*"
        found = set()
        for date, shown in self.days.items():
            by_day, by_weekday = date.day in days, date.isoweekday() % 7 in weekdays
            if date.month not in months or not (by_day or by_weekday if either else by_day and by_weekday):
                continue
            if fixed:
                for wall in (datetime.combine(date, time(h, m)) for h in hours for m in minutes):
                    if wall in self.walls:
                        found |= {self.walls[wall] + one for one in seconds}
                    elif (behind := self.behind_the_gap(wall)) is not None:
                        found.add(behind)
            else:
                for at_s, h, m in shown:
                    if h in hours and m in minutes:
                        found |= {at_s + one for one in seconds}
        first = round(BEGIN.timestamp())
        return sorted(one for one in found if first < one <= first + 60 * MINUTES)

    def behind_the_gap(self, wall):
        """The first minute that clocks show instead of one which they leave out."""
        for more in range(24 * 60):
            at_s = self.walls.get(wall + timedelta(minutes=more))
            if at_s is not None:
                return at_s if more else None
        return None  # beyond the year


def numbers(field, low, high, names=(), first=0):
    """What a field names."""

    def number(text):
        return names.index(text) + first if text in names else int(text)

    found = set()
    for part in field.split(","):
        span, _, step = part.partition("/")
        if span == "*":
            begin, end = low, high
        elif "-" in span:
            begin, end = map(number, span.split("-"))
        else:
            begin, end = number(span), high if step else number(span)
        found |= set(range(begin, end + 1, int(step or 1)))
    return found


def field(random, low, high, names=(), first=0):
    """A field of an expression, by chance."""

    def shown(number):
        return names[(number - first) % len(names)] if names and random.random() < 0.5 else str(number)

    def term():
        one, other = sorted((random.randint(low, high), random.randint(low, high)))
        kind = random.randrange(6)
        if kind == 0:
            return f"*/{random.randint(1, 9)}"
        if kind == 1 and (not names or other <= high - (first == 0)):  # SUN is 0 in front, so no range ends with it
            return f"{shown(one)}-{shown(other)}"
        if kind == 2:
            return f"{one}-{other}/{random.randint(1, 5)}"
        if kind == 3:
            return f"{one}/{random.randint(2, 9)}"
        return shown(one)

    return ",".join(term() for _ in range(random.choice((1, 1, 1, 2, 3))))


def expressions(zone):
    """Expressions of five and six fields; many of them have something to do in the hours in which clocks change."""
    random = Random(zone)
    for number in range(EXPRESSIONS_OF_A_ZONE):
        minute = random.choice((field(random, 0, 59), "0", "30", "15,45"))
        hour = random.choice((field(random, 0, 23), "1,2,3", "2", "0-4", "*"))
        day = random.choice((field(random, 1, 31), "*", "*", "*"))
        month = random.choice((field(random, 1, 12, MONTHS, 1), "*", "*", "*"))
        weekday = random.choice((field(random, 0, 7, DAYS, 0), "*", "*"))
        seconds = f"{random.choice(('0', '10', '7,30', '*/20'))} " if number % 3 == 2 else ""
        yield f"{seconds}{minute} {hour} {day} {month} {weekday}"


@pytest.fixture(scope="module", params=ZONES)
def zone_and_year(request):
    return request.param, Year(request.param)


def test_a_year_of_occurrences_is_that_of_looking_at_every_minute(zone_and_year):
    zone, year = zone_and_year
    compared = 0
    for expression in expressions(zone):
        expected = year.due(expression)
        try:
            table = parse_cron(expression, zone)
        except InputError:
            assert not expected, expression
            continue
        starts = [0] if len(expected) <= DENSE else range(0, len(expected) - STRETCH, len(expected) // 12)
        many = len(expected) if len(expected) <= DENSE else STRETCH
        for start in starts:
            at_ns = (expected[start - 1] if start else round(BEGIN.timestamp())) * NS
            for at_s in expected[start : start + many]:
                at_ns = table.after(at_ns)
                assert at_ns == at_s * NS, f"{expression} in {zone}: {said(at_ns, zone)} for {said(at_s * NS, zone)}"
                compared += 1
    assert compared > 5000


def said(at_ns, zone):
    return "never" if at_ns is None else f"{datetime.fromtimestamp(at_ns // NS, ZoneInfo(zone)):%Y-%m-%d %H:%M:%S %z}"
