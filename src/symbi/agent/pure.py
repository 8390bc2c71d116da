"""Pure helpers of the agent language, by name: functions of values, without effects.

Each takes a way to call a lambda, and its arguments in the order of its parameters. What a helper makes anew joins the
labels of all it was given; what it only passes on (an item of a list, a field) keeps its own, joined with those of what
it was chosen by.
"""

import json
from collections.abc import Awaitable, Callable, Generator, Hashable, Mapping, Sequence
from math import ceil, floor, isfinite, nan
from typing import Any, Final, TypeAlias

from symbi.agent.operators import (
    TypeMismatch,
    compare,
    contains,
    integer,
    items,
    number,
    text,
    truth,
)
from symbi.agent.pieces import (
    MAX_LABELS,
    PIECE,
    Pieces,
    Steps,
    chunks,
    dumped,
    has,
    in_pieces,
    is_large,
    label_of,
    labelled,
    listed,
    made,
    parsed,
    position,
    record,
    sorted_by,
)
from symbi.agent.rendering import bound_items, bound_text, filled, plain
from symbi.agent.values import (
    MAX_ITEMS,
    NULL,
    Closure,
    Secret,
    Value,
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
        if isinstance(result, Generator):
            result = await in_pieces(result)
        if isinstance(result, Value):
            return result
        label = await label_of(*arguments)
        if isinstance(result, list | dict):
            bound_items(len(result))
            return await in_pieces(made(result, label))
        return from_json(result, label)

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


def _join(values: Value, separator: Value | None = None) -> Pieces[str]:
    parts: list[str] = []
    for some in chunks(items(values)):
        parts += [text(value) for value in some]
        if len(some) == PIECE:
            yield
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


def _keys(value: Value) -> Pieces[Value]:
    names: list[Value] = []
    for some in chunks(tuple(_fields(value))):
        names += [key_of(value, key) for key in some]
        if len(some) == PIECE:
            yield
    return (yield from listed(names, value.label))


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


def _items(value: Value) -> Pieces[Value]:
    pairs: list[Value] = []
    for some in chunks(tuple(_fields(value).items())):
        pairs += [Value({"key": key_of(value, key), "value": item}, value.label) for key, item in some]
        if len(some) == PIECE:
            yield
    return (yield from listed(pairs, value.label))


def _merge(value: Value, other: Value) -> Pieces[Value]:
    return (yield from record({**_fields(value), **_fields(other)}, join(value.label, other.label)))


def _append(value: Value, item: Value) -> Value:
    return Value((*items(value), item), value.label, value.weight + item.weight)


def _flatten(value: Value) -> Pieces[Value]:
    inner: list[Value] = []
    labels = {id(value.label): value.label}
    for some in chunks(items(value)):
        for item in some:
            inner += items(item)
            bound_items(len(inner))
        labels |= {id(item.label): item.label for item in some}
        if len(some) == PIECE:
            yield
    return (yield from listed(inner, join(*labels.values())))


def _first(value: Value) -> Value:
    return _at(value, 0)


def _last(value: Value) -> Value:
    return _at(value, -1)


def _at(value: Value, position: int) -> Value:
    if not items(value):
        msg = "the list is empty"
        raise TypeMismatch(msg)
    return taken(value, items(value)[position])


def _index_of(value: Value, wanted: Value) -> int | Pieces[int]:
    """The first position, or -1."""
    if isinstance(value.data, str):
        return value.data.find(text(wanted))
    return position(items(value), wanted)


def _contains(container: Value, wanted: Value) -> bool | Pieces[bool]:
    return has(container, wanted) if is_large(container) else contains(container, wanted)


def _bool(value: Value) -> bool:
    match value.data:
        case bool():
            return value.data
        case "true" | "false":
            return value.data == "true"
        case _:
            msg = f"{type_name(value)} is neither true nor false"
            raise TypeMismatch(msg)


def _sum(values: Value) -> Pieces[int | float]:
    total: int | float = 0
    for some in chunks(items(values)):
        for value in some:
            total += number(value)
        if len(some) == PIECE:
            yield
    return total


def _extreme(op: str) -> Simple:
    def pick(*values: Value) -> Pieces[Value]:
        candidates = items(values[0]) if len(values) == 1 else values
        if not candidates:
            msg = "the list is empty"
            raise TypeMismatch(msg)
        best = candidates[0]
        for some in chunks(candidates):
            for value in some:
                if compare(op, value, best):
                    best = value
            if len(some) == PIECE:
                yield
        return Value(best.data, (yield from labelled(*values)))

    return pick


def _round(value: Value, digits: Value | None = None) -> int | float:
    if digits is None:
        return round(number(value))
    if abs(integer(digits)) > MAX_DIGITS:
        msg = f"cannot round to {integer(digits)} digits"
        raise TypeMismatch(msg)
    return round(number(value), integer(digits))


async def _format(_caller: Caller, arguments: Sequence[Value], named: Mapping[str, Value] | None = None) -> Value:
    given = [*arguments[1:], *(named or {}).values()]
    texts = [Value(await in_pieces(dumped(value))) if is_large(value) else value for value in given]
    names = dict(zip(named or {}, texts[len(arguments) - 1 :], strict=True))
    label = await label_of(arguments[0], *given)
    return Value(filled(text(arguments[0]), texts[: len(arguments) - 1], names), label)


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


def _slice(value: Value, start: Value, end: Value | None = None) -> Value | Pieces[Value]:
    part = slice(integer(start), None if end is None else integer(end))
    label = join(value.label, start.label, NULL.label if end is None else end.label)
    if isinstance(value.data, str):
        return Value(value.data[part], label)
    if isinstance(value.data, tuple):
        return listed(value.data[part], label)
    msg = f"expected a String or a list, found {type_name(value)}"
    raise TypeMismatch(msg)


def _reverse(value: Value) -> Value:
    if isinstance(value.data, str | tuple):
        return Value(value.data[::-1], value.label, value.weight)
    msg = f"expected a String or a list, found {type_name(value)}"
    raise TypeMismatch(msg)


def _unique(value: Value) -> Pieces[Value]:
    kept: dict[Hashable, Value] = {}
    steps = Steps()
    for item in items(value):
        kept.setdefault(_identity(item), item)
        if steps.spent(item.weight):
            yield
    return (yield from listed(tuple(kept.values()), (yield from labelled(value))))


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


def _to_json(value: Value) -> str | Pieces[str]:
    return dumped(value) if is_large(value) else json.dumps(plain(value), ensure_ascii=False)


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


async def _map(caller: Caller, arguments: Sequence[Value]) -> Value:
    source = arguments[0]
    values = [await caller(arguments[1], taken(source, item)) for item in items(source)]
    return await in_pieces(listed(values, source.label))


async def _holding(caller: Caller, arguments: Sequence[Value]) -> tuple[list[Value], Label]:
    """The items for which the function, or the item itself, is true; and the label of that choice."""
    kept: list[Value] = []
    labels = {id(arguments[0].label): arguments[0].label}
    for item in items(arguments[0]):
        holds = await caller(arguments[1], taken(arguments[0], item)) if len(arguments) > 1 else item
        labels[id(holds.label)] = holds.label
        if len(labels) > MAX_LABELS:
            joined = join(*labels.values())
            labels = {id(joined): joined}
        if truth(holds):
            kept.append(item)
    return kept, join(*labels.values())


async def _filter(caller: Caller, arguments: Sequence[Value]) -> Value:
    kept, label = await _holding(caller, arguments)
    return await in_pieces(listed(kept, label))


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
    return await in_pieces(sorted_by(arguments[0], keys))


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
    "contains": _simple(_contains),
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
    "parse_json": _simple(lambda v: parsed(text(v))),
    "range": _simple(_range),
    "replace": _simple(_replace),
    "reverse": _simple(_reverse),
    "round": _simple(_round),
    "slice": _simple(_slice),
    "sort": _sort,
    "split": _simple(_split),
    "starts_with": _simple(lambda v, start: text(v).startswith(text(start))),
    "str": _simple(lambda v: v.data if isinstance(v.data, str) else _to_json(v)),
    "sum": _simple(_sum),
    "to_json": _simple(_to_json),
    "trim": _simple(lambda v: text(v).strip()),
    "type_of": _simple(lambda v: Value(type_name(v), v.label)),
    "unique": _simple(_unique),
    "upper": _simple(lambda v: text(v).upper()),
    "values": _simple(_values),
}
"""One function for each signature in `symbi.dsl.builtins.PURE`; a test compares the two."""
