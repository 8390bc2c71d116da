"""What a reader makes of a file: its text, and where its parts stand in it."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from symbi.errors import InputError

MAX_TEXT_CHARS: Final = 8_388_608  # of one document: what a larger one says is no document but an archive
MAX_BLOCKS: Final = 200_000  # parts of one document
MAX_TITLE_CHARS: Final = 300
MAX_HEADING_CHARS: Final = 200


class BlockKind(StrEnum):
    """What a part of a text is."""

    HEADING = "heading"
    PARAGRAPH = "paragraph"
    CODE = "code"
    ROW = "row"


@dataclass(frozen=True, slots=True)
class Block:
    """A part of a text.

    Attributes:
        start: Where it begins, in characters of the extracted text.
        end: Where it ends; not part of it.
        kind: What it is.
        level: Of a heading, 1 for the highest; 0 for everything else.
        heading: What a heading says, without marks.
    """

    start: int
    end: int
    kind: BlockKind = BlockKind.PARAGRAPH
    level: int = 0
    heading: str = ""


@dataclass(frozen=True, slots=True)
class Extracted:
    """The text of a document.

    Attributes:
        text: All of it; offsets of blocks, chunks and citations are places in this text.
        blocks: Its parts in order, which do not overlap.
        title: What it calls itself; empty where it does not.
        notes: What was left out, a line each.
    """

    text: str
    blocks: tuple[Block, ...]
    title: str = ""
    notes: tuple[str, ...] = ()


class Writer:
    """Puts an extracted text together, part by part."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._blocks: list[Block] = []
        self._length = 0

    def add(self, text: str, kind: BlockKind = BlockKind.PARAGRAPH, level: int = 0) -> None:
        """Add a part, with an empty line before it; nothing where it says nothing.

        Raises:
            InputError: The document is too long.
        """
        text = as_text(text).strip("\n").rstrip()
        if not text.strip():
            return
        if self._parts:
            self._put("\n" if kind is BlockKind.ROW else "\n\n")
        start = self._length
        self._put(text)
        if len(self._blocks) >= MAX_BLOCKS:
            raise too_long(f"more than {MAX_BLOCKS} parts")
        heading = one_line(text, MAX_HEADING_CHARS) if kind is BlockKind.HEADING else ""
        self._blocks.append(Block(start, self._length, kind, level, heading))

    def _put(self, text: str) -> None:
        self._length += len(text)
        if self._length > MAX_TEXT_CHARS:
            raise too_long(f"more than {MAX_TEXT_CHARS} characters of text")
        self._parts.append(text)

    def done(self, title: str = "", notes: tuple[str, ...] = ()) -> Extracted:
        """The text."""
        return Extracted("".join(self._parts), tuple(self._blocks), one_line(as_text(title), MAX_TITLE_CHARS), notes)


def as_text(text: str) -> str:
    """A text with a question mark for each lone surrogate: formats can name them, and they are no text."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def one_line(text: str, most: int) -> str:
    """A text as one line of at most so many characters."""
    return " ".join(text.split())[:most]


def too_long(what: str) -> InputError:
    """The error of a document that says too much."""
    return InputError(f"the document has {what}", code="knowledge.too_large")


def malformed(what: str) -> InputError:
    """The error of a document that is not what it is taken for."""
    return InputError(what, code="knowledge.malformed")
