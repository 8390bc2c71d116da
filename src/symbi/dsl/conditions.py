"""`require` and `audit` rules: the conditions that they put on permits.

| written | what it asks for | on permits of |
|---|---|---|
| `approval(user)`, `approval: "ops"` | people agree first: whoever is registered by that name, as a person or group, or else anybody who is | every action |
| `redact("body")`, `redact: ["body", "cc"]` | these arguments are replaced by `[redacted]` | tools |
| `cap("amount", 500)`, `cap: { amount: 500 }` | a larger number is lowered to the bound | tools |
| `tier("gvisor")`, `tier: "gvisor"` | code runs in this sandbox at least | code |
| `timeout(30s)`, `timeout: 30s` | no more time than this | tools, code |
| `record("digest")`, `record: "digest"` | how arguments stand in the trail: `full`, `redacted`, `digest` | every action |
| `signature_verification`, `signature_verification: true` | tools whose signature holds, and no others | (a prohibition) |

A record or a list asks for several at once. Of `audit`, `all_operations` and rules about single operations ask for what
always happens: every decision and every outcome stands in the trail. `include_input: true` is `record: "full"`,
`include_input: false` is `record: "digest"`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from symbi.dsl import ast
from symbi.dsl.findings import Findings
from symbi.dsl.names import path_of
from symbi.dsl.settings import sandbox_tier, seconds_of
from symbi.errors import InputError, did_you_mean
from symbi.policy.decision import ConditionKind, PolicyCondition
from symbi.policy.obligations import RECORD_RANK, combine
from symbi.types import PolicyId, SecurityTier

VERIFIED: Final = "signature_verification"
"""The requirement that is a prohibition of its own rather than a condition."""

LATER_REQUIREMENTS: Final = ("rate_limiting",)
"""Requirements of the language that nothing enforces yet."""

LATER_AUDIT: Final = ("log_level", "include_output", "retention_days", "compliance_tags")
"""Settings of `audit` that nothing carries out yet."""

APPLIES_TO: Final[Mapping[ConditionKind, frozenset[str]]] = MappingProxyType(
    {
        ConditionKind.REDACT: frozenset({"InvokeTool"}),
        ConditionKind.CAP: frozenset({"InvokeTool"}),
        ConditionKind.TIER: frozenset({"ExecuteCode"}),
        ConditionKind.TIMEOUT: frozenset({"InvokeTool", "ExecuteCode"}),
    }
)
"""Actions on which a condition means something; every action where the table says nothing."""


@dataclass(frozen=True, slots=True)
class Requirement:
    """One thing that a rule asks for.

    Attributes:
        kind: The condition; None for `signature_verification`.
        value: As the annotation writes it.
        span: Where it is asked for.
        arguments: Names of the tool arguments that it touches.
    """

    kind: ConditionKind | None
    value: str
    span: ast.Span
    arguments: tuple[str, ...] = ()


def read_require(subject: ast.Expr, findings: Findings) -> list[Requirement]:
    """What stands after `require:`; empty after noting an error."""
    match subject:
        case ast.Array(items=items) if items:
            return [found for item in items for found in read_require(item, findings)]
        case ast.Record(fields=fields, type=None) if fields:
            return [
                found
                for field in fields
                for found in _requirement(field.key, _several(field.value), field.span, findings)
            ]
        case ast.Call(callee=ast.Name(id=key), arguments=arguments) if all(item.name is None for item in arguments):
            return _requirement(key, [item.value for item in arguments], subject.span, findings)
        case ast.String(value=key) | ast.Name(id=key):
            return _requirement(key, [], subject.span, findings)
        case _:
            hint = f"write `approval(user)`, or another of {_known()}; a condition stands after `if`"
            findings.error("require", "this is nothing that can be required", subject.span, hint)
            return []


def read_audit(subject: ast.Record, findings: Findings) -> list[Requirement]:
    """What `audit: { … }` asks for."""
    found: list[Requirement] = []
    for field in subject.fields:
        match field.key, field.value:
            case "include_input", ast.Boolean(value=wanted):
                found.append(Requirement(ConditionKind.RECORD, "full" if wanted else "digest", field.span))
            case "include_input", other:
                findings.error("audit", "`include_input` is true or false", other.span)
            case "record", value:
                found += _requirement("record", [value], field.span, findings)
            case key, _ if key in LATER_AUDIT:
                findings.later(key, field.span, "remove it: nothing would carry it out")
            case key, _:
                known = ("include_input", "record", *LATER_AUDIT)
                hint = did_you_mean(key, known) or "known are `include_input` and `record`"
                findings.error("audit", f"unknown audit setting `{key}`", field.span, hint)
    return found


def _requirement(key: str, values: list[ast.Expr], span: ast.Span, findings: Findings) -> list[Requirement]:
    if key in LATER_REQUIREMENTS:
        findings.later(key, span, "remove it: nothing would enforce it")
        return []
    if key not in _READERS:
        hint = did_you_mean(key, (*_READERS, *LATER_REQUIREMENTS)) or f"known are {_known()}"
        findings.error("require", f"unknown requirement `{key}`", span, hint)
        return []
    reader, form = _READERS[key]
    made = reader(values, span)
    if made is None:
        findings.error("require", f"`{key}` cannot be read", span, f"write `{form}`")
        return []
    if made.kind is not None:
        try:
            combine([PolicyCondition(made.kind, made.value, PolicyId(""))])
        except InputError as error:
            findings.error("require", error.message, span, error.hint or "")
            return []
    return [made]


def _several(value: ast.Expr) -> list[ast.Expr]:
    return list(value.items) if isinstance(value, ast.Array) else [value]


def _known() -> str:
    return ", ".join(f"`{key}`" for key in _READERS)


def _word(value: ast.Expr) -> str | None:
    if isinstance(value, ast.String):
        return value.value
    path = path_of(value)
    return ".".join(path) if path else None


def _approval(values: list[ast.Expr], span: ast.Span) -> Requirement | None:
    match values:
        case [ast.String(value=who) | ast.Name(id=who)]:
            return Requirement(ConditionKind.APPROVAL, who, span)
        case _:
            return None


def _redact(values: list[ast.Expr], span: ast.Span) -> Requirement | None:
    words = [_word(value) for value in values]
    paths = [word.removeprefix("arguments.") for word in words if word]
    if not paths or len(paths) != len(values):
        return None
    value = ", ".join(f"arguments.{path}" for path in paths)
    return Requirement(ConditionKind.REDACT, value, span, tuple(path.partition(".")[0] for path in paths))


def _cap(values: list[ast.Expr], span: ast.Span) -> Requirement | None:
    match values:
        case [ast.Record(fields=fields, type=None)] if fields:
            bounds = [(field.key, field.value) for field in fields]
        case [name, bound] if word := _word(name):
            bounds = [(word, bound)]
        case _:
            return None
    parts, names = [], []
    for key, limit in bounds:
        if not isinstance(limit, ast.Number):
            return None
        path = key.removeprefix("arguments.")
        names.append(path.partition(".")[0])
        parts.append(f"arguments.{path}={limit.text.replace('_', '') or limit.value}")
    return Requirement(ConditionKind.CAP, ", ".join(parts), span, tuple(names))


def _tier(values: list[ast.Expr], span: ast.Span) -> Requirement | None:
    match values:
        case [ast.String(value=text) | ast.Name(id=text)]:
            tier = sandbox_tier(text)
            # the interpreter stands outside the order of tiers: nothing can be raised to it
            return (
                None if tier in {None, SecurityTier.INTERPRETER} else Requirement(ConditionKind.TIER, str(tier), span)
            )
        case _:
            return None


def _timeout(values: list[ast.Expr], span: ast.Span) -> Requirement | None:
    seconds = seconds_of(values[0]) if len(values) == 1 else None
    return None if seconds is None else Requirement(ConditionKind.TIMEOUT, f"{round(seconds * 1000)}ms", span)


def _record(values: list[ast.Expr], span: ast.Span) -> Requirement | None:
    match values:
        case [ast.String(value=form) | ast.Name(id=form)] if form in RECORD_RANK:
            return Requirement(ConditionKind.RECORD, form, span)
        case _:
            return None


def _verified(values: list[ast.Expr], span: ast.Span) -> Requirement | None:
    match values:
        case [] | [ast.Boolean(value=True)]:
            return Requirement(None, "", span)
        case _:
            return None


_READERS: Final[Mapping[str, tuple[Callable[[list[ast.Expr], ast.Span], Requirement | None], str]]] = MappingProxyType(
    {
        "approval": (_approval, "approval(user)"),
        "redact": (_redact, 'redact("body")'),
        "cap": (_cap, 'cap("amount", 500)'),
        "tier": (_tier, 'tier("gvisor")'),
        "timeout": (_timeout, "timeout(30s)"),
        "record": (_record, 'record("digest")'),
        VERIFIED: (_verified, "signature_verification: true"),
    }
)
