"""Stores that an earlier release left are brought up to date by their owner, trail and all."""

import sqlite3
from pathlib import Path

import pytest

from symbi.adapters.sqlite import DATABASE_NAME, SqliteReader, SqliteStore
from symbi.adapters.sqlite.mark import read_mark
from symbi.audit.checkpoint import parse_note
from symbi.audit.event import AuditEventType, Draft, parse_event
from symbi.audit.log import AuditLog
from symbi.audit.tree import TILE_WIDTH
from symbi.audit.verify import verify_trail
from symbi.clock import IdSource, parse_rfc3339, rfc3339
from symbi.crypto.canonical import canonical_json, parse_canonical
from symbi.crypto.chain import link
from symbi.crypto.merkle import Frontier, leaf_hash
from symbi.errors import ChainBroken, StoreUnavailable
from symbi.testing.clock import ManualClock
from symbi.testing.trail import fixed_signing_key
from symbi.types import AgentId
from symbi.wiring.keeping import verify_live

pytestmark = pytest.mark.anyio

KEY = fixed_signing_key()
KEYS = {KEY.key_id: KEY.verifying_key()}
DUMP = Path(__file__).parents[1] / "data" / "stores" / "version-2.sql"
EVENTS = 7  # in the dump
NEW_IN_2 = ("requests", "policy_sets", "tallies", "tally_entries", "run_usage", "approvals")


def made(db: sqlite3.Connection) -> set[tuple[str, str]]:
    return set(db.execute("SELECT type, name FROM sqlite_master WHERE sql IS NOT NULL"))


@pytest.fixture
def old(tmp_path):
    """A folder with a store of version 2."""
    with SqliteStore(tmp_path):
        pass
    (tmp_path / DATABASE_NAME).unlink()
    db = sqlite3.connect(tmp_path / DATABASE_NAME)
    db.executescript(DUMP.read_text("utf-8"))
    db.close()
    return tmp_path


def change(folder: Path, script: str, *values: object) -> None:
    db = sqlite3.connect(folder / DATABASE_NAME)
    if values:
        db.execute(script, values)
    else:
        db.executescript(script)
    db.commit()
    db.close()


def lengthen(folder: Path, upto: int) -> None:
    """More events, sealed as that release sealed them."""
    db = sqlite3.connect(folder / DATABASE_NAME)
    sequence, record = db.execute("SELECT sequence, record FROM events ORDER BY sequence DESC").fetchone()
    fields = parse_canonical(record)
    for number in range(sequence + 1, upto + 1):
        body = {name: fields[name] for name in fields if name not in {"chain_hash", "signature"}}
        time = rfc3339(parse_rfc3339(body["timestamp"]) + 1)
        body |= {"sequence": number, "previous_hash": fields["chain_hash"], "timestamp": time}
        chain_hash = link(bytes.fromhex(fields["chain_hash"]), canonical_json(body))
        signature = KEY.sign("audit.event", chain_hash)
        fields = body | {"chain_hash": chain_hash.hex(), "signature": signature.hex()}
        db.execute("INSERT INTO events VALUES (?, ?, ?)", (number, canonical_json(fields), fields["chain_hash"]))
    head = {name: fields[name] for name in ("schema_version", "sequence", "chain_hash", "timestamp", "key_id")}
    head["signature"] = KEY.sign("audit.head", canonical_json(head)).hex()
    db.execute("UPDATE head SET record = ?", (canonical_json(head),))
    db.commit()
    db.close()


def log_on(store: SqliteStore) -> AuditLog:
    clock = ManualClock()
    return AuditLog(store, KEY, clock, IdSource(clock))


