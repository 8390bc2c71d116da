"""An explanation names what decided, what nearly did, and what else speaks of it."""

from symbi.policy.decision import Allow, Deny
from symbi.policy.explain import explain
from symbi.types import Integrity, Label

POLICIES = """
@id("near") permit(principal, action == Action::"InvokeTool::notify.send", resource)
when { context.arguments.recipient like "*@example.org" };
@id("other-agent") permit(principal == Agent::"other", action in Action::"InvokeTool", resource);
@id("no-untrusted") forbid(principal, action in Action::"InvokeTool", resource)
when { context.label.integrity == "untrusted" };
@id("log") permit(principal, action == Action::"WriteLog", resource);
@id("this-tool") forbid(principal == Agent::"x", action, resource == Tool::"notify.send");
"""


def _ids(policies):
    return [policy.id for policy in policies]


def test_a_default_denial_names_the_permits_whose_conditions_failed(load, send_request):
    explanation = explain(load(POLICIES), send_request({"recipient": "a@example.com"}))
    assert isinstance(explanation.decision, Deny)
    assert _ids(explanation.deciding) == []
    assert _ids(explanation.unmet) == ["near"]
    assert _ids(explanation.related) == ["other-agent", "no-untrusted", "this-tool"]
    assert explanation.summary == (
        "denied: no policy permits `InvokeTool::notify.send` for agent `triage`;"
        " the conditions of 1 that could permit it do not hold"
    )


def test_a_forbid_is_named_with_its_text_and_place(load, send_request):
    request = send_request({"recipient": "a@example.org"}, {"recipient": Label(Integrity.UNTRUSTED)})
    explanation = explain(load(POLICIES), request)
    (deciding,) = explanation.deciding
    assert (deciding.id, deciding.line) == ("no-untrusted", 5)
    assert deciding.text.startswith('@id("no-untrusted")')
    assert explanation.unmet == ()
    assert _ids(explanation.related) == ["near", "other-agent", "this-tool"]


def test_a_permit_is_named(load, send_request):
    explanation = explain(load(POLICIES), send_request({"recipient": "a@example.org"}))
    assert isinstance(explanation.decision, Allow)
    assert explanation.summary == "allowed by near (p0.cedar:2)"


def test_conditions_are_told(load, log_request):
    policies = load('@id("a") @record("digest") permit(principal, action == Action::"WriteLog", resource);')
    assert explain(policies, log_request()).summary == "allowed by a (p0.cedar:1) with conditions: record digest"


def test_several_permits_and_what_each_asks_for_are_told(load, log_request):
    scope = '(principal, action == Action::"WriteLog", resource);'
    policies = load(f'@id("a") @record("digest") permit{scope}\n@id("b") @timeout("5s") permit{scope}')
    assert explain(policies, log_request()).summary == (
        "allowed by a (p0.cedar:1), b (p0.cedar:2) with conditions: record digest, timeout 5s"
    )


def test_a_denial_that_nothing_comes_near_to_says_no_more(load, log_request):
    assert explain(load(), log_request()).summary == "denied: no policy permits `WriteLog` for agent `triage`"


def test_a_request_that_fits_nothing_is_explained_too(load, send_request):
    request = send_request({"recipient": "a"})
    explanation = explain(load(POLICIES, tools=()), request)
    assert "does not fit the schema" in explanation.summary
    assert explanation.unmet == ()
    assert "near" in _ids(explanation.related)


def test_an_entity_that_fits_nothing_is_explained_too(load, log_request, triage):
    request = log_request()
    broken = type(request)(triage, request.action, type(request.resource)("Nothing", "x"), request.context)
    explanation = explain(load(POLICIES), broken)
    assert isinstance(explanation.decision, Deny)
    assert _ids(explanation.related) == ["log"]
