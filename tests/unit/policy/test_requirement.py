"""A missing requirement denies; a requirement by itself permits nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symbi.errors import PolicySyntaxError
from symbi.policy.decision import Allow, AllowWithConditions, Deny
from symbi.policy.engine import PolicySource, decide
from symbi.policy.obligations import RECORD_RANK
from symbi.policy.policies import PolicySet
from symbi.testing.requests import clock, execute, log

REQUIRED = '@id("need") @requires("{}") forbid(principal, action == Action::"WriteLog", resource);'
PERMIT = '@id("may") {} permit(principal, action == Action::"WriteLog", resource);'


def judge(*texts, request=None):
    policies = PolicySet.load([PolicySource(f"p{number}.cedar", text) for number, text in enumerate(texts)])
    return decide(policies, request or log())


def test_a_missing_requirement_denies_and_is_named():
    decision = judge(REQUIRED.format("record"), PERMIT.format(""))
    assert isinstance(decision, Deny)
    assert decision.reason == "`need` (p0.cedar:1) requires @record of the permits, and they do not ask for it"
    assert [ref.id for ref in decision.policies] == ["need"]
    assert not decision.errors


def test_the_amount_that_is_missing_is_named():
    decision = judge(REQUIRED.format("record=full"), PERMIT.format('@record("digest")'))
    assert decision.reason == (
        '`need` (p0.cedar:1) requires @record("full") of the permits, and they do not ask for it'
    )


def test_what_asks_for_it_is_allowed_by_its_permits_alone():
    decision = judge(REQUIRED.format("record"), PERMIT.format('@record("digest")'))
    assert isinstance(decision, AllowWithConditions)
    assert [ref.id for ref in decision.policies] == ["may"]


def test_any_permit_that_fires_may_ask_for_it():
    more = '@id("more") @record("full") permit(principal in Group::"ops", action, resource);'
    assert isinstance(judge(REQUIRED.format("record"), PERMIT.format(""), more), AllowWithConditions)


def test_a_requirement_permits_nothing():
    decision = judge(REQUIRED.format("record"))
    assert isinstance(decision, Deny)
    assert decision.reason.startswith("no policy permits")


def test_a_requirement_elsewhere_asks_for_nothing():
    permit = '@id("all") permit(principal, action, resource);'
    assert isinstance(judge(REQUIRED.format("record"), permit, request=clock()), Allow)
    when = '@id("need") @requires("record") forbid(principal, action, resource) when { principal.owner == "bob" };'
    assert isinstance(judge(when, permit), Allow)


def test_a_forbid_wins_over_a_requirement_that_is_met():
    forbid = '@id("no") forbid(principal, action, resource);'
    decision = judge(REQUIRED.format("record"), PERMIT.format('@record("full")'), forbid)
    assert [ref.id for ref in decision.policies] == ["no"]


def test_a_requirement_that_errors_denies():
    broken = (
        '@id("need") @requires("record") forbid(principal, action == Action::"WriteLog", resource)'
        " when { context.request.position + 9223372036854775807 > 0 && context.request.position - 9223372036854775807 - 5 < 0 };"
    )
    decision = judge(broken, PERMIT.format('@record("full")'))
    assert isinstance(decision, Deny)
    assert decision.errors


@given(
    st.sampled_from(sorted(RECORD_RANK)),
    st.lists(st.sampled_from(sorted(RECORD_RANK)), min_size=1, max_size=3, unique=True),
)
def test_what_is_recorded_in_the_end_must_be_enough(least, given_):
    permits = [
        f'@id("may{number}") @record("{form}") permit(principal, action, resource);'
        for number, form in enumerate(given_)
    ]
    decision = judge(REQUIRED.format(f"record={least}"), *permits)
    enough = max(RECORD_RANK[form] for form in given_) <= RECORD_RANK[least]
    assert isinstance(decision, AllowWithConditions) is enough


def test_several_are_all_needed_and_a_tier_can_be_asked_for():
    need = '@id("need") @requires("record, tier=gvisor") forbid(principal, action == Action::"ExecuteCode", resource);'
    for annotations, allowed in (
        ('@record("full")', False),
        ('@tier("gvisor")', False),
        ('@record("full") @tier("docker")', False),
        ('@record("full") @tier("gvisor")', True),
    ):
        permit = f'@id("may") {annotations} permit(principal, action, resource);'
        assert isinstance(judge(need, permit, request=execute()), AllowWithConditions) is allowed, annotations


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ('@requires("record") permit(principal, action, resource);', "on a permit asks for nothing", "forbid"),
        ('@requires("recrod") forbid(principal, action, resource);', "`recrod` is no condition", "did you mean"),
        ('@requires("") forbid(principal, action, resource);', "`` is no condition", "known are"),
        ('@requires("record=most") forbid(principal, action, resource);', "is no amount", "record=full"),
        ('@requires("mark=untrusted") forbid(principal, action, resource);', "is no amount", "write `mark`"),
        ('@require("record") forbid(principal, action, resource);', "unknown annotation", "did you mean `requires`"),
    ],
)
def test_a_requirement_that_cannot_be_read_is_refused_at_its_place(text, message, hint):
    with pytest.raises(PolicySyntaxError) as caught:
        judge(f"\n{text}")
    assert message in caught.value.message
    assert hint in (caught.value.hint or "")
    assert str(caught.value.place) == "p0.cedar:2:1"
