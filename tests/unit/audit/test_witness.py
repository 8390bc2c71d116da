"""What a witness countersigns, what it refuses, and the exact forms of its file and of the request to it."""

from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symbi.audit.checkpoint import Checkpoint, Note, origin_of, parse_note, seal_checkpoint, verify_cosignature
from symbi.audit.witness import (
    AddCheckpoint,
    WitnessKey,
    check_continues,
    cosignatures_of,
    countersign,
    last_seen,
    parse_add_checkpoint,
    parse_witness_file,
    prove_from_leaves,
    read_answer,
    verify_by,
    witness_entry,
)
from symbi.clock import rfc3339
from symbi.crypto.merkle import Frontier, consistency_proof, frontier_of, leaf_hash, node_hash, root_of
from symbi.crypto.provider import open_provider
from symbi.crypto.signing import SigningKey
from symbi.errors import ChainBroken, InputError, SignatureInvalid
from symbi.types import EventId

PROVIDER = open_provider()
KEY, OWN, OTHER = (SigningKey(bytes([number]) * 32, PROVIDER) for number in (1, 2, 3))
KEYS = {KEY.key_id: KEY.verifying_key()}
ORIGIN = origin_of(EventId("e1"))
NAME = "witness.example/w1"
LEAVES = [leaf_hash(b"%d" % number) for number in range(80)]
FORKED = [*LEAVES[:20], *(leaf_hash(b"other %d" % number) for number in range(20, 80))]


def nodes(leaves):
    def node(level, index):
        return leaves[index] if level == 0 else node_hash(node(level - 1, 2 * index), node(level - 1, 2 * index + 1))

    return node


def head(size, leaves=LEAVES, *, key=KEY, at=None, origin=ORIGIN):
    root = root_of(size, nodes(leaves))
    time = rfc3339(1_767_225_600_000_000_000 + (size if at is None else at))
    return parse_note(seal_checkpoint(Checkpoint(origin, size, root, root.hex(), time), key))


def ask(old, note, leaves=LEAVES):
    return AddCheckpoint(old, tuple(consistency_proof(old, note.checkpoint.size, nodes(leaves))), note)


def sign(seen, asked, keys=KEYS):
    return countersign(seen, asked, keys, NAME, OWN, 1_767_322_999)


@given(st.data())
def test_a_proof_from_the_leaves_is_that_of_the_whole_tree(data):
    size = data.draw(st.integers(1, len(LEAVES)))
    old = data.draw(st.integers(0, size))
    first = data.draw(st.integers(0, old))
    before = frontier_of(first, nodes(LEAVES))
    proof, root = prove_from_leaves(old, size, before, LEAVES[first:size])
    assert proof == consistency_proof(old, size, nodes(LEAVES))
    assert root == root_of(size, nodes(LEAVES))


@pytest.mark.parametrize(("old", "size", "first", "given"), [(3, 8, 4, 4), (5, 8, 4, 3), (5, 8, 4, 5), (9, 8, 0, 8)])
def test_a_proof_is_not_made_from_other_leaves(old, size, first, given):
    with pytest.raises(ValueError, match="leaves"):
        prove_from_leaves(old, size, frontier_of(first, nodes(LEAVES)), LEAVES[first : first + given])


@given(st.integers(1, 80), st.integers(0, 79))
def test_a_head_that_continues_the_last_one_is_countersigned(size, less):
    old = max(0, size - less)
    seen = head(old) if old else None
    note = sign(seen, ask(old, head(size)))
    assert verify_cosignature(note, NAME, OWN.verifying_key()) == 1_767_322_999
    verify_by(note, KEYS)


@pytest.mark.parametrize(
    ("seen", "asked", "reason"),
    [
        (head(30), ask(30, head(40, FORKED), FORKED), "fork"),
        (head(30), ask(30, head(30, FORKED), FORKED), "fork"),
        (head(30), AddCheckpoint(30, (), head(40)), "fork"),
        (head(30), replace(ask(30, head(40)), note=head(40, at=1)), "time"),
        (head(30), ask(30, head(40, origin=origin_of(EventId("e2")))), "origin"),
        (head(30), ask(30, head(40, key=OTHER)), "key"),
    ],
)
def test_what_does_not_continue_the_last_head_is_refused(seen, asked, reason):
    with pytest.raises(ChainBroken) as refused:
        sign(seen, asked)
    assert refused.value.fields["reason"] == reason
    if reason in {"fork", "time"}:
        for one in (seen, asked.note):
            assert f"event {one.checkpoint.size} (root {one.checkpoint.root.hex()[:16]}" in refused.value.message


