"""What a decision costs does not grow with the policies that do not concern it: counted, not timed."""

import cedarpy
import pytest

from symbi.bench.policy import policy_set, request
from symbi.policy.decision import Allow
from symbi.policy.engine import PolicyEngine, decide, decide_whole

SIZES = (50, 500)
UNSCOPED = 10


@pytest.fixture
def given(monkeypatch):
    """The number of policies, and whether a schema was given, of each call of Cedar."""
    calls, ask = [], cedarpy.is_authorized

    def is_authorized(asked, policies, entities, schema=None):
        calls.append((len(policies), schema is not None))
        return ask(asked, policies, entities, schema)

    monkeypatch.setattr(cedarpy, "is_authorized", is_authorized)
    return calls


@pytest.mark.parametrize("size", SIZES)
def test_as_many_policies_are_given_to_cedar_whatever_the_size_of_the_set(given, size):
    policies = policy_set(size, UNSCOPED)
    decide(policies, request(0, size - UNSCOPED))  # asks once what form the context has
    for number in range(1, 20):
        given.clear()
        assert isinstance(decide(policies, request(number, size - UNSCOPED)), Allow)
        assert given == [(UNSCOPED, False), (1, False)]
    given.clear()
    decide_whole(policies, request(0, size - UNSCOPED))
    assert given == [(size + 1, True)]  # the canary is beside them


def test_nothing_is_given_to_cedar_for_a_request_that_was_decided_before(given):
    engine = PolicyEngine(policy_set(SIZES[0], UNSCOPED))
    engine.decide(request(1, SIZES[0]))
    given.clear()
    for _ in range(10):
        engine.decide(request(1, SIZES[0]))
    assert given == []


def test_no_policy_is_parsed_for_an_agent_that_asks_for_the_first_time(monkeypatch):
    policies = policy_set(SIZES[1], UNSCOPED)
    decide(policies, request(0, SIZES[1] - UNSCOPED))
    monkeypatch.setattr("symbi.policy.slice.cedar_set", lambda _: pytest.fail("something was parsed"))
    for number in range(1, 50):
        assert isinstance(decide(policies, request(number, SIZES[1] - UNSCOPED)), Allow)
