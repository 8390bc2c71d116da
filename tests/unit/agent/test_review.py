"""Attacks on the interpreter by an agent file, or by data that it reads: labels lost, time and memory taken."""

import math
from collections.abc import Mapping

import anyio
import anyio.lowlevel
import pytest

from symbi.agent.interpreter import BodyLimits, Interpreter
from symbi.agent.values import MAX_ITEMS, MAX_TEXT_CHARS, MAX_WEIGHT, Value, deep_label, from_json
from symbi.dsl import ast
from symbi.dsl.parser import parse
from symbi.errors import LimitExceeded, OutputLimit, ScriptFailed, StepLimit, SymbiError, ToolFailed
from symbi.types import Confidentiality, Integrity, Label

THEIRS = Label(Integrity.UNTRUSTED, Confidentiality.CONFIDENTIAL, ("e1",))


class Answers:
    """Effects of which tools alone answer."""

    def __init__(self, answer: object = None) -> None:
        self.answer = answer
        self.names: list[Value] = []

    async def tool(self, name: Value, _arguments: Mapping[str, Value], _span: ast.Span) -> Value:
        self.names.append(name)
        if isinstance(self.answer, SymbiError):
            raise self.answer
        return from_json(self.answer, THEIRS)


def interpreter(body: str, effects: Answers | None = None, limits: BodyLimits | None = None, functions: str = ""):
    file = parse(f"{functions}\nagent a {{ with {{ {body} }} }}", "t.symbi")
    agent = next(d for d in file.declarations if isinstance(d, ast.Agent))
    block = next(item.body for item in agent.items if isinstance(item, ast.With))
    declared = [d for d in file.declarations if isinstance(d, ast.Function)]
    return Interpreter("t.symbi", declared, effects or Answers(), limits), block


def value_of(
    body: str, effects: Answers | None = None, limits: BodyLimits | None = None, functions: str = "", **inputs
):
    walker, block = interpreter(body, effects, limits, functions)
    scope = {name: value if isinstance(value, Value) else from_json(value, Label()) for name, value in inputs.items()}
    return anyio.run(walker.run, block, scope)


# --- labels ------------------------------------------------------------------------------------

ZERO = Value(0, THEIRS)
WORD = Value("a", THEIRS)


@pytest.mark.parametrize(
    "body",
    [
        'slice("aaaaaaaa", 0, n)',
        'len(slice("aaaaaaaa", 0, n))',
        "slice([1, 2], n)",
        'get({ a: "x" }, w)',
        'get({ b: "x" }, w, "ours")',
        'get(["x"], n)',
        'get([], n, "ours")',
        '[{ to: "x" }][n].to',
        '{ a: { to: "x" } }[w].to',
        'first(filter(["a", "b"], x => x == w))',
        'last(filter(["a", "b"], x => x == w))',
        'filter(["a", "b"], x => x == w)[0]',
        "max(filter([1, 2], x => x > n))",
        "sum(filter([1, 2], x => x > n))",
        'flatten(filter([["a"], ["b"]], x => x[0] == w))[0]',
        'len(flatten(filter([["a"]], x => x[0] == "z" || x[0] != w)))',
        'len(unique([w, "a"]))',
        'first(sort([{ k: n, v: "x" }, { k: 1, v: "y" }], x => x.k)).v',
        'let r = ""; for x in filter(["a", "b"], x => x == w) { r = x; } r',
        'map(filter(["a", "b"], x => x == w), x => x + "!")[0]',
        'values({ a: { to: "x" } }[w])[0]',
        'let xs = ["x", "y"]; xs[n] = "z"; xs[1]',
        "type_of(w)",
        'str(w) + ""',
        "w.upper()",
    ],
)
def test_what_data_from_outside_chose_or_made_bears_its_label(body):
    label = deep_label(value_of(body, n=ZERO, w=WORD))
    assert label.integrity is Integrity.UNTRUSTED
    assert label.confidentiality is Confidentiality.CONFIDENTIAL


def test_fields_that_were_written_out_keep_labels_of_their_own():
    value = value_of(
        'let r = { to: "x", body: w }; [r.to, [r][0].to, get(r, "to"), values(r)[0], first([r.to, w])]', w=WORD
    )
    assert [item.label.integrity for item in value.data] == [Integrity.USER] * 5


