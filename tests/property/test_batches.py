"""Whole batches are proven in one go: the answers are those that each message alone would get."""

from hypothesis import given
from hypothesis import strategies as st

from symbi.bus.codec import Opened
from symbi.bus.signing import Proofs
from symbi.errors import MessageRefused
from symbi.testing.bus import Correspondence
from symbi.types import AgentId

BEN = AgentId("ben")
HERE = Correspondence()
BATCHES = {size: HERE.writer.seal_many([HERE.message(b"%d" % at) for at in range(size)]) for size in (2, 3, 8, 13)}
OTHERS = {size: HERE.writer.seal_many([HERE.message(b"%d" % at) for at in range(size)]) for size in BATCHES}


def said(result):
    return result.payload if isinstance(result, Opened) else result.code


def alone(wires):
    """What comes of each where the reader has seen nothing before."""
    found = []
    for wire in wires:
        try:
            found.append(said(HERE.other_reader().read(wire, BEN)))
        except MessageRefused as refusal:
            found.append(refusal.code)
    return found


@given(st.sampled_from(sorted(BATCHES)), st.data())
def test_an_altered_message_is_refused_and_no_other_of_its_batch(size, data):
    wires = list(BATCHES[size])
    index = data.draw(st.integers(0, size - 1))
    bit = data.draw(st.integers(0, len(wires[index]) * 8 - 1))
    changed = bytearray(wires[index])
    changed[bit // 8] ^= 1 << bit % 8
    wires[index] = bytes(changed)
    found = HERE.other_reader().read_many(wires, BEN)
    assert [at for at, one in enumerate(found) if isinstance(one, MessageRefused)] == [index]
    assert [said(one) for one in found] == alone(wires)


@given(st.lists(st.tuples(st.sampled_from((BATCHES, OTHERS)), st.sampled_from(sorted(BATCHES)), st.integers(0, 12))))
def test_whatever_is_put_together_gets_the_answers_that_each_gets_alone(picked):
    wires = [batches[size][index % size] for batches, size, index in picked]
    wires += BATCHES[3] + OTHERS[8][:-1] + BATCHES[13]
    assert [said(one) for one in HERE.other_reader().read_many(wires, BEN)] == alone(wires)


def test_a_whole_batch_is_proven_without_asking_for_each(monkeypatch):
    asked = []
    monkeypatch.setattr(Proofs, "verifies", lambda *_: asked.append(1) or False)
    reader = HERE.other_reader()
    assert [said(one) for one in reader.read_many(BATCHES[13], BEN)] == [b"%d" % at for at in range(13)]
    assert not asked
    assert all(isinstance(one, MessageRefused) for one in reader.read_many(BATCHES[13][1:], BEN))
    assert len(asked) == 12
