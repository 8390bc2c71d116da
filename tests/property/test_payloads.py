"""Large values are kept once, for as long as anything refers to them, and read back as they were written."""

import hashlib
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symbi.adapters.sqlite import DATABASE_NAME, SqliteReader, SqliteStore
from symbi.adapters.sqlite.payloads import MAX_INLINE_BYTES
from symbi.agent.journal import RunRecord, RunState
from symbi.errors import StoreUnavailable
from symbi.guard.ledger import EffectRecord, EffectState
from symbi.runtime.mailbox import Message
from symbi.types import AgentId, EffectId, RecoveryClass, RunId

LARGE = [bytes([65 + n]) * (MAX_INLINE_BYTES + 1 + n) for n in range(4)]
SEALED = [b"\x01" + one for one in LARGE[:2]]
VALUES = st.sampled_from([None, b"{}", b"x" * MAX_INLINE_BYTES, *LARGE, *SEALED])
STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "effect",
                "confirm",
                "again",
                "run",
                "end",
                "drop effect",
                "drop run",
                "send",
                "send again",
                "ripen",
                "take",
            ]
        ),
        VALUES,
        VALUES,
    ),
    max_size=30,
)


def effect(number, result, error):
    return EffectRecord(
        EffectId(f"e{number}"), RunId("r"), number, AgentId("a"), "A", "T::t", "00", RecoveryClass.READ_ONLY, "v", b"{}",
        "user/public", 1, 1, EffectState.UNKNOWN, result, error,
    )  # fmt: skip


class Model:
    """What is stored, as it was written, and the store that holds it."""

    def __init__(self, store):
        self.store, self.effects, self.runs, self.made, self.mail = store, {}, {}, 0, {}

    def step(self, kind, one, other):
        store = self.store
        with store.transaction():
            match kind:
                case "effect":
                    self.effects[self.made] = effect(self.made, one, other)
                    store.put_effect(self.effects[self.made])
                    self.made += 1
                case "confirm" | "again" if self.effects:
                    number, was = next(iter(self.effects.items()))
                    if was.state is EffectState.UNKNOWN:
                        state = EffectState.RECONCILED if kind == "confirm" else EffectState.UNKNOWN
                        self.effects[number] = replace(was, state=state, result=one, error=other)
                        store.move_effect(self.effects[number], was.state)
                case "run":
                    record = RunRecord(RunId(f"r{self.made}"), AgentId("a"), "/f", "ff", one or b"{}", RunState.RUNNING)
                    self.runs[self.made] = record
                    store.put_run(record)
                    self.made += 1
                case "end" if self.runs:
                    number, was = next(iter(self.runs.items()))
                    if was.state is RunState.RUNNING:
                        self.runs[number] = replace(was, state=RunState.FINISHED, output=one, error=other)
                        store.move_run(self.runs[number], was.state)
                case "send":
                    message = Message(RunId(f"m{self.made}"), AgentId("a"), "x", one or b"{}", None, self.made % 2)
                    assert store.put_message(message)
                    self.mail[message.message_id] = message
                    self.made += 1
                case "send again" if self.mail:  # with another body, which is not kept
                    assert not store.put_message(replace(next(iter(self.mail.values())), body=one or b"{}"))
                case "ripen":
                    store.ripen(10, 10)
                case "take" if self.mail:
                    assert store.drop_message(self.mail.popitem()[0])
                case "drop effect" if self.effects:
                    gone = self.effects.pop(next(iter(self.effects)))
                    store._db.execute("DELETE FROM effects WHERE effect_id = ?", (gone.effect_id,))
                case "drop run" if self.runs:
                    gone = self.runs.pop(next(iter(self.runs)))
                    store._db.execute("DELETE FROM runs WHERE run_id = ?", (gone.run_id,))

    def check(self):
        for number, record in self.effects.items():
            assert self.store.effect_at(RunId("r"), number) == record
        for record in self.runs.values():
            assert self.store.get_run(record.run_id) == record
        for message in self.mail.values():
            assert self.store.get_message(message.message_id).body == message.body
        columns = [one for e in self.effects.values() for one in (e.result, e.error)]
        columns += [one for r in self.runs.values() for one in (r.inputs, r.output, r.error)]
        columns += [message.body for message in self.mail.values()]
        wanted = Counter(one for one in columns if one is not None and len(one) > MAX_INLINE_BYTES)
        kept = self.store._db.execute("SELECT digest, bytes, uses FROM payloads").fetchall()
        assert {data: uses for _, data, uses in kept} == wanted
        assert all(digest == hashlib.sha256(data).digest() for digest, data, _ in kept)


@given(STEPS)
@settings(deadline=None)
def test_a_payload_is_there_once_and_exactly_as_long_as_something_refers_to_it(steps):
    with SqliteStore(None) as store:
        model = Model(store)
        for step in steps:
            model.step(*step)
        model.check()


def test_what_is_undone_leaves_no_payload():
    with SqliteStore(None) as store:
        with pytest.raises(RuntimeError), store.transaction():
            store.put_effect(effect(0, LARGE[0], None))
            raise RuntimeError
        assert store._db.execute("SELECT count(*) FROM payloads").fetchone() == (0,)


def test_a_reference_without_its_payload_is_told_and_not_read_as_a_value(tmp_path):
    with SqliteStore(tmp_path) as store:
        with store.transaction():
            store.put_effect(effect(0, LARGE[0], None))
        store._db.execute("DELETE FROM payloads")
        with pytest.raises(StoreUnavailable, match="payload"):
            store.effect_at(RunId("r"), 0)


def test_a_store_from_before_there_were_payloads_can_be_read(tmp_path):
    with SqliteStore(tmp_path) as store:
        with store.transaction():
            store.put_effect(effect(0, b"1", None))
        names = [row[0] for row in store._db.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")]
        for name in names:
            store._db.execute(f"DROP TRIGGER {name}")
        store._db.execute("DROP TABLE payloads")
    assert (tmp_path / DATABASE_NAME).is_file()
    with SqliteReader(tmp_path) as reader:
        assert reader.effects_of(RunId("r"))[0].result == b"1"
    with SqliteStore(tmp_path) as store, store.transaction():
        store.put_effect(replace(effect(1, LARGE[0], None), epoch=store.epoch))
