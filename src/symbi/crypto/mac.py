"""Keyed digests: HMAC-SHA256 (RFC 2104, FIPS 198-1) under a key that cannot be read back."""

import hmac
from typing import Final

from symbi.crypto.provider import AES_KEY_BYTES, CryptoProvider
from symbi.crypto.secret import Unpicklable

_SALT: Final = b"symbi/mac/1"


class MacKey(Unpicklable):
    """A key for one purpose, derived from a secret (RFC 5869: the label is `info`).

    Args:
        secret: What it is derived from.
        label: What it is for.
        provider: The library that derives it.
    """

    __slots__ = ("_key", "_label")

    def __init__(self, secret: bytes, label: str, provider: CryptoProvider) -> None:
        self._key = provider.hkdf_sha256(secret, salt=_SALT, info=label.encode(), length=AES_KEY_BYTES)
        self._label = label

    def digest(self, data: bytes) -> bytes:
        """32 bytes that nobody can compute, or compare a guess with, who does not have the key."""
        return hmac.digest(self._key, data, "sha256")

    def __repr__(self) -> str:
        return f"MacKey({self._label})"
