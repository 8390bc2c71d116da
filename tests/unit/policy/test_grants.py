"""Grants: the tools and arguments that a task calls for."""

import pytest

from symbi.errors import InputError
from symbi.policy.grants import Granted, granted, read_grant


def test_without_a_grant_nothing_is_given():
    assert granted(None, "mail.send", {}) == Granted(given=False, tool=False, arguments=False)


def test_a_list_grants_tools_with_any_arguments():
    grant = read_grant(["send", "bank.pay"], "mail")
    assert granted(grant, "mail.send", {"to": "x"}) == Granted(given=True, tool=True, arguments=True)
    assert granted(grant, "bank.pay", {}) == Granted(given=True, tool=True, arguments=True)
    assert granted(grant, "mail.delete", {}) == Granted(given=True)


@pytest.mark.parametrize(
    ("constraint", "fitting", "other"),
    [
        ("a@b", ["a@b", ["a@b", "a@b"]], ["a@bc", 1, None, [], ["a@b", "c"], {"a@b": 1}]),
        (["a", "b"], ["a", ["b", "a"]], ["c", ["a", "c"], ""]),
        ({"like": "*@example.com"}, ["x@example.com"], ["x@example.com.evil", "example.com", 3]),
        ({"like": "[ab]?"}, ["[ab]?"], ["a?", "ax"]),
        ({"min": 1, "max": 100.5}, [1, 100, 100.5], [0.99, 101, "50", True, float("inf"), [1, 200]]),
        (True, [True], [1, "true", False]),
        (1, [1, 1.0], [True, "1", 2]),
    ],
)
def test_a_constraint_is_fitted_or_not(constraint, fitting, other):
    grant = read_grant({"pay": {"x": constraint}}, "bank")
    for value in fitting:
        assert granted(grant, "bank.pay", {"x": value, "free": 1}).arguments, value
    for value in other:
        assert granted(grant, "bank.pay", {"x": value}) == Granted(given=True, tool=True), value
    assert granted(grant, "bank.pay", {}) == Granted(given=True, tool=True), "it must be there"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("send", "a grant is a list of tools, or an object of them"),
        ([1], "a grant lists the names of tools, as texts"),
        ({"send": ["a"]}, "the constraints of `send` are not an object"),
        ({"send": {"to": {"lik": "a"}}}, "unknown key `lik` in the constraint of `send.to`; did you mean `like`?"),
        ({"send": {"n": {"max": "3"}}}, "`max` in the constraint of `send.n` is not a number"),
        ({"send": {"n": {}}}, "the constraint of `send.n` says nothing"),
    ],
)
def test_a_wrong_grant_is_refused(data, message):
    with pytest.raises(InputError) as caught:
        read_grant(data, "mail")
    assert message in str(caught.value)
