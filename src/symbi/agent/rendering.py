"""Values as text and text as values: JSON, templates, and the bounds that hold before either is made."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Final

from symbi.agent.operators import TypeMismatch
from symbi.agent.values import MAX_ITEMS, MAX_TEXT_CHARS, Closure, Secret, Value, type_name
from symbi.errors import OutputLimit
from symbi.types import JsonValue

MAX_JSON_DEPTH: Final = 64  # nesting of parsed JSON; deeper values would outgrow what the interpreter walks


def plain(value: Value) -> JsonValue:
    """A value as JSON data.

    Raises:
        TypeMismatch: It holds a secret or a function.
    """
    match value.data:
        case tuple():
            return [plain(item) for item in value.data]
        case Mapping():
            return {key: plain(item) for key, item in value.data.items()}
        case Secret() | Closure():
            msg = f"a {type_name(value)} is not data"
            raise TypeMismatch(msg)
        case _:
            return value.data


def shown(value: Value) -> str:
    """A value as text: a text itself, anything else as JSON."""
    return value.data if isinstance(value.data, str) else json.dumps(plain(value), ensure_ascii=False)


def bound_items(count: int) -> None:
    """Refuse a list before it is made."""
    if count > MAX_ITEMS:
        msg = f"the result would have more than {MAX_ITEMS} items"
        raise OutputLimit(msg)


def bound_text(length: int) -> None:
    """Refuse a text before it is made."""
    if length > MAX_TEXT_CHARS:
        msg = f"the text would be longer than {MAX_TEXT_CHARS} characters"
        raise OutputLimit(msg)


_HOLE: Final = re.compile(r"\{\{|\}\}|\{([A-Za-z_][A-Za-z0-9_]*)?\}|[{}]")


def filled(template: str, values: Sequence[Value], named: Mapping[str, Value]) -> str:
    """`format("{} of {total}", n, total = m)`: holes take the next value or the named one; `{{` and `}}` are braces.

    Raises:
        TypeMismatch: The values do not fit the holes.
        OutputLimit: The text would be too long.
    """
    rest, names = list(values), dict(named)
    used: set[str] = set()
    length = 0

    def fill(hole: re.Match[str]) -> str:
        nonlocal length
        filling = filling_of(hole)
        length += len(filling)
        bound_text(length)
        return filling

    def filling_of(hole: re.Match[str]) -> str:
        whole, name = hole.group(0), hole.group(1)
        if whole in {"{{", "}}"}:
            return whole[0]
        if name is not None and name in names:
            used.add(name)
            return shown(names[name])
        if whole == "{}" and rest:
            return shown(rest.pop(0))
        msg = f"nothing is given for `{whole}`; a brace itself is written twice"
        raise TypeMismatch(msg)

    whole = _HOLE.sub(fill, template)
    if rest or used != set(names):
        msg = "more values are given than the template has places for"
        raise TypeMismatch(msg)
    return whole


def parsed_json(text: str) -> JsonValue:
    """The data that a JSON text stands for.

    Raises:
        TypeMismatch: It is not JSON, or nested too deeply.
        OutputLimit: It has too many parts.
    """
    try:
        parsed: JsonValue = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        msg = f"not JSON: {error}"
        raise TypeMismatch(msg) from None
    bound_items(_count_parts(parsed, MAX_JSON_DEPTH))
    return parsed


def _no_constant(name: str) -> JsonValue:
    msg = f"{name} is not JSON"
    raise ValueError(msg)


def _count_parts(value: JsonValue, depth: int) -> int:
    """How many values there are in one, itself included."""
    if depth == 0:
        msg = f"JSON nests deeper than {MAX_JSON_DEPTH}"
        raise TypeMismatch(msg)
    if isinstance(value, dict):
        return 1 + sum(_count_parts(item, depth - 1) for item in value.values())
    if isinstance(value, list):
        return 1 + sum(_count_parts(item, depth - 1) for item in value)
    return 1
