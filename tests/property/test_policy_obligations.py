"""Conditions combine in any order to the same, never weaker than each alone."""

from hypothesis import given
from hypothesis import strategies as st

from symbi.errors import InputError
from symbi.policy.decision import ConditionKind, PolicyCondition
from symbi.policy.flow import join
from symbi.policy.obligations import LOG_RANK, OUTPUT_RANK, RECORD_RANK, TIER_RANK, combine
from symbi.types import PolicyId, SecurityTier

PATHS = st.sampled_from(["arguments.a", "arguments.b", "arguments.a.b", "arguments.b.a"])
VALUES = {
    ConditionKind.REDACT: PATHS,
    ConditionKind.CAP: st.builds("{}={}".format, PATHS, st.integers(-5, 5)),
    ConditionKind.TIER: st.sampled_from(["docker", "gvisor"]),
    ConditionKind.TIMEOUT: st.builds("{}{}".format, st.integers(1, 99), st.sampled_from(["ms", "s", "m"])),
    ConditionKind.APPROVAL: st.sampled_from(["ops", "legal"]),
    ConditionKind.RECORD: st.sampled_from(sorted(RECORD_RANK)),
    ConditionKind.OUTPUT: st.sampled_from(sorted(OUTPUT_RANK)),
    ConditionKind.MARK: st.sampled_from(["untrusted", "trusted", "internal", "confidential:pii", "secret:keys"]),
    ConditionKind.RATE: st.builds("{}/{}".format, st.integers(1, 99), st.sampled_from(["second", "day"])),
    ConditionKind.LEASE: st.just("none"),
    ConditionKind.LOG: st.sampled_from(sorted(LOG_RANK)),
    ConditionKind.TAGS: st.sampled_from(["SOC2", "GDPR", "SOC2, HIPAA"]),
    ConditionKind.RETAIN: st.builds("{}d".format, st.integers(1, 4000)),
}
CONDITIONS = st.sampled_from(ConditionKind).flatmap(
    lambda kind: VALUES[kind].map(lambda value: PolicyCondition(kind, value, PolicyId("p")))
)
ARGUMENTS = st.recursive(
    st.integers(-9, 9) | st.text(max_size=2),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
).flatmap(lambda value: st.dictionaries(st.sampled_from("abc"), st.just(value), max_size=3))


@given(st.lists(CONDITIONS, max_size=6), st.randoms())
def test_the_order_of_conditions_does_not_matter(conditions, random):
    shuffled = list(conditions)
    random.shuffle(shuffled)
    assert combine(shuffled) == combine(conditions) == combine([*conditions, *conditions])


@given(st.lists(CONDITIONS, max_size=4), CONDITIONS)
def test_one_more_condition_never_asks_for_less(conditions, more):
    before, after = combine(conditions), combine([*conditions, more])
    assert set(after.redact) >= set(before.redact)
    assert all(dict(after.caps)[path] <= bound for path, bound in before.caps)
    assert set(after.approvals) >= set(before.approvals)
    assert after.limit_timeout(1e9) <= before.limit_timeout(1e9)
    for tier in SecurityTier:
        assert TIER_RANK.get(after.raise_tier(tier), 0) >= TIER_RANK.get(before.raise_tier(tier), 0)
    assert RECORD_RANK.get(after.record, -1) >= RECORD_RANK.get(before.record, -1)
    assert OUTPUT_RANK.get(after.output, -1) >= OUTPUT_RANK.get(before.output, -1)
    assert LOG_RANK.get(after.log_level, -1) >= LOG_RANK.get(before.log_level, -1)
    assert join(before.mark, after.mark) == after.mark
    assert set(after.rates) >= set(before.rates)
    assert after.each >= before.each
    assert set(after.tags) >= set(before.tags)
    assert (after.retention_days or 0) >= (before.retention_days or 0)


@given(st.lists(CONDITIONS, max_size=4), ARGUMENTS)
def test_applying_to_arguments_changes_no_names_and_not_the_original(conditions, values):
    before = repr(values)
    try:
        changed = combine(conditions).apply_arguments(values)
    except InputError:
        changed = values
    assert repr(values) == before
    assert set(changed) == set(values)


@given(st.lists(VALUES[ConditionKind.REDACT], max_size=4), ARGUMENTS)
def test_redacting_twice_is_redacting_once(paths, values):
    obligations = combine([PolicyCondition(ConditionKind.REDACT, path, PolicyId("p")) for path in paths])
    once = obligations.apply_arguments(values)
    assert obligations.apply_arguments(once) == once
