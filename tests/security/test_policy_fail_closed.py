"""Whatever goes wrong on the way to a decision, the answer is no."""

import math
from dataclasses import replace
from types import MappingProxyType

import cedarpy
import pytest

from symbi.policy.catalog import ToolType
from symbi.policy.context import NO_REQUEST, agent_attributes, flow_context
from symbi.policy.decision import Allow, Deny, PolicyRequest
from symbi.policy.engine import PolicyEngine, PolicySet, PolicySource, decide
from symbi.policy.grants import NO_GRANT
from symbi.policy.sinks import CallFacts
from symbi.types import AgentId, Principal, Resource

PERMIT_ALL = PolicySource("all.cedar", '@id("all") permit(principal, action, resource);')
TOOL = ToolType("s.t", {"properties": {"text": {"type": "string"}, "n": {"type": "integer"}}})
AGENT = Principal(AgentId("a"), "owner", ("g",))
ATTRIBUTES = (("server", "s"), ("verified", True), ("recovery", "never-retry"), ("risk", "medium"), ("effect", "any"))
CONTEXT = MappingProxyType(
    {
        "arguments": {"text": "payload", "n": 1},
        "labels": {},
        "label": {"integrity": "user", "confidentiality": "public", "categories": []},
        "secrets": (),
        "opaque": (),
        "request": dict(NO_REQUEST),
        **flow_context(CallFacts(), NO_GRANT),
    }
)


def _set(*texts, tools=(TOOL,)):
    return PolicySet.load([PERMIT_ALL, *(PolicySource(f"p{i}.cedar", text) for i, text in enumerate(texts))], (), tools)


def _request(context=CONTEXT, attributes=ATTRIBUTES, action="InvokeTool::s.t", resource="Tool"):
    return PolicyRequest(AGENT, action, Resource(resource, "s.t", attributes), context)


def _with(**changes):
    return _request({**CONTEXT, **changes})


def _assert_denied(decision, *, says=""):
    assert type(decision) is Deny
    assert decision.reason
    assert says in decision.reason
    assert "payload" not in repr(decision)
    assert decision.reason.encode()  # it can be stored


def test_nothing_configured_denies():
    engine = PolicyEngine(PolicySet.load([]))
    for action, resource in [("WriteLog", "log"), ("ReadClock", "clock"), ("Canary", "canary")]:
        context = {"request": dict(NO_REQUEST), **({"label": CONTEXT["label"]} if action == "WriteLog" else {})}
        _assert_denied(engine.decide(PolicyRequest(AGENT, action, Resource("Resource", resource), context)))


def test_the_request_that_the_others_spoil_is_allowed():
    assert type(decide(_set(), _request())) is Allow


def test_the_canary_is_denied_under_a_policy_that_permits_all():
    decision = decide(
        _set(), PolicyRequest(AGENT, "Canary", Resource("Resource", "canary"), {"request": dict(NO_REQUEST)})
    )
    _assert_denied(decision, says="symbi.canary")
    assert [(ref.id, ref.file) for ref in decision.policies] == [("symbi.canary", "symbi/canary.cedar")]


@pytest.mark.parametrize(
    "error",
    [RuntimeError("payload"), ValueError("payload"), MemoryError(), RecursionError(), KeyError("payload"), TypeError()],
)
def test_an_engine_that_raises_denies(monkeypatch, error):
    def fail(*_):
        raise error

    policies = _set()
    monkeypatch.setattr(cedarpy, "is_authorized", fail)
    _assert_denied(decide(policies, _request()))


