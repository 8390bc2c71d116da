"""`require` and `audit` rules: the conditions that they put on permits.

| written | what it asks for | on permits of |
|---|---|---|
| `approval(user)`, `approval: "ops"` | people agree first: whoever is registered by that name, as a person or group, or else anybody who is | every action |
| `redact("body")`, `redact: ["body", "cc"]` | these arguments are replaced by `[redacted]` | whatever has them |
| `cap("amount", 500)`, `cap: { amount: 500 }` | a larger number is lowered to the bound | whatever has it |
| `tier("gvisor")`, `tier: "gvisor"` | code runs in this sandbox at least | code, programs |
| `timeout(30s)`, `timeout: 30s` | no more time than this | tools, code, programs, models |
| `mark("untrusted")`, `mark: ["untrusted", "confidential:pii"]` | the label of what comes back is raised | whatever gives something back |
| `rate("500/minute")`, `rate_limiting: "500/minute"` | no more than this of what each `allow` permits | every action |
| `record("digest")`, `record: "digest"` | how arguments stand in the trail: `full`, `redacted`, `digest` | every action |
| `rate_limiting("500/minute")`, `rate_limiting: "500/minute"` | no more than that, for each agent and each permit | every action |
| `signature_verification`, `signature_verification: true` | tools whose signature holds, and no others | (a prohibition) |

A record or a list asks for several at once. `audit` asks for what stands in the trail and in the log:

| written | what it asks for |
|---|---|
| `all_operations`, or what a rule can be about | every decision and outcome stands in the trail in any case; permits of these bear `record: "full"` |
| `include_input: true`, `false` | `record: "full"`, `record: "digest"` |
| `include_output: true`, `false` | results stand in the trail, up to 4 KiB; only their digest and size do |
| `log_level: "warning"` | each decision is also told in the log, at this level: debug, info, warning, error |
| `retention_days: 365` | the decision's event says how long it is to be kept |
| `compliance_tags: ["SOC2"]` | the decision's event bears these tags |
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
from symbi.policy.obligations import ALTERABLE, NUMBERS, RECORD_RANK, combine
from symbi.types import PolicyId, SecurityTier

VERIFIED: Final = "signature_verification"
"""The requirement that is a prohibition of its own rather than a condition."""

QUESTIONS: Final = ("BrowseServer", "ReadResource", "GetPrompt", "Complete")
"""What is asked of a tool server beside a tool call."""

APPLIES_TO: Final[Mapping[ConditionKind, frozenset[str]]] = MappingProxyType(
    {
        ConditionKind.REDACT: frozenset({"InvokeTool", *ALTERABLE}),
        ConditionKind.CAP: frozenset({"InvokeTool", *ALTERABLE}),
        ConditionKind.TIER: frozenset({"ExecuteCode", "RunContainer"}),
        ConditionKind.TIMEOUT: frozenset({"InvokeTool", "ExecuteCode", "RunContainer", "CallModel", *QUESTIONS}),
        ConditionKind.MARK: frozenset(
            {
                "InvokeTool",
                "ExecuteCode",
                "RunContainer",
                "CallModel",
                *QUESTIONS,
                "ReadData",
                "SendMessage",
                "EndorseValue",
                "DeclassifyValue",
                "ReadClock",
                "DrawRandom",
            }
        ),
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


def fits(requirement: Requirement, action: str, arguments: frozenset[str] | None) -> bool:
    """Whether a requirement means something for an action.

    Args:
        requirement: What is asked for.
        action: The Cedar action.
        arguments: What the tools take that it is about, where it is `InvokeTool` and that is known.
    """
    assert requirement.kind is not None
    actions = APPLIES_TO.get(requirement.kind)
    if actions is not None and action not in actions:
        return False
    if action in ALTERABLE:
        fixed = NUMBERS if requirement.kind is ConditionKind.REDACT else frozenset[str]()
        arguments = ALTERABLE[action] - fixed
    return arguments is None or arguments.issuperset(requirement.arguments)


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
        if field.key == "record":
            found += _requirement("record", [field.value], field.span, findings)
        elif field.key in _AUDIT:
            kind, reader, form = _AUDIT[field.key]
            value = reader(field.value)
            if value is None:
                findings.error("audit", f"`{field.key}` is {form}", field.value.span)
            else:
                found += _valid(Requirement(kind, value, field.span), findings)
        else:
            known = ("record", *_AUDIT)
            hint = did_you_mean(field.key, known) or f"known are {', '.join(f'`{key}`' for key in known)}"
            findings.error("audit", f"unknown audit setting `{field.key}`", field.span, hint)
    return found


def _requirement(key: str, values: list[ast.Expr], span: ast.Span, findings: Findings) -> list[Requirement]:
    if key not in _READERS:
        hint = did_you_mean(key, _READERS) or f"known are {_known()}"
        findings.error("require", f"unknown requirement `{key}`", span, hint)
        return []
    reader, form = _READERS[key]
    made = reader(values, span)
    if made is None:
        findings.error("require", f"`{key}` cannot be read", span, f"write `{form}`")
        return []
    return _valid(made, findings)


def _valid(made: Requirement, findings: Findings) -> list[Requirement]:
    if made.kind is not None:
        try:
            combine([PolicyCondition(made.kind, made.value, PolicyId(""))])
        except InputError as error:
            findings.error("require", error.message, made.span, error.hint or "")
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


def _mark(values: list[ast.Expr], span: ast.Span) -> Requirement | None:
    words = [_word(value) for value in values]
    marks = [word for word in words if word]
    return Requirement(ConditionKind.MARK, ", ".join(marks), span) if marks and len(marks) == len(values) else None


def _rate(values: list[ast.Expr], span: ast.Span) -> Requirement | None:
    match values:
        case [ast.String(value=rate)]:
            return Requirement(ConditionKind.RATE, rate, span)
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
        "mark": (_mark, 'mark("untrusted")'),
        "rate": (_rate, 'rate("500/minute")'),
        "rate_limiting": (_rate, 'rate_limiting: "500/minute"'),
        VERIFIED: (_verified, "signature_verification: true"),
    }
)


def _full(value: ast.Expr) -> str | None:
    return ("full" if value.value else "digest") if isinstance(value, ast.Boolean) else None


def _days(value: ast.Expr) -> str | None:
    return f"{value.value:g}d" if isinstance(value, ast.Number) else None


def _tags(value: ast.Expr) -> str | None:
    words = [_word(item) for item in _several(value)]
    return ", ".join(word for word in words if word) if words and all(words) else None


_AUDIT: Final[Mapping[str, tuple[ConditionKind, Callable[[ast.Expr], str | None], str]]] = MappingProxyType(
    {
        "include_input": (ConditionKind.RECORD, _full, "true or false"),
        "include_output": (ConditionKind.OUTPUT, _full, "true or false"),
        "log_level": (ConditionKind.LOG, _word, "a level of the log"),
        "retention_days": (ConditionKind.RETAIN, _days, "a number of days"),
        "compliance_tags": (ConditionKind.TAGS, _tags, "a list of texts"),
    }
)
