"""What the tools for authors say of policies is true of every request."""

import json

import cedarpy
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st

from symbi.errors import PolicySyntaxError
from symbi.policy.catalog import ToolType, schema_text
from symbi.policy.counterfactual import what_if
from symbi.policy.decision import AllowWithConditions, Deny, PolicyDecision, PolicyRequest
from symbi.policy.edit import without
from symbi.policy.engine import ask, decide
from symbi.policy.explain import in_scope
from symbi.policy.expression import clauses, evaluate, render, states
from symbi.policy.failing import may_fail
from symbi.policy.lint import lint
from symbi.policy.policies import PolicySet, cedar_set
from symbi.policy.source import PolicySource, parse, split
from symbi.testing.requests import SCHEMAS, call, log
from symbi.types import AgentId, Confidentiality, Integrity, JsonValue, Label, Principal

TOOLS = [ToolType(name, schema) for name, schema in SCHEMAS.items()]
TEXTS = ["a", "b", "ab", "x@example.org", ""]
NUMBERS = [-(2**63), -100, -1, 0, 1, 5, 99, 100, 2**62, 2**63 - 1]
INTEGRITY = [level.value for level in Integrity]
CONFIDENTIALITY = [level.value for level in Confidentiality]

# --- policies ---------------------------------------------------------------------------------

texts = st.sampled_from(TEXTS).map(json.dumps)
numbers = st.sampled_from([*NUMBERS[1:], 2, 3]).map(str)
ORDER = st.sampled_from(["<", "<=", ">", ">=", "==", "!="])
BOUND = st.sampled_from(["<", "<=", ">", ">="])
TO, AMOUNT = "context.arguments.to", "context.arguments.amount"


def _with(name: str, part: str) -> str:
    return f"(context.arguments has {name} && {part})"


PART = st.one_of(
    st.tuples(st.sampled_from(["==", "!="]), texts).map(lambda p: _with("to", f"{TO} {p[0]} {p[1]}")),
    st.sampled_from(["a*", "*b", "*@example.org", "*", "x"]).map(lambda p: _with("to", f'{TO} like "{p}"')),
    st.lists(texts, min_size=1, max_size=3).map(lambda p: _with("to", f"[{', '.join(p)}].contains({TO})")),
    st.tuples(ORDER, numbers).map(lambda p: _with("amount", f"{AMOUNT} {p[0]} {p[1]}")),
    st.lists(numbers, min_size=1, max_size=3).map(lambda p: _with("amount", f"[{', '.join(p)}].contains({AMOUNT})")),
    st.tuples(st.sampled_from(["+", "-", "*"]), numbers, ORDER, numbers).map(
        lambda p: _with("amount", f"{AMOUNT} {p[0]} {p[1]} {p[2]} {p[3]}")
    ),
    st.tuples(numbers, st.sampled_from(["+", "-", "*"]), numbers).map(
        lambda p: _with("amount", f"{AMOUNT} > -100 && {AMOUNT} < {p[0]} && {AMOUNT} {p[1]} {p[2]} > 5")
    ),
    st.sampled_from([*INTEGRITY, "unheard-of"]).map(lambda v: f'context.label.integrity == "{v}"'),
    st.sampled_from(CONFIDENTIALITY).map(lambda v: f'context.label.confidentiality != "{v}"'),
    st.sampled_from(
        [
            "true", "false", "resource.verified", "resource is Tool", "resource is Memory", "principal == resource",
            'principal in Group::"ops"', 'principal == Agent::"a"', 'principal == Agent::"b"',
            'principal.trust == "trusted"', 'principal.owner like "a*"', 'Agent::"zed".trust == "trusted"',
            "context has label", "context.arguments has nope", "context.secrets.isEmpty()", 'context.secrets.contains("p")',
            'context.labels has to && context.labels.to.integrity == "untrusted"', "1 + 1 == 2", "1 == 2",
            'decimal("1.5").lessThan(decimal("2.0"))', "if resource.verified then true else false",
            'action == Action::"InvokeTool::mail.send"', 'resource in ToolServer::"mail"',
        ]
    ),
)  # fmt: skip
BODY = st.recursive(
    PART,
    lambda inner: st.one_of(
        inner.map(lambda p: f"!({p})"), st.tuples(inner, st.sampled_from(["&&", "||"]), inner).map(lambda p: f"({' '.join(p)})")
    ),
    max_leaves=4,
)  # fmt: skip
SCOPE = st.tuples(
    st.sampled_from(["", ' == Agent::"a"', ' == Agent::"b"', ' in Group::"ops"', " is Agent", ' is Agent in Group::"ops"']),
    st.sampled_from(
        [
            ' == Action::"InvokeTool::mail.send"', ' == Action::"InvokeTool::mail.send"', ' in Action::"InvokeTool"', "",
            ' in [Action::"InvokeTool::mail.send", Action::"InvokeTool::files.read"]', ' == Action::"WriteLog"',
        ]
    ),
    st.sampled_from(["", "", "", ' == Tool::"mail.send"', " is Tool", ' in ToolServer::"mail"', ' is Tool in ToolServer::"mail"']),
)  # fmt: skip
POLICY = st.tuples(
    st.sampled_from(["", "", '@approval("x")', '@redact("arguments.to")']),
    st.sampled_from(["permit", "permit", "forbid"]),
    SCOPE,
    st.lists(st.tuples(st.sampled_from(["when", "when", "unless"]), BODY), max_size=2),
).map(
    lambda p: (
        f"{p[0] if p[1] == 'permit' else ''} {p[1]} (principal{p[2][0]}, action{p[2][1]}, resource{p[2][2]})"
        + "".join(f" {kind} {{ {body} }}" for kind, body in p[3])
        + ";"
    )
)


