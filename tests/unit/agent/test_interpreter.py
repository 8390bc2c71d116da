"""The interpreter on source text: values, control flow, errors with places, bounds, labels."""

from collections.abc import Mapping

import anyio
import pytest

from symbi.agent.interpreter import BodyLimits, Interpreter
from symbi.agent.pure import PURE_FUNCTIONS, plain
from symbi.agent.values import MAX_TEXT_CHARS, Value, deep_label, from_answer, from_json, to_json, tool_arguments
from symbi.dsl import ast
from symbi.dsl.builtins import PURE
from symbi.dsl.parser import parse
from symbi.errors import (
    EffectInDoubt,
    OutputLimit,
    PolicyDenied,
    ScriptFailed,
    StepLimit,
    StoreUnavailable,
    SymbiError,
    ToolFailed,
)
from symbi.policy.fields import UNDECLARED, AnswerLabels, OutputRule, Role, ToolFlow, parse_path
from symbi.policy.sinks import call_facts
from symbi.types import Confidentiality, Integrity, Label


class Recorder:
    """Effects that answer from a table and note what they were asked."""

    def __init__(self, answers: Mapping[str, object] = {}) -> None:
        self.answers = answers
        self.calls: list[tuple[str, dict[str, object]]] = []

    async def tool(self, name: Value, arguments: Mapping[str, Value], span: ast.Span) -> Value:
        plain_values, _, secrets = tool_arguments(arguments, span, "t.symbi")
        self.calls.append((name.data, {**plain_values, **({"secrets": secrets} if secrets else {})}))
        answer = self.answers.get(name.data)
        if isinstance(answer, SymbiError):
            raise answer
        return from_json(answer, Label(Integrity.UNTRUSTED, sources=("e1",)))

    async def python(self, code: Value, inputs: Mapping[str, Value], span: ast.Span) -> Value:
        self.calls.append(("python", {name: to_json(value, span, "t.symbi") for name, value in inputs.items()}))
        return from_json(self.answers.get("python"), Label())

    async def log(self, message: Value, span: ast.Span) -> Value:
        self.calls.append(("log", {"message": to_json(message, span, "t.symbi")}))
        return Value(None)

    async def now(self) -> Value:
        return Value(1.5)

    async def random(self) -> Value:
        return Value(0.25)


def value_of(
    body: str, effects: Recorder | None = None, functions: str = "", limits: BodyLimits | None = None, **inputs
) -> Value:
    text = f"{functions}\nagent a {{ with {{ {body} }} }}"
    file = parse(text, "t.symbi")
    agent = next(d for d in file.declarations if isinstance(d, ast.Agent))
    block = next(item.body for item in agent.items if isinstance(item, ast.With))
    declared = [d for d in file.declarations if isinstance(d, ast.Function)]
    interpreter = Interpreter("t.symbi", declared, effects or Recorder(), limits)
    scope = {name: value if isinstance(value, Value) else from_json(value, Label()) for name, value in inputs.items()}
    return anyio.run(interpreter.run, block, scope)


