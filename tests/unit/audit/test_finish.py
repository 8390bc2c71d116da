import threading

import pytest

from symbi.audit.event import AuditEventType, Draft, parse_event, place_event, prepare
from symbi.audit.finish import MIN_SHARED, Finisher
from symbi.testing.trail import fixed_signing_key
from symbi.types import AgentId

KEY = fixed_signing_key()


@pytest.fixture
def finisher():
    made = Finisher()
    yield made
    made.close()


def place(sequence):
    draft = Draft(AuditEventType.RUN_STARTED, AgentId("a"), {})
    return place_event(
        prepare(draft), sequence, bytes(32), b"e", b"2026-01-02T03:04:05.000000006Z", KEY.key_id.encode()
    )  # fmt: skip


@pytest.mark.parametrize("count", [1, MIN_SHARED - 1, MIN_SHARED, MIN_SHARED + 1, 101])
@pytest.mark.parametrize("signed", [lambda _: True, lambda _: False, lambda place: place % 3 == 0])
def test_each_event_gets_its_own_signature_in_the_same_order(finisher, count, signed):
    events = [(place(sequence), KEY if signed(sequence) else None) for sequence in range(2, count + 2)]
    finished = finisher.finish(events)
    assert [one.sequence for one in finished] == list(range(2, count + 2))
    for one in finished:
        event = parse_event(one.record, sequence=one.sequence)
        assert one.chain_hash == event.chain_hash
        assert bool(event.signature) is signed(one.sequence)
        if event.signature:
            chain_hash, signature = bytes.fromhex(event.chain_hash), bytes.fromhex(event.signature)
            KEY.verifying_key().verify("audit.event", chain_hash, signature)


def test_what_fails_on_the_other_thread_fails_the_commit(finisher):
    class Broken:
        def sign(self, _domain, _message):
            if threading.current_thread() is not threading.main_thread():
                msg = "broken"
                raise RuntimeError(msg)
            return bytes(64)

    with pytest.raises(RuntimeError, match="broken"):
        finisher.finish([(place(sequence), Broken()) for sequence in range(2, 40)])
