"""Every tree prints to a text that parses to it; no text makes the parser raise anything but DslError."""

import re
import tomllib
from collections import Counter
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from symbi.dsl import ast
from symbi.dsl.expressions import BINARY, EXPRESSION_WORDS, PREFIX, number_value
from symbi.dsl.format import format_text, print_file
from symbi.dsl.lexer import Kind, tokenize
from symbi.dsl.parser import EFFECTS, FILTER_KEYS, MEMORY_KEYS, SCHEDULE_KEYS, SEARCH_KEYS, WEBHOOK_KEYS, parse
from symbi.dsl.statements import ASSIGNMENT, STATEMENT_WORDS
from symbi.errors import DslError

FILE = "case.symbi"
CASES = tomllib.loads((Path(__file__).parents[1] / "unit/dsl/cases_valid.toml").read_text(encoding="utf-8"))["case"]
SOURCES = [case["source"] for case in CASES]
KEYWORDS = (
    "agent allow audit capabilities catch channel data_classification deny else false filter for function if in let match "
    "memory metadata not policy require return schedule search true try type vault webhook while with _"
)
MODEST = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)

# --- random trees -----------------------------------------------------------------------------

words = st.sampled_from(["a", "b2", "long_name", "X", *KEYWORDS.split()]) | st.from_regex(
    r"[a-zA-Z_][a-zA-Z0-9_]{0,30}", fullmatch=True
)
strings = st.builds(ast.String, st.text(max_size=60))
texts = st.from_regex(r"[0-9]{1,4}(_[0-9]{1,3})?(\.[0-9]{1,3})?", fullmatch=True)
numbers = texts.map(lambda text: ast.Number(number_value(text), text))
durations = st.builds(ast.Duration, st.integers(0, 9999), st.sampled_from(sorted(ast.DURATION_S)))
booleans = st.builds(ast.Boolean, st.booleans())
plain_words = words.filter(lambda word: word not in {"true", "false"})
value_names = st.builds(ast.Name, plain_words)
operand_words = words.filter(lambda word: word not in EXPRESSION_WORDS)
names = st.builds(ast.Name, operand_words)
vault = st.builds(ast.VaultRef, st.from_regex(r"[A-Za-z0-9_./-]{1,20}", fullmatch=True))
values = strings | numbers | durations | booleans | value_names
leaves = strings | numbers | durations | booleans | names | vault
patterns = strings | numbers | booleans | st.builds(ast.Wildcard) | value_names.filter(lambda name: name.id != "_")


def tuples(items, most=3):
    return st.lists(items, max_size=most).map(tuple)


def unique(items, key, most=3):
    return st.lists(items, max_size=most, unique_by=key).map(tuple)


def records(inner, types):
    fields = unique(st.builds(ast.Field, words | st.text(max_size=5), inner, st.booleans()), lambda f: f.key)
    return st.builds(ast.Record, fields, types)


def values_of_if(inner, blocks):
    first = st.builds(ast.If, inner, blocks, blocks)
    return first | st.builds(ast.If, inner, blocks, first)


def larger(inner):
    """Expressions with expressions and small blocks in them."""
    arguments = unique(st.builds(ast.Argument, inner, st.none() | words), lambda a: a.name or id(a))
    calls = st.builds(ast.Call, inner, arguments)
    small_blocks = st.builds(ast.Block, tuples(st.builds(ast.ExprStatement, inner), 1), st.none() | inner)
    return st.one_of(
        st.builds(ast.Array, tuples(inner)),
        records(inner, st.none() | operand_words),
        st.builds(ast.Unary, st.sampled_from(sorted(PREFIX)), inner),
        st.builds(ast.Binary, st.sampled_from(sorted(BINARY)), inner, inner),
        st.builds(ast.Member, inner, words),
        st.builds(ast.Index, inner, inner),
        calls,
        st.builds(ast.Call, st.builds(ast.Member, inner, words), arguments),
        st.builds(ast.Lambda, operand_words, inner),
        values_of_if(inner, small_blocks),
    )


expressions = st.recursive(leaves, larger, max_leaves=12)
flat_expressions = st.recursive(leaves, larger, max_leaves=4)
arrays = st.builds(ast.Array, tuples(flat_expressions))
target_names = names.filter(lambda name: name.id not in STATEMENT_WORDS)
targets = (
    target_names
    | st.builds(ast.Member, flat_expressions, words)
    | st.builds(ast.Index, flat_expressions, flat_expressions)
)


def blocks_of(statements):
    return st.builds(ast.Block, tuples(statements, 4), st.none() | flat_expressions)


