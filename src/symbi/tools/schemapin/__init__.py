"""SchemaPin (https://schemapin.org) through its version 1.4, on `cryptography`: P-256 and SHA-256 only.

Nothing in this package does I/O. Documents come from the sources of the port `DiscoverySource`.
"""

from symbi.tools.schemapin.canonical import (
    MAX_DEFINITION_BYTES,
    MAX_DEPTH,
    MAX_SAFE_INTEGER,
    canonical_definition,
    canonical_json,
    digest_of,
)
from symbi.tools.schemapin.keys import (
    PrivateKey,
    PublicKey,
    fingerprint,
    key_id,
    load_private_key,
    load_public_key,
    make_key_pair,
    public_pem,
)
from symbi.tools.schemapin.signature import (
    META_KEY,
    SignatureEntry,
    SignatureForm,
    entry_of,
    sign,
    sign_definitions,
    signature_of,
    verify,
)

__all__ = [
    "MAX_DEFINITION_BYTES",
    "MAX_DEPTH",
    "MAX_SAFE_INTEGER",
    "META_KEY",
    "PrivateKey",
    "PublicKey",
    "SignatureEntry",
    "SignatureForm",
    "canonical_definition",
    "canonical_json",
    "digest_of",
    "entry_of",
    "fingerprint",
    "key_id",
    "load_private_key",
    "load_public_key",
    "make_key_pair",
    "public_pem",
    "sign",
    "sign_definitions",
    "signature_of",
    "verify",
]
