"""Every column of the store is classified: one that can hold values of people and is not sealed is found here."""

import sqlite3

import pytest

from symbi.adapters.sqlite import SqliteStore
from symbi.adapters.sqlite.columns import COLUMNS, Holds
from symbi.adapters.sqlite.privacy import SEALED_STORES
from symbi.audit.event import Draft
from symbi.compliance.port import Subject
from symbi.guard.confidential import confided
from symbi.testing.runtime import open_in
from symbi.types import AgentId

pytestmark = pytest.mark.anyio

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
        store._db.execute("CREATE TABLE diaries (id TEXT PRIMARY KEY, content BLOB) STRICT")
        store._db.execute("ALTER TABLE runs ADD COLUMN remarks TEXT")
        assert unclassified(store._db) == ["diaries.content", "diaries.id", "runs.remarks"]


def test_what_is_sealed_can_hold_bytes():
    with SqliteStore(None) as store:
        kinds = columns(store._db)
        assert {kinds[name] for name, holds in COLUMNS.items() if holds in {Holds.SEALED, Holds.KEY}} == {"BLOB"}


def test_every_store_that_holds_personal_data_answers_for_it():
    answered = {name for columns in SEALED_STORES.values() for name in columns}
    sealed = {name for name, holds in COLUMNS.items() if holds is Holds.SEALED}
    assert sorted(sealed - answered) == [], (
        "register it in symbi.adapters.sqlite.privacy, so that it is exported and erased"
    )
    assert sorted(answered - sealed) == []


async def test_every_store_is_asked_when_somebody_is_exported_or_erased(tmp_path):
    async with open_in(tmp_path, 'agent a() { with { "done" } }') as running:
        stores = running.runtime.rooms.privacy.rooms.stores
        assert {store.name for store in stores} == {*SEALED_STORES, "archive"}
        asked = {name for store in stores for name in store.columns}
        assert asked == {name for name, holds in COLUMNS.items() if holds is Holds.SEALED}


async def test_each_sealed_column_is_read_where_it_is_said_to_be(tmp_path):
    """Something sealed in each column of each table is found there, by the statements that look for it."""
    async with open_in(tmp_path, 'agent a() { with { "done" } }') as running:
        rooms = running.runtime.rooms.privacy.rooms
        keys = await rooms.vault.ready(("jane@example.com",))
        await rooms.log.append(confided(Draft("run.started", AgentId("a"), {"arguments": {"x": 1}}, "r"), keys))

        def plant():
            db = rooms.store._db
            for table in sorted({name.partition(".")[0] for name in COLUMNS} - {"events", "head"}):
                columns = [row[1:3] for row in db.execute(f"PRAGMA table_info('{table}')")]
                sealed = {name: COLUMNS[f"{table}.{name}"] is Holds.SEALED for name, _ in columns}
                if any(sealed.values()):
                    values = [_filler(name, kind, keys if sealed[name] else None) for name, kind in columns]
                    db.execute(f"INSERT INTO {table} VALUES ({','.join('?' * len(values))})", values)

        await rooms.log.read(plant)
        subject = Subject("p", frozenset(keys.ids))
        places = [set(await store.holds(subject)) for store in rooms.stores]
        assert set().union(*places) == {name for name, holds in COLUMNS.items() if holds is Holds.SEALED}


def _filler(name, kind, keys):
    if keys is not None:
        return keys.seal(b"1", b"anywhere")
    if kind in {"INTEGER", "REAL"}:
        return 0
    return b"{}" if kind == "BLOB" else "row"