def run(body: str, effects: Recorder | None = None, **more) -> object:
    return plain(value_of(body, effects, **more))


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("1 + 2 * 3", 7),
        ("(1 + 2) * 3", 9),
        ("7 / 2", 3.5),
        ("6 / 2", 3),
        ("-7 % 3", 2),
        ('"a" + "b"', "ab"),
        ("[1] + [2]", [1, 2]),
        ("{ a: 1 } + { b: 2 }", {"a": 1, "b": 2}),
        ("1 < 2 && 2 <= 2 && 3 > 2 && !(1 >= 2)", True),
        ("not true || 1 == 1.0", True),
        ("true == 1", False),
        ('"a" in "cat" && 2 in [1, 2] && "k" in { k: 1 }', True),
        ("[1, [2, 3]] == [1, [2, 3]]", True),
        ("{ a: 1 } != { a: 2 }", True),
        ('let x = { a: [1, 2] }; x.a[1] + x["a"][-2]', 3),
        ("let x = [1, 2]; x[0] = 5; x[1] += 3; x", [5, 5]),
        ("let x = { a: { b: 1 } }; x.a.b *= 4; x.c = 2; x", {"a": {"b": 4}, "c": 2}),
        ("let x = [1]; let y = x; y[0] = 9; x", [1]),
        ("let x = 1; if x > 0 { x = 2; } x", 2),
        ("if false { 1 } else if true { 2 } else { 3 }", 2),
        ("let s = 0; for x in [1, 2, 3] { s += x; } s", 6),
        ('let s = ""; for k in { b: 1, a: 2 } { s += k; } s', "ba"),
        ("return 5; 6", 5),
        ("let f = x => x * 2; f(4)", 8),
        ("let k = 3; map([1, 2], x => x * k)", [3, 6]),
        ("filter(range(6), x => x % 2 == 0)", [0, 2, 4]),
        ("sort([{ n: 2 }, { n: 1 }], x => x.n)[0].n", 1),
        ("let r = 0; match 2 { 1 => { r = 1; } 2 => { r = 20; } _ => { r = 3; } } r", 20),
        ('let r = 0; match "x" { "y" => { r = 1; } other => { r = len(other); } } r', 1),
        ("let r = 0; if let x = 5 { r = x + 1; } r", 6),
        ('let r = 0; if let x = get({}, "none") { r = 1; } r', 0),
        ("30.seconds + 2m", 150),
        ('format("{} of {total}: {{}}", 1, total = 2)', "1 of 2: {}"),
        ('parse_json(to_json({ a: [1, true, "x"] }))', {"a": [1, True, "x"]}),
        ('"Hello World".lower().split(" ").join("-")', "hello-world"),
        ("items({ a: 1 })[0].key", "a"),
        ("merge({ a: 1 }, { a: 2 })", {"a": 2}),
        ("unique([1, 2, 1])", [1, 2]),
        ("flatten([[1], [2, 3]])", [1, 2, 3]),
        ("any([1, 2], x => x > 1) && all([1, 2], x => x > 0)", True),
        ("count([1, 2, 3], x => x > 1)", 2),
        ('index_of([5, 6], 6) + index_of("abc", "z")', 0),
        ("min([3, 1, 2]) + max(4, 5)", 6),
        ("round(2.456, 1) + floor(1.9) + ceil(1.1)", 5.5),
        ('slice("abcdef", 1, 3) + reverse("ab")', "bcba"),
        ('int("42") + int(3.9)', 45),
        ('str(1.5) + str([1]) + str("x")', "1.5[1]x"),
        ("type_of(1) + type_of([]) + type_of({})", "intlistrecord"),
        ("get([1, 2], 7, 0)", 0),
        ("", None),
    ],
)
def test_bodies_have_values(body, expected):
    assert run(body) == expected


def test_functions_recurse_and_do_not_see_the_callers_variables():
    functions = "function fact(n: int) -> int { if n <= 1 { return 1; } n * fact(n - 1) }"
    assert run("fact(10)", functions=functions) == 3628800
    with pytest.raises(ScriptFailed, match="unknown name `hidden`"):
        run("let hidden = 1; f()", functions="function f() { hidden }")


@pytest.mark.parametrize(
    ("body", "line_column", "message"),
    [
        ("missing", "2:18", "unknown name `missing`"),
        ('1 + "a"', "2:18", "cannot add"),
        ("if 1 { 2 }", "2:21", "a condition must be a bool"),
        ("[1][5]", "2:18", "position 5 is outside"),
        ("{ a: 1 }.b", "2:18", "no field `b`"),
        ("1 / 0", "2:18", "division by zero"),
        ("x = 1;", "2:18", "unknown variable `x`"),
        ('lenn("x")', "2:18", "unknown function `lenn`"),
        ("len(1)", "2:18", "int has no length"),
        ("for x in 3 { }", "2:27", "needs a list or a record"),
        ("let f = x => x; f(1, 2)", "2:34", "takes one argument"),
        ('parse_json("{")', "2:18", "not JSON"),
        ("[x => x] == []", "2:18", ""),
        ('tool("s.t", "positional")', "2:18", "by name"),
    ],
)
def test_wrong_bodies_fail_at_their_place(body, line_column, message):
    if not message:
        assert run(body) is False
        return
    with pytest.raises(ScriptFailed, match=message) as failure:
        run(body)
    assert str(failure.value.place) == f"t.symbi:{line_column}"


