"""The port of subjects' keys on every store, and what only a file can show."""

import pytest

from symbi.adapters.sqlite import DATABASE_NAME, SqliteReader, SqliteStore
from symbi.errors import InternalError, StoreUnavailable
from symbi.guard.vault import Hold
from symbi.testing.contracts_subjects import SUBJECT_KEY_CHECKS, subject_key

AT = "2026-01-02T00:00:00.000000000Z"


@pytest.fixture(params=["disk", "memory"])
def store(request, tmp_path):
    with SqliteStore(tmp_path / "data" if request.param == "disk" else None) as opened:
        yield opened


@pytest.mark.parametrize("check", SUBJECT_KEY_CHECKS, ids=lambda check: check.__name__)
def test_the_contract(check, store):
    check(store)


def test_a_reader_sees_keys_and_holds_and_changes_none(tmp_path):
    with SqliteStore(tmp_path) as store, store.transaction():
        store.put_subject_key(subject_key())
        store.set_hold(Hold("p0", b"why", AT))
    with SqliteReader(tmp_path) as reader:
        assert reader.subject_key(subject_key().key_id) == subject_key()
        assert list(reader.subject_keys("p0")) == [subject_key()]
        assert reader.any_subject_key() == subject_key()
        assert reader.hold_of("p0") == Hold("p0", b"why", AT)
        assert list(reader.holds()) == [Hold("p0", b"why", AT)]
        for change in (
            lambda: reader.put_subject_key(subject_key(1, "p1")),
            lambda: reader.destroy_subject_keys("p0", AT),
            lambda: reader.set_hold(Hold("p1", b"", AT)),
            lambda: reader.release_hold("p0"),
        ):
            with pytest.raises(InternalError, match="open for reading"):
                change()


def test_a_newer_owner_keeps_an_older_one_from_keys(tmp_path):
    with SqliteStore(tmp_path) as store:
        store._db.execute("UPDATE meta SET value = '9' WHERE key = 'epoch'")
        with pytest.raises(StoreUnavailable, match="taken over"), store.transaction():
            with pytest.raises(StoreUnavailable, match="taken over"):
                store.put_subject_key(subject_key())
            with pytest.raises(StoreUnavailable, match="taken over"):
                store.destroy_subject_keys("p0", AT)


def test_no_byte_of_a_destroyed_key_stays_in_the_file(tmp_path):
    wrapped = subject_key(7).wrapped
    with SqliteStore(tmp_path) as store:
        with store.transaction():
            for number in range(200):  # several pages
                store.put_subject_key(subject_key(number, f"p{number}"))
        store._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        assert wrapped in (tmp_path / DATABASE_NAME).read_bytes()
        with store.transaction():
            store.destroy_subject_keys("p7", AT)
        store._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        data = b"".join(path.read_bytes() for path in tmp_path.iterdir())
        assert wrapped[:8] not in data.replace(subject_key(6).wrapped, b"").replace(subject_key(8).wrapped, b"")
        assert subject_key(8).wrapped in data
