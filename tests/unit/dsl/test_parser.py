import sys
from collections.abc import Iterator
from contextlib import suppress

import pytest

from symbi.dsl import ast
from symbi.dsl.parser import parse
from symbi.dsl.walk import MAX_NESTING, children
from symbi.errors import DslError

FILE = "case.symbi"


def nodes(top: ast.Node) -> Iterator[tuple[ast.Node, ast.Node]]:
    stack = [top]
    while stack:
        node = stack.pop()
        for child in children(node):
            yield node, child
            stack.append(child)


def body(text: str) -> ast.Block:
    [function] = parse(f"function f() {{ {text} }}", FILE).declarations
    assert isinstance(function, ast.Function)
    return function.body


def value(text: str) -> ast.Expr:
    [statement] = body(f"let x = {text};").statements
    assert isinstance(statement, ast.Let)
    return statement.value


# --- the cases --------------------------------------------------------------------------------


def test_a_valid_text_parses_to_the_tree_it_should(valid_case):
    tree = parse(valid_case["source"], FILE)
    if "same" in valid_case:
        assert parse(valid_case["same"], FILE) == tree
    if "not_same" in valid_case:
        assert parse(valid_case["not_same"], FILE) != tree


def test_spans_of_a_valid_text_lie_in_each_other_and_name_their_place(valid_case):
    text = valid_case["source"]
    tree = parse(text, FILE)
    for node, child in nodes(tree):
        span = child.span
        assert node.span.start <= span.start < span.end <= node.span.end
        before = text[: span.start].removeprefix("\ufeff")
        assert (span.line, span.column) == (before.count("\n") + 1, len(before) - before.rfind("\n"))
        if isinstance(child, ast.Name):
            assert text[span.start : span.end] == child.id
    for comment in tree.comments:
        assert text[comment.span.start : comment.span.end] == comment.text


def test_an_invalid_text_is_refused_at_its_place_with_a_hint(invalid_case):
    before, mark, after = invalid_case["source"].partition("§")
    assert mark
    with pytest.raises(DslError) as caught:
        parse(before + after, FILE)
    error = caught.value
    start = before.removeprefix("\ufeff")
    assert str(error.place) == f"{FILE}:{start.count(chr(10)) + 1}:{len(start) - start.rfind(chr(10))}"
    assert invalid_case["says"] in error.message
    assert invalid_case.get("hint", "") in (error.hint or "")
    assert error.message.startswith("expected ")
    assert error.message[-1] != "."
    assert "\n" not in str(error)
    assert error.code == "dsl.syntax"


def test_there_are_at_least_two_hundred_cases(pytestconfig):
    texts = [
        (pytestconfig.rootpath / "tests/unit/dsl" / f"cases_{kind}.toml").read_text("utf-8")
        for kind in ("valid", "invalid")
    ]
    assert [text.count("[[case]]") >= 150 for text in texts] == [True, True]


def test_every_prefix_of_a_file_parses_or_is_refused(valid_case):
    text = valid_case["source"]
    for end in range(len(text)):
        with suppress(DslError):
            parse(text[:end], FILE)


# --- shapes of trees --------------------------------------------------------------------------


def test_values_of_literals():
    assert value('"a\\"b\\n\\q"') == ast.String('a"b\n' + "q")
    assert value("1_000") == ast.Number(1000, "1_000")
    assert value("1_0.5") == ast.Number(10.5, "1_0.5")
    assert isinstance(value("1").value, int)
    assert isinstance(value("1.0").value, float)
    assert value("30.seconds") == ast.Duration(30, "seconds")
    assert value("2months") == ast.Duration(2, "months")
    assert value("true") == ast.Boolean(value=True)
    assert value("vault://mail/token") == ast.VaultRef("mail/token")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("7.seconds", 7),
        ("7s", 7),
        ("2.minutes", 120),
        ("2m", 120),
        ("1.hours", 3600),
        ("1h", 3600),
        ("1d", 86_400),
        ("1w", 604_800),
        ("1months", 2_592_000),
        ("1y", 31_536_000),
    ],
)
def test_a_duration_in_seconds(text, seconds):
    duration = value(text)
    assert isinstance(duration, ast.Duration)
    assert duration.seconds == seconds


def test_a_number_keeps_its_text():
    assert value("1_000") != value("1000")


def test_precedence_and_association():
    a, b, c, d = (ast.Name(name) for name in "abcd")
    assert value("a - b - c * d") == ast.Binary("-", ast.Binary("-", a, b), ast.Binary("*", c, d))
    assert value("a || b && c == d") == ast.Binary("||", a, ast.Binary("&&", b, ast.Binary("==", c, d)))
    assert value("not a in b") == ast.Binary("in", ast.Unary("not", a), b)
    assert value("-a.b(c)[d]") == ast.Unary("-", ast.Index(ast.Call(ast.Member(a, "b"), (ast.Argument(c),)), d))


def test_named_arguments_by_either_sign():
    call = ast.Call(ast.Name("f"), (ast.Argument(ast.Name("a")), ast.Argument(ast.Name("b"), "n")))
    assert value("f(a, n = b)") == value("f(a, n: b)") == call


def test_a_record_with_and_without_type():
    fields = (ast.Field("a", ast.Number(1, "1")), ast.Field("b c", ast.Name("d"), quoted=True))
    assert value('{ a: 1, "b c": d }') == ast.Record(fields)
    assert value('T { a: 1 "b c": d }') == ast.Record(fields, "T")


def test_the_brace_after_a_condition_opens_the_block():
    [statement] = body("if x { a; }").statements
    assert statement == ast.ExprStatement(ast.If(ast.Name("x"), ast.Block((ast.ExprStatement(ast.Name("a")),))))


