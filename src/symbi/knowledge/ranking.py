"""Fusion and ranking: which of what was found comes first. Pure; all figures are shown in the trace.

Fusion puts the two lists together by their scores, each brought to the same measure; on the questions of
tools/kb_quality.py that beats both lists and reciprocal ranks, see docs/performance.md. Ranking then weighs what fusion says
with how much of the question a passage holds, how new and how important its
document is, and takes passages one by one so that no two of them say the same (maximal marginal relevance).
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from symbi.knowledge.query import words_of

_DAY_NS: Final = 86_400 * 1_000_000_000


@dataclass(frozen=True, slots=True)
class Weights:
    """What counts how much.

    Attributes:
        vector, keyword: Of the two lists.
        coverage: Of the share of the question's words that a passage holds.
        heading: Of the share that its headings hold.
        diversity: 0 takes the best whatever they say, 1 those that say something else.
        recency: Of how new a document is; 0 where that does not matter.
        half_life_days: After which it counts half.
        per_document: The most passages of one document; any number if None.
        reranked: Of what a cross-encoder says, where there is one.
    """

    vector: float = 1.0
    keyword: float = 1.5
    coverage: float = 0.8
    heading: float = 0.3
    diversity: float = 0.15
    recency: float = 0.0
    half_life_days: float = 365.0
    per_document: int | None = 3
    reranked: float = 1.0


USUAL: Final = Weights()


@dataclass(frozen=True, slots=True)
class Candidate:
    """A passage that may be shown.

    Attributes:
        id: Of its chunk.
        document: Of its document.
        text: What it says.
        headings: Above it, in one line.
        fused: What fusion says, from 0 to 1.
        similarity: Cosine to the question; None where it was found by words alone.
        importance: Of its document.
        modified_ns: When that was changed last.
        reranked: What a cross-encoder says, from 0 to 1; None where none was asked.
    """

    id: str
    document: str
    text: str
    headings: str
    fused: float
    similarity: float | None = None
    importance: float = 1.0
    modified_ns: int = 0
    reranked: float | None = None


@dataclass(frozen=True, slots=True)
class Ranked:
    """A candidate in its place.

    Attributes:
        candidate: It.
        score: What the place was given for.
        parts: Of what the score is made.
    """

    candidate: Candidate
    score: float
    parts: Mapping[str, float] = field(default_factory=dict)


def fuse(lists: Sequence[tuple[Mapping[str, float], float]]) -> dict[str, float]:
    """Ids by what fusion gives them, from 0 to 1, best first; equal ones by id.

    Args:
        lists: Scores of ids, and the weight of each list. Those of two lists have no common measure: each is brought to 0
            for its last and 1 for its first.
    """
    whole = sum(weight for _, weight in lists) or 1.0
    scores: dict[str, float] = {}
    for found, weight in lists:
        least, most = min(found.values(), default=0.0), max(found.values(), default=0.0)
        for one, score in found.items():
            share = (score - least) / (most - least) if most > least else 1.0
            scores[one] = scores.get(one, 0.0) + weight * share / whole
    ordered = sorted(scores.items(), key=lambda item: (-item[1], item[0]))
    return dict(ordered)


@lru_cache(maxsize=65_536)
def stem(word: str) -> str:
    """A word without its commonest English endings, to compare two by."""
    for ending, rest in (("ies", "y"), ("ing", ""), ("ed", ""), ("es", ""), ("s", "")):
        if word.endswith(ending) and len(word) - len(ending) >= 3:  # noqa: PLR2004 - what is shorter is no stem
            return word[: -len(ending)] + rest
    return word


def stems(text: str) -> list[str]:
    """The stems of a text's words."""
    return [stem(word) for word in words_of(text)]


def coverage(keywords: Sequence[str], text: str) -> float:
    """Which share of some words a text holds, from 0 to 1; longer words count more, for they are rarer."""
    return Sought.of(keywords).share(frozenset(stems(text)))


@dataclass(frozen=True, slots=True)
class Sought:
    """Stems of what a question is about, and how much each counts."""

    weights: Mapping[str, float]

    @classmethod
    def of(cls, keywords: Sequence[str]) -> "Sought":
        """Those of some words."""
        return cls({one: math.log(1 + len(one)) for word in keywords for one in stems(word) or [word]})

    def share(self, there: AbstractSet[str]) -> float:
        """What share of them is among some stems."""
        whole = sum(self.weights.values())
        return sum(weight for word, weight in self.weights.items() if word in there) / whole if whole else 0.0


def rank(
    keywords: Sequence[str], candidates: Sequence[Candidate], weights: Weights, now_ns: int, k: int
) -> list[Ranked]:
    """The best passages, in order.

    Args:
        keywords: What the question is about.
        candidates: What may be shown.
        weights: What counts how much.
        now_ns: The time, in nanoseconds since the epoch.
        k: How many are wanted.
    """
    sought = Sought.of(keywords)
    bags = {one.id: Bag.of(one.text) for one in candidates}
    scored = [_scored(sought, one, bags[one.id], weights, now_ns) for one in candidates]
    scored.sort(key=lambda one: (-one.score, one.candidate.id))
    return _diverse(scored, bags, weights, k)


@dataclass(frozen=True, slots=True)
class Bag:
    """The stems of a text, how often each, and the length of that as a vector."""

    counts: Mapping[str, int]
    norm: float

    @classmethod
    def of(cls, text: str) -> "Bag":
        """Of a text."""
        counts = Counter(stems(text))
        return cls(counts, math.sqrt(sum(count * count for count in counts.values())))

    def likeness(self, other: "Bag") -> float:
        """Cosine of two, from 0 to 1."""
        few, many = sorted((self.counts, other.counts), key=len)
        product = sum(count * many[word] for word, count in few.items() if word in many)
        return product / (self.norm * other.norm) if self.norm and other.norm else 0.0


def _scored(sought: Sought, one: Candidate, bag: Bag, weights: Weights, now_ns: int) -> Ranked:
    above = frozenset(stems(one.headings))
    parts = {
        "fused": one.fused,
        "coverage": weights.coverage * sought.share(bag.counts.keys() | above),
        "heading": weights.heading * sought.share(above),
    }
    if one.reranked is not None:
        parts["reranked"] = weights.reranked * one.reranked
    if weights.recency:
        age_days = max(0, now_ns - one.modified_ns) / _DAY_NS
        parts["recency"] = weights.recency * 0.5 ** (age_days / weights.half_life_days)
    return Ranked(one, one.importance * sum(parts.values()), parts)


def _diverse(scored: Sequence[Ranked], bags: Mapping[str, Bag], weights: Weights, k: int) -> list[Ranked]:
    """Maximal marginal relevance over the words of passages, and no more than so many of one document."""
    left = list(scored)
    nearest = dict.fromkeys(bags, 0.0)  # of each, to what was taken
    best = scored[0].score if scored else 0.0
    taken: list[Ranked] = []
    of_document: Counter[str] = Counter()
    while left and len(taken) < k:
        # In their order, so that of equal ones the first is taken.
        chosen = max(left, key=lambda one: one.score - weights.diversity * best * nearest[one.candidate.id])
        left.remove(chosen)
        document = chosen.candidate.document
        taken.append(chosen)
        of_document[document] += 1
        if weights.per_document is not None and of_document[document] >= weights.per_document:
            left = [one for one in left if one.candidate.document != document]
        if weights.diversity:
            bag = bags[chosen.candidate.id]
            for one in left:
                nearest[one.candidate.id] = max(nearest[one.candidate.id], bag.likeness(bags[one.candidate.id]))
    return taken
