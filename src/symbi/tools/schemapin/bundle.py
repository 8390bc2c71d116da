"""Trust bundles: discovery and revocation documents of several domains in one file, signed by an authority.

The signature is over the canonical form of the whole bundle with `signature` as the empty text, hashed once. The key that
a bundle carries proves nothing by itself: the operator names the authorities, or the file itself, as trusted.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, NoReturn

from symbi.errors import InputError, SignatureInvalid
from symbi.tools.schemapin.canonical import canonical_json
from symbi.tools.schemapin.documents import host_and_port, parse_time, read_object, spelled_domain
from symbi.tools.schemapin.keys import PrivateKey, PublicKey, fingerprint, key_id, load_public_key, public_pem
from symbi.tools.schemapin.signature import SignatureForm, decode_signature, form_of, refuse_other_form, sign_bytes
from symbi.tools.text import cut, printable

MAX_BUNDLE_BYTES: Final = 8_388_608
SIGNED_VERSION: Final = "1.4"
_VERSIONS: Final = ("1.2", "1.3", SIGNED_VERSION)


@dataclass(frozen=True, slots=True)
class TrustBundle:
    """A bundle that was read; nothing says yet that it may be trusted.

    Attributes:
        what: Names it in messages.
        content: All of it.
        documents: Discovery documents by domain; each is read when it is asked for.
        revocations: Revocation documents by domain, likewise.
        authority: The key that it says it is signed by.
        kid: The name of that key, as its owner calls it.
        expires_at_ns: When it ends, if it says so.
    """

    what: str
    content: Mapping[str, Any] = field(repr=False)
    documents: Mapping[str, Mapping[str, Any]] = field(repr=False)
    revocations: Mapping[str, Mapping[str, Any]] = field(repr=False)
    authority: PublicKey | None = None
    kid: str = ""
    expires_at_ns: int | None = None

    def document(self, domain: str) -> Mapping[str, Any] | None:
        """The discovery document of a domain, as it stands there; None where there is none."""
        return _of(self.documents, domain)

    def revoking(self, domain: str) -> Mapping[str, Any] | None:
        """The revocation document of a domain, as it stands there; None where there is none."""
        return _of(self.revocations, domain)


def parse_bundle(what: str, raw: bytes) -> TrustBundle:
    """Read a bundle, signed or not.

    Args:
        what: Names it in messages.
        raw: JSON.

    Raises:
        InputError: It is malformed, or holds two documents of one domain.
    """
    content = read_object(raw, what, MAX_BUNDLE_BYTES)
    if content.get("schemapin_bundle_version") not in _VERSIONS:
        _refuse(what, f"`schemapin_bundle_version` is none of {', '.join(_VERSIONS)}")
    end = content.get("expires_at")
    end_ns = parse_time(end) if isinstance(end, str) else None
    if end is not None and end_ns is None:
        _refuse(what, "`expires_at` is no time (RFC 3339)")
    authority, kid = _authority(content, what)
    return TrustBundle(
        what, content, _by_domain(content, "documents", what), _by_domain(content, "revocations", what),
        authority, kid, end_ns,
    )  # fmt: skip


def verify_bundle(bundle: TrustBundle, authorities: Iterable[PublicKey], now_ns: int) -> str:
    """Return if a bundle is signed by one of these authorities and has not ended.

    Returns:
        Fingerprint of the authority.

    Raises:
        SignatureInvalid: It is not signed, by another, changed, or has ended (`verify.bundle_…`).
    """
    signature = bundle.content.get("signature")
    if bundle.authority is None or not isinstance(signature, str) or not signature:
        hint = "have it signed, or name its file in `schemapin.unsigned_bundles`"
        raise SignatureInvalid(f"{bundle.what} is not signed", code="verify.bundle_unsigned", hint=hint)
    refuse_other_form(bundle.content.get("canonicalization"), bundle.what)
    name = fingerprint(bundle.authority)
    if name not in {fingerprint(one) for one in authorities}:
        msg = f"{bundle.what} is signed by {key_id(bundle.authority)[:23]}, which is no authority here"
        hint = "`schemapin.authorities` names the keys of those who may sign bundles"
        raise SignatureInvalid(msg, code="verify.bundle_authority", hint=hint)
    try:
        canonical = canonical_json({**bundle.content, "signature": ""})
    except InputError as error:
        msg = f"the signature of {bundle.what} cannot be checked: {error.message}"
        raise SignatureInvalid(msg, code="verify.bundle") from error
    held = form_of(canonical, decode_signature(signature, bundle.what), bundle.authority, [SignatureForm.BYTES])
    if held is None:
        raise SignatureInvalid(f"the signature of {bundle.what} does not hold", code="verify.bundle")
    refuse_ended(bundle, now_ns)
    return name


def refuse_ended(bundle: TrustBundle, now_ns: int) -> None:
    """Return if a bundle has not ended.

    Raises:
        SignatureInvalid: It has.
    """
    if bundle.expires_at_ns is not None and now_ns >= bundle.expires_at_ns:
        msg = f"{bundle.what} has ended on {bundle.content['expires_at']}"
        raise SignatureInvalid(msg, code="verify.bundle_expired", hint="get a newer one")


def sign_bundle(
    content: Mapping[str, Any], private_key: PrivateKey, kid: str, signed_at: str, expires_at: str | None = None
) -> dict[str, Any]:
    """Sign a bundle.

    Args:
        content: `documents` and `revocations`, each with its `domain`; what an earlier signing left is replaced.
        private_key: Of the authority, on P-256.
        kid: How the authority calls its key.
        signed_at: RFC 3339.
        expires_at: Likewise, if it is to end.

    Raises:
        InputError: It holds what implementations write differently, or is no bundle; or it holds two documents of one domain.
    """
    kept = {name: content[name] for name in content if name not in {"signature", "expires_at"}}
    signed = {
        "created_at": signed_at,
        "documents": [],
        "revocations": [],
        **kept,
        "schemapin_bundle_version": SIGNED_VERSION,
        "bundle_authority": {"kid": kid, "public_key_pem": public_pem(private_key.public_key())},
        "signed_at": signed_at,
        **({} if expires_at is None else {"expires_at": expires_at}),
        "signature": "",
    }
    canonical = canonical_json(signed)
    parse_bundle("the bundle", canonical)  # nothing is signed that nobody could use
    signed["signature"] = sign_bytes(canonical, private_key, SignatureForm.BYTES)
    return signed


def _authority(content: Mapping[str, Any], what: str) -> tuple[PublicKey | None, str]:
    said = content.get("bundle_authority")
    if said is None:
        return None, ""
    kid = said.get("kid") if isinstance(said, dict) else None
    pem = said.get("public_key_pem") if isinstance(said, dict) else None
    if not isinstance(kid, str) or not isinstance(pem, str):
        _refuse(what, "`bundle_authority` has no `kid` or no `public_key_pem`")
    try:
        return load_public_key(pem), cut(printable(kid), 128)
    except InputError as error:
        _refuse(what, f"`bundle_authority`: {error.message}")


def _by_domain(content: Mapping[str, Any], name: str, what: str) -> Mapping[str, Mapping[str, Any]]:
    listed = content.get(name, [])
    if not isinstance(listed, list) or not all(
        isinstance(one, dict) and isinstance(one.get("domain"), str) for one in listed
    ):
        _refuse(what, f"`{name}` is no list of documents with a `domain`")
    found = {spelled_domain(one["domain"]): one for one in listed}
    if len(found) < len(listed):
        _refuse(what, f"`{name}` holds two documents of one domain")
    return MappingProxyType(found)


def _of(documents: Mapping[str, Mapping[str, Any]], domain: str) -> Mapping[str, Any] | None:
    return documents.get(domain) or documents.get(host_and_port(domain)[0])


def _refuse(what: str, why: str) -> NoReturn:
    raise InputError(f"{what} cannot be used: {why}", code="tool.bundle")
