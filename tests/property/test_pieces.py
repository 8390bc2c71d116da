"""Work in pieces gives what the plain work gives, and lets others run in proportion to the work."""

import json
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symbi.agent import pieces
from symbi.agent.interpreter import BodyLimits, Interpreter
from symbi.agent.operators import TypeMismatch, contains, equal
from symbi.agent.pure import PURE_FUNCTIONS, call_pure
from symbi.agent.rendering import parsed_json, plain, shown
from symbi.agent.values import NULL, Secret, Value, deep_label, from_json, tool_arguments
from symbi.dsl import ast
from symbi.dsl.compile import compile_file
from symbi.dsl.parser import parse
from symbi.errors import ScriptFailed
from symbi.types import Integrity, Label

pytestmark = pytest.mark.anyio

LABELS = [Label(), Label(Integrity.UNTRUSTED, sources=("a",)), Label(sources=("b",), subjects=("ann",))]

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text('aé"\\\n ', max_size=5)
)
data = st.recursive(scalars, lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text('abcé"', max_size=3), inner, max_size=6), max_leaves=40)  # fmt: skip


@st.composite
def values(draw, of=data):
    """A value whose parts bear several labels."""

    def labelled(item):
        label = draw(st.sampled_from(LABELS))
        if isinstance(item, list):
            return Value(tuple(labelled(part) for part in item), label)
        if isinstance(item, dict):
            return Value({key: labelled(part) for key, part in item.items()}, label)
        return Value(item, label)

    return labelled(draw(of))


