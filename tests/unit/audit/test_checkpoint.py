"""Checkpoints as signed notes: their exact form, what signs them, and what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symbi.audit.checkpoint import (
    Checkpoint,
    cosign,
    key_hash,
    origin_of,
    parse_note,
    seal_checkpoint,
    verify_cosignature,
    verify_note,
)
from symbi.crypto.provider import open_provider
from symbi.crypto.signing import SigningKey
from symbi.errors import ChainBroken, InputError, SignatureInvalid
from symbi.types import EventId

PROVIDER = open_provider()
KEY, WITNESS, OTHER = (SigningKey(bytes([number]) * 32, PROVIDER) for number in (1, 2, 3))
CHECKPOINT = Checkpoint(origin_of(EventId("e1")), 7, b"r" * 32, "ab" * 32, "2026-01-02T03:04:05.000000006Z")
SIGNED = seal_checkpoint(CHECKPOINT, KEY)


def test_a_checkpoint_is_a_signed_note():
    text, _, signed = SIGNED.decode().partition("\n\n")
    assert text.split("\n") == [
        "symbi.trail/e1",
        "7",
        "cnJycnJycnJycnJycnJycnJycnJycnJycnJycnJycnI=",
        f"chain {'ab' * 32}",
        "time 2026-01-02T03:04:05.000000006Z",
    ]
    assert signed.startswith("\u2014 symbi.trail/e1 ")
    assert signed.endswith("\n")
    note = parse_note(SIGNED)
    assert note.checkpoint == CHECKPOINT
    assert note.to_bytes() == SIGNED
    verify_note(note, KEY.verifying_key())
    with pytest.raises(ChainBroken, match="not signed by key"):
        verify_note(note, OTHER.verifying_key())


def test_a_key_hash_tells_keys_names_and_algorithms_apart():
    public = KEY.verifying_key().public
    assert len(key_hash("a", public)) == 4
    assert len({key_hash("a", public), key_hash("b", public), key_hash("a", public, 4), key_hash("a", bytes(32))}) == 4


def test_a_witness_countersigns_with_its_own_time():
    note = cosign(parse_note(SIGNED), "witness.example/w1", WITNESS, 1_767_322_999)
    again = parse_note(note.to_bytes())
    verify_note(again, KEY.verifying_key())
    assert verify_cosignature(again, "witness.example/w1", WITNESS.verifying_key()) == 1_767_322_999
    for name, key in (("witness.example/w2", WITNESS), ("witness.example/w1", OTHER)):
        with pytest.raises(SignatureInvalid):
            verify_cosignature(again, name, key.verifying_key())
    with pytest.raises(SignatureInvalid):
        verify_cosignature(parse_note(SIGNED), "witness.example/w1", WITNESS.verifying_key())


@given(st.integers(0, 8 * len(SIGNED) - 1))
def test_no_bit_of_a_checkpoint_can_be_flipped(bit):
    altered = bytearray(SIGNED)
    altered[bit // 8] ^= 1 << bit % 8
    with pytest.raises(ChainBroken):
        verify_note(parse_note(bytes(altered)), KEY.verifying_key())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n\n",
        b"\xff",
        SIGNED[:-1],
        SIGNED + b"\n",
        SIGNED.replace(b"\n7\n", b"\n07\n"),
        SIGNED.replace(b"\n7\n", b"\n0\n"),
        SIGNED.replace(b"\n7\n", b"\n-7\n"),
        SIGNED.replace("\u2014 ".encode(), b"- "),
        SIGNED.replace(b"\n\n", b"\nmore\n\n"),
        SIGNED.partition(b"\n\n")[0] + b"\n\n",
        SIGNED + b"x" * 70_000,
    ],
)
def test_what_is_no_signed_note_is_refused(data):
    with pytest.raises(ChainBroken) as broken:
        parse_note(data)
    assert broken.value.fields["reason"] == "head"


def test_a_note_is_no_message_of_a_domain():
    message = b"symbi/sign/1\x00\x01amessage"
    with pytest.raises(InputError):
        KEY.sign_note(message)
    assert not KEY.verifying_key().verifies_note(message, KEY.sign("a", b"message"))
