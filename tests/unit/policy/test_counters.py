"""Declarations of counters: what is wrong is told with its place, and windows begin where they should."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symbi.errors import PolicySyntaxError
from symbi.policy.cases import parse_cases, run_cases
from symbi.policy.catalog import ToolType
from symbi.policy.counters import Kind, Per, Period, Verdict, Window, parse_counters
from symbi.policy.policies import PolicySet
from symbi.policy.source import PolicySource

BUDGETS = Path(__file__).parents[2] / "data" / "policies" / "budgets"
NUMBER = {"properties": {"amount": {"type": "number"}, "to": {"type": "string"}, "max_tokens": {"type": "integer"}}}
TOOLS = [ToolType(name, NUMBER) for name in ("bank.pay", "crm.read", "mail.send", "model.ask")]
GOOD = '[history.n]\nkind = "sum"\naction = "InvokeTool::bank.pay"\nof = "arguments.amount"\nper = "owner"\n'


def load(history, cedar=""):
    return PolicySet.load([PolicySource("p.cedar", cedar), PolicySource("x/history.toml", history)], (), TOOLS)


def test_every_key_is_read():
    (counter,) = parse_counters(
        "history.toml",
        '[history.n]\nkind = "count"\naction = ["WriteLog", "InvokeTool"]\nper = "group"\nwithin = "90m"\n'
        'resource = ["Tool::a.b", "ToolServer::c"]\nwhere = { integrity = "untrusted", confidentiality = ["secret"] }\n'
        'verdict = "any"\n',
    )
    assert (counter.name, counter.kind, counter.per, counter.verdict) == ("n", Kind.COUNT, Per.GROUP, Verdict.ANY)
    assert counter.actions == ("InvokeTool", "WriteLog")
    assert counter.window == Window(5400)
    assert counter.resources == (("Tool", "a.b"), ("ToolServer", "c"))
    assert dict(counter.labels) == {"integrity": {"untrusted"}, "confidentiality": {"secret"}}
    assert counter.place.line == 1
    (total,) = parse_counters("history.toml", GOOD + "unit = 0.01")
    assert (total.of, total.places, total.window) == (("arguments", "amount"), 2, None)


@pytest.mark.parametrize(
    ("text", "place", "says"),
    [
        ("[history.n", "1:11", "not TOML: expected ']' at the end of a table declaration"),
        ("\n[history.n]\nkind = = 1", "3:8", "not TOML: invalid value"),
        ("[histroy.n]\nkind = 1", "1:2", "unknown key `histroy`; did you mean `history`?"),
        ("history = 1", "1:1", "`history` must be a table"),
        ("history.n = 1", "1:9", "`history.n` must be a table"),
        ("[history.n-m]", "1:10", "`n-m` cannot name a counter"),
        ("[history.if]", "1:10", "`if` cannot name a counter"),
        ("[history.n_before]", "1:10", "`n_before` cannot name a counter"),
        ("[history.n]", "1:10", "`kind` is missing; it is one of `formerly`, `count`, `sum`"),
        (GOOD.replace('"sum"', '"summ"'), "2:1", "`kind` cannot be `summ`; did you mean `sum`?"),
        (GOOD.replace('"sum"', "1"), "2:1", "`kind` cannot be `1`; use one of"),
        (GOOD.replace("per", "pre"), "5:1", "unknown key `pre`; did you mean `per`?"),
        (GOOD.replace('per = "owner"\n', ""), "1:10", "`per` is missing"),
        (GOOD.replace('"owner"', '"user"'), "5:1", "`per` cannot be `user`"),
        (GOOD.replace('"InvokeTool::bank.pay"', "[]"), "3:1", "`action` must be a string, or a list of strings"),
        (GOOD.replace('"InvokeTool::bank.pay"', "[1]"), "3:1", "`action` must be a string, or a list of strings"),
        (GOOD.replace("action", "# action"), "1:10", "`action` is missing"),
        (GOOD.replace('of = "arguments.amount"\n', ""), "1:10", "`of` must say what is added up"),
        (GOOD.replace("arguments.amount", "arguments..amount"), "4:1", "`of` must say what is added up"),
        (GOOD.replace("arguments.amount", 'x < 1 || \\"'), "4:1", "`of` must say what is added up"),
        (GOOD.replace('"sum"', '"count"'), "4:1", "`of` means nothing to a count"),
        (GOOD + "unit = 0.02", "6:1", "`unit` must be 1, 0.1, 0.01, 0.001 or 0.0001"),
        (GOOD + "unit = true", "6:1", "`unit` must be"),
        (GOOD + 'unit = "cent"', "6:1", "`unit` must be"),
        (GOOD + "unit = nan", "6:1", "`unit` must be"),
        (GOOD + 'verdict = "deny"', "6:1", "a sum is about what was allowed"),
        (GOOD + 'within = "1w"', "6:1", "`within` cannot be `1w`"),
        (GOOD + 'within = "0s"', "6:1", "`within` cannot be `0s`"),
        (GOOD + "within = 5", "6:1", "`within` cannot be `5`"),
        (GOOD + 'within = "367d"', "6:1", "`367d` is longer than a year"),
        (GOOD + 'resource = "bank"', "6:1", "`bank` is no resource; write `Type::id`"),
        (GOOD + 'where = "untrusted"', "6:1", "`where` must be a table"),
        (GOOD + 'where = { integrty = "untrusted" }', "6:11", "unknown key `integrty`; did you mean `integrity`?"),
        (GOOD + 'where = { integrity = "untrsted" }', "6:11", "`untrsted` is no integrity; did you mean `untrusted`?"),
    ],
)
def test_a_wrong_declaration_is_refused_at_its_place(text, place, says):
    with pytest.raises(PolicySyntaxError) as refusal:
        parse_counters("x/history.toml", text)
    assert str(refusal.value).startswith(f"x/history.toml:{place}: ")
    assert says in str(refusal.value)
    assert "(at " not in str(refusal.value)  # the place stands in front


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            GOOD.replace("InvokeTool::bank.pay", "WritLog"),
            "counts the unknown action `WritLog`; did you mean `WriteLog`?",
        ),
        (GOOD.replace("InvokeTool::bank.pay", "InvokeTool"), "and `InvokeTool` has a group: name the tools"),
        (GOOD.replace("InvokeTool::bank.pay", "WriteLog"), "and `WriteLog` has no whole number in it"),
        (GOOD.replace("arguments.amount", "arguments.amuont"), "has no such argument; did you mean `amount`?"),
        (GOOD.replace("arguments.amount", "arguments.to"), "which is no number in the schema of `bank.pay`"),
        (GOOD.replace("arguments.amount", "amount"), "which is no argument of `bank.pay`; write `of ="),
        (GOOD.replace("arguments.amount", "arguments.amount.x"), "has no such argument"),
    ],
)
def test_what_cannot_be_counted_is_refused_with_the_whole_set(text, says):
    with pytest.raises(PolicySyntaxError) as refusal:
        load(text)
    assert str(refusal.value).startswith("x/history.toml:1:")
    assert says in str(refusal.value)


def test_a_counter_that_is_there_twice_is_refused_and_all_problems_are_listed():
    sources = [PolicySource(f"{folder}/history.toml", GOOD) for folder in "ab"]
    with pytest.raises(PolicySyntaxError, match=r"`n` is declared at a/history\.toml:1:10 already") as refusal:
        PolicySet.load([*sources, PolicySource("p.cedar", "permit(")], (), TOOLS)
    assert len(refusal.value.fields["errors"]) == 2


def test_there_are_not_more_counters_than_a_decision_can_read():
    def many(count):
        return "".join(GOOD.replace("history.n", f"history.n{i}") for i in range(count))

    assert len(load(many(64)).counters) == 64
    with pytest.raises(PolicySyntaxError, match=r"x/history\.toml:321:10: 65 counters are more than 64"):
        load(many(65))


def test_a_tool_that_nobody_offers_yet_is_a_warning():
    policies = load(GOOD.replace("bank.pay", "bank.payy"))
    (warning,) = policies.warnings
    assert str(warning).startswith("x/history.toml:1:10: counter `n` names the tool `bank.payy`")
    assert warning.hint == "did you mean `bank.pay`?"


def test_resources_of_an_allocation_are_added_up():
    assert load(GOOD.replace("InvokeTool::bank.pay", "AllocateResources").replace("arguments.amount", "memoryMib"))


def test_policies_are_validated_against_the_counters():
    forbid = "forbid (principal, action, resource) when {{ {} }};"
    for good in (
        "context.history.n > 5",
        "context.history.n_before == 0",
        "context.usage.calls + context.time.hour > 1",
    ):
        assert load(GOOD, forbid.format(good)).reads
    for bad in ("context.history.m > 5", "context.history.n", "context.usage.tokens > 1", "context.time.year > 1"):
        with pytest.raises(PolicySyntaxError):
            load(GOOD, forbid.format(bad))


def test_the_version_follows_every_part_of_a_declaration():
    texts = [
        GOOD,
        GOOD + "unit = 0.1",
        GOOD + 'within = "1h"',
        GOOD + 'within = "hour"',
        GOOD + 'resource = "Tool::bank.pay"',
        GOOD + 'where = { integrity = "user" }',
        GOOD.replace('"owner"', '"agent"'),
        GOOD.replace("arguments.amount", "arguments.max_tokens"),
        GOOD.replace('"InvokeTool::bank.pay"', '["InvokeTool::bank.pay", "InvokeTool::model.ask"]'),
        "",
    ]
    assert len({load(text).version for text in texts}) == len(texts)
    assert load(GOOD).version == load("# a remark\n\n" + GOOD).version


@given(
    st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - bounds are naive
    st.sampled_from(Period),
)
def test_a_calendar_window_begins_where_the_calendar_says(now, period):
    start = now.replace(minute=0, second=0, microsecond=0)
    if period is not Period.HOUR:
        start = start.replace(hour=0)
    if period is Period.WEEK:
        start -= timedelta(days=now.weekday())
    if period is Period.MONTH:
        start = start.replace(day=1)
    now_ns = (now - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000
    start_ns = (start - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000
    assert Window(period=period).cut_ns(now_ns) == start_ns - 1


def test_the_example_of_budgets_does_what_its_cases_say():
    sources = [
        PolicySource(str(BUDGETS / name), (BUDGETS / name).read_text()) for name in ("budgets.cedar", "history.toml")
    ]
    policies = PolicySet.load(sources, (), TOOLS)
    assert not policies.warnings
    results = run_cases(policies, parse_cases("cases.toml", (BUDGETS / "cases.toml").read_text()))
    assert [(result.case.name, result.problems) for result in results if not result.passed] == []
    assert len(results) == 9
