"""Conditions combine to the strictest, and change arguments as they say."""

import math

import pytest

from symbi.errors import InputError
from symbi.policy.decision import ConditionKind, PolicyCondition
from symbi.policy.obligations import REDACTED, Obligations, Rate, combine
from symbi.types import Confidentiality, Integrity, Label, PolicyId, SecurityTier


def _combined(*pairs):
    return combine(
        [PolicyCondition(ConditionKind(kind), value, PolicyId(f"p{i}")) for i, (kind, value) in enumerate(pairs)]
    )


def test_no_conditions_ask_for_nothing():
    nothing = combine([])
    assert nothing == Obligations()
    assert nothing.apply_arguments({"a": 1}) == {"a": 1}
    assert nothing.raise_tier(SecurityTier.INTERPRETER) is SecurityTier.INTERPRETER
    assert nothing.limit_timeout(7.5) == 7.5


def test_the_strictest_wins():
    combined = _combined(
        ("redact", "arguments.b"),
        ("redact", "arguments.a.x, arguments.b"),
        ("cap", "arguments.n=500"),
        ("cap", "arguments.n=20.5, arguments.m=-1"),
        ("tier", "gvisor"),
        ("tier", "docker"),
        ("timeout", "1m"),
        ("timeout", "1500ms"),
        ("approval", "ops"),
        ("approval", "legal"),
        ("approval", "ops"),
        ("record", "full"),
        ("record", "digest"),
        ("record", "redacted"),
    )
    assert combined == Obligations(
        redact=("a.x", "b"),
        caps=(("m", -1), ("n", 20.5)),
        tier=SecurityTier.TIER2,
        timeout_s=1.5,
        approvals=("legal", "ops"),
        record="digest",
    )


@pytest.mark.parametrize(("text", "seconds"), [("250ms", 0.25), ("30s", 30), ("2m", 120), ("1h", 3600)])
def test_times_have_units(text, seconds):
    assert _combined(("timeout", text)).timeout_s == seconds


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("redact", ""),
        ("redact", "body"),
        ("redact", "arguments"),
        ("redact", "arguments."),
        ("redact", "arguments.a..b"),
        ("redact", "arguments.a,"),
        ("cap", "arguments.a"),
        ("cap", "arguments.a="),
        ("cap", "arguments.a=1e5"),
        ("cap", "arguments.a=nan"),
        ("cap", "arguments.a=0.00001"),
        ("cap", "a=1"),
        ("tier", "interpreter"),
        ("tier", "tier9"),
        ("tier", ""),
        ("timeout", "30"),
        ("timeout", "0s"),
        ("timeout", "-1s"),
        ("timeout", "1.5s"),
        ("timeout", "1d"),
        ("approval", ""),
        ("approval", "  "),
        ("approval", "a\nb"),
        ("approval", "x" * 201),
        ("record", ""),
        ("record", "none"),
    ],
)
def test_a_malformed_condition_denies(kind, value):
    with pytest.raises(InputError):
        _combined((kind, value))


@pytest.mark.parametrize("first", [0, 1, 2])
def test_marks_join_and_what_tells_most_is_told(first):
    pairs = [
        ("mark", "untrusted"), ("mark", "confidential:pii"), ("mark", "internal:health, trusted"),
        ("output", "full"), ("output", "digest"), ("log", "info"), ("log", "error"), ("log", "debug"),
        ("tags", "SOC2, GDPR"), ("tags", "SOC2"), ("retain", "30d"), ("retain", "365d"),
    ]  # fmt: skip
    combined = _combined(*pairs[first:], *pairs[:first])
    assert combined.mark == Label(Integrity.UNTRUSTED, Confidentiality.CONFIDENTIAL, (), ("health", "pii"))
    assert (combined.output, combined.log_level) == ("digest", "error")
    assert (combined.tags, combined.retention_days) == (("GDPR", "SOC2"), 365)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("mark", "user"), ("mark", "public"), ("mark", "public:pii"), ("mark", "untrusted:pii"), ("mark", ""),
        ("mark", "confidential:"), ("mark", "confidential:Two Words"), ("output", "redacted"), ("log", "critical"),
        ("tags", ""), ("tags", "a b"), ("retain", "0d"), ("retain", "365"), ("retain", "99999d"),
        ("rate", "0/minute"), ("rate", "5"), ("rate", "5/week"), ("rate", "5/0s"),
    ],
)  # fmt: skip
def test_a_malformed_newer_condition_denies(kind, value):
    with pytest.raises(InputError) as refused:
        _combined((kind, value))
    assert refused.value.code == "policy.condition"
    assert refused.value.hint


def test_a_rate_knows_its_policy_and_its_window():
    assert _combined(("rate", "500/minute"), ("rate", "5 / 30s")).rates == (
        Rate(PolicyId("p0"), 500, 60),
        Rate(PolicyId("p1"), 5, 30),
    )


