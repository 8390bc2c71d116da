"""The ports of the bus's keys on every store, and what only a file can show."""

import pytest

from symbi.adapters.sqlite import DATABASE_NAME, SqliteReader, SqliteStore
from symbi.bus.keystore import GroupKey
from symbi.bus.seen import Seen
from symbi.errors import InternalError, StoreUnavailable
from symbi.testing.contracts_bus import BUS_KEY_CHECKS, agent_keys, bus_epoch
from symbi.types import AgentId

AT = "2026-01-02T00:00:00.000000000Z"


@pytest.fixture(params=["disk", "memory"])
def store(request, tmp_path):
    with SqliteStore(tmp_path / "data" if request.param == "disk" else None) as opened:
        yield opened


@pytest.mark.parametrize("check", BUS_KEY_CHECKS, ids=lambda check: check.__name__)
def test_the_contract(check, store):
    check(store)


CHANGES = {
    "put_agent_keys": lambda store: store.put_agent_keys(agent_keys(2)),
    "destroy_agent_keys": lambda store: store.destroy_agent_keys(AgentId("a"), 1, AT),
    "put_epoch": lambda store: store.put_epoch(bus_epoch(2)),
    "end_epochs": lambda store: store.end_epochs(9),
    "put_group": lambda store: store.put_group(GroupKey("t", 2, b"w", AT)),
    "end_groups": lambda store: store.end_groups("t", 9),
    "put_seen": lambda store: store.put_seen("a", "b", 1, Seen(2)),
}


def test_a_reader_sees_all_of_it_and_changes_nothing(tmp_path):
    with SqliteStore(tmp_path) as store, store.transaction():
        store.put_agent_keys(agent_keys())
        store.put_epoch(bus_epoch())
        store.put_group(GroupKey("t", 1, b"w", AT))
        store.put_seen("a", "b", 1, Seen(4, ((2, 2),)))
    with SqliteReader(tmp_path) as reader:
        assert list(reader.agent_keys(AgentId("a"))) == list(reader.all_agent_keys()) == [agent_keys()]
        assert reader.agent_keys_by(agent_keys().signing_id) == agent_keys()
        assert (list(reader.epochs()), reader.last_epoch()) == ([bus_epoch()], 1)
        assert list(reader.groups("t")) == [GroupKey("t", 1, b"w", AT)]
        assert (reader.last_groups(), reader.needed_groups()) == ({"t": 1}, {})
        assert reader.seen("a", "b", 1) == Seen(4, ((2, 2),))
        assert reader.seen("a", "b", 2) == Seen()
        for change in CHANGES.values():
            with pytest.raises(InternalError, match="open for reading"):
                change(reader)


@pytest.mark.parametrize("name", CHANGES)
def test_a_newer_owner_keeps_an_older_one_from_it(tmp_path, name):
    with SqliteStore(tmp_path) as store:
        store._db.execute("UPDATE meta SET value = '9' WHERE key = 'epoch'")
        with pytest.raises(StoreUnavailable, match="taken over"):
            CHANGES[name](store)


@pytest.mark.parametrize("waits", ["mailbox", "dead_letters"])
def test_an_epoch_lasts_as_long_as_something_waits_under_it(tmp_path, waits):
    put = {
        "mailbox": "INSERT INTO mailbox (message_id, declared, agent_id, sender, body, due_ns, attempts, epoch)"
        " VALUES ('m', 'a', 'a', 'x', x'00', 0, 0, 2)",
        "dead_letters": "INSERT INTO dead_letters (run_id, kind, agent_id, declared, file, code, attempts, at, state, became, epoch)"
        " VALUES ('m', 'message', 'a', 'a', '/f', 'x', 1, '', 'open', '', 2)",
    }
    with SqliteStore(tmp_path) as store:
        with store.transaction():
            for number in (1, 2, 3):
                store.put_epoch(bus_epoch(number))
            store._db.execute(put[waits])
            assert store.end_epochs(store.epoch) == 1
        assert [one.epoch for one in store.epochs()] == [2, 3]
        with store.transaction():
            store._db.execute(f"DELETE FROM {waits}")
            assert store.end_epochs(store.epoch) == 2


def test_no_byte_of_a_destroyed_key_stays_in_the_file(tmp_path):
    keys, epoch = agent_keys(3), bus_epoch(200)
    with SqliteStore(tmp_path) as store:
        with store.transaction():
            store.put_agent_keys(keys)
            store.put_epoch(epoch)
            store.put_group(GroupKey("t", 1, b"\xab" * 69, AT))
        store._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        before = (tmp_path / DATABASE_NAME).read_bytes()
        with store.transaction():
            store.destroy_agent_keys(keys.agent, 3, AT)
            store.end_epochs(store.epoch)
            store.end_groups("t", 2)
        store._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        after = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    for secret in (keys.wrapped, epoch.wrapped, b"\xab" * 69):
        assert secret in before
        assert secret[:8] not in after
