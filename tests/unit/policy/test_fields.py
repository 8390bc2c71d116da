"""Paths, roles of arguments and labels of outputs, as manifests declare them."""

import pytest

from symbi.errors import InputError
from symbi.policy.fields import UNDECLARED, AnswerLabels, OutputRule, Role, ToolFlow, parse_path, spelled
from symbi.types import Confidentiality, Integrity, Label


@pytest.mark.parametrize(
    ("path", "covered", "apart"),
    [
        ("$", [(), ("a",), (0, "a")], []),
        ("a", [("a",), ("a", "b"), (0, "a"), ("a", 0)], [(), ("b",), ("b", "a")]),
        ("$.a.b", [("a", "b"), ("a", 3, "b"), ("a", "b", 0)], [("a",), ("a", "c", "b")]),
        ("[*].a", [(0, "a"), (7, "a", "x")], [("a",), (0, "b"), (0,)]),
        ("$[*]", [(0,), (0, "a")], [(), ("a",)]),
        ("*", [("a",), ("b", "c"), (0, "a")], [()]),
        ("a[*].b", [("a", 1, "b")], [("a", "b"), ("a", 1)]),
        ('"odd name"."x.y"', [("odd name", "x.y")], [("odd name",)]),
        (r'"quo\"te"', [('quo"te',)], [("quote",)]),
    ],
)
def test_a_path_covers_what_it_names_and_all_below(path, covered, apart):
    parsed = parse_path(path)
    assert [steps for steps in (*covered, *apart) if parsed.covers(steps)] == covered


@pytest.mark.parametrize(
    ("path", "through", "not_through"),
    [
        ("a.b.c", [(), ("a",), ("a", "b"), (0,), ("a", 0, 1, "b", 2)], [("b",), ("a", "c"), ("a", "b", "c")]),
        ("a[*].b", [("a",), ("a", 3)], [("a", "b"), ("a", 3, "b"), ("a", 3, "c")]),
        ("*.b", [("x",), (1, "x")], [("x", "c"), ("x", "b")]),
        ("$", [], [(), ("a",)]),
    ],
)
def test_a_path_leads_through_what_lies_above_its_end(path, through, not_through):
    parsed = parse_path(path)
    assert [steps for steps in (*through, *not_through) if parsed.leads_through(steps)] == through


@pytest.mark.parametrize(
    "path",
    ["", "$a", ".a", "a.", "a..b", "[0]", "[*", "a b", "$~", "~", "a[*", "$$", "a.[*]", '"a', "x" * 3 + "." * 40],
)
def test_what_is_no_path_is_refused(path):
    with pytest.raises(InputError, match="is not a path"):
        parse_path(path)


def test_the_role_that_is_declared_most_closely_counts_and_what_is_not_declared_is_a_sink():
    flow = ToolFlow(
        roles=(
            (parse_path("options"), Role.PLAIN),
            (parse_path("options.url"), Role.SINK),
            (parse_path("*.note"), Role.TEXT),
            (parse_path("mail.*"), Role.PLAIN),
        )
    )
    assert flow.role(("options", "limit")) is Role.PLAIN
    assert flow.role(("options", "url", "host")) is Role.SINK
    assert flow.role(("other", "note")) is Role.TEXT
    assert flow.role(("mail", "note")) is Role.TEXT, "of two that say as much, the stricter"
    assert flow.role(("nobody",)) is Role.SINK
    assert UNDECLARED.role(("x",)) is Role.SINK


def test_each_part_of_a_label_comes_from_the_closest_rule_that_says_it():
    flow = ToolFlow(
        output=(
            OutputRule(parse_path("$"), Integrity.TRUSTED, Confidentiality.INTERNAL, ("mail",)),
            OutputRule(parse_path("[*].body"), Integrity.UNTRUSTED),
            OutputRule(parse_path("[*].iban"), None, Confidentiality.SECRET, ("account",)),
            OutputRule(parse_path("[*].by~"), Integrity.SYSTEM),
        )
    )
    assert flow.label((0, "id")) == Label(Integrity.TRUSTED, Confidentiality.INTERNAL, (), ("mail",))
    assert flow.label((0, "body", "x")) == Label(Integrity.UNTRUSTED, Confidentiality.INTERNAL, (), ("mail",))
    assert flow.label((3, "iban")) == Label(Integrity.TRUSTED, Confidentiality.SECRET, (), ("account",))
    assert flow.name_label((3, "by")).integrity is Integrity.SYSTEM
    assert flow.name_label((3, "other")).integrity is Integrity.TRUSTED
    assert UNDECLARED.label(("a",)) == Label(Integrity.UNTRUSTED)


def test_an_answer_is_as_confidential_as_what_was_asked_and_prose_is_never_a_name():
    flow = ToolFlow(output=(OutputRule(parse_path("[*].name"), Integrity.TRUSTED),))
    given = Label(Integrity.UNTRUSTED, Confidentiality.CONFIDENTIAL, ("before",), ("pii",))
    labels = AnswerLabels(flow, given, "e1")
    assert labels.at((0, "name"), "general") == Label(
        Integrity.TRUSTED, Confidentiality.CONFIDENTIAL, ("e1",), ("pii",)
    )
    assert labels.at((0, "name"), "general\nsend it all").integrity is Integrity.UNTRUSTED
    assert labels.at((0, "name"), "x" * 129).integrity is Integrity.UNTRUSTED
    assert labels.at((0, "text"), "x").integrity is Integrity.UNTRUSTED
    assert labels.at((), []).integrity is Integrity.SYSTEM, "the tool made the list"
    assert labels.at((0, "text"), []).integrity is Integrity.UNTRUSTED


def test_steps_are_spelled_as_paths():
    assert spelled(()) == "$"
    assert spelled(("a", 0, "b c", 'q"')) == 'a[0]."b c"."q\\""'
