"""Witnesses: somebody else who keeps what heads a trail has shown, and countersigns those that continue them.

Whoever holds the trail's key can write another history and sign it. What he cannot do is make a head that somebody else
has seen continue into it: between two heads there is either a consistency proof (RFC 9162, section 2.1.4) or a fork. So
a witness, before it countersigns a head,

1. checks that the trail's key signed it,
2. finds the last head of this trail that it has seen,
3. checks the proof that the new head continues that one: not smaller, not another of the same size, not a fork,
4. countersigns (`symbi.audit.checkpoint.cosign`), and keeps the head with its cosignature before it gives it away.

The file of a witness is its heads in the order in which it saw them: each is the signed note as it is, and an empty
line. Between machines the request is that of C2SP `tlog-witness`, `add-checkpoint`: `old` and a size, the hashes of the
proof in base64, an empty line, the note.
"""

import base64
import binascii
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from symbi.audit.checkpoint import (
    COSIGNATURE_ALGORITHM,
    MAX_NOTE_BYTES,
    Checkpoint,
    Note,
    NoteSignature,
    cosign,
    key_hash,
    parse_note,
    verify_cosignature,
    verify_note,
)
from symbi.crypto.merkle import HASH_BYTES, Frontier, consistency_proof, node_hash, verify_consistency
from symbi.crypto.provider import CryptoProvider
from symbi.crypto.signing import SigningKey, VerifyingKey
from symbi.errors import ChainBroken, InputError, SignatureInvalid
from symbi.types import KeyId

MAX_WITNESS_BYTES: Final = 268_435_456  # of a witness's file: a head every minute for half a year
MAX_PROOF_LINES: Final = 63  # of a request (C2SP tlog-witness)
MAX_REQUEST_BYTES: Final = MAX_NOTE_BYTES + 8192
MAX_NAME: Final = 256

_NAME: Final = re.compile(r"[^\s+\x00-\x1f]+")
_OLD: Final = re.compile(r"old (0|[1-9][0-9]{0,18})")
_KEY_HASH_DIGITS: Final = 8
_VKEY_PARTS: Final = 3


@dataclass(frozen=True, slots=True)
class WitnessKey:
    """A witness as others know it.

    Attributes:
        name: Who it is.
        key: What its cosignatures are checked with.
    """

    name: str
    key: VerifyingKey

    @classmethod
    def parse(cls, text: str, provider: CryptoProvider) -> "WitnessKey":
        """Read `name+hash+key` (C2SP signed-note, with the algorithm byte of cosignatures).

        Raises:
            InputError: It is not of that form.
        """
        name, *rest = text.strip().split("+", 2)
        msg = f"`{text[:80]}` is no witness key: `name+hash+key`, as `symbi audit witness` prints it"
        try:
            if len(rest) != _VKEY_PARTS - 1:
                raise InputError(msg, code="witness.key")
            check_name(name)
            data = base64.b64decode(rest[1], validate=True)
            if not data or data[0] != COSIGNATURE_ALGORITHM:
                raise InputError(msg, code="witness.key")
            key = VerifyingKey(data[1:], provider)
        except (binascii.Error, ValueError) as error:
            raise InputError(msg, code="witness.key") from error
        if rest[0] != key_hash(name, key.public, COSIGNATURE_ALGORITHM).hex():
            raise InputError(f"{msg}; its hash is of another name or key", code="witness.key")
        return cls(name, key)

    def __str__(self) -> str:
        digits = key_hash(self.name, self.key.public, COSIGNATURE_ALGORITHM).hex()
        encoded = base64.b64encode(bytes((COSIGNATURE_ALGORITHM,)) + self.key.public).decode()
        return f"{self.name}+{digits}+{encoded}"


@dataclass(frozen=True, slots=True)
class AddCheckpoint:
    """What a witness is asked: countersign this head, which continues the one that you saw last.

    Attributes:
        old: Size of the head that the witness saw last; 0 for none.
        proof: That the new one continues it.
        note: The new head.
    """

    old: int
    proof: tuple[bytes, ...]
    note: Note

    def to_bytes(self) -> bytes:
        """The body of the request."""
        lines = "".join(f"{base64.b64encode(one).decode()}\n" for one in self.proof)
        return f"old {self.old}\n{lines}\n".encode() + self.note.to_bytes()


def check_name(name: str) -> str:
    """Return the name of a witness if it can be one.

    Raises:
        InputError: It is empty or too long, or has white space or a `+`.
    """
    if len(name) > MAX_NAME or _NAME.fullmatch(name) is None:
        msg = f"`{name[:80]}` cannot be the name of a witness: no white space, no `+`"
        raise InputError(msg, code="witness.name", hint="such as `audit.example.org/w1`")
    return name


