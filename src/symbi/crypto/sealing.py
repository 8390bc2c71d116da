"""Sealing: AES-256-GCM with associated data and a format that says how it was made.

A sealed text in version 1 is: one byte of version, 8 bytes of key id, 12 bytes of nonce, the ciphertext, 16 bytes of
tag. Version and key id are authenticated too, before the associated data, so that they cannot be exchanged. Nonces are
random: with one key, at most 2^32 texts may be sealed (NIST SP 800-38D, section 8.3).
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from symbi.clock import random_bytes
from symbi.crypto.provider import AES_KEY_BYTES, NONCE_BYTES, TAG_BYTES, CryptoProvider
from symbi.crypto.secret import Unpicklable
from symbi.errors import DecryptionFailed, InputError, LimitExceeded
from symbi.types import KeyId

FORMAT_VERSION: Final = 1
KEY_ID_BYTES: Final = 8
MAX_SEALS: Final = 2**32  # texts by one key in one process; keeps the chance of a repeated random nonce below 2^-32

_HEADER_BYTES: Final = 1 + KEY_ID_BYTES + NONCE_BYTES


@dataclass(frozen=True, slots=True)
class Ciphertext:
    """A sealed text.

    Attributes:
        key_id: Which key sealed it.
        nonce: 12 bytes, used once.
        body: Ciphertext and tag.
    """

    key_id: KeyId
    nonce: bytes
    body: bytes

    def to_bytes(self) -> bytes:
        """The stored form, version 1."""
        return _header(self.key_id) + self.nonce + self.body

    @classmethod
    def from_bytes(cls, data: bytes) -> "Ciphertext":
        """What `to_bytes` wrote.

        Raises:
            DecryptionFailed: The bytes are too short, or of a version that this release does not read.
        """
        if len(data) < _HEADER_BYTES + TAG_BYTES:
            msg = f"a sealed text has at least {_HEADER_BYTES + TAG_BYTES} bytes, not {len(data)}"
            raise DecryptionFailed(msg)
        if data[0] != FORMAT_VERSION:
            msg = f"a sealed text of version {data[0]}, and this release reads {FORMAT_VERSION}"
            raise DecryptionFailed(msg)
        key_id = KeyId(data[1 : 1 + KEY_ID_BYTES].hex())
        return cls(key_id, data[1 + KEY_ID_BYTES : _HEADER_BYTES], data[_HEADER_BYTES:])


class SealingKey(Unpicklable):
    """A secret key for one purpose, which seals and opens and cannot be read back.

    Args:
        secret: 32 bytes.
        label: What it is for; its id is made of this, not of the secret.
        provider: The library that does it.
        random: Where nonces come from.

    Raises:
        InputError: The secret is not 32 bytes long.
    """

    __slots__ = ("_aead", "_count", "_key_id", "_random")

    def __init__(
        self, secret: bytes, label: str, provider: CryptoProvider, *, random: Callable[[int], bytes] = random_bytes
    ) -> None:
        if len(secret) != AES_KEY_BYTES:
            msg = f"a sealing key is {AES_KEY_BYTES} bytes long, not {len(secret)}"
            raise InputError(msg, code="crypto.key_length")
        self._aead = provider.aead(secret)
        self._key_id = KeyId(provider.sha256(label.encode())[:KEY_ID_BYTES].hex())
        self._random = random
        self._count = itertools.count(1)

    @property
    def key_id(self) -> KeyId:
        """First 16 hexadecimal digits of the SHA-256 of the label."""
        return self._key_id

    def seal(self, plaintext: bytes, associated: bytes) -> Ciphertext:
        """Encrypt and authenticate.

        Args:
            plaintext: What to hide.
            associated: What it belongs to: not hidden, not stored, and needed to open it.

        Raises:
            LimitExceeded: The key has sealed `MAX_SEALS` texts.
        """
        if next(self._count) > MAX_SEALS:
            msg = f"sealing key `{self._key_id}` has sealed {MAX_SEALS} texts"
            raise LimitExceeded(msg, code="limit.seals", hint="restart, or use a new key")
        nonce = self._random(NONCE_BYTES)
        return Ciphertext(self._key_id, nonce, self._aead.seal(nonce, plaintext, _header(self._key_id) + associated))

    def open(self, sealed: Ciphertext, associated: bytes) -> bytes:
        """The plaintext.

        Raises:
            DecryptionFailed: Another key sealed it, it belongs to other associated data, or something was altered.
        """
        if sealed.key_id != self._key_id:
            msg = f"sealed by key `{sealed.key_id}`, not by `{self._key_id}`"
            raise DecryptionFailed(msg, key_id=self._key_id)
        plaintext = None
        if len(sealed.nonce) == NONCE_BYTES:
            plaintext = self._aead.open(sealed.nonce, sealed.body, _header(self._key_id) + associated)
        if plaintext is None:
            msg = "the sealed text was altered, belongs elsewhere or was sealed by another key"
            raise DecryptionFailed(msg, key_id=self._key_id)
        return plaintext

    def __repr__(self) -> str:
        return f"SealingKey(key_id={self._key_id})"


def _header(key_id: KeyId) -> bytes:
    return bytes((FORMAT_VERSION,)) + bytes.fromhex(key_id)