def test_a_head_from_before_is_a_rollback_that_names_both():
    with pytest.raises(ChainBroken, match=r"event 30 .* is from before the head at event 40") as refused:
        check_continues(head(40).checkpoint, head(30).checkpoint, ())
    assert refused.value.fields["reason"] == "rollback"


def test_a_head_with_another_chain_over_the_same_tree_is_a_fork():
    seen = head(30)
    other = replace(seen.checkpoint, chain_hash="00" * 32)
    with pytest.raises(ChainBroken, match="does not continue"):
        check_continues(seen.checkpoint, other, ())


@pytest.mark.parametrize("old", [0, 29, 31])
def test_a_request_that_builds_on_another_head_is_told_the_size(old):
    with pytest.raises(InputError) as refused:
        sign(head(30), ask(old, head(40)))
    assert refused.value.fields["size"] == 30


def test_a_signature_that_was_altered_is_refused():
    note = head(30)
    broken = replace(note.signatures[0], signature=bytes(64))
    with pytest.raises(ChainBroken, match="signature"):
        sign(None, AddCheckpoint(0, (), Note(note.checkpoint, (broken,))))


@given(st.integers(1, 80), st.integers(0, 79))
def test_a_request_is_read_as_it_was_written(size, less):
    asked = ask(max(0, size - less), head(size))
    body = asked.to_bytes()
    assert parse_add_checkpoint(body) == asked
    assert body.startswith(b"old %d\n" % asked.old)
    assert body.endswith(b"\n\n" + asked.note.to_bytes())


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"old 1\n\n",
        b"old 01\n\n" + head(3).to_bytes(),
        b"old -1\n\n" + head(3).to_bytes(),
        b"old 1\nAAAA\n\n" + head(3).to_bytes(),
        b"old 1\n!\n\n" + head(3).to_bytes(),
        b"new 1\n\n" + head(3).to_bytes(),
        b"old 1\n" + b"A" * 43 + b"=\n" * 64 + b"\n" + head(3).to_bytes(),
        b"old 1\n\n" + head(3).to_bytes()[:-1],
        b"\xff\n\n" + head(3).to_bytes(),
    ],
)
def test_a_request_of_another_form_is_refused(body):
    with pytest.raises(InputError):
        parse_add_checkpoint(body)


@given(st.binary(max_size=400))
def test_no_bytes_make_a_reader_fail_in_another_way(data):
    for read, error in ((parse_add_checkpoint, InputError), (parse_witness_file, ChainBroken)):
        with suppress(error):
            read(data)


def test_a_witness_file_is_read_as_it_was_written():
    notes = [sign(None, ask(0, head(3))), sign(head(3), ask(3, head(30)))]
    data = b"".join(map(witness_entry, notes))
    assert parse_witness_file(data) == notes
    assert parse_witness_file(b"") == []
    assert last_seen(notes, ORIGIN) == notes[-1]
    assert last_seen(notes, "symbi.trail/other") is None
    for end in range(1, len(data)):
        if data[:end] != witness_entry(notes[0]):
            with pytest.raises(ChainBroken):
                parse_witness_file(data[:end])


def test_a_witness_key_is_read_as_it_is_shown():
    key = WitnessKey(NAME, OWN.verifying_key())
    shown = str(key)
    assert WitnessKey.parse(shown, PROVIDER) == key
    name, digits, encoded = shown.split("+", 2)
    for bad in (
        "", name, f"{name}+{digits}", f"other+{digits}+{encoded}", f"{name}+00000000+{encoded}",
        f"{name}+{digits}+AAAA", f"{name}+{digits}+!", f"a b+{digits}+{encoded}",
    ):  # fmt: skip
        with pytest.raises(InputError):
            WitnessKey.parse(bad, PROVIDER)


def test_an_answer_counts_if_the_witness_signed_it():
    note = head(30)
    witness = WitnessKey(NAME, OWN.verifying_key())
    lines = "".join(one.line() for one in cosignatures_of(sign(None, ask(0, note)))).encode()
    merged, unix_s = read_answer(note, lines, witness)
    assert unix_s == 1_767_322_999
    assert [one.name for one in merged.signatures] == [ORIGIN, NAME]
    assert read_answer(merged, lines, witness)[0] == merged
    for bad in (b"", b"ok\n", lines[:-3], lines.replace(b"w1", b"w2")):
        with pytest.raises(SignatureInvalid):
            read_answer(note, bad, witness)
    with pytest.raises(SignatureInvalid):
        read_answer(head(31), lines, witness)
    with pytest.raises(SignatureInvalid):
        read_answer(note, lines, WitnessKey(NAME, OTHER.verifying_key()))


def test_an_empty_frontier_needs_all_leaves():
    assert prove_from_leaves(0, 3, Frontier(), LEAVES[:3])[1] == root_of(3, nodes(LEAVES))
