from collections import Counter

import pytest

from symbi.dsl import ast
from symbi.dsl.format import LINE_WIDTH, format_text, print_file
from symbi.dsl.parser import parse
from symbi.dsl.walk import MAX_NESTING
from symbi.errors import DslError

FILE = "case.symbi"


def comments(text: str) -> Counter[str]:
    return Counter(comment.text for comment in parse(text, FILE).comments)


def test_the_form_of_a_valid_text(valid_case):
    if "prints" in valid_case:
        assert format_text(valid_case["source"], FILE) == valid_case["prints"].removeprefix("\n")


def test_formatting_changes_no_tree(valid_case):
    source = valid_case["source"]
    assert parse(format_text(source, FILE), FILE) == parse(source, FILE)


def test_formatting_twice_is_formatting_once(valid_case):
    once = format_text(valid_case["source"], FILE)
    assert format_text(once, FILE) == once


def test_formatting_keeps_every_comment_once(valid_case):
    source = valid_case["source"]
    assert comments(format_text(source, FILE)) == comments(source)


def test_formatted_text_is_tidy(valid_case):
    text = format_text(valid_case["source"], FILE)
    assert text == "" or (text.endswith("\n") and not text.endswith("\n\n"))
    if '"' not in text:
        assert all(line == line.rstrip() and "\t" not in line for line in text.splitlines())
        assert "\n\n\n" not in text


def test_a_tree_prints_to_a_text_with_the_same_tree_and_comments(valid_case):
    tree = parse(valid_case["source"], FILE)
    text = print_file(tree)
    assert parse(text, FILE) == tree
    assert comments(text) == Counter(comment.text for comment in tree.comments)


def test_a_comment_put_into_a_text_stays_and_settles_at_once(valid_case):
    """Puts a comment, on its own line and behind something, into gaps all over the text in turn."""
    source = valid_case["source"].removeprefix("\ufeff")
    tree = parse(source, FILE)
    gaps = [
        index
        for index in range(len(source) + 1)
        if source[index - 1 : index] in {"", " ", "\n", ",", "(", "{", "[", ";"}
    ]
    for index in gaps[:: len(gaps) // 25 + 1]:
        for comment in ("\n// here\n", " # here\n"):
            text = source[:index] + comment + source[index:]
            try:
                if parse(text, FILE) != tree:
                    continue  # the gap is in a string
            except DslError:
                continue
            once = format_text(text, FILE)
            assert parse(once, FILE) == tree
            assert comments(once) == comments(text)
            assert format_text(once, FILE) == once


def test_every_form_is_printed_at_the_deepest_level(nested):
    for form, text in nested(MAX_NESTING).items():
        once = format_text(text, FILE)
        assert format_text(once, FILE) == once, form


def test_a_broken_file_is_refused_with_its_place():
    with pytest.raises(DslError, match=r"case\.symbi:1:7: expected a name"):
        format_text("agent {}", FILE)


def test_a_byte_order_mark_and_carriage_returns_go():
    assert format_text("\ufefftype A = B\r\n", FILE) == "type A = B\n"


def test_lines_that_can_be_broken_hold_the_width():
    words = ", ".join(f'"{"w" * n}"' for n in range(1, 40))
    text = format_text(f"function f() {{ let x = g([{words}], a.b.c + d.e.f, {{ k: [{words}] }}); }}", FILE)
    assert max(map(len, text.splitlines())) <= LINE_WIDTH


@pytest.mark.parametrize("length", [LINE_WIDTH, LINE_WIDTH + 1])
def test_a_line_breaks_when_it_is_longer_than_the_width(length):
    head = '    g("'
    tail = '", 1);'
    text = format_text(f"function f() {{ {head}{'x' * (length - len(head) - len(tail))}{tail} }}", FILE)
    assert len(text.splitlines()) == (3 if length == LINE_WIDTH else 6)


def test_a_tree_without_source_prints_strings_from_their_values():
    value = ast.String('a"b\\c\n\td\r')
    file = ast.File(FILE, (ast.Metadata((ast.Entry("k", value),)),))
    assert print_file(file) == 'metadata {\n    k = "a\\"b\\\\c\n\\td\\r"\n}\n'
    assert parse(print_file(file), FILE) == file


def test_keys_that_are_no_names_are_quoted():
    record = ast.Record(
        (ast.Field("a b", ast.Name("x")), ast.Field("a\nb", ast.Name("y")), ast.Field("", ast.Name("z")))
    )
    file = ast.File(FILE, (ast.Metadata((ast.Entry("k", record),)),))
    assert parse(print_file(file), FILE) == file


def test_an_agent_with_parameters_prints_its_parentheses():
    agent = ast.Agent("a", (ast.Parameter("x", ast.TypeRef("T")),), None, ())
    assert print_file(ast.File(FILE, (agent,))) == "agent a(x: T) {}\n"
