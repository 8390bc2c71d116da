"""Takes a TOML document apart strictly; a complaint names the file, the line, the key and the reason."""

import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NoReturn, TypeAlias, TypeVar

from symbi.errors import InputError, Place, did_you_mean

_T = TypeVar("_T")

Path: TypeAlias = tuple[str | int, ...]
"""Keys from the root; a number is the place of a table in a list of tables."""

MAX_TEXT_CHARS: Final = 2_000  # of one text of a framework
CODE: Final = "compliance.framework"


def parse_document(file: str, text: str) -> Mapping[str, Any]:
    """A TOML document.

    Raises:
        InputError: It is not TOML; the place says where.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"line (\d+), column (\d+)", str(error))
        line, column = (int(found[1]), int(found[2])) if found else (max(len(text.splitlines()), 1), 1)
        msg = f"not TOML: {re.sub(r' ?[(]at .*', '', str(error)).lower()}"
        raise InputError(msg, code=CODE, place=Place(file, line, column)) from error
    except RecursionError as error:
        msg = "a value is nested too deeply"
        raise InputError(msg, code=CODE, place=Place(file, 1, 1)) from error


class Reader:
    """Reads values of a document by their keys.

    Args:
        file: Its name as the user gave it.
        text: The document, for the lines.
    """

    def __init__(self, file: str, text: str) -> None:
        self._file = file
        self._lines = text.splitlines()

    def allow(self, table: Mapping[str, Any], known: Iterable[str], path: Path) -> None:
        """Refuse keys that are not known."""
        known = tuple(known)
        for key in table:
            if key not in known:
                hint = did_you_mean(key, known) or f"known keys: {', '.join(known)}"
                self.fail(f"unknown key `{dotted((*path, key))}`", (*path, key), hint=hint)

    def text(self, table: Mapping[str, Any], key: str, path: Path, default: str | None = None) -> str:
        """A text, trimmed; of one that has no default, at least one character."""
        value = table.get(key, default)
        if value is None:
            self.fail(f"`{dotted((*path, key))}` is missing", path)
        if not isinstance(value, str) or len(value) > MAX_TEXT_CHARS:
            self.fail(f"`{dotted((*path, key))}` must be a text of at most {MAX_TEXT_CHARS} characters", (*path, key))
        words = " ".join(value.split())
        if not words and default is None:
            self.fail(f"`{dotted((*path, key))}` is empty", (*path, key))
        if not words.isprintable():
            self.fail(f"`{dotted((*path, key))}` has control characters", (*path, key))
        return words

    def name(self, table: Mapping[str, Any], key: str, path: Path, form: re.Pattern[str], hint: str) -> str:
        """An id of some form."""
        value = self.text(table, key, path)
        if form.fullmatch(value) is None:
            self.fail(f"`{value}` is no id", (*path, key), hint=hint)
        return value

    def texts(self, table: Mapping[str, Any], key: str, path: Path) -> tuple[str, ...]:
        """A list of texts; empty where it is not given."""
        value = table.get(key, [])
        if not isinstance(value, list) or not all(isinstance(one, str) and one.strip() for one in value):
            self.fail(f"`{dotted((*path, key))}` must be a list of texts", (*path, key))
        return tuple(" ".join(one.split()) for one in value)

    def number(
        self, table: Mapping[str, Any], key: str, path: Path, *, least: int, default: int | None = None
    ) -> int | None:
        """A whole number from `least` up, or the default."""
        value = table.get(key, default)
        if value is not None and (type(value) is not int or not least <= value <= 2**53):
            self.fail(f"`{dotted((*path, key))}` must be a whole number from {least} up", (*path, key))
        return value

    def table(self, parent: Mapping[str, Any], key: str, path: Path) -> Mapping[str, Any]:
        """A table; empty where it is not given."""
        found = parent.get(key, {})
        if not isinstance(found, dict):
            self.fail(f"`{dotted((*path, key))}` must be a table", (*path, key))
        return found

    def tables(self, parent: Mapping[str, Any], key: str, path: Path) -> list[Mapping[str, Any]]:
        """A list of tables; empty where it is not given."""
        found = parent.get(key, [])
        if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
            self.fail(f"`{dotted((*path, key))}` must be a list of tables: `[[{key}]]`", (*path, key))
        return found

    def each(
        self, parent: Mapping[str, Any], key: str, path: Path, read: Callable[[Mapping[str, Any], Path], _T]
    ) -> tuple[_T, ...]:
        """What a list of tables says, each table read by a function that is given its path."""
        return tuple(read(one, (*path, key, number)) for number, one in enumerate(self.tables(parent, key, path)))

    def fail(self, message: str, path: Path, *, hint: str | None = None) -> NoReturn:
        """Refuse the document, at the line of a key.

        Raises:
            InputError: Always.
        """
        raise InputError(message, code=CODE, place=Place(self._file, self._line(path), 1), hint=hint)

    def _line(self, path: Path) -> int:
        """The line of a key: the header of its list's table, and below it the first line that has the key."""
        start, lists = 0, ""
        for at, key in enumerate(path):
            if isinstance(key, int):
                header = re.compile(rf"\s*\[\[\s*{re.escape(lists)}\s*\]\]")
                found = [number for number in range(start, len(self._lines)) if header.match(self._lines[number])]
                start = found[min(key, len(found) - 1)] if found else start
                continue
            lists = f"{lists}.{key}" if lists else key
            if at + 1 < len(path) and isinstance(path[at + 1], int):
                continue
            name = rf"(?<![\w.-])[\"']?{re.escape(key)}[\"']?\s*[=.\]]"
            pattern = re.compile(name)
            start = next((n for n in range(start, len(self._lines)) if pattern.search(self._lines[n])), start)
        return start + 1


def dotted(path: Path) -> str:
    """A path as people write it; tables of a list are counted from 1."""
    shown = ""
    for key in path:
        shown += f"[{key + 1}]" if isinstance(key, int) else f".{key}" if shown else key
    return shown
