"""Policies outside of a slice neither fire nor fail, and a slice on what it reads decides as the whole set on everything."""

import re
from dataclasses import replace
from functools import lru_cache

from hypothesis import event, given, settings
from hypothesis import strategies as st

from symbi.errors import PolicySyntaxError
from symbi.policy.catalog import ToolType
from symbi.policy.context import NO_REQUEST, agent_attributes, label_context, tool_context
from symbi.policy.decision import PolicyRequest
from symbi.policy.engine import PolicyEngine, PolicySet, PolicySource, ask, decide, decide_whole
from symbi.policy.fit import Unformed, form, probe
from symbi.policy.history import offline
from symbi.types import AgentId, Confidentiality, Integrity, Label, Principal, Resource

SCHEMA = {
    "type": "object",
    "properties": {
        "path": {"type": "string"},
        "n": {"type": "integer"},
        "price": {"type": "number"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "more": {"type": "object", "properties": {"deep": {"type": "integer"}}, "additionalProperties": False},
    },
    "required": ["path"],
}
TOOLS = (ToolType("s.t", SCHEMA), ToolType("s.u", SCHEMA), ToolType("r.t", {"type": "object"}))

PRINCIPALS = (
    "principal",
    'principal == Agent::"a"',
    'principal == Agent::"b"',
    'principal in Agent::"a"',
    'principal in Group::"g"',
    'principal in Group::"h"',
    "principal is Agent",
    'principal is Agent in Group::"g"',
    'principal is Agent in Agent::"b"',
)
ACTIONS = (
    "action",
    'action == Action::"InvokeTool::s.t"',
    'action == Action::"InvokeTool::s.u"',
    'action in Action::"InvokeTool"',
    'action in [Action::"InvokeTool::s.t", Action::"InvokeTool::s.u"]',
    'action in [Action::"InvokeTool", Action::"InvokeTool::s.t"]',
    'action in [Action::"WriteLog", Action::"InvokeTool"]',
    'action == Action::"WriteLog"',
    'action in [Action::"ConfigureAgent", Action::"CreateAgent"]',
    'action == Action::"ReadClock"',
)
RESOURCES = (
    "resource",
    'resource == Tool::"s.t"',
    'resource in Tool::"s.u"',
    'resource in ToolServer::"s"',
    "resource is Tool",
    'resource is Tool in ToolServer::"r"',
    'resource == Resource::"log"',
    "resource is Resource",
    'resource == Agent::"a"',
    'resource in Group::"g"',
    "resource is Agent",
)
ARGUMENTS = "context has arguments && context.arguments has"
CONDITIONS = (
    "",
    'when { principal.owner == "ops" }',
    'unless { principal.trust == "untrusted" }',
    'when { principal in Group::"h" }',
    "when { principal == resource }",
    "when { resource is Tool && resource.verified }",
    'when { context has label && context.label.integrity == "untrusted" }',
    'when { context has labels && context.labels has path && context.labels.path.integrity == "user" }',
    'when { context has opaque && context.opaque.contains("more") }',
    f'when {{ {ARGUMENTS} path && context.arguments.path like "x*" }}',
    f"when {{ {ARGUMENTS} n && context.arguments.n > 3 }}",
    f"when {{ {ARGUMENTS} n && context.arguments.n + 9223372036854775807 > 0 }}",
    f'when {{ {ARGUMENTS} price && context.arguments.price.lessThan(decimal("1.5")) }}',
    f'when {{ {ARGUMENTS} tags && context.arguments.tags.contains("x") }}',
    f"when {{ {ARGUMENTS} more && context.arguments.more has deep && context.arguments.more.deep == 1 }}",
    'when { Tool::"nobody".verified }',
    "when { {of: context}.of has label }",
    'when { context has label && {of: context.label}.of.integrity == "untrusted" }',
    "when { {of: context}.of == context }",
    "when { context has keys && context.keys.isEmpty() }",
    'when { action in Action::"InvokeTool" } when { true }',
    'when { Action::"InvokeTool::s.u" in Action::"InvokeTool" }',
    'when { [Action::"ReadClock", action].contains(Action::"WriteLog") || action in [Action::"WriteLog", Action::"InvokeTool"] }',
    'when { principal in [Group::"g", Group::"h"] && !(action in Action::"InvokeTool") }',
)
ANNOTATIONS = ("", '@record("digest") ', '@timeout("30s") @redact("arguments.path") ')


@lru_cache(maxsize=4096)
def is_valid(text: str) -> bool:
    try:
        PolicySet.load([PolicySource("p.cedar", text)], (), TOOLS)
    except PolicySyntaxError:
        return False
    return True


@st.composite
def policies(draw):
    effect = draw(st.sampled_from(["permit", "permit", "permit", "forbid"]))
    scope = ", ".join(draw(st.sampled_from(each)) for each in (PRINCIPALS, ACTIONS, RESOURCES))
    noted = draw(st.sampled_from(ANNOTATIONS)) if effect == "permit" else ""
    return f"{noted}{effect}({scope}) {draw(st.sampled_from(CONDITIONS))};"


def load(texts) -> PolicySet:
    return PolicySet.load([PolicySource("p.cedar", "\n".join(filter(is_valid, texts)))], (), TOOLS)


agents = st.builds(
    Principal,
    st.sampled_from(["a", "b", "c"]).map(AgentId),
    st.sampled_from(["ops", "dev"]),
    st.lists(st.sampled_from(["g", "h", "a", "s"]), max_size=3).map(tuple),
    st.sampled_from(["standard", "untrusted"]),
)
labels = st.builds(Label, st.sampled_from(Integrity), st.sampled_from(Confidentiality))
texts_ = st.sampled_from(["x1", "y", "\u00e9", "\U0001f600"])
arguments = st.fixed_dictionaries(
    {"path": texts_},
    optional={
        "n": st.sampled_from([0, 4, 2**63 - 1]),
        "price": st.sampled_from([1, 1.25, 2.5, -0.0001]),
        "tags": st.lists(texts_, max_size=2),
        "more": st.fixed_dictionaries({}, optional={"deep": st.sampled_from([1, 2])}),
        "open": st.just(7),
    },
)


@st.composite
def requests(draw):
    principal, label = draw(agents), draw(labels)
    match draw(st.integers(0, 4)):
        case 0:
            return PolicyRequest(
                principal,
                "WriteLog",
                Resource("Resource", "log"),
                {"label": label_context(label), "request": dict(NO_REQUEST)},
            )
        case 1:
            groups = tuple(("Group", group) for group in principal.groups)
            same = agent_attributes(principal)
            resource = draw(
                st.sampled_from([Resource("Agent", principal.agent, same, groups), Resource("Agent", "c", same)])
            )
            return PolicyRequest(
                principal,
                "ConfigureAgent",
                resource,
                {
                    "keys": draw(st.lists(texts_, max_size=1)),
                    "label": label_context(label),
                    "request": dict(NO_REQUEST),
                },
            )
        case _:
            tool = draw(st.sampled_from(["s.t", "s.u", "r.t"]))
            server = tool.partition(".")[0]
            attributes = (
                ("server", server),
                ("verified", draw(st.booleans())),
                ("recovery", "idempotent"),
                ("risk", "low"),
                ("effect", "read"),
            )
            resource = Resource("Tool", tool, attributes, (("ToolServer", server),))
            values = draw(arguments)
            own = {name: draw(labels) for name in values if draw(st.booleans())}
            schema = {each.name: each.input_schema for each in TOOLS}[tool]
            context = {**tool_context(schema, values, own, label, ()), "request": dict(NO_REQUEST)}
            return PolicyRequest(principal, f"InvokeTool::{tool}", resource, context)


BAD = (
    None,
    1.5,
    1.0,
    2**63,
    -(2**63) - 1,
    True,
    1,
    "x",
    "\ud800",
    b"x",
    [],
    {},
    [1, "x"],
    {"\ud800": 1},
    {"__extn": 1},
)


@st.composite
def spoiled(draw):
    """A request with something in it that the schema may not allow."""
    good = draw(requests())
    match draw(st.integers(0, 6)):
        case 0:
            return PolicyRequest(
                good.principal, draw(st.sampled_from(["X", "InvokeTool", "ReadClock"])), good.resource, good.context
            )
        case 1:
            resource = Resource(
                draw(st.sampled_from(["Tool", "Agent", "Group", "X", "Action"])),
                "g",
                good.resource.attributes,
                good.resource.parents,
            )
            return PolicyRequest(good.principal, good.action, resource, good.context)
        case 2:
            attributes = dict(good.resource.attributes) or {"new": "x"}
            name = draw(st.sampled_from([*attributes, "new"]))
            spoiled_ = {**attributes, name: draw(st.sampled_from(BAD))}
            above = draw(
                st.sampled_from([good.resource.parents, (("Group", "g"),), (("Tool", "s.u"),), (("X", "\ud800"),)])
            )
            resource = Resource(good.resource.type, good.resource.id, tuple(spoiled_.items()), above)
            return PolicyRequest(good.principal, good.action, resource, good.context)
        case 3:
            attribute = draw(st.sampled_from(["agent", "owner", "trust", "tier", "groups", "capabilities"]))
            value = draw(st.sampled_from(["", "\ud800", "\x00", "1.0000", 1, None]))
            several = attribute in {"groups", "capabilities"}
            principal = replace(good.principal, **{attribute: (value, value) if several else value})
            return PolicyRequest(principal, good.action, good.resource, good.context)
        case _:
            context = place = dict(good.context)
            if "arguments" in context and draw(st.booleans()):
                place = context["arguments"] = dict(context["arguments"])
            name = draw(st.sampled_from([*place, "new"]))
            if draw(st.booleans()):
                place.pop(name, None)
            else:
                place[name] = draw(st.sampled_from(BAD))
            return PolicyRequest(good.principal, good.action, good.resource, context)


@settings(max_examples=400)
@given(st.lists(policies(), max_size=14), st.lists(st.one_of(requests(), spoiled()), min_size=1, max_size=8))
def test_a_slice_decides_as_the_whole_set_does(texts, asked):
    loaded = load(texts)
    engine = PolicyEngine(loaded)
    told = [offline(loaded.counters, request) for request in asked]
    for request in [*asked, *told, *asked, *told]:
        whole = decide_whole(loaded, request)
        event(type(whole).__name__)
        assert decide(loaded, request) == whole
        assert engine.decide(request) == whole


@given(st.lists(policies(), min_size=5, max_size=20), requests())
def test_what_is_outside_of_the_slice_neither_fires_nor_fails(texts, request):
    loaded = load(texts)
    answer = ask(loaded, loaded.cedar, offline(loaded.counters, request)).diagnostics
    failed = {re.match(r"error while evaluating policy `(.+?)`", error).group(1) for error in answer.errors}
    inside = [id_ for part in loaded.slices.of(request) for id_ in part.ids]
    assert len(set(inside)) == len(inside)
    event("fails" if failed else "fires" if answer.reasons else "nothing")
    assert failed | set(answer.reasons) <= set(inside)


@given(requests())
def test_a_context_and_the_probe_of_its_form_have_one_form(request):
    assert form(probe(form(request.context))) == form(request.context)


@given(st.sampled_from(BAD), st.booleans())
def test_what_has_a_form_has_that_of_its_probe(value, nested):
    value = {"x": [value]} if nested else value
    try:
        found = form(value)
    except Unformed:
        return
    assert form(probe(found)) == found
