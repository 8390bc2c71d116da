"""Principal and resource are read against the schema once for each form, and come out as the schema means them."""

import json
from dataclasses import replace

import cedarpy
import pytest

from symbi.policy.catalog import ToolType
from symbi.policy.decision import Allow, Deny, PolicyRequest
from symbi.policy.engine import decide, decide_whole
from symbi.types import AgentId, Principal, Resource

ANY = "permit(principal, action, resource);"


@pytest.fixture
def read(monkeypatch):
    """What is read from JSON from here on: the ids of the entities, and whether the schema was asked."""
    calls, parse = [], cedarpy.Entities.from_json_str

    def from_json_str(text, *schema):
        calls.append(([each["uid"]["id"] for each in json.loads(text)], bool(schema)))
        return parse(text, *schema)

    monkeypatch.setattr(cedarpy.Entities, "from_json_str", from_json_str)
    return calls


def test_the_schema_is_asked_once_for_each_form_and_a_resource_is_read_once(load, send_request, read):
    policies = load(ANY)
    del read[:]
    for agent in ("a", "b", "c"):
        request = replace(send_request({"recipient": "x"}), principal=Principal(AgentId(agent), agent, (agent,)))
        for _ in range(2):
            assert isinstance(decide(policies, request), Allow)
    action = request.action
    assert read == [([""], True), ([action, "notify.send"], False)]  # a probe, and then never again
    verified = dict(request.resource.attributes) | {"verified": False}
    other = replace(request.resource, id="notify.send", attributes=tuple(verified.items()))
    assert isinstance(decide(policies, replace(request, resource=other)), Allow)
    assert read[2:] == [([action, "notify.send"], False)]


def test_entities_cost_the_same_however_many_tools_there_are(load, send_request, notify):
    request = send_request({"recipient": "x"})
    few = load(ANY)
    many = load(ANY, tools=(notify, *(ToolType(f"s.t{i}", {"type": "object"}) for i in range(50))))
    assert len(few.entities.of(request)) == len(many.entities.of(request)) == 3
    whole = [len(each.entities.whole(request.principal, request.resource)) for each in (few, many)]
    assert whole[1] - whole[0] == 50


def test_an_action_that_a_condition_names_is_there_with_what_it_is_in(load, log_request):
    policies = load(
        'permit(principal, action, resource) when { Action::"InvokeTool::notify.send" in Action::"InvokeTool" };',
        'forbid(principal, action, resource) when { Action::"WriteLog" in Action::"InvokeTool" };',
    )
    assert isinstance(decide(policies, log_request()), Allow)
    known = json.loads(str(policies.entities.of(log_request())))
    assert {each["uid"]["id"] for each in known if each["parents"]} == {"InvokeTool::notify.send", "triage"}


def _changed(request, **attributes):
    known = dict(request.resource.attributes) | attributes
    left = tuple((name, value) for name, value in known.items() if value is not ...)
    return replace(request, resource=replace(request.resource, attributes=left))


@pytest.mark.parametrize(
    "attributes",
    [
        {"verified": "true"},
        {"verified": 1},
        {"server": True},
        {"server": None},
        {"server": 1.5},
        {"server": {"__extn": {"fn": "decimal", "arg": "1.0000"}}},
        {"server": {"__entity": {"type": "Agent", "id": "a"}}},
        {"server": ...},
        {"more": "x"},
        {"server": "\ud800"},
    ],
)
def test_a_resource_of_another_form_is_refused_as_the_whole_set_refuses_it(load, send_request, attributes):
    policies, good = load(ANY), send_request({"recipient": "x"})
    bad = _changed(good, **attributes)
    for request in (good, bad, good, bad):
        decision = decide(policies, request)
        assert decision == decide_whole(policies, request)
        assert isinstance(decision, Allow if request is good else Deny)


@pytest.mark.parametrize(
    "resource",
    [
        Resource("Resource", "log", (), (("Group", "g"),)),
        Resource("Nothing", "log"),
        Resource("Action", "WriteLog"),
        Resource("Agent", "log"),
        Resource("Resource", "log", (("x", 1), ("x", 1))),
    ],
)
def test_a_resource_that_the_schema_does_not_have_is_refused(load, log_request, resource):
    request = replace(log_request(), resource=resource)
    assert isinstance(decide(load(ANY), request), Deny)
    assert decide(load(ANY), request) == decide_whole(load(ANY), request)


@pytest.mark.parametrize(
    "change",
    [
        {"owner": 1},
        {"trust": None},
        {"tier": {"__extn": {"fn": "decimal", "arg": "1.0000"}}},
        {"capabilities": (1,)},
        {"agent": 1},
        {"owner": "\ud800"},
        {"groups": ("\ud800",)},
    ],
)
def test_an_agent_that_is_not_made_of_texts_is_read_against_the_schema(load, log_request, change):
    policies = load(ANY)
    request = log_request(principal=replace(log_request().principal, **change))
    assert isinstance(decide(policies, log_request()), Allow)
    assert isinstance(decide(policies, request), Deny)
    assert decide(policies, request) == decide_whole(policies, request)


@pytest.mark.parametrize("text", ["1.0000", "", "\x00", "\u00e9", '"}]', "127.0.0.1"])
def test_any_text_is_a_text(load, log_request, text):
    agent = Principal(AgentId(text), text, (text,), text, text, (text,))
    policies = load('permit(principal, action, resource) when { principal.owner like "*" };')
    request = PolicyRequest(agent, "WriteLog", Resource("Resource", "log"), log_request().context)
    assert isinstance(decide(policies, request), Allow)
    assert decide(policies, request) == decide_whole(policies, request)
