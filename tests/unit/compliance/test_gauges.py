"""Tests of evidence that turn on time, order and pairs."""

from dataclasses import replace

import pytest

from symbi.clock import rfc3339
from symbi.compliance.evaluate import evaluate
from symbi.compliance.framework import Condition, fits
from symbi.compliance.gauges import Finding, Period
from symbi.compliance.parse import parse_framework

DAY_NS = 86_400 * 1_000_000_000
START_NS = 1_767_225_600_000_000_000  # 2026-01-01
FRAMEWORK = """
[framework]
id = "own"
title = "t"
citation = "c"
about = "a"
[[controls]]
id = "A"
title = "t"
citation = "c"
question = "q"
[[controls.evidence]]
id = "e"
says = "s"
{claim}
"""


@pytest.fixture
def put(build, draft):
    """What is found of one piece of evidence on events at given seconds after the start of 2026."""

    def run(claim, *told, period=("2026-01-01", "2027-01-01"), end_s=366 * 86_400):
        framework = parse_framework("own.toml", FRAMEWORK.format(claim=claim))
        events = build([draft(kind, run=f"r{details.get('n', '')}", **details) for _, kind, details in told]).events[1:]
        timed = [
            replace(event, timestamp=rfc3339(START_NS + round(at * 1e9)))
            for event, (at, _, _) in zip(events, told, strict=True)
        ]
        span = Period(*(f"{day}T00:00:00.000000000Z" for day in period))
        found = evaluate(framework, timed, span, size=len(timed) + 1, end=rfc3339(START_NS + round(end_s * 1e9)))
        return found.controls[0].claims[0]

    return run


EACH = 'types = ["compliance.reported"]\ntest = { at_least = 1, each_days = 30 }'


@pytest.mark.parametrize(
    ("days", "end", "finding"),
    [
        ([10, 40, 70], 100, Finding.HOLDS),
        ([10, 40.5, 70], 100, Finding.NOT_EVIDENCED),
        ([31], 40, Finding.NOT_EVIDENCED),
        ([29], 59, Finding.HOLDS),
        ([29], 60, Finding.NOT_EVIDENCED),
        ([], 10, Finding.NOT_EVIDENCED),
    ],
)
def test_no_stretch_of_the_period_is_longer_than_allowed(put, days, end, finding):
    told = [(day * 86_400, "compliance.reported", {}) for day in days]
    assert put(EACH, *told, end_s=end * 86_400).finding is finding


FOLLOWED = """types = ["effect.unknown"]
test = { followed_by = { types = ["effect.reconciled"], same = ["details.effect_id"], within_s = 100 } }"""


@pytest.mark.parametrize(
    ("told", "end_s", "finding"),
    [
        ([(0, "effect.unknown", "a"), (100, "effect.reconciled", "a")], 1000, Finding.HOLDS),
        ([(0, "effect.unknown", "a"), (101, "effect.reconciled", "a")], 1000, Finding.CONTRADICTED),
        ([(0, "effect.unknown", "a"), (1, "effect.reconciled", "b")], 1000, Finding.CONTRADICTED),
        ([(0, "effect.reconciled", "a"), (1, "effect.unknown", "a")], 1000, Finding.CONTRADICTED),
        ([(0, "effect.unknown", "a")], 101, Finding.CONTRADICTED),
        # its time is not over, so it says nothing yet
        ([(0, "effect.unknown", "a")], 100, Finding.NOT_EVIDENCED),
        ([(0, "effect.unknown", "a"), (1, "effect.reconciled", "a"), (50, "effect.unknown", "b")], 60, Finding.HOLDS),
        ([(0, "effect.unknown", "a"), (0, "effect.unknown", "a"), (1, "effect.reconciled", "a")], 1000, Finding.HOLDS),
        ([(0, "effect.unknown", "")], 1000, Finding.CONTRADICTED),
    ],
)
def test_a_partner_follows_in_time_and_is_of_the_same(put, told, end_s, finding):
    events = [(at, kind, {"effect_id": effect}) for at, kind, effect in told]
    assert put(FOLLOWED, *events, end_s=end_s).finding is finding


DIFFER = """types = ["approval.voted"]
test = { preceded_by = { types = ["approval.asked"], same = ["details.effect_id"], differ = ["details.person", "details.owner"] } }"""


