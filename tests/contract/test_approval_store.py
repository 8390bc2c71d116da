"""The approvals port on every store: SQLite on disk and in memory."""

import pytest

from symbi.adapters.sqlite import SqliteReader, SqliteStore
from symbi.errors import StoreUnavailable
from symbi.guard.approval import ApprovalState
from symbi.testing.contracts_approvals import APPROVAL_CHECKS, approval


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
        with pytest.raises(StoreUnavailable, match="taken over"), store.transaction():
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
