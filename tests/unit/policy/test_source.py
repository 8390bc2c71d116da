"""Files are cut into policies with their places, and a wrong one says where it is wrong."""

import cedarpy
import pytest

from symbi.errors import PolicySyntaxError
from symbi.policy.source import MAX_NESTING, MAX_POLICY_CHARS, PolicySource, parse, split

ALL = "permit(principal, action, resource)"


def _places(text):
    return [str(statement.place) for statement in split(PolicySource("f.cedar", text))]


def test_policies_are_cut_at_semicolons_outside_of_strings_and_comments():
    text = f'\ufeff// a ; b "\n\n@id("x;//")\n{ALL}; {ALL}\n  when {{ "a\\";" == "//" }}; // ;\n'
    statements = list(split(PolicySource("f.cedar", text)))
    assert [str(each.place) for each in statements] == ["f.cedar:3:1", "f.cedar:4:38"]
    assert [parse(each)["annotations"] for each in statements[:1]] == [{"id": "x;//"}]
    assert statements[1].text == f'{ALL}\n  when {{ "a\\";" == "//" }};'


def test_a_comment_ends_where_cedar_ends_it():
    assert len(_places(f"// comment\r{ALL};")) == 1


def test_an_empty_text_holds_no_policy():
    assert _places("") == []
    assert _places("// only a comment") == []


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        (f"{ALL} when {{\n  context.x. }};", "2:14", "unexpected token `}`"),
        (f"{ALL};\n{ALL} when {{ a\n & b }};", "3:2", "invalid token"),
        (f"{ALL} when {{\n  true\n  && context.x. }};", "3:17", "unexpected token `}`"),
        ("permit(principal action, resource);", "1:18", "unexpected token `action`"),
        ("permit(principal, action,\n\tresurce);", "2:2", "resurce"),
        ("allow(principal, action, resource);", "1:1", "invalid policy effect"),
        (f"{ALL} where {{ true }};", "1:37", "invalid policy condition"),
        (f"{ALL} when {{ foo(1) }};", "1:44", "`foo` is not a valid function"),
        (f"{ALL};;", "1:37", "unexpected token `;`"),
        (f"{ALL}", "1:36", "not finished"),
        (f'{ALL} when {{ "open }};', "1:44", "string is not closed"),
        (f"{ALL} when {{ ;", "1:44", "unexpected"),
        ("permit(principal == ?principal, action, resource);", "1:1", "template"),
        ('permit(principal, action, resource in [Tool::"a.b"]);', "1:1", "write `when"),
        ('@id("a") @id("b") permit(principal, action, resource);', "1:1", "duplicate annotation"),
    ],
)
def test_a_syntax_error_has_its_place(text, place, message):
    with pytest.raises(PolicySyntaxError, match=message) as caught:
        [parse(each) for each in split(PolicySource("f.cedar", text))]
    assert str(caught.value.place) == f"f.cedar:{place}"


@pytest.mark.parametrize(
    "condition",
    [
        "(" * (MAX_NESTING + 1),
        ")" * 99 + "(" * (MAX_NESTING + 1),
        "[" * 100_000,
        "if " * 1000,
        "if true then true else " * 1000,
        "true && " * MAX_POLICY_CHARS,
    ],
)
def test_what_could_overflow_the_parsers_stack_never_reaches_it(condition, monkeypatch):
    monkeypatch.setattr(cedarpy, "policies_to_json_str", lambda _: pytest.fail("parsed"))
    with pytest.raises(PolicySyntaxError, match=r"nested|longer"):
        [parse(each) for each in split(PolicySource("f.cedar", f"{ALL} when {{ {condition} }};"))]


def test_a_long_chain_of_operators_is_refused_with_a_way_out():
    (statement,) = split(PolicySource("f.cedar", f"{ALL} when {{ {' || '.join(['true'] * 100)} }};"))
    with pytest.raises(PolicySyntaxError, match="chains more than") as caught:
        parse(statement)
    assert "contains" in str(caught.value)


def test_a_reasonable_nesting_is_fine():
    (statement,) = split(PolicySource("f.cedar", f"{ALL} when {{ {'(' * 20}true{')' * 20} }};"))
    assert parse(statement)["effect"] == "permit"
