"""The approvals port on every store: SQLite on disk and in memory."""

import sqlite3
from dataclasses import replace

import pytest

from symbi.adapters.sqlite import DATABASE_NAME, SqliteReader, SqliteStore
from symbi.errors import StoreUnavailable
from symbi.guard.approval import ApprovalState
from symbi.testing.contracts_approvals import APPROVAL_CHECKS, approval

NEW_IN_2 = ("requests", "policy_sets", "tallies", "tally_entries", "run_usage", "approvals")


def made(db: sqlite3.Connection) -> set[tuple[str, str, str]]:
    """Every table and index, as it was made."""
    return set(db.execute("SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL"))


@pytest.fixture(params=["disk", "memory"])
def store(request, tmp_path):
    with SqliteStore(tmp_path / "data" if request.param == "disk" else None) as opened:
        yield opened


@pytest.mark.parametrize("check", APPROVAL_CHECKS, ids=lambda check: check.__name__)
def test_the_contract(check, store):
    check(store)


def test_what_stands_in_the_file_outlasts_its_owner_and_is_read_beside_it(tmp_path):
    with SqliteStore(tmp_path) as store, store.transaction():
        store.put_approval(approval())
    with SqliteStore(tmp_path), SqliteReader(tmp_path) as reader:
        assert reader.get_approval("e0") == approval()
        assert list(reader.approvals([ApprovalState.WAITING], 5)) == [approval()]


def test_a_newer_owner_keeps_an_older_one_from_writing(tmp_path):
    with SqliteStore(tmp_path) as store:
        with store.transaction():
            store.put_approval(approval())
        store._db.execute("UPDATE meta SET value = '9' WHERE key = 'epoch'")
        with store.transaction():
            with pytest.raises(StoreUnavailable, match="taken over"):
                store.put_approval(approval(1))
            with pytest.raises(StoreUnavailable, match="taken over"):
                store.move_approval(approval().moved(ApprovalState.GRANTED), approval())


def test_a_row_that_is_none_is_no_approval(tmp_path):
    with SqliteStore(tmp_path) as store:
        with store.transaction():
            store.put_approval(approval())
        for column, value in (("state", "agreed"), ("votes", b"no"), ("votes", b'[{"person":1}]')):
            store._db.execute(f"UPDATE approvals SET {column} = ?", (value,))
            with pytest.raises(StoreUnavailable, match="was not written by it"):
                store.get_approval("e0")


def test_a_store_of_the_version_before_gets_what_it_lacks_and_keeps_what_it_has(tmp_path):
    with SqliteStore(tmp_path) as store, store.transaction():
        store._db.execute("INSERT INTO meta VALUES ('mine', 'kept')")
    db = sqlite3.connect(tmp_path / DATABASE_NAME)
    whole = made(db)
    assert set(NEW_IN_2) < {name for _, name, _ in whole}
    db.executescript("".join(f"DROP TABLE {name};" for name in NEW_IN_2) + "PRAGMA user_version = 1;")
    assert len(made(db)) <= len(whole) - len(NEW_IN_2)
    db.close()
    with pytest.raises(StoreUnavailable, match="has version 1"), SqliteReader(tmp_path):
        pytest.fail("it was read")
    with SqliteStore(tmp_path) as store:
        with store.transaction():
            store.put_approval(replace(approval(), shown=None))
        assert store._db.execute("SELECT value FROM meta WHERE key = 'mine'").fetchone() == ("kept",)
        assert store._db.execute("PRAGMA user_version").fetchone() == (2,)
        assert made(store._db) == whole
    with SqliteStore(tmp_path) as store:
        assert store.get_approval("e0") is not None
