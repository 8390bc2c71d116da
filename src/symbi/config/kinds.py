"""The kinds of value that a setting may have: how each is read from TOML, from text, and shown.

A kind judges and converts one value; it knows neither the key nor where the value came from. What it refuses is a
`BadValue`, which the loader turns into a `ConfigError` with key and place.
"""

import math
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Final, Generic, TypeVar
from urllib.parse import urlsplit

from symbi.errors import did_you_mean

T = TypeVar("T")
E = TypeVar("E", bound=StrEnum)

MAX_TEXT_CHARS: Final = 4096  # bounds one text value, also each part of a list
MAX_ITEMS: Final = 256  # bounds a list, and the variables of one tool server

_WHOLE: Final = re.compile(r"[+-]?\d+(_\d+)*", re.ASCII)
_SIZE: Final = re.compile(r"(\d+)\s*([kKMGT]?i?B)", re.ASCII)
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_UNITS: Final[Mapping[str, int]] = MappingProxyType(
    {"B": 1}
    | {f"{prefix}B": 1000**power for prefix, power in (("k", 1), ("K", 1), ("M", 2), ("G", 3), ("T", 4))}
    | {f"{prefix}iB": 1024**power for prefix, power in (("K", 1), ("M", 2), ("G", 3), ("T", 4))}
)
_TRUE: Final = frozenset({"true", "1", "enabled"})
_FALSE: Final = frozenset({"false", "0", "disabled"})