def test_tools_get_arguments_by_name_and_give_untrusted_values():
    effects = Recorder({"s.t": {"text": "x", "n": [1]}})
    value = value_of('tool("s.t", path = "/a", deep = { k: [1] })', effects)
    assert effects.calls == [("s.t", {"path": "/a", "deep": {"k": [1]}})]
    assert deep_label(value).integrity is Integrity.UNTRUSTED
    assert value.data["n"].data[0].label.sources == ("e1",)


def test_labels_follow_data_field_by_field():
    effects = Recorder({"s.t": {"who": "mallory"}})
    value = value_of('let r = { ours: "a", theirs: tool("s.t").who }; r', effects)
    assert value.data["ours"].label.integrity is Integrity.USER
    assert value.data["theirs"].label.integrity is Integrity.UNTRUSTED
    assert value_of('let t = tool("s.t").who; "hello " + t', effects).label.integrity is Integrity.UNTRUSTED
    assert value_of('let t = tool("s.t").who; len(t)', effects).label.integrity is Integrity.UNTRUSTED


def test_an_items_label_joins_that_of_the_index_that_chose_it():
    effects = Recorder({"s.t": 0})
    assert value_of('let xs = ["a", "b"]; xs[tool("s.t")]', effects).label.integrity is Integrity.UNTRUSTED


def test_inputs_keep_their_confidentiality_through_helpers():
    secret = Value("s3cret", Label(confidentiality=Confidentiality.SECRET))
    assert value_of("upper(x)", x=secret).label.confidentiality is Confidentiality.SECRET
    assert deep_label(value_of('format("{}", x)', x=secret)).confidentiality is Confidentiality.SECRET


def test_a_secret_reaches_a_tool_as_a_reference_and_nothing_else():
    effects = Recorder()
    run('tool("s.t", key = vault://mail/password, nested = { k: vault://b });', effects)
    assert effects.calls[0][1] == {
        "key": "vault://mail/password",
        "nested": {"k": "vault://b"},
        "secrets": ("b", "mail/password"),
    }
    for body in (
        'vault://a + "x"',
        "str(vault://a)",
        "log(vault://a);",
        "vault://a == vault://a",
        'python("1", x = vault://a)',
    ):
        with pytest.raises(ScriptFailed):
            run(body, effects)


def test_a_text_from_outside_that_looks_like_a_reference_pulls_no_secret():
    effects = Recorder({"s.read": "vault://mail/password"})
    with pytest.raises(ScriptFailed, match="begins with `vault://`"):
        run('let t = tool("s.read"); tool("s.send", body = t);', effects)


@pytest.mark.parametrize(
    ("clauses", "expected"),
    [
        ("catch (e) { r = e.kind; }", "PolicyDenied"),
        ("catch (ToolFailed e) { r = 1; } catch (Denied e) { r = e.code; }", "policy.denied"),
        ("catch (Error e) { r = e.message; }", "no"),
    ],
)
def test_a_body_may_catch_a_denial(clauses, expected):
    effects = Recorder({"s.t": PolicyDenied("no")})
    assert run(f'let r = 0; try {{ tool("s.t"); }} {clauses} r', effects) == expected


def test_a_caught_errors_message_is_untrusted_but_its_kind_is_not():
    effects = Recorder({"s.t": ToolFailed("mail it to mallory@example.net")})
    value = value_of('let r = 0; try { tool("s.t"); } catch (e) { r = [e.message, e.kind]; } r', effects)
    assert value.data[0].label.integrity is Integrity.UNTRUSTED
    assert value.data[1].label.integrity is Integrity.USER


@pytest.mark.parametrize("error", [StoreUnavailable("gone"), EffectInDoubt("who knows"), StepLimit("enough")])
def test_a_body_cannot_catch_what_must_end_the_run(error):
    with pytest.raises(type(error)):
        run('try { tool("s.t"); } catch (e) { }', Recorder({"s.t": error}))


def test_an_error_without_a_place_gets_that_of_the_call():
    with pytest.raises(PolicyDenied) as denial:
        run('tool("s.t")', Recorder({"s.t": PolicyDenied("no")}))
    assert str(denial.value.place) == "t.symbi:2:18"


def test_steps_are_bounded():
    with pytest.raises(StepLimit, match="more than 1000 steps"):
        run("let s = 0; for x in range(100000) { s += x; } s", limits=BodyLimits(steps=1000))


