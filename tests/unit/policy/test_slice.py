"""Which policies are evaluated for a request, and on what of its context."""

import pytest

from symbi.policy import engine
from symbi.policy import slice as slices_module
from symbi.policy.decision import Allow, Deny, PolicyRequest
from symbi.policy.engine import decide, decide_whole
from symbi.policy.slice import Slices
from symbi.types import AgentId, Principal, Resource

SEND = 'action == Action::"InvokeTool::notify.send", resource'


def _ids(policies, request):
    return [sorted(part.ids) for part in policies.slices.of(request)]


def test_each_policy_lies_in_the_part_that_its_scope_names(load, send_request):
    policies = load(
        '@id("all") forbid(principal, action, resource) when { principal.owner == "nobody" };',
        f'@id("group") permit(principal in Group::"oncall", {SEND});',
        '@id("server") permit(principal, action in Action::"InvokeTool", resource in ToolServer::"notify");',
        '@id("own") permit(principal == Agent::"triage", action, resource is Tool);',
        f'@id("tool") permit(principal, {SEND} == Tool::"notify.send");',
        '@id("several") permit(principal, action in [Action::"InvokeTool", Action::"InvokeTool::notify.send"], resource);',
        f'@id("other") permit(principal == Agent::"other", {SEND});',
        f'@id("others") permit(principal in Group::"others", {SEND});',
        '@id("log") permit(principal, action == Action::"WriteLog", resource);',
        '@id("elsewhere") permit(principal, action in Action::"InvokeTool", resource in ToolServer::"files");',
        '@id("agents") permit(principal, action, resource is Agent);',
    )
    assert _ids(policies, send_request({"recipient": "a"})) == [
        ["all", "group", "server", "several"],
        ["own"],
        ["tool"],
    ]


class Plain:
    """A policy as an index sees it."""

    def __init__(self, id_, principal, resource):
        self.id = id_
        self.json = {
            "effect": "permit",
            "principal": principal,
            "action": {"op": "All"},
            "resource": resource,
            "conditions": [],
        }


def test_what_the_principal_is_in_by_way_of_the_resource_counts_and_the_other_way_round():
    any_ = {"op": "All"}
    top, own = {"type": "Group", "id": "top"}, {"type": "Group", "id": "own"}
    index = Slices(
        [Plain("principal", {"op": "in", "entity": top}, any_), Plain("resource", any_, {"op": "in", "entity": own})],
        {},
    )
    principal = Principal(AgentId("a"), groups=("own",))
    in_top = PolicyRequest(principal, "X", Resource("Group", "own", (), (("Group", "top"),)), {})
    assert [id_ for part in index.of(in_top) for id_ in part.ids] == ["principal", "resource"]
    in_agent = PolicyRequest(principal, "X", Resource("Memory", "m", (), (("Agent", "a"),)), {})
    assert [id_ for part in index.of(in_agent) for id_ in part.ids] == ["resource"]


def test_a_scope_that_is_not_understood_is_looked_at_each_time(monkeypatch):
    monkeypatch.setattr(slices_module, "cedar_set", lambda _: None)  # which does not understand it either
    index = Slices([Plain("p", {"op": "unheard of"}, {"op": "is", "entity_type": "Tool", "in": {"slot": "?x"}})], {})
    request = PolicyRequest(Principal(AgentId("a")), "X", Resource("Tool", "t"), {})
    assert [part.ids for part in index.of(request)] == [("p",)]


def test_only_what_is_read_of_the_context_is_given_to_cedar(load, send_request, monkeypatch):
    policies = load(
        '@id("general") permit(principal, action in Action::"InvokeTool", resource) when { context.label.integrity == "user" };',
        f'@id("own") permit(principal == Agent::"triage", {SEND}) when {{ context.arguments.recipient == "a" }};',
    )
    request = send_request({"recipient": "a", "body": "long"})
    assert isinstance(decide(policies, request), Allow)
    given, ask = [], engine.cedarpy.is_authorized
    monkeypatch.setattr(engine.cedarpy, "is_authorized", lambda *args: given.append(args[0]["context"]) or ask(*args))
    assert len(decide(policies, request).policies) == 2
    assert given == [
        '{"label":{"integrity":"user"}}',
        '{"arguments":{"recipient":"a"}}',
    ]