def test_a_caught_errors_message_is_as_confidential_as_what_the_body_has_seen():
    value = value_of('let m = ""; try { int(w) } catch (e) { m = e.message; } m', w=Value("the pin is 1234", THEIRS))
    assert "1234" in value.data
    assert value.label.confidentiality is Confidentiality.CONFIDENTIAL
    value = value_of(
        'let m = ""; let t = tool("s.t"); try { int(t) } catch (e) { m = e.message + e.hint; } m', Answers("1 2 3 4")
    )
    assert value.label.confidentiality is Confidentiality.CONFIDENTIAL
    value = value_of('let m = ""; try { tool("s.t"); } catch (e) { m = e.message; } m', Answers(ToolFailed("no")))
    assert value.label.confidentiality is Confidentiality.PUBLIC


def test_a_tools_name_reaches_the_effects_with_its_label():
    effects = Answers("s.b")
    value_of('tool(tool("s.a"));', effects)
    assert [name.label.integrity for name in effects.names] == [Integrity.USER, Integrity.UNTRUSTED]


# --- time and memory ---------------------------------------------------------------------------

SHARED = "let a = [1]; for i in range(60) { a = [a, a]; } "


@pytest.mark.parametrize(
    "body",
    [
        SHARED + "1",
        "let r = { a: 1 }; for i in range(60) { r = { a: r, b: r }; } 1",
        "let a = [1]; for i in range(60) { a = append([a], a); } 1",
        "let a = { k: [1] }; for i in range(60) { a.k = [a.k, a.k]; } 1",
        "let a = [[1]]; for i in range(60) { a[0] = [a[0], a[0]]; } 1",
        "let a = { x: 1 }; for i in range(60) { a = merge({ x: a }, { y: a }); } 1",
        "let xs = map(range(1000), x => x); let ys = map(range(3000), x => xs); 1",
        'let s = "0123456789"; for i in range(20) { s = s + s; } map(range(1000), x => s)',
    ],
)
def test_a_value_that_shares_its_parts_counts_each_of_them(body):
    with pytest.raises(OutputLimit):
        value_of(body)


@pytest.mark.parametrize(
    ("body", "weight"),
    [
        ("[]", 1),
        ("[1, [2, 3]]", 5),
        ("{ a: 1, b: [2] }", 4),
        ("let xs = [1]; xs = append(xs, [2]); xs", 4),
        ("[1] + [2, 3]", 4),
        ("let x = { a: [1, 2] }; x.a[0] = [7, 8]; x.b = 1; x", 7),
        ("let x = [1, 2]; x[0] += 3; x", 3),
        ("merge({ a: 1 }, { a: 2, b: 3 })", 3),
        ("filter(range(10), x => x < 3)", 4),
    ],
)
def test_weights_are_kept_right(body, weight):
    value = value_of(body)
    assert value.weight == weight == Value(value.data).weight


@pytest.mark.parametrize(
    "body",
    [
        "round(5, -1000000000)",
        "round(5, 1000000000)",
        'join(map(range(100000), x => ""), slice(join(map(range(1000), x => "0123456789")), 0))',
        'let s = join(map(range(100000), x => "0123456789")); format(join(map(range(1000), x => "{s}")), s = s)',
        'let s = "a,"; for i in range(22) { s = s + s; } split(s, ",")',
        'let s = "a "; for i in range(22) { s = s + s; } split(s)',
    ],
)
def test_helpers_are_bounded_before_they_work(body):
    with pytest.raises((LimitExceeded, ScriptFailed)):
        value_of(body)


def test_many_lines_are_bounded_before_they_become_values():
    with pytest.raises(OutputLimit):
        value_of("lines(s)", s=Value("\n" * (MAX_ITEMS + 1)))


def test_unique_and_sort_take_no_more_than_their_steps():
    texts = [f"{number:08}" for number in range(200_000, 0, -1)]
    value = value_of("[len(unique(xs)), first(sort(xs)), count(sort(map(range(1000), x => 0 - x)))]", xs=texts)
    assert [item.data for item in value.data] == [200_000, "00000001", 1000]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ('unique([1, 1.0, true, "1", null_of([]), [1], [1.0], { a: 1, b: 2 }, { b: 2, a: 1 }])', 6),
        ("unique([true, 1, false, 0])", 4),
    ],
)
def test_unique_tells_apart_what_equality_tells_apart(body, expected):
    functions = "function null_of(x: Any) -> Any { get(x, 5) }"
    assert len(value_of(body, functions=functions).data) == expected


