"""The store ports (AuditStore, EffectStore, RunStore, PinStore) on every adapter: SQLite on disk and in memory."""

import hashlib
import multiprocessing
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from symbi.adapters.sqlite import DATABASE_NAME, SqliteReader, SqliteStore
from symbi.adapters.sqlite.facts import REQUEST_PAGE
from symbi.agent.journal import RunRecord, RunState
from symbi.audit.port import EventIndex, StoredEvent, Tile, TrailCommit
from symbi.errors import ChainBroken, InternalError, StoreUnavailable
from symbi.guard.facts import Facts
from symbi.guard.ledger import MOVES, EffectRecord, EffectState
from symbi.tools.port import Pin, PinHead, Review, ReviewKind, ReviewState
from symbi.types import AgentId, EffectId, RecoveryClass, RunId


@pytest.fixture(params=["disk", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqliteStore]:
    with SqliteStore(tmp_path / "data" if request.param == "disk" else None) as opened:
        yield opened


def effect(position: int = 0, state: EffectState = EffectState.DISPATCHED, epoch: int = 1) -> EffectRecord:
    return EffectRecord(
        effect_id=EffectId(f"e{position}"),
        run_id=RunId("r1"),
        position=position,
        agent_id=AgentId("a"),
        action="InvokeTool::s.t",
        resource="Tool::s.t",
        arguments_digest="00",
        recovery=RecoveryClass.IDEMPOTENT,
        policy_version="v",
        decision=b"{}",
        label="user/public",
        epoch=epoch,
        attempt=1,
        state=state,
    )


def run_record(run_id: str = "r1") -> RunRecord:
    return RunRecord(RunId(run_id), AgentId("a"), "/f.symbi", "ff", b"{}", RunState.RUNNING, started_at="t")


def commit(first: int, count: int, head: bytes, *, keep: bool = False) -> TrailCommit:
    numbers = range(first, first + count)
    events = [StoredEvent(n, f'{{"n":{n}}}'.encode(), f"h{n}") for n in numbers]
    index = [EventIndex(f"agent-{n % 2}", "", "run.started", "", ("p", "q") if n % 2 else ()) for n in numbers]
    return TrailCommit(events, index, (), head, keep)


def test_an_empty_trail_has_no_head(store: SqliteStore) -> None:
    assert store.head() is None
    assert list(store.read(1)) == []


def test_appended_events_come_back_in_order_with_the_last_head(store: SqliteStore) -> None:
    with store.transaction():
        store.append(commit(1, 2500, b"head-1"))
    with store.transaction():
        store.append(commit(2501, 1, b"head-2"))
    assert [event.sequence for event in store.read(1)] == list(range(1, 2502))
    assert [event.sequence for event in store.read(5, 7)] == [5, 6, 7]
    assert store.head() == (StoredEvent(2501, b'{"n":2501}', "h2501"), b"head-2")


def test_what_events_are_found_by_stands_beside_them(store: SqliteStore) -> None:
    with store.transaction():
        store.append(commit(1, 5, b"head"))
    by_agent = store._db.execute("SELECT sequence FROM events WHERE agent_id = 'agent-1' ORDER BY sequence")
    assert by_agent.fetchall() == [(1,), (3,), (5,)]
    by_policy = store._db.execute("SELECT sequence FROM event_policies WHERE policy = 'q' ORDER BY sequence")
    assert by_policy.fetchall() == [(1,), (3,), (5,)]


def test_checkpoints_are_kept_where_they_are_to_be_and_take_more_signatures(store: SqliteStore) -> None:
    assert store.last_checkpoint() == 0
    with store.transaction():
        store.append(commit(1, 3, b"head-3", keep=True))
    with store.transaction():
        store.append(commit(4, 2, b"head-5"))
    with store.transaction():
        store.put_checkpoint(5, b"head-5")
        store.put_checkpoint(3, b"head-3 and a cosignature")
    assert list(store.checkpoints(1)) == [(3, b"head-3 and a cosignature"), (5, b"head-5")]
    assert list(store.checkpoints(4, 4)) == []
    assert store.last_checkpoint() == 5


def test_tiles_and_records_come_back_and_damaged_ones_are_named(store: SqliteStore) -> None:
    hashes = bytes(256 * 32)
    with store.transaction():
        store.append(replace(commit(1, 3, b"head"), tiles=(Tile(1, 7, hashes),)))
    assert store.tile(1, 7) == hashes
    assert store.tile(0, 7) is None
    assert store.record(2) == b'{"n":2}'
    with pytest.raises(ChainBroken, match="event 4 is missing"):
        store.record(4)
    store._db.execute("UPDATE tiles SET hashes = x'00'")
    with pytest.raises(ChainBroken, match="tile 7 at level 1"):
        store.tile(1, 7)


def test_a_transaction_that_raises_leaves_nothing(store: SqliteStore) -> None:
    with pytest.raises(RuntimeError), store.transaction():
        store.append(commit(1, 1, b"head"))
        store.put_effect(effect())
        raise RuntimeError
    assert store.head() is None
    assert store.effect_at(RunId("r1"), 0) is None


def test_a_savepoint_that_raises_is_undone_alone(store: SqliteStore) -> None:
    with store.transaction():
        with store.savepoint():
            store.put_effect(effect(0))
        with pytest.raises(InternalError), store.savepoint():
            store.put_effect(effect(1))
            store.put_effect(effect(1))
        with store.savepoint():
            store.put_effect(effect(2))
    assert [record.position for record in store.effects_of(RunId("r1"))] == [0, 2]


def test_an_effect_comes_back_as_it_was_put(store: SqliteStore) -> None:
    record = replace(effect(), result=b"\x00\xff", error=b"{}")
    with store.transaction():
        store.put_effect(record)
    assert store.effect_at(RunId("r1"), 0) == record
    assert store.effects_in(EffectState.DISPATCHED) == [record]


def test_one_place_in_a_run_takes_one_effect(store: SqliteStore) -> None:
    with store.transaction():
        store.put_effect(effect())
        with pytest.raises(InternalError, match="recorded already"):
            store.put_effect(replace(effect(), effect_id=EffectId("other")))


def test_effects_without_a_run_do_not_collide(store: SqliteStore) -> None:
    with store.transaction():
        for name in ("x", "y"):
            store.put_effect(replace(effect(), effect_id=EffectId(name), run_id=RunId(""), position=-1))
    assert len(store.effects_in(EffectState.DISPATCHED)) == 2


@pytest.mark.parametrize("was", list(EffectState))
@pytest.mark.parametrize("then", list(EffectState))
def test_only_the_moves_of_the_table_are_made(store: SqliteStore, was: EffectState, then: EffectState) -> None:
    with store.transaction():
        store.put_effect(effect(state=was))
    with store.transaction():
        if then in MOVES[was]:
            store.move_effect(effect(state=then), was)
        else:
            with pytest.raises(InternalError, match="cannot move"):
                store.move_effect(effect(state=then), was)
    found = store.effect_at(RunId("r1"), 0)
    assert found is not None
    assert found.state is (then if then in MOVES[was] else was)


def test_a_move_from_a_state_that_has_changed_is_refused(store: SqliteStore) -> None:
    with store.transaction():
        store.put_effect(effect())
        store.move_effect(effect(state=EffectState.CONFIRMED), EffectState.DISPATCHED)
        with pytest.raises(InternalError, match="not dispatched any more"):
            store.move_effect(effect(state=EffectState.FAILED), EffectState.DISPATCHED)


def test_the_write_of_a_stale_owner_is_refused(tmp_path: Path) -> None:
    with SqliteStore(tmp_path) as first:
        assert first.epoch == 1
    with SqliteStore(tmp_path) as second:
        assert second.epoch == 2
        with second.transaction(), pytest.raises(StoreUnavailable, match="has taken over"):
            second.put_effect(effect(epoch=1))


def test_runs_move_only_as_the_table_says(store: SqliteStore) -> None:
    with store.transaction():
        store.put_run(run_record())
        with pytest.raises(InternalError):
            store.put_run(run_record())
        store.move_run(replace(run_record(), state=RunState.FINISHED, output=b"1"), RunState.RUNNING)
        with pytest.raises(InternalError, match="cannot move"):
            store.move_run(replace(run_record(), state=RunState.RUNNING), RunState.FINISHED)
        with pytest.raises(InternalError, match="not running any more"):
            store.move_run(replace(run_record(), state=RunState.FAILED), RunState.RUNNING)
    found = store.get_run(RunId("r1"))
    assert found is not None
    assert (found.state, found.output) == (RunState.FINISHED, b"1")
    assert store.get_run(RunId("none")) is None
    assert [run.run_id for run in store.runs(5)] == ["r1"]


def test_pins_are_replaced_by_tool(store: SqliteStore) -> None:
    pin = Pin("s.t", "k", "d", "digest", "{}", "now")
    with store.transaction():
        store.put_pin(pin)
        store.put_pin(replace(pin, state="quarantined"))
    assert store.pins() == [replace(pin, state="quarantined")]
    assert store.pin_heads() == [PinHead("s.t", "k")]
    assert store.get_pin("s.x") is None


def test_reviews_are_replaced_by_kind_and_name_and_forgotten(store: SqliteStore) -> None:
    review = Review(ReviewKind.TOOL, "s.t", ReviewState.WAITING, "d", "{}", "why", "now")
    with store.transaction():
        store.put_review(review)
        store.put_review(replace(review, state=ReviewState.REVOKED))
        store.put_review(replace(review, kind=ReviewKind.KEY))
        store.drop_review(ReviewKind.SERVER, "s.t")
    assert store.reviews() == [replace(review, kind=ReviewKind.KEY), replace(review, state=ReviewState.REVOKED)]
    assert store.get_review(ReviewKind.TOOL, "s.x") is None
    with store.transaction():
        store.drop_review(ReviewKind.TOOL, "s.t")
    assert store.get_review(ReviewKind.TOOL, "s.t") is None


def test_a_closed_store_is_unavailable(store: SqliteStore) -> None:
    store.close()
    with pytest.raises(StoreUnavailable):
        store.head()


def _try_to_open(folder: str, answers: "multiprocessing.Queue[str]") -> None:
    try:
        with SqliteStore(Path(folder)):
            answers.put("opened")
    except StoreUnavailable as error:
        answers.put(error.code)


def test_a_second_owner_is_refused_also_from_another_process(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    answers: multiprocessing.Queue[str] = context.Queue()
    with SqliteStore(tmp_path):
        with pytest.raises(StoreUnavailable, match="owns the data folder"), SqliteStore(tmp_path):
            pass
        child = context.Process(target=_try_to_open, args=(str(tmp_path), answers))
        child.start()
        assert answers.get(timeout=30) == "unavailable.store_owned"
        child.join(timeout=30)


def test_a_store_of_another_version_is_refused(tmp_path: Path) -> None:
    with SqliteStore(tmp_path):
        pass
    with sqlite3.connect(tmp_path / DATABASE_NAME) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(StoreUnavailable, match="version 99"), SqliteStore(tmp_path):
        pass


def test_a_file_that_is_no_database_is_unavailable_not_a_crash(tmp_path: Path) -> None:
    (tmp_path / DATABASE_NAME).write_bytes(b"this is not a database, it is a text" * 100)
    with pytest.raises(StoreUnavailable, match="not a database"), SqliteStore(tmp_path):
        pass


def test_a_reader_sees_what_is_committed_beside_the_owner_and_cannot_write(tmp_path: Path) -> None:
    with SqliteStore(tmp_path) as owner, owner.transaction():
        owner.append(commit(1, 3, b"head"))
    with SqliteStore(tmp_path) as owner, SqliteReader(tmp_path) as reader:
        assert len(list(reader.read(1))) == 3
        with owner.transaction():
            owner.append(commit(4, 1, b"head-4"))
        assert len(list(reader.read(1))) == 3  # one snapshot: events and head always fit
        assert reader.head_record() == b"head"
    with SqliteReader(tmp_path) as reader:
        assert reader.event_count() == 4


def test_a_reader_of_an_absent_store_says_so(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="no store"), SqliteReader(tmp_path):
        pass


def test_each_decision_on_an_effect_keeps_its_facts(tmp_path: Path) -> None:
    first, second, third, fourth = (Facts(data, None) for data in (b"1", b"2", b"3", b"4"))
    with SqliteStore(tmp_path) as store:
        with store.transaction():
            store.put_effect(replace(effect(), facts=first))
            # What settles an effect decides nothing.
            store.move_effect(replace(effect(state=EffectState.UNKNOWN), facts=third), EffectState.DISPATCHED)
            store.move_effect(replace(effect(), facts=second), EffectState.UNKNOWN)
            store.put_facts(replace(effect(), facts=fourth))
            store.put_facts(replace(effect(), facts=fourth))
        with pytest.raises(RuntimeError), store.transaction():
            store.put_facts(replace(effect(), facts=third))
            raise RuntimeError
    with SqliteReader(tmp_path) as reader:
        assert {row.request for row in reader.requests_of(EffectId("e0"))} == {b"1", b"2", b"4"}
        assert all(row.digest == hashlib.sha256(row.request).hexdigest() for row in reader.requests())
        assert (reader.get_effect(EffectId("e0")), reader.get_effect(EffectId("none"))) == (effect(), None)
        assert reader.policy_set("v") is None


def test_requests_come_in_pages_and_in_order(tmp_path: Path) -> None:
    with SqliteStore(tmp_path) as store, store.transaction():
        for number in range(2 * REQUEST_PAGE + 1):
            store.put_effect(replace(effect(number), facts=Facts(str(number).encode(), None)))
    with SqliteReader(tmp_path) as reader:
        rows = list(reader.requests())
    assert len(rows) == 2 * REQUEST_PAGE + 1
    assert [row.effect_id for row in rows] == sorted(row.effect_id for row in rows)