SCHEMA = cedarpy.Schema.from_str(schema_text(TOOLS))
NOTHING = st.just("")
NARROWER = st.sampled_from(["resource.verified", _with("amount", f"{AMOUNT} * 2 > -7")])
NEVER = st.one_of(
    st.sampled_from(
        [
            "false",
            "1 == 2",
            "resource is Memory",
            "principal == resource",
            "context has nope",
            'principal == Agent::"a" && principal in Group::"ops"',
        ]
    ),
    st.tuples(BOUND, numbers, BOUND, numbers).map(
        lambda p: _with("amount", f"{AMOUNT} {p[0]} {p[1]} && {AMOUNT} {p[2]} {p[3]}")
    ),
    st.tuples(BOUND, numbers, BOUND).map(
        lambda p: _with("amount", f"{AMOUNT} {p[0]} {p[1]} && {AMOUNT} {p[2]} {p[1]}")
    ),
    st.tuples(texts, texts).map(lambda p: _with("to", f"{TO} == {p[0]} && [{p[1]}].contains({TO})")),
    st.tuples(texts, texts).map(lambda p: _with("to", f'{TO} == {p[0]} && {TO} like "a*" && {TO} != {p[1]}')),
    PART.map(lambda p: f"{p} && !({p})"),
)


def loads(text: str) -> bool:
    """Whether a policy is one."""
    try:
        list(map(parse, split(PolicySource("p", text))))
    except PolicySyntaxError:
        return False
    return bool(cedarpy.validate_policies(text, SCHEMA).validation_passed)


@st.composite
def policy_sets(draw: st.DrawFn, also: st.SearchStrategy[str] = NOTHING) -> PolicySet:
    """A set of policies that load, with some that are alike; those that do not load are left out."""
    kept: list[str] = []
    for text in draw(st.lists(POLICY, min_size=1, max_size=3)):
        more = draw(also)
        whole = f"{text[:-1]} when {{ {more} }};" if more else text
        narrowed = f"{whole[:-1]} when {{ {draw(NARROWER)} }};"
        kept += [each for each in (whole, narrowed, whole.replace("permit", "forbid", 1)) if draw(st.booleans())]
    kept = [text for text in kept if not ("forbid" in text and "@" in text.partition("(principal")[0]) and loads(text)]
    assume(kept)
    return PolicySet.load([PolicySource("p", "\n".join(kept))], (), TOOLS)


# --- requests ---------------------------------------------------------------------------------

PRINCIPAL = st.builds(
    Principal,
    st.sampled_from(["a", "b", "c"]).map(AgentId),
    st.sampled_from(["ada", "bob"]),
    st.sampled_from([(), ("ops",), ("ops", "x")]),
    st.sampled_from(["untrusted", "standard", "trusted"]),
)
LABEL = st.builds(Label, st.sampled_from(Integrity), st.sampled_from(Confidentiality))
VALUES: st.SearchStrategy[dict[str, JsonValue]] = st.fixed_dictionaries(
    {}, optional={"to": st.sampled_from(TEXTS), "amount": st.sampled_from(NUMBERS)}
)
REQUEST: st.SearchStrategy[PolicyRequest] = st.one_of(
    st.builds(
        lambda who, values, label, own, verified, secrets: call(
            "mail.send", values, principal=who, label=label, labels=dict.fromkeys(values, own), verified=verified,
            secrets=secrets,
        ),
        PRINCIPAL, VALUES, LABEL, LABEL, st.booleans(), st.sampled_from([(), ("p",)]),
    ),
    st.builds(lambda who, path: call("files.read", {"path": path}, principal=who), PRINCIPAL, st.sampled_from(TEXTS)),
    st.builds(log, PRINCIPAL),
)  # fmt: skip
REQUESTS = st.lists(REQUEST, min_size=12, max_size=24)
SLOW = settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)


