"""What a program gives that is of another type is refused where it is given, by the name of the argument."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symbi.context.kinds import ContextItem, ContextQuery, Form, MemoryKind, check_space
from symbi.errors import InputError
from symbi.types import Label

ITEM = ("content", "kind", "tags", "importance", "form", "label", "half_life_days", "run_id")
QUERY = (
    "about", "text", "kinds", "forms", "tags", "since_ms", "until_ms", "min_importance", "max_tokens", "limit", "of",
)  # fmt: skip
ANYTHING = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(), st.just(10**400), st.just(object()),
    st.just("\ud800"), st.sampled_from([MemoryKind.SHARED, Form.FACT, Label(), MemoryKind, {"a": 1}, {1: "a"}, {"x"}]),
    st.lists(st.one_of(st.text(), st.none(), st.sampled_from(list(MemoryKind)), st.sampled_from(list(Form)))),
)  # fmt: skip


@pytest.mark.parametrize(
    ("given_", "said"),
    [
        ({"kind": "long-term"}, "`kind` is a `MemoryKind`, such as `MemoryKind.LONG_TERM`, and not `str`"),
        ({"tags": "incident"}, "`tags` is a list or tuple of str, and not `str`"),
        ({"tags": ("a", 5)}, "`tags` is a list or tuple of str, and has `int` at 1"),
        ({"importance": "0.5"}, "`importance` is a number from 0 to 1, and not `str`"),
        ({"importance": True}, "`importance` is a number from 0 to 1, and not `bool`"),
        ({"form": "fact"}, "`form` is a `Form`, such as `Form.FACT`, and not `str`"),
        ({"label": None}, "`label` is a `Label`, and not `NoneType`"),
        ({"half_life_days": "7"}, "`half_life_days` is a number of days or None, and not `str`"),
        ({"run_id": 7}, "`run_id` is a str, and not `int`"),
    ],
)
def test_an_item_says_which_argument_is_of_another_type(given_, said):
    with pytest.raises(InputError) as refused:
        ContextItem("x", **given_)
    assert (refused.value.message, refused.value.code) == (said, "context.type")


@pytest.mark.parametrize(
    ("given_", "said"),
    [
        ({"about": 5}, "`about` is a str, and not `int`"),
        ({"about": "a\ud800"}, "`about` has a lone surrogate"),
        ({"text": None}, "`text` is a str, and not `NoneType`"),
        ({"kinds": MemoryKind.SHARED}, "`kinds` is a list or tuple; each of it is a `MemoryKind`"),
        ({"kinds": ("shared",)}, "and has `str` at 0"),
        ({"forms": Form.FACT}, "`forms` is a list or tuple; each of it is a `Form`"),
        ({"tags": {"a"}}, "`tags` is a list or tuple of str, and not `set`"),
        ({"since_ms": 1.5}, "`since_ms` is a whole number or None, and not `float`"),
        ({"until_ms": "now"}, "`until_ms` is a whole number or None, and not `str`"),
        ({"min_importance": None}, "`min_importance` is a number from 0 to 1, and not `NoneType`"),
        ({"max_tokens": 3.0}, "`max_tokens` is a whole number or None, and not `float`"),
        ({"limit": "5"}, "`limit` is a whole number, and not `str`"),
        ({"limit": True}, "`limit` is a whole number, and not `bool`"),
        ({"of": 7}, "`of` is a str, and not `int`"),
    ],
)
def test_a_question_says_which_argument_is_of_another_type(given_, said):
    with pytest.raises(InputError) as refused:
        ContextQuery(**given_)
    assert said in refused.value.message
    assert refused.value.code == "context.type"


def test_lists_are_taken_as_tuples_are():
    query = ContextQuery(kinds=[MemoryKind.SHARED], forms=[Form.FACT], tags=["B", "a"])
    assert query == ContextQuery(kinds=(MemoryKind.SHARED,), forms=(Form.FACT,), tags=("a", "b"))
    assert hash(query)
    assert ContextItem("x", tags=["a"]).tags == ("a",)


@given(st.dictionaries(st.sampled_from(ITEM), ANYTHING, max_size=3))
def test_whatever_is_given_makes_an_item_or_is_refused(given_):
    made_or_refused(lambda: ContextItem(**{"content": "x", **given_}))


@given(st.dictionaries(st.sampled_from(QUERY), ANYTHING, max_size=3))
def test_whatever_is_given_makes_a_question_or_is_refused(given_):
    made_or_refused(lambda: hash(ContextQuery(**given_)))


@given(ANYTHING)
def test_whatever_is_given_is_an_agent_or_is_refused(name):
    made_or_refused(lambda: check_space(name))


def made_or_refused(make):
    with suppress(InputError):  # and nothing else
        make()