class BadValue(ValueError):
    """A value that a kind refuses.

    Args:
        message: What was expected and what was given, to be read after the name of the key.
        hint: What to write instead.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Secret:
    """A text that is handed on and never shown."""

    _value: str = field(repr=False)

    def reveal(self) -> str:
        """The text itself, for the one who sends it where it belongs."""
        return self._value

    def __str__(self) -> str:
        return "set"


@dataclass(frozen=True, slots=True)
class Kind(Generic[T]):
    """Base of all kinds; `base` is the folder that relative paths are seen from."""

    @property
    def name(self) -> str:
        """Type, range and unit, for the reference."""
        raise NotImplementedError

    def from_toml(self, value: object, base: Path) -> T:
        """Read a TOML value, with its type as it stands: nothing is converted on the quiet.

        Raises:
            BadValue: Another type, or out of range.
        """
        raise NotImplementedError

    def from_text(self, text: str, base: Path) -> T:
        """Read an environment variable or a command-line value.

        Raises:
            BadValue: It does not spell a value of this kind.
        """
        return self.from_toml(text, base)

    def anchor(self, value: T, base: Path) -> T:
        """A default as it is meant beside this configuration file."""
        del base
        return value

    def show(self, value: T) -> str:
        """The value as text that `from_text` reads back, unless it is secret."""
        return str(value)


@dataclass(frozen=True, slots=True)
class Flag(Kind[bool]):
    """A boolean; the environment may also say `enabled` and `disabled`, as the seed does."""

    @property
    def name(self) -> str:
        """For the reference."""
        return "boolean"

    def from_toml(self, value: object, base: Path) -> bool:
        """`true` or `false`."""
        del base
        if not isinstance(value, bool):
            raise BadValue(f"must be true or false, not {describe(value)}")
        return value

    def from_text(self, text: str, base: Path) -> bool:
        """`true`, `1`, `enabled` or their opposites, in any case."""
        del base
        word = text.strip().lower()
        if word not in _TRUE | _FALSE:
            raise BadValue(
                f"must be true or false, not {describe(text)}", "`1`/`0` and `enabled`/`disabled` do as well"
            )
        return word in _TRUE

    def show(self, value: bool) -> str:  # noqa: FBT001 - the value is what is shown
        """As TOML writes it."""
        return "true" if value else "false"


@dataclass(frozen=True, slots=True)
class Whole(Kind[int]):
    """An integer from `low` to `high`, in `unit`."""

    low: int
    high: int
    unit: str = ""

    @property
    def name(self) -> str:
        """For the reference."""
        return f"integer, {self.low} to {self.high}{_after(self.unit)}"

    def from_toml(self, value: object, base: Path) -> int:
        """An integer; a boolean or a float is none."""
        del base
        if isinstance(value, bool) or not isinstance(value, int):
            raise BadValue(f"must be an integer{_in(self.unit)}, not {describe(value)}")
        if not self.low <= value <= self.high:
            raise BadValue(f"must be from {self.low} to {self.high}{_after(self.unit)}, not {describe(value)}")
        return value

    def from_text(self, text: str, base: Path) -> int:
        """Digits with `_` between them."""
        if not _WHOLE.fullmatch(text.strip()) or len(text) > MAX_TEXT_CHARS:
            raise BadValue(f"must be an integer{_in(self.unit)}, not {describe(text)}")
        return self.from_toml(int(text), base)


@dataclass(frozen=True, slots=True)
class Real(Kind[float]):
    """A finite number from `low` to `high`, in `unit`."""

    low: float
    high: float
    unit: str = ""

    @property
    def name(self) -> str:
        """For the reference."""
        return f"number, {self.low:.12g} to {self.high:.12g}{_after(self.unit)}"

    def from_toml(self, value: object, base: Path) -> float:
        """A float or an integer."""
        del base
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise BadValue(f"must be a number{_in(self.unit)}, not {describe(value)}")
        if not (math.isfinite(value) and self.low <= value <= self.high):
            raise BadValue(
                f"must be from {self.low:.12g} to {self.high:.12g}{_after(self.unit)}, not {describe(value)}"
            )
        return float(value)

    def from_text(self, text: str, base: Path) -> float:
        """As TOML writes a number."""
        try:
            number = float(text)
        except ValueError as error:
            raise BadValue(f"must be a number{_in(self.unit)}, not {describe(text)}") from error
        return self.from_toml(number, base)

    def show(self, value: float) -> str:
        """Without a needless fraction."""
        return f"{value:.12g}"


@dataclass(frozen=True, slots=True)
class ByteSize(Kind[int]):
    """A number of bytes, as an integer or as text with a unit."""

    low: int
    high: int

    @property
    def name(self) -> str:
        """For the reference."""
        return "size: bytes, or text such as `1GB` (10^9) or `512MiB` (2^20)"

    def from_toml(self, value: object, base: Path) -> int:
        """An integer or a text."""
        if isinstance(value, str):
            return self.from_text(value, base)
        if isinstance(value, bool) or not isinstance(value, int):
            raise BadValue(f"must be a size, not {describe(value)}", "write bytes or a text such as `1GB` or `512MiB`")
        if not self.low <= value <= self.high:
            raise BadValue(f"must be from {self.low} to {self.high} bytes, not {describe(value)}")
        return value

    def from_text(self, text: str, base: Path) -> int:
        """Digits, alone or with a unit."""
        stripped = text.strip()
        if len(stripped) <= MAX_TEXT_CHARS and _WHOLE.fullmatch(stripped):
            return self.from_toml(int(stripped), base)
        match = _SIZE.fullmatch(stripped[:MAX_TEXT_CHARS])
        if match is None or match[2] not in _UNITS:
            raise BadValue(f"must be a size, not {describe(text)}", "write bytes or a text such as `1GB` or `512MiB`")
        return self.from_toml(int(match[1]) * _UNITS[match[2]], base)


@dataclass(frozen=True, slots=True)
class Text(Kind[str]):
    """A text of one line that is not empty."""

    meaning: str = "text"

    @property
    def name(self) -> str:
        """For the reference."""
        return self.meaning

    def from_toml(self, value: object, base: Path) -> str:
        """A string."""
        del base
        return _line(value, self.meaning)


@dataclass(frozen=True, slots=True)
class Address(Kind[str]):
    """A URL of one of these schemes, without credentials: it is shown, so it must hold no secret."""

    schemes: tuple[str, ...]

    @property
    def name(self) -> str:
        """For the reference."""
        return f"URL: {_listed(f'{scheme}:' for scheme in self.schemes)}"

    def from_toml(self, value: object, base: Path) -> str:
        """A string with a known scheme, and a host where the scheme has one."""
        del base
        text = _line(value, "a URL")
        try:
            parts = urlsplit(text)
            credentials = "@" in parts.netloc
            _ = parts.port
        except ValueError as error:
            raise BadValue("must be a URL, and cannot be read as one") from error
        if credentials:
            raise BadValue("holds credentials, which are shown and logged with a URL")
        if parts.scheme not in self.schemes:
            raise BadValue(f"must begin with one of {_listed(f'{one}:' for one in self.schemes)}, not {describe(text)}")
        if parts.scheme in {"http", "https"} and not parts.hostname:
            raise BadValue(f"names no host: {describe(text)}")
        return text


@dataclass(frozen=True, slots=True)
class OneOf(Kind[E]):
    """One word of an enumeration; `aliases` are further spellings."""

    words: type[E]
    aliases: Mapping[str, E] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """For the reference."""
        aliases = "".join(f", `{alias}` for `{word.value}`" for alias, word in sorted(self.aliases.items()))
        return f"one of {_listed(word.value for word in self.words)}{aliases}"

    def from_toml(self, value: object, base: Path) -> E:
        """A string that is one of the words."""
        del base
        known = {word.value: word for word in self.words} | dict(self.aliases)
        if not isinstance(value, str) or value not in known:
            hint = did_you_mean(value, known) if isinstance(value, str) else ""
            raise BadValue(f"must be one of {_listed(known)}, not {describe(value)}", hint)
        return known[value]

    def from_text(self, text: str, base: Path) -> E:
        """The word, in any case."""
        return self.from_toml(text.strip().lower(), base)

    def show(self, value: E) -> str:
        """The word."""
        return value.value


@dataclass(frozen=True, slots=True)
class FilePath(Kind[Path]):
    """A path; a relative one is seen from the folder of the configuration file."""

    @property
    def name(self) -> str:
        """For the reference."""
        return "path"

    def from_toml(self, value: object, base: Path) -> Path:
        """A string or a path."""
        text = _line(str(value) if isinstance(value, Path) else value, "a path")
        if text.startswith("~"):
            raise BadValue(f"must be a path, not {describe(text)}", "`~` is not expanded; write the folder out")
        return base / text

    def anchor(self, value: Path, base: Path) -> Path:
        """Likewise."""
        return base / value


@dataclass(frozen=True, slots=True)
class Several(Kind[tuple[T, ...]]):
    """A list of one kind; in text, separated by commas. An empty text is an empty list."""

    item: Kind[T]

    @property
    def name(self) -> str:
        """For the reference."""
        return f"list: {self.item.name}"

    def from_toml(self, value: object, base: Path) -> tuple[T, ...]:
        """A list without repetitions."""
        if not isinstance(value, list | tuple):
            raise BadValue(f"must be a list, not {describe(value)}", "write it in brackets")
        if len(value) > MAX_ITEMS:
            raise BadValue(f"has {len(value)} entries; at most {MAX_ITEMS} are allowed")
        items = tuple(self.item.from_toml(part, base) for part in value)
        for index, one in enumerate(items):
            if one in items[:index]:
                raise BadValue(f"names `{self.item.show(one)}` twice")
        return items

    def from_text(self, text: str, base: Path) -> tuple[T, ...]:
        """Parts between commas."""
        parts = [part.strip() for part in text.split(",")] if text.strip() else []
        return self.from_toml([self.item.show(self.item.from_text(part, base)) for part in parts], base)

    def anchor(self, value: tuple[T, ...], base: Path) -> tuple[T, ...]:
        """Each."""
        return tuple(self.item.anchor(one, base) for one in value)

    def show(self, value: tuple[T, ...]) -> str:
        """With commas."""
        return ", ".join(self.item.show(one) for one in value)


@dataclass(frozen=True, slots=True)
class Command(Kind[tuple[str, ...]]):
    """A program and its arguments, started without a shell.

    `{python}` stands for the interpreter that runs Symbi. A program with a slash in it is seen from the folder of the
    configuration file, one without is looked for on PATH. `${…}` is refused: nothing here expands it.
    """

    @property
    def name(self) -> str:
        """For the reference."""
        return "list of texts: program and arguments"

    def from_toml(self, value: object, base: Path) -> tuple[str, ...]:
        """A list with at least one string."""
        if not isinstance(value, list | tuple) or not value:
            raise BadValue(f"must be a list with a program and its arguments, not {describe(value)}")
        if len(value) > MAX_ITEMS:
            raise BadValue(f"has {len(value)} entries; at most {MAX_ITEMS} are allowed")
        parts = []
        for part in value:
            if not isinstance(part, str) or "\0" in part or len(part) > MAX_TEXT_CHARS:
                raise BadValue(f"must hold texts only, not {describe(part)}")
            if "${" in part:
                raise BadValue(f"holds {describe(part)}, but `${{…}}` is not expanded", "`{python}` is the interpreter")
            parts.append(part.replace("{python}", sys.executable))
        program = _line(parts[0], "a program")
        if "/" in program:
            program = str(base / program)
        return (program, *parts[1:])

    def show(self, value: tuple[str, ...]) -> str:
        """As one line."""
        return " ".join(value)


@dataclass(frozen=True, slots=True)
class Variables(Kind[tuple[tuple[str, str], ...]]):
    """Environment variables for a tool server; `vault://…` values are resolved when it is started."""

    @property
    def name(self) -> str:
        """For the reference."""
        return "table of texts"

    def from_toml(self, value: object, base: Path) -> tuple[tuple[str, str], ...]:
        """A table from names to strings."""
        del base
        if not isinstance(value, dict):
            raise BadValue(f"must be a table of texts, not {describe(value)}", 'write { NAME = "value" }')
        if len(value) > MAX_ITEMS:
            raise BadValue(f"has {len(value)} entries; at most {MAX_ITEMS} are allowed")
        for name, text in value.items():
            if not _VARIABLE.fullmatch(name):
                raise BadValue(f"holds {describe(name)}, which is no name of a variable")
            if not isinstance(text, str) or "\0" in text or len(text) > MAX_TEXT_CHARS:
                raise BadValue(f"must hold texts only; `{name}` is none")
        return tuple(sorted(value.items()))

    def show(self, value: tuple[tuple[str, str], ...]) -> str:
        """Names only: values may be secret."""
        return ", ".join(f"{name} (set)" for name, _ in value)


@dataclass(frozen=True, slots=True)
class SecretText(Kind[Secret]):
    """A secret; it comes from the environment alone."""

    @property
    def name(self) -> str:
        """For the reference."""
        return "secret text"

    def from_toml(self, value: object, base: Path) -> Secret:
        """Never: a file is no place for it."""
        del value, base
        raise BadValue("is secret and is read from the environment only")

    def from_text(self, text: str, base: Path) -> Secret:
        """As it stands."""
        del base
        return Secret(text)

    def show(self, value: Secret) -> str:
        """That it is there."""
        return str(value)


def describe(value: object) -> str:
    """A refused value as messages name it: its text in backticks, shortened; its type where it has parts."""
    if isinstance(value, bool):
        return "`true`" if value else "`false`"
    if isinstance(value, str):
        shown = value if len(value) <= 60 else value[:57] + "…"  # noqa: PLR2004 - keeps a message on one line
        return f"the text `{shown}`" if shown.isprintable() else f"a text of {len(value)} characters"
    if isinstance(value, int) and value.bit_length() > 64:  # noqa: PLR2004 - what TOML promises to carry
        return f"an integer of {value.bit_length()} bits"
    if isinstance(value, int | float):
        return f"`{value}`"
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "a table"
    return f"a {type(value).__name__}"


def _line(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise BadValue(f"must be {what}, not {describe(value)}", "write it in quotes")
    if not value.strip() or len(value) > MAX_TEXT_CHARS or not value.isprintable():
        raise BadValue(f"must be {what} of 1 to {MAX_TEXT_CHARS} characters on one line, not {describe(value)}")
    return value


def _after(unit: str) -> str:
    return f" {unit}" if unit else ""


def _in(unit: str) -> str:
    return f" ({unit})" if unit else ""


def _listed(words: Iterable[str]) -> str:
    return ", ".join(f"`{word}`" for word in words)