@pytest.mark.parametrize(
    ("owner", "person", "finding"),
    [
        ("ada", "bob", Finding.HOLDS),
        ("ada", "ada", Finding.CONTRADICTED),
        (None, "ada", Finding.CONTRADICTED),
    ],
)
def test_two_persons_are_two(put, owner, person, finding):
    asked = {"effect_id": "e"} | ({} if owner is None else {"owner": owner})
    told = [(0, "approval.asked", asked), (1, "approval.voted", {"effect_id": "e", "person": person})]
    assert put(DIFFER, *told).finding is finding


STRICT = 'from = "configuration"\nkey = "a.*.b"\ntest = { is = "yes" }'


@pytest.mark.parametrize(
    ("settings", "finding"),
    [
        ([{"a.x.b": "yes"}], Finding.HOLDS),
        ([{"a.x.b": "yes", "a.y.b": "yes", "a.x.c": "no", "a.x.y.b": "no"}], Finding.HOLDS),
        ([{"a.x.b": "yes", "a.y.b": "no"}], Finding.CONTRADICTED),
        ([{"a.x.b": "yes"}, {"a.x.b": "no"}], Finding.CONTRADICTED),
        ([{"a.x.b": "yes"}, {}], Finding.NOT_EVIDENCED),
        ([], Finding.NOT_EVIDENCED),
    ],
)
def test_every_configuration_that_was_in_force_counts(put, settings, finding):
    told = [(at, "runtime.started", {"configuration": one}) for at, one in enumerate(settings)]
    assert put(STRICT, *told).finding is finding


def test_what_came_into_force_before_the_period_and_stayed_counts(put):
    no = (0, "runtime.started", {"configuration": {"a.x.b": "no"}})
    yes = (40 * 86_400, "runtime.started", {"configuration": {"a.x.b": "yes"}})
    later = (70 * 86_400, "runtime.started", {"configuration": {"a.x.b": "no"}})
    period = ("2026-02-01", "2026-03-01")
    assert put(STRICT, no, yes, later, period=period).finding is Finding.CONTRADICTED
    stopped = (1, "runtime.stopped", {})
    assert put(STRICT, no, stopped, yes, later, period=period).finding is Finding.HOLDS
    assert put(STRICT, no, stopped, later, period=period).finding is Finding.NOT_EVIDENCED
    assert put(STRICT, yes, period=("2026-03-01", "2026-04-01")).finding is Finding.HOLDS


@pytest.mark.parametrize(
    ("text", "pattern", "expected"),
    [
        ("InvokeTool::a.b", "InvokeTool*", True),
        ("XInvokeTool", "InvokeTool*", False),
        ("a[b]", "a[b]", True),
        ("ab", "a[b]", False),
        ("a\nb", "a*b", True),
        ("ab\n", "ab", False),
        ("", "*", True),
    ],
)
def test_only_stars_and_question_marks_mean_something(text, pattern, expected):
    assert fits(text, pattern) is expected


@pytest.mark.parametrize(
    ("condition", "value", "expected"),
    [
        (Condition("a", one_of=(True,)), {"a": 1}, False),  # a number is not a truth
        (Condition("a", one_of=(1,)), {"a": True}, False),
        (Condition("a", one_of=("1",)), {"a": 1}, False),
        (Condition("a.*.b", one_of=("y",)), {"a": [{"b": "x"}, {"b": "y"}]}, True),
        (Condition("a.*.b", none_of=("y",)), {"a": [{"b": "x"}, {"b": "y"}]}, False),
        (Condition("a", none_of=("y",)), {}, True),
        (Condition("a", present=True), {"a": []}, False),
        (Condition("a", present=True), {"a": 0}, True),
        (Condition("a", present=False), {"a": ""}, True),
        (Condition("a", at_least=3), {"a": "3"}, True),
        (Condition("a", at_least=3), {"a": "0x9"}, False),
        (Condition("a", at_least=0), {"a": True}, False),
        (Condition("a", at_least=1, at_most=2), {"a": "3"}, False),
        (Condition("a.b"), {"a": "text"}, True),
    ],
)
def test_conditions_ask_for_values_of_their_type(condition, value, expected):
    assert condition.holds(value) is expected