def parse_add_checkpoint(body: bytes) -> AddCheckpoint:
    """Read a request strictly.

    Raises:
        InputError: It is not of the form of C2SP `tlog-witness`.
    """
    head, blank, note = body.partition(b"\n\n")
    first, *lines = head.decode("ascii", "replace").split("\n")
    found = _OLD.fullmatch(first)
    if len(body) > MAX_REQUEST_BYTES or not blank or found is None or len(lines) > MAX_PROOF_LINES:
        msg = "a request is `old SIZE`, lines of a proof, an empty line, and a checkpoint"
        raise InputError(msg, code="witness.request")
    try:
        proof = tuple(base64.b64decode(line, validate=True) for line in lines)
        parsed = parse_note(note)
    except (binascii.Error, ValueError, ChainBroken) as error:
        msg = f"the request cannot be read: {error}"
        raise InputError(msg, code="witness.request") from error
    if any(len(one) != HASH_BYTES for one in proof):
        msg = f"a line of a proof is {HASH_BYTES} bytes in base64"
        raise InputError(msg, code="witness.request")
    return AddCheckpoint(int(found[1]), proof, parsed)


def verify_by(note: Note, keys: Mapping[KeyId, VerifyingKey]) -> None:
    """Return if a trusted key of the trail signed the checkpoint.

    Raises:
        ChainBroken: None did; `fields["reason"]` is `key` or `signature`.
    """
    checkpoint = note.checkpoint
    for key in keys.values():
        wanted = key_hash(checkpoint.origin, key.public)
        if any(one.name == checkpoint.origin and one.key_hash == wanted for one in note.signatures):
            verify_note(note, key)
            return
    msg = f"the checkpoint at event {checkpoint.size} is by no key that is trusted here"
    raise ChainBroken(msg, sequence=checkpoint.size, reason="key")


def check_continues(seen: Checkpoint, head: Checkpoint, proof: Sequence[bytes]) -> None:
    """Return if a head continues one that was seen before.

    Args:
        seen: The one before.
        head: The new one.
        proof: Of consistency between their sizes.

    Raises:
        ChainBroken: It does not; `fields["reason"]` is `origin`, `rollback`, `fork` or `time`, and the message names both.
    """
    if head.origin != seen.origin:
        reason, what = "origin", "is of another trail than"
    elif head.size < seen.size:
        reason, what = "rollback", "is from before"
    elif not verify_consistency(seen.size, head.size, proof, seen.root, head.root) or (
        head.size == seen.size and head.chain_hash != seen.chain_hash
    ):
        reason, what = "fork", "does not continue"
    elif head.timestamp < seen.timestamp:
        reason, what = "time", "is dated before"
    else:
        return
    msg = f"the head {name_head(head)} {what} the head {name_head(seen)}, which the witness has seen"
    raise ChainBroken(msg, sequence=min(seen.size, head.size), reason=reason, seen=seen.size, head=head.size)


def name_head(checkpoint: Checkpoint) -> str:
    """A head for people: where, which root, when, of which trail."""
    root = checkpoint.root.hex()[:16]
    return f"at event {checkpoint.size} (root {root}…, {checkpoint.timestamp[:19]}Z, {checkpoint.origin})"


def countersign(
    seen: Note | None, asked: AddCheckpoint, keys: Mapping[KeyId, VerifyingKey], name: str, key: SigningKey, unix_s: int
) -> Note:
    """The head with the witness's cosignature; steps 1 to 4 above but for the keeping.

    Args:
        seen: The last head of this trail that the witness has seen.
        asked: The new one, with the proof that it continues it.
        keys: The trail's keys that are trusted.
        name: The witness.
        key: Its key.
        unix_s: Its time in seconds since 1970.

    Raises:
        ChainBroken: The head is not signed by the trail, or does not continue what was seen.
        InputError: The request builds on another head than the last one; `fields["size"]` is that one's.
    """
    verify_by(asked.note, keys)
    size = seen.checkpoint.size if seen else 0
    if asked.note.checkpoint.size < max(1, asked.old):
        msg = f"a head at event {asked.note.checkpoint.size} does not continue one at event {asked.old}"
        raise InputError(msg, code="witness.request")
    if asked.old != size:
        msg = f"the last head that witness `{name}` has seen is at event {size}, and not at {asked.old}"
        raise InputError(msg, code="witness.old", size=size)
    if seen is not None:
        check_continues(seen.checkpoint, asked.note.checkpoint, asked.proof)
    elif asked.proof:
        msg = "the first head needs no proof"
        raise InputError(msg, code="witness.request")
    own = Note(asked.note.checkpoint, _by_trail(asked.note))
    return cosign(own, name, key, unix_s)


