"""Risk scores and the choice of a tier."""

from dataclasses import replace

import pytest

from symbi.errors import InputError
from symbi.sandbox.tier import (
    FILES,
    INTEGRATIONS,
    NETWORK,
    SENSITIVITY,
    TRUST,
    UNREMARKABLE,
    WHOLE,
    CodeTrust,
    Needs,
    RiskProfile,
    assess_code,
    assess_security_tier,
    choose_tier,
    raise_tier,
)
from symbi.types import Confidentiality, Integrity, Label, SecurityTier


def profile(**changes):
    return RiskProfile(
        **{
            "data_sensitivity": Confidentiality.PUBLIC,
            "code_trust": CodeTrust.TRUSTED,
            "requires_network": False,
            "requires_filesystem": False,
            "external_apis": (),
            **changes,
        }
    )


LOW = assess_security_tier(profile())
HIGH = assess_security_tier(profile(code_trust=CodeTrust.UNTRUSTED))


def test_the_weights_add_up_to_one():
    assert max(SENSITIVITY.values()) + max(TRUST.values()) + NETWORK + FILES + INTEGRATIONS == WHOLE


@pytest.mark.parametrize(
    ("changes", "score", "tier"),
    [
        ({}, 0.0, SecurityTier.TIER1),
        ({"code_trust": CodeTrust.UNTRUSTED}, 0.5, SecurityTier.TIER2),
        ({"code_trust": CodeTrust.UNSIGNED, "requires_filesystem": True}, 0.35, SecurityTier.TIER1),
        (
            {
                "code_trust": CodeTrust.UNSIGNED,
                "data_sensitivity": Confidentiality.INTERNAL,
                "requires_filesystem": True,
                "external_apis": ("mail",),
            },
            0.5,
            SecurityTier.TIER2,
        ),
        (
            {
                "code_trust": CodeTrust.SIGNED,
                "data_sensitivity": Confidentiality.CONFIDENTIAL,
                "requires_network": True,
                "requires_filesystem": True,
            },
            0.42,
            SecurityTier.TIER1,
        ),
        (
            {
                "data_sensitivity": Confidentiality.SECRET,
                "code_trust": CodeTrust.UNTRUSTED,
                "requires_network": True,
                "requires_filesystem": True,
                "external_apis": ("mail", "pager"),
            },
            1.0,
            SecurityTier.TIER2,
        ),
    ],
)
def test_the_five_factors_give_a_score_and_one_half_is_tier_2(changes, score, tier):
    assessment = assess_security_tier(profile(**changes))
    assert assessment.score == score
    assert assessment.tier is tier


def test_the_trail_gets_score_factors_and_tier_without_floats():
    assert assess_security_tier(profile(code_trust=CodeTrust.SIGNED, requires_network=True)).facts() == {
        "score": "0.2000",
        "factors": {
            "data_sensitivity": "0.0000",
            "code_trust_level": "0.1000",
            "network_access": "0.1000",
            "file_system_access": "0.0000",
            "external_integrations": "0.0000",
        },
        "tier": "docker",
    }


@pytest.mark.parametrize("assessment", [LOW, HIGH])
@pytest.mark.parametrize("requested", [None, SecurityTier.INTERPRETER])
@pytest.mark.parametrize("floor", [SecurityTier.TIER1, SecurityTier.TIER2])
def test_pure_computation_runs_in_the_interpreter_at_any_score(assessment, requested, floor):
    assert choose_tier(assessment, needs=Needs.PURE, requested=requested, floor=floor) is SecurityTier.INTERPRETER


def test_the_interpreter_refuses_anything_but_pure_computation():
    with pytest.raises(InputError, match=r"pure computation only.*use `gvisor`"):
        choose_tier(HIGH, needs=Needs.SYSTEM, requested=SecurityTier.INTERPRETER)


@pytest.mark.parametrize("needs", Needs)
def test_a_container_tier_below_the_assessed_one_is_refused_also_for_pure_computation(needs):
    with pytest.raises(
        InputError, match=r"`docker` is weaker than `gvisor`, which a risk of 0\.5000 asks for"
    ) as caught:
        choose_tier(HIGH, needs=needs, requested=SecurityTier.TIER1)
    assert caught.value.code == "sandbox.downgrade"


def test_a_tier_below_the_floor_is_refused():
    with pytest.raises(InputError, match="which the configured least tier asks for"):
        choose_tier(LOW, needs=Needs.SYSTEM, requested=SecurityTier.TIER1, floor=SecurityTier.TIER2)


def test_the_floor_raises_what_nobody_asked_for():
    assert choose_tier(LOW, needs=Needs.SYSTEM) is SecurityTier.TIER1
    assert choose_tier(LOW, needs=Needs.SYSTEM, floor=SecurityTier.TIER2) is SecurityTier.TIER2
    assert choose_tier(HIGH, needs=Needs.SYSTEM) is SecurityTier.TIER2


def test_a_stronger_tier_than_needed_may_be_asked_for():
    assert choose_tier(LOW, needs=Needs.SYSTEM, requested=SecurityTier.TIER2) is SecurityTier.TIER2
    assert choose_tier(LOW, needs=Needs.PURE, requested=SecurityTier.TIER2) is SecurityTier.TIER2
    assert choose_tier(LOW, needs=Needs.SYSTEM, requested=SecurityTier.TIER1) is SecurityTier.TIER1


def test_the_interpreter_is_no_floor():
    with pytest.raises(InputError, match="cannot be the least tier"):
        choose_tier(LOW, needs=Needs.SYSTEM, floor=SecurityTier.INTERPRETER)


def label(confidentiality=Confidentiality.PUBLIC, integrity=Integrity.USER):
    return Label(integrity, confidentiality)


@pytest.mark.parametrize(
    ("given", "score"),
    [
        (label(), 0.30),
        (label(Confidentiality.INTERNAL), 0.30),
        (label(Confidentiality.CONFIDENTIAL), 0.37),
        (label(Confidentiality.SECRET), 0.45),
        (label(integrity=Integrity.SYSTEM), 0.30),
        (label(integrity=Integrity.TRUSTED), 0.30),
        (label(integrity=Integrity.UNTRUSTED), 0.55),
        (label(Confidentiality.SECRET, Integrity.UNTRUSTED), 0.70),
    ],
)
def test_code_is_scored_by_the_labels_of_all_that_goes_into_it(given, score):
    assert assess_code(UNREMARKABLE, given).score == score


def test_what_the_agent_s_file_says_counts_with_the_labels_of_the_code():
    files_and_mail = replace(UNREMARKABLE, requires_filesystem=True, external_apis=("mail",))
    assert assess_code(files_and_mail, label(Confidentiality.SECRET)).score == 0.65
    secret = replace(UNREMARKABLE, data_sensitivity=Confidentiality.SECRET)
    assert assess_code(secret, label()).score == 0.45


@pytest.mark.parametrize(
    ("given", "assessed", "tier"),
    [
        (SecurityTier.TIER1, LOW, SecurityTier.TIER1),
        (SecurityTier.TIER1, HIGH, SecurityTier.TIER2),
        (SecurityTier.TIER2, LOW, SecurityTier.TIER2),
        (SecurityTier.TIER2, HIGH, SecurityTier.TIER2),
        (SecurityTier.INTERPRETER, HIGH, SecurityTier.INTERPRETER),
    ],
)
def test_the_tier_of_code_is_raised_to_its_risk_and_never_lowered(given, assessed, tier):
    assert raise_tier(given, assessed) is tier
