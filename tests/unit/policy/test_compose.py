"""What of an agent file's rules is in force, and when."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symbi.dsl.compile import compile_file
from symbi.dsl.parser import parse
from symbi.errors import Place, PolicySyntaxError
from symbi.policy.catalog import ToolType
from symbi.policy.compose import AgentRules, FileRule, FileRules, compose
from symbi.policy.context import NO_REQUEST, agent_attributes
from symbi.policy.decision import Allow, AllowWithConditions, Deny, PolicyRequest
from symbi.policy.engine import PolicySource, decide
from symbi.policy.policies import PolicySet
from symbi.policy.source import end_of_scope
from symbi.runtime.policies import rules_of
from symbi.types import AgentId, Principal, Resource

TOOL = ToolType("mail.send", {"type": "object", "properties": {"to": {"type": "string"}}})
OPERATOR = """
@id("op-create") permit (principal, action == Action::"CreateAgent", resource);
@id("op-log") permit (principal, action == Action::"WriteLog", resource);
"""
LABEL = {"integrity": "user", "confidentiality": "public", "categories": []}


def file_of(rules: str, name: str = "a") -> FileRules:
    text = f"agent {name} {{ policy own {{ {rules} }} with sandbox = interpreter {{ 1 }} }}"
    return rules_of(compile_file(parse(text, f"{name}.symbi"), text))


def set_of(*files: FileRules, rules: AgentRules = AgentRules.FULL, operator: str = "") -> PolicySet:
    composed, _ = compose(files, rules)
    return PolicySet.load([PolicySource("op.cedar", operator)], composed, [TOOL])


def create(agent: str = "a") -> PolicyRequest:
    who = Principal(AgentId(agent))
    context = {
        "tier": "interpreter",
        "risk": {"__extn": {"fn": "decimal", "arg": "0.1"}},
        "sourceDigest": "",
        "inputs": [],
        "request": dict(NO_REQUEST),
    }
    resource = Resource("Agent", agent, agent_attributes(who))
    return PolicyRequest(who, "CreateAgent", resource, context)


def log(agent: str = "a") -> PolicyRequest:
    return PolicyRequest(
        Principal(AgentId(agent)),
        "WriteLog",
        Resource("Resource", "log"),
        {"label": LABEL, "request": dict(NO_REQUEST)},
    )


@pytest.mark.parametrize("rules", list(AgentRules))
@pytest.mark.parametrize(
    "rule",
    [
        "allow: create(self)",
        "allow: any",
        "allow: create(self) allow: python require: { timeout: 5.seconds }",
        'allow: create(self) require: { record: "digest" }',
    ],
)
def test_no_agent_file_permits_the_creation_of_its_agent(rules, rule):
    assert isinstance(decide(set_of(file_of(rule), rules=rules), create()), Deny)


def test_a_permit_of_everything_permits_all_but_creation():
    policies = set_of(file_of("allow: any"))
    assert isinstance(decide(policies, log()), Allow)
    assert isinstance(decide(policies, create()), Deny)


def test_an_admitted_file_permits_in_full_and_nothing_in_restrict():
    file = file_of("allow: log")
    assert isinstance(decide(set_of(file), log()), Allow)
    assert isinstance(decide(set_of(file, rules=AgentRules.RESTRICT), log()), Deny)


def test_before_its_agent_is_decided_on_a_file_permits_nothing_and_forbids_already():
    waiting = FileRules(file_of("allow: log deny: create(self)").policies, admitted=False)
    policies = set_of(waiting, operator=OPERATOR.replace("op-log", "x").replace("WriteLog", "ReadClock"))
    assert isinstance(decide(policies, log()), Deny)
    denied = decide(policies, create())
    assert isinstance(denied, Deny)
    assert [ref.file for ref in denied.policies] == ["a.symbi"]


@pytest.mark.parametrize("rules", list(AgentRules))
def test_a_denial_of_a_file_and_the_bound_of_its_capabilities_hold_always(rules):
    text = 'agent a { capabilities = ["python"] policy own { allow: python } with sandbox = interpreter { 1 } }'
    bound = rules_of(compile_file(parse(text, "a.symbi"), text))
    assert isinstance(decide(set_of(bound, rules=rules, operator=OPERATOR), log()), Deny)
    denying = file_of('deny: log if label.integrity == "user"')
    assert isinstance(decide(set_of(denying, rules=rules, operator=OPERATOR), log()), Deny)
    assert isinstance(decide(set_of(rules=rules, operator=OPERATOR), log()), Allow)


def test_what_a_file_requires_holds_beside_the_permits_of_the_operator_where_its_own_permit_nothing():
    file = file_of('allow: log require: { record: "digest" }')
    decision = decide(set_of(file, rules=AgentRules.RESTRICT, operator=OPERATOR), log())
    assert isinstance(decision, AllowWithConditions)
    assert [(c.kind.value, c.value) for c in decision.conditions] == [("record", "digest")]
    assert {ref.file for ref in decision.policies} == {"op.cedar", "a.symbi"}
    assert isinstance(decide(set_of(file, rules=AgentRules.RESTRICT), log()), Deny)


def test_rules_without_effect_are_said():
    _, warnings = compose([file_of("allow: create(self) allow: log")], AgentRules.FULL)
    assert [(w.place.file, "creation" in w.message) for w in warnings] == [("a.symbi", True)]
    _, warnings = compose([file_of("allow: log")], AgentRules.RESTRICT)
    assert ["permits, and has no effect" in w.message for w in warnings] == [True]
    _, warnings = compose([FileRules(file_of("allow: log").policies, admitted=False)], AgentRules.FULL)
    assert warnings == ()


def test_two_versions_of_a_file_stand_beside_each_other_while_the_second_waits():
    first, second = file_of("allow: log"), FileRules(file_of("deny: create(self)").policies, admitted=False)
    policies = set_of(first, second, operator=OPERATOR)
    assert [p.id for p in policies.policies][3:] == ["a.symbi:1", "a.symbi:1#pending"]
    assert isinstance(decide(policies, create()), Deny)
    again = set_of(first, FileRules(first.policies))
    assert len(again.policies) == 2  # the canary, and the rule once


@pytest.mark.parametrize("rules", ["deny: any", "deny: log", 'deny: any if label.integrity == "user"', "allow: now"])
def test_a_file_that_waits_takes_nothing_from_an_agent_that_runs_under_its_name(rules):
    waiting = FileRules(file_of(rules).policies, admitted=False)
    assert isinstance(decide(set_of(waiting, operator=OPERATOR), log()), Allow)
    bound = "agent a { capabilities = [] with sandbox = interpreter { 1 } }"
    none = FileRules(rules_of(compile_file(parse(bound, "b.symbi"), bound)).policies, admitted=False)
    policies = set_of(none, operator=OPERATOR)
    assert isinstance(decide(policies, log()), Allow)
    assert isinstance(decide(policies, create()), Allow)


def test_the_scope_of_a_policy_ends_at_its_own_bracket():
    text = '@id("a)") // (\n@doc("permit (x)")\npermit (principal == Agent::"(", action in [Action::")"], resource) when { (1) == 1 };'
    assert text[: end_of_scope(text)].endswith("resource)")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('@conditions("always") @timeout("1s") permit (principal, action, resource);', "is not `always`"),
        ('@conditions("only") permit (principal, action, resource);', "without conditions"),
        ('@conditions("only") forbid (principal, action, resource);', "without conditions"),
    ],
)
def test_a_permit_for_its_conditions_alone_has_some(text, message):
    with pytest.raises(PolicySyntaxError, match=message):
        PolicySet.load([PolicySource("x.cedar", text)])


@pytest.mark.parametrize(
    "action",
    [
        "action",
        'action == Action::"CreateAgent"',
        'action in [Action::"WriteLog", Action::"CreateAgent"]',
        'action in Action::"CreateAgent"',
    ],
)
@pytest.mark.parametrize("body", ["", "when { true }", 'unless { principal.owner == "x" }'])
def test_however_a_permit_reaches_creation_it_does_not_permit_it(action, body):
    text = f'permit (principal == Agent::"a", {action}, resource) {body};'
    policies = set_of(FileRules((FileRule("a:1", text, Place("a", 1, 1)),)))
    assert isinstance(decide(policies, create()), Deny)
    assert isinstance(decide(policies, log()), Allow) is ("WriteLog" in action or action == "action")


ACTIONS = ["CreateAgent", "WriteLog", "ReadClock", "ExecuteCode"]


@st.composite
def rule(draw) -> str:
    """Cedar of one policy about the agent `a`, as a rule may compile to."""
    effect = draw(st.sampled_from(["permit", "forbid"]))
    names = draw(st.just([]) | st.lists(st.sampled_from(ACTIONS), min_size=1, max_size=3, unique=True))
    listed = ", ".join(f'Action::"{name}"' for name in names)
    action = f"action in [{listed}]" if names else "action"
    asks = draw(st.sampled_from(["", '@record("digest")\n', '@timeout("5s")\n'])) if effect == "permit" else ""
    body = draw(st.sampled_from(["", 'when { principal.trust == "standard" }', "unless { principal has owner }"]))
    return f'{asks}{effect} (principal == Agent::"a", {action}, resource) {body};'


OPERATORS = [OPERATOR, "", OPERATOR.replace("CreateAgent", "ReadClock")]


@given(st.lists(rule(), max_size=5), st.sampled_from(list(AgentRules)), st.booleans(), st.sampled_from(OPERATORS))
def test_no_file_ever_adds_to_what_the_operator_permits_for_creation_and_in_restrict_for_anything(
    texts, rules, admitted, operator
):
    policies = tuple(FileRule(f"a:{n}", text, Place("a", n + 1, 1)) for n, text in enumerate(texts))
    with_file = set_of(FileRules(policies, admitted), rules=rules, operator=operator)
    without = set_of(operator=operator)
    clock = PolicyRequest(
        Principal(AgentId("a")), "ReadClock", Resource("Resource", "clock"), {"request": dict(NO_REQUEST)}
    )
    for request in (create(), log(), clock):
        alone, beside = decide(without, request), decide(with_file, request)
        if isinstance(alone, Deny) and (
            request.action == "CreateAgent" or rules is AgentRules.RESTRICT or not admitted
        ):
            assert isinstance(beside, Deny)
    if not admitted:
        for request in (log(), clock):  # an agent that runs keeps what it has
            assert isinstance(decide(with_file, request), Deny) == isinstance(decide(without, request), Deny)
        return
    forbids = tuple(one for one in policies if "forbid (" in one.text)
    only_forbids = set_of(FileRules(forbids, admitted), rules=rules, operator=operator)
    for request in (create(), log(), clock):
        if isinstance(decide(only_forbids, request), Deny) and not isinstance(decide(without, request), Deny):
            assert isinstance(decide(with_file, request), Deny)
