"""A decision is used again for an equal request, and only then."""

from types import SimpleNamespace

import pytest

from symbi.policy import engine as engine_module
from symbi.policy import remembered
from symbi.policy.decision import VOLATILE, Allow, Deny, PolicyRequest
from symbi.policy.engine import PolicyEngine
from symbi.policy.remembered import InForce, key_of
from symbi.types import AgentId, Integrity, Label, Principal, Resource

PERMIT = 'permit(principal, action == Action::"WriteLog", resource);'
TIME = {"hour": 1, "minute": 2, "weekday": 3, "day": 4, "epochS": 5}


@pytest.fixture
def made(monkeypatch):
    """Counts the decisions that were made."""
    made, decide = [], engine_module.decide
    monkeypatch.setattr(engine_module, "decide", lambda *args: made.append(args) or decide(*args))
    return made


def test_an_equal_request_is_decided_once_and_another_one_anew(load, log_request, made):
    engine = PolicyEngine(load(PERMIT))
    first = engine.decide(log_request())
    assert engine.decide(log_request()) is first
    assert len(made) == 1
    engine.decide(log_request(Label(Integrity.UNTRUSTED)))
    assert len(made) == 2


def test_nothing_is_remembered_where_that_is_not_wanted(load, log_request, made):
    engine = PolicyEngine(load(PERMIT), remembers=False)
    assert engine.decide(log_request()) == engine.decide(log_request())
    assert len(made) == 2


def test_a_new_set_forgets_what_the_old_one_decided(load, log_request):
    engine = PolicyEngine(load(PERMIT))
    assert isinstance(engine.decide(log_request()), Allow)
    engine.replace(load())
    assert isinstance(engine.decide(log_request()), Deny)
    engine.replace(load(PERMIT))
    assert isinstance(engine.decide(log_request()), Allow)


def test_a_decision_of_an_error_is_never_remembered(load, log_request, made, monkeypatch):
    engine = PolicyEngine(load(PERMIT))
    with monkeypatch.context() as broken:
        broken.setattr(engine_module.cedarpy, "is_authorized", lambda *_: 1 / 0)
        assert engine.decide(log_request()).errors == ("ZeroDivisionError",)
    assert isinstance(engine.decide(log_request()), Allow)
    assert len(made) == 2


def test_a_policy_that_cannot_be_evaluated_is_evaluated_each_time(load, log_request, made):
    engine = PolicyEngine(load(f'{PERMIT[:-1]} when {{ Agent::"nobody".owner == "" }};'))
    for _ in range(2):
        assert engine.decide(log_request()).errors
    assert len(made) == 2


def test_the_least_used_is_forgotten_first(load, log_request, made, monkeypatch):
    monkeypatch.setattr(remembered, "MAX_DECISIONS", 2)
    engine = PolicyEngine(load(PERMIT))
    requests = [log_request(principal=Principal(AgentId(name))) for name in "abc"]
    for number in (0, 1, 0, 2, 0):
        engine.decide(requests[number])
    assert len(made) == 3
    engine.decide(requests[1])
    assert len(made) == 4


def test_a_large_request_is_not_kept(load, log_request, made, monkeypatch):
    monkeypatch.setattr(remembered, "MAX_KEY_BYTES", 10)
    engine = PolicyEngine(load(PERMIT))
    for _ in range(2):
        engine.decide(log_request())
    assert len(made) == 2


@pytest.mark.parametrize("reads", [True, False])
def test_a_decision_that_rests_on_a_changing_fact_is_made_each_time(reads):
    """The facts are the gate's, and a policy that reads them makes all the difference."""
    policies = SimpleNamespace(slices=SimpleNamespace(volatile=lambda _: reads))
    in_force = InForce(policies)
    request, allow = _request(context={"time": TIME}), Allow((), "v")
    in_force.remember(key_of(request), request, allow)
    later = _request(context={"time": {**TIME, "hour": 9}})
    assert in_force.recall(key_of(later)) is (None if reads else allow)


# --- keys -------------------------------------------------------------------------------------


def _request(
    agent="a",
    owner="o",
    groups=("g",),
    trust="t",
    action="X",
    type_="Tool",
    id_="i",
    attributes=(),
    parents=(),
    context=None,
):
    return PolicyRequest(
        Principal(AgentId(agent), owner, groups, trust),
        action,
        Resource(type_, id_, attributes, parents),
        context or {},
    )


def test_a_key_tells_every_part_of_a_request_from_every_other():
    different = [
        _request(),
        _request(agent="b"),
        _request(owner="a"),
        _request(groups=()),
        _request(groups=("g", "h")),
        _request(trust="u"),
        _request(action="Y"),
        _request(type_="Model"),
        _request(id_="j"),
        _request(parents=(("Group", "g"),)),
        *(_request(attributes=(("x", value),)) for value in (True, 1, 1.0, "1", b"1", None, [1], (1,), {})),
        *(_request(context={"x": value}) for value in (True, 1, 1.0, "1", b"1", None, [1], (1,), {}, 0.0, -0.0)),
    ]
    keys = [key_of(request) for request in different]
    assert None not in keys
    assert len(set(keys)) == len(keys)
    assert keys[0] == key_of(_request())


@pytest.mark.parametrize("value", [object(), {"x": object()}, type("Text", (str,), {})("x")])
def test_what_is_no_plain_value_has_no_key(value):
    assert key_of(_request(context={"x": value})) is None


@pytest.mark.parametrize("name", sorted(VOLATILE))
def test_a_changing_fact_stands_in_the_key_by_name_and_type_only(name):
    def key(fact):
        return key_of(_request(context={"x": 1, name: fact}))

    assert key(TIME) == key({**TIME, "hour": 23, "epochS": 2**63 - 1})
    others = [
        {},
        {**TIME, "hour": True},
        {**TIME, "hour": 2**63},
        {**TIME, "hour": -(2**63) - 1},
        {**TIME, "hour": "1"},
        {"hour": 1},
        {"hour": True},
        {**TIME, "more": 1},
        {name: value for name, value in TIME.items() if name != "day"},
        [1],
        None,
        1,
    ]
    keys = [key(TIME), key_of(_request(context={"x": 1})), *map(key, others)]
    assert len(set(keys)) == len(keys)
    assert key_of(_request(context={"time": {"a": 1}})) != key_of(_request(context={"usage": {"a": 1}}))
