"""Laying text out within a width: documents of text, line breaks and groups, after Wadler and Oppen.

A group is put on one line where it fits; otherwise every break that stands directly in it becomes a line break. Nothing
here recurses, so documents may nest as deep as they like.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

INDENT: Final = 4
"""Columns of one level of indentation."""


@dataclass(frozen=True, slots=True)
class Line:
    """A possible line break: `flat` is what stands in its place on one line; None breaks always."""

    flat: str | None

    @property
    def hard(self) -> bool:
        """Whether a group around it is broken in any case."""
        return self.flat is None


@dataclass(frozen=True, slots=True)
class IfBroken:
    """Text that stands only where the group around it is broken."""

    text: str
    hard: bool = False


@dataclass(frozen=True, slots=True)
class Aside:
    """Text at the end of a line that takes no part in what fits: a comment."""

    text: str
    hard: bool = False


@dataclass(frozen=True, slots=True)
class Concat:
    """Parts one after the other."""

    parts: tuple["Doc", ...]
    hard: bool


@dataclass(frozen=True, slots=True)
class Nest:
    """A part whose lines stand one level further in."""

    part: "Doc"
    hard: bool


@dataclass(frozen=True, slots=True)
class Group:
    """A part that is put on one line where it fits."""

    part: "Doc"
    hard: bool


@dataclass(frozen=True, slots=True)
class Deferred:
    """A part that begins with `{` and a line break, and is made when its turn comes: depth costs no recursion."""

    make: Callable[[], "Doc"]
    hard: bool = True


Doc: TypeAlias = str | Line | IfBroken | Aside | Concat | Nest | Group | Deferred

LINE: Final = Line(" ")
SOFT: Final = Line("")
HARD: Final = Line(None)


def _hard(part: Doc) -> bool:
    return not isinstance(part, str) and part.hard


def concat(*parts: Doc) -> Doc:
    """Parts one after the other."""
    return Concat(parts, any(map(_hard, parts)))


def nest(*parts: Doc) -> Doc:
    """Parts one after the other, one level further in."""
    return Nest(concat(*parts), any(map(_hard, parts)))


def group(*parts: Doc) -> Doc:
    """Parts one after the other, on one line where they fit."""
    return Group(concat(*parts), any(map(_hard, parts)))


def join(separator: Sequence[Doc], parts: Iterable[Doc]) -> Doc:
    """Parts with a separator between them."""
    joined: list[Doc] = []
    for part in parts:
        if joined:
            joined.extend(separator)
        joined.append(part)
    return concat(*joined)


_Frame: TypeAlias = tuple[int, bool, Doc]  # indentation in columns, whether breaks are line breaks, what


def render(doc: Doc, width: int) -> str:
    """Lays a document out; lines hold at most `width` columns where breaks allow it."""
    out: list[str] = []
    column = pending = 0
    stack: list[_Frame] = [(0, True, doc)]
    while stack:
        indent, broken, part = stack.pop()
        if isinstance(part, IfBroken):
            part = part.text if broken else ""
        elif isinstance(part, Aside):
            part = part.text
        elif isinstance(part, Line) and not broken:
            part = part.flat or ""
        if isinstance(part, str):
            if not part:
                continue
            out.append(" " * pending + part)
            _, newline, tail = part.rpartition("\n")
            column = len(tail) if newline else column + len(part)
            pending = 0
        elif isinstance(part, Line):
            out.append("\n")
            column = pending = indent
        elif isinstance(part, Concat):
            stack.extend((indent, broken, inner) for inner in reversed(part.parts))
        elif isinstance(part, Nest):
            stack.append((indent + INDENT, broken, part.part))
        elif isinstance(part, Deferred):
            stack.append((indent, True, part.make()))
        else:
            flat = not part.hard and _fits(part.part, stack, width - column)
            stack.append((indent, not flat, part.part))
    return "".join(out)


def _fits(doc: Doc, rest: Sequence[_Frame], room: int) -> bool:
    """Whether a document on one line, and what follows it up to the next line break, stays within the room."""
    ahead = len(rest)
    stack: list[tuple[bool, Doc]] = [(False, doc)]
    while room >= 0:
        if not stack:
            if not ahead:
                return True
            ahead -= 1
            stack.append((rest[ahead][1], rest[ahead][2]))
        broken, part = stack.pop()
        if isinstance(part, IfBroken):
            part = part.text if broken else ""
        elif isinstance(part, Aside):
            continue
        elif isinstance(part, Line):
            if broken or part.flat is None:
                return True
            part = part.flat
        if isinstance(part, str):
            head, newline, _ = part.partition("\n")
            room -= len(head)
            if newline:
                return room >= 0
        elif isinstance(part, Concat):
            stack.extend((broken, inner) for inner in reversed(part.parts))
        elif isinstance(part, Group):
            stack.append((broken and part.hard, part.part))
        elif isinstance(part, Nest):
            stack.append((broken, part.part))
        else:
            return room >= 1  # the `{` that it begins with
    return False
