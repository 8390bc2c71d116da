"""What a question about something gives, in which order and with which scores, against a reference that looks at every item."""

import math
from collections import Counter
from dataclasses import dataclass
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from symbi.adapters.sqlite import SqliteStore
from symbi.context import finding
from symbi.context.finding import Question, found_in, narrowed, ranked_by_content
from symbi.context.kinds import DAY_MS, ContextItem, ContextQuery, MemoryKind, MemoryTerms
from symbi.context.port import Meaning, Row
from symbi.context.sealing import Body, resealed
from symbi.context.words import counted, plain_json, tokens_of
from symbi.guard.vault import NO_KEYS
from symbi.types import AgentId

ANNA, BEN = AgentId("anna"), AgentId("ben")
WORDS = ("red", "green", "blue", "grey", "black")
LEVELS = ("user/public/", "user/internal/", "untrusted/public/")
NOW = 400 * DAY_MS
OLDEST = 30 * DAY_MS
CHOSEN, OF_A_WORD = 6, 3  # so that bounds cut something off among few items


@dataclass(frozen=True)
class Made:
    """An item as it is put into the store."""

    words: tuple[str, ...]
    kind: MemoryKind
    level: str
    age_days: float
    expires_days: float | None
    importance: float
    half_life_days: float
    space: AgentId
    near: float | None


made = st.builds(
    Made,
    words=st.lists(st.sampled_from(WORDS), min_size=1, max_size=8).map(tuple),
    kind=st.sampled_from(list(MemoryKind)),
    level=st.sampled_from(LEVELS),
    age_days=st.sampled_from([0.0, 1.0, 40.0, 369.0, 371.0]) | st.floats(0, 30),
    expires_days=st.sampled_from([None, None, None, -1, 1]),
    importance=st.floats(0, 1),
    half_life_days=st.floats(0.5, 100),
    space=st.sampled_from([ANNA, ANNA, ANNA, BEN]),
    near=st.sampled_from([None, -0.5]) | st.floats(0, 1),
)
queries = st.builds(
    ContextQuery,
    about=st.sampled_from(["red", "red blue", "grey the green grey", "pink", "black red blue green grey"]),
    text=st.sampled_from(["", "", "red", "red green"]),
    kinds=st.sampled_from([(), (), (MemoryKind.LONG_TERM,), (MemoryKind.LONG_TERM, MemoryKind.SHARED)]),
    limit=st.integers(1, 12),
    min_importance=st.sampled_from([0.0, 0.0, 0.3]),
)
terms = st.builds(
    lambda share: MemoryTerms(vector_weight=share, keyword_weight=1 - share), st.sampled_from([0.0, 0.3, 0.7, 1.0])
)
levels = st.sampled_from([LEVELS, LEVELS, LEVELS[:2], LEVELS[1:], LEVELS[:1], ()]).map(frozenset)


def row_of(one, number):
    at_ms = NOW - round(one.age_days * DAY_MS)
    expires_ms = None if one.expires_days is None else NOW + round(one.expires_days * DAY_MS)
    content = " ".join(one.words)
    row = Row(
        f"item-{number:04}", one.space, one.kind, ContextItem("").form, one.kind is MemoryKind.SHARED, one.level, at_ms,
        expires_ms, one.importance, one.half_life_days, tokens_of(len(content)), 1, b"%032d" % number, Meaning.THERE, b"",
        plain_json(counted(content)),
    )  # fmt: skip
    return resealed(row, Body.of(ContextItem(content), "effect"), NO_KEYS)


