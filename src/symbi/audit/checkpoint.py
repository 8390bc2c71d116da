"""Checkpoints: where the trail stood, signed, in the C2SP formats `signed-note`, `tlog-checkpoint`, `tlog-cosignature`.

```
symbi.trail/0199d2c0-…                          origin: one for each trail, from the id of its first event
4096                                            how many events
pFgMNP…=                                        root of the Merkle tree over their records (`symbi.crypto.merkle`), base64
chain 5d1c…                                     chain hash of the last, hex
time 2026-01-02T03:04:05.000000000Z             its timestamp

— symbi.trail/0199d2c0-… kq8E…                  signature by the trail's key
— witness.example/w1 8sQ1…                      cosignature by a witness, with its own time
```

A leaf of the tree is the record of an event as it stands in the store, signature and all. The trail's head is the newest
checkpoint; it is replaced in the transaction of each commit.
"""

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from typing import Final, Never

from symbi.audit.event import is_hash, is_timestamp
from symbi.crypto.signing import SigningKey, VerifyingKey
from symbi.errors import ChainBroken, SignatureInvalid
from symbi.types import EventId

MAX_NOTE_BYTES: Final = 65_536  # of a checkpoint with all its cosignatures
MAX_SIGNATURES: Final = 64
ORIGIN_PREFIX: Final = "symbi.trail/"
NOTE_ALGORITHM: Final = 1  # Ed25519 over the text of the note (C2SP signed-note)
COSIGNATURE_ALGORITHM: Final = 4  # Ed25519 over the text and a time (C2SP tlog-cosignature)

_DASH: Final = "\u2014 "
_NAME: Final = re.compile(r"[^\s+\x00-\x1f]+")
_ROOT_BYTES: Final = 32
_KEY_HASH_BYTES: Final = 4
_SIGNATURE_BYTES: Final = 64
_TIME_BYTES: Final = 8
_LINES: Final = 5


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where a trail stood.

    Attributes:
        origin: Which trail.
        size: How many events it had; the sequence of the last.
        root: Of the Merkle tree over their records; 32 bytes.
        chain_hash: Hex, of the last event.
        timestamp: RFC 3339 in UTC with nine decimals, of the last event.
    """

    origin: str
    size: int
    root: bytes
    chain_hash: str
    timestamp: str

    def text(self) -> str:
        """What is signed."""
        root = base64.b64encode(self.root).decode()
        return f"{self.origin}\n{self.size}\n{root}\nchain {self.chain_hash}\ntime {self.timestamp}\n"


@dataclass(frozen=True, slots=True)
class NoteSignature:
    """One signature line of a note.

    Attributes:
        name: Who signed.
        key_hash: 4 bytes that tell which key; they prove nothing.
        signature: 64 bytes, or 72 with a witness's time before them.
    """

    name: str
    key_hash: bytes
    signature: bytes

    def line(self) -> str:
        """As it stands in the note."""
        return f"{_DASH}{self.name} {base64.b64encode(self.key_hash + self.signature).decode()}\n"


@dataclass(frozen=True, slots=True)
class Note:
    """A checkpoint with its signatures; whether they hold is for `verify_note` and `verify_cosignature` to say.

    Attributes:
        checkpoint: What they are over.
        signatures: In their order.
    """

    checkpoint: Checkpoint
    signatures: tuple[NoteSignature, ...]

    def to_bytes(self) -> bytes:
        """The note as it is stored and sent."""
        lines = "".join(signature.line() for signature in self.signatures)
        return f"{self.checkpoint.text()}\n{lines}".encode()


def origin_of(first: EventId) -> str:
    """The origin of the trail that begins with an event of that id."""
    return f"{ORIGIN_PREFIX}{first}"


def key_hash(name: str, public: bytes, algorithm: int = NOTE_ALGORITHM) -> bytes:
    """Which key a signature line is by: the first 4 bytes of SHA-256(name, newline, algorithm, public key)."""
    return hashlib.sha256(name.encode() + b"\n" + bytes((algorithm,)) + public).digest()[:_KEY_HASH_BYTES]


def seal_checkpoint(checkpoint: Checkpoint, key: SigningKey) -> bytes:
    """The note of a checkpoint, signed by the trail's key."""
    name = checkpoint.origin
    signature = NoteSignature(
        name, key_hash(name, key.verifying_key().public), key.sign_note(checkpoint.text().encode())
    )
    return Note(checkpoint, (signature,)).to_bytes()