def test_unique_and_sort_refuse_what_cannot_be_compared():
    for body in (
        "unique([x => x, x => x])",
        'sort([1, "a"])',
        'sort(["a", 1])',
        "sort([[1], [2]])",
        "sort([true, false])",
    ):
        with pytest.raises(ScriptFailed):
            value_of(body)


@pytest.mark.parametrize(
    "body",
    [
        "for a in xs { for b in xs { } }",
        "for i in xs { len(str(xs)); }",
        "for i in xs { let y = xs == xs; }",
        "for i in xs { unique(xs); }",
        "for i in xs { let y = 5000 in xs; }",
        "let c = xs; for i in xs { c = c + xs; c = slice(c, 0, 5000); }",
    ],
)
def test_work_on_large_values_counts_as_steps(body):
    with pytest.raises(StepLimit):
        value_of(body, limits=BodyLimits(steps=30_000), xs=list(range(3000)))


def test_others_get_their_turn_while_a_body_works_on_large_values():
    walker, block = interpreter("for i in range(40) { str(xs); }")
    turns = 0

    async def main() -> int:
        nonlocal turns

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await anyio.lowlevel.checkpoint()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(other)
            await walker.run(block, {"xs": from_json(list(range(40_000)), Label())})
            tasks.cancel_scope.cancel()
        return turns

    assert anyio.run(main) >= 40


def test_appending_stays_cheap_in_steps():
    assert (
        value_of(
            "let xs = []; for x in range(5000) { xs = append(xs, x); } len(xs)", limits=BodyLimits(steps=60_000)
        ).data
        == 5000
    )


# --- numbers and text --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        'float("nan")',
        'float("inf")',
        'float("-1e999")',
        'parse_json("1e999")',
        'parse_json("[-1e999]")',
        'parse_json("[1' + "0" * 400 + ']")',
        'parse_json("[1' + "0" * 400 + ']")[0] + 1.5',
        "parse_json(x)",
        "parse_json(y)",
        "ceil(x)",
    ],
)
def test_no_number_or_text_gets_in_that_json_does_not_have(body):
    with pytest.raises((ScriptFailed, OutputLimit)):
        value_of(body, x='"\\ud800"', y='{"\\udfff": 1}')


@pytest.mark.parametrize("data", [math.nan, math.inf, "\ud800", {"\ud800": 1}, [2**63]])
def test_no_value_is_made_of_what_is_not_json(data):
    with pytest.raises((ScriptFailed, OutputLimit)):
        from_json(data, Label())


@pytest.mark.parametrize("body", ["match f { 1 => { } }", "if let 1 = f { 2 }", 'match vault { "a" => { } _ => { } }'])
def test_a_pattern_on_what_cannot_be_compared_fails_at_its_place(body):
    with pytest.raises(ScriptFailed, match="cannot be compared") as failure:
        value_of(f"let f = x => x; let vault = vault://a/b; {body}")
    assert failure.value.place is not None


def test_an_oversized_value_has_a_place():
    with pytest.raises(OutputLimit) as limit:
        value_of("range(2000000)")
    assert str(limit.value.place) == "t.symbi:2:18"
    with pytest.raises(OutputLimit) as limit:
        value_of("9000000000000000000 + 9000000000000000000")
    assert limit.value.place is not None


def test_the_largest_values_are_of_one_order():
    assert MAX_ITEMS < MAX_WEIGHT
    assert Value("x" * MAX_TEXT_CHARS).weight < MAX_WEIGHT


class Deep(Answers):
    """An effect that needs some stack of its own, as the gate and what is behind it do."""

    begun = ended = 0

    async def tool(self, name: Value, arguments: Mapping[str, Value], span: ast.Span) -> Value:
        self.begun += 1
        await self.down(200)
        self.ended += 1
        return await super().tool(name, arguments, span)

    async def down(self, frames: int) -> None:
        if frames:
            await self.down(frames - 1)


def test_no_effect_begins_that_the_stack_could_break_off():
    functions = 'function f(n: int) -> Any { if n <= 0 { return tool("s.t"); } map([1], x => f(n - 1)) }'
    refused = 0
    for depth in range(10, 60):
        effects = Deep(1)
        try:
            value_of(f"f({depth})", effects, functions=functions)
        except StepLimit:
            refused += 1
        assert effects.begun == effects.ended
    assert 0 < refused < 50
