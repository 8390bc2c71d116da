"""Proofs of batches: right for every size, index and order, wrong for anything else, whatever was seen before."""

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symbi.bus import signing
from symbi.bus.envelope import HASH_BYTES, MAX_BATCH, PLACE_BYTES, depth_of, place
from symbi.bus.signing import FILLINGS, Proofs, leaf_of, sign_batch, sign_one, verifies_one
from symbi.crypto.provider import open_provider
from symbi.crypto.signing import SigningKey

KEY = SigningKey(bytes(range(32)), open_provider())
OTHER = SigningKey(bytes(range(1, 33)), open_provider())
PUBLIC = KEY.verifying_key()


def batch(size, begin=0):
    texts = [b"message %d" % number for number in range(begin, begin + size)]
    return texts, sign_batch(KEY, [leaf_of(text) for text in texts])


class Counted:
    """A verifying key that counts."""

    def __init__(self, key):
        self.key = key
        self.verified = 0

    def verifies(self, domain, message, signature):
        self.verified += 1
        return self.key.verifies(domain, message, signature)


@pytest.mark.parametrize("size", [*range(2, 34), 127, 128, 129, MAX_BATCH])
def test_every_message_of_a_batch_is_proven(size):
    texts, proofs = batch(size)
    known = Proofs()
    for index, (text, proof) in enumerate(zip(texts, proofs, strict=True)):
        assert proof[:PLACE_BYTES] == place(size, index)
        assert len(proof) == PLACE_BYTES + HASH_BYTES * depth_of(size) + 64
        assert Proofs().verifies(PUBLIC, text, proof)
        assert known.verifies(PUBLIC, text, proof)
        assert known.verifies(PUBLIC, text, proof)
        assert not known.verifies(PUBLIC, text + b".", proof)


@pytest.mark.parametrize("order", list(permutations(range(4))))
def test_they_are_proven_in_any_order(order):
    texts, proofs = batch(4)
    known = Proofs()
    assert all(known.verifies(PUBLIC, texts[index], proofs[index]) for index in order)


@pytest.mark.parametrize("size", [2, 64, 100, 256])
def test_a_batch_in_order_costs_one_signature_and_a_node_for_each_message(monkeypatch, size):
    texts, proofs = batch(size)
    counted, hashed = Counted(PUBLIC), []
    sha256 = signing.sha256
    monkeypatch.setattr(signing, "sha256", lambda data: (hashed.append(len(data)), sha256(data))[1])
    known = Proofs()
    assert all(known.verifies(counted, text, proof) for text, proof in zip(texts, proofs, strict=True))
    assert counted.verified == 1
    assert len(hashed) <= 2 * size + depth_of(size)  # a leaf and a node each, and once the way to the root


def test_signing_a_batch_costs_one_signature_and_a_node_for_each_message(monkeypatch):
    hashed = []
    sha256 = signing.sha256
    monkeypatch.setattr(signing, "sha256", lambda data: (hashed.append(len(data)), sha256(data))[1])
    batch(256)
    assert len(hashed) == 256 + 255


SEEN = st.lists(st.integers(0, 10), max_size=8)


@given(st.integers(2, 11), st.data(), SEEN)
def test_what_was_seen_before_changes_no_answer(size, data, seen):
    texts, proofs = batch(size)
    known = Proofs()
    for index in seen:
        assert index >= size or known.verifies(PUBLIC, texts[index], proofs[index])
    index = data.draw(st.integers(0, size - 1))
    at = data.draw(st.integers(0, len(proofs[index]) - 1))
    bit = data.draw(st.integers(0, 7))
    flipped = bytearray(proofs[index])
    flipped[at] ^= 1 << bit
    changed = bytes(flipped)
    claimed = int.from_bytes(changed[:2])
    fits = 1 < claimed <= MAX_BATCH and int.from_bytes(changed[2:4]) < claimed  # else a parser has refused it
    if fits and depth_of(claimed) == depth_of(size):
        assert not Proofs().verifies(PUBLIC, texts[index], changed)
        assert not known.verifies(PUBLIC, texts[index], changed)
    other = data.draw(st.integers(0, size - 1))
    mixed = proofs[index][:PLACE_BYTES] + proofs[other][PLACE_BYTES:]
    assert known.verifies(PUBLIC, texts[index], mixed) == Proofs().verifies(PUBLIC, texts[index], mixed)
    assert known.verifies(PUBLIC, texts[index], mixed) == (index == other)
    assert known.verifies(PUBLIC, texts[index], proofs[index])


def test_a_batch_of_one_key_is_none_of_another():
    texts, proofs = batch(4)
    known = Proofs()
    assert known.verifies(PUBLIC, texts[0], proofs[0])
    assert not known.verifies(OTHER.verifying_key(), texts[1], proofs[1])


def test_a_node_is_no_message_and_the_filling_is_none():
    """The hash of a node can't be shown as a leaf one row up, and nothing stands where a batch is filled up."""
    texts, proofs = batch(4)
    node_text = b"symbi/bus/node/1\0" + leaf_of(texts[0]) + leaf_of(texts[1])
    shorter = place(2, 0) + proofs[0][PLACE_BYTES + HASH_BYTES :]
    assert not Proofs().verifies(PUBLIC, node_text, shorter)
    texts, proofs = batch(3)
    assert proofs[2][PLACE_BYTES : PLACE_BYTES + HASH_BYTES] == FILLINGS[0]
    beside = leaf_of(texts[2]) + proofs[2][PLACE_BYTES + HASH_BYTES :]
    assert not Proofs().verifies(PUBLIC, b"symbi/bus/filling/1\0", place(4, 3) + beside)


def test_only_so_many_batches_are_remembered(monkeypatch):
    monkeypatch.setattr(signing, "MAX_PROVEN", 3)
    counted, known = Counted(PUBLIC), Proofs()
    several = [batch(2, begin=10 * number) for number in range(5)]
    for texts, proofs in several:
        assert known.verifies(counted, texts[0], proofs[0])
    assert counted.verified == 5
    assert known.verifies(counted, several[4][0][1], several[4][1][1])
    assert counted.verified == 5
    assert known.verifies(counted, several[0][0][1], several[0][1][1])
    assert counted.verified == 6
    assert len(known._proven) == 3


def test_a_signature_of_one_is_for_that_one_alone():
    proof = sign_one(KEY, b"text")
    assert verifies_one(PUBLIC, b"text", proof)
    assert not verifies_one(PUBLIC, b"text.", proof)
    assert not verifies_one(OTHER.verifying_key(), b"text", proof)
    assert not PUBLIC.verifies("symbi/bus/batch/1", leaf_of(b"text"), proof)