@pytest.mark.parametrize("count", [EVENTS, TILE_WIDTH + 1, 2 * TILE_WIDTH])
async def test_the_trail_is_kept_as_it_is_and_given_index_tree_and_head(old, count):
    if count > EVENTS:
        lengthen(old, count)
    before = sqlite3.connect(old / DATABASE_NAME)
    records = [row[0] for row in before.execute("SELECT record FROM events ORDER BY sequence")]
    before.close()
    with SqliteStore(old) as store, SqliteStore(None) as fresh:
        assert made(store._db) == made(fresh._db)
        async with log_on(store) as log:
            assert log.sequence == count
            _, signed = store.head()
            tree = Frontier()
            for record in records:
                tree.append(leaf_hash(record))
            assert parse_note(signed).checkpoint.root == tree.root()
            receipt = await log.append(Draft(AuditEventType.RUN_STARTED, AgentId("a"), {}))
            assert receipt.sequence == count + 1
        found = list(store.read(1))
        assert [event.record for event in found[:count]] == records
        assert verify_trail(found, store.head()[1], KEYS).events == count + 1
        indexed = store._db.execute(
            "SELECT agent_id, run_id, event_type, verdict FROM events ORDER BY sequence"
        ).fetchall()
        parsed = [parse_event(event.record) for event in found]
        verdicts = [event.details.get("verdict", "") for event in parsed]
        assert indexed == [
            (event.agent_id, event.run_id, event.event_type, verdict)
            for event, verdict in zip(parsed, verdicts, strict=True)
        ]
        assert store._db.execute("SELECT count(*) FROM event_policies WHERE policy = 'reports'").fetchone() == (
            count - 1,
        )


async def test_the_folder_is_marked_as_soon_as_the_trail_has_a_name(old):
    with SqliteStore(old) as store:
        assert read_mark(old) is None
        async with log_on(store):
            assert read_mark(old) == parse_note(store.head()[1]).checkpoint.origin.encode()
    (old / DATABASE_NAME).unlink()
    with pytest.raises(StoreUnavailable, match="is gone or empty"), SqliteStore(old):
        pytest.fail("a new trail could be begun")


async def test_a_store_of_version_1_gets_what_it_lacks_and_keeps_what_it_has(old):
    change(old, "".join(f"DROP TABLE {name};" for name in NEW_IN_2) + "PRAGMA user_version = 1;")
    change(old, "INSERT INTO meta VALUES ('mine', 'kept');")
    with pytest.raises(StoreUnavailable, match="has version 1"), SqliteReader(old):
        pytest.fail("it was read")
    with SqliteStore(old) as store, SqliteStore(None) as fresh:
        assert made(store._db) == made(fresh._db)
        assert store._db.execute("SELECT value FROM meta WHERE key = 'mine'").fetchone() == ("kept",)
        assert store._db.execute("PRAGMA user_version").fetchone() == (4,)
        async with log_on(store) as log:
            assert log.sequence == EVENTS


async def test_a_crash_between_the_new_tables_and_the_new_head_is_made_good(old):
    with SqliteStore(old):
        pass  # and the log was not opened
    with SqliteReader(old) as reader, pytest.raises(ChainBroken, match="the next command that writes checks it"):
        verify_live(reader, KEYS)
    with SqliteStore(old) as store:
        async with log_on(store):
            pass
        assert verify_trail(store.read(1), store.head()[1], KEYS).events == EVENTS


@pytest.mark.parametrize(
    ("script", "error"),
    [
        (f"DELETE FROM events WHERE sequence = {EVENTS}", ChainBroken),  # the tail was cut off
        ("DELETE FROM events WHERE sequence = 3", StoreUnavailable),
        ("UPDATE events SET record = x'7b7d' WHERE sequence = 3", StoreUnavailable),
        ("UPDATE head SET record = x'7b7d'", ChainBroken),
        ("UPDATE head SET record = CAST(replace(CAST(record AS TEXT), ':7', ':6') AS BLOB)", ChainBroken),
        (f"UPDATE events SET chain_hash = 'ff' WHERE sequence = {EVENTS}", ChainBroken),
    ],
)
async def test_a_trail_that_was_tampered_with_is_not_given_a_new_head(old, script, error):
    change(old, script)
    before = None
    for _ in range(2):
        with pytest.raises(error), SqliteStore(old) as store:
            before = store.head()[1]
            async with log_on(store):
                pytest.fail("it was taken up")
    assert before is None or before.startswith(b"{")


async def test_the_head_of_another_key_is_not_taken_up(old):
    other = fixed_signing_key(2)
    with SqliteStore(old) as store:
        clock = ManualClock()
        with pytest.raises(ChainBroken, match="not among the keys"):
            async with AuditLog(store, other, clock, IdSource(clock)):
                pytest.fail("it was taken up")
