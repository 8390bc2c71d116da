"""Words and how much each says: BM25 (Robertson and Zaragoza 2009) over some chunks of a store, and over no others.

FTS5 has a `bm25()` of its own. It takes how common a word is, and how long chunks are, from the whole table: so the scores
of what somebody may read, and with them its order, would tell of what he may not. Here every figure comes from the chunks that
are let through.
"""

import math
import sqlite3
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

K1: Final = 1.2
B: Final = 0.75
HEADINGS_COUNT: Final = 2  # times; as much as the same word twice in the text
PLACES: Final = 2**20  # in a column of a chunk; one has some hundred words
TERMS: Final = 128  # of all words of a question; one that is put together of more than are left is not looked for
PLACES_READ: Final = (
    2**21
)  # for a question, a second's work; of words beyond that it only counts which chunks have them
TOKENIZER: Final = "porter unicode61 remove_diacritics 2"  # of `knowledge_words`, see sqlite_schema.sql

Whole: TypeAlias = NDArray[np.int64]
Real: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Held:
    """Which chunks hold a phrase.

    Attributes:
        numbers: Of the chunks, in ascending order.
        often: How often each holds it, headings counting more.
    """

    numbers: Whole
    often: Real


@dataclass(slots=True)
class Places:
    """Places of terms that one question has had read.

    Attributes:
        left: How many more may be.
        read: Those of each term, by the kind of the list; None where there are more than were left.
    """

    left: int = PLACES_READ
    read: dict[tuple[str, str], Whole | None] = field(default_factory=dict)

    def keep(self, key: tuple[str, str], text: str | None, count: int) -> None:
        """What was read, up to one place more than were left."""
        self.read[key] = whole_numbers(text) if count <= self.left else None
        self.spend(count)

    def spend(self, count: int) -> bool:
        """Whether there was so much left; it is gone either way."""
        enough = count <= self.left
        self.left = max(self.left - count, 0)
        return enough


class Stemmer:
    """Splits words as the index of words does; in memory of its own, for what is asked is written nowhere."""

    def __init__(self) -> None:
        self._db = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self._db.execute(f"CREATE VIRTUAL TABLE asked USING fts5(word, content = '', tokenize = '{TOKENIZER}')")
        self._db.execute("CREATE VIRTUAL TABLE terms USING fts5vocab(asked, instance)")

    def phrases(self, words: Sequence[str]) -> dict[tuple[str, ...], str]:
        """The terms of each word, in order, and the word; several where the index splits it. What has none is left out."""
        terms: dict[int, dict[int, str]] = defaultdict(dict)
        self._db.executemany("INSERT INTO asked (rowid, word) VALUES (?, ?)", enumerate(words))
        try:
            for number, place, term in self._db.execute("SELECT doc, offset, term FROM terms"):
                terms[number][place] = term
        finally:
            self._db.execute("INSERT INTO asked (asked) VALUES ('delete-all')")
        found: dict[tuple[str, ...], str] = {}
        left = TERMS
        for number, there in sorted(terms.items()):
            phrase = tuple(there[place] for place in sorted(there))
            if phrase not in found and len(phrase) <= left:
                found[phrase] = words[number]
                left -= len(phrase)
        return found

    def close(self) -> None:
        """Let go of the memory."""
        self._db.close()


def whole_numbers(text: str | None) -> Whole:
    """Of a text with commas, as `group_concat` makes it: ten thousand rows come over at once and not one by one."""
    return np.fromstring(text or "", np.int64, sep=",")


def counted(marks: Whole) -> Held:
    """How often a term stands in each chunk.

    Args:
        marks: For each place, twice the chunk's number, and one more where it is in the headings.
    """
    numbers, places = np.unique(marks >> 1, return_inverse=True)
    weights = np.where(marks & 1, float(HEADINGS_COUNT), 1.0)
    return Held(numbers, np.bincount(places, weights, minlength=len(numbers)).astype(np.float64))


def in_a_row(places: Sequence[Whole]) -> Held:
    """How often some terms stand in a row in each chunk.

    Args:
        places: Of each of the terms, in their order: its marks as for `counted`, `PLACES` times, and the place within the column.
    """
    there = places[0]
    for behind, some in enumerate(places[1:], 1):
        there = np.intersect1d(there, some - behind, assume_unique=True)
    return counted(there // PLACES)


def scores(phrases: Sequence[Held], numbers: Whole, lengths: Whole, chunks: int, mean: float) -> Real:
    """BM25 of each of some chunks.

    Args:
        phrases: Where they stand; other chunks than those of `numbers` do not count.
        numbers: Of the chunks that may be read and hold any of the phrases, in ascending order.
        lengths: How long each of them is.
        chunks: How many may be read.
        mean: How long one of them is; by the same measure as `lengths`.
    """
    made: Real = np.zeros(len(numbers))
    norms = K1 * (1 - B + B * lengths / mean)
    for held in phrases:
        at = np.minimum(np.searchsorted(numbers, held.numbers), len(numbers) - 1)
        readable = numbers[at] == held.numbers
        at, often = at[readable], held.often[readable]
        rare = math.log1p((max(chunks - len(at), 0) + 0.5) / (len(at) + 0.5))
        made[at] += rare * (K1 + 1) * often / (often + norms[at])
    return made
