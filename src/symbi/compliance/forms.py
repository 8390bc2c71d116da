"""What is searched for when nothing of a person may be left: values, and the forms in which they may stand.

A value is looked for as it is and as other software may have written it: in other cases and normal forms (where a person
gave it), in Latin-1 and UTF-16, escaped as JSON (also twice), in percent-encoding, in hexadecimal and in base64 at each of
its three alignments.

Not every text that was opened tells of somebody: `approved`, `2026-01-02` or an effect id stand in every trail. Such
ordinary words are looked for too, and told apart, so that a find of one is for a person to judge.
"""

import base64
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final
from urllib.parse import quote

from symbi.types import JsonValue

LEAST_CHARS: Final = 4  # shorter texts stand in every file
LEAST_DIGITS: Final = 9  # of a number that tells of somebody: fewer stand in every time and count
LEAST_HEX: Final = 12  # digits of a value in hexadecimal, and
LEAST_BASE64: Final = 8  # in base64: fewer come up by chance among hashes and signatures
LONG_CHARS: Final = 64  # a longer text is looked for in pieces, of which a copy of a part holds one whole
PIECE_CHARS: Final = 32
MAX_DEPTH: Final = 64  # nesting of a value; the store takes no deeper ones

_ORDINARY: Final = re.compile(
    r"[a-z][a-z_.-]{0,19}|[A-Z_]{1,20}"  # a word of a program or a sentence
    r"|[-+]?[0-9]{1,8}(\.[0-9]{1,8})?"  # a small number
    r"|[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9:.]{1,18}(Z|[-+][0-9:]{1,6})?)?"  # a day or a time
    r"|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{64}"  # an id or a digest, as the trail has them
)
_MAIL: Final = re.compile(r"[^\s<>\"'(),;:]+@[^\s<>\"'(),;:]+\.[^\s<>\"'(),;:]+[^\s<>\"'(),;:.]")


