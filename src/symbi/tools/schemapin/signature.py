"""Signatures of tools: base64 DER ECDSA on P-256 with SHA-256, and what is said beside one.

Published implementations sign the SHA-256 digest of the canonical form (so that it is hashed twice) or the canonical form
itself; both are taken and told apart. What stands beside a signature (version, predecessor, end) is not covered by it, by
the specification: here it can only make a tool be refused, and never be taken.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from symbi.errors import InputError, SignatureInvalid
from symbi.tools.port import ToolDefinition
from symbi.tools.schemapin.canonical import canonical_definition
from symbi.tools.schemapin.keys import FINGERPRINT, PrivateKey, PublicKey, fingerprint, load_private_key, require_p256
from symbi.tools.text import shown_name

META_KEY: Final = "schemapin"
"""Where a signature stands in the `_meta` of a definition: `{"schemapin": {"signature": "…"}}`."""
CANONICALIZATION: Final = "schemapin-v1"
"""The one canonical form there is; another name beside a signature is refused before anything is computed."""
MAX_SIGNATURE_CHARS: Final = 128  # base64 of a DER signature on P-256 has at most 96
VERSION: Final = re.compile(r"[0-9A-Za-z.+_-]{1,64}")
"""What may name a version of a schema."""


class SignatureForm(StrEnum):
    """What a signature was made over."""

    DIGEST = "digest"
    """The SHA-256 digest of the canonical form, which ECDSA hashes again."""
    BYTES = "bytes"
    """The canonical form, which ECDSA hashes once."""


@dataclass(frozen=True, slots=True)
class SignatureEntry:
    """What a definition carries in its `_meta`: a signature, and what is said beside it.

    Attributes:
        signature: Base64.
        version: `schema_version`; empty where it says none.
        previous: `previous_hash`: `sha256:…` of the canonical definition before this one; empty where it says none.
        expires_at: RFC 3339, as it stands there; empty where it says none.
    """

    signature: str
    version: str = ""
    previous: str = ""
    expires_at: str = ""


def sign(definition: ToolDefinition, private_key: PrivateKey, form: SignatureForm | str = SignatureForm.DIGEST) -> str:
    """Sign a definition.

    Args:
        definition: The tool.
        private_key: On P-256.
        form: `digest` (what most implementations check) or `bytes`.

    Raises:
        InputError: The key is of another kind, or the definition cannot be signed.
    """
    require_p256(private_key)
    return sign_bytes(canonical_definition(definition), private_key, form)


def sign_bytes(canonical: bytes, private_key: PrivateKey, form: SignatureForm | str) -> str:
    """Sign a canonical form; base64."""
    message = _message(canonical, SignatureForm(form))
    return base64.b64encode(private_key.sign(message, ec.ECDSA(hashes.SHA256()))).decode("ascii")


def sign_definitions(definitions: Iterable[ToolDefinition], private_key_pem: str | bytes) -> Mapping[str, str]:
    """Sign what a server offers: signature by the tool's name on the server, for its sidecar file.

    Raises:
        InputError: The key cannot be used, a name is there twice, or a definition cannot be signed.
    """
    key = load_private_key(private_key_pem)
    signatures: dict[str, str] = {}
    for definition in definitions:
        if definition.name in signatures:
            msg = f"tool `{shown_name(definition.name)}` is defined twice"
            raise InputError(msg, code="tool.duplicate")
        signatures[definition.name] = sign(definition, key)
    return signatures


def verify(definition: ToolDefinition, signature_b64: str, public_key: PublicKey) -> SignatureForm:
    """Check a signature; returning at all means that it holds.

    Returns:
        What the signature was made over.

    Raises:
        SignatureInvalid: It does not hold, is not one, or the definition has no canonical form.
    """
    name = shown_name(definition.name)
    try:
        require_p256(public_key)
        canonical = canonical_definition(definition)
    except InputError as error:
        msg = f"the signature of tool `{name}` cannot be checked: {error}"
        raise SignatureInvalid(msg, tool=name) from error
    signature = decode_signature(signature_b64, f"tool `{name}`")
    form = form_of(canonical, signature, public_key)
    if form is not None:
        return form
    msg = f"the signature of tool `{name}` does not hold under key {fingerprint(public_key)[:16]}"
    raise SignatureInvalid(msg, tool=name, hint="the definition or the key has changed, or another key signed it")


def form_of(
    canonical: bytes, signature: bytes, public_key: PublicKey, forms: Iterable[SignatureForm] = tuple(SignatureForm)
) -> SignatureForm | None:
    """In which of these forms a signature holds over a canonical form; None where it does in none."""
    for form in forms:
        try:
            public_key.verify(signature, _message(canonical, form), ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            continue
        return form
    return None


def signature_of(definition: ToolDefinition) -> str | None:
    """The signature that a definition carries, or None where it carries none.

    Raises:
        SignatureInvalid: There is something in its place that is not a signature.
    """
    entry = entry_of(definition)
    return None if entry is None else entry.signature


def entry_of(definition: ToolDefinition) -> SignatureEntry | None:
    """What a definition carries of SchemaPin, or None where it carries nothing.

    Raises:
        SignatureInvalid: There is something in its place that is not a signature, of another canonical form, or malformed.
    """
    if META_KEY not in definition.meta:
        return None
    name = shown_name(definition.name)
    entry = definition.meta[META_KEY]
    signature = entry.get("signature") if isinstance(entry, Mapping) else None
    if not isinstance(entry, Mapping) or not isinstance(signature, str):
        msg = f"`_meta.{META_KEY}` of tool `{name}` has no signature"
        raise SignatureInvalid(msg, tool=name)
    refuse_other_form(entry.get("canonicalization"), f"tool `{name}`")
    said = {key: entry.get(key) for key in ("schema_version", "previous_hash", "expires_at")}
    fits = {"schema_version": VERSION, "previous_hash": FINGERPRINT, "expires_at": re.compile(r".{0,64}")}
    for key, value in said.items():
        if value is not None and not (isinstance(value, str) and fits[key].fullmatch(value)):
            msg = f"`_meta.{META_KEY}.{key}` of tool `{name}` is malformed"
            raise SignatureInvalid(msg, code="verify.entry", tool=name)
    return SignatureEntry(
        signature, *(str(said[key] or "") for key in ("schema_version", "previous_hash", "expires_at"))
    )


def refuse_other_form(canonicalization: object, what: str) -> None:
    """Return if what is signed is in the canonical form of this specification.

    Raises:
        SignatureInvalid: It names another, which may mean anything.
    """
    if canonicalization is not None and canonicalization != CANONICALIZATION:
        msg = f"the signature of {what} is over a canonical form that is not `{CANONICALIZATION}`"
        raise SignatureInvalid(msg, code="verify.canonicalization")


def decode_signature(signature_b64: str, what: str) -> bytes:
    """Strict base64: the one spelling that encoding gives, so that no other text passes for the same signature.

    Raises:
        SignatureInvalid: It is not that.
    """
    try:
        if len(signature_b64) > MAX_SIGNATURE_CHARS:
            raise ValueError  # noqa: TRY301 - one message for every way of not being a signature
        signature = base64.b64decode(signature_b64.encode("ascii"), validate=True)
        if base64.b64encode(signature).decode("ascii") != signature_b64:
            raise ValueError  # noqa: TRY301 - likewise
    except (ValueError, binascii.Error):
        msg = f"the signature of {what} is not base64"
        raise SignatureInvalid(msg) from None
    return signature


def _message(canonical: bytes, form: SignatureForm) -> bytes:
    return hashlib.sha256(canonical).digest() if form is SignatureForm.DIGEST else canonical
