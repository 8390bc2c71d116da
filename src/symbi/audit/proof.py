"""Proofs that stand for themselves: that an event is in the trail, and that one head continues another.

Each is a small JSON document (docs/reference/audit-format.md): whoever holds it and the trail's public key needs
neither the trail nor whoever wrote it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from symbi.audit.checkpoint import Note, key_hash, parse_note, verify_note
from symbi.audit.event import AuditEvent, parse_event
from symbi.audit.piece import ANY, Before, Piece, check_piece
from symbi.crypto.merkle import (
    HASH_BYTES,
    Nodes,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    verify_consistency,
    verify_inclusion,
)
from symbi.crypto.signing import VerifyingKey
from symbi.errors import ChainBroken, InputError
from symbi.types import KeyId

INCLUSION: Final = "symbi.inclusion/1"
CONSISTENCY: Final = "symbi.consistency/1"
MAX_PROOF_BYTES: Final = 2_500_000  # a record of the largest size, escaped, and what goes with it
MAX_HASHES: Final = 128

_INCLUSION_FIELDS: Final = {"type", "index", "size", "record", "hashes", "checkpoint"}
_CONSISTENCY_FIELDS: Final = {"type", "old_size", "size", "hashes", "old_checkpoint", "checkpoint"}


@dataclass(frozen=True, slots=True)
class Inclusion:
    """That an event is in the trail.

    Attributes:
        record: The event.
        index: Its sequence number less one.
        hashes: The audit path, 32 bytes each.
        note: The checkpoint that covers it.
    """

    record: bytes
    index: int
    hashes: tuple[bytes, ...]
    note: Note

    def to_json(self) -> dict[str, Any]:
        """As it is written."""
        return {
            "type": INCLUSION,
            "index": self.index,
            "size": self.note.checkpoint.size,
            "record": self.record.decode(),
            "hashes": [one.hex() for one in self.hashes],
            "checkpoint": self.note.to_bytes().decode(),
        }

    def verify(self, keys: Mapping[KeyId, VerifyingKey]) -> AuditEvent:
        """The event, if the proof shows that it is in the trail.

        Raises:
            ChainBroken: It does not; `fields["reason"]` is `proof`, or as of `symbi.audit.verify.verify_trail`.
        """
        place, checkpoint = self.index + 1, self.note.checkpoint
        _check_signed(self.note, keys)
        if not verify_inclusion(leaf_hash(self.record), self.index, checkpoint.size, self.hashes, checkpoint.root):
            msg = f"the proof does not show that event {place} is under the checkpoint at event {checkpoint.size}"
            raise ChainBroken(msg, sequence=place, reason="proof")
        event = parse_event(self.record, sequence=place)
        if event.key_id in keys:
            provider = keys[event.key_id].provider_name
            trusted = tuple((key_id, key.hex) for key_id, key in keys.items())
            check_piece(Piece(place, (self.record,), None, (), ANY, trusted, provider), Before())
        elif event.sequence != place:
            msg = f"event {event.sequence} stands where event {place} belongs"
            raise ChainBroken(msg, sequence=place, reason="sequence")
        return event


@dataclass(frozen=True, slots=True)
class Consistency:
    """That one head continues another.

    Attributes:
        old: The earlier checkpoint.
        hashes: The proof, 32 bytes each.
        note: The later one.
    """

    old: Note
    hashes: tuple[bytes, ...]
    note: Note

    def to_json(self) -> dict[str, Any]:
        """As it is written."""
        return {
            "type": CONSISTENCY,
            "old_size": self.old.checkpoint.size,
            "size": self.note.checkpoint.size,
            "hashes": [one.hex() for one in self.hashes],
            "old_checkpoint": self.old.to_bytes().decode(),
            "checkpoint": self.note.to_bytes().decode(),
        }

    def verify(self, keys: Mapping[KeyId, VerifyingKey]) -> None:
        """Return if the proof shows it.

        Raises:
            ChainBroken: It does not; `fields["reason"]` is `proof`, `key` or `signature`.
        """
        old, new = self.old.checkpoint, self.note.checkpoint
        _check_signed(self.old, keys)
        _check_signed(self.note, keys)
        if (
            old.origin != new.origin
            or old.timestamp > new.timestamp
            or not verify_consistency(old.size, new.size, self.hashes, old.root, new.root)
            or (old.size == new.size and old.chain_hash != new.chain_hash)
        ):
            msg = f"the proof does not show that the head at event {new.size} continues the one at event {old.size}"
            raise ChainBroken(msg, sequence=min(old.size, new.size), reason="proof")


Proof: TypeAlias = Inclusion | Consistency


def prove_inclusion(record: bytes, index: int, note: Note, node: Nodes) -> Inclusion:
    """The proof that an event is under a checkpoint.

    Args:
        record: The event.
        index: Its sequence number less one.
        note: The checkpoint.
        node: Nodes of the trail's tree.

    Raises:
        InputError: The checkpoint is of a time before the event.
    """
    size = note.checkpoint.size
    if not 0 <= index < size:
        msg = f"event {index + 1} is not under the checkpoint at event {size}"
        raise InputError(msg, code="input.event", hint=f"events are numbered from 1 to {size}")
    return Inclusion(record, index, tuple(inclusion_proof(index, size, node)), note)


def prove_consistency(old: Note, note: Note, node: Nodes) -> Consistency:
    """The proof that one head continues another.

    Raises:
        InputError: The earlier one is of another trail, or is later.
    """
    if old.checkpoint.origin != note.checkpoint.origin or old.checkpoint.size > note.checkpoint.size:
        msg = f"the head at event {note.checkpoint.size} cannot continue one at event {old.checkpoint.size}"
        hint = (
            "it is of another trail" if old.checkpoint.origin != note.checkpoint.origin else "the trail ends before it"
        )
        raise InputError(msg, code="input.checkpoint", hint=hint)
    return Consistency(old, tuple(consistency_proof(old.checkpoint.size, note.checkpoint.size, node)), note)


def read_proof(document: bytes) -> Proof:
    """A proof as it was written.

    Raises:
        InputError: It is not of that form.
    """
    try:
        return _read(document)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, ChainBroken) as error:
        why = error.message if isinstance(error, ChainBroken) else str(error)
        msg = f"not a proof of the trail: {why}"
        raise InputError(msg, code="input.proof", hint="`symbi audit prove` writes one") from error


def _read(document: bytes) -> Proof:
    if len(document) > MAX_PROOF_BYTES:
        msg = "it is too large"
        raise ValueError(msg)
    fields: dict[str, Any] = json.loads(document)
    kind = fields["type"]
    expected = {INCLUSION: _INCLUSION_FIELDS, CONSISTENCY: _CONSISTENCY_FIELDS}.get(kind)
    if expected is None or fields.keys() != expected:
        msg = "it has not the fields of one"
        raise ValueError(msg)
    note = parse_note(fields["checkpoint"].encode())
    hashes = _hashes(fields["hashes"])
    if type(fields["size"]) is not int or fields["size"] != note.checkpoint.size:
        msg = "its size is not that of its checkpoint"
        raise ValueError(msg)
    if kind == CONSISTENCY:
        old = parse_note(fields["old_checkpoint"].encode())
        if type(fields["old_size"]) is not int or fields["old_size"] != old.checkpoint.size:
            msg = "its old size is not that of its old checkpoint"
            raise ValueError(msg)
        return Consistency(old, hashes, note)
    if type(fields["index"]) is not int or fields["index"] < 0:
        msg = "its index is not a number from 0"
        raise ValueError(msg)
    return Inclusion(fields["record"].encode(), fields["index"], hashes, note)


def _hashes(listed: Sequence[str]) -> tuple[bytes, ...]:
    if not isinstance(listed, list) or len(listed) > MAX_HASHES:
        msg = "its hashes are not a list of them"
        raise ValueError(msg)
    hashes = tuple(bytes.fromhex(one) for one in listed)
    if any(len(one) != HASH_BYTES for one in hashes):
        msg = f"a hash is {HASH_BYTES} bytes"
        raise ValueError(msg)
    return hashes


def _check_signed(note: Note, keys: Mapping[KeyId, VerifyingKey]) -> None:
    """Check that one of the trusted keys signed a checkpoint."""
    origin = note.checkpoint.origin
    names = {one.key_hash for one in note.signatures if one.name == origin}
    key = next((key for key in keys.values() if key_hash(origin, key.public) in names), None)
    if key is None:
        msg = f"the checkpoint at event {note.checkpoint.size} is signed by no key that is trusted here"
        raise ChainBroken(msg, sequence=note.checkpoint.size, reason="key")
    verify_note(note, key)
