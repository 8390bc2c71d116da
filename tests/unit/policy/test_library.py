"""The library of the four types: both verdicts of every policy, and that each denial is that policy's own."""

import pytest

from symbi.policy.cases import parse_cases, run_cases
from symbi.policy.catalog import ToolType
from symbi.policy.library import BASE, LIBRARY, TYPES, cases_of
from symbi.policy.policies import PolicySet
from symbi.policy.source import PolicySource
from symbi.testing.requests import SCHEMAS

TOOLS = [ToolType(name, schema) for name, schema in SCHEMAS.items()]
PERMITS = PolicySource(
    "permits.cedar",
    """
    @id("test.all") permit (principal, action, resource);
    @id("test.recorded") @record("full") @output("full")
    permit (principal in Group::"recorded", action, resource);
    """,
)
POLICIES = {
    policy.id: (name, policy) for name in TYPES for policy in PolicySet.load([LIBRARY[name]], (), TOOLS).policies[1:]
}


def load(*names, without=None):
    """The library's files with permits for everything, and without one of its policies."""
    kept = [
        PolicySource(f"{policy.id}.cedar", policy.text)
        for policy_id, (name, policy) in POLICIES.items()
        if name in names and policy_id != without
    ]
    return PolicySet.load([PERMITS, *kept], (), TOOLS)


@pytest.mark.parametrize("name", TYPES)
def test_every_case_of_a_file_is_as_it_says(name):
    results = run_cases(load(name), parse_cases(f"{name}.toml", cases_of(name)))
    assert [(result.case.name, result.problems) for result in results if not result.passed] == []
    assert len(results) >= 2 * sum(1 for owner, _ in POLICIES.values() if owner == name)


@pytest.mark.parametrize("policy_id", POLICIES)
def test_every_policy_has_a_case_of_either_verdict_and_the_denial_is_its_own(policy_id):
    name, policy = POLICIES[policy_id]
    cases = [case for case in parse_cases(name, cases_of(name)) if case.name.startswith(f"{policy_id}: ")]
    denied = [case for case in cases if case.expect == "deny"]
    assert denied
    assert len(denied) < len(cases)
    assert policy.annotations["doc"]
    for result in run_cases(load(name, without=policy_id), denied):
        assert not result.passed, result.case.name
        assert "got `allow" in result.problems[0]


def test_the_whole_library_is_one_set_with_the_starter():
    whole = PolicySet.load([BASE, *LIBRARY.values()], (), TOOLS)
    assert not whole.warnings
    assert {policy.effect for name in TYPES for owner, policy in POLICIES.values() if owner == name} == {"forbid"}
    assert len(whole.policies) == len(POLICIES) + len(PolicySet.load([BASE]).policies)


def test_the_library_is_valid_before_any_tool_is_known():
    assert PolicySet.load([BASE, *LIBRARY.values()]).policies