class Sought(StrEnum):
    """Why something is looked for."""

    NAME = "name"
    """The name of the subject."""
    GIVEN = "given"
    """A value that whoever asked has named."""
    OPENED = "opened"
    """A value that was opened before its key was destroyed."""
    KEY = "key"
    """A destroyed key, as it was kept."""
    ORDINARY = "ordinary"
    """A word among what was opened that tells of nobody by itself."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """Bytes to look for.

    Attributes:
        data: The bytes.
        sought: Why.
        form: How the value stands in them, e.g. `base64`.
        value: Number of the value, or of the piece of one, that it is a form of.
        whole: Digits beside it make it another number.
    """

    data: bytes
    sought: Sought
    form: str
    value: int = 0
    whole: bool = False


@dataclass(slots=True)
class Wanted:
    """What is to be looked for, gathered.

    Attributes:
        patterns: By their bytes; the gravest reason counts.
        values: How many values there are, by reason.
        too_short: How many were too short to look for.
        left_out: How many were left out because there were too many.
        shared: How many stand in texts of the operator too, and count as ordinary words.
    """

    max_patterns: int
    patterns: dict[bytes, Pattern]
    values: dict[Sought, int]
    too_short: int = 0
    left_out: int = 0
    shared: int = 0
    _number: int = 0
    _seen: set[str] = field(default_factory=set)

    @classmethod
    def empty(cls, max_patterns: int) -> "Wanted":
        """Nothing yet."""
        return cls(max_patterns, {}, {})

    def add_text(self, text: str, sought: Sought) -> None:
        """A name, or a value that a person gave: in each case and normal form, however short."""
        if not text:
            return
        self.values[sought] = self.values.get(sought, 0) + 1
        cases = {text, text.lower(), text.upper(), text.title()}
        spelt = {unicodedata.normalize(form, one) for one in cases for form in ("NFC", "NFD")} | cases
        for one in sorted(spelt):
            self._add(forms_of(one), sought)

    def add_secret(self, data: bytes) -> None:
        """Bytes of which nothing may be left."""
        self.values[Sought.KEY] = self.values.get(Sought.KEY, 0) + 1
        self._add(_byte_forms(data), Sought.KEY)

    def add_opened(self, value: JsonValue) -> None:
        """What stands in a value that was opened: its texts and numbers, long texts in pieces."""
        for leaf in leaves_of(value):
            if leaf in self._seen:  # the same value stands in the trail, the ledger and the request
                continue
            self._seen.add(leaf)
            if len(leaf) < LEAST_CHARS:
                self.too_short += 1
                continue
            if len(self.patterns) >= self.max_patterns:
                self.left_out += 1
                continue
            sought = Sought.ORDINARY if _ORDINARY.fullmatch(leaf) else Sought.OPENED
            self.values[sought] = self.values.get(sought, 0) + 1
            for piece in pieces_of(leaf):
                self._add(forms_of(piece), sought)

    def _add(self, forms: Iterable[tuple[str, bytes]], sought: Sought) -> None:
        order = list(Sought)
        self._number += 1
        for form, data in forms:
            there = self.patterns.get(data)
            if there is None or order.index(sought) < order.index(there.sought):
                self.patterns[data] = Pattern(data, sought, form, self._number, form == "plain" and data.isdigit())


def leaves_of(value: JsonValue) -> Iterator[str]:
    """The texts and numbers in a value; a text that is itself JSON is read too. Names of fields are not values."""
    stack: list[tuple[JsonValue, int]] = [(value, 0)]
    while stack:
        item, depth = stack.pop()
        if depth > MAX_DEPTH or item is None or isinstance(item, bool):
            continue
        if isinstance(item, str):
            yield item
            if (inner := _read(item)) is not None:
                stack.append((inner, depth + 1))
        elif isinstance(item, int | float):
            text = repr(item)
            if len(text) >= LEAST_DIGITS:
                yield text
        elif isinstance(item, Mapping):
            stack.extend((one, depth + 1) for one in item.values())
        elif isinstance(item, Sequence):
            stack.extend((one, depth + 1) for one in item)


def pieces_of(text: str) -> Iterator[str]:
    """A text; of a long one, parts that lie side by side, and the mail addresses in it."""
    if len(text) <= LONG_CHARS:
        yield text
    else:
        for start in range(0, len(text) - PIECE_CHARS + 1, PIECE_CHARS):
            if (piece := text[start : start + PIECE_CHARS]).strip():
                yield piece
    for found in _MAIL.finditer(text):
        yield found.group()


def forms_of(text: str) -> Iterator[tuple[str, bytes]]:
    """A text as it may stand in a file: (name of the form, bytes)."""
    plain = text.encode("utf-8", "surrogatepass")
    yield "plain", plain
    latin = text.encode("latin-1", "ignore")
    if latin != plain and len(latin) == len(text):
        yield "latin-1", latin
    for name in ("utf-16-le", "utf-16-be"):
        yield name, text.encode(name, "surrogatepass")
    for ascii_only in (True, False):
        escaped = text
        for _ in range(2):  # JSON in JSON is how tools answer
            escaped = json.dumps(escaped, ensure_ascii=ascii_only)[1:-1]
            if (data := escaped.encode("utf-8", "surrogatepass")) != plain:
                yield "json", data
    for safe in ("", "/", "/@:"):
        if (data := quote(plain, safe=safe).encode()) != plain:
            yield "percent", data
            yield "percent", re.sub(rb"%..", lambda found: found.group().lower(), data)
            yield "percent", data.replace(b"%20", b"+")
    yield from _encoded(plain)


def _byte_forms(data: bytes) -> Iterator[tuple[str, bytes]]:
    yield "plain", data
    yield from _encoded(data)


def _encoded(data: bytes) -> Iterator[tuple[str, bytes]]:
    hexadecimal = data.hex().encode()
    if len(hexadecimal) >= LEAST_HEX:
        yield "hex", hexadecimal
        yield "hex", hexadecimal.upper()
    for before in range(3):
        # Characters that also hold bits of what stands before or after are not the value's own.
        first, bits = -(-before * 8 // 6), (before + len(data)) * 8
        core = base64.b64encode(bytes(before) + data)[first : bits // 6]
        if len(core) >= LEAST_BASE64:
            yield "base64", core
            yield "base64", core.translate(bytes.maketrans(b"+/", b"-_"))


def _read(text: str) -> JsonValue:
    if text[:1] not in {"{", "["}:
        return None
    try:
        value: JsonValue = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value
