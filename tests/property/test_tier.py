"""Risk scores are bounded, exact and never fall when a factor rises."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from symbi.errors import InputError
from symbi.policy.flow import join
from symbi.sandbox.tier import (
    STRENGTH,
    CodeTrust,
    Needs,
    RiskProfile,
    assess_code,
    assess_security_tier,
    choose_tier,
    raise_tier,
)
from symbi.types import Confidentiality, Integrity, Label, SecurityTier

profiles = st.builds(
    RiskProfile,
    data_sensitivity=st.sampled_from(Confidentiality),
    code_trust=st.sampled_from(CodeTrust),
    requires_network=st.booleans(),
    requires_filesystem=st.booleans(),
    external_apis=st.lists(st.text(max_size=4), max_size=3).map(tuple),
)
RISING = {
    "data_sensitivity": list(Confidentiality),
    "code_trust": list(CodeTrust),
    "requires_network": [False, True],
    "requires_filesystem": [False, True],
    "external_apis": [(), ("a",), ("a", "b")],
}


@given(profiles)
def test_a_score_is_bounded_has_four_decimals_and_decides_the_tier(profile):
    assessment = assess_security_tier(profile)
    assert 0 <= assessment.score <= 1
    assert assessment.score == round(assessment.score, 4)
    assert assessment.tier is (SecurityTier.TIER1 if assessment.score < 0.5 else SecurityTier.TIER2)
    assert assessment == assess_security_tier(profile)


@given(profiles, st.sampled_from(sorted(RISING)))
def test_a_score_never_falls_when_one_factor_rises(profile, factor):
    scores = [assess_security_tier(replace(profile, **{factor: value})).score for value in RISING[factor]]
    assert scores == sorted(scores)
    assert scores[0] < scores[-1]


@given(
    profiles,
    st.sampled_from(Needs),
    st.one_of(st.none(), st.sampled_from(SecurityTier)),
    st.sampled_from([SecurityTier.TIER1, SecurityTier.TIER2]),
)
def test_a_chosen_tier_is_what_was_asked_for_and_never_below_what_is_needed(profile, needs, requested, floor):
    assessment = assess_security_tier(profile)
    try:
        tier = choose_tier(assessment, needs=needs, requested=requested, floor=floor)
    except InputError:
        assert requested is not None
        return
    assert requested is None or tier is requested
    if tier is SecurityTier.INTERPRETER:
        assert needs is Needs.PURE
    else:
        assert STRENGTH[tier] >= max(STRENGTH[assessment.tier], STRENGTH[floor])


labels = st.builds(Label, st.sampled_from(Integrity), st.sampled_from(Confidentiality))


@given(profiles, labels, st.sampled_from(SecurityTier))
def test_what_goes_into_code_raises_its_risk_and_its_tier_and_lowers_neither(profile, label, given_tier):
    agent, code = assess_security_tier(profile), assess_code(profile, label)
    assert code.score >= agent.score
    tier = raise_tier(given_tier, code)
    if given_tier is SecurityTier.INTERPRETER:
        assert tier is given_tier
    else:
        assert STRENGTH[tier] == max(STRENGTH[given_tier], STRENGTH[code.tier])


@given(profiles, st.lists(labels, min_size=2, max_size=2))
def test_more_inputs_never_make_code_less_risky(profile, both):
    joined = assess_code(profile, join(*both)).score
    assert joined >= max(assess_code(profile, label).score for label in both)
