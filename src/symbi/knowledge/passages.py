"""What a search answers: passages with the places where they stand, and what speaks for them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from symbi.knowledge.documents import Access
from symbi.knowledge.query import Query
from symbi.knowledge.trace import Trace
from symbi.types import Label


@dataclass(frozen=True, slots=True)
class Citation:
    """Where a passage stands, so that anybody who may read it can look.

    Attributes:
        collection: In which collection.
        source: In which document.
        document_id: Likewise.
        chunk_id: In which chunk of it.
        headings: Title of the document and headings above the passage, in one line.
        start, end: From where to where, in characters of the document's text as the store keeps it.
    """

    collection: str
    source: str
    document_id: str
    chunk_id: str
    headings: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of a document. Nobody vouches for what it says.

    Attributes:
        text: What it says, word for word.
        citation: Where.
        label: Untrusted, as confidential as its document, about whom that is.
        score: What its place was given for.
        parts: Of what the score is made.
        similarity: Cosine of its vector and the question's; None where it was found by words alone.
        coverage: Share of the question's keywords that it holds, from 0 to 1.
        access: Who may read it.
    """

    text: str
    citation: Citation
    label: Label
    score: float
    parts: Mapping[str, float]
    similarity: float | None
    coverage: float
    access: Access


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The passages of one search.

    Attributes:
        query: The question, understood.
        passages: Best first.
        evidence: How much they speak for an answer, from 0 to 1.
        trace: What was done.
    """

    query: Query
    passages: tuple[Passage, ...]
    evidence: float
    trace: Trace = field(repr=False)


def evidence_of(passages: Sequence[Passage]) -> float:
    """How much passages speak for an answer, from 0 to 1: the best of what each says by nearness and by words.

    Neither is enough by itself: what is near may be of the same field and about something else, and words may stand in
    a text that is about nothing of the kind.
    """
    return max((0.5 * max(one.similarity or 0.0, 0.0) + 0.5 * one.coverage for one in passages), default=0.0)
