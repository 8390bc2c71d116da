"""The provider `libsodium`: libsodium, through the library PyNaCl.

Two things are not libsodium's. PyNaCl does not reach its HKDF, so RFC 5869 is spelt out on the interpreter's HMAC.
And libsodium does AES-GCM only where the processor has instructions for it; elsewhere AES-GCM is OpenSSL's.
"""

import hmac
from typing import Final

from nacl import bindings
from nacl.exceptions import BadSignatureError, CryptoError, UnavailableError
from nacl.exceptions import RuntimeError as SodiumError

from symbi.crypto.ed25519 import SIGNATURE_BYTES, acceptable_signature, require_public_key
from symbi.crypto.provider import (
    AES_KEY_BYTES,
    AGREEMENT_BYTES,
    NONCE_BYTES,
    TAG_BYTES,
    Aead,
    Agreement,
    Signer,
    Verifier,
    require_hkdf_length,
)

_HASH_BYTES: Final = 32


class LibsodiumAead:
    """AES-256-GCM by libsodium, on a processor that has it.

    Args:
        key: 32 bytes.
    """

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        self._key = key

    def seal(self, nonce: bytes, plaintext: bytes, associated: bytes) -> bytes:
        """Ciphertext and tag."""
        return bindings.crypto_aead_aes256gcm_encrypt(plaintext, associated, nonce, self._key)

    def open(self, nonce: bytes, sealed: bytes, associated: bytes) -> bytes | None:
        """The plaintext, or None."""
        if len(sealed) < TAG_BYTES:
            return None
        try:
            return bindings.crypto_aead_aes256gcm_decrypt(sealed, associated, nonce, self._key)
        except CryptoError:
            return None


class LibsodiumProvider:
    """Ed25519, SHA-256 and, where the processor allows, AES-256-GCM by libsodium."""

    name = "libsodium"

    def signer(self, seed: bytes) -> Signer:
        """The Ed25519 key of a seed."""
        public, secret = bindings.crypto_sign_seed_keypair(seed)

        def sign(message: bytes) -> bytes:
            return bindings.crypto_sign(message, secret)[:SIGNATURE_BYTES]

        return Signer(public, sign)

    def verifier(self, public: bytes) -> Verifier:
        """Checks Ed25519 signatures."""
        require_public_key(public)

        def verify(signature: bytes, message: bytes) -> bool:
            if not acceptable_signature(signature):
                return False
            try:
                bindings.crypto_sign_open(signature + message, public)
            except BadSignatureError:
                return False
            return True

        return verify

    def agreement(self, seed: bytes) -> Agreement:
        """The X25519 key of a seed."""

        def exchange(public: bytes) -> bytes | None:
            if len(public) != AGREEMENT_BYTES:
                return None
            try:
                return bindings.crypto_scalarmult(seed, public)
            except SodiumError:  # the shared secret is zero
                return None

        return Agreement(bindings.crypto_scalarmult_base(seed), exchange)

    def aead(self, key: bytes) -> Aead:
        """AES-256-GCM."""
        if has_hardware_aes():
            return LibsodiumAead(key)
        from symbi.crypto.openssl import OpensslAead  # noqa: PLC0415 - loaded only on processors without AES

        return OpensslAead(key)

    def hkdf_sha256(self, secret: bytes, *, salt: bytes, info: bytes, length: int) -> bytes:
        """RFC 5869."""
        require_hkdf_length(length)
        key = hmac.digest(salt or bytes(_HASH_BYTES), secret, "sha256")
        output = block = b""
        for counter in range(1, -(-length // _HASH_BYTES) + 1):
            block = hmac.digest(key, block + info + bytes((counter,)), "sha256")
            output += block
        return output[:length]

    def sha256(self, data: bytes) -> bytes:
        """FIPS 180-4."""
        return bindings.crypto_hash_sha256(data)


def has_hardware_aes() -> bool:
    """Whether libsodium does AES-GCM on this processor."""
    try:
        bindings.crypto_aead_aes256gcm_encrypt(b"", b"", bytes(NONCE_BYTES), bytes(AES_KEY_BYTES))
    except UnavailableError:
        return False
    return True