def reference(rows, query, seen, memory_terms, near):
    """Ids and scores, best first; from the text of the documentation, and with none of the functions that are tested."""
    fits = [
        row
        for row in rows
        if row.space == ANNA
        and row.level in seen
        and (row.expires_ms is None or row.expires_ms > NOW)
        and row.at_ms >= OLDEST
        and (not query.kinds or row.kind in query.kinds)
        and row.importance >= query.min_importance
    ]
    newest = sorted(fits, key=lambda row: -row.number)
    said = {row.id: Counter(row.content.split()) for row in rows}
    asked = [word for word in dict.fromkeys(query.about.split()) if word != "the"]
    if query.text:
        chosen = [row for row in newest if all(said[row.id][word] for word in query.text.split())]
        chosen = chosen[: max(CHOSEN, query.limit)]
    else:
        ids = {row.id for word in asked for row in [one for one in newest if said[one.id][word]][:OF_A_WORD]}
        chosen = [row for row in newest if row.id in ids or row.id in near]
    weights = {}
    for word in asked:
        having = sum(said[row.id][word] > 0 for row in chosen)
        weights[word] = math.log(1 + (len(chosen) - having + 0.5) / (having + 0.5))
    scored = []
    for row in chosen:
        norm = 1.2 * (0.5 + 0.5 * row.tokens / 64)
        words = sum(weights[word] * said[row.id][word] * 2.2 / (said[row.id][word] + norm) for word in asked)
        keywords = min(1.0, 2 * words / (sum(weights.values()) * 2.2))
        nearness = max(0.0, near.get(row.id, 0.0))
        fresh = row.importance * 0.5 ** ((NOW - row.at_ms) / DAY_MS / row.half_life_days)
        relevance = memory_terms.vector_weight * nearness + memory_terms.keyword_weight * keywords
        scored.append((0.8 * relevance + 0.2 * fresh, row))
    return [(points, row.id, row.number) for points, row in sorted(scored, key=lambda one: (-one[0], -one[1].number))]


@dataclass(frozen=True)
class Known:
    """What the reference knows of an item."""

    id: str
    number: int
    content: str
    space: AgentId
    kind: MemoryKind
    level: str
    at_ms: int
    expires_ms: int | None
    importance: float
    half_life_days: float
    tokens: int


@settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(made, min_size=6, max_size=30), queries, levels, terms, st.booleans())
def test_the_best_items_are_those_of_a_look_at_all_of_them(items, query, seen, memory_terms, read_before):
    items = sorted(items, key=lambda one: -one.age_days)  # as they are kept: numbers follow times
    with (
        SqliteStore(None) as store,
        mock.patch.object(finding, "MOST_CHOSEN", CHOSEN),
        mock.patch.object(finding, "MOST_OF_A_WORD", OF_A_WORD),
        mock.patch.object(finding, "AT_A_TIME", 2),
    ):
        with store.transaction():
            for number, one in enumerate(items):
                store.put_item(row_of(one, number), [])
        rows = [
            Known(row.id, row.number, " ".join(one.words), row.space, row.kind, row.level, row.at_ms, row.expires_ms,
                  row.importance, row.half_life_days, row.tokens)
            for number, one in enumerate(items)
            for row in store.items_of(one.space, [f"item-{number:04}"])
        ]  # fmt: skip
        near = {f"item-{number:04}": one.near for number, one in enumerate(items) if one.near is not None}
        wanted = narrowed(query, ANNA, seen, (NOW, OLDEST), shared=False)
        before = ranked_by_content(store, query, wanted) if read_before and query.text else None
        found, cut = found_in(store, None, Question(query, wanted, memory_terms, before), near)
    ranked = reference(rows, query, seen, memory_terms, near)
    expected = {id_: points for points, id_, _ in ranked}
    assert not cut
    assert len({one.id for _, one in found}) == len(found)
    # Each has its score, and so many are as good as the best: whatever the last digit of a score says of two that are alike.
    assert [one.score for _, one in found] == pytest.approx([expected[one.id] for _, one in found], rel=0, abs=1e-12)
    assert [one.score for _, one in found] == pytest.approx(
        [points for points, *_ in ranked[: query.limit]], rel=0, abs=1e-12
    )
    order = [(one.score, row.number) for row, one in found]
    assert order == sorted(order, reverse=True)
    contents = {known.id: known.content for known in rows}
    assert all(one.content == contents[one.id] for _, one in found)
