"""Whom an answer is about, by the paths that a manifest gives."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symbi.policy.about import about, subject_name
from symbi.policy.fields import AnswerLabels, ToolFlow, parse_path
from symbi.policy.flow import MORE_SUBJECTS
from symbi.policy.inference import FlowSession
from symbi.policy.material import pieces
from symbi.types import Label

CROWD = (MORE_SUBJECTS,)


def scopes(value, *paths):
    return dict(about([parse_path(path).segments for path in paths], value).scopes)


@pytest.mark.parametrize(
    ("value", "paths", "found"),
    [
        ({"customer": {"email": "A@x.org"}, "orders": [1]}, ["customer.email"], {(): ("a@x.org",)}),
        ({"customer": {"email": 17}}, ["customer.email"], {(): ("17",)}),
        ({"all": [{"id": "a"}, {"id": "b"}]}, ["all[*].id"], {("all", 0): ("a",), ("all", 1): ("b",)}),
        ({"all": [{"id": "a"}, {"id": "b"}]}, ["all.id"], {("all", 0): ("a",), ("all", 1): ("b",)}),
        ([{"id": "a"}], ["[*].id"], {(0,): ("a",)}),
        ({"ids": ["a", "b", "a"]}, ["ids"], {(): ("a", "b")}),
        ({"of": {"x": {"id": "a"}, "y": {"id": "b"}}}, ["of.*.id"], {(): ("a", "b")}),
        # nobody is named though there is something: a crowd
        ({"name": "Anna"}, ["customer.email"], {(): CROWD}),
        ({"customer": {"email": None, "name": "Anna"}}, ["customer.email"], {(): CROWD}),
        ({"customer": {"email": True}}, ["customer.email"], {(): CROWD}),
        ({"customer": {"email": {"is": "a"}}}, ["customer.email"], {(): CROWD}),
        ({"customer": {"email": "x" * 300}}, ["customer.email"], {(): CROWD}),
        ({"customer": {"email": "*"}}, ["customer.email"], {(): CROWD}),
        ({"all": [{"id": "a"}, {"name": "Ben"}]}, ["all[*].id"], {("all", 0): ("a",), ("all", 1): CROWD}),
        ("Anna is ill", ["customer.email"], {(): CROWD}),
        # another path names somebody at the same place
        ({"id": "a"}, ["id", "email"], {(): ("a",)}),
        # a text that is JSON is looked into
        (json.dumps({"all": [{"id": "a"}, {"id": "b"}]}), ["all[*].id"], {(): ("a", "b")}),
        # nothing is about nobody
        (None, ["id"], {}),
        ([], ["[*].id"], {}),
        ({}, ["id"], {}),
        ("", ["id"], {}),
        ({"all": []}, ["all[*].id"], {}),
        ({"id": "a"}, [], {}),
    ],
)
def test_who_is_found(value, paths, found):
    assert scopes(value, *paths) == found


def test_each_part_is_about_its_own_and_the_whole_about_all():
    found = about([parse_path("all[*].id").segments], {"all": [{"id": "a", "x": {"y": 1}}, {"id": "b"}], "n": 2})
    assert found.at(("all", 0, "x", "y")) == ("a",)
    assert found.at(("all", 1)) == ("b",)
    assert found.at(("all",)) == found.at(("n",)) == ()
    assert found.everybody == ("a", "b")


def test_more_than_a_label_names_is_a_crowd():
    assert about([parse_path("[*]").segments], [str(n) for n in range(65)]).everybody == CROWD
    assert len(about([parse_path("[*]").segments], [str(n) for n in range(64)]).everybody) == 64


def test_labels_of_an_answer_bear_whom_it_is_about_and_what_was_given():
    flow = ToolFlow(about=(parse_path("all[*].id"),))
    answer = {"all": [{"id": "a", "t": "x"}, {"id": "b", "t": "y"}]}
    labels = AnswerLabels(flow, Label(subjects=("c",)), "e1", about=flow.subjects_of_answer(answer))
    assert labels.at(("all", 0, "t"), "x").subjects == ("a", "c")
    assert labels.at(("all", 1, "t"), "y").subjects == ("b", "c"), "the memo of names does not mix items"
    assert labels.at(("all",), answer["all"]).subjects == ("c",)
    assert labels.name_at(("all", 0, "t"), "t").subjects == ("a", "c")


def test_inferred_labels_bear_subjects_too():
    flow = ToolFlow(about=(parse_path("[*].id"),))
    answer = [{"id": "anna", "note": "is allergic to zinc"}, {"id": "ben", "note": "owes ninety groats"}]
    found = {piece.text: piece.label.subjects for piece in pieces(flow, answer, "s") if not piece.whole}
    assert found["is allergic to zinc"] == ("anna",)
    session = FlowSession("send it")
    session.observe(flow, {}, answer, "step:0")
    judged = session.judge(ToolFlow(), {"text": "is allergic to zinc", "other": "owes ninety groats"})
    assert judged.labels["text"].subjects == ("anna",)
    assert judged.labels["other"].subjects == ("ben",)
    session.observe(ToolFlow(), {"text": "is allergic to zinc"}, "done", "step:1")
    assert session.judge(ToolFlow(), {"text": "is allergic to zinc"}).labels["text"].subjects == ("anna",)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["a", "b", "id"]), inner, max_size=3),
    max_leaves=12,
)


@given(JSON, st.lists(st.sampled_from(["id", "a.id", "[*].id", "a[*].id", "*.id", "a"]), min_size=1, max_size=3))
def test_whatever_is_answered_is_about_somebody_or_holds_nothing_there(value, paths):
    found = about([parse_path(path).segments for path in paths], value)
    for scope, names in found.scopes.items():
        assert names
        assert all(name == MORE_SUBJECTS or subject_name(name) == name for name in names)
        part = value
        for step in scope:
            part = part[step]  # every scope is a place in the answer
    if isinstance(value, dict) and value and not any(isinstance(one, list | dict) for one in value.values()):
        assert found.everybody, "a record without lists is about somebody"


def test_where_the_part_that_names_is_null_what_stands_beside_it_is_about_a_crowd():
    for part in (None, "", {}):
        found = about([parse_path("customer.email").segments], {"customer": part, "note": "moved to Lima"})
        assert found.everybody == (MORE_SUBJECTS,)
    assert about([parse_path("customer.email").segments], None).everybody == ()


def test_a_text_that_nests_too_deeply_to_be_looked_into_is_about_a_crowd():
    """A tool answers what it likes; the outcome is recorded all the same."""
    for depth in (10, 500, 990, 5000, 200_000):
        text = "[" * depth + '{"email": "anna"}' + "]" * depth
        found = ToolFlow(about=(parse_path("email"),)).subjects_of_answer(text).everybody
        assert found == (("anna",) if depth <= 500 else (MORE_SUBJECTS,))
