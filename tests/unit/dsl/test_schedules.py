"""Schedules of agent files: what they say, and what is wrong with them, at its place."""

import pytest

from symbi.dsl.check import check
from symbi.dsl.compile import compile_file
from symbi.dsl.parser import parse
from symbi.dsl.spec import ScheduleSpec
from symbi.dsl.timetable import Timetable

AGENTS = """
agent a { with { 1 } }
agent needy(x: String) { with { 1 } }
agent easy(x: Optional<String>) { with { 1 } }
agent empty {}
"""


def compiled(schedule):
    text = AGENTS + schedule
    return compile_file(parse(text, "t.symbi"), text).schedules


def test_a_schedule_is_read_whole():
    assert compiled('schedule s { cron = "0 9 * * MON-FRI", timezone: "Europe/Berlin" agent = a one_shot = true }') == (
        ScheduleSpec("s", "a", Timetable("0 9 * * MON-FRI", zone="Europe/Berlin"), one_shot=True),
    )
    (found,) = compiled('schedule s { at = "2030-01-01T00:00:00Z" agent = easy }')
    assert (found.agent, found.one_shot, found.timetable.cron) == ("easy", True, "")


@pytest.mark.parametrize(
    ("source", "says", "hint"),
    [
        ('schedule s { cron = §"61 * * * *" agent = a }', "the minute is wrong", "0 to 59"),
        ('schedule s { at = §"tomorrow" agent = a }', "is no time", "write"),
        ('schedule s { cron = "* * * * *" timezone = §"Mars" agent = a }', "no time zone `Mars`", "IANA"),
        ('schedule s { cron = "* * * * *" agent = §b }', "no agent `b` in this file", ""),
        ('schedule s { cron = "* * * * *" agent = §esy }', "no agent `esy`", "did you mean `easy`"),
        ('schedule s { cron = "* * * * *" agent = §needy }', "needs the input `x`", "Optional"),
        ('schedule s { cron = "* * * * *" agent = §empty }', "has nothing to run", ""),
        ("schedule s { cron = §5 agent = a }", "`cron` is a text", ""),
        ('schedule s { cron = "* * * * *" agent = a one_shot = §1 }', "true or false", ""),
        ('schedule s { cron = "* * * * *" agent = a §audit = true }', "`audit` is not available", "remove it"),
        ('schedule s { cron = "* * * * *" agent = a deliver = §"x.>" }', "`x.>` is not the name of a topic", "with dots"),
        ('schedule s { cron = "* * * * *" agent = a deliver = §5 }', "`?` is not the name of a topic", "with dots"),
        ('schedule s { cron = "* * * * *" agent = a §policy = p }', "`policy` is not available", "remove it"),
        ('schedule s { cron = "* * * * *" agent = a }\n§schedule s { cron = "* * * * *" agent = a }', "schedule `s`", ""),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_at_its_place(source, says, hint):
    before, _, _ = source.partition("§")
    found = check(parse(AGENTS + source.replace("§", ""), "t.symbi"))
    (error,) = [one for one in found if one.severity == "error"]
    assert says in error.message
    assert hint in error.hint
    lines = (AGENTS + before).split("\n")
    assert (error.place.line, error.place.column) == (len(lines), len(lines[-1]) + 1)
