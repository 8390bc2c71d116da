"""Every column of the store is classified: one that can hold values of people and is not sealed is found here."""

import sqlite3

from symbi.adapters.sqlite import SqliteStore
from symbi.adapters.sqlite.columns import COLUMNS, Holds

NOTE = "say in symbi.adapters.sqlite.columns what it may hold of people, and seal it if it may hold values"


def columns(db: sqlite3.Connection) -> dict[str, str]:
    """`table.column` -> type."""
    tables = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    return {
        f"{table}.{row[1]}": row[2]
        for table in tables
        if not table.startswith("sqlite_")
        for row in db.execute(f"PRAGMA table_info('{table}')")
    }


def unclassified(db):
    return sorted(set(columns(db)) - set(COLUMNS))


def test_every_column_is_classified_and_every_class_has_its_column():
    with SqliteStore(None) as store:
        assert unclassified(store._db) == [], NOTE
        assert sorted(set(COLUMNS) - set(columns(store._db))) == []


def test_a_new_table_and_a_new_column_are_found():
    with SqliteStore(None) as store:
        store._db.execute("CREATE TABLE memories (id TEXT PRIMARY KEY, content BLOB) STRICT")
        store._db.execute("ALTER TABLE runs ADD COLUMN remarks TEXT")
        assert unclassified(store._db) == ["memories.content", "memories.id", "runs.remarks"]


def test_what_is_sealed_can_hold_bytes():
    with SqliteStore(None) as store:
        kinds = columns(store._db)
        assert {kinds[name] for name, holds in COLUMNS.items() if holds in {Holds.SEALED, Holds.KEY}} == {"BLOB"}
