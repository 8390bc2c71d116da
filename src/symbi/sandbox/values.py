"""What may cross the border of a sandbox: JSON within bounds, copied one by one.

A value from a sandbox is hostile. It may share its parts, so that a few kilobytes there stand for exabytes here once
somebody encodes, compares or prints them; it may nest deeper than our stack. The copy counts every visit, not every
object, and stops at the first bound that it meets.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Final, TypeAlias

from symbi.errors import SymbiError
from symbi.types import JsonValue

MAX_EXACT_INT: Final = 2**53 - 1  # larger integers do not survive canonical JSON (RFC 8785, section 3.2.2.3)
MAX_PATH_CHARS: Final = 120  # bounds how much of a path into a value an error shows
_SCALAR_BYTES: Final = 4  # what null, true and most numbers take at least
_STRINGS: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
"""Texts in JSON. One that nothing closes goes on to the end: it is not looked for again from each quote within, or a
megabyte of them would take hours."""
_PARTS: Final = (b",", b"[", b"{")

_Path: TypeAlias = "tuple[_Path, str | int] | None"


@dataclass(frozen=True, slots=True)
class JsonBounds:
    """How large a value may be.

    Attributes:
        max_bytes: Bytes of its text in UTF-8, keys included, without escapes.
        max_items: Values in it, itself included.
        max_depth: Lists and objects around its innermost value.
    """

    max_bytes: int
    max_items: int
    max_depth: int


def has_more_parts(data: bytes, most: int) -> bool:
    """Whether JSON that is not parsed yet has more separators and brackets outside of its texts than so many.

    Args:
        data: Anything; what is no JSON is looked at no longer.
        most: How many there may be.
    """
    if sum(map(data.count, _PARTS)) <= most:
        return False
    bare = _STRINGS.sub(b"", data)
    return sum(map(bare.count, _PARTS)) > most


def copy_json(
    value: object,
    bounds: JsonBounds,
    *,
    wrong: type[SymbiError],
    large: type[SymbiError],
) -> JsonValue:
    """Copy a value into plain lists, dicts and scalars that share nothing.

    Tuples and other sequences become lists, as in `json`; mappings become dicts. An integer beyond 2^53 - 1, a float
    that is not finite, a key that is no text, a text with a lone surrogate, and anything else is not JSON.

    Raises:
        wrong: It is not JSON; the message names the place in it.
        large: It exceeds a bound.
    """
    return _Copy(bounds, wrong, large).of(value, 0, None)


class _Copy:
    """One copy and what is left of its bounds."""

    __slots__ = ("_bounds", "_bytes", "_items", "_large", "_wrong")

    def __init__(self, bounds: JsonBounds, wrong: type[SymbiError], large: type[SymbiError]) -> None:
        self._bounds = bounds
        self._wrong = wrong
        self._large = large
        self._bytes = bounds.max_bytes
        self._items = bounds.max_items

    def of(self, value: object, depth: int, path: _Path) -> JsonValue:
        self._items -= 1
        if self._items < 0:
            msg = f"the value has more than {self._bounds.max_items} parts"
            raise self._large(msg, max_items=self._bounds.max_items)
        if isinstance(value, str):
            self._spend_text(value, path)
            return value
        if value is None or isinstance(value, bool):
            self._spend(_SCALAR_BYTES)
            return value
        if isinstance(value, int):
            return self._integer(value, path)
        if isinstance(value, float):
            return self._float(value, path)
        if depth >= self._bounds.max_depth:
            msg = f"the value nests deeper than {self._bounds.max_depth}"
            raise self._wrong(msg)
        if isinstance(value, Mapping):
            return self._object(value, depth, path)
        if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
            self._spend(2)
            return [self.of(item, depth + 1, (path, index)) for index, item in enumerate(value)]
        raise self._not_json(f"a {type(value).__name__}", path, _HINTS.get(type(value)))

    def _integer(self, value: int, path: _Path) -> int:
        if not -MAX_EXACT_INT <= value <= MAX_EXACT_INT:
            raise self._not_json("an integer beyond 2^53 - 1", path, "give it as text: `str(…)`")
        self._spend(_SCALAR_BYTES)
        return value

    def _float(self, value: float, path: _Path) -> float:
        if not isfinite(value):
            raise self._not_json("a float that is not finite", path, "give null or a text instead")
        self._spend(_SCALAR_BYTES)
        return value

    def _object(self, value: Mapping[object, object], depth: int, path: _Path) -> dict[str, JsonValue]:
        self._spend(2)
        copied: dict[str, JsonValue] = {}
        for key, item in value.items():
            if not isinstance(key, str):
                raise self._not_json(f"a key of type {type(key).__name__}", path, "keys are text: `str(…)`")
            self._spend_text(key, path)
            copied[key] = self.of(item, depth + 1, (path, key))
        return copied

    def _spend_text(self, text: str, path: _Path) -> None:
        self._spend(len(text) + 2)  # before the encoding, which may be up to four times as large
        try:
            self._spend(len(text.encode()) - len(text))
        except UnicodeEncodeError:
            raise self._not_json("a text with a lone surrogate", path, None) from None

    def _spend(self, count: int) -> None:
        self._bytes -= count
        if self._bytes < 0:
            msg = f"the value is larger than {self._bounds.max_bytes} bytes"
            raise self._large(msg, max_bytes=self._bounds.max_bytes)

    def _not_json(self, what: str, path: _Path, hint: str | None) -> SymbiError:
        return self._wrong(f"{what} at `{_shown(path)}` is not JSON", hint=hint)


_HINTS: Final[Mapping[type, str]] = {
    set: "give a list: `sorted(…)`",
    frozenset: "give a list: `sorted(…)`",
    bytes: "give text: `.decode()`",
}


def _shown(path: _Path) -> str:
    """A path as `$.rows[3].name`, its end kept where it is long."""
    steps: list[str] = []
    while path is not None:
        path, step = path
        steps.append(f"[{step}]" if isinstance(step, int) else f".{step}")
    text = "".join(reversed(steps))
    return f"${text}" if len(text) <= MAX_PATH_CHARS else f"$…{text[-MAX_PATH_CHARS:]}"
