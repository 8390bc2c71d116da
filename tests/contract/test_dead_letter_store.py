"""The port of dead letters on every store, and what only a file can show."""

import pytest

from symbi.adapters.sqlite import DATABASE_NAME, SqliteReader, SqliteStore
from symbi.errors import StoreUnavailable
from symbi.runtime.letters import Wanted
from symbi.testing.contracts_dead_letters import DEAD_LETTER_CHECKS, closed, letter


@pytest.fixture(params=["disk", "memory"])
def store(request, tmp_path):
    with SqliteStore(tmp_path / "data" if request.param == "disk" else None) as opened:
        yield opened


@pytest.mark.parametrize("check", DEAD_LETTER_CHECKS, ids=lambda check: check.__name__)
def test_the_contract(check, store):
    check(store)


def test_a_reader_sees_letters(tmp_path):
    with SqliteStore(tmp_path) as store, store.transaction():
        store.put_letter(letter())
    with SqliteReader(tmp_path) as reader:
        assert reader.get_letter(letter().run_id) == letter()
        assert list(reader.letters(Wanted())) == [letter()]


def test_a_newer_owner_keeps_an_older_one_from_letters(tmp_path):
    with SqliteStore(tmp_path) as store:
        with store.transaction():
            store.put_letter(letter())
        store._db.execute("UPDATE meta SET value = '9' WHERE key = 'epoch'")
        with pytest.raises(StoreUnavailable, match="taken over"), store.transaction():
            with pytest.raises(StoreUnavailable, match="taken over"):
                store.put_letter(letter(1))
            with pytest.raises(StoreUnavailable, match="taken over"):
                store.close_letter(closed(letter()))


def test_no_byte_of_a_closed_letter_stays_in_the_file(tmp_path):
    with SqliteStore(tmp_path) as store:
        with store.transaction():
            store.put_letter(letter())
        store._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        assert b"it is gone" in (tmp_path / DATABASE_NAME).read_bytes()
        with store.transaction():
            store.close_letter(closed(letter()))
        store._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        assert b"it is gone" not in (tmp_path / DATABASE_NAME).read_bytes()
