"""What a question to a memory costs: by the instructions of SQLite's machine, among 1,500 items and among 6,000. No times."""

import json

import pytest

from symbi.adapters.sqlite import SqliteStore
from symbi.bench.context import AGENT
from symbi.context.finding import Question, found_in, narrowed
from symbi.context.kinds import ContextQuery, MemoryKind, MemoryTerms
from symbi.testing.context import ManyItems
from symbi.types import AgentId

NOW = 10_000_000
FEW, MANY = 1_500, 6_000
QUESTIONS = [
    ContextQuery(kinds=(MemoryKind.SHORT_TERM,)),
    ContextQuery(tags=("t7",), limit=3),
    ContextQuery(text="word7 word1"),
    ContextQuery(since_ms=NOW - 300, until_ms=NOW - 200),
    ContextQuery(about="word1 word2 word5"),
    ContextQuery(about="word7 word3000", text="word1", kinds=(MemoryKind.LONG_TERM,)),
]


def fill(items):
    opened = SqliteStore(None).__enter__()
    with opened.transaction():
        ManyItems(AGENT, 4_000, 14, 400).put(opened, [f"{number:08}" for number in range(items)], 0, NOW - items)
    return opened


@pytest.fixture(scope="module")
def stores():
    few, many = fill(FEW), fill(MANY)
    yield few, many
    few.close()
    many.close()


def steps(store, query):
    count = 0

    def tick() -> int:
        nonlocal count
        count += 1
        return 0

    levels = frozenset(store.space_of(AGENT).levels)
    question = Question(query, narrowed(query, AGENT, levels, (NOW, 0), shared=False), MemoryTerms())
    store._db.set_progress_handler(tick, 1)
    try:
        found_in(store, None, question, {})
    finally:
        store._db.set_progress_handler(None, 0)
    return count


@pytest.mark.parametrize("query", QUESTIONS, ids=[json.dumps(one.to_json()) for one in QUESTIONS])
def test_a_question_costs_about_the_same_however_much_is_remembered(stores, query):
    few, many = (steps(store, query) for store in stores)
    assert many < 2 * few  # of four times as many items: what a question looks at bounds it, and not what there is


def test_what_is_too_old_of_one_agent_is_found_without_a_look_at_what_others_have(stores):
    counts = []
    for store in stores:
        other = AgentId("other")
        with store.transaction():
            ManyItems(other, 40, 4, 4).put(store, [f"other{number:04}" for number in range(20)], 0, NOW - 20)
        count = 0

        def tick() -> int:
            nonlocal count
            count += 1
            return 0

        store._db.set_progress_handler(tick, 1)
        try:
            assert len(store.due_items(NOW, NOW - 10, "", 500, other)) == 10
        finally:
            store._db.set_progress_handler(None, 0)
        counts.append(count)
        store.remove_items([f"other{number:04}" for number in range(20)])
    few, many = counts
    assert many < 1.2 * few
