"""Skill folders: every file of a folder under one signature, in its file `.schemapin.sig`.

The signature is over the hash of all files' hashes, each over a file's path and content, as the specification says. That
form has two holes. A path and its content are hashed as one string, so that a character can move from one to the other;
and what stands beside the signature (name, domain, version, end, the list of files) is not covered. So we sign that too,
in a further member that others pass over (`manifest_signature`); where it is, it must hold.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from symbi.errors import InputError, SignatureInvalid
from symbi.tools.schemapin.canonical import canonical_json
from symbi.tools.schemapin.documents import parse_domain, parse_time, read_object
from symbi.tools.schemapin.keys import FINGERPRINT, PrivateKey, PublicKey, key_id
from symbi.tools.schemapin.signature import (
    VERSION,
    SignatureForm,
    decode_signature,
    form_of,
    refuse_other_form,
    sign_bytes,
)
from symbi.tools.text import cut, printable, shown_name

SIGNATURE_FILE: Final = ".schemapin.sig"
MAX_FILES: Final = 10_000
MAX_SIGNATURE_BYTES: Final = 4_194_304
MAX_PATH_CHARS: Final = 1_024
_UNCOVERED: Final = ("signature", "manifest_signature")


@dataclass(frozen=True, slots=True)
class SkillTerms:
    """What a signer says of a folder.

    Attributes:
        name: The skill's.
        domain: Who signs.
        signed_at: RFC 3339.
        expires_at: Likewise; empty where it does not end.
        version: `schema_version`; empty where it has none.
        previous: `skill_hash` of the version before; empty where there is none.
    """

    name: str
    domain: str
    signed_at: str
    expires_at: str = ""
    version: str = ""
    previous: str = ""


@dataclass(frozen=True, slots=True)
class SkillVerdict:
    """What was found of a folder whose signature holds.

    Attributes:
        name: The skill's.
        domain: Who signed.
        skill_hash: `sha256:…` of all files.
        form: What the signature was made over.
        covered: Name, domain, version, end and list of files are signed too; published implementations do not do that.
        version: `schema_version`; empty where it has none.
        previous: What it says it succeeds; empty where it says nothing.
        warnings: What is worth knowing.
    """

    name: str
    domain: str
    skill_hash: str
    form: SignatureForm
    covered: bool
    version: str = ""
    previous: str = ""
    warnings: tuple[str, ...] = ()


def file_hash(path: str, content: bytes) -> str:
    """`sha256:…` of one file.

    Args:
        path: In the folder, with `/`.
        content: All of it.

    Raises:
        InputError: The path leads out of the folder, or is not written alike everywhere.
    """
    _check_path(path)
    return f"sha256:{hashlib.sha256(path.encode() + content).hexdigest()}"


def sign_skill(files: Mapping[str, str], terms: SkillTerms, private_key: PrivateKey) -> dict[str, Any]:
    """The content of `.schemapin.sig`.

    Args:
        files: Hash by path, of every file.
        terms: What is said of the folder.
        private_key: On P-256.

    Raises:
        InputError: There is no file, or what is said cannot be signed.
    """
    root = _root(files)
    for value, fits in ((terms.version, VERSION), (terms.previous, FINGERPRINT)):
        if value and not fits.fullmatch(value):
            raise InputError(f"`{shown_name(value)}` is no version, or no `sha256:…`", code="tool.skill")
    later = terms.expires_at or terms.version or terms.previous
    document: dict[str, Any] = {
        "schemapin_version": "1.4" if later else "1.3",
        "skill_name": terms.name,
        "skill_hash": f"sha256:{hashlib.sha256(root).hexdigest()}",
        "signed_at": terms.signed_at,
        "domain": parse_domain(terms.domain),
        "signer_kid": key_id(private_key.public_key()),
        "file_manifest": dict(sorted(files.items())),
    }
    said = {"expires_at": terms.expires_at, "schema_version": terms.version, "previous_hash": terms.previous}
    document |= {name: value for name, value in said.items() if value}
    document["manifest_signature"] = sign_bytes(canonical_json(document), private_key, SignatureForm.DIGEST)
    return document | {"signature": sign_bytes(root, private_key, SignatureForm.DIGEST)}


def parse_skill(raw: bytes) -> Mapping[str, Any]:
    """Read a `.schemapin.sig`.

    Raises:
        InputError: It is malformed, or names a file outside of its folder.
    """
    what = f"`{SIGNATURE_FILE}`"
    document = read_object(raw, what, MAX_SIGNATURE_BYTES)
    for name in ("schemapin_version", "skill_name", "skill_hash", "signature", "domain"):
        if not isinstance(document.get(name), str) or not document[name]:
            _refuse(f"`{name}` is missing")
    for name, fits in (("schema_version", VERSION), ("previous_hash", FINGERPRINT), ("skill_hash", FINGERPRINT)):
        value = document.get(name)
        if value is not None and not (isinstance(value, str) and fits.fullmatch(value)):
            _refuse(f"`{name}` is malformed")
    files = document.get("file_manifest")
    if not isinstance(files, dict) or len(files) > MAX_FILES:
        _refuse(f"`file_manifest` is no table of up to {MAX_FILES} files")
    for path, value in files.items():
        _check_path(path)
        if not isinstance(value, str) or not FINGERPRINT.fullmatch(value):
            _refuse(f"`file_manifest` has no `sha256:…` for `{shown_name(path)}`")
    return document


def verify_skill(
    files: Mapping[str, str], document: Mapping[str, Any], key: PublicKey, now_ns: int, *, strict: bool = True
) -> SkillVerdict:
    """Return if a folder is what was signed: every file, and nothing else.

    Args:
        files: Hash by path, of every file that is there.
        document: Out of `parse_skill`.
        key: Of the signer.
        now_ns: Since the epoch.
        strict: A signature past its end, or whose end cannot be read, is refused, and not only warned of.

    Raises:
        SignatureInvalid: A file is changed, missing or was added; a signature does not hold; or it has ended.
    """
    refuse_other_form(document.get("canonicalization"), "the folder")
    name = shown_name(document["skill_name"])
    different = sorted(
        path
        for path in files.keys() | document["file_manifest"].keys()
        if files.get(path) != document["file_manifest"].get(path)
    )
    if different:
        path = different[0]
        how = (
            "was added"
            if path not in document["file_manifest"]
            else "is missing"
            if path not in files
            else "has changed"
        )
        more = f", and {len(different) - 1} more differ" if len(different) > 1 else ""
        msg = f"`{shown_name(path)}` of skill `{name}` {how}{more}"
        raise SignatureInvalid(msg, code="verify.skill", skill=name)
    root = _root(files)
    if document["skill_hash"] != f"sha256:{hashlib.sha256(root).hexdigest()}":
        msg = f"the hash of skill `{name}` is not that of its files"
        raise SignatureInvalid(msg, code="verify.skill", skill=name)
    form = form_of(root, decode_signature(document["signature"], f"skill `{name}`"), key)
    if form is None:
        msg = f"the signature of skill `{name}` does not hold under {key_id(key)[:23]}"
        raise SignatureInvalid(msg, code="verify.skill", skill=name)
    covered = _check_manifest(document, key, name)
    warnings = [] if covered else ["only content is signed: paths, name, domain, version and end are not"]
    ended = _why_ended(document, now_ns)
    if ended and strict:
        raise SignatureInvalid(f"{ended} (skill `{name}`)", code="verify.expired", skill=name)
    return SkillVerdict(
        name, cut(printable(document["domain"]), 300), document["skill_hash"], form, covered,
        document.get("schema_version", ""), document.get("previous_hash", ""), (*warnings, *([ended] if ended else [])),
    )  # fmt: skip


def check_descent(verdict: SkillVerdict, known_hash: str) -> None:
    """Return if a version says that it succeeds the one that is known, or is that one.

    Raises:
        SignatureInvalid: It says nothing, or another.
    """
    if known_hash in {verdict.skill_hash, verdict.previous}:
        return
    said = f"says that it succeeds {verdict.previous[:23]}" if verdict.previous else "does not say what it succeeds"
    msg = f"skill `{verdict.name}` {said}, and {known_hash[:23]} is the one that is known"
    raise SignatureInvalid(msg, code="verify.descent", skill=verdict.name)


def _check_manifest(document: Mapping[str, Any], key: PublicKey, name: str) -> bool:
    signature = document.get("manifest_signature")
    if signature is None:
        return False
    try:
        canonical = canonical_json({one: document[one] for one in document if one not in _UNCOVERED})
    except InputError as error:
        msg = f"the manifest of skill `{name}` cannot be checked: {error.message}"
        raise SignatureInvalid(msg, code="verify.skill", skill=name) from error
    if (
        not isinstance(signature, str)
        or form_of(canonical, decode_signature(signature, f"skill `{name}`"), key) is None
    ):
        msg = f"the manifest of skill `{name}` was changed after it was signed"
        raise SignatureInvalid(msg, code="verify.skill", skill=name)
    return True


def _root(files: Mapping[str, str]) -> bytes:
    """What is signed of all files: their hashes, in the order of their paths."""
    if not files or len(files) > MAX_FILES:
        _refuse(
            "the folder has no file" if not files else f"the folder has {len(files)} files; {MAX_FILES} are allowed"
        )
    return "".join(files[path].removeprefix("sha256:") for path in sorted(files)).encode("ascii")


def _why_ended(document: Mapping[str, Any], now_ns: int) -> str:
    end = document.get("expires_at")
    if end is None:
        return ""
    end_ns = parse_time(end) if isinstance(end, str) else None
    if end_ns is None:
        return "the end of the signature cannot be read"
    return f"the signature has ended on {end}" if now_ns >= end_ns else ""


def _check_path(path: str) -> None:
    parts = path.split("/")
    if (
        not path.isprintable()
        or len(path) > MAX_PATH_CHARS
        or "\\" in path
        or any(part in {"", ".", "..", SIGNATURE_FILE} for part in parts)
        or max(path) > "\uffff"  # implementations sort such paths differently
    ):
        _refuse(f"`{shown_name(path)}` is no path in it")


def _refuse(why: str) -> NoReturn:
    raise InputError(f"the skill folder cannot be used: {why}", code="tool.skill")
