"""`endorse` and `declassify` in agent files: what is refused, and where; what capabilities say of them."""

import pytest

from symbi.dsl.check import check
from symbi.dsl.parser import parse
from symbi.policy.decision import Deny
from symbi.policy.engine import decide
from symbi.testing.requests import agent_file, allowed, declassify, endorse, load


def found(body, extra=""):
    return check(parse(f"agent a(x: String) {{ {extra} with {{ {body} }} }}", "t.symbi"))


@pytest.mark.parametrize(
    "body",
    [
        'endorse(x, "checked")',
        'endorse(value = x, name = "checked")',
        'declassify(x, "a.b-c_1")',
        'declassify(x, "s", "internal")',
        'declassify(x, name = "s", to = "confidential")',
    ],
)
def test_a_release_with_a_name_is_right(body):
    assert found(body) == ()


@pytest.mark.parametrize(
    ("body", "column", "message"),
    [
        ("endorse(x, x)", 41, "`name` of `endorse` must be a text in quotes: no data decides what is released"),
        ("declassify(x, name = lower(x))", 51, "`name` of `declassify` must be a text in quotes"),
        ('declassify(x, "s", x)', 49, "`to` of `declassify` must be a text in quotes"),
        ('endorse(x, "a b")', 41, "`a b` is not the name of a release"),
        ('endorse(x, "")', 41, "`` is not the name of a release"),
        ('declassify(x, "s", to = "secret")', 54, "`secret` is nothing to declassify to"),
        ("endorse(x)", 30, "`endorse` needs `name`"),
        ('endorse(x, "s", "public")', 30, "`endorse` takes 2 arguments by position, not 3"),
        ('endorse(vault://a, "s")', 38, "a secret can be handed to a tool"),
    ],
)
def test_what_is_wrong_has_a_place(body, column, message):
    (finding,) = found(body)
    assert finding.severity == "error"
    assert message in finding.message
    assert (finding.place.line, finding.place.column) == (1, column)


def test_what_capabilities_do_not_list_is_warned_of_and_denied():
    (warning,) = found('endorse(x, "s")', 'capabilities = ["declassify"]')
    assert "do not list `endorse`" in warning.message
    rules, bound = "allow: endorse(any) allow: declassify(any)", 'capabilities = ["declassify"]'
    assert not allowed(rules, endorse(), bound)
    assert allowed(rules, declassify(), bound)


def test_a_word_alone_does_not_say_what_is_released():
    for rule in ('allow: ["endorse"]', "allow: endorse()", 'allow: declassify("a b")'):
        text = f"agent a(x: String) {{ policy p {{ {rule} }} with {{ return 1; }} }}"
        assert [finding.severity for finding in check(parse(text, "t.symbi"))] == ["error"]


def test_a_deny_of_all_reaches_releases():
    assert isinstance(decide(load(agent_file("allow: endorse(any) deny: any")), endorse()), Deny)
