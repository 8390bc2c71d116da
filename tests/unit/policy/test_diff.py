"""Two policy sets compared, by their policies and by what they decide."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symbi.policy.context import NO_REQUEST
from symbi.policy.decision import Deny, PolicyRequest
from symbi.policy.diff import RecordedRequest, Shift, compare_decisions, compare_sets, difference_facts, judge_recorded
from symbi.policy.engine import PolicySource, decide
from symbi.policy.policies import PolicySet
from symbi.types import AgentId, EffectId, Principal, Resource


def load(*texts: str, file: str = "p.cedar") -> PolicySet:
    return PolicySet.load([PolicySource(file, "\n".join(texts))])


def permit(action: str, name: str | None = None, condition: str = "", asks: str = "") -> str:
    return f'{asks}@id("{name or action}") permit (principal, action == Action::"{action}", resource) {condition};'


def request(action: str = "ReadClock", agent: str = "a", effect: str = "e1") -> RecordedRequest:
    resource = {"ReadClock": "clock", "DrawRandom": "random"}[action]
    asked = PolicyRequest(
        Principal(AgentId(agent)), action, Resource("Resource", resource), {"request": dict(NO_REQUEST)}
    )
    return RecordedRequest(EffectId(effect), asked, "allow")


def test_policies_are_told_apart_by_id_and_by_what_they_say():
    old = load(permit("ReadClock"), permit("DrawRandom"), permit("WriteLog"))
    again = permit("WriteLog").replace("permit (", "permit(\n\n")
    new = load(again, permit("ReadClock", condition="when { false }"), permit("ConnectServer"), file="q.cedar")
    change = compare_sets(old, new)
    assert (change.added, change.removed, change.changed) == (("ConnectServer",), ("DrawRandom",), ("ReadClock",))


@pytest.mark.parametrize(
    ("old", "new", "shift"),
    [
        ("", permit("ReadClock"), Shift.ALLOWED),
        (permit("ReadClock"), "", Shift.DENIED),
        (permit("ReadClock"), permit("ReadClock") + '@id("f") forbid (principal, action, resource);', Shift.DENIED),
        (permit("ReadClock"), permit("ReadClock", asks='@timeout("5s")'), Shift.CONDITIONS),
        (permit("ReadClock", asks='@timeout("6s")'), permit("ReadClock", asks='@timeout("5s")'), Shift.CONDITIONS),
        (permit("ReadClock", asks='@timeout("5s")'), permit("ReadClock"), Shift.CONDITIONS),
        (permit("ReadClock"), permit("ReadClock", "other"), None),
        ("", '@id("f") forbid (principal, action, resource);', None),
        ("", permit("DrawRandom"), None),
    ],
)
def test_what_becomes_of_a_recorded_request(old, new, shift):
    found = list(compare_decisions(load(old), load(new), [request()]))
    assert [one.shift for one in found] == ([] if shift is None else [shift])
    if shift is not None:
        assert found[0].effect_id == "e1"
        facts = difference_facts(found[0].old, found[0].new)
        assert facts["old"]["version"] == load(old).version


ATOMS = st.lists(
    st.sampled_from(
        [
            permit("ReadClock", "p1"),
            permit("DrawRandom", "p2", 'when { principal.owner == "x" }'),
            permit("DrawRandom", "p3"),
            '@id("f1") forbid (principal == Agent::"b", action, resource);',
            '@id("f2") forbid (principal, action == Action::"ReadClock", resource);',
        ]
    ),
    unique=True,
    max_size=5,
)


@given(ATOMS, ATOMS)
def test_what_is_listed_is_what_the_two_sets_do_not_agree_on(first, second):
    old, new = load(*first), load(*second)
    asked = [request(action, agent, f"{action}-{agent}") for action in ("ReadClock", "DrawRandom") for agent in "ab"]
    found = {one.effect_id: one.shift for one in compare_decisions(old, new, asked)}
    for one in asked:
        before, after = (not isinstance(decide(policies, one.request), Deny) for policies in (old, new))
        expected = {(True, False): Shift.DENIED, (False, True): Shift.ALLOWED}.get((before, after))
        assert found.get(one.effect_id) is expected
    mirrored = {one.effect_id: one.shift for one in compare_decisions(new, old, asked)}
    assert mirrored.keys() == found.keys()
    assert not any(mirrored[name] is found[name] for name in found)
    if set(first) == set(second):
        assert compare_sets(old, new).changed == ()


COUNTED = '@id("f") forbid (principal, action == Action::"ReadClock", resource) when { context.history.n > 1 };'


def test_a_counter_that_is_recorded_in_part_is_named_by_what_is_missing():
    history = '[history.n]\nkind = "count"\naction = "ReadClock"\nper = "run"\n'
    policies = PolicySet.load(
        [PolicySource("p.cedar", permit("ReadClock") + COUNTED), PolicySource("history.toml", history)]
    )
    asked = request().request
    _, assumed = judge_recorded(policies, asked)
    assert assumed == ("history.n",)
    told = replace(asked, context={**asked.context, "history": {"n": 2, "n_before": 1, "gone": 7}})
    decision, assumed = judge_recorded(policies, told)
    assert isinstance(decision, Deny)
    assert (decision.errors, assumed) == ((), ())
    _, assumed = judge_recorded(policies, replace(asked, action="DrawRandom", resource=Resource("Resource", "random")))
    assert assumed == ()  # nothing that concerns it reads the counter


def test_an_amount_that_cannot_be_added_up_is_denied_as_the_gate_does():
    history = '[history.n]\nkind = "sum"\naction = "AllocateResources"\nof = "memoryMib"\nper = "run"\n'
    policies = PolicySet.load([PolicySource("p.cedar", permit("ReadClock")), PolicySource("history.toml", history)])
    asked = replace(request().request, action="AllocateResources", resource=Resource("Resource", "pool"))
    decision, _ = judge_recorded(policies, asked)
    assert isinstance(decision, Deny)
    assert "`memoryMib`, which the counter `n` adds up, is missing" in decision.reason
