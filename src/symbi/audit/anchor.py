"""Anchors: a time-stamping authority's word (RFC 3161) that a checkpoint existed by a time.

What is stamped is the note of the checkpoint with the signature of the trail alone: cosignatures may come later. So a
token also shows that the signature was there by then, whatever becomes of the key. The token is kept as the authority
sent it (DER of `TimeStampResp`), for `openssl ts -verify` and the like.
"""

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias

from symbi.audit.checkpoint import Note


@dataclass(frozen=True, slots=True)
class Stamped:
    """What an authority answered, once it has been checked.

    Attributes:
        token: DER of the response.
        time: RFC 3339 in UTC with nine decimals, by the authority's clock.
        serial: The token's number at that authority.
        authority: Address of the authority.
    """

    token: bytes
    time: str
    serial: str
    authority: str

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the token."""
        return hashlib.sha256(self.token).hexdigest()


@dataclass(frozen=True, slots=True)
class Anchor:
    """A token in the store.

    Attributes:
        size: Of the checkpoint.
        token: DER of the response.
        time: By the authority's clock, as in `Stamped`.
        authority: Its address.
    """

    size: int
    token: bytes
    time: str
    authority: str


Stamp: TypeAlias = Callable[[bytes], Awaitable[Stamped]]
"""Have bytes stamped; raises `Unavailable`, or `SignatureInvalid` where the answer does not hold."""


def stamped_bytes(note: Note) -> bytes:
    """What is stamped of a checkpoint: the note with the lines of the trail alone."""
    own = tuple(one for one in note.signatures if one.name == note.checkpoint.origin)
    return Note(note.checkpoint, own).to_bytes()
