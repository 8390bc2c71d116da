"""How items are ordered: by how near they come to what was asked, and by how much they count by now. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from math import log
from typing import Final

from symbi.context.kinds import DAY_MS, MemoryTerms

STRENGTH_SHARE: Final = 0.2
"""Of the score, where it is asked what items are about: importance and age."""
_SATURATION: Final = 1.2
_LENGTH: Final = 0.5  # how much a long item's words count less
_USUAL_TOKENS: Final = 64.0


def strength(importance: float, half_life_days: float, at_ms: int, now_ms: int) -> float:
    """How much an item counts by now, from 0 to 1: its importance, halved with every half-life that has passed."""
    age_days = max(0, now_ms - at_ms) / DAY_MS
    return float(importance * 2.0 ** -(age_days / half_life_days))


def weight_of(count: int, all_items: int) -> float:
    """How much a word tells that so many of all items have."""
    return log(1 + (all_items - count + 0.5) / (count + 0.5)) if all_items > count else log(1 + 0.5 / (count + 0.5))


class Keywords:
    """How much of what was asked items say.

    Args:
        weights: How much each word of the question tells.
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        self._weights = tuple(weights.items())
        self._most = sum(weights.values()) * (_SATURATION + 1)

    def score(self, times: Mapping[str, int], tokens: int) -> float:
        """Of one item, from 0 to 1.

        Args:
            times: How often it has each word.
            tokens: Its length.
        """
        if not self._most:
            return 0.0
        norm = _SATURATION * (1 - _LENGTH + _LENGTH * tokens / _USUAL_TOKENS)
        said = 0.0
        for word, weight in self._weights:
            often = times.get(word)
            if often:
                said += weight * often * (_SATURATION + 1) / (often + norm)
        return min(1.0, said / self._most * 2)


def score(terms: MemoryTerms, nearness: float, keywords: float, strong: float) -> float:
    """How well an item answers, from 0 to 1.

    Args:
        terms: How much meaning and words count.
        nearness: Cosine of its meaning and that of the question, from -1 to 1.
        keywords: See `keyword_score`.
        strong: See `strength`.
    """
    relevance = terms.vector_weight * max(0.0, nearness) + terms.keyword_weight * keywords
    return (1 - STRENGTH_SHARE) * relevance + STRENGTH_SHARE * strong


def fitting(tokens: Sequence[int], budget: int | None) -> int:
    """How many of some items, from the first on, fit into a budget of tokens."""
    if budget is None:
        return len(tokens)
    used = 0
    for index, one in enumerate(tokens):
        used += one
        if used > budget:
            return index
    return len(tokens)


def normal_weights(vector: float, keyword: float) -> tuple[float, float]:
    """Two weights that together make 1."""
    whole = vector + keyword
    return vector / whole, keyword / whole


def best(scores: Iterable[tuple[float, int]], most: int) -> list[tuple[float, int]]:
    """The best of some (score, number) pairs, the newer one first where two are alike."""
    return sorted(scores, key=lambda one: (-one[0], -one[1]))[:most]
