"""Keys that sign tools: ECDSA on P-256, in PEM, named by their fingerprint."""

import hashlib
import re
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from symbi.errors import InputError

PublicKey = ec.EllipticCurvePublicKey
PrivateKey = ec.EllipticCurvePrivateKey

FINGERPRINT: Final = re.compile(r"sha256:[0-9a-f]{64}")
"""How documents name a key: the SHA-256 of its DER SubjectPublicKeyInfo."""
_PREFIX: Final = "sha256:"


def load_public_key(pem: str | bytes) -> PublicKey:
    """A P-256 public key from PEM (SubjectPublicKeyInfo).

    Raises:
        InputError: It is not PEM, or a key of another kind.
    """
    try:
        key = serialization.load_pem_public_key(_pem(pem))
    except (ValueError, UnsupportedAlgorithm) as error:
        msg = "not a public key in PEM"
        raise InputError(msg, code="tool.key", hint="it begins with `-----BEGIN PUBLIC KEY-----`") from error
    if not isinstance(key, PublicKey):
        msg = f"a {_kind(key)} key cannot sign tools"
        raise InputError(msg, code="tool.key", hint="SchemaPin signs with ECDSA on P-256 only")
    require_p256(key)
    return key


def load_private_key(pem: str | bytes) -> PrivateKey:
    """A P-256 private key from unencrypted PEM.

    Raises:
        InputError: It is not PEM, encrypted, or a key of another kind.
    """
    try:
        key = serialization.load_pem_private_key(_pem(pem), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # The cause is not kept: its text may quote the key.
        msg = "not an unencrypted private key in PEM"
        raise InputError(msg, code="tool.key", hint="it begins with `-----BEGIN PRIVATE KEY-----`") from None
    if not isinstance(key, PrivateKey):
        msg = f"a {_kind(key)} key cannot sign tools"
        raise InputError(msg, code="tool.key", hint="SchemaPin signs with ECDSA on P-256 only")
    require_p256(key)
    return key


def make_key_pair() -> tuple[bytes, bytes]:
    """A new private key and its public half, both PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return private, public


def fingerprint(public_key: PublicKey) -> str:
    """SHA-256 (hex) of the DER SubjectPublicKeyInfo."""
    der = public_key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()


def key_id(public_key: PublicKey) -> str:
    """The fingerprint as documents write it: `sha256:…`."""
    return _PREFIX + fingerprint(public_key)


def public_pem(public_key: PublicKey) -> str:
    """PEM (SubjectPublicKeyInfo)."""
    return public_key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode(
        "ascii"
    )


def require_p256(key: PublicKey | PrivateKey) -> None:
    """Return if a key is on the one curve.

    Raises:
        InputError: It is on another.
    """
    if not isinstance(key.curve, ec.SECP256R1):
        msg = f"a key on curve {key.curve.name} cannot sign tools"
        raise InputError(msg, code="tool.key", hint="SchemaPin signs with ECDSA on P-256 only")


def _kind(key: object) -> str:
    return type(key).__name__.strip("_").removesuffix("PublicKey").removesuffix("PrivateKey")


def _pem(pem: str | bytes) -> bytes:
    return pem.encode() if isinstance(pem, str) else pem