def test_an_if_at_the_end_of_a_block_is_its_value_only_with_else():
    assert isinstance(body("if a { 1 } else { 2 }").value, ast.If)
    assert body("if a { 1 }").value is None
    assert body("if a { 1 } else if b { 2 }").value is None
    assert body("if a { 1 } else { 2 };").value is None
    assert body("if let a = b { 1 }").value is None


def test_else_if_is_an_if_in_else():
    first = body("if a {} else if b {} else { c; }").value
    assert isinstance(first, ast.If)
    assert isinstance(first.orelse, ast.If)
    assert isinstance(first.orelse.orelse, ast.Block)


def test_patterns():
    [match] = body('match x { "a" => 1, 2 => 1, true => 1, _ => 1, b => 1 }').statements
    assert isinstance(match, ast.Match)
    assert [arm.pattern for arm in match.arms] == [
        ast.String("a"),
        ast.Number(2, "2"),
        ast.Boolean(value=True),
        ast.Wildcard(),
        ast.Name("b"),
    ]


def test_catch_with_one_word_names_the_error_and_with_two_its_kind_first():
    [statement] = body("try {} catch (e) {} catch (Denied d) {}").statements
    assert isinstance(statement, ast.Try)
    assert [(catch.kind, catch.name) for catch in statement.catches] == [(None, "e"), ("Denied", "d")]


def test_an_arm_with_empty_braces_is_a_block_and_with_a_key_a_record():
    [match] = body("match x { 1 => {}, 2 => { a: 1 }, 3 => ({}) }").statements
    assert isinstance(match, ast.Match)
    assert [type(arm.body) for arm in match.arms] == [ast.Block, ast.Record, ast.Record]


def test_parentheses_of_an_agent_are_remembered():
    flags = [a.has_parens for a in parse("agent a {} agent b() {}", FILE).declarations if isinstance(a, ast.Agent)]
    assert flags == [False, True]


def test_comments_are_kept_in_order_with_their_place():
    comments = parse("// a\nagent x { # b\n\n  // c \t\r\n}", FILE).comments
    assert [(c.text, c.own_line, c.span.line, c.span.column) for c in comments] == [
        ("// a", True, 1, 1),
        ("# b", False, 2, 11),
        ("// c", True, 4, 3),
    ]


def test_a_comment_after_a_byte_order_mark_stands_on_its_own_line():
    [comment] = parse("\ufeff// a", FILE).comments
    assert (comment.own_line, comment.span.column) == (True, 1)


def test_entries_of_a_classification_have_their_places():
    [channel] = parse("channel c { platform = x data_classification { a: b, c: d } }", FILE).declarations
    assert isinstance(channel, ast.Channel)
    [_, classification] = channel.items
    assert isinstance(classification, ast.Classification)
    assert classification.entries == (("a", "b"), ("c", "d"))
    assert [span.column for span in classification.places] == [48, 54]


def test_text_that_is_not_utf8_is_refused_where_it_is_not():
    text = b"type A = B\n// \xff".decode(errors="surrogateescape")
    with pytest.raises(DslError, match=r"case.symbi:2:4: expected UTF-8 text, found `\\udcff`; save the file as UTF-8"):
        parse(text, FILE)


# --- nesting ----------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [MAX_NESTING - 1, MAX_NESTING])
def test_every_form_nests_up_to_the_bound(nested, levels):
    for text in nested(levels).values():
        parse(text, FILE)


# The last is deeper than the stack of Python.
@pytest.mark.parametrize("levels", [MAX_NESTING + 1, MAX_NESTING + 2, 20_000])
def test_no_form_nests_deeper(nested, levels):
    for form, text in nested(levels).items():
        with pytest.raises(DslError, match="expected at most 256 levels of nesting, found more") as caught:
            parse(text, FILE)
        assert caught.value.code == "dsl.nesting", form
        assert caught.value.place is not None


def test_levels_add_up_over_different_forms():
    parse("function f() { let x = " + "(" * 128 + "[" * 128 + "]" * 128 + ")" * 128 + "; }", FILE)
    with pytest.raises(DslError, match="256 levels"):
        parse("function f() { let x = " + "(" * 128 + "[" * 129 + "]" * 129 + ")" * 128 + "; }", FILE)


def test_chains_in_chains_are_counted_together():
    inner = "a" + ".b" * 200
    parse("function f() { let x = " + inner + " + 1" * 56 + "; }", FILE)
    with pytest.raises(DslError, match="256 levels"):
        parse("function f() { let x = " + inner + " + 1" * 57 + "; }", FILE)


def test_many_things_side_by_side_are_no_nesting():
    parse("function f() { " + "let x = [1, 2, (3)]; " * 2_000 + "g(" + "1, " * 2_000 + "1); }", FILE)


def at_depth(frames: int, text: str) -> ast.File:
    return at_depth(frames - 1, text) if frames else parse(text, FILE)


def test_the_bound_leaves_room_for_a_caller_that_is_three_hundred_calls_deep(nested):
    for text in nested(MAX_NESTING).values():
        at_depth(300, text)


def test_a_caller_without_room_gets_an_error_of_ours():
    depth = 0
    frame = sys._getframe()
    while frame.f_back is not None:
        frame, depth = frame.f_back, depth + 1
    text = "metadata { a = " + "[" * 200 + "]" * 200 + " }"
    with pytest.raises(DslError, match="found more than the caller's stack has room for"):
        at_depth(sys.getrecursionlimit() - depth - 100, text)
