"""Work on large values in pieces, between which others run.

Each function here is a generator that yields whenever it has visited some thousand values, and returns what the plain
function of the same name does. What is small it hands to that function: the weight of a value says how much there is
to visit. `in_pieces` carries one out, and lets the event loop turn at each yield.
"""

import heapq
import json
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from itertools import islice
from json.encoder import encode_basestring
from operator import attrgetter, itemgetter
from typing import Any, Final, TypeAlias, TypeVar

import anyio.lowlevel

from symbi.agent.operators import TypeMismatch, contains, equal, number, text
from symbi.agent.rendering import MAX_JSON_DEPTH, bound_items, bound_text, parsed_json, plain
from symbi.agent.values import (
    MAX_DEPTH,
    MAX_WEIGHT,
    Data,
    Value,
    argument_data,
    argument_labels,
    deep_label,
    from_answer,
    from_json,
)
from symbi.dsl import ast
from symbi.errors import OutputLimit
from symbi.policy.fields import AnswerLabels
from symbi.policy.flow import join
from symbi.types import JsonValue, Label

T = TypeVar("T")
Pieces: TypeAlias = Generator[None, None, T]

PIECE: Final = 1024  # values that are visited between two turns of the event loop: some milliseconds
COPIED: Final = 32_768  # likewise of those that are only copied or weighed
PIECE_CHARS: Final = 65_536  # of a text that is parsed at once
MAX_LABELS: Final = 1024  # that are kept apart until they are joined

_weight: Final[Callable[[Value], int]] = attrgetter("weight")


async def in_pieces(work: Pieces[T]) -> T:
    """Do some work, and let others run in between."""
    try:
        while True:
            next(work)
            await anyio.lowlevel.checkpoint()
    except StopIteration as end:
        result: T = end.value
        return result


