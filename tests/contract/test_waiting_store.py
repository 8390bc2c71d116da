"""What waits in the store: counted as it is, no further than to a bound, and by an index however much there is."""

import pytest

from symbi.adapters.sqlite import SqliteStore
from symbi.adapters.sqlite.file import SQL
from symbi.runtime.mailbox import Message
from symbi.runtime.status import Waiting
from symbi.types import AgentId, RunId

KINDS = ["messages", "later", "in_doubt", "dead_letters", "approvals"]


@pytest.fixture
def store():
    with SqliteStore(None) as opened:
        yield opened


def test_nothing_waits_in_an_empty_store(store):
    assert store.waiting(100) == Waiting()


def test_messages_are_counted_by_when_they_are_due_and_no_further_than_to_the_bound(store):
    with store.transaction():
        for number in range(7):
            store.put_message(
                Message(RunId(f"m{number}"), AgentId("a"), "b", b"{}", None, due_ns=0 if number < 5 else 10**18)
            )
    assert store.waiting(100) == Waiting(messages=5, later=2)
    assert store.waiting(3) == Waiting(messages=3, later=2)


@pytest.mark.parametrize("name", [*(f"waiting_{kind}" for kind in KINDS), "open_effects_in"])
def test_no_count_walks_a_table(store, name):
    values = ("unknown",) if name == "open_effects_in" else (1,)
    plan = [row[3] for row in store._db.execute(f"EXPLAIN QUERY PLAN {SQL[name]}", values)]
    walks = [
        step for step in plan if step.startswith("SCAN") and "INDEX" not in step and "subquery" not in step.lower()
    ]
    assert walks == []