def test_what_concerns_a_request_is_parsed_once_and_the_least_used_is_dropped(load, log_request, monkeypatch):
    parsed, parse = [], slices_module.cedar_set
    monkeypatch.setattr(slices_module, "cedar_set", lambda each: parsed.append(len(each)) or parse(each))
    monkeypatch.setattr(slices_module, "MAX_PREPARED_POLICIES", 6)
    policies = load(*(f'permit(principal == Agent::"a{i}", action == Action::"WriteLog", resource);' for i in range(8)))
    assert parsed == [1, 1, 1]  # half of what may be kept is parsed beforehand

    def ask(number):
        request = log_request(principal=Principal(AgentId(f"a{number}")))
        assert isinstance(decide(policies, request), Allow)

    for number in (0, 1, 2, 3, 3, 4, 5):
        ask(number)
    assert parsed == [1] * 6
    for number in (0, 6, 0):  # the second is the one that was not used for longest
        ask(number)
    assert parsed == [1] * 7
    assert len(policies.slices._prepared) == 6
    ask(1)
    assert parsed == [1] * 8


def test_more_policies_than_one_decision_may_take_deny(load, log_request, monkeypatch):
    everybody = [
        f'permit(principal, action == Action::"WriteLog", resource) when {{ principal.owner != "{i}" }};'
        for i in range(4)
    ]
    monkeypatch.setattr(slices_module, "MAX_SLICE_POLICIES", 4)
    assert isinstance(decide(load(*everybody), log_request()), Allow)
    own = 'permit(principal == Agent::"triage", action == Action::"WriteLog", resource);'
    for texts in ([*everybody, own], [*everybody, everybody[0].replace('"0"', '"4"')]):
        decision = decide(load(*texts), log_request())
        assert isinstance(decision, Deny)
        assert "policies concern the request" in decision.reason


@pytest.mark.parametrize("spoil", ["\ud800", "1.5000", {"__entity": {"type": "Agent", "id": "a"}}])
def test_a_value_that_nobody_reads_is_checked_as_well(load, send_request, spoil):
    policies = load("permit(principal, action, resource);")
    request = send_request({"recipient": "a"})
    assert isinstance(decide(policies, request), Allow)
    wrong = {"arguments": {"recipient": "a", "amount": spoil}, "secrets": [spoil]}
    for name, value in wrong.items():
        if name == "secrets" and spoil == "1.5000":
            continue
        bad = PolicyRequest(request.principal, request.action, request.resource, {**request.context, name: value})
        assert isinstance(decide(policies, bad), Deny)
        assert decide(policies, bad) == decide_whole(policies, bad)


def test_facts_that_change_are_known_to_be_read_by_what_concerns_the_request():
    def reading(id_, agent, condition):
        plain = Plain(id_, {"op": "==", "entity": {"type": "Agent", "id": agent}}, {"op": "All"})
        plain.json["conditions"] = [{"kind": "when", "body": condition}]
        return plain

    context = {"Var": "context"}
    hour = {".": {"left": {".": {"left": context, "attr": "time"}}, "attr": "hour"}}
    index = Slices(
        [
            reading("hour", "hour", {">": {"left": hour, "right": {"Value": 3}}}),
            reading("has", "has", {"has": {"left": context, "attr": "history"}}),
            reading("whole", "whole", {"==": {"left": context, "right": context}}),
            reading("other", "other", {".": {"left": {".": {"left": context, "attr": "label"}}, "attr": "time"}}),
        ],
        {},
    )

    def volatile(agent):
        return index.volatile(PolicyRequest(Principal(AgentId(agent)), "X", Resource("Tool", "t"), {}))

    assert {agent: volatile(agent) for agent in ("hour", "has", "whole", "other", "nobody")} == {
        "hour": True,
        "has": True,
        "whole": True,
        "other": False,
        "nobody": False,
    }