def test_an_unknown_condition_denies():
    with pytest.raises(InputError, match="unknown condition `sign`"):
        combine([PolicyCondition("sign", "x", PolicyId("p"))])


def test_redaction_replaces_what_is_there_and_leaves_the_rest():
    values = {"a": {"x": 1, "y": 2}, "list": [{"x": [1]}, {"y": 2}, "x"], "b": "text"}
    changed = _combined(
        ("redact", "arguments.a.x, arguments.list.x, arguments.b.deep, arguments.none")
    ).apply_arguments(values)
    assert changed == {"a": {"x": REDACTED, "y": 2}, "list": [{"x": REDACTED}, {"y": 2}, "x"], "b": "text"}
    assert values["a"] == {"x": 1, "y": 2}


@pytest.mark.parametrize(
    ("bound", "value", "expected"),
    [
        ("500", 501, 500),
        ("500", 500, 500),
        ("500", -10, -10),
        ("500", 500.5, 500),
        ("20.5", 21, 20),
        ("20.5", 21.0, 20.5),
        ("-20.5", -20, -21),
        ("500", math.inf, 500),
        ("5", [1, 9, [7]], [1, 5, [5]]),
    ],
)
def test_a_larger_number_is_lowered_to_the_bound(bound, value, expected):
    changed = _combined(("cap", f"arguments.n={bound}")).apply_arguments({"n": value, "m": 1})
    assert changed == {"n": expected, "m": 1}


@pytest.mark.parametrize("values", [{}, {"n": None}, {"n": "9"}, {"n": True}, {"n": math.nan}, {"n": {}}, {"n": ["9"]}])
def test_a_cap_that_cannot_be_applied_denies(values):
    with pytest.raises(InputError, match=r"`arguments\.n` is capped"):
        _combined(("cap", "arguments.n=5")).apply_arguments(values)


def test_a_cap_inside_of_something_that_is_no_object_denies():
    with pytest.raises(InputError, match="missing"):
        _combined(("cap", "arguments.a.n=5")).apply_arguments({"a": 7})


def test_a_field_that_is_capped_and_redacted_is_redacted():
    both = _combined(("redact", "arguments.n"), ("cap", "arguments.n=5"))
    assert both.apply_arguments({"n": 9}) == {"n": REDACTED}


@pytest.mark.parametrize(
    ("least", "asked", "given"),
    [
        ("docker", "interpreter", "docker"),
        ("docker", "docker", "docker"),
        ("docker", "gvisor", "gvisor"),
        ("gvisor", "interpreter", "gvisor"),
        ("gvisor", "docker", "gvisor"),
    ],
)
def test_a_tier_is_raised_and_never_lowered(least, asked, given):
    assert _combined(("tier", least)).raise_tier(SecurityTier(asked)) is SecurityTier(given)


def test_a_time_is_shortened_and_never_lengthened():
    limit = _combined(("timeout", "5s"))
    assert limit.limit_timeout(30.0) == 5
    assert limit.limit_timeout(1.0) == 1


@pytest.mark.parametrize(
    ("text", "limit", "window_s"),
    [("1/second", 1, 1), ("500/minute", 500, 60), ("10 / hour", 10, 3_600), ("3/day", 3, 86_400), ("7/90s", 7, 90),
     ("1000000/24h", 1_000_000, 86_400)],
)  # fmt: skip
def test_a_rate_is_a_number_and_a_window(text, limit, window_s):
    (rate,) = combine([PolicyCondition(ConditionKind.RATE, text, PolicyId("p"))]).rates
    assert (rate.policy, rate.limit, rate.window_s) == ("p", limit, window_s)


@pytest.mark.parametrize(
    "text", ["", "5", "0/minute", "-1/minute", "1.5/minute", "5/month", "5/0s", "5/25h", "1000001/day", "5/minute/hour", "\u0665/minute"]
)  # fmt: skip
def test_what_is_no_rate_is_refused(text):
    with pytest.raises(InputError, match="is not a rate"):
        combine([PolicyCondition(ConditionKind.RATE, text, PolicyId("p"))])


def test_all_rates_hold():
    kept = combine(
        [PolicyCondition(ConditionKind.RATE, f"{n}/minute", PolicyId(p)) for n in (9, 5) for p in "qp"]
    ).rates
    assert [(rate.policy, rate.limit) for rate in kept] == [("p", 5), ("p", 9), ("q", 5), ("q", 9)]


def test_one_permit_that_wants_each_effect_by_itself_is_enough():
    assert not _combined(("rate", "5/minute")).each
    assert _combined(("rate", "5/minute"), ("lease", "none")).each


@pytest.mark.parametrize("text", ["", "60s", "None", "none "])
def test_what_is_no_way_to_lease_is_refused(text):
    with pytest.raises(InputError, match="is not a way to lease"):
        combine([PolicyCondition(ConditionKind.LEASE, text, PolicyId("p"))])
