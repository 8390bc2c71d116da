"""What one decision may take is bounded, and what takes more is denied."""

import pytest

from symbi.errors import PolicyDenied
from symbi.guard.action import WriteLog
from symbi.policy import engine as engine_module
from symbi.policy.context import NO_REQUEST, agent_attributes, label_context
from symbi.policy.decision import Allow, Deny, PolicyRequest
from symbi.policy.engine import EVALUATION_TIMEOUT_S, PolicyEngine, PolicySet, PolicySource, decide, decide_whole
from symbi.testing.clock import ManualClock
from symbi.testing.gate import open_gate
from symbi.types import AgentId, Label, Principal, Resource

pytestmark = pytest.mark.anyio

ALL = PolicySource("p.cedar", "permit(principal, action, resource);")
LOG = WriteLog(principal=Principal(AgentId("a")), message="m")


def _create(names):
    context = {
        "tier": "docker",
        "risk": {"__extn": {"fn": "decimal", "arg": "0.1000"}},
        "sourceDigest": "00",
        "inputs": names,
        "request": dict(NO_REQUEST),
    }
    resource = Resource("Agent", "a", agent_attributes(Principal(AgentId("a"))))
    return PolicyRequest(Principal(AgentId("a")), "CreateAgent", resource, context)


@pytest.mark.parametrize("how", [decide, decide_whole])
@pytest.mark.parametrize("plain", [list, tuple])
def test_a_request_that_is_too_large_denies(how, plain, monkeypatch):
    policies = PolicySet.load([ALL])
    monkeypatch.setattr(engine_module, "MAX_REQUEST_BYTES", 2_000)
    assert isinstance(how(policies, _create(plain(["x" * 100]))), Allow)
    decision = how(policies, _create(plain(["x" * 2_000])))
    assert isinstance(decision, Deny)
    assert "larger than 2000 bytes" in decision.reason


def test_a_request_that_is_too_large_denies_whatever_it_is_made_of(monkeypatch):
    class Text(str):
        __slots__ = ()

    policies = PolicySet.load([ALL])
    monkeypatch.setattr(engine_module, "MAX_REQUEST_BYTES", 2_000)
    assert isinstance(decide(policies, _create([Text("x" * 100)])), Allow)
    assert isinstance(decide(policies, _create([Text("x" * 2_000)])), Deny)
    groups = PolicyRequest(
        Principal(AgentId("a"), groups=tuple(f"g{i}" for i in range(500))),
        "WriteLog",
        Resource("Resource", "log"),
        {"label": label_context(Label()), "request": dict(NO_REQUEST)},
    )
    assert "larger than" in decide(policies, groups).reason


def test_a_decision_in_time_stays_and_a_late_one_denies():
    engine = PolicyEngine(PolicySet.load([ALL]), evaluation_timeout_s=0.25)
    decision = engine.decide(LOG.request())
    assert engine.in_time(decision, 0.25) is decision
    late = engine.in_time(decision, 0.2501)
    assert late == Deny(
        "the decision timed out: it took more than 0.25 s",
        (),
        decision.version,
        ("the decision timed out: it took more than 0.25 s",),
    )


async def test_the_gate_denies_what_took_too_long_to_decide():
    clock = ManualClock()
    async with open_gate(clock=clock) as gate:
        decide_, slow = gate.engine.decide, [EVALUATION_TIMEOUT_S * 2]

        def decide_slowly(request):
            clock.advance(slow[0])
            return decide_(request)

        gate.engine.decide = decide_slowly
        with pytest.raises(PolicyDenied, match="the decision timed out"):
            async with gate.guard.enforce(LOG):
                pytest.fail("the body ran")
        assert "timed out" in gate.events()[-1].details["reason"]
        slow[0] = EVALUATION_TIMEOUT_S / 2
        async with gate.guard.enforce(LOG):
            pass
