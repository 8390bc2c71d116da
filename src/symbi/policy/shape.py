"""The Cedar type that a JSON Schema declares for a tool's arguments, and values turned into it.

| JSON Schema | Cedar |
|---|---|
| `string`, or an `enum`/`const` of strings | `String` |
| `integer` | `Long` |
| `number` | `decimal` (four places) |
| `boolean` | `Bool` |
| `array` with `items` of one type | `Set` of it: order and repetition are lost |
| `object` with `properties` | a record of the properties that have a type |
| T or null (`["T", "null"]`, `anyOf`/`oneOf` of T and null) | T, optional |
| `$ref` within the schema, `allOf` of one | what it stands for |
| anything else: no type, several types, tuples, free objects, recursion, a `$ref` elsewhere | none: *open* |

The schema text (`symbi.policy.catalog`) and the contexts (`symbi.policy.context`) are both made from `shape_of`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, TypeAlias
from urllib.parse import unquote

from symbi.errors import InputError
from symbi.types import JsonValue

MAX_DEPTH: Final = 16  # bounds nesting and chains of `$ref`; what lies deeper is open
MAX_NODES: Final = 2000  # bounds what one schema may unfold to through shared `$defs`; what comes after is open
_LONG_MIN: Final = -(2**63)
_LONG_MAX: Final = 2**63 - 1
_PLACES: Final = Decimal("0.0001")  # a Cedar decimal is a 64-bit count of these
_RESERVED: Final = frozenset({"__extn", "__entity", "__expr"})  # as keys, Cedar's JSON reads them as escapes


@dataclass(frozen=True, slots=True)
class Scalar:
    """`String`, `Long`, `decimal` or `Bool`."""

    name: str


@dataclass(frozen=True, slots=True)
class SetOf:
    """A set of items of one type."""

    item: "Shape"


@dataclass(frozen=True, slots=True)
class Field:
    """A declared property: its type (None where it is open), and whether it is always there and never null."""

    shape: "Shape | None"
    required: bool


@dataclass(frozen=True, slots=True)
class RecordOf:
    """Declared properties by name, sorted; `closed` where the schema forbids all others."""

    fields: Mapping[str, Field]
    closed: bool


Shape: TypeAlias = Scalar | SetOf | RecordOf

_SCALARS: Final = {
    "string": Scalar("String"),
    "integer": Scalar("Long"),
    "number": Scalar("decimal"),
    "boolean": Scalar("Bool"),
}


def shape_of(input_schema: Mapping[str, JsonValue]) -> RecordOf:
    """The record that a tool's arguments are. The root counts as an object, whatever else it says of itself."""
    return _SchemaReader(input_schema).root()


def is_nameable(name: str) -> bool:
    """Whether an attribute may bear this name: it has no lone surrogate, and Cedar's JSON does not read it as an escape."""
    return name not in _RESERVED and is_text(name)


def is_text(text: str) -> bool:
    """Whether a string is Unicode text: no lone surrogate in it."""
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


_Read: TypeAlias = tuple[Shape | None, bool]  # the type (None: open) and whether null is allowed beside it
_OPEN: Final[_Read] = (None, True)


class _SchemaReader:
    """Reads one schema; counts the nodes that it visits."""

    def __init__(self, root: Mapping[str, JsonValue]) -> None:
        self._root = root
        self._nodes = 0

    def root(self) -> RecordOf:
        node, seen = self._root, {"#"}
        for _ in range(MAX_DEPTH):
            step, ref = _sole(node.get("allOf")), node.get("$ref")
            if isinstance(ref, str):
                if ref in seen:
                    break
                seen.add(ref)
                step = self._resolve(ref)
            if not isinstance(step, Mapping) or "properties" in node:
                break
            node = step
        return self._record(node, 0, frozenset(seen))

    def _read(self, node: JsonValue, depth: int, seen: frozenset[str]) -> _Read:
        self._nodes += 1
        if not isinstance(node, Mapping) or depth > MAX_DEPTH or self._nodes > MAX_NODES or "$id" in node:
            return _OPEN  # an inner `$id` changes what references mean: nothing below it is followed
        ref = node.get("$ref")
        if ref is not None:
            if not isinstance(ref, str) or ref in seen:
                return _OPEN
            return self._read(self._resolve(ref), depth + 1, seen | {ref})
        kind = node.get("type")
        if kind is None:
            return self._untyped(node, depth, seen)
        kinds = {kind} if isinstance(kind, str) else {name for name in _items(kind) if isinstance(name, str)}
        nullable = "null" in kinds
        kinds.discard("null")
        if kinds == {"integer", "number"}:
            kinds = {"number"}
        if len(kinds) != 1:
            return _OPEN
        return self._typed(kinds.pop(), node, depth, seen), nullable

    def _typed(self, kind: str, node: Mapping[str, JsonValue], depth: int, seen: frozenset[str]) -> Shape | None:
        if kind in _SCALARS:
            return _SCALARS[kind]
        if kind == "array" and "prefixItems" not in node:
            item, nullable = self._read(node.get("items"), depth + 1, seen)
            return None if item is None or nullable else SetOf(item)
        if kind == "object":
            record = self._record(node, depth, seen)
            return record if record.fields or record.closed else None
        return None

    def _untyped(self, node: Mapping[str, JsonValue], depth: int, seen: frozenset[str]) -> _Read:
        for union in ("anyOf", "oneOf"):
            branches = _items(node.get(union))
            others = [
                branch for branch in branches if not (isinstance(branch, Mapping) and branch.get("type") == "null")
            ]
            if len(others) == 1:
                shape, nullable = self._read(others[0], depth + 1, seen)
                return shape, nullable or len(branches) > 1
        sole = _sole(node.get("allOf"))
        if sole is not None:
            return self._read(sole, depth + 1, seen)
        values = [node["const"]] if "const" in node else _items(node.get("enum"))
        if any(isinstance(value, str) for value in values) and all(
            value is None or isinstance(value, str) for value in values
        ):
            return _SCALARS["string"], None in values
        return _OPEN

    def _record(self, node: Mapping[str, JsonValue], depth: int, seen: frozenset[str]) -> RecordOf:
        properties, required = node.get("properties"), _items(node.get("required"))
        fields: dict[str, Field] = {}
        for name, declared in sorted(properties.items()) if isinstance(properties, Mapping) else ():
            shape, nullable = self._read(declared, depth + 1, seen) if is_nameable(name) else _OPEN
            fields[name] = Field(shape, required=shape is not None and not nullable and name in required)
        return RecordOf(fields, closed=node.get("additionalProperties") is False and not node.get("patternProperties"))

    def _resolve(self, ref: str) -> JsonValue:
        """What a reference within this schema points at (RFC 6901 in a URI fragment); None for any other."""
        if not ref.startswith("#") or (len(ref) > 1 and not ref.startswith("#/")):
            return None
        node: JsonValue = self._root
        for part in unquote(ref[1:]).split("/")[1:]:
            key = part.replace("~1", "/").replace("~0", "~")
            if isinstance(node, Mapping):
                node = node.get(key)
            elif key.isascii() and key.isdigit() and int(key) < len(_items(node)):
                node = _items(node)[int(key)]
            else:
                return None
        return node


