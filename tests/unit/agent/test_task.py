"""Grants and labels of a run: what can be written, what is refused, and that what is kept comes back."""

import pytest

from symbi.agent.task import NO_TASK, Task, kept_task, parse_grant, parse_labels, parse_subjects
from symbi.errors import InputError, StoreUnavailable
from symbi.policy.grants import Grant
from symbi.types import Confidentiality, Integrity, Label

TOOLS = {"mail.read": {}, "mail.send": {"to": ["a@b.example"], "subject": {"like": "Re: *"}, "n": {"max": 2.5}}}
JSON = '{"mail.read": {}, "mail.send": {"to": ["a@b.example"], "subject": {"like": "Re: *"}, "n": {"max": 2.5}}}'
TOML = """
["mail.read"]
[mail.send]
to = ["a@b.example"]
subject = { like = "Re: *" }
n = { max = 2.5 }
"""


@pytest.mark.parametrize(("file", "text"), [("g.json", JSON), ("g.toml", TOML), ("g", JSON)])
def test_a_grant_is_read_from_either_form(file, text):
    assert parse_grant(file, text) == Grant(TOOLS)


def test_an_empty_grant_is_one_that_names_nothing():
    for file, text in (("g.json", "{}"), ("g.json", "[]"), ("g.toml", "")):
        assert parse_grant(file, text) == Grant({})


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("g.json", "{", "g.json:1:2: not JSON"),
        ("g.json", '["read"]', "`read` is not the name of a tool"),
        ("g.json", '{"read": {}}', "`read` is not the name of a tool"),
        ("g.json", '{"a.b": {}, "a.b": {"to": "x"}}', "`a.b` is there twice"),
        ("g.json", '{"a.b": {"n": NaN}}', "is not a value of JSON"),
        ("g.json", '{"a.b": {"n": 1e999}}', "is not a value of JSON"),
        ("g.json", '{"a.b": {"n": {"most": 1}}}', "unknown key `most` in the constraint of `a.b.n`"),
        ("g.json", '{"a.b": 1}', "the constraints of `a.b` are not an object"),
        ("g.json", "[1]", "lists the names of tools"),
        ("g.json", "7", "a grant is a list of tools"),
        ("g.json", "null", "a grant is a list of tools"),
        ("g.json", '{"a.b": {"c": ' + "[" * 17 + "]" * 17 + "}}", "nested deeper than 16 levels"),
        ("g.json", "[" * 100_000, "g.json:1:1: "),
        ("g.toml", "[a.b", "g.toml:1:1: cannot be read"),
        ("g.toml", "[mail]", "`mail` is not the name of a tool"),
        ("g.toml", "[a]\nb = 1", "the constraints of `a.b` are not an object"),
        ("g.toml", "[a.b]\nday = 2026-01-02", "`2026-01-02` is not a value of JSON"),
        ("g.toml", '[a.b]\n["a.b"]', "`a.b` is there twice"),
    ],
)
def test_a_wrong_grant_has_a_place_and_a_reason(file, text, message):
    with pytest.raises(InputError) as refusal:
        parse_grant(file, text)
    assert message in str(refusal.value)
    assert refusal.value.place.file == file


def test_labels_of_one_input_are_joined():
    pairs = ["note=untrusted", "note=confidential:pii", "to=trusted", "note=internal:office, secret"]
    assert parse_labels(pairs) == {
        "note": Label(Integrity.UNTRUSTED, Confidentiality.SECRET, (), ("office", "pii")),
        "to": Label(Integrity.TRUSTED),
    }


@pytest.mark.parametrize(
    "pair", ["note", "=untrusted", "note=", "note=clean", "note=user", "note=untrusted:pii", "note=public"]
)
def test_a_wrong_label_is_refused(pair):
    with pytest.raises(InputError) as refusal:
        parse_labels([pair])
    assert f"`--label {pair}`" in refusal.value.message
    assert refusal.value.hint


def test_what_is_kept_comes_back():
    task = Task(parse_grant("g.json", JSON), parse_labels(["note=untrusted, confidential:pii"]))
    assert kept_task(task.grant_json, task.labels_json) == task
    assert kept_task(NO_TASK.grant_json, NO_TASK.labels_json) == NO_TASK
    assert (NO_TASK.grant_json, NO_TASK.labels_json, NO_TASK.facts()) == (None, None, {})


def test_an_input_is_the_users_unless_it_is_said_otherwise():
    task = Task(labels=parse_labels(["note=untrusted"]))
    assert task.label("note") == Label(Integrity.UNTRUSTED, sources=("task",))
    assert task.label("to") == Label(sources=("task",))


@pytest.mark.parametrize(
    ("grant", "labels"),
    [
        (b"{", None),
        (b"7", None),
        (b'{"a.b": 1}', None),
        (None, b"[]"),
        (None, b'{"a": {}}'),
        (None, b'{"a": {"integrity": "x"}}'),
    ],
)
def test_what_was_changed_in_the_store_lets_no_run_go_on(grant, labels):
    with pytest.raises(StoreUnavailable, match="were not written by it"):
        kept_task(grant, labels)


def test_subjects_of_inputs_come_back_and_join():
    labels = parse_labels(["note=confidential:pii, subject: Anna@X.org ", "note=subject:C-17", "id=untrusted"])
    assert labels["note"] == Label(
        confidentiality=Confidentiality.CONFIDENTIAL, categories=("pii",), subjects=("C-17", "anna@x.org")
    )
    task = Task(None, labels, parse_subjects(["ben", " ben "]))
    assert task.everybody == ("C-17", "anna@x.org", "ben")
    assert task.label("note").subjects == ("C-17", "anna@x.org", "ben")
    assert task.label("other").subjects == ("ben",)
    assert kept_task(None, task.labels_json) == task
    assert kept_task(None, Task(None, {}, ("ben",)).labels_json) == Task(None, {}, ("ben",))
    assert "ben" not in str(task.facts())
    assert "anna" not in str(task.facts())


@pytest.mark.parametrize("name", ["", " ", "*", "a\nb", "x" * 257])
def test_what_is_no_name_of_a_subject_is_refused(name):
    with pytest.raises(InputError, match="the name of a data subject"):
        parse_subjects([name])
    with pytest.raises(InputError, match="the name of a data subject"):
        parse_labels([f"note=subject:{name}"])
