"""Canonical JSON (RFC 8785): one value, one sequence of bytes; what is signed, hashed and chained.

Values whose keys are ASCII and that hold strings, booleans, None and integers within 2^53-1 go through msgspec, whose
sorted output is the same there: ASCII orders alike by code point and by UTF-16 unit, and both escape only
the quotation mark, the backslash and the control characters below 0x20. Everything else is checked and handed to the library `rfc8785`, whose numbers
are those of ECMAScript.
"""

import json
import math
from collections.abc import Mapping
from typing import Any, Final, TypeAlias

import msgspec
import rfc8785

from symbi.errors import InputError
from symbi.types import JsonValue

MAX_SAFE_INTEGER: Final = 2**53 - 1  # RFC 8785, section 3.2.2.3: beyond it a number is not exact everywhere
MAX_DEPTH: Final = 64  # containers within containers; bounds recursion here and in whoever reads it
MAX_VALUES: Final = 1_000_000  # bounds time and memory, also where small containers are shared many times
MAX_PATH_PART: Final = 64  # characters of one key in an error message

_Path: TypeAlias = tuple[str | int, ...]

_encode: Final = msgspec.json.Encoder(order="sorted").encode
_decode: Final = msgspec.json.Decoder().decode


def canonical_json(value: JsonValue) -> bytes:
    """The RFC 8785 form of a value, in UTF-8.

    Tuples stand as arrays, any mapping as an object, members of string and integer enumerations as their values.

    Args:
        value: Strings, finite numbers, booleans, None, and lists, tuples and mappings of them.

    Raises:
        InputError: With the code `canonical.unrepresentable` and the path in `fields["field"]`: an integer beyond
            2^53-1, a number that is not finite, a lone surrogate, a key that is not a string or that stands twice,
            a value that is not JSON, nesting deeper than `MAX_DEPTH`, or more than `MAX_VALUES` values.
    """
    if _is_plain(value):
        try:
            return _encode(value)
        except UnicodeEncodeError:  # a lone surrogate: the walk below finds it again and names its place
            pass
    return rfc8785.dumps(_Walk().copy(value, (), 0))


def parse_canonical(data: bytes) -> JsonValue:
    """The value that these bytes are the canonical form of; inverse of `canonical_json`.

    An integer beyond 2^53-1 is read as the float whose canonical form it is.

    Raises:
        InputError: With the code `canonical.malformed`: not JSON, or JSON in another form, as with white space,
            unsorted or repeated keys, other escapes or another way to write a number.
    """
    try:
        value: Any = _decode(data)
        if _is_plain(value):
            again = _encode(value)  # a decoder leaves no lone surrogates
        else:
            value = json.loads(data, parse_int=_integer_or_float)
            again = canonical_json(value)
    except (ValueError, msgspec.MsgspecError, RecursionError) as error:
        msg = f"not JSON: {error}"
        raise InputError(msg, code="canonical.malformed") from error
    except InputError as error:
        raise InputError(error.message, code="canonical.malformed", field=error.fields.get("field")) from error
    if again != data:
        msg = "JSON that is not in its canonical form (RFC 8785)"
        raise InputError(msg, code="canonical.malformed")
    return value  # type: ignore[no-any-return] # a decoder's output, re-encoded just now


def _is_plain(value: object) -> bool:
    """Whether msgspec writes the value just as RFC 8785 does; lone surrogates aside, on which it raises."""
    level: list[Any] = [value]
    seen = 0
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for item in level:
            kind = type(item)
            if kind is dict:
                for key in item:
                    if type(key) is not str or not key.isascii():
                        return False
                children = item.values()
            elif kind is list or kind is tuple:
                children = item
            else:
                children = (item,)
            seen += len(children)
            for child in children:
                kind = type(child)
                if kind is str or kind is bool or child is None:
                    continue
                if kind is int:
                    if not -MAX_SAFE_INTEGER <= child <= MAX_SAFE_INTEGER:
                        return False
                elif kind is dict or kind is list or kind is tuple:
                    below.append(child)
                else:
                    return False
        if seen > MAX_VALUES:
            return False
        if not below:
            return True
        level = below
    return False


class _Walk:
    """Copies a value into the plain types that `rfc8785` takes, or says where it cannot stand."""

    def __init__(self) -> None:
        self._values = 0

    def copy(self, value: object, path: _Path, depth: int) -> Any:
        """A copy of the value; raises InputError with the path of what cannot be represented."""
        self._values += 1
        if self._values > MAX_VALUES:
            raise _unrepresentable(path, f"more than {MAX_VALUES} values")
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return _text(value, path)
        if isinstance(value, int):
            if not -MAX_SAFE_INTEGER <= value <= MAX_SAFE_INTEGER:
                raise _unrepresentable(path, "an integer beyond 2^53-1", hint="write it as a string")
            return int(value)
        if isinstance(value, float):
            if not math.isfinite(value):
                raise _unrepresentable(path, "a number that is not finite")
            return float(value)
        if not isinstance(value, Mapping | list | tuple):
            raise _unrepresentable(path, f"a value of type `{type(value).__name__}`")
        if depth >= MAX_DEPTH:
            raise _unrepresentable(path, f"nesting deeper than {MAX_DEPTH}")
        if isinstance(value, Mapping):
            return self._copy_mapping(value, path, depth)
        return [self.copy(item, (*path, index), depth + 1) for index, item in enumerate(value)]

    def _copy_mapping(self, value: Mapping[Any, object], path: _Path, depth: int) -> dict[str, Any]:
        copied: dict[str, Any] = {}
        for key, item in value.items():
            if not isinstance(key, str):
                raise _unrepresentable(path, f"a key of type `{type(key).__name__}`", hint="keys are strings")
            name = _text(key, path)
            if name in copied:
                raise _unrepresentable((*path, name), "a key that stands twice")
            copied[name] = self.copy(item, (*path, name), depth + 1)
        return copied


def _text(value: str, path: _Path) -> str:
    exact = str.__str__(value)  # the characters, whatever a subclass makes of `str()`
    try:
        exact.encode()
    except UnicodeEncodeError:
        raise _unrepresentable(path, "a lone surrogate") from None
    return exact


def _integer_or_float(text: str) -> int | float:
    number = int(text)
    return number if -MAX_SAFE_INTEGER <= number <= MAX_SAFE_INTEGER else float(number)


def _unrepresentable(path: _Path, what: str, *, hint: str | None = None) -> InputError:
    field = _spell(path)
    at = f"`{field}`" if field else "the value"
    return InputError(
        f"{at} cannot stand in canonical JSON: {what}", code="canonical.unrepresentable", hint=hint, field=field
    )


def _spell(path: _Path) -> str:
    """`arguments.items[2].amount`; keys that are not plain words stand in brackets, escaped and cut."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif part.isascii() and part.replace("-", "_").isidentifier() and len(part) <= MAX_PATH_PART:
            text += f".{part}" if text else part
        else:
            text += f"[{part[:MAX_PATH_PART]!a}]"
    return text
