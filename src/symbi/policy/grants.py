"""Task grants: the tools, and the arguments, that what the user asked for calls for.

```json
{
  "mail/task-7": {
    "read_inbox": {},
    "send_email": { "recipients": ["anna@example.com"], "subject": { "like": "Re: *" } },
    "pay": { "amount": { "max": 100 } }
  },
  "mail/task-8": ["read_inbox"]
}
```

A list grants tools with any arguments. A constraint is a value, a list of the values that may stand there, or a table
of `like` (a text with `*` for anything), `min` and `max` (numbers, included); of a list, every item must fit. An
argument that is not named is free; one that is named must be there and fit.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import Final, TypeAlias

from symbi.errors import InputError, did_you_mean
from symbi.types import JsonValue

_KEYS: Final = ("like", "min", "max")

Constraint: TypeAlias = JsonValue


@dataclass(frozen=True, slots=True)
class Grant:
    """What one task may call: constraints by argument, by tool (`server.tool`)."""

    tools: Mapping[str, Mapping[str, Constraint]] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Granted:
    """What a grant says of one call.

    Attributes:
        given: The task has a grant.
        tool: It names the tool.
        arguments: It names the tool, and the arguments fit.
    """

    given: bool = False
    tool: bool = False
    arguments: bool = False


NO_GRANT: Final = Granted()
"""Nobody has said what the task calls for."""


def granted(grant: Grant | None, tool: str, values: Mapping[str, JsonValue]) -> Granted:
    """Hold a call against the grant of its task."""
    if grant is None:
        return NO_GRANT
    constraints = grant.tools.get(tool)
    if constraints is None:
        return Granted(given=True)
    fits = all(name in values and _fits(values[name], constraint) for name, constraint in constraints.items())
    return Granted(given=True, tool=True, arguments=fits)


def read_grant(data: JsonValue, server: str) -> Grant:
    """Read the grant of one task.

    Args:
        data: As a grants file holds it.
        server: The server of tools that are written without one.

    Raises:
        InputError: It is not of the form that the module describes.
    """
    if isinstance(data, Sequence) and not isinstance(data, str):
        data = {_tool(one): {} for one in data}
    if not isinstance(data, Mapping):
        hint = 'write `["tool"]`, or `{"tool": {"argument": "value"}}`'
        raise InputError("a grant is a list of tools, or an object of them", code="policy.grant", hint=hint)
    tools: dict[str, Mapping[str, Constraint]] = {}
    for written, constraints in data.items():
        name = written if "." in written else f"{server}.{written}"
        if not isinstance(constraints, Mapping):
            raise InputError(f"the constraints of `{written}` are not an object", code="policy.grant")
        for argument, constraint in constraints.items():
            _check(constraint, f"{written}.{argument}")
        tools[name] = constraints
    return Grant(tools)


def _tool(value: JsonValue) -> str:
    if not isinstance(value, str) or not value:
        raise InputError("a grant lists the names of tools, as texts", code="policy.grant")
    return value


def _check(constraint: JsonValue, where: str) -> None:
    if not isinstance(constraint, Mapping):
        return
    for key, bound in constraint.items():
        if key not in _KEYS:
            hint = did_you_mean(key, _KEYS) or f"known are {', '.join(_KEYS)}"
            raise InputError(f"unknown key `{key}` in the constraint of `{where}`", code="policy.grant", hint=hint)
        if not (isinstance(bound, str) if key == "like" else _is_number(bound)):
            kind = "a text" if key == "like" else "a number"
            raise InputError(f"`{key}` in the constraint of `{where}` is not {kind}", code="policy.grant")
    if not constraint:
        raise InputError(f"the constraint of `{where}` says nothing", code="policy.grant")


def _fits(value: JsonValue, constraint: Constraint) -> bool:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return bool(value) and all(_fits(item, constraint) for item in value)
    if isinstance(constraint, Mapping):
        return all(_holds(value, key, bound) for key, bound in constraint.items())
    if isinstance(constraint, Sequence) and not isinstance(constraint, str):
        return any(_same(value, one) for one in constraint)
    return _same(value, constraint)


def _same(value: JsonValue, other: JsonValue) -> bool:
    if _is_number(value) and _is_number(other):
        return value == other
    return type(value) is type(other) and value == other


def _holds(value: JsonValue, key: str, bound: JsonValue) -> bool:
    if key == "like":
        pattern = str(bound).replace("[", "[[]").replace("?", "[?]")
        return isinstance(value, str) and fnmatchcase(value, pattern)
    if not _is_number(value):
        return False
    number, limit = Decimal(repr(value)), Decimal(repr(bound))
    return number >= limit if key == "min" else number <= limit


def _is_number(value: JsonValue) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value  # noqa: PLR0124 - NaN is no bound
