"""Expressions of policies in Cedar's JSON form: taken apart, written as text, evaluated one by one."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, TypeAlias

from symbi.policy.catalog import quote
from symbi.policy.decision import PolicyRequest
from symbi.policy.engine import ask
from symbi.policy.policies import Policy, PolicySet
from symbi.policy.slice import cedar_set
from symbi.types import JsonValue, PolicyId

Expression: TypeAlias = Mapping[str, Any]
Path: TypeAlias = tuple[str, ...]

MAX_VALUE_CHARS: Final = 120  # of a value that is shown beside a clause
_BINARY: Final[Mapping[str, int]] = MappingProxyType(
    {"||": 2, "&&": 3, "==": 4, "!=": 4, "<": 4, "<=": 4, ">": 4, ">=": 4, "in": 4, "+": 5, "-": 5, "*": 6}
)
"""Operators by how tightly they bind."""
_RELATION, _UNARY, _MEMBER, _ATOM = 4, 7, 8, 9
_WORDS: Final = frozenset({"true", "false", "if", "then", "else", "in", "is", "like", "has", "__cedar"})


def conjuncts(expression: Expression, *, sense: bool = True) -> Iterator[Expression]:
    """The parts of an expression that must all be true for it to be true (or, for `sense` False, to be false)."""
    (kind, inner), *_ = expression.items()
    if kind == "!":
        yield from conjuncts(inner["arg"], sense=not sense)
    elif kind == ("&&" if sense else "||"):
        yield from conjuncts(inner["left"], sense=sense)
        yield from conjuncts(inner["right"], sense=sense)
    else:
        yield expression if sense else {"!": {"arg": expression}}


def clauses(policy: Policy) -> tuple[Expression, ...]:
    """What must be true, part by part, for a policy to fire where its scope fits: `when` and `unless` alike."""
    return tuple(
        part
        for condition in policy.json["conditions"]
        for part in conjuncts(condition["body"], sense=condition["kind"] == "when")
    )


def children(expression: Expression) -> Iterator[Expression]:
    """The expressions directly within one."""
    (kind, inner), *_ = expression.items()
    if kind in {"Value", "Var"}:
        return
    if kind == "Record":
        yield from inner.values()
    elif isinstance(inner, list):
        yield from inner
    else:
        for name, part in inner.items():
            if name not in {"attr", "pattern", "entity_type"}:
                yield part["entity"] if name == "in" and "entity" in part else part


def walk(expression: Expression) -> Iterator[Expression]:
    """An expression and all within it."""
    stack = [expression]
    while stack:
        node = stack.pop()
        if "type" in node and "id" in node:  # an entity of a scope
            continue
        yield node
        stack.extend(children(node))


def path_of(expression: Expression) -> Path | None:
    """`("context", "arguments", "to")` for `context.arguments.to`; None where it is no such thing."""
    steps: list[str] = []
    while "." in expression:
        steps.append(expression["."]["attr"])
        expression = expression["."]["left"]
    variable = expression.get("Var")
    return (variable, *reversed(steps)) if variable is not None else None


def literal_of(expression: Expression) -> JsonValue:
    """A literal, also of a set or a decimal, as it stands in a context; None where it is none."""
    if "Value" in expression:
        value: JsonValue = expression["Value"]
        return value
    if "Set" in expression:
        items = [literal_of(item) for item in expression["Set"]]
        return None if None in items else items
    if "decimal" in expression and "Value" in expression["decimal"][0]:
        return {"__extn": {"fn": "decimal", "arg": expression["decimal"][0]["Value"]}}
    return None


# --- text -------------------------------------------------------------------------------------


def render(expression: Expression) -> str:
    """An expression as Cedar text, on one line."""
    return _text(expression, 0)


def _text(expression: Expression, least: int) -> str:
    text, level = _parts(expression)
    return text if level >= least else f"({text})"


def _parts(expression: Expression) -> tuple[str, int]:
    """The text, and how tightly it binds."""
    (kind, inner), *_ = expression.items()
    if kind in _BINARY:
        level = _BINARY[kind]
        left = level + 1 if level == _RELATION else level
        return f"{_text(inner['left'], left)} {kind} {_text(inner['right'], level + 1)}", level
    write = _WRITERS.get(kind)
    if write is not None:
        return write(inner)
    return _call(kind, inner), _MEMBER


def _call(kind: str, inner: Any) -> str:
    """A method, or a function of an extension: of their texts only the first argument tells them apart."""
    if isinstance(inner, list):
        if kind in {"decimal", "ip", "datetime", "duration"}:
            return f"{kind}({', '.join(map(render, inner))})"
        return f"{_text(inner[0], _MEMBER)}.{kind}({', '.join(map(render, inner[1:]))})"
    if "arg" in inner:
        return f"{_text(inner['arg'], _MEMBER)}.{kind}()"
    return f"{_text(inner['left'], _MEMBER)}.{kind}({render(inner['right'])})"


def _is(inner: Mapping[str, Any]) -> tuple[str, int]:
    within = f" in {_text(inner['in'], _RELATION + 1)}" if "in" in inner else ""
    return f"{_text(inner['left'], _RELATION + 1)} is {inner['entity_type']}{within}", _RELATION


def _value(value: Any) -> tuple[str, int]:
    if isinstance(value, str):
        return quote(value), _ATOM
    if isinstance(value, dict):
        entity = value["__entity"]
        return f"{entity['type']}::{quote(entity['id'])}", _ATOM
    return json.dumps(value), _ATOM if value is True or value is False or value >= 0 else _UNARY


def _member(inner: Mapping[str, Any]) -> tuple[str, int]:
    return member(_text(inner["left"], _MEMBER), inner["attr"]), _MEMBER


def member(left: str, name: str) -> str:
    """An attribute of what a text stands for, as Cedar text."""
    return f"{left}.{name}" if _is_word(name) else f"{left}[{quote(name)}]"


def attribute(name: str) -> str:
    """The name of an attribute as Cedar text, as it stands after `has`."""
    return name if _is_word(name) else quote(name)


def _is_word(name: str) -> bool:
    return name.isascii() and name.isidentifier() and name not in _WORDS


def _pattern(parts: Sequence[Any]) -> str:
    texts = ("*" if part == "Wildcard" else quote(part["Literal"])[1:-1].replace("*", "\\*") for part in parts)
    return f'"{"".join(texts)}"'


def _unary(sign: str) -> Callable[[Mapping[str, Any]], tuple[str, int]]:
    return lambda inner: (f"{sign}{_text(inner['arg'], _MEMBER)}", _UNARY)


_WRITERS: Final[Mapping[str, Callable[[Any], tuple[str, int]]]] = MappingProxyType(
    {
        "Value": _value,
        "Var": lambda inner: (str(inner), _ATOM),
        "!": _unary("!"),
        "neg": _unary("-"),
        ".": _member,
        "has": lambda inner: (f"{_text(inner['left'], _RELATION + 1)} has {attribute(inner['attr'])}", _RELATION),
        "like": lambda inner: (f"{_text(inner['left'], _RELATION + 1)} like {_pattern(inner['pattern'])}", _RELATION),
        "is": _is,
        "if-then-else": lambda inner: (
            f"if {render(inner['if'])} then {render(inner['then'])} else {render(inner['else'])}",
            1,
        ),
        "Set": lambda items: (f"[{', '.join(map(render, items))}]", _ATOM),
        "Record": lambda inner: (
            "{" + ", ".join(f"{attribute(name)}: {render(item)}" for name, item in inner.items()) + "}",
            _ATOM,
        ),
    }
)


# --- values -----------------------------------------------------------------------------------


def value_at(request: PolicyRequest, path: Path) -> JsonValue:
    """What a request has at a path; None where it has nothing, or where only Cedar can tell."""
    variable, *steps = path
    value: JsonValue
    match variable:
        case "context":
            value = request.context
        case "resource":
            value = dict(request.resource.attributes)
        case "principal":
            value = {name: getattr(request.principal, name, None) for name in ("owner", "trust", *steps[:1])}
        case _:
            return None
    for step in steps:
        value = value.get(step) if isinstance(value, Mapping) else None
    return value if steps else None


def shown(value: JsonValue) -> str:
    """A value of a request for people: bounded JSON, decimals as they are written; `absent` where there is none."""
    if value is None:
        return "absent"
    if isinstance(value, Mapping):
        extension = value.get("__extn")
        if isinstance(extension, Mapping) and isinstance(extension.get("fn"), str):
            return f"{extension['fn']}({quote(str(extension.get('arg')))})"
    text = json.dumps(value, ensure_ascii=False, default=list)
    return text if len(text) <= MAX_VALUE_CHARS else f"{text[:MAX_VALUE_CHARS]}…"


def values_in(expression: Expression, request: PolicyRequest) -> tuple[tuple[str, str], ...]:
    """What the attributes that an expression reads are in a request: (path as text, value)."""
    found: dict[str, str] = {}
    for node in walk(expression):
        target = node
        if "has" in node:
            target = {".": {"left": node["has"]["left"], "attr": node["has"]["attr"]}}
        path = path_of(target)
        if path is not None and len(path) > 1:
            found[render(target)] = shown(value_at(request, path))
        elif "in" in node and node["in"]["left"].get("Var") == "principal":
            found["principal.groups"] = shown(sorted(request.principal.groups))
    longest = {text for text in found if not any(other.startswith((f"{text}.", f"{text}[")) for other in found)}
    return tuple((text, value) for text, value in sorted(found.items()) if text in longest)


# --- evaluation -------------------------------------------------------------------------------


def evaluate(policies: PolicySet, request: PolicyRequest, expressions: Sequence[Expression]) -> list[bool | None]:
    """Whether each expression, by itself, is true of a request; None where it cannot be evaluated.

    A part of a condition may need the parts before it, as `context.x == 1` after `context has x`.
    """
    everybody = {"op": "All"}
    asked = {
        PolicyId(str(index)): {
            "effect": "permit",
            "principal": everybody,
            "action": everybody,
            "resource": everybody,
            "conditions": [{"kind": "when", "body": expression}],
            "annotations": {},
        }
        for index, expression in enumerate(expressions)
    }
    try:
        result = ask(policies, cedar_set(asked), request)
    except ValueError:  # the request fits no schema: nothing can be said of it
        return [None] * len(expressions)
    if result.decision.name == "NoDecision":
        return [None] * len(expressions)
    wrong = {name for name in asked for error in result.diagnostics.errors if f"policy `{name}`" in error}
    true = set(result.diagnostics.reasons)
    return [None if name in wrong else name in true for name in asked]


@dataclass(frozen=True, slots=True)
class Clause:
    """One part of a policy's condition on one request.

    Attributes:
        expression: In Cedar's JSON form.
        text: As Cedar text.
        holds: Whether it is true; None where it cannot be evaluated by itself.
        values: What it reads: (path, value) as texts.
    """

    expression: Expression
    text: str
    holds: bool | None
    values: tuple[tuple[str, str], ...]


def states(policies: PolicySet, request: PolicyRequest, chosen: Sequence[Policy]) -> dict[PolicyId, tuple[Clause, ...]]:
    """The clauses of some policies, evaluated on a request."""
    parts = {policy.id: clauses(policy) for policy in chosen}
    results = iter(evaluate(policies, request, [part for found in parts.values() for part in found]))
    return {
        name: tuple(Clause(part, render(part), next(results), values_in(part, request)) for part in found)
        for name, found in parts.items()
    }