def _items(value: JsonValue) -> Sequence[JsonValue]:
    """A JSON array, or nothing."""
    return value if isinstance(value, Sequence) and not isinstance(value, str) else ()


def _sole(value: JsonValue) -> JsonValue:
    """The item of a JSON array of one."""
    items = _items(value)
    return items[0] if len(items) == 1 else None


def convert_arguments(
    shape: RecordOf, values: Mapping[str, JsonValue]
) -> tuple[Mapping[str, JsonValue], frozenset[str]]:
    """Turn arguments into the record that `shape` declares, as Cedar's JSON.

    Args:
        shape: Of the tool's input schema.
        values: Arguments by name.

    Returns:
        The record, and the names of the arguments of which some part has no Cedar type and is left out.

    Raises:
        InputError: A value does not fit its declared type, or Cedar has no such value.
    """
    opaque: set[str] = set()
    record = _convert_record(shape, values, "arguments", opaque, None)
    return record, frozenset(opaque)


def _convert_record(
    shape: RecordOf, value: Mapping[str, JsonValue], path: str, opaque: set[str], top: str | None
) -> dict[str, JsonValue]:
    record: dict[str, JsonValue] = {}
    for name, item in value.items():
        if not is_text(name):
            raise _misfit(path, "has a name with a lone surrogate")
        field = shape.fields.get(name)
        if field is None and shape.closed:
            raise _misfit(f"{path}.{name}", "is not declared by the tool's schema")
        if item is None:
            continue  # Cedar has no null: absent
        argument = name if top is None else top
        if field is None or field.shape is None:
            opaque.add(argument)
        else:
            record[name] = _convert(field.shape, item, f"{path}.{name}", opaque, argument)
    for name, field in shape.fields.items():
        if field.required and name not in record:
            raise _misfit(f"{path}.{name}", "is missing")
    return record


def _convert(shape: Shape, value: JsonValue, path: str, opaque: set[str], top: str) -> JsonValue:
    if isinstance(shape, Scalar):
        return _convert_scalar(shape, value, path)
    if isinstance(shape, SetOf):
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise _misfit(path, "is not an array")
        return [_convert(shape.item, item, f"{path}[{index}]", opaque, top) for index, item in enumerate(value)]
    if not isinstance(value, Mapping):
        raise _misfit(path, "is not an object")
    return _convert_record(shape, value, path, opaque, top)


def _convert_scalar(shape: Scalar, value: JsonValue, path: str) -> JsonValue:
    match shape.name:
        case "String":
            if not isinstance(value, str):
                raise _misfit(path, "is not a string")
            if not is_text(value):
                raise _misfit(path, "holds a lone surrogate")
            return value
        case "Bool":
            if not isinstance(value, bool):
                raise _misfit(path, "is not a boolean")
            return value
        case "Long":
            return to_long(value, path)
        case _:
            return to_decimal(value, path)


def to_long(value: JsonValue, path: str) -> int:
    """A JSON integer (`3` or `3.0`) as a Cedar Long.

    Raises:
        InputError: It is not an integer, or lies outside 64 bits; the message names `path`.
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise _misfit(path, "is not an integer")
    if not _LONG_MIN <= value <= _LONG_MAX:
        raise _misfit(path, "lies outside 64 bits")
    return value


def to_decimal(value: JsonValue, path: str) -> JsonValue:
    """A JSON number as a Cedar decimal, in the extension form of Cedar's JSON.

    Raises:
        InputError: It is not a finite number, has more than four places, or is too large; the message names `path`.
    """
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or (isinstance(value, float) and not math.isfinite(value))
    ):
        raise _misfit(path, "is not a finite number")
    exact = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    if not _LONG_MIN * _PLACES <= exact <= _LONG_MAX * _PLACES:
        raise _misfit(path, "is too large for a decimal")
    short = exact.quantize(_PLACES)
    if short != exact:
        raise _misfit(path, "has more than four decimal places")
    return {"__extn": {"fn": "decimal", "arg": f"{abs(short) if short == 0 else short:f}"}}


def _misfit(path: str, problem: str) -> InputError:
    shown = path if is_text(path) else path.encode("ascii", "backslashreplace").decode()
    return InputError(f"`{shown}` {problem}", code="policy.context", field=shown)