def statements_with(inner):
    """Statements with blocks of statements in them."""
    blocks = blocks_of(inner)
    arms = st.builds(ast.Arm, patterns, flat_expressions | blocks)
    catches = st.builds(ast.Catch, words, blocks, st.none() | words)
    ends = st.builds(ast.If, expressions, blocks, st.none() | blocks)
    chains = ends | st.builds(ast.If, flat_expressions, blocks, ends)
    lets = st.builds(ast.If, flat_expressions, blocks, st.none(), patterns)
    return st.one_of(
        st.builds(ast.ExprStatement, chains | lets),
        st.builds(ast.For, words, flat_expressions, blocks),
        st.builds(ast.Match, flat_expressions, tuples(arms)),
        st.builds(ast.Try, blocks, tuples(catches, 2)),
    )


simple_statements = st.one_of(
    st.builds(ast.Let, words, expressions),
    st.builds(ast.Assign, targets, st.sampled_from(sorted(ASSIGNMENT)), expressions),
    st.builds(ast.Return, st.none() | expressions),
    st.builds(ast.ExprStatement, expressions),
)
statements = st.recursive(simple_statements, statements_with, max_leaves=6)
blocks = blocks_of(statements)
types = st.recursive(
    st.builds(ast.TypeRef, words), lambda inner: st.builds(ast.TypeRef, words, tuples(inner, 2)), max_leaves=4
)
parameters = unique(st.builds(ast.Parameter, words, types), lambda p: p.name, 4)


def entries(inner, keys=words, most=4):
    return unique(st.builds(ast.Entry, keys, inner), lambda entry: entry.key, most)


def with_key(items, key, inner=values):
    """Puts an entry under a key that is needed in front of others, in place of one that has it."""
    first = st.builds(ast.Entry, st.just(key), inner)
    return st.builds(lambda one, more: (one, *(e for e in more if getattr(e, "key", "") != key)), first, items)


policies = st.builds(
    ast.Policy,
    words,
    tuples(st.builds(ast.Rule, st.sampled_from(EFFECTS), expressions, st.none() | flat_expressions)),
)
functions = st.builds(ast.Function, words, parameters, st.none() | types, blocks)
agents = st.builds(
    ast.Agent,
    words,
    parameters,
    st.none() | types,
    tuples(
        st.builds(ast.Capabilities, tuples(strings | value_names, 5))
        | policies
        | functions
        | st.builds(ast.With, entries(values | arrays), blocks)
    ),
    st.booleans(),
)
schedules = st.builds(
    ast.Schedule,
    words,
    st.builds(
        lambda when, value, more: (ast.Entry(when, value), *more),
        st.sampled_from(["cron", "at"]),
        values,
        with_key(entries(values, st.sampled_from(sorted({*SCHEDULE_KEYS} - {"cron", "at"}))), "agent"),
    ),
)
classes = unique(st.tuples(words, words), lambda pair: pair[0])
channel_entries = entries(values | arrays, words.filter(lambda word: word != "data_classification"))
channels = st.builds(
    lambda name, first, more, last: ast.Channel(name, (*first, *more, *last)),
    words,
    with_key(channel_entries, "platform"),
    tuples(policies, 2),
    st.builds(ast.Classification, classes).map(lambda item: (item,)) | st.just(()),
)


def sections(name, keys):
    return st.builds(ast.Section, st.just(name), entries(values, st.sampled_from(keys))).map(
        lambda item: (item,)
    ) | st.just(())


memories = st.builds(
    lambda name, first, last: ast.Memory(name, (*first, *last)),
    words,
    entries(values, st.sampled_from(MEMORY_KEYS)),
    sections("search", SEARCH_KEYS),
)
webhooks = st.builds(
    lambda name, first, last: ast.Webhook(name, (*last, *first)),
    words,
    with_key(entries(values, st.sampled_from(WEBHOOK_KEYS)), "path"),
    sections("filter", FILTER_KEYS),
)
type_fields = unique(st.builds(ast.TypeField, words, types), lambda field: field.name)
declarations = st.one_of(
    st.builds(ast.Metadata, entries(values | arrays | records(flat_expressions, st.none()))),
    agents,
    policies,
    st.builds(ast.TypeAliasDecl, words, words) | st.builds(ast.TypeAliasDecl, words, st.none(), type_fields),
    functions,
    schedules,
    channels,
    memories,
    webhooks,
)
files = st.builds(ast.File, st.just(FILE), tuples(declarations))


@given(files)
@settings(MODEST, max_examples=250)
def test_a_tree_prints_to_a_text_that_parses_to_it(file):
    text = print_file(file)
    assert parse(text, FILE) == file
    assert print_file(parse(text, FILE)) == text
    once = format_text(text, FILE)
    assert parse(once, FILE) == file
    assert format_text(once, FILE) == once


