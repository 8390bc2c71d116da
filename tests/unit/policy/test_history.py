"""What came before, as values: amounts, scopes, facts, what offline requests leave out, and which policies read it."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symbi.errors import InputError
from symbi.policy.context import NO_REQUEST, decimal_value
from symbi.policy.counters import Per, Verdict, parse_counters
from symbi.policy.decision import VOLATILE, Allow, Deny, PolicyRequest
from symbi.policy.engine import decide
from symbi.policy.explain import explain
from symbi.policy.history import LARGEST, Past, Usage, adds, counts, offline, scopes, supply, time_facts
from symbi.policy.policies import PolicySet
from symbi.policy.source import PolicySource
from symbi.types import AgentId, Principal, Resource

ADA = Principal(AgentId("a"), "ada", ("x", "y"))
LABEL = {"integrity": "user", "confidentiality": "public", "categories": []}
PAID = """
[history.paid]
kind = "sum"
action = "InvokeTool::bank.pay"
of = "arguments.amount"
unit = 0.01
per = "owner"
[history.seen]
kind = "formerly"
action = "InvokeTool"
resource = "ToolServer::crm"
where = { integrity = ["untrusted"] }
per = "run"
"""
PAID_COUNTER, SEEN_COUNTER = parse_counters("history.toml", PAID)


def request(amount=None, action="InvokeTool::bank.pay", label=None, parents=(), **context):
    arguments = {} if amount is None else {"amount": amount}
    return PolicyRequest(
        ADA,
        action,
        Resource("Tool", action, (), parents),
        {"arguments": arguments, "label": label or LABEL, "request": dict(NO_REQUEST), **context},
    )


# --- amounts ----------------------------------------------------------------------------------


@given(st.decimals(0, 10**9, places=2))
def test_an_amount_becomes_minor_units_exactly(amount):
    shown = {"__extn": {"fn": "decimal", "arg": f"{amount:.4f}"}}
    assert adds(PAID_COUNTER, request(shown)) == int(amount * 100)


@given(st.decimals(-(10**6), 10**6, places=4))
def test_what_is_finer_or_negative_is_refused_and_nothing_is_rounded(amount):
    shown = decimal_value(float(amount)) if amount.is_zero() else {"__extn": {"fn": "decimal", "arg": f"{amount:.4f}"}}
    exact = amount >= 0 and amount * 100 == int(amount * 100)
    try:
        added = adds(PAID_COUNTER, request(shown))
    except InputError:
        assert not exact
    else:
        assert exact
        assert Decimal(added) == amount * 100


@pytest.mark.parametrize(
    "amount",
    [None, "12", True, [1], {"a": 1}, {"__extn": {"fn": "decimal", "arg": "NaN"}}, {"__extn": {"fn": "ip", "arg": "1"}},
     {"__extn": {"fn": "decimal", "arg": "x"}}, LARGEST // 100 + 1, -1],
)  # fmt: skip
def test_what_is_no_amount_is_refused(amount):
    with pytest.raises(InputError, match=r"`arguments\.amount`, which the counter `paid` adds up,"):
        adds(PAID_COUNTER, request(amount))


def test_whole_numbers_are_whole_units():
    assert adds(PAID_COUNTER, request(5)) == 500


# --- what counts ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "counted"),
    [
        (request(action="InvokeTool::crm.read", label={**LABEL, "integrity": "untrusted"}, parents=(("ToolServer", "crm"),)), True),
        (request(action="InvokeTool::crm.read", label=LABEL, parents=(("ToolServer", "crm"),)), False),
        (request(action="InvokeTool::crm.read", label={**LABEL, "integrity": "untrusted"}), False),
        (request(action="WriteLog", label={**LABEL, "integrity": "untrusted"}, parents=(("ToolServer", "crm"),)), False),
    ],
)  # fmt: skip
def test_group_resource_and_label_decide_what_counts(asked, counted):
    assert counts(SEEN_COUNTER, asked, Verdict.ALLOW) is counted
    assert not counts(SEEN_COUNTER, asked, Verdict.DENY)


def test_scopes_keep_everybody_apart():
    assert scopes(Per.GROUP, ADA, "r", "1") == ("group:x", "group:y")
    assert scopes(Per.GROUP, Principal(AgentId("a")), "r", "1") == ("nogroup:",)
    assert scopes(Per.RUN, ADA, "", "1") == ()
    keys = [scopes(per, ADA, "ada", "ada") for per in Per if per is not Per.GROUP]
    assert len(set(keys)) == len(keys)


# --- facts ------------------------------------------------------------------------------------


def test_the_gate_supplies_what_is_read_and_nothing_else():
    past = Past(0, Usage(1, 2, 3, 4), (("paid", 700), ("seen", 1)))
    counters = (PAID_COUNTER, SEEN_COUNTER)
    context = supply(counters, VOLATILE, request(5), past).context
    assert context["history"] == {"paid": 1200, "paid_before": 700, "seen": True}
    assert context["usage"] == {"effects": 1, "denied": 2, "calls": 3, "seconds": 4}
    assert context["time"] == time_facts(0) == {"hour": 0, "minute": 0, "weekday": 4, "day": 1, "epochS": 0}
    assert supply(counters, (), request(), past) == request()  # not even the amount is looked at


def test_the_time_is_that_of_the_clock_on_the_wall_in_utc():
    second = 1_000_000_000
    last = int(datetime(2024, 2, 29, 23, 59, 59, tzinfo=UTC).timestamp())
    assert time_facts(last * second) == {"hour": 23, "minute": 59, "weekday": 4, "day": 29, "epochS": last}
    assert time_facts((last - 3599) * second) == {
        "hour": 23,
        "minute": 0,
        "weekday": 4,
        "day": 29,
        "epochS": last - 3599,
    }
    assert time_facts((last + 1) * second) == {"hour": 0, "minute": 0, "weekday": 5, "day": 1, "epochS": last + 1}


def test_the_trail_has_what_policies_read_of_the_past_and_nothing_else():
    past = Past(7_000_000_000, Usage(1, 2, 3, 4), (("paid", 2**62), ("seen", 1)))
    usage = {"effects": 1, "denied": 2, "calls": 3, "seconds": 4}
    assert past.recorded({"time"}) == {"past": {"epoch_s": 7}}
    assert past.recorded({"usage"}) == {"past": {"usage": usage}}
    assert past.recorded({"history"}) == {"past": {"history": {"paid": str(2**62), "seen": "1"}}}
    assert past.recorded(VOLATILE) == {
        "past": {"epoch_s": 7, "usage": usage, "history": {"paid": str(2**62), "seen": "1"}}
    }
    assert past.recorded(()) == {}


def test_a_value_beyond_a_long_is_refused():
    past = Past(0, Usage(), (("paid", LARGEST), ("seen", 0)))
    with pytest.raises(InputError, match="`paid` is beyond"):
        supply((PAID_COUNTER, SEEN_COUNTER), {"history"}, request(1), past)


def test_a_counter_whose_value_is_not_known_is_an_error_and_no_zero():
    with pytest.raises(KeyError):
        supply((PAID_COUNTER, SEEN_COUNTER), {"history"}, request(1), Past())


def policies(condition):
    text = f"permit (principal, action, resource);\nforbid (principal, action, resource) when {{ {condition} }};"
    return PolicySet.load([PolicySource("p.cedar", text), PolicySource("history.toml", PAID)])


@pytest.mark.parametrize("key", sorted(VOLATILE))
def test_what_policies_read_and_nobody_supplied_denies(key):
    reading = policies(
        {"time": "context.time.hour > 30", "usage": "context.usage.calls > 9", "history": "context.history.seen"}[key]
    )
    assert reading.reads == {key}
    asked = PolicyRequest(ADA, "WriteLog", Resource("Resource", "log"), {"label": LABEL, "request": dict(NO_REQUEST)})
    decision = decide(reading, asked)
    assert isinstance(decision, Deny)
    assert f"`{key}`" in decision.reason
    assert isinstance(decide(reading, offline(reading.counters, asked)), Allow)
    assert isinstance(decide(policies("false"), asked), Allow)  # nobody asks for it
    assert explain(reading, asked).summary.startswith("allowed")


def test_what_an_offline_request_leaves_out_is_zero_and_follows_from_the_rest():
    def history(**given):
        return offline((PAID_COUNTER, SEEN_COUNTER), request(5, history=given)).context["history"]

    assert history() == {"paid": 500, "paid_before": 0, "seen": False}
    assert history(paid_before=700) == {"paid": 1200, "paid_before": 700, "seen": False}
    assert history(paid=700, seen=True) == {"paid": 700, "paid_before": 200, "seen": True}
    assert history(paid=9, paid_before=4) == {"paid": 9, "paid_before": 4, "seen": False}
    assert history(other=1)["other"] == 1  # the schema refuses it
    assert offline((PAID_COUNTER,), request(5, history="none")).context["history"] == "none"  # likewise
    assert offline((), request(5, usage=["none"])).context["usage"] == ["none"]
    context = offline((), request(5, usage={"calls": 3})).context
    assert context["usage"] == {"effects": 0, "denied": 0, "calls": 3, "seconds": 0}
    assert set(context["time"].values()) == {0}


@pytest.mark.parametrize(
    ("condition", "read"),
    [
        ("true", ()),
        ('context.label.integrity == "user"', ()),
        ("context.time.hour > 1", ("time",)),
        ("context has usage && 1 < 2", ("usage",)),
        ("if context.history.seen then context.usage.calls > 1 else [context.time.day].contains(1)", VOLATILE),
        ("context == context", VOLATILE),
        ('principal.owner == "context.time"', ()),
    ],
)
def test_it_is_known_what_policies_read(condition, read):
    scope = 'action == Action::"WriteLog"'
    text = f"forbid (principal, {scope}, resource) when {{ {condition} }};"
    loaded = PolicySet.load([PolicySource("p.cedar", text), PolicySource("history.toml", PAID)])
    assert loaded.reads == set(read)
