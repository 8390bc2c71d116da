"""Documents that say under which key a domain signs, and which keys it has revoked. From outside, and not believed.

What is malformed is refused as a whole: an entry that cannot be read may be the one that revokes.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final, NoReturn
from urllib.parse import urlsplit

from symbi.errors import InputError
from symbi.sandbox.addresses import parse_address
from symbi.sandbox.egress import parse_authority, parse_host
from symbi.tools.schemapin.keys import FINGERPRINT, PublicKey, fingerprint, load_public_key
from symbi.tools.text import cut, printable

MAX_DOCUMENT_BYTES: Final = 262_144  # of one discovery or revocation document
MAX_REVOKED: Final = 2_000  # entries of one; they fit into the bytes
WELL_KNOWN: Final = "/.well-known/schemapin.json"
HTTPS_PORT: Final = 443
_CODE: Final = "tool.discovery"
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)")
_VERSION: Final = re.compile(r"1\.\d{1,3}(\.\d{1,3})?(-[a-z0-9.]{1,20})?")
_NAME_CHARS: Final = 200


@dataclass(frozen=True, slots=True)
class Discovery:
    """What a domain publishes of itself.

    Attributes:
        domain: Whom it is of: `host`, or `host:port`.
        key: Under which it signs.
        developer: Its name, for people.
        revoked: Fingerprints of keys that it has revoked.
        revocation_endpoint: Where its revocation document is, if it has one: `https:`, at the domain or below it.
        expires_at_ns: When the document ends, if it says so.
    """

    domain: str
    key: PublicKey
    developer: str = ""
    revoked: frozenset[str] = frozenset()
    revocation_endpoint: str | None = None
    expires_at_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Revocation:
    """A revocation document.

    Attributes:
        domain: Whose keys.
        revoked: Reason by fingerprint.
        expires_at_ns: When the document ends, if it says so.
    """

    domain: str
    revoked: Mapping[str, str] = field(default_factory=dict)
    expires_at_ns: int | None = None


def parse_domain(text: str) -> str:
    """A domain as it is compared: `host`, or `host:port` where the port is not that of https.

    Raises:
        InputError: It is none.
    """
    bare = text.removesuffix(".")
    host = parse_host(bare)
    if host is not None and parse_address(host) is None:
        return host
    found = parse_authority(bare)
    if found is None or parse_address(found[0]) is not None:
        msg = f"`{cut(printable(text), _NAME_CHARS)}` is no domain"
        raise InputError(msg, code=_CODE, hint="write `tools.example.com`, without a scheme; `:port` may follow")
    return found[0] if found[1] == HTTPS_PORT else f"{found[0]}:{found[1]}"


def spelled_domain(text: str) -> str:
    """A domain that a document names, as it is compared; what is none stays as it is, and is that of nobody."""
    try:
        return parse_domain(text)
    except InputError:
        return text


def host_and_port(domain: str) -> tuple[str, int]:
    """Where a domain is asked."""
    return parse_authority(domain) or (domain, HTTPS_PORT)


def parse_discovery(domain: str, raw: bytes | Mapping[str, Any]) -> Discovery:
    """Read a discovery document.

    Args:
        domain: Whom it is to be of.
        raw: Its bytes, or the object out of a bundle.

    Raises:
        InputError: It is malformed, of another domain, or its key is none on P-256.
    """
    document, what = _object(raw, domain), f"the discovery document of `{domain}`"
    _belongs(document, domain, what, required=False)
    if not isinstance(document.get("schema_version"), str) or not _VERSION.fullmatch(document["schema_version"]):
        _refuse(what, "`schema_version` is no version 1.x")
    pem = document.get("public_key_pem")
    if not isinstance(pem, str):
        _refuse(what, "`public_key_pem` is missing")
    try:
        key = load_public_key(pem)
    except InputError as error:
        msg = f"{what}: {error.message}"
        raise InputError(msg, code=_CODE, hint=error.hint) from error
    revoked = document.get("revoked_keys", [])
    if not isinstance(revoked, list) or len(revoked) > MAX_REVOKED:
        _refuse(what, f"`revoked_keys` is no list of up to {MAX_REVOKED}")
    if not all(isinstance(one, str) and FINGERPRINT.fullmatch(one) for one in revoked):
        _refuse(what, "`revoked_keys` holds what is no `sha256:…`")
    return Discovery(
        domain,
        key,
        _name(document.get("developer_name"), what),
        frozenset(one.removeprefix("sha256:") for one in revoked),
        _endpoint(document.get("revocation_endpoint"), domain, what),
        _end(document, what),
    )


def parse_revocation(domain: str, raw: bytes | Mapping[str, Any]) -> Revocation:
    """Read a revocation document.

    Args:
        domain: Whose it is to be.
        raw: Its bytes, or the object out of a bundle.

    Raises:
        InputError: It is malformed, or of another domain.
    """
    document, what = _object(raw, domain), f"the revocation document of `{domain}`"
    _belongs(document, domain, what, required=True)
    entries = document.get("revoked_keys")
    if not isinstance(entries, list) or len(entries) > MAX_REVOKED:
        _refuse(what, f"`revoked_keys` is no list of up to {MAX_REVOKED}")
    revoked: dict[str, str] = {}
    for entry in entries:
        key = entry.get("fingerprint") if isinstance(entry, dict) else None
        if not isinstance(key, str) or not FINGERPRINT.fullmatch(key):
            _refuse(what, "`revoked_keys` holds an entry without a `fingerprint` of the form `sha256:…`")
        reason = entry.get("reason")
        revoked[key.removeprefix("sha256:")] = cut(printable(reason), 40) if isinstance(reason, str) else "revoked"
    return Revocation(domain, MappingProxyType(revoked), _end(document, what))


def why_revoked(key: PublicKey, discovery: Discovery | None, revocations: tuple[Revocation, ...]) -> str:
    """Why a key may not be used any more; empty where it may. Each list counts, whoever carried it."""
    name = fingerprint(key)
    if discovery is not None and name in discovery.revoked:
        return "revoked by the discovery document"
    return next((f"revoked: {one.revoked[name]}" for one in revocations if name in one.revoked), "")


def parse_time(text: str) -> int | None:
    """Nanoseconds since the epoch of an RFC 3339 time; None for what is none."""
    if not _TIME.fullmatch(text):
        return None
    try:
        moment = datetime.fromisoformat(text)
        seconds = int(moment.replace(microsecond=0).timestamp())
    except (ValueError, OverflowError):
        return None
    return seconds * 1_000_000_000 + moment.microsecond * 1_000


def read_object(raw: bytes, what: str, limit: int) -> Mapping[str, Any]:
    """A JSON object in which no name stands twice.

    Raises:
        InputError: It is none, or larger than the limit.
    """
    if len(raw) > limit:
        _refuse(what, f"it has {len(raw)} bytes; {limit} are allowed")
    try:
        document = parse_once(raw.decode("utf-8"))
    except (ValueError, RecursionError):  # what is no UTF-8 is a value error too
        document = None
    if not isinstance(document, dict):
        _refuse(what, "it is no JSON object in which every name stands once")
    return document


def parse_once(text: str) -> Any:
    """What a JSON text says, if no name stands twice in an object: one reader would take the first of them, another the last.

    Raises:
        ValueError, RecursionError: It is no JSON, one does, or it is nested too deep.
    """
    return json.loads(text, object_pairs_hook=_once)


def _object(raw: bytes | Mapping[str, Any], domain: str) -> Mapping[str, Any]:
    return read_object(raw, f"a document of `{domain}`", MAX_DOCUMENT_BYTES) if isinstance(raw, bytes) else raw


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError
    return found


def _belongs(document: Mapping[str, Any], domain: str, what: str, *, required: bool) -> None:
    named = document.get("domain")
    if named is None and not required:
        return
    host = host_and_port(domain)[0]
    if not isinstance(named, str) or spelled_domain(named) not in {domain, host}:
        _refuse(what, "it names another domain")


def _name(value: object, what: str) -> str:
    if value is not None and not isinstance(value, str):
        _refuse(what, "`developer_name` is no text")
    return cut(printable(value or ""), _NAME_CHARS)


def _endpoint(value: object, domain: str, what: str) -> str | None:
    """A URL that leads to the domain or below it: who let the domain be asked did not let anybody else be."""
    if value is None:
        return None
    try:
        parts = urlsplit(value) if isinstance(value, str) and value.isascii() and value.isprintable() else None
        port = parts.port if parts else None
    except ValueError:
        parts = port = None
    host, its_port = host_and_port(domain)
    named = parse_host(parts.hostname or "") if parts else None
    if parts is None or parts.scheme != "https" or named is None or "@" in parts.netloc or parts.fragment:
        _refuse(what, "`revocation_endpoint` is no `https:` address")
    if (named != host and not named.endswith(f".{host}")) or (port or HTTPS_PORT) not in {its_port, HTTPS_PORT}:
        _refuse(what, "`revocation_endpoint` leads to another domain")
    return str(value)


def _end(document: Mapping[str, Any], what: str) -> int | None:
    """When a document ends; one whose end cannot be read is refused, for it may have come."""
    value = document.get("expires_at")
    if value is None:
        return None
    end_ns = parse_time(value) if isinstance(value, str) else None
    if end_ns is None:
        _refuse(what, "`expires_at` is no time (RFC 3339)")
    return end_ns


def _refuse(what: str, why: str) -> NoReturn:
    raise InputError(f"{what} cannot be used: {why}", code=_CODE)
