"""Certificates of erasure: what was done, where, when and by whom; signed, so that it can be shown to others.

A certificate is a JSON object. Its signature (Ed25519 by the key of the trail, domain `privacy.certificate`) is over the
canonical JSON (RFC 8785) of all other fields; its digest, which the event `subject.erased` names, is the SHA-256 of the
canonical JSON of all fields. It names the subject by pseudonym alone.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, Final

from symbi.audit.event import is_key_id, is_signature, is_timestamp
from symbi.crypto.canonical import canonical_json
from symbi.crypto.signing import SigningKey, VerifyingKey
from symbi.errors import InputError, SignatureInvalid
from symbi.types import JsonValue, KeyId

CERTIFICATE_DOMAIN: Final = "privacy.certificate"
CERTIFICATE_FORMAT: Final = "symbi.privacy.certificate/1"
MAX_CERTIFICATE_BYTES: Final = 4_194_304

OUT_OF_REACH: Final = (
    "copies of the data folder: backups, snapshots of the disk, and exports that were taken away",
    "what tools did with what they were given: mails that were sent, rows of other systems",
    "what was printed or logged outside of the data folder",
    "blocks of the disk that the file system or the device keeps after a file was overwritten or cut short",
)
"""What no erasure here can reach; each certificate says so."""

_FIELDS: Final = frozenset(
    {"format", "pseudonym", "erased_at", "by", "reason", "keys", "stores", "open", "trail", "search", "out_of_reach",
     "key_id", "signature"}
)  # fmt: skip


def sign_certificate(facts: Mapping[str, JsonValue], key: SigningKey) -> dict[str, JsonValue]:
    """The certificate of an erasure.

    Args:
        facts: `pseudonym`, `erased_at`, `by`, `reason`, `keys`, `stores`, `open`, `trail` and `search`.
        key: That of the trail.
    """
    fields: dict[str, JsonValue] = {
        **facts,
        "format": CERTIFICATE_FORMAT,
        "out_of_reach": list(OUT_OF_REACH),
        "key_id": key.key_id,
    }
    fields["signature"] = key.sign(CERTIFICATE_DOMAIN, canonical_json(fields)).hex()
    return fields


def certificate_digest(certificate: Mapping[str, JsonValue]) -> str:
    """SHA-256 (hex) of a certificate; the trail names it."""
    return hashlib.sha256(canonical_json(certificate)).hexdigest()


def verify_certificate(certificate: Mapping[str, Any], keys: Mapping[KeyId, VerifyingKey]) -> None:
    """Return if a certificate is of its form and signed by one of the keys.

    Args:
        certificate: As it was read.
        keys: Those that are trusted, by id.

    Raises:
        InputError: It is no certificate.
        SignatureInvalid: No trusted key signed it, or it was altered.
    """
    if certificate.keys() != _FIELDS or certificate["format"] != CERTIFICATE_FORMAT:
        missing = ", ".join(f"`{name}`" for name in sorted(_FIELDS - certificate.keys()))
        why = f"it has no {missing}" if missing else "it is of another format or has fields that a certificate has not"
        msg = f"this is no certificate of erasure: {why}"
        raise InputError(msg, code="privacy.certificate")
    key_id, signature = certificate["key_id"], certificate["signature"]
    if not is_key_id(key_id) or not is_signature(signature) or not is_timestamp(certificate["erased_at"]):
        msg = "this is no certificate of erasure: `key_id`, `signature` or `erased_at` is not of its form"
        raise InputError(msg, code="privacy.certificate")
    key = keys.get(KeyId(key_id))
    if key is None:
        known = ", ".join(f"`{one}`" for one in keys) or "none"
        msg = f"the certificate is signed by key `{key_id}`, which is not trusted here"
        raise SignatureInvalid(msg, hint=f"trusted are {known}; `--keys` names others", key_id=key_id)
    signed = {name: value for name, value in certificate.items() if name != "signature"}
    key.verify(CERTIFICATE_DOMAIN, canonical_json(signed), bytes.fromhex(signature))