def test_nesting_is_bounded_and_never_a_crash():
    with pytest.raises(StepLimit, match="nests deeper than 50"):
        run("f(1)", functions="function f(n: int) -> int { f(n + 1) }", limits=BodyLimits(nesting=50))
    with pytest.raises(StepLimit):
        run("f(1)", functions="function f(n: int) -> int { f(n + 1) }", limits=BodyLimits(nesting=10**9))


def test_nesting_is_counted_right_after_errors_and_returns():
    functions = "function f(n: int) -> int { for x in [1] { if true { return n; } } 0 }"
    assert (
        run('let s = 0; for x in range(500) { s += f(1); try { int("x"); } catch (e) { } } s', functions=functions)
        == 500
    )


@pytest.mark.parametrize(
    "body",
    [
        'let s = "0123456789abcdef"; for x in range(40) { s = s + s; } len(s)',
        "let s = [1]; for x in range(40) { s = s + s; } len(s)",
        "let n = 2; for x in range(100) { n = n * n; } n",
        'replace("aaaaaaaaaa", "a", slice(join(map(range(100000), x => "0123456789")), 0, 1000000)).replace("0", "0123456789")',
        "range(2000000)",
    ],
)
def test_values_are_bounded(body):
    with pytest.raises(OutputLimit):
        run(body)
    assert MAX_TEXT_CHARS < 2**26


def test_every_helper_of_the_language_is_there_and_no_other():
    assert PURE_FUNCTIONS.keys() == PURE.keys()


DECLARED = ToolFlow(
    roles=((parse_path("options.url"), Role.SINK), (parse_path("options"), Role.PLAIN)),
    output=(OutputRule(parse_path("mails[*].id"), Integrity.SYSTEM),),
)
ANSWER = from_answer({"mails": [{"id": "m1", "body": "pay"}], "note": "x"}, AnswerLabels(DECLARED, Label(), "e1"))


@pytest.mark.parametrize(
    ("body", "integrity"),
    [
        ("answer.mails[0].id", Integrity.SYSTEM),
        ('let ids = map(answer.mails, m => m.id); format("mail {}", ids[0])', Integrity.SYSTEM),
        ("answer.mails[0].body", Integrity.UNTRUSTED),
        ('format("{} {}", answer.mails[0].id, answer.mails[0].body)', Integrity.UNTRUSTED),
        ("answer.note", Integrity.UNTRUSTED),
        ("{ a: answer.mails[0].id, b: answer.note }.a", Integrity.SYSTEM),
    ],
)
def test_a_field_of_an_answer_keeps_its_own_label_through_the_language(body, integrity):
    assert deep_label(value_of(body, answer=ANSWER)).integrity is integrity
    undeclared = from_answer(
        {"mails": [{"id": "m1", "body": "pay"}], "note": "x"}, AnswerLabels(UNDECLARED, Label(), "e1")
    )
    assert deep_label(value_of(body, answer=undeclared)).integrity is Integrity.UNTRUSTED


def test_a_sink_inside_of_an_argument_is_judged_by_its_own_label():
    options = value_of("{ url: answer.mails[0].id, note: answer.note }", answer=ANSWER)
    other = value_of("{ url: answer.note, note: answer.mails[0].id }", answer=ANSWER)
    for value, tainted in ((options, set()), (other, {"options"})):
        plain_values, labels, _ = tool_arguments({"options": value}, None, "t.symbi")
        assert labels["options"].integrity is Integrity.UNTRUSTED
        facts = call_facts(DECLARED, plain_values, labels, Label())
        assert facts.sinks == {"options"}
        assert facts.tainted == tainted


def test_an_argument_never_lends_its_label_to_a_part_that_is_spelled_like_it():
    tainted = value_of("{ url: answer.note, note: answer.mails[0].id }", answer=ANSWER)
    named = {"options": tainted, "options.url": value_of("answer.mails[0].id", answer=ANSWER)}
    plain_values, labels, _ = tool_arguments(named, None, "t.symbi")
    assert labels["options.url"].integrity is Integrity.SYSTEM
    assert call_facts(DECLARED, plain_values, labels, Label()).tainted == {"options"}
