"""Guards of policy rules in Cedar.

A guard reads what may be absent: a tool's optional argument, an attribute that only some resources have. It is
therefore worth true, false or unknown, by the usual three-valued logic (`unknown && false` is false, `not unknown` is
unknown), and compiled twice:

- *certainly*: Cedar that holds where the guard is true. An `allow` asks for this one, so what cannot be evaluated
  allows nothing.
- *possibly*: Cedar that holds where the guard is true or unknown. A `deny`, and the `if` of a `require`, asks for this
  one, so what cannot be evaluated is denied, or needs the condition. A deny that is to hold only where an argument is
  given says so: `deny: call("mail.send") if "cc" in arguments && cc == "x"`.

Types are those of Cedar. An argument takes the type of what it is compared with: `5` is a whole number (JSON Schema
`integer`), `5.0` a decimal (JSON Schema `number`). Where that does not fit the tool's schema, validation of the policy
set fails, and nothing is allowed. `.contains("x")` looks into a text; `"x" in argument` looks into a list. A duration
is compared with `timeout` only, for an argument has no unit. A counter (`history.NAME`) is a whole number, or true or
false; which it is, and whether there is one, is known where the set is loaded, and a guard that is wrong about it fails
there. `risk` is a number where an agent is created and a word where a tool is called: what it is compared with says
which of the two is meant.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from symbi.dsl import ast
from symbi.dsl.findings import Findings
from symbi.dsl.names import (
    Path,
    Target,
    Tools,
    argument_of,
    arguments_of,
    cedar_pattern,
    cedar_text,
    entity,
    explain,
    path_of,
    present,
    resolve,
)
from symbi.dsl.vocabulary import ARGUMENT_SETS, VARYING, Kind
from symbi.errors import did_you_mean

_COMPARISONS = ("==", "!=", "<", "<=", ">", ">=")
_DECIMAL_METHODS = {"<": "lessThan", "<=": "lessThanOrEqual", ">": "greaterThan", ">=": "greaterThanOrEqual"}
_ARGUMENTS = (("arguments",), ("context", "arguments"))
_NAMING = frozenset(path for name in ARGUMENT_SETS for path in ((name,), ("context", name)))
_EMPTY: Final = "is_empty"
_TEXT_TESTS = ("contains", "starts_with", "ends_with")
_MAX_LONG: Final = 2**63 - 1  # bounds Cedar's integers
_DECIMAL_PLACES: Final = 4  # bounds the fraction of Cedar's decimals
_MAX_DECIMAL: Final = 922_337_203_685_477  # bounds the whole part of Cedar's decimals
_ORDERED = (Kind.WHOLE, Kind.DECIMAL, Kind.MILLIS, Kind.COUNTER, Kind.ARGUMENT)
_OF_COUNTERS = (Kind.COUNTER, Kind.WHOLE, Kind.TRUTH)


@dataclass(frozen=True, slots=True)
class _Term:
    """A side of a comparison; `value` is the literal it is, or None where it reads something."""

    cedar: str
    kind: Kind
    span: ast.Span
    needs: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    value: str | bool | int | float | None = None

    @property
    def literal(self) -> bool:
        return self.value is not None


class _Wrong(Exception):
    """A guard that cannot be compiled; carries what `Findings.error` takes."""

    def __init__(self, code: str, message: str, span: ast.Span, hint: str = "") -> None:
        super().__init__(message)
        self.finding = (code, message, span, hint)


@dataclass(frozen=True, slots=True)
class GuardCompiler:
    """Compiles guards for one agent; findings go to the list it was made with.

    Attributes:
        findings: Where errors are noted.
        tools: The tools there are.
        parameters: Names of the agent's inputs, for hints.
    """

    findings: Findings
    tools: Tools = None
    parameters: frozenset[str] = frozenset()

    def certainly(self, guard: ast.Expr, target: Target) -> str:
        """Cedar that holds where the guard is true; `false` after noting an error."""
        return self._guard(guard, target, certain=True)

    def possibly(self, guard: ast.Expr, target: Target) -> str:
        """Cedar that holds where the guard is true or cannot be evaluated; `true` after noting an error."""
        return self._guard(guard, target, certain=False)

    def _guard(self, guard: ast.Expr, target: Target, *, certain: bool) -> str:
        try:
            return _condition(guard, target, self, certain=certain)
        except _Wrong as wrong:
            self.findings.error(*wrong.finding)
            return "false" if certain else "true"


def paths(guard: ast.Expr) -> tuple[Path, ...]:
    """Every path that a guard reads, in order."""
    return tuple(path for node in _nodes(guard) if (path := path_of(node)) is not None)


def _nodes(guard: ast.Expr) -> Iterator[ast.Expr]:
    """The parts of a guard, in order; a path is one."""
    pending = [guard]
    while pending:
        node = pending.pop()
        yield node
        match node:
            case _ if path_of(node) is not None:
                continue
            case ast.Unary(operand=operand):
                pending.append(operand)
            case ast.Binary(left=left, right=right):
                pending += [right, left]
            case ast.Array(items=items):
                pending += reversed(items)
            case ast.Call(callee=ast.Member(object=inner), arguments=arguments):
                pending += [*(argument.value for argument in reversed(arguments)), inner]
            case ast.Call(arguments=arguments):
                pending += (argument.value for argument in reversed(arguments))
            case _:
                pass


def bears(guard: ast.Expr | None, target: Target) -> bool:
    """Whether an action has everything that a guard reads; a name of another type elsewhere, as it is compared."""
    return guard is None or (
        all(
            resolve(path, target) is not None or (path in _ARGUMENTS and target.action == "InvokeTool")
            for path in paths(guard)
        )
        and all(_as_compared(node, target) for node in _nodes(guard))
    )


def _as_compared(node: ast.Expr, target: Target) -> bool:
    """Whether what a comparison reads is, on this action, of the type that it is compared with."""
    pairs: list[tuple[ast.Expr, ast.Expr]] = []
    match node:
        case ast.Binary(op="in", left=left, right=ast.Array(items=items)):
            pairs = [(left, item) for item in items]
        case ast.Call(callee=ast.Member(object=ast.Array(items=items)), arguments=(ast.Argument(value=left),)):
            pairs = [(left, item) for item in items]
        case ast.Binary(op=op, left=left, right=right) if op in _COMPARISONS:
            pairs = [(left, right), (right, left)]
        case _:
            pass
    for reading, constant in pairs:
        path = path_of(reading)
        found = None if path is None or path[-1] not in VARYING else resolve(path, target)
        if found is not None and isinstance(constant, ast.String) != (found.kind is Kind.TEXT):
            return False
    return True


def _condition(node: ast.Expr, target: Target, compiler: GuardCompiler, *, certain: bool) -> str:
    match node:
        case ast.Unary(op="!" | "not", operand=operand):
            text = _condition(operand, target, compiler, certain=not certain)
            return f"!{text}" if text.startswith("(") else f"!({text})"  # what begins with one ends with its partner
        case ast.Binary(op="&&" | "||" as op):
            # a chain as long as a file leans to the left: walk it, do not recurse into it
            parts: list[ast.Expr] = []
            left: ast.Expr = node
            while isinstance(left, ast.Binary) and left.op == op:
                parts.append(left.right)
                left = left.left
            texts = [_condition(part, target, compiler, certain=certain) for part in (left, *reversed(parts))]
            return f"({f' {op} '.join(texts)})"
        case ast.Binary(op="in", left=item, right=container):
            return _membership(container, item, target, compiler, certain=certain)
        case ast.Binary(op=op, left=left, right=right) if op in _COMPARISONS:
            sides = _term(left, target, compiler, right), _term(right, target, compiler, left)
            return _comparison(op, sides, node.span, certain=certain)
        case ast.Call(
            callee=ast.Member(object=subject, name=test), arguments=(ast.Argument(value=item, name=None),)
        ) if test in _TEXT_TESTS:
            return _test(test, subject, item, (target, compiler), certain=certain)
        case ast.Call(
            callee=ast.Name(id=test),
            arguments=(ast.Argument(value=subject, name=None), ast.Argument(value=item, name=None)),
        ) if test in _TEXT_TESTS:
            return _test(test, subject, item, (target, compiler), certain=certain)
        case ast.Call(callee=ast.Member(object=subject, name=test), arguments=()) if test == _EMPTY:
            return _emptiness(_term(subject, target, compiler), certain=certain)
        case ast.Boolean(value=value):
            return "true" if value else "false"
        case ast.Call():
            known = ", ".join([*(f"`.{test}(x)`" for test in _TEXT_TESTS), f"`.{_EMPTY}()`"])
            raise _Wrong("guard", "a guard cannot call this", node.span, f"it can ask {known}")
    term = _term(node, target, compiler)
    if term.kind not in {Kind.TRUTH, Kind.COUNTER, Kind.ARGUMENT} or term.literal:
        hint = f"write `!NAME.{_EMPTY}()`, or `.contains(x)`" if term.kind is Kind.SET else "compare it with =="
        raise _Wrong("guard", f"a guard is true or false, and this is {term.kind}", node.span, hint)
    return _atom(term.cedar, term.needs, certain=certain)


def _atom(text: str, needs: tuple[str, ...], *, certain: bool) -> str:
    if not needs:
        return text
    there = " && ".join(dict.fromkeys(needs))
    return f"({there} && {text})" if certain else f"(if {there} then {text} else true)"


def _emptiness(holder: _Term, *, certain: bool) -> str:
    if holder.literal or holder.kind is not Kind.SET:
        raise _Wrong("guard", f"`.{_EMPTY}()` asks a set, and this is {_described(holder)}", holder.span)
    return _atom(f"{holder.cedar}.isEmpty()", holder.needs, certain=certain)


def _test(test: str, subject: ast.Expr, item: ast.Expr, scope: tuple[Target, GuardCompiler], *, certain: bool) -> str:
    target, compiler = scope
    if test == "contains" and (isinstance(subject, ast.Array) or path_of(subject) in _ARGUMENTS):
        return _membership(subject, item, target, compiler, certain=certain)
    holder = _term(subject, target, compiler)
    if test == "contains" and (holder.kind in {Kind.SET, Kind.GROUPS} or not isinstance(item, ast.String)):
        return _membership(subject, item, target, compiler, certain=certain)
    if holder.literal or holder.kind not in {Kind.TEXT, Kind.ARGUMENT}:
        raise _Wrong("guard", f"`.{test}` asks a text, and this is {_described(holder)}", holder.span)
    if not isinstance(item, ast.String):
        raise _Wrong("guard", f"`.{test}` takes a text in quotes", item.span)
    before = "" if test == "starts_with" else "*"
    after = "" if test == "ends_with" else "*"
    text = f'{holder.cedar} like "{before}{cedar_pattern(_sound(item))}{after}"'
    return _atom(text, holder.needs, certain=certain)


def _membership(container: ast.Expr, item: ast.Expr, target: Target, compiler: GuardCompiler, *, certain: bool) -> str:
    if path_of(container) in _ARGUMENTS:
        return _given(item, container.span, target, compiler)
    if isinstance(container, ast.Array):
        if not container.items:
            raise _Wrong("guard", "nothing is in an empty list", container.span)
        terms = [_term(element, target, compiler, item) for element in container.items]
        asked = _term(item, target, compiler)
        if asked.literal or not all(term.literal for term in terms):
            raise _Wrong("guard", "`in` asks whether something read is in a list of constants", item.span)
        pairs = [_unified(asked, term) for term in terms]
        text = f"[{', '.join(dict.fromkeys(right.cedar for _, right in pairs))}].contains({pairs[0][0].cedar})"
        if len({right.kind for _, right in pairs}) > 1:
            raise _Wrong("guard", "the list mixes types", container.span)
        return _atom(text, asked.needs, certain=certain)
    holder, asked = _term(container, target, compiler), _term(item, target, compiler)
    if holder.kind is Kind.GROUPS and asked.kind is Kind.TEXT and isinstance(asked.value, str):
        return f"principal in {entity('Group', asked.value)}"
    if holder.literal or holder.kind not in {Kind.SET, Kind.ARGUMENT}:
        hint = "write `.contains(…)` to look into a text" if holder.kind is Kind.TEXT else ""
        raise _Wrong("guard", f"`in` asks a list, and this is {_described(holder)}", holder.span, hint)
    if path_of(container) in _NAMING and isinstance(asked.value, str):
        _check_argument((asked.value,), asked.span, target, compiler)
    if asked.kind not in {Kind.TEXT, Kind.ARGUMENT} and (holder.kind is Kind.SET or asked.kind is not Kind.WHOLE):
        raise _Wrong("guard", f"{_described(asked)} is never in {_described(holder)}", asked.span)
    return _atom(f"{holder.cedar}.contains({asked.cedar})", (*holder.needs, *asked.needs), certain=certain)


def _given(item: ast.Expr, span: ast.Span, target: Target, compiler: GuardCompiler) -> str:
    """`"cc" in arguments`: whether an argument was given at all; that is known, also of one that policies cannot see."""
    if target.action != "InvokeTool" or not isinstance(item, ast.String):
        raise _Wrong("guard", 'write `"name" in arguments`, in a rule about tools', span)
    _check_argument((item.value,), item.span, target, compiler)
    there = " && ".join(present(("arguments", item.value))[1])
    return f"(({there}) || context.opaque.contains({cedar_text(_sound(item))}))"


def _comparison(op: str, sides: tuple[_Term, _Term], span: ast.Span, *, certain: bool) -> str:
    if sides[0].literal and sides[1].literal:
        raise _Wrong("guard", "this compares two constants", span, "name what the rule is about")
    left, right = _unified(*sides)
    needs = (*left.needs, *right.needs)
    if op in {"==", "!="}:
        return _atom(f"({left.cedar} {op} {right.cedar})", needs, certain=certain)
    for side in (left, right):
        if side.kind not in _ORDERED:
            message = f"`{op}` orders numbers, and this is {_described(side)}"
            raise _Wrong("guard", message, side.span, _values_of(side))
    if Kind.DECIMAL in {left.kind, right.kind}:
        text = f"{left.cedar}.{_DECIMAL_METHODS[op]}({right.cedar})"
    else:
        text = f"({left.cedar} {op} {right.cedar})"
    return _atom(text, needs, certain=certain)


def _unified(left: _Term, right: _Term) -> tuple[_Term, _Term]:
    """Both sides, of one type; a whole number beside a decimal attribute is one itself."""
    for mine, other in ((left, right), (right, left)):
        if mine.values and isinstance(other.value, str) and other.value not in mine.values:
            hint = did_you_mean(other.value, mine.values) or _values_of(mine)
            raise _Wrong("guard", f"this is never `{other.value}`", other.span, hint)
        if mine.kind is Kind.ARGUMENT and other.literal and other.kind is Kind.MILLIS:
            raise _Wrong("guard", "an argument has no unit", other.span, "write the number that the tool takes")
        if mine.kind in {Kind.SET, Kind.GROUPS}:
            raise _Wrong("guard", f"{_described(mine)} is asked with `in`", mine.span)
        if mine.kind is Kind.DECIMAL and not mine.literal and other.literal and other.kind is Kind.WHOLE:
            assert isinstance(other.value, int)
            text = _decimal(float(other.value), f"{other.value}.0", other.span)
            whole = _Term(text, Kind.DECIMAL, other.span, value=other.value)
            return (whole, right) if other is left else (left, whole)
    kinds = {left.kind, right.kind}
    if Kind.COUNTER in kinds and not kinds <= {*_OF_COUNTERS, Kind.ARGUMENT}:
        message = f"this compares {_described(left)} with {_described(right)}"
        raise _Wrong("guard", message, right.span, "a count is a whole number, a sum is in whole units")
    if len(kinds) > 1 and not kinds & {Kind.ARGUMENT, Kind.COUNTER}:
        message = f"this compares {_described(left)} with {_described(right)}"
        hint = "write a duration such as `30s`" if Kind.MILLIS in kinds else _values_of(left) or _values_of(right)
        raise _Wrong("guard", message, right.span, hint)
    return left, right


def _term(node: ast.Expr, target: Target, compiler: GuardCompiler, other: ast.Expr | None = None) -> _Term:
    span = node.span
    match node:
        case ast.String():
            text = _sound(node)
            return _Term(cedar_text(text), Kind.TEXT, span, value=text)
        case ast.Boolean(value=value):
            return _Term("true" if value else "false", Kind.TRUTH, span, value=value)
        case ast.Number():
            return _number(node, 1)
        case ast.Unary(op="-", operand=ast.Number() as number):
            return _number(number, -1)
        case ast.Duration() as length:
            return _Term(str(_long(length.seconds * 1000, span)), Kind.MILLIS, span, value=length.seconds)
        case ast.Name() | ast.Member() | ast.Index() if (path := path_of(node)) is not None:
            _check_word(path, span, other, target)
            found = resolve(path, target)
            if found is None:
                message = f"`{'.'.join(path)}` is not known to the action `{target.action or 'any'}`"
                raise _Wrong("unknown_name", message, span, explain(path, target, compiler.parameters))
            if (argument := argument_of(path, target)) is not None:
                _check_argument((argument,), span, target, compiler)
            return _Term(found.cedar, found.kind, span, found.needs, found.values)
        case _:
            hint = "it reads names, and compares them with texts, numbers, durations, true and false"
            raise _Wrong("guard", "a guard cannot hold this", span, hint)


def _values_of(term: _Term) -> str:
    return f"it can be {', '.join(f'`{value}`' for value in term.values)}" if term.values else ""


def _check_word(path: Path, span: ast.Span, other: ast.Expr | None, target: Target) -> None:
    """Refuse `label.integrity == untrusted`: without quotes the word would be read as a name."""
    beside = resolve(found, target) if other is not None and (found := path_of(other)) is not None else None
    if beside is not None and len(path) == 1 and path[0] in beside.values:
        raise _Wrong("guard", f"`{path[0]}` is a name here", span, f'write `"{path[0]}"`')


def _check_argument(argument: Path, span: ast.Span, target: Target, compiler: GuardCompiler) -> None:
    known = arguments_of(target.tool, compiler.tools)
    if known is not None and argument[0] not in known:
        tool = f"`{target.tool}`" if target.tool else "any tool"
        hint = did_you_mean(argument[0], known)
        if not hint and argument[0] in compiler.parameters:
            hint = "policies do not see the values of an agent's inputs"
        raise _Wrong("unknown_name", f"`{argument[0]}` is no argument of {tool}", span, hint)


def _number(node: ast.Number, sign: int) -> _Term:
    if isinstance(node.value, int):
        value = _long(sign * node.value, node.span)
        return _Term(str(value), Kind.WHOLE, node.span, value=value)
    written = node.text.replace("_", "") or str(node.value)
    text = _decimal(node.value, f"-{written}" if sign < 0 else written, node.span)
    return _Term(text, Kind.DECIMAL, node.span, value=sign * node.value)


def _decimal(value: float, written: str, span: ast.Span) -> str:
    whole, _, fraction = written.partition(".")
    if abs(value) >= _MAX_DECIMAL or len(fraction) > _DECIMAL_PLACES or "e" in written:
        raise _Wrong("guard", f"`{written}` does not fit a decimal", span, "four places after the point at most")
    return f'decimal("{whole}.{fraction or 0}")'


def _long(value: int, span: ast.Span) -> int:
    if abs(value) > _MAX_LONG:
        raise _Wrong("guard", "this number is too large for a guard", span, "64 bits hold it")
    return value


def _sound(text: ast.String) -> str:
    if any("\ud800" <= character <= "\udfff" for character in text.value):
        raise _Wrong("guard", "this text holds half of a character", text.span)
    return text.value


def _described(term: _Term) -> str:
    return str(term.kind)
