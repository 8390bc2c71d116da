"""Ed25519 keys as files hold them: PEM, as `openssl genpkey -algorithm ed25519` and `openssl pkey -pubout` write it."""

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from symbi.crypto.provider import CryptoProvider
from symbi.crypto.signing import SigningKey, VerifyingKey
from symbi.errors import InputError


def read_signing_key(pem: bytes, provider: CryptoProvider) -> SigningKey:
    """The private key in a file.

    Raises:
        InputError: It is not PEM, encrypted, or a key of another kind. The message never quotes it.
    """
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # The cause is not kept: its text may quote the key.
        msg = "not an unencrypted private key in PEM"
        raise InputError(msg, code="crypto.pem", hint="it begins with `-----BEGIN PRIVATE KEY-----`") from None
    if not isinstance(key, Ed25519PrivateKey):
        msg = "not an Ed25519 key"
        raise InputError(msg, code="crypto.pem", hint="`openssl genpkey -algorithm ed25519` makes one")
    return SigningKey(key.private_bytes_raw(), provider)


def read_verifying_key(pem: bytes, provider: CryptoProvider) -> VerifyingKey:
    """The public key in a file.

    Raises:
        InputError: It is not PEM, a key of another kind, or one by which every signature would verify.
    """
    try:
        key = serialization.load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        msg = "not a public key in PEM"
        raise InputError(msg, code="crypto.pem", hint="it begins with `-----BEGIN PUBLIC KEY-----`") from error
    if not isinstance(key, Ed25519PublicKey):
        msg = "not an Ed25519 key"
        raise InputError(msg, code="crypto.pem", hint="`openssl pkey -pubout` writes the public half of one")
    return VerifyingKey(key.public_bytes_raw(), provider)


def make_pem_pair() -> tuple[bytes, bytes]:
    """A new private key and its public half, both PEM."""
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return private, public