def parse_note(data: bytes) -> Note:
    """Read a note strictly: what is written back is what was read, to the byte.

    Raises:
        ChainBroken: It is not of that form; `fields["reason"]` is `head`.
    """
    if len(data) > MAX_NOTE_BYTES:
        _broken(0, f"a checkpoint has at most {MAX_NOTE_BYTES} bytes")
    try:
        body, blank, signed = data.decode().partition("\n\n")
        lines = body.split("\n")
        size = int(lines[1]) if len(lines) == _LINES and lines[1].isascii() and lines[1].isdigit() else 0
        root = base64.b64decode(lines[2], validate=True) if size else b""
        signatures = tuple(_signature(line) for line in signed.splitlines()) if blank else ()
    except (ValueError, binascii.Error) as error:
        msg = "the checkpoint is not of the form of a signed note"
        raise ChainBroken(msg, sequence=0, reason="head") from error
    if size < 1 or len(root) != _ROOT_BYTES or not 0 < len(signatures) <= MAX_SIGNATURES:
        _broken(size, "the checkpoint is not of the form of a signed note")
    chain, time = lines[3].removeprefix("chain "), lines[4].removeprefix("time ")
    note = Note(Checkpoint(lines[0], size, root, chain, time), signatures)
    if not is_hash(chain) or not is_timestamp(time) or _NAME.fullmatch(lines[0]) is None or note.to_bytes() != data:
        _broken(size, "the checkpoint is not of the form of a signed note")
    return note


def verify_note(note: Note, key: VerifyingKey) -> None:
    """Return if the trail's key signed the checkpoint.

    Raises:
        ChainBroken: It did not; `fields["reason"]` is `key` where no signature is said to be by it, else `signature`.
    """
    checkpoint = note.checkpoint
    wanted = key_hash(checkpoint.origin, key.public)
    found = [one for one in note.signatures if one.name == checkpoint.origin and one.key_hash == wanted]
    if not found:
        msg = f"the checkpoint at event {checkpoint.size} is not signed by key `{key.key_id}`"
        raise ChainBroken(msg, sequence=checkpoint.size, reason="key")
    for signature in found:
        if not key.verifies_note(checkpoint.text().encode(), signature.signature):
            msg = f"the signature of the checkpoint at event {checkpoint.size} is wrong"
            raise ChainBroken(msg, sequence=checkpoint.size, reason="signature")


def cosign(note: Note, name: str, key: SigningKey, unix_s: int) -> Note:
    """The note with a witness's cosignature: that it saw this checkpoint, and none before that contradicts it, by then.

    Args:
        note: What to countersign.
        name: The witness; no white space and no `+`.
        key: Its key.
        unix_s: The witness's time in seconds since 1970.
    """
    message = _cosigned(note.checkpoint, unix_s)
    signature = unix_s.to_bytes(_TIME_BYTES, "big") + key.sign_note(message)
    line = NoteSignature(name, key_hash(name, key.verifying_key().public, COSIGNATURE_ALGORITHM), signature)
    return Note(note.checkpoint, (*note.signatures, line))


def verify_cosignature(note: Note, name: str, key: VerifyingKey) -> int:
    """When a witness saw the checkpoint, in seconds since 1970.

    Raises:
        SignatureInvalid: No cosignature is by that witness and key, or one that says so is not.
    """
    wanted = key_hash(name, key.public, COSIGNATURE_ALGORITHM)
    for one in note.signatures:
        if one.name == name and one.key_hash == wanted and len(one.signature) == _TIME_BYTES + _SIGNATURE_BYTES:
            unix_s = int.from_bytes(one.signature[:_TIME_BYTES], "big")
            if key.verifies_note(_cosigned(note.checkpoint, unix_s), one.signature[_TIME_BYTES:]):
                return unix_s
            break
    msg = f"no cosignature of the checkpoint at event {note.checkpoint.size} is by witness `{name}`"
    raise SignatureInvalid(msg, key_id=key.key_id)


def _cosigned(checkpoint: Checkpoint, unix_s: int) -> bytes:
    return f"cosignature/v1\ntime {unix_s}\n{checkpoint.text()}".encode()


def _signature(line: str) -> NoteSignature:
    name, _, encoded = line.removeprefix(_DASH).partition(" ")
    data = base64.b64decode(encoded, validate=True)
    if not line.startswith(_DASH) or _NAME.fullmatch(name) is None or len(data) <= _KEY_HASH_BYTES:
        msg = "not a signature line"
        raise ValueError(msg)
    return NoteSignature(name, data[:_KEY_HASH_BYTES], data[_KEY_HASH_BYTES:])


def _broken(sequence: int, message: str) -> Never:
    raise ChainBroken(message, sequence=sequence, reason="head")
