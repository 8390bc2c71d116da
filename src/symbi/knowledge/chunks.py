"""Chunks: the pieces of a document that are found and cited. They follow its structure, and say where they stand.

1. a chunk lies under one heading, with the headings above it;
2. parts under it are taken together up to `TARGET_CHARS`; one that is longer than `MOST_CHARS` is cut, where a line, a
   sentence or a word ends, and the pieces overlap a little;
3. together the chunks hold every part of the document but headings, which stand with what is below them; one with
   nothing below it is a chunk.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from symbi.errors import InputError
from symbi.knowledge.extracted import Block, BlockKind, Extracted

TARGET_CHARS: Final = 900  # about what a reader of an answer takes in, and what an embedder of sentences can hold apart
MOST_CHARS: Final = 1_500
OVERLAP_CHARS: Final = 120
MAX_CHUNKS: Final = 50_000  # of one document
MAX_LEVELS: Final = 6  # headings above a chunk
_ENDS: Final = (re.compile(r"\n\s*"), re.compile(r"[.!?;][\"')\]]?\s+"), re.compile(r"\s+"))


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a document.

    Attributes:
        ordinal: Its number in the document, from 0.
        start: Where it begins, in characters of the extracted text.
        end: Where it ends; not part of it.
        headings: Above it, the highest first.
    """

    ordinal: int
    start: int
    end: int
    headings: tuple[str, ...] = ()


def chunks_of(extracted: Extracted) -> tuple[Chunk, ...]:
    """The chunks of a document, in order.

    Raises:
        InputError: There are too many.
    """
    chunks: list[Chunk] = []
    for headings, start, end in _pieces(extracted):
        if len(chunks) >= MAX_CHUNKS:
            raise InputError(f"the document has more than {MAX_CHUNKS} chunks", code="knowledge.too_large")
        chunks.append(Chunk(len(chunks), start, end, headings))
    return tuple(chunks)


def _pieces(extracted: Extracted) -> Iterator[tuple[tuple[str, ...], int, int]]:
    above: list[tuple[int, str]] = []
    held: list[Block] = []
    bare: Block | None = None  # a heading with nothing below it yet
    for block in extracted.blocks:
        path = tuple(said for _, said in above)
        if block.kind is BlockKind.HEADING:
            yield from _held(extracted.text, path, held)
            if not held and bare is not None and not (bare.level < block.level and len(above) < MAX_LEVELS):
                yield path, bare.start, bare.end
            held = []
            while above and above[-1][0] >= block.level:
                above.pop()
            above = [*above, (block.level, block.heading)][-MAX_LEVELS:]
            bare = block
            continue
        bare = None
        if held and block.end - held[0].start > TARGET_CHARS:
            yield from _held(extracted.text, path, held)
            held = []
        held.append(block)
    path = tuple(said for _, said in above)
    yield from _held(extracted.text, path, held)
    if not held and bare is not None:
        yield path, bare.start, bare.end


def _held(text: str, path: tuple[str, ...], held: list[Block]) -> Iterator[tuple[tuple[str, ...], int, int]]:
    if not held:
        return
    start, end = held[0].start, held[-1].end
    while end - start > MOST_CHARS:
        cut = _cut(text, start, start + MOST_CHARS)
        yield path, start, cut
        start = _back(text, start, cut)
    if text[start:end].strip():
        yield path, start, end


def _cut(text: str, start: int, limit: int) -> int:
    """The last end of a line, else of a sentence, else of a word, in the second half of a piece; else its limit."""
    least = start + (limit - start) // 2
    for pattern in _ENDS:
        last = None
        for found in pattern.finditer(text, least, limit):
            last = found
        if last is not None and last.start() + 1 > start:
            return max(last.start() + (pattern is _ENDS[1]), start + 1)
    return limit


def _back(text: str, start: int, cut: int) -> int:
    """Where the next piece begins: a little before the cut, at the beginning of a word."""
    back = max(cut - OVERLAP_CHARS, start + 1)
    found = re.compile(r"\s+").search(text, back, cut)
    return found.end() if found is not None and found.end() < cut else cut
