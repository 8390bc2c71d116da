"""What counters cost: by the number of rows that SQLite looks at, and by how it finds them. No times."""

import sqlite3

import pytest

from symbi.adapters.sqlite import SqliteStore
from symbi.adapters.sqlite.file import SQL
from symbi.guard.tally import Tally
from symbi.policy.counters import NS, Window
from symbi.types import EffectId

HOUR = Tally("n", "all:", Window(3_600))
QUERIES = ["get_tally", "tally_expired", "tally_oldest", "tally_of_effect", "prune_tally", "entries_of_effect",
           "drop_entries", "drop_final_entries", "take_from_tally", "get_usage"]  # fmt: skip


@pytest.fixture
def store():
    with SqliteStore(None) as opened:
        yield opened


def steps(store, work) -> int:
    """Instructions of SQLite's machine that some work takes."""
    count = 0

    def tick() -> int:
        nonlocal count
        count += 1
        return 0

    store._connection.set_progress_handler(tick, 1)
    try:
        work()
    finally:
        store._connection.set_progress_handler(None, 0)
    return count


def fill(store, entries: int, every_s: float) -> int:
    """Effects at equal distances; returns the time of the last."""
    for index in range(entries):
        store.add_to_tallies(EffectId(f"{entries}-{index}"), [(HOUR, 1)], round(index * every_s * NS))
    return round((entries - 1) * every_s * NS)


@pytest.mark.parametrize("name", QUERIES)
def test_every_statement_finds_its_rows_by_an_index(store, name):
    values = SQL[name].count("?")
    plan = store._connection.execute(f"EXPLAIN QUERY PLAN {SQL[name]}", ("x",) * values).fetchall()
    assert all("SCAN" not in row[-1] for row in plan), plan
    assert any("SEARCH" in row[-1] for row in plan)


def test_a_reading_takes_as_many_steps_with_10000_effects_in_the_window_as_with_10(store):
    with store.transaction():
        few = fill(store, 10, every_s=0.1)
        small = steps(store, lambda: store.read_tallies([HOUR], few))
        many = fill(store, 10_000, every_s=0.1)
        large = steps(store, lambda: store.read_tallies([HOUR], many))
    assert store.read_tallies([HOUR], many)[0].total == 10_010
    assert large <= small + 5


def test_what_leaves_the_window_is_looked_at_once(store):
    with store.transaction():
        last = fill(store, 5_000, every_s=0.1)
        later = last + 2 * 3_600 * NS
        first = steps(store, lambda: store.read_tallies([HOUR], later, prune=True))
        again = steps(store, lambda: store.read_tallies([HOUR], later, prune=True))
    assert first > 5_000
    assert again < 100
    assert store._connection.execute("SELECT count(*) FROM tally_entries").fetchone() == (0,)


def test_rows_stay_within_what_the_window_holds(store):
    with store.transaction():
        for index in range(3_000):
            now_ns = index * 36 * NS  # a hundred in an hour
            store.read_tallies([HOUR], now_ns, prune=True)
            store.add_to_tallies(EffectId(f"e{index}"), [(HOUR, 1)], now_ns)
        (rows,) = store._connection.execute("SELECT count(*) FROM tally_entries").fetchone()
    assert rows == 100


def test_without_a_window_rows_stay_within_what_is_in_flight(store):
    ever = Tally("n", "all:")
    with store.transaction():
        for index in range(1_000):
            store.add_to_tallies(EffectId(f"e{index}"), [(ever, 1)], index)
            if index >= 7:
                store.settle_tallies(EffectId(f"e{index - 7}"), happened=True)
        (rows,) = store._connection.execute("SELECT count(*) FROM tally_entries").fetchone()
    assert rows == 7
    assert store.read_tallies([ever], 0)[0].total == 1_000


def test_the_version_of_sqlite_counts_steps():
    """The measure of this file is what it says: a longer loop takes more steps."""
    with sqlite3.connect(":memory:") as db:
        counts = []
        for rows in (10, 1_000):
            ticks = []
            db.set_progress_handler(lambda ticks=ticks: ticks.append(1) or 0, 1)
            db.execute(
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) SELECT sum(i) FROM n",
                (rows,),
            ).fetchone()
            counts.append(len(ticks))
    assert counts[1] > 10 * counts[0]