@contextmanager
def small_pieces():
    """Also what is small is done in pieces."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "PIECE", 3)
        patch.setattr(pieces, "COPIED", 3)
        patch.setattr(pieces, "PIECE_CHARS", 0)
        yield


def done(work):
    """What comes of it, and how often it yielded."""
    yields = 0
    try:
        while True:
            next(work)
            yields += 1
    except StopIteration as end:
        return end.value, yields


@given(data)
def test_a_value_is_made_of_json_as_at_once(given_data):
    with small_pieces():
        value, _ = done(pieces.made(given_data, LABELS[1]))
    whole = from_json(given_data, LABELS[1])
    assert value == whole
    assert value.weight == whole.weight


@given(values())
def test_label_json_and_text_of_a_value_are_those_of_the_whole(value):
    with small_pieces():
        assert done(pieces.labelled(value))[0] == deep_label(value)
        assert done(pieces.data_of(value, plain))[0] == plain(value)
        assert done(pieces.dumped(value))[0] == json.dumps(plain(value), ensure_ascii=False)


@given(values(), values())
def test_equality_and_membership_are_those_of_the_whole(left, right):
    with small_pieces():
        for one, other in ((left, right), (left, left)):
            assert done(pieces.alike(one, other))[0] == equal(one, other)
            if isinstance(one.data, tuple):
                assert done(pieces.has(one, other))[0] == contains(one, other)


@given(st.dictionaries(st.text("xyz", max_size=2), values(), max_size=4))
async def test_arguments_of_a_tool_are_those_that_are_made_at_once(arguments):
    with small_pieces():
        in_pieces = await pieces.arguments_of(arguments, ast.NOWHERE, "a.symbi")
    assert in_pieces == tool_arguments(arguments, ast.NOWHERE, "a.symbi")


async def test_secrets_in_arguments_are_found_and_texts_that_look_like_one_refused():
    arguments = {"a": Value((Value(Secret("b/key")), Value(1), Value({"k": Value(Secret("a/key"))})))}
    with small_pieces():
        assert await pieces.arguments_of(arguments, ast.NOWHERE, "f") == tool_arguments(arguments, ast.NOWHERE, "f")
        with pytest.raises(ScriptFailed, match="vault://"):
            await pieces.arguments_of({"a": Value((Value("vault://x"),))}, ast.NOWHERE, "f")


json_texts = data.map(json.dumps) | data.map(lambda value: json.dumps(value, indent=1, ensure_ascii=False))
mangled = st.tuples(json_texts, st.integers(0, 60), st.text('[]{},:"1 e\\tn-', max_size=2)).map(
    lambda parts: parts[0][: parts[1]] + parts[2] + parts[0][parts[1] + 1 :]
)


@given(
    json_texts
    | mangled
    | st.sampled_from(["", " ", "NaN", "[Infinity]", "[1,]", '{"a":1,}', "[" * 200, '"\\ud800"', '{"a":1,"a":2}'])
)
def test_a_json_text_is_read_as_the_library_reads_it_and_refused_where_it_refuses_it(text):
    def outcome(read):
        try:
            return repr(read())
        except TypeMismatch:
            return "refused"

    with small_pieces():
        in_pieces = outcome(lambda: done(pieces.parsed(text))[0])
    assert in_pieces == outcome(lambda: parsed_json(text))


async def no_lambda(_closure, argument):
    return argument


@given(values(st.lists(st.integers(-5, 5) | st.floats(-5, 5), max_size=20)))
async def test_a_list_is_sorted_stably_and_added_up_as_by_python(value):
    numbers = plain(value)
    with small_pieces():
        ordered = await call_pure("sort", no_lambda, [value], {})
        total = await call_pure("sum", no_lambda, [value], {})
        kept = await call_pure("unique", no_lambda, [value], {})
    assert [id(item) for item in ordered.data] == [id(item) for item in sorted(value.data, key=lambda item: item.data)]
    assert (ordered.label, ordered.weight) == (deep_label(value), value.weight)
    assert total.data == sum(numbers)
    assert plain(kept) == list(dict.fromkeys(numbers))


ARGUMENTS = {
    "all": 1, "any": 1, "count": 1, "filter": 1, "first": 1, "flatten": 1, "items": 1, "join": 1, "keys": 1, "last": 1, "len": 1,
    "max": 1, "merge": 2, "min": 1, "reverse": 1, "sort": 1, "str": 1, "sum": 1, "to_json": 1, "unique": 1, "values": 1,
    "contains": 2, "index_of": 2, "slice": 2, "append": 2,
}  # fmt: skip


@given(values(), values(), st.sampled_from(sorted(ARGUMENTS)))
async def test_every_helper_gives_in_pieces_what_it_gives_at_once(first, second, name):
    arguments = [first, second][: ARGUMENTS[name]]

    async def outcome():
        try:
            result = await call_pure(name, no_lambda, arguments, {})
        except TypeMismatch as mismatch:
            return str(mismatch)
        assert result.weight == Value(result.data).weight
        return shown(result), result.label

    whole = await outcome()
    with small_pieces():
        assert await outcome() == whole


def test_the_table_of_helpers_that_are_tried_names_helpers():
    assert set(ARGUMENTS) <= set(PURE_FUNCTIONS)


@pytest.mark.parametrize(
    "work",
    [
        lambda size: pieces.made(list(range(size)), LABELS[0]),
        lambda size: pieces.labelled(from_json(list(range(size)), LABELS[0])),
        lambda size: pieces.dumped(from_json(list(range(size)), LABELS[0])),
        lambda size: pieces.data_of(from_json(list(range(size)), LABELS[0]), plain),
        lambda size: pieces.parsed(json.dumps(list(range(size)))),
        lambda size: pieces.sorted_by(*[from_json(list(range(size)), LABELS[0])] * 1, from_json(list(range(size)), LABELS[0]).data),
        lambda size: pieces.alike(*[from_json(list(range(size)), LABELS[0]) for _ in range(2)]),
        lambda size: pieces.position(from_json(list(range(size)), LABELS[0]).data, NULL),
    ],
    ids=["made", "labelled", "dumped", "data", "parsed", "sorted", "alike", "position"],
)  # fmt: skip
def test_others_run_in_proportion_to_the_work(work):
    _, few = done(work(20 * pieces.PIECE))
    _, many = done(work(80 * pieces.PIECE))
    assert few >= 10
    assert 3 * few <= many <= 5 * few
    assert done(work(10))[1] == 0  # what is small holds nobody up


async def test_a_body_on_large_values_pauses_in_proportion_to_them(monkeypatch):
    pauses = 0
    checkpoint = pieces.anyio.lowlevel.checkpoint

    async def counted():
        nonlocal pauses
        pauses += 1
        await checkpoint()

    monkeypatch.setattr(pieces.anyio.lowlevel, "checkpoint", counted)
    seen = []
    for size in (20_000, 80_000):
        body = f"let xs = range({size}); let ys = parse_json(to_json(sort(xs))); xs == ys && len(unique(xs)) == {size}"
        text = f"agent a {{ with sandbox = interpreter {{ {body} }} }}"
        compiled = compile_file(parse(text, "a.symbi"), text)
        pauses = 0
        spec = compiled.agents[0]
        value = await Interpreter("a.symbi", (), None, BodyLimits()).run(spec.body, {})
        assert value.data is True
        seen.append(pauses)
    assert seen[0] > 100
    assert 3 * seen[0] < seen[1] < 5 * seen[0]
