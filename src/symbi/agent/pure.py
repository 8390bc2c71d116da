"""Pure helpers of the agent language, by name: functions of values, without effects.

Each takes a way to call a lambda, and its arguments in the order of its parameters. What a helper makes anew joins the
labels of all it was given; what it only passes on (an item of a list, a field) keeps its own, joined with those of what
it was chosen by.
"""

import json
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from math import ceil, floor, isfinite, nan
from typing import Any, Final, TypeAlias

from symbi.agent.operators import (
    TypeMismatch,
    compare,
    contains,
    equal,
    integer,
    items,
    number,
    text,
    truth,
)
from symbi.agent.rendering import bound_items, bound_text, filled, parsed_json, plain, shown
from symbi.agent.values import (
    MAX_ITEMS,
    NULL,
    Closure,
    Secret,
    Value,
    deep_label,
    from_json,
    key_of,
    taken,
    type_name,
)
from symbi.dsl.builtins import PURE
from symbi.errors import OutputLimit
from symbi.policy.flow import join
from symbi.types import Label

Caller: TypeAlias = Callable[[Value, Value], Awaitable[Value]]
Pure: TypeAlias = Callable[[Caller, Sequence[Value]], Awaitable[Value]]
Simple: TypeAlias = Callable[..., Any]

MAX_DIGITS: Final = 308  # places that a number can be rounded to, either side of the point


def _joined(values: Sequence[Value]) -> Label:
    return join(*(deep_label(value) for value in values))


def bind(name: str, positional: Sequence[Value], named: Mapping[str, Value]) -> list[Value]:
    """Arguments by position and by name in the order of the helper's parameters.

    Raises:
        TypeMismatch: One is missing, unknown, given twice, or too many are given.
    """
    signature = PURE[name]
    bound = list(positional)
    if len(bound) > len(signature.parameters) and not signature.variadic:
        msg = f"takes {len(signature.parameters)} arguments, not {len(bound)}"
        raise TypeMismatch(msg)
    rest = dict(named)
    for parameter in signature.parameters[len(bound) :]:
        if parameter not in rest:
            break
        bound.append(rest.pop(parameter))
    if rest:
        msg = f"`{next(iter(rest))}` is not an argument of {signature}, or is given twice"
        raise TypeMismatch(msg)
    if len(bound) < signature.required:
        msg = f"needs `{signature.parameters[len(bound)]}`: {signature}"
        raise TypeMismatch(msg)
    return bound


def _simple(function: Simple) -> Pure:
    """A helper without lambdas: takes values, returns a Value (label kept) or data (labels joined)."""

    async def call(_caller: Caller, arguments: Sequence[Value]) -> Value:
        result = function(*arguments)
        if isinstance(result, list):
            bound_items(len(result))
        return result if isinstance(result, Value) else from_json(result, _joined(arguments))

    return call


def _len(value: Value) -> Value:
    """A number that depends on the shape alone, and bears its label."""
    if isinstance(value.data, str | tuple | Mapping):
        return Value(len(value.data), value.label)
    msg = f"{type_name(value)} has no length"
    raise TypeMismatch(msg)


def _split(value: Value, separator: Value | None = None) -> list[str]:
    if separator is None:
        return text(value).split(None, MAX_ITEMS)
    if not text(separator):
        msg = "the separator is empty"
        raise TypeMismatch(msg)
    return text(value).split(text(separator), MAX_ITEMS)


def _join(values: Value, separator: Value | None = None) -> str:
    parts = [text(value) for value in items(values)]
    between = "" if separator is None else text(separator)
    bound_text(sum(map(len, parts)) + len(between) * len(parts))
    return between.join(parts)


def _replace(value: Value, old: Value, new: Value) -> str:
    source, part, instead = text(value), text(old), text(new)
    if not part:
        msg = "the text to replace is empty"
        raise TypeMismatch(msg)
    bound_text(len(source) + source.count(part) * (len(instead) - len(part)))
    return source.replace(part, instead)


def _keys(value: Value) -> Value:
    return Value(tuple(key_of(value, key) for key in _fields(value)), value.label)


def _values(value: Value) -> Value:
    return Value(tuple(_fields(value).values()), value.label, value.weight)


def _fields(value: Value) -> Mapping[str, Value]:
    if isinstance(value.data, Mapping):
        return value.data
    msg = f"expected a record, found {type_name(value)}"
    raise TypeMismatch(msg)


def _get(value: Value, key: Value, default: Value = NULL) -> Value:
    if isinstance(value.data, tuple):
        position = integer(key)
        found = value.data[position] if -len(value.data) <= position < len(value.data) else default
    else:
        found = _fields(value).get(text(key), default)
    return taken(key, taken(value, found))


def _items(value: Value) -> Value:
    pairs = ((key_of(value, key), item) for key, item in _fields(value).items())
    return Value(tuple(Value({"key": key, "value": item}, value.label) for key, item in pairs), value.label)