def test_an_engine_that_panics_denies_and_an_interrupt_goes_on(monkeypatch):
    class PanicException(BaseException):  # the name that the library's panics bear
        pass

    def fail(error):
        def is_authorized(*_):
            raise error

        return is_authorized

    policies = _set()
    monkeypatch.setattr(cedarpy, "is_authorized", fail(PanicException("payload")))
    _assert_denied(decide(policies, _request()))
    monkeypatch.setattr(cedarpy, "is_authorized", fail(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        decide(policies, _request())


@pytest.mark.parametrize(
    "answer",
    [
        {"decision": "NoDecision", "diagnostics": {}},
        {"decision": "NoDecision", "diagnostics": {"reason": ["all"], "errors": []}},
        {"decision": "Allow", "diagnostics": {"reason": [], "errors": []}},
        {"decision": "Allow", "diagnostics": {"reason": ["nobody"], "errors": []}},
        {"decision": "Allow", "diagnostics": {"reason": ["all"], "errors": ["something new"]}},
        {
            "decision": "Allow",
            "diagnostics": {"reason": ["all"], "errors": ["error while evaluating policy `all`: payload"]},
        },
        {"decision": "Maybe", "diagnostics": {"reason": ["all"], "errors": []}},
        {"decision": "Deny", "diagnostics": {"reason": ["all"], "errors": []}},
        {"diagnostics": {"reason": ["all"]}},
        {},
    ],
)
def test_an_answer_other_than_a_plain_allow_denies(monkeypatch, answer):
    policies = _set()
    monkeypatch.setattr(cedarpy, "is_authorized", lambda *_: cedarpy.AuthzResult(answer))
    _assert_denied(decide(policies, _request()))


@pytest.mark.parametrize("missing", sorted(CONTEXT))
def test_a_missing_context_attribute_denies(missing):
    context = {name: value for name, value in CONTEXT.items() if name != missing}
    _assert_denied(decide(_set(), _request(context)), says=f"`{missing}`")


@pytest.mark.parametrize("missing", [name for name, _ in ATTRIBUTES])
def test_a_missing_entity_attribute_denies(missing):
    attributes = tuple(pair for pair in ATTRIBUTES if pair[0] != missing)
    _assert_denied(decide(_set(), _request(attributes=attributes)), says="does not fit the schema")


@pytest.mark.parametrize(
    "attributes",
    [
        (*ATTRIBUTES, ("more", 1)),
        (*ATTRIBUTES, ("server", "payload")),
        (("server", "s"), ("verified", 1), ("recovery", "payload"), ("risk", "low"), ("effect", "any")),
        (("server", "s"), ("verified", "true"), ("recovery", "payload"), ("risk", "low"), ("effect", "any")),
        (("server", None), ("verified", True), ("recovery", "payload"), ("risk", "low"), ("effect", "any")),
    ],
)
def test_an_entity_of_another_form_denies_also_after_a_good_one(attributes):
    policies = _set()
    assert type(decide(policies, _request())) is Allow
    _assert_denied(decide(policies, _request(attributes=attributes)))


@pytest.mark.parametrize(
    "value",
    [
        1.5,
        1.0,
        None,
        2**63,
        -(2**63) - 1,
        math.nan,
        math.inf,
        "payload",
        True,
        [1],
        {"payload": 1},
        object(),
        b"payload",
    ],
)
def test_a_value_that_cedar_lacks_or_the_schema_does_not_declare_denies(value):
    _assert_denied(decide(_set(), _with(arguments={"text": "payload", "n": value})), says="does not fit the schema")


@pytest.mark.parametrize("text", ["\ud800", "payload\udfff", 7, {"__entity": {"type": "Agent", "id": "a"}}])
def test_a_text_that_is_none_denies(text):
    _assert_denied(decide(_set(), _with(arguments={"text": text})), says="does not fit the schema")


@pytest.mark.parametrize("where", ["agent", "group", "action", "resource"])
def test_a_lone_surrogate_in_a_name_denies(where):
    principal = Principal(
        AgentId("\ud800" if where == "agent" else "a"), groups=("\ud800",) if where == "group" else ()
    )
    action = "InvokeTool::\ud800" if where == "action" else "InvokeTool::s.t"
    resource = Resource("Tool", "\ud800" if where == "resource" else "s.t", ATTRIBUTES)
    _assert_denied(decide(_set(), PolicyRequest(principal, action, resource, CONTEXT)))


def test_a_context_of_endless_depth_denies():
    deep: dict[str, object] = {}
    for _ in range(100_000):
        deep = {"x": deep}
    _assert_denied(decide(_set(), _with(arguments=deep)))


def test_an_undeclared_argument_denies():
    _assert_denied(decide(_set(), _with(arguments={"text": "a", "undeclared": "payload"})), says="undeclared")


@pytest.mark.parametrize("action", ["Nothing", "InvokeTool", "InvokeTool::s.other", "InvokeTool::", ""])
def test_an_unknown_action_denies(action):
    _assert_denied(decide(_set(), _request(action=action)))


def test_a_tool_that_only_policies_name_denies():
    policies = _set('permit(principal, action == Action::"InvokeTool::s.gone", resource);')
    assert policies.warnings
    _assert_denied(decide(policies, _request(action="InvokeTool::s.gone")))


@pytest.mark.parametrize("resource", ["Resource", "Nothing", "Agent", "", "Tool::x"])
def test_a_resource_of_another_type_denies(resource):
    _assert_denied(decide(_set(), _request(resource=resource)))


@pytest.mark.parametrize("effect", ["permit", "forbid"])
@pytest.mark.parametrize(
    "condition",
    [
        "context.arguments has n && context.arguments.n + 9223372036854775807 > 0",
        'context.arguments has n && Tool::"nobody".verified',
    ],
)
def test_a_policy_that_errors_denies_though_another_permits(effect, condition):
    text = f'\n@id("fails") {effect}(principal, action == Action::"InvokeTool::s.t", resource) when {{ {condition} }};'
    decision = decide(_set(text), _request())
    _assert_denied(decision, says="`fails` (p0.cedar:2)")
    assert len(decision.errors) == 1
    assert type(decide(_set(text), _with(arguments={"text": "payload"}))) is Allow


def test_a_forbid_that_fires_wins_over_every_permit():
    decision = decide(_set('@id("no") forbid(principal in Group::"g", action, resource);'), _request())
    _assert_denied(decision, says="forbidden by `no`")


def test_an_agent_that_is_other_as_resource_than_as_principal_denies():
    context = {"keys": (), "label": CONTEXT["label"], "request": dict(NO_REQUEST)}
    same = Resource("Agent", "a", agent_attributes(AGENT), (("Group", "g"),))
    other = Resource("Agent", "a", agent_attributes(replace(AGENT, trust="trusted")), (("Group", "g"),))
    assert type(decide(_set(), PolicyRequest(AGENT, "ConfigureAgent", same, context))) is Allow
    _assert_denied(decide(_set(), PolicyRequest(AGENT, "ConfigureAgent", other, context)), says="other attributes")


def test_every_decision_bears_the_version_of_its_set():
    policies = _set()
    for request in (_request(), _request(action="Nothing"), _with(arguments=None)):
        assert decide(policies, request).version == policies.version
