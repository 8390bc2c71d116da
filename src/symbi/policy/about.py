"""Whom values are about: the names of data subjects, and where the arguments and answers of tools have them.

A path of a manifest leads to the fields that name a person. What such a field names, the item of a list is about in
which it stands: the innermost one; where it stands in no list, the whole answer is. What should name somebody and does
not, is about a crowd (`MORE_SUBJECTS`), so that nothing is kept in the open for want of a name.
"""

import json
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from symbi.errors import InputError
from symbi.policy.flow import MORE_SUBJECTS, join_subjects
from symbi.types import JsonValue

MAX_SUBJECT_CHARS: Final = 256  # of the name of a subject

Steps: TypeAlias = tuple[str | int, ...]
Segments: TypeAlias = "Sequence[tuple[str, str | None]]"
"""The segments of a `symbi.policy.fields.FieldPath`: a name, or what stands for many (`[*]`, `*`)."""

_ITEM: Final = "[*]"
_CROWD: Final = (MORE_SUBJECTS,)


@dataclass(frozen=True, slots=True)
class About:
    """Whom an answer is about.

    Attributes:
        scopes: Names by the place that is about them, with all below it.
    """

    scopes: Mapping[Steps, tuple[str, ...]] = field(default_factory=dict)

    def at(self, steps: Sequence[str | int]) -> tuple[str, ...]:
        """Whom the part at a place is about."""
        if not self.scopes:
            return ()
        way = tuple(steps)
        return join_subjects(*(self.scopes.get(way[:count], ()) for count in range(len(way) + 1)))

    @property
    def everybody(self) -> tuple[str, ...]:
        """Whom the whole is about, all parts together."""
        return join_subjects(*self.scopes.values())

    @property
    def parts(self) -> bool:
        """Whether parts of it are about people that the whole is not about."""
        return any(self.scopes)


NOBODY: Final = About()


def subject_name(text: str) -> str:
    """The name of a data subject in the one spelling that is kept: trimmed, composed (NFC), an address in small letters.

    Raises:
        InputError: It is empty, too long, has control characters, or is the mark of more subjects than are named.
    """
    name = unicodedata.normalize("NFC", text.strip())
    if "@" in name:
        name = name.casefold()
    if not name or len(name) > MAX_SUBJECT_CHARS:
        msg = f"the name of a data subject has 1 to {MAX_SUBJECT_CHARS} characters"
        raise InputError(msg, code="input.subject")
    if name == MORE_SUBJECTS or any(unicodedata.category(one).startswith("C") for one in name):
        msg = f"the name of a data subject has no control characters and is not `{MORE_SUBJECTS}`"
        raise InputError(msg, code="input.subject")
    return name


def about(paths: Sequence[Segments], value: JsonValue) -> About:
    """Whom a value is about, by the paths to what names them.

    Args:
        paths: Where names stand; several may name somebody, and one of them is enough.
        value: JSON. A text that is JSON is looked into, and is then about all of them as a whole.
    """
    if not paths or _is_empty(value):
        return NOBODY
    if isinstance(value, str):
        return About({(): _named_in(paths, value) or _CROWD})
    found: dict[Steps, tuple[str, ...]] = {}
    missing: list[Steps] = []
    for segments in paths:
        for scope, name in _names(segments, value, (), ()):
            if name:
                found[scope] = join_subjects(found.get(scope, ()), (name,))
            else:
                missing.append(scope)
    for scope in missing:
        found.setdefault(scope, _CROWD)
    return About(found)


def _named_in(paths: Sequence[Segments], text: str) -> tuple[str, ...]:
    """Whom a text that is JSON names; nobody where it nests too deeply to be looked into."""
    try:
        return about(paths, _read(text)).everybody
    except RecursionError:
        return ()


def _names(segments: Segments, value: JsonValue, steps: Steps, scope: Steps) -> Iterator[tuple[Steps, str]]:
    """Scopes and names; the empty text where somebody should be named and is not."""
    is_list = isinstance(value, Sequence) and not isinstance(value, str)
    if not segments:
        if is_list:
            assert isinstance(value, Sequence)
            for item in value:
                yield from _names((), item, steps, scope)
            if not value:
                yield scope, ""
        else:
            yield scope, _name(value)
        return
    (wanted, wild), rest = segments[0], segments[1:]
    if is_list:
        assert isinstance(value, Sequence)
        for index, item in enumerate(value):
            inner = (*steps, index)
            yield from _names(rest if wild == _ITEM else segments, item, inner, inner)
    elif isinstance(value, Mapping) and wild is None and wanted in value:
        yield from _names(rest, value[wanted], (*steps, wanted), scope)
    elif isinstance(value, Mapping) and wild not in {None, _ITEM}:
        for key, item in value.items():
            yield from _names(rest, item, (*steps, key), scope)
    elif steps or not _is_empty(value):  # where a part is null, what stands beside it is about somebody all the same
        yield scope, ""


def _name(value: JsonValue) -> str:
    """A name out of data; the empty text where it is none."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return ""
    try:
        return subject_name(str(value))
    except InputError:
        return ""


def _is_empty(value: JsonValue) -> bool:
    return value is None or (isinstance(value, str | Mapping | Sequence) and not value)


def _read(text: str) -> JsonValue:
    try:
        value: JsonValue = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return None if isinstance(value, str) else value