def merge_cosignatures(note: Note, lines: Iterable[NoteSignature]) -> Note:
    """A note with further signature lines; each stands there once."""
    return Note(note.checkpoint, tuple(dict.fromkeys((*note.signatures, *lines))))


def cosignatures_of(note: Note) -> tuple[NoteSignature, ...]:
    """The lines by others than the trail."""
    return tuple(one for one in note.signatures if one.name != note.checkpoint.origin)


def read_answer(note: Note, answer: bytes, witness: WitnessKey) -> tuple[Note, int]:
    """What a witness answered: signature lines, of which its own must hold.

    Returns:
        The note with them, and the witness's time in seconds since 1970.

    Raises:
        SignatureInvalid: There is none by that witness, or it does not hold.
    """
    checkpoint, signed = note.checkpoint, answer
    try:
        parsed = parse_note(checkpoint.text().encode() + b"\n" + signed)
    except ChainBroken as error:
        msg = f"witness `{witness.name}` answered with something else than signature lines"
        raise SignatureInvalid(msg) from error
    unix_s = verify_cosignature(parsed, witness.name, witness.key)
    own = (one for one in parsed.signatures if one.name == witness.name)
    return merge_cosignatures(note, own), unix_s


def witness_entry(note: Note) -> bytes:
    """A head as it stands in a witness's file."""
    return note.to_bytes() + b"\n"


def parse_witness_file(data: bytes) -> list[Note]:
    """The heads of a witness's file, in the order in which they were seen.

    Raises:
        ChainBroken: It is cut off, or something in it is no head.
    """
    parts = data.split(b"\n\n")
    if parts.pop() or len(parts) % 2:
        msg = "the witness's file is cut off, or not a list of signed notes each followed by an empty line"
        raise ChainBroken(msg, sequence=0, reason="head")
    return [parse_note(b"%b\n\n%b\n" % pair) for pair in zip(parts[::2], parts[1::2], strict=True)]


def last_seen(notes: Iterable[Note], origin: str) -> Note | None:
    """The last head of a trail among those that a witness has seen."""
    found = [note for note in notes if note.checkpoint.origin == origin]
    return found[-1] if found else None


def prove_from_leaves(old: int, size: int, before: Frontier, leaves: Iterable[bytes]) -> tuple[list[bytes], bytes]:
    """A consistency proof from the leaves themselves, in one pass and with the memory of a few hashes.

    Args:
        old: Size of the earlier tree; not smaller than that of `before`.
        size: Size of the tree.
        before: The frontier before the first of the leaves.
        leaves: Hashes of those that follow, in order; `size` less the size of `before` of them.

    Returns:
        The proof, and the root of the tree.

    Raises:
        ValueError: There are fewer or more leaves, or the earlier tree ends before the first of them.
    """
    if not before.size <= old <= size:
        msg = f"a tree of {size} leaves, of which those after {before.size} are there, cannot show one of {old}"
        raise ValueError(msg)
    wanted: dict[tuple[int, int], bytes] = {}

    def note_down(level: int, index: int) -> bytes:
        wanted[level, index] = b""
        return bytes(HASH_BYTES)

    consistency_proof(old, size, note_down)
    frontier, at = before.copy(), 0
    for level, one in zip(_levels(before.size), before.hashes, strict=True):
        if (place := (level, at >> level)) in wanted:
            wanted[place] = one
        at += 1 << level
    for leaf in leaves:
        _record(wanted, frontier, leaf)
        frontier.append(leaf)
    if frontier.size != size or not all(wanted.values()):
        msg = f"{frontier.size} leaves are there, and not {size}"
        raise ValueError(msg)
    return consistency_proof(old, size, lambda level, index: wanted[level, index]), frontier.root()


def _record(wanted: dict[tuple[int, int], bytes], frontier: Frontier, leaf: bytes) -> None:
    """Keep the hashes of the subtrees that a leaf completes, where they are wanted."""
    index, carried, hashes = frontier.size, leaf, list(frontier.hashes)
    level = 0
    while True:
        if (level, index) in wanted:
            wanted[level, index] = carried
        if not index & 1:
            return
        carried = node_hash(hashes.pop(), carried)
        index, level = index >> 1, level + 1


def _levels(size: int) -> list[int]:
    return [level for level in reversed(range(size.bit_length())) if size >> level & 1]


def _by_trail(note: Note) -> tuple[NoteSignature, ...]:
    return tuple(one for one in note.signatures if one.name == note.checkpoint.origin)