class Steps:
    """Counts what was visited since the last yield."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = PIECE

    def spent(self, count: int = 1) -> bool:
        """Note some visits; returns whether it is time to let others run."""
        self.left -= count
        if self.left > 0:
            return False
        self.left = PIECE
        return True


def chunks(items: Sequence[T], size: int | None = None) -> Iterable[Sequence[T]]:
    """A sequence in parts of `PIECE`, or of another size; at least one, which may be empty."""
    size = size or PIECE
    return (items[start : start + size] for start in range(0, max(1, len(items)), size))


def is_large(*values: Value) -> bool:
    """Whether there is more to visit than is visited at once."""
    return sum([value.weight for value in values]) > PIECE


def listed(items: Sequence[Value], label: Label) -> Pieces[Value]:
    """A list of values."""
    bound_items(len(items))
    weight = 1
    for part in chunks(items, COPIED):
        weight += sum(map(_weight, part))
        if len(part) == COPIED:
            yield
    return Value(tuple(items), label, weight)


def labelled(*values: Value) -> Pieces[Label]:
    """The join of the deep labels of values."""
    seen: dict[int, Label] = {}
    pending, steps = list(values), Steps()
    while pending:
        current = pending.pop()
        seen[id(current.label)] = current.label
        inner: Sequence[Value] = ()
        if isinstance(current.data, tuple):
            inner = current.data
        elif isinstance(current.data, Mapping):
            inner = tuple(current.data.values())
        for part in chunks(inner) if inner else ():
            seen.update((id(value.label), value.label) for value in part)
            pending.extend(value for value in part if isinstance(value.data, tuple | Mapping))
            if steps.spent(len(part)):
                yield
            if len(seen) > MAX_LABELS:
                joined = join(*seen.values())
                seen = {id(joined): joined}
        if steps.spent():
            yield
    return join(*seen.values())


def made(data: JsonValue, label: Label) -> Pieces[Value]:
    """`from_json`."""
    return (yield from _made(data, label, MAX_DEPTH, Steps()))


def _made(data: JsonValue, label: Label, depth: int, steps: Steps) -> Pieces[Value]:
    if not isinstance(data, list | tuple | dict) or depth <= 0:
        return from_json(data, label, depth)
    bound_items(len(data))
    items: list[Value] = []
    weight = 1
    for item in data.values() if isinstance(data, dict) else data:
        if isinstance(item, list | tuple | dict):
            value = yield from _made(item, label, depth - 1, steps)
        else:
            value = from_json(item, label, depth - 1)
        items.append(value)
        weight += value.weight
        if weight > MAX_WEIGHT:
            msg = f"a value of more than {MAX_WEIGHT} parts is over the bound"
            raise OutputLimit(msg)
        if steps.spent():
            yield
    if not isinstance(data, dict):
        return Value(tuple(items), label, weight)
    fields: dict[str, Value] = {}
    for key, value in zip(data, items, strict=True):
        fields[from_json_key(key)] = value
        if steps.spent():
            yield
    return (yield from record(fields, label))


def answered(data: JsonValue, labels: AnswerLabels) -> Pieces[Value]:
    """`from_answer`; at once where fields of the answer have labels of their own, which are few."""
    if labels.flow.output or labels.about.parts:
        return from_answer(data, labels)
    return (yield from made(data, labels.at((), data)))


async def arguments_of(
    arguments: Mapping[str, Value], place: ast.Span, file: str
) -> tuple[dict[str, JsonValue], dict[str, Label], tuple[str, ...]]:
    """`tool_arguments`."""
    secrets: set[str] = set()

    def plainly(value: Value) -> JsonValue:
        return argument_data(value, secrets, place, file)

    plain_ones = {name: await in_pieces(data_of(value, plainly)) for name, value in arguments.items()}
    whole = {name: await label_of(value) for name, value in arguments.items()}
    return plain_ones, argument_labels(arguments, whole), tuple(sorted(secrets))


def from_json_key(key: str) -> str:
    """The name of a field, refused where it is no text."""
    if not key.isascii():
        from_json(key, Label())
    return key


def record(fields: Mapping[str, Value], label: Label) -> Pieces[Value]:
    """A record of values."""
    bound_items(len(fields))
    weight = 1
    pairs = iter(fields.items())
    while part := tuple(islice(pairs, PIECE)):
        weight += sum([Value(key).weight - 1 + value.weight for key, value in part])
        if len(part) == PIECE:
            yield
    return Value(fields, label, weight)


def alike(left: Value, right: Value, steps: Steps | None = None) -> Pieces[bool]:
    """`equal`."""
    steps = steps or Steps()
    a, b = left.data, right.data
    if min(left.weight, right.weight) <= PIECE // 8:
        if steps.spent(min(left.weight, right.weight)):
            yield
        return equal(left, right)
    pairs: Iterable[tuple[Value, Value]]
    if isinstance(a, tuple) and isinstance(b, tuple) and len(a) == len(b):
        pairs = zip(a, b, strict=True)
    elif isinstance(a, Mapping) and isinstance(b, Mapping) and a.keys() == b.keys():
        pairs = ((a[key], b[key]) for key in a)
    else:
        return equal(left, right)  # which sees at once that they differ, or compares two texts
    for one, other in pairs:
        if not (yield from alike(one, other, steps)):
            return False
    return True


def position(items: Sequence[Value], wanted: Value) -> Pieces[int]:
    """The first place of a value in a list, or -1."""
    steps = Steps()
    for place, item in enumerate(items):
        if (yield from alike(item, wanted, steps)):
            return place
    return -1


def has(container: Value, wanted: Value) -> Pieces[bool]:
    """`contains`."""
    if isinstance(container.data, tuple):
        return (yield from position(container.data, wanted)) >= 0
    return contains(container, wanted)


def sorted_by(source: Value, keys: Sequence[Value]) -> Pieces[Value]:
    """A list in the rising order of keys, which are all texts or all numbers."""
    assert isinstance(source.data, tuple), "only a list is sorted"
    texts = True
    keyed: list[tuple[Any, Value]] = []
    for part in chunks(keys):
        texts = texts and all(isinstance(key.data, str) for key in part)
        if len(part) == PIECE:
            yield
    for part, values in zip(chunks(keys), chunks(source.data), strict=True):
        keyed += zip([text(key) if texts else number(key) for key in part], values, strict=True)
        if len(part) == PIECE:
            yield
    label = join(source.label, (yield from labelled(*keys)))
    return (yield from listed((yield from ordered(keyed)), label))


def ordered(keyed: Sequence[tuple[Any, Value]]) -> Pieces[list[Value]]:
    """Values in the rising order of the keys beside them; stable."""
    runs: list[list[tuple[Any, Value]]] = []
    for part in chunks(keyed):
        runs.append(sorted(part, key=itemgetter(0)))
        if len(part) == PIECE:
            yield
    if len(runs) == 1:
        return [value for _, value in runs[0]]
    merged: list[Value] = []
    for _, value in heapq.merge(*runs, key=itemgetter(0)):
        merged.append(value)
        if len(merged) % PIECE == 0:
            yield
    return merged


def data_of(value: Value, plainly: Callable[[Value], JsonValue]) -> Pieces[JsonValue]:
    """A value as JSON data.

    Args:
        value: The value.
        plainly: Makes that of a small one, and raises where it is no data.
    """
    return (yield from _data_of(value, plainly, Steps()))


def _data_of(value: Value, plainly: Callable[[Value], JsonValue], steps: Steps) -> Pieces[JsonValue]:
    if not isinstance(value.data, tuple | Mapping) or value.weight <= PIECE // 8:
        if steps.spent(value.weight):
            yield
        return plainly(value)
    if isinstance(value.data, Mapping):
        fields: dict[str, JsonValue] = {}
        for key, item in value.data.items():
            fields[key] = yield from _data_of(item, plainly, steps)
        return fields
    items: list[JsonValue] = []
    for item in value.data:
        data = yield from _data_of(item, plainly, steps)
        items.append(data)
    return items


def dumped(value: Value) -> Pieces[str]:
    """A value as JSON text, as `rendering.shown` writes it."""
    parts: list[str] = []
    yield from _dumped(value, parts, Steps())
    bound_text(sum(map(len, parts)))
    return "".join(parts)


def _dumped(value: Value, parts: list[str], steps: Steps) -> Pieces[None]:
    data: Data = value.data
    if not isinstance(data, tuple | Mapping) or not data or value.weight <= PIECE // 8:
        parts.append(json.dumps(plain(value), ensure_ascii=False))
        if steps.spent(value.weight):
            yield
        return
    between = "[" if isinstance(data, tuple) else "{"
    for item in data if isinstance(data, tuple) else data.items():
        parts.append(between)
        if isinstance(item, tuple):
            parts.append(f"{encode_basestring(item[0])}: ")
        yield from _dumped(item[1] if isinstance(item, tuple) else item, parts, steps)
        between = ", "
    parts.append("]" if isinstance(data, tuple) else "}")


def parsed(source: str) -> Pieces[JsonValue]:
    """`rendering.parsed_json`."""
    if len(source) <= PIECE_CHARS:
        return parsed_json(source)
    return (yield from _Parser(source).whole())


class _Parser:
    """Reads JSON container by container; what is inside of none is left to the library."""

    def __init__(self, source: str) -> None:
        self._text = source
        self._scan = json.JSONDecoder(parse_constant=_no_constant).raw_decode
        self._count = 0
        self._steps = Steps()

    def whole(self) -> Pieces[JsonValue]:
        """All of the text."""
        try:
            value, at = yield from self._value(self._skip(0), MAX_JSON_DEPTH)
            at = self._skip(at)
            if at != len(self._text):
                raise self._wrong("Extra data", at)
        except ValueError as error:
            msg = f"not JSON: {error}"
            raise TypeMismatch(msg) from None
        return value

    def _value(self, at: int, depth: int) -> Pieces[tuple[JsonValue, int]]:
        if depth == 0:
            msg = f"JSON nests deeper than {MAX_JSON_DEPTH}"
            raise TypeMismatch(msg)
        self._count += 1
        bound_items(self._count)
        if self._steps.spent():
            yield
        start = self._text[at : at + 1]
        if start == "[":
            return (yield from self._list(at + 1, depth))
        if start == "{":
            return (yield from self._record(at + 1, depth))
        value, end = self._scan(self._text, at)
        return value, end

    def _list(self, at: int, depth: int) -> Pieces[tuple[JsonValue, int]]:
        items: list[JsonValue] = []
        at = self._skip(at)
        if self._text[at : at + 1] == "]":
            return items, at + 1
        while True:
            item, at = yield from self._value(at, depth - 1)
            items.append(item)
            at = self._skip(at)
            mark = self._text[at : at + 1]
            if mark == "]":
                return items, at + 1
            if mark != ",":
                raise self._wrong("Expecting ',' delimiter", at)
            at = self._skip(at + 1)

    def _record(self, at: int, depth: int) -> Pieces[tuple[JsonValue, int]]:
        fields: dict[str, JsonValue] = {}
        at = self._skip(at)
        if self._text[at : at + 1] == "}":
            return fields, at + 1
        while True:
            if self._text[at : at + 1] != '"':
                raise self._wrong("Expecting property name enclosed in double quotes", at)
            name, at = self._scan(self._text, at)
            at = self._skip(at)
            if self._text[at : at + 1] != ":":
                raise self._wrong("Expecting ':' delimiter", at)
            fields[name], at = yield from self._value(self._skip(at + 1), depth - 1)
            at = self._skip(at)
            mark = self._text[at : at + 1]
            if mark == "}":
                return fields, at + 1
            if mark != ",":
                raise self._wrong("Expecting ',' delimiter", at)
            at = self._skip(at + 1)

    def _skip(self, at: int) -> int:
        """The next place that is no white space."""
        source = self._text
        while source[at : at + 1] in {" ", "\t", "\n", "\r"}:
            at += 1
        return at

    def _wrong(self, what: str, at: int) -> ValueError:
        return json.JSONDecodeError(what, self._text, at)


def _no_constant(name: str) -> JsonValue:
    msg = f"{name} is not JSON"
    raise ValueError(msg)


async def label_of(*values: Value) -> Label:
    """The join of the deep labels of values, in pieces where they are large."""
    if is_large(*values):
        return await in_pieces(labelled(*values))
    return join(*(deep_label(value) for value in values))