def _merge(value: Value, other: Value) -> Value:
    return Value({**_fields(value), **_fields(other)}, join(value.label, other.label))


def _append(value: Value, item: Value) -> Value:
    return Value((*items(value), item), value.label, value.weight + item.weight)


def _flatten(value: Value) -> Value:
    inner = tuple([inner for item in items(value) for inner in items(item)])
    return Value(inner, join(value.label, *(item.label for item in items(value))))


def _first(value: Value) -> Value:
    return _at(value, 0)


def _last(value: Value) -> Value:
    return _at(value, -1)


def _at(value: Value, position: int) -> Value:
    if not items(value):
        msg = "the list is empty"
        raise TypeMismatch(msg)
    return taken(value, items(value)[position])


def _index_of(value: Value, wanted: Value) -> int:
    """The first position, or -1."""
    if isinstance(value.data, str):
        return value.data.find(text(wanted))
    return next((position for position, item in enumerate(items(value)) if equal(item, wanted)), -1)


def _bool(value: Value) -> bool:
    match value.data:
        case bool():
            return value.data
        case "true" | "false":
            return value.data == "true"
        case _:
            msg = f"{type_name(value)} is neither true nor false"
            raise TypeMismatch(msg)


def _sum(values: Value) -> int | float:
    return sum(number(value) for value in items(values))


def _extreme(op: str) -> Simple:
    def pick(*values: Value) -> Value:
        candidates = items(values[0]) if len(values) == 1 else values
        if not candidates:
            msg = "the list is empty"
            raise TypeMismatch(msg)
        best = candidates[0]
        for value in candidates[1:]:
            if compare(op, value, best):
                best = value
        return Value(best.data, _joined(values))

    return pick


def _round(value: Value, digits: Value | None = None) -> int | float:
    if digits is None:
        return round(number(value))
    if abs(integer(digits)) > MAX_DIGITS:
        msg = f"cannot round to {integer(digits)} digits"
        raise TypeMismatch(msg)
    return round(number(value), integer(digits))


async def _format(_caller: Caller, arguments: Sequence[Value], named: Mapping[str, Value] | None = None) -> Value:
    names = named or {}
    return Value(filled(text(arguments[0]), arguments[1:], names), _joined([*arguments, *names.values()]))


def _range(first: Value, end: Value | None = None, step: Value | None = None) -> list[int]:
    start, stop = (0, integer(first)) if end is None else (integer(first), integer(end))
    stride = 1 if step is None else integer(step)
    if stride == 0:
        msg = "the step is zero"
        raise TypeMismatch(msg)
    numbers = range(start, stop, stride)
    if len(numbers) > MAX_ITEMS:
        msg = f"a range of {len(numbers)} numbers is over the bound of {MAX_ITEMS}"
        raise OutputLimit(msg)
    return list(numbers)


def _slice(value: Value, start: Value, end: Value | None = None) -> Value:
    part = slice(integer(start), None if end is None else integer(end))
    if isinstance(value.data, str | tuple):
        return Value(value.data[part], join(value.label, start.label, NULL.label if end is None else end.label))
    msg = f"expected a String or a list, found {type_name(value)}"
    raise TypeMismatch(msg)


def _reverse(value: Value) -> Value:
    if isinstance(value.data, str | tuple):
        return Value(value.data[::-1], value.label, value.weight)
    msg = f"expected a String or a list, found {type_name(value)}"
    raise TypeMismatch(msg)


def _unique(value: Value) -> Value:
    kept: dict[Hashable, Value] = {}
    for item in items(value):
        kept.setdefault(_identity(item), item)
    return Value(tuple(kept.values()), deep_label(value))


def _identity(value: Value) -> Hashable:
    """The same for two values exactly if `equal` says that they are."""
    match value.data:
        case tuple():
            return "list", tuple([_identity(item) for item in value.data])
        case Mapping():
            return "record", frozenset([(key, _identity(item)) for key, item in value.data.items()])
        case Secret() | Closure():
            msg = "functions and secrets cannot be compared"
            raise TypeMismatch(msg)
        case bool():
            return "bool", value.data
        case _:
            return "", value.data


def _int(value: Value) -> int:
    match value.data:
        case bool():
            return int(value.data)
        case int() | float():
            return int(value.data)
        case str():
            try:
                return int(value.data.strip(), 10)
            except ValueError:
                msg = f"not an integer: `{value.data[:40]}`"
                raise TypeMismatch(msg) from None
        case _:
            msg = f"{type_name(value)} is not a number"
            raise TypeMismatch(msg)


def _float(value: Value) -> float:
    if isinstance(value.data, str):
        try:
            parsed = float(value.data.strip())
        except ValueError:
            parsed = nan
        if not isfinite(parsed):
            msg = f"not a number: `{value.data[:40]}`"
            raise TypeMismatch(msg)
        return parsed
    return float(number(value))


