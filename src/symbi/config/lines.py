"""Where each key of a TOML text stands; `tomllib` gives values without places."""

import tomllib
from bisect import bisect_right
from collections.abc import Mapping
from typing import Final

_BARE_END: Final = frozenset(" \t.=]")
_BLANK: Final = " \t"
_SPACE: Final = " \t\r\n"

Position = tuple[int, int]
"""1-based line and column."""


def key_places(text: str) -> Mapping[tuple[str, ...], Position]:
    """Find the keys and table headers of a text.

    Args:
        text: Valid TOML: `tomllib` has read it. What is no TOML gives no meaningful answer.

    Returns:
        The position of each key by its full path, and of each table by its header or, without one, its first key.
        Tables of an array of tables share one path.
    """
    return _Scanner(text).scan()


class _Scanner:
    """Walks over the text once; strings, comments and brackets are stepped over."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._starts = [0, *(i + 1 for i, char in enumerate(text) if char == "\n")]
        self._found: dict[tuple[str, ...], Position] = {}

    def scan(self) -> Mapping[tuple[str, ...], Position]:
        table: tuple[str, ...] = ()
        while self._skip(_SPACE):
            start = self._at
            if self._text[start] == "#":
                self._comment()
            elif self._text[start] == "[":
                self._skip("[" + _BLANK)
                table = self._path()
                self._note(table, start)
                self._skip("]" + _BLANK)
            else:
                self._pair(table)
        return self._found

    def _pair(self, table: tuple[str, ...]) -> None:
        start = self._at
        path = table + self._path()
        self._note(path, start)
        self._at += 1  # the equals sign
        self._skip(_BLANK)
        self._value(path)

    def _path(self) -> tuple[str, ...]:
        """A dotted key; ends on what follows it."""
        parts = []
        while True:
            self._skip(_BLANK)
            parts.append(self._part())
            self._skip(_BLANK)
            if self._peek() != ".":
                return tuple(parts)
            self._at += 1

    def _part(self) -> str:
        start = self._at
        if self._peek() in {'"', "'"}:
            self._string()
            return str(tomllib.loads(f"key = {self._text[start : self._at]}")["key"])
        while self._at < len(self._text) and self._text[self._at] not in _BARE_END:
            self._at += 1
        return self._text[start : self._at]

    def _value(self, path: tuple[str, ...]) -> None:
        """Step over one value, up to what ends it."""
        char = self._peek()
        if char == "[":
            self._at += 1
            while self._between("]"):
                self._value(path)
        elif char == "{":
            self._at += 1
            while self._between("}"):
                self._pair(path)
        elif char in {'"', "'"}:
            self._string()
        else:
            while self._at < len(self._text) and self._text[self._at] not in ",]}#\n":
                self._at += 1

    def _between(self, end: str) -> bool:
        """Step over white space, commas and comments inside brackets; False, and past it, at their end."""
        while self._skip(_SPACE + ","):
            if self._peek() == "#":
                self._comment()
                continue
            if self._peek() != end:
                return True
            self._at += 1
            return False
        return False

    def _string(self) -> None:
        quote = self._text[self._at]
        fence = quote * 3 if self._text.startswith(quote * 3, self._at) else quote
        self._at += len(fence)
        while self._at < len(self._text) and not self._text.startswith(fence, self._at):
            self._at += 2 if quote == '"' and self._text[self._at] == "\\" else 1
        self._at += len(fence)
        while len(fence) > 1 and self._peek() == quote:  # up to two quotes may stand before the closing three
            self._at += 1

    def _comment(self) -> None:
        end = self._text.find("\n", self._at)
        self._at = len(self._text) if end < 0 else end

    def _peek(self) -> str:
        return self._text[self._at] if self._at < len(self._text) else ""

    def _skip(self, chars: str) -> bool:
        """Step over any of these characters; whether something is left."""
        while self._at < len(self._text) and self._text[self._at] in chars:
            self._at += 1
        return self._at < len(self._text)

    def _note(self, path: tuple[str, ...], at: int) -> None:
        line = bisect_right(self._starts, at)
        position = (line, at - self._starts[line - 1] + 1)
        for length in range(1, len(path) + 1):
            self._found.setdefault(path[:length], position)
