"""What a question to a memory costs: by the instructions of SQLite's machine, among 1,500 items and among 6,000. No times."""

import json
from collections import Counter
from contextlib import contextmanager

import pytest

from symbi.adapters.sqlite import SqliteStore
from symbi.bench.context import AGENT
from symbi.context.finding import Question, found_in, narrowed
from symbi.context.kinds import ContextQuery, Form, MemoryKind, MemoryTerms
from symbi.context.port import EVERYBODY, START, Meaning, Row
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


@contextmanager
def counted(store):
    """Instructions and statements of SQLite, as they are counted."""
    counts = Counter()

    def tick() -> int:
        counts["steps"] += 1
        return 0

    store._db.set_progress_handler(tick, 1)
    store._db.set_trace_callback(lambda _text: counts.update(["statements"]))
    try:
        yield counts
    finally:
        store._db.set_progress_handler(None, 0)
        store._db.set_trace_callback(None)


def steps(store, query):
    levels = frozenset(store.space_of(AGENT).levels)
    question = Question(query, narrowed(query, AGENT, levels, (NOW, 0), shared=False), MemoryTerms())
    with counted(store) as counts:
        found_in(store, None, question, {})
    return counts["steps"]


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
        with counted(store) as counted_here:
            assert len(store.due_items(NOW, NOW - 10, START, 500, other)) == 10
        counts.append(counted_here["steps"])
        store.remove_items([f"other{number:04}" for number in range(20)])
    few, many = counts
    assert many < 1.2 * few


SPACES = {"everybody's": lambda _number: AgentId("a"), "one agent's": lambda _number: AgentId("a")}
SPACES |= {
    "a few instances'": lambda number: AgentId(f"a/{number % 7}"),
    "each of another instance": lambda number: AgentId(f"a/{number:06}"),
}


def backlog(items, space):
    """A store with so many items of agents, each a millisecond younger than the one before; every other one ends by itself."""
    opened = SqliteStore(None).__enter__()
    with opened.transaction():
        for number in range(items):
            row = Row(
                f"{number * 7919 % items:08}", space(number), MemoryKind.LONG_TERM, Form.FACT, False, "", number, number if number % 2 else None,
                0.5, 30.0, 1, 1, number.to_bytes(4), Meaning.NONE, b'{"tags":[]}', b"{}",
            )  # fmt: skip
            opened.put_item(row, ())
    return opened


def swept(store, of, kept):
    """Go through all that is due as a sweep does, removing it but for what is to be kept; how often each came, in their order."""
    seen, place = [], START
    while place is not None:
        due = store.due_items(NOW, NOW, place, 50, of)
        seen += [one for one, _place in due]
        with store.transaction():
            store.remove_due([one for one, _place in due if one not in kept], NOW, NOW)
        place = due[-1][1] if len(due) == 50 else None
    return seen


@pytest.mark.parametrize("held", [0, 3], ids=["nothing is held", "a third is held"])
@pytest.mark.parametrize("name", SPACES)
def test_what_is_due_is_found_by_as_many_steps_as_there_is_of_it(name, held):
    counts = []
    of = EVERYBODY if name == "everybody's" else AgentId("a")
    for items in (400, 1_600):
        store = backlog(items, SPACES[name])
        ids = [f"{number:08}" for number in range(items)]
        kept = {one for number, one in enumerate(ids) if held and not number % held}
        with counted(store) as counts_here:
            seen = swept(store, of, kept)
        assert set(seen) == set(ids)
        assert all(count == 1 or (of == EVERYBODY and one in kept) for one, count in Counter(seen).items())
        assert store.due_items(NOW, NOW, START, 5_000, of) == [] or kept
        counts.append(counts_here)
        store.close()
    few, many = counts
    for unit in ("steps", "statements"):
        assert many[unit] < 5 * few[unit], (
            unit
        )  # of four times as many; each look at all of them would make it sixteen times