around = st.sampled_from(
    [
        ast.Return,
        ast.ExprStatement,
        lambda inner: ast.ExprStatement(ast.If(inner, ast.Block())),
        lambda inner: ast.For("x", inner, ast.Block()),
        lambda inner: ast.Match(inner, (ast.Arm(ast.Wildcard(), inner),)),
    ]
)


@given(expressions, around)
@settings(MODEST, max_examples=250)
def test_no_pair_of_printed_parentheses_can_be_left_out(expression, statement):
    """Takes every pair of parentheses out in turn: the text is wrong then, or means something else."""
    file = ast.File(FILE, (ast.Function("f", (), None, ast.Block((statement(expression),))),))
    text = print_file(file)
    opened: list[int] = []
    for token in tokenize(text, FILE)[4:]:
        if token.text == "(":
            opened.append(token.span.start)
        elif token.text == ")":
            start, end = opened.pop(), token.span.start
            bare = without(without(text, end), start)
            try:
                other = parse(bare, FILE)
            except DslError:
                continue
            assert other != file, bare


def without(text: str, place: int) -> str:
    """Takes one character out; a space goes in between two words."""
    before, after = text[:place], text[place + 1 :]
    return f"{before} {after}" if re.search(r"\w\Z", before) and re.match(r"\w", after) else before + after


@given(files, st.data())
@settings(MODEST)
def test_comments_put_between_tokens_are_kept_and_settle_at_once(file, data):
    text = print_file(file)
    ends = [token.span.start for token in tokenize(text, FILE)]
    places = sorted(data.draw(st.lists(st.sampled_from(ends), max_size=6)), reverse=True)
    for number, place in enumerate(places):
        before = data.draw(st.sampled_from([" ", "\n", "\n\n"]))
        comment = f"{before}{data.draw(st.sampled_from(['//', '#']))} {number}\n"
        text = text[:place] + comment + text[place:]
    once = format_text(text, FILE)
    assert parse(once, FILE) == file
    assert Counter(c.text for c in parse(once, FILE).comments) == Counter(c.text for c in parse(text, FILE).comments)
    assert len(parse(once, FILE).comments) == len(places)
    assert format_text(once, FILE) == once


# --- any text ---------------------------------------------------------------------------------

MARKS = (
    '{ } ( ) [ ] < > , : ; = == => -> + - * / % ! . && || += x y 1 2.5 5m 1e5 "s" " \' /* \\ é \ufeff \x00 vault://a }}'
)
PIECES = ("// c\n", "# c", "\n", "agent a {", "function f() {", "if x {")
fragments = st.sampled_from([*KEYWORDS.split(), *MARKS.split(" "), *PIECES])


def check_any(text: str) -> None:
    try:
        tree = parse(text, FILE)
    except DslError as error:
        place = error.place
        assert place is not None
        assert 1 <= place.line <= text.count("\n") + 1
        assert 1 <= place.column <= len(text.split("\n")[place.line - 1]) + 1
        return
    once = format_text(text, FILE)
    assert parse(once, FILE) == tree
    assert format_text(once, FILE) == once


@given(st.text(st.characters(), max_size=80))
@settings(MODEST, max_examples=300)
def test_any_text_parses_or_is_refused(text):
    check_any(text)


@given(st.lists(fragments, max_size=40), st.sampled_from(["", " "]))
@settings(MODEST, max_examples=500)
def test_any_row_of_tokens_parses_or_is_refused(parts, gap):
    check_any(gap.join(parts))


@given(st.sampled_from(SOURCES), st.sampled_from(SOURCES), st.data())
@settings(MODEST, max_examples=500)
def test_any_altered_file_parses_or_is_refused(source, other, data):
    start, end = sorted(data.draw(st.tuples(*[st.integers(0, len(source))] * 2)))
    first, last = sorted(data.draw(st.tuples(*[st.integers(0, len(other))] * 2)))
    new = data.draw(st.just(other[first:last]) | fragments | st.just(source[start:end] * 2))
    check_any(source[:start] + new + source[end:])


@given(st.sampled_from(SOURCES), st.data())
@settings(MODEST, max_examples=300)
def test_a_file_with_one_token_gone_or_doubled_parses_or_is_refused(source, data):
    tokens = [token for token in tokenize(source, FILE) if token.kind is not Kind.END]
    if not tokens:
        return
    token = data.draw(st.sampled_from(tokens))
    times = data.draw(st.sampled_from([0, 2]))
    check_any(source[: token.span.start] + f" {token.text}" * times + source[token.span.end :])
