"""The provider `openssl`: OpenSSL, through the library `cryptography`."""

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from symbi.crypto.ed25519 import acceptable_signature, require_public_key
from symbi.crypto.provider import AGREEMENT_BYTES, Aead, Agreement, Signer, Verifier, require_hkdf_length


class OpensslAead:
    """AES-256-GCM by OpenSSL.

    Args:
        key: 32 bytes.
    """

    __slots__ = ("_cipher",)

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    def seal(self, nonce: bytes, plaintext: bytes, associated: bytes) -> bytes:
        """Ciphertext and tag."""
        return self._cipher.encrypt(nonce, plaintext, associated)

    def open(self, nonce: bytes, sealed: bytes, associated: bytes) -> bytes | None:
        """The plaintext, or None."""
        try:
            return self._cipher.decrypt(nonce, sealed, associated)
        except InvalidTag:
            return None


class OpensslProvider:
    """All primitives by OpenSSL."""

    name = "openssl"

    def signer(self, seed: bytes) -> Signer:
        """The Ed25519 key of a seed."""
        key = Ed25519PrivateKey.from_private_bytes(seed)
        return Signer(key.public_key().public_bytes_raw(), key.sign)

    def verifier(self, public: bytes) -> Verifier:
        """Checks Ed25519 signatures."""
        require_public_key(public)
        key = Ed25519PublicKey.from_public_bytes(public)

        def verify(signature: bytes, message: bytes) -> bool:
            if not acceptable_signature(signature):
                return False
            try:
                key.verify(signature, message)
            except InvalidSignature:
                return False
            return True

        return verify

    def agreement(self, seed: bytes) -> Agreement:
        """The X25519 key of a seed."""
        key = X25519PrivateKey.from_private_bytes(seed)

        def exchange(public: bytes) -> bytes | None:
            if len(public) != AGREEMENT_BYTES:
                return None
            try:
                return key.exchange(X25519PublicKey.from_public_bytes(public))
            except ValueError:  # the shared secret is zero
                return None

        return Agreement(key.public_key().public_bytes_raw(), exchange)

    def aead(self, key: bytes) -> Aead:
        """AES-256-GCM."""
        return OpensslAead(key)

    def hkdf_sha256(self, secret: bytes, *, salt: bytes, info: bytes, length: int) -> bytes:
        """RFC 5869."""
        require_hkdf_length(length)
        return HKDF(algorithm=hashes.SHA256(), length=length, salt=salt, info=info).derive(secret)

    def sha256(self, data: bytes) -> bytes:
        """FIPS 180-4."""
        digest = hashes.Hash(hashes.SHA256())
        digest.update(data)
        return digest.finalize()
