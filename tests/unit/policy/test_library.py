"""The library of the four types: both verdicts of every policy, and that each denial is that policy's own."""

import re

import pytest

from symbi.api.control import OPERATIONS, SESSION
from symbi.policy.cases import parse_cases, run_cases
from symbi.policy.catalog import ToolType
from symbi.policy.library import BASE, BUDGETS, GATEWAY, LIBRARY, TYPES, cases_of
from symbi.policy.policies import PolicySet
from symbi.policy.source import PolicySource
from symbi.testing.requests import SCHEMAS

PAYMENT = {"type": "object", "properties": {"amount": {"type": "number"}}, "required": ["amount"]}
TOOLS = [ToolType(name, schema) for name, schema in {**SCHEMAS, "bank.pay": PAYMENT}.items()]


def in_force(source):
    """A file of budgets with what stands in its comments as a proposal: the lines that are indented by three."""
    return PolicySource(source.file, re.sub(r"^(?://|#)   ?(?= *\S)", "", source.text, flags=re.MULTILINE))


COUNTERS = in_force(BUDGETS["history.toml"])
FILES = {**LIBRARY, "budgets": in_force(BUDGETS["budgets.cedar"])}
PERMITS = PolicySource(
    "permits.cedar",
    """
    @id("test.all") permit (principal, action, resource);
    @id("test.recorded") @record("full") @output("full")
    permit (principal in Group::"recorded", action, resource);
    """,
)
POLICIES = {
    policy.id: (name, policy)
    for name, source in FILES.items()
    for policy in PolicySet.load([source, COUNTERS], (), TOOLS).policies[1:]
}


def load(*names, without=None):
    """The library's files with permits for everything, and without one of its policies."""
    kept = [
        PolicySource(f"{policy.id}.cedar", policy.text)
        for policy_id, (name, policy) in POLICIES.items()
        if name in names and policy_id != without
    ]
    return PolicySet.load([PERMITS, *kept, *([COUNTERS] if "budgets" in names else [])], (), TOOLS)


@pytest.mark.parametrize("name", FILES)
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
    assert {policy.effect for _, policy in POLICIES.values()} == {"forbid"}
    of_types = sum(name in TYPES for name, _ in POLICIES.values())
    assert len(whole.policies) == of_types + len(PolicySet.load([BASE]).policies)


def test_budgets_are_one_set_with_the_rest_and_each_of_their_counters_is_read():
    whole = PolicySet.load([BASE, *LIBRARY.values(), *BUDGETS.values()])
    assert not whole.warnings
    text = BUDGETS["budgets.cedar"].text
    assert [counter.name for counter in whole.counters if f"context.history.{counter.name} " not in text] == []
    proposed = PolicySet.load([FILES["budgets"], COUNTERS], (), TOOLS)
    assert len(proposed.policies) == 1 + text.count("@id(")
    assert "paid" in {counter.name for counter in proposed.counters} - {counter.name for counter in whole.counters}


def test_what_is_written_by_default_reads_nothing_of_the_past():
    """A set that does costs each decision a visit to the store; see tests/integration/test_history.py."""
    assert PolicySet.load([BASE, *LIBRARY.values()], (), TOOLS).reads == frozenset()
    assert PolicySet.load(BUDGETS.values()).reads == {"usage", "history"}


def test_the_library_is_valid_before_any_tool_is_known():
    assert PolicySet.load([BASE, *LIBRARY.values()]).policies


def test_the_base_lets_the_owner_of_the_data_folder_do_everything_that_can_be_asked_of_a_runtime():
    (control,) = (one for one in PolicySet.load([BASE], (), TOOLS).policies if one.id == "base.control")
    assert set(re.findall(r'Resource::"([^"]+)"', control.text)) == {*OPERATIONS, SESSION}


def test_what_clients_of_the_gateway_may_do_is_as_its_cases_say():
    policies = PolicySet.load([BASE, *GATEWAY.values()], (), TOOLS)
    cases = parse_cases("gateway.toml", cases_of("gateway"))
    assert [(result.case.name, result.problems) for result in run_cases(policies, cases) if not result.passed] == []
    own = {policy.id for policy in policies.policies if policy.id.startswith("gateway.")}
    assert {case.name.partition(":")[0] for case in cases} == own
    assert not policies.warnings
    assert PolicySet.load(GATEWAY.values()).reads == frozenset()


@pytest.mark.parametrize("name", ["tainted-sinks", "confidential-leaves", "secrets-stay"])
def test_without_one_of_the_bounds_of_clients_its_case_is_another(name):
    sources = [
        PolicySource(f"{one.id}.cedar", one.text)
        for one in PolicySet.load(GATEWAY.values(), (), TOOLS).policies
        if one.id != f"gateway.{name}" and one.id.startswith("gateway.")
    ]
    (case, *_) = [one for one in parse_cases("g", cases_of("gateway")) if one.name.startswith(f"gateway.{name}:")]
    (result,) = run_cases(PolicySet.load(sources, (), TOOLS), [case])
    assert not result.passed
