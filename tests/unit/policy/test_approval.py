"""The value of `@approval`: fields or plain text, and what is wrong with it named with its place."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symbi.errors import InputError, PolicySyntaxError
from symbi.policy.approval import MAX_EXPIRES_S, Demand, parse_demand, parse_demands
from symbi.policy.policies import PolicySet
from symbi.policy.source import PolicySource


def test_fields_are_read_and_a_text_is_a_reason():
    text = "who=finance-leads; people=2; expires=1h; why=over the limit: ask"
    assert parse_demand(text) == Demand(text, "finance-leads", 2, 3600.0, "over the limit: ask")
    assert parse_demand("finance: two people") == Demand("finance: two people", why="finance: two people")
    assert parse_demand("people=3").people == 3
    assert parse_demand("who=ada@example.com").plain is False
    assert parse_demand("why not").plain is True
    assert [demand.text for demand in parse_demands(["b", "a", "b"])] == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must say who"), ("   ", "must say who"), ("x" * 201, "must say who"), ("a\nb", "must say who"),
        ("whom=x", "no field"), ("who=x; peple=2", "no field"), ("who=x;", "no field"), ("who=a; who=b", "twice"),
        ("who=", "names no group"), ("who=a b", "names no group"), ("who=a,b", "names no group"), ("who=-x", "names no"),
        ("people=0", "no number"), ("people=10", "no number"), ("people=two", "no number"), ("people=²", "no number"),
        ("expires=0s", "no time"), ("expires=1w", "no time"), ("expires=32d", "no time"), ("expires=1", "no time"),
        ("why=", "says nothing"), ("why=it is public, expires=20s", "`expires=` stands within"),
        ("finance; people=2", "`people=` stands within"), ("please, WHO = ada", "`WHO =` stands within"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_where_the_policy_stands(text, message):
    with pytest.raises(InputError, match=message):
        parse_demand(text)
    if text.isprintable():
        policy = f'\n@id("p")\n@approval("{text}")\npermit (principal, action, resource);'
        with pytest.raises(PolicySyntaxError, match=message) as wrong:
            PolicySet.load([PolicySource("p.cedar", policy)])
        assert (wrong.value.place.file, wrong.value.place.line) == ("p.cedar", 2)


@given(st.text(max_size=220))
def test_a_text_is_read_or_refused_and_never_asks_for_less_than_one_person(text):
    try:
        demand = parse_demand(text)
    except InputError:
        return
    assert demand.text == text
    assert 1 <= demand.people <= 9
    assert demand.expires_s is None or 0 < demand.expires_s <= MAX_EXPIRES_S
    assert demand.plain or "=" in text