def _sorted(decorated: list[tuple[Value, Value]]) -> list[Value]:
    if all(isinstance(key.data, str) for key, _ in decorated):
        return [item for _, item in sorted(decorated, key=lambda pair: text(pair[0]))]
    return [item for _, item in sorted(decorated, key=lambda pair: number(pair[0]))]


async def _map(caller: Caller, arguments: Sequence[Value]) -> Value:
    source = arguments[0]
    return Value(tuple([await caller(arguments[1], taken(source, item)) for item in items(source)]), source.label)


async def _holding(caller: Caller, arguments: Sequence[Value]) -> tuple[list[Value], Label]:
    """The items for which the function, or the item itself, is true; and the label of that choice."""
    kept: list[Value] = []
    labels = [arguments[0].label]
    for item in items(arguments[0]):
        holds = await caller(arguments[1], taken(arguments[0], item)) if len(arguments) > 1 else item
        labels.append(holds.label)
        if truth(holds):
            kept.append(item)
    return kept, join(*labels)


async def _filter(caller: Caller, arguments: Sequence[Value]) -> Value:
    kept, label = await _holding(caller, arguments)
    return Value(tuple(kept), label)


async def _any(caller: Caller, arguments: Sequence[Value]) -> Value:
    kept, label = await _holding(caller, arguments)
    return Value(bool(kept), label)


async def _all(caller: Caller, arguments: Sequence[Value]) -> Value:
    kept, label = await _holding(caller, arguments)
    return Value(len(kept) == len(items(arguments[0])), label)


async def _count(caller: Caller, arguments: Sequence[Value]) -> Value:
    """`count(list)`: how many items; `count(list, x => …)`: how many of them hold."""
    if len(arguments) == 1:
        return Value(len(items(arguments[0])), arguments[0].label)
    kept, label = await _holding(caller, arguments)
    return Value(len(kept), label)


async def _sort(caller: Caller, arguments: Sequence[Value]) -> Value:
    """`sort(list)` or `sort(list, x => key)`; stable, in rising order."""
    source = items(arguments[0])
    keys = list(source)
    if len(arguments) > 1:
        keys = [await caller(arguments[1], taken(arguments[0], item)) for item in source]
    ordered = _sorted(list(zip(keys, source, strict=True)))
    return Value(tuple(ordered), join(arguments[0].label, *(deep_label(key) for key in keys)))


async def call_pure(name: str, caller: Caller, positional: Sequence[Value], named: Mapping[str, Value]) -> Value:
    """Call a helper by name.

    Raises:
        TypeMismatch: The arguments do not fit.
        OutputLimit: The result would be too large.
    """
    if name == "format":
        if not positional:
            msg = f"needs a template: {PURE[name]}"
            raise TypeMismatch(msg)
        return await _format(caller, positional, named)
    return await PURE_FUNCTIONS[name](caller, bind(name, positional, named))


PURE_FUNCTIONS: Final[Mapping[str, Pure]] = {
    "abs": _simple(lambda v: abs(number(v))),
    "all": _all,
    "any": _any,
    "append": _simple(_append),
    "bool": _simple(_bool),
    "ceil": _simple(lambda v: ceil(number(v))),
    "contains": _simple(contains),
    "count": _count,
    "ends_with": _simple(lambda v, end: text(v).endswith(text(end))),
    "filter": _filter,
    "first": _simple(_first),
    "flatten": _simple(_flatten),
    "float": _simple(_float),
    "floor": _simple(lambda v: floor(number(v))),
    "format": _format,
    "get": _simple(_get),
    "index_of": _simple(_index_of),
    "int": _simple(_int),
    "items": _simple(_items),
    "join": _simple(_join),
    "keys": _simple(_keys),
    "last": _simple(_last),
    "len": _simple(_len),
    "lines": _simple(lambda v: text(v).splitlines()),
    "lower": _simple(lambda v: text(v).lower()),
    "map": _map,
    "max": _simple(_extreme(">")),
    "merge": _simple(_merge),
    "min": _simple(_extreme("<")),
    "parse_json": _simple(lambda v: parsed_json(text(v))),
    "range": _simple(_range),
    "replace": _simple(_replace),
    "reverse": _simple(_reverse),
    "round": _simple(_round),
    "slice": _simple(_slice),
    "sort": _sort,
    "split": _simple(_split),
    "starts_with": _simple(lambda v, start: text(v).startswith(text(start))),
    "str": _simple(shown),
    "sum": _simple(_sum),
    "to_json": _simple(lambda v: json.dumps(plain(v), ensure_ascii=False)),
    "trim": _simple(lambda v: text(v).strip()),
    "type_of": _simple(lambda v: Value(type_name(v), v.label)),
    "unique": _simple(_unique),
    "upper": _simple(lambda v: text(v).upper()),
    "values": _simple(_values),
}
"""One function for each signature in `symbi.dsl.builtins.PURE`; a test compares the two."""
