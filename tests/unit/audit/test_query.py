"""Questions as people say them: times, ranges, types, and what is refused with a reason."""

from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symbi.audit.event import AuditEventType
from symbi.audit.query import (
    LARGEST_SEQUENCE,
    VERDICTS,
    Asked,
    EventFilter,
    read_filter,
    read_span,
    read_time,
    read_types,
)
from symbi.clock import parse_rfc3339, rfc3339
from symbi.errors import InputError

NOW_NS = 1_767_225_600_000_000_000  # 2026-01-01T00:00:00Z


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2026-01-31T08:05:06Z", "2026-01-31T08:05:06.000000000Z"),
        ("2026-01-31t08:05:06z", "2026-01-31T08:05:06.000000000Z"),
        ("2026-01-31 08:05:06Z", "2026-01-31T08:05:06.000000000Z"),
        ("2026-01-31T08:05:06.5Z", "2026-01-31T08:05:06.500000000Z"),
        ("2026-01-31T08:05:06.123456789Z", "2026-01-31T08:05:06.123456789Z"),
        ("2026-01-31T08:05:06+01:30", "2026-01-31T06:35:06.000000000Z"),
        ("2026-01-31T23:05:06-01:00", "2026-02-01T00:05:06.000000000Z"),
        ("0999-01-31T08:05:06Z", "0999-01-31T08:05:06.000000000Z"),
        ("2026-01-31", "2026-01-31T00:00:00.000000000Z"),
        ("2h", "2025-12-31T22:00:00.000000000Z"),
        ("90s", "2025-12-31T23:58:30.000000000Z"),
        ("1d12h", "2025-12-30T12:00:00.000000000Z"),
        ("1w1d1h1m1s", "2025-12-23T22:58:59.000000000Z"),
        ("0s", "2026-01-01T00:00:00.000000000Z"),
        ("999999w", "1970-01-01T00:00:00.000000000Z"),
    ],
)
def test_a_time_is_read_as_events_have_it(text, time):
    assert read_time(text, NOW_NS) == time


@pytest.mark.parametrize(
    "text",
    [
        "", "h", "2", "2x", "2h1d", "-2h", "2 h", "2.5h", "\u0662h", "now", "2026", "2026-13-01", "2026-02-30",
        "2026-01-31T08:05:06", "2026-01-31T08:05Z", "2026-01-31T25:05:06Z", "2026-01-31T08:05:60Z",
        "2026-01-31T08:05:06.1234567890Z", "2026-01-31T08:05:06+25:00", "2026-01-31T08:05:06+01:99",
        "2026-01-31T08:05:06 +01:00", "0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00", "2026-01-31\n",
        "9" * 400 + "h",
    ],
)  # fmt: skip
def test_what_is_no_time_is_refused_with_the_forms_there_are(text):
    with pytest.raises(InputError, match="is not a time") as refused:
        read_time(text, NOW_NS)
    assert refused.value.code == "input.time"
    assert "2h" in (refused.value.hint or "")
    assert len(refused.value.message) < 200


@given(st.integers(0, 4_102_444_800_000_000_000))
def test_the_time_of_an_event_is_read_as_it_is(ns):
    assert read_time(rfc3339(ns), NOW_NS) == rfc3339(ns)
    assert parse_rfc3339(read_time(rfc3339(ns), NOW_NS)) == ns


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("17", (17, 17)),
        ("10..20", (10, 20)),
        ("10..10", (10, 10)),
        ("10..", (10, None)),
        ("..20", (None, 20)),
        (f"1..{LARGEST_SEQUENCE}", (1, LARGEST_SEQUENCE)),
    ],
)
def test_a_range_is_read(text, span):
    assert read_span(text) == span


@pytest.mark.parametrize(
    "text",
    [
        "",
        "..",
        "a..b",
        "1...3",
        "1-3",
        "-1",
        "0",
        "0..5",
        "20..10",
        "1..2..3",
        "9999999999999999999",
        "\u0661",
        " 1",
        "1..9" + "9" * 30,
    ],
)
def test_what_is_no_range_is_refused(text):
    with pytest.raises(InputError) as refused:
        read_span(text)
    assert refused.value.code == "input.range"


def test_a_range_that_is_the_wrong_way_round_is_named():
    with pytest.raises(InputError, match="ends before it begins") as refused:
        read_span("20..10")
    assert refused.value.hint == "write `10..20`"


def test_types_are_read_one_by_one_and_by_family():
    assert read_types(["decision.deny"]) == (AuditEventType.DECISION_DENY,)
    assert read_types(["decision.*", "decision.deny"]) == (AuditEventType.DECISION_ALLOW, AuditEventType.DECISION_DENY)
    assert read_types([]) == ()
    for kind in AuditEventType:
        assert kind in read_types([f"{kind.partition('.')[0]}.*"])


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("decision.denied", "did you mean `decision.deny`?"),
        ("decision", "did you mean `decision.*`?"),
        ("decisions.*", "did you mean `decision.*`?"),
        ("xyzzy", "types are trail.started, "),
        ("", "types are trail.started, "),
        ("*", "types are trail.started, "),
    ],
)
def test_an_unknown_type_is_refused_with_the_closest(name, hint):
    with pytest.raises(InputError, match="unknown event type") as refused:
        read_types([name])
    assert (refused.value.hint or "").startswith(hint)


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        (Asked(verdict="denied"), "input.verdict"),
        (Asked(verdict=""), "input.verdict"),
        (Asked(agent=""), "input.filter"),
        (Asked(run=""), "input.filter"),
        (Asked(policy=""), "input.filter"),
        (Asked(since="1h", until="2h"), "input.time"),
        (Asked(since="2026-01-01", until="2026-01-01"), "input.time"),
        (Asked(types=["x"]), "input.event_type"),
        (Asked(span="x"), "input.range"),
    ],
)
def test_a_question_that_cannot_be_meant_is_refused(asked, code):
    with pytest.raises(InputError) as refused:
        read_filter(asked, NOW_NS)
    assert refused.value.code == code


def test_a_question_becomes_a_filter():
    asked = Asked("ada", "r1", ("run.*",), "deny", "p1", "2h", "1h", "5..9")
    assert read_filter(asked, NOW_NS) == EventFilter(
        "ada", "r1", read_types(["run.*"]), "deny", "p1", "2025-12-31T22:00:00.000000000Z",
        "2025-12-31T23:00:00.000000000Z", 5, 9,
    )  # fmt: skip
    assert read_filter(Asked(), NOW_NS) == EventFilter()


def test_each_part_of_a_question_makes_it_another():
    asked = Asked("ada", "r1", ("run.*",), "deny", "p1", "2h", "1h", "5..9")
    words = {asked.words()}
    for one in fields(Asked):
        values = {each.name: getattr(asked, each.name) for each in fields(Asked)}
        words.add(Asked(**(values | {one.name: () if one.name == "types" else None})).words())
    assert len(words) == len(fields(Asked)) + 1


def test_allowing_has_two_verdicts():
    assert [EventFilter(verdict=verdict).verdicts for verdict in VERDICTS] == [
        ("allow", "allow_with_conditions"), ("allow_with_conditions",), ("deny",),
    ]  # fmt: skip
    assert EventFilter().verdicts == ()