def outcome(decision: PolicyDecision) -> tuple[bool, frozenset[tuple[str, str]]]:
    """Verdict and conditions, without the policies that set them."""
    conditions = decision.conditions if isinstance(decision, AllowWithConditions) else ()
    return isinstance(decision, Deny), frozenset((c.kind.value, c.value) for c in conditions)


def by_code(policies: PolicySet) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for each in lint(policies):
        event(each.code)
        found.setdefault(each.code, set()).add(each.policy)
    return found


@SLOW
@given(policy_sets(NEVER), REQUESTS)
def test_a_policy_that_is_said_never_to_fire_never_does(policies: PolicySet, requests: list[PolicyRequest]) -> None:
    never = by_code(policies).get("never-fires", set())
    assume(never)
    alone = cedar_set({name: policies.by_id[name].json for name in never})  # type: ignore[index]  # ids of its policies
    for request in requests:
        assert ask(policies, alone, request).diagnostics.reasons == []


@SLOW
@given(policy_sets(), REQUESTS)
def test_what_is_said_to_decide_nothing_can_be_removed(policies: PolicySet, requests: list[PolicyRequest]) -> None:
    found = by_code(policies)
    needless = found.get("shadowed", set()) | found.get("implied", set())
    assume(needless)
    for name in needless:
        rest = without(policies, {name})  # type: ignore[arg-type]  # an id of its policies
        for request in requests:
            assert outcome(decide(policies, request)) == outcome(decide(rest, request)), name


@SLOW
@given(policy_sets(), REQUESTS)
def test_what_is_not_said_to_fail_does_not(policies: PolicySet, requests: list[PolicyRequest]) -> None:
    safe = {policy.id: policy.json for policy in policies.policies if not may_fail(policy)}
    for request in requests:
        assert ask(policies, cedar_set(safe), request).diagnostics.errors == []


@SLOW
@given(policy_sets())
def test_conditions_written_again_are_the_same(policies: PolicySet) -> None:
    for policy in policies.policies:
        for part in clauses(policy):
            text = f"permit(principal, action, resource) when {{ {render(part)} }};"
            parsed = json.loads(cedarpy.policies_to_json_str(text))["staticPolicies"]["policy0"]
            assert parsed["conditions"] == [{"kind": "when", "body": part}]


@SLOW
@given(policy_sets(), REQUEST)
def test_a_policy_fires_just_where_its_scope_fits_and_all_its_parts_hold(
    policies: PolicySet, request: PolicyRequest
) -> None:
    fitting = in_scope(policies, request)
    fired = set(ask(policies, policies.cedar, request).diagnostics.reasons)
    permits = cedar_set({p.id: {**p.json, "effect": "permit", "annotations": {}} for p in policies.policies})
    all_fired = set(ask(policies, permits, request).diagnostics.reasons)
    told = {name for name, parts in states(policies, request, fitting).items() if all(part.holds for part in parts)}
    assert told == all_fired
    assert fired <= told


@SLOW
@given(policy_sets(), REQUEST)
def test_every_change_that_is_shown_turns_the_verdict(policies: PolicySet, request: PolicyRequest) -> None:
    decision = decide(policies, request)
    found = what_if(policies, request)
    denied = isinstance(decision, Deny)
    for change in found.changes:
        assert change.facts
        assert isinstance(change.decision, Deny) is not denied
        assert all(was != then for _, was, then in change.facts)
    if found.lifted is not None:
        assert isinstance(decision, Deny)
        rest = without(policies, {ref.id for ref in found.lifted.forbids})
        assert outcome(decide(rest, request)) == outcome(found.lifted.decision)


def test_parts_are_evaluated_one_by_one_and_what_fails_is_no_answer() -> None:
    policies = PolicySet.load([PolicySource("p", "")], (), TOOLS)
    text = 'permit(principal, action, resource) when { context.arguments.to == "a" && resource.verified };'
    parsed = json.loads(cedarpy.policies_to_json_str(text))["staticPolicies"]["policy0"]["conditions"][0]["body"]
    parts = [parsed["&&"]["left"], parsed["&&"]["right"]]
    assert evaluate(policies, call("mail.send", {"to": "a"}), parts) == [True, True]
    assert evaluate(policies, call("mail.send", {"to": "b"}, verified=False), parts) == [False, False]
    assert evaluate(policies, call("mail.send"), parts) == [None, True]
    assert evaluate(policies, log(), parts) == [None, None]
