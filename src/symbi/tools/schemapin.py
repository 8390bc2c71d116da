"""SchemaPin: what of a tool is signed, in which canonical form, and the check of a signature.

The signed document is `{name, title?, description, inputSchema, outputSchema?, annotations?}`; a member with a question
mark is there only where the server declares it. Its canonical form is JSON in UTF-8 with keys sorted by code point and
no white space. Published implementations agree on that form except for some content (floats, integers past 2^53,
integer-like or astral keys, lone surrogates); such content is refused, so that what one signs every other one reads.

Signatures are base64 DER ECDSA on P-256 with SHA-256. Published implementations make them over the SHA-256 digest of
the canonical form (so that it is hashed twice) or over the canonical form itself; both are taken and told apart.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from symbi.errors import InputError, SignatureInvalid
from symbi.tools.port import ToolDefinition
from symbi.tools.text import shown_name
from symbi.types import JsonValue

META_KEY: Final = "schemapin"
"""Where a signature stands in the `_meta` of a definition: `{"schemapin": {"signature": "…"}}`."""

MAX_DEFINITION_BYTES: Final = 131_072  # bounds what one tool can push into pins, policies and a model's prompt
MAX_DEPTH: Final = 64  # nesting of a definition; real schemas stay below 20
MAX_SAFE_INTEGER: Final = 2**53 - 1  # beyond it, readers that keep numbers as doubles see another number
MAX_SIGNATURE_CHARS: Final = 128  # base64 of a DER signature on P-256 has at most 96
_MAX_ARRAY_INDEX: Final = 2**32 - 2  # keys that some readers move to the front, in numeric order

PublicKey = ec.EllipticCurvePublicKey
PrivateKey = ec.EllipticCurvePrivateKey


class SignatureForm(StrEnum):
    """What a signature was made over."""

    DIGEST = "digest"
    """The SHA-256 digest of the canonical form, which ECDSA hashes again."""
    BYTES = "bytes"
    """The canonical form, which ECDSA hashes once."""


def canonical_definition(definition: ToolDefinition) -> bytes:
    """The canonical form of what a signature covers.

    Raises:
        InputError: The definition has content that implementations write differently, or is too large.
    """
    document: dict[str, JsonValue] = {
        "name": definition.name,
        "description": definition.description,
        "inputSchema": definition.input_schema,
    }
    if definition.title is not None:
        document["title"] = definition.title
    if definition.output_schema is not None:
        document["outputSchema"] = definition.output_schema
    if definition.annotations:
        document["annotations"] = definition.annotations
    canonical = canonical_json(document)
    if len(canonical) > MAX_DEFINITION_BYTES:
        msg = f"the definition of tool `{shown_name(definition.name)}` has {len(canonical)} bytes; {MAX_DEFINITION_BYTES} are allowed"
        raise InputError(msg, code="tool.definition")
    return canonical


def canonical_json(value: JsonValue) -> bytes:
    """SchemaPin's canonical JSON.

    Raises:
        InputError: Content that implementations write differently; the message says what and where.
    """
    plain = _unambiguous(value, "$", 0)
    return json.dumps(plain, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()


def digest_of(canonical: bytes) -> str:
    """SHA-256 (hex) of a canonical form."""
    return hashlib.sha256(canonical).hexdigest()


def sign(definition: ToolDefinition, private_key: PrivateKey, form: SignatureForm | str = SignatureForm.DIGEST) -> str:
    """Sign a definition.

    Args:
        definition: The tool.
        private_key: On P-256.
        form: `digest` (what most implementations check) or `bytes`.

    Raises:
        InputError: The key is of another kind, or the definition cannot be signed.
    """
    _require_p256(private_key)
    message = _message(canonical_definition(definition), SignatureForm(form))
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
        _require_p256(public_key)
        canonical = canonical_definition(definition)
    except InputError as error:
        msg = f"the signature of tool `{name}` cannot be checked: {error}"
        raise SignatureInvalid(msg, tool=name) from error
    signature = _decode(signature_b64, name)
    for form in SignatureForm:
        try:
            public_key.verify(signature, _message(canonical, form), ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            continue
        return form
    msg = f"the signature of tool `{name}` does not hold under key {fingerprint(public_key)[:16]}"
    raise SignatureInvalid(msg, tool=name, hint="the definition or the key has changed, or another key signed it")


def signature_of(definition: ToolDefinition) -> str | None:
    """The signature that a definition carries, or None where it carries none.

    Raises:
        SignatureInvalid: There is something in its place that is not a signature.
    """
    if META_KEY not in definition.meta:
        return None
    entry = definition.meta[META_KEY]
    signature = entry.get("signature") if isinstance(entry, Mapping) else None
    if not isinstance(signature, str):
        msg = f"`_meta.{META_KEY}` of tool `{shown_name(definition.name)}` has no signature"
        raise SignatureInvalid(msg, tool=shown_name(definition.name))
    return signature


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
    _require_p256(key)
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
    _require_p256(key)
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


def _message(canonical: bytes, form: SignatureForm) -> bytes:
    return hashlib.sha256(canonical).digest() if form is SignatureForm.DIGEST else canonical


def _decode(signature_b64: str, name: str) -> bytes:
    """Strict base64: the one spelling that encoding gives, so that no other text passes for the same signature."""
    try:
        if len(signature_b64) > MAX_SIGNATURE_CHARS:
            raise ValueError  # noqa: TRY301 - one message for every way of not being a signature
        signature = base64.b64decode(signature_b64.encode("ascii"), validate=True)
        if base64.b64encode(signature).decode("ascii") != signature_b64:
            raise ValueError  # noqa: TRY301 - likewise
    except (ValueError, binascii.Error):
        msg = f"the signature of tool `{name}` is not base64"
        raise SignatureInvalid(msg, tool=name) from None
    return signature


def _require_p256(key: PublicKey | PrivateKey) -> None:
    if not isinstance(key.curve, ec.SECP256R1):
        msg = f"a key on curve {key.curve.name} cannot sign tools"
        raise InputError(msg, code="tool.key", hint="SchemaPin signs with ECDSA on P-256 only")


def _kind(key: object) -> str:
    return type(key).__name__.strip("_").removesuffix("PublicKey").removesuffix("PrivateKey")


def _pem(pem: str | bytes) -> bytes:
    return pem.encode() if isinstance(pem, str) else pem


def _refuse(path: str, what: str) -> InputError:
    hint = "implementations of SchemaPin write it differently, so it can be neither signed nor pinned"
    return InputError(f"{what} at {shown_name(path)}", code="tool.ambiguous", hint=hint)


def _unambiguous(value: object, path: str, depth: int) -> JsonValue:
    """A plain copy of JSON content that every implementation writes alike."""
    if depth > MAX_DEPTH:
        msg = f"the definition is nested deeper than {MAX_DEPTH} levels at {shown_name(path)}"
        raise InputError(msg, code="tool.definition")
    match value:
        case None | bool():
            return value
        case int():
            if abs(value) > MAX_SAFE_INTEGER:
                raise _refuse(path, "an integer beyond ±(2^53-1)")
            return value
        case float():
            raise _refuse(path, f"the float `{value!r}`")
        case str():
            return _text(value, path)
        case Mapping():
            return {
                key: _unambiguous(item, f"{path}.{key}", depth + 1)
                for key, item in zip(_keys(value, path), value.values(), strict=True)
            }
        case list() | tuple():
            return [_unambiguous(item, f"{path}[{index}]", depth + 1) for index, item in enumerate(value)]
        case _:
            msg = f"`{type(value).__name__}` is not JSON at {shown_name(path)}"
            raise InputError(msg, code="tool.definition")


def _text(text: str, path: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _refuse(path, "a lone surrogate") from None
    return text


def _keys(value: Mapping[object, object], path: str) -> list[str]:
    """The keys in their order, if every implementation sorts them alike."""
    keys = [_text(key, path) for key in value if isinstance(key, str)]
    if len(keys) != len(value):
        msg = f"a key that is not text at {shown_name(path)}"
        raise InputError(msg, code="tool.definition")
    if "__proto__" in value:
        raise _refuse(path, "the key `__proto__`")
    by_code_point = sorted(keys)
    if by_code_point != sorted(keys, key=lambda key: key.encode("utf-16-be")):
        raise _refuse(path, "keys with characters beyond U+FFFF")
    indices = sorted((key for key in keys if _is_index(key)), key=int)
    if by_code_point != indices + [key for key in by_code_point if not _is_index(key)]:
        raise _refuse(path, f"the integer-like key `{indices[0]}` among other keys")
    return keys


def _is_index(key: str) -> bool:
    return key.isascii() and key.isdigit() and str(int(key[:11])) == key and int(key) <= _MAX_ARRAY_INDEX
