"""Signed policies: one manifest for each path of `policy.paths`, and what must hold before its files are read.

The manifest is canonical JSON (RFC 8785) of `format`, `set`, `serial`, `files` (SHA-256 in hexadecimal by name), `key_id`
and `signature`: Ed25519 in the domain `policy.set` over the canonical JSON of the other members. In order:

1. there is a manifest, and it is canonical JSON of exactly these members, each of its form;
2. the key that it names is one of those that the configuration trusts;
3. the signature holds under that key;
4. the files are those that it names, each with its digest: none more, none less;
5. no other path holds the same set, and this path has never held another one;
6. the serial is not below the greatest that was in force for the set, and equal only for the same manifest.

So nobody without a trusted key can change, add, remove, swap or put back a policy file of an owner that asks for
signatures. What a holder of the key signs is taken as it stands.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from symbi.crypto.canonical import canonical_json, parse_canonical
from symbi.crypto.signing import SigningKey, VerifyingKey
from symbi.errors import InputError, SignatureInvalid
from symbi.runtime.port import Bundle, PolicyMemory
from symbi.types import JsonValue, KeyId

MANIFEST_NAME: Final = "policies.sig.json"
"""Beside the files of a folder; of one file `x.cedar` it is `x.cedar.sig.json`."""

FORMAT: Final = "symbi/policies/1"
DOMAIN: Final = "policy.set"
MAX_SERIAL: Final = 2**53 - 1

_MEMBERS: Final = frozenset({"format", "set", "serial", "files", "key_id", "signature"})
_SET_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_SIGNATURE: Final = re.compile(r"[0-9a-f]{128}")


@dataclass(frozen=True, slots=True)
class Seal:
    """What a signature that holds says of a bundle.

    Attributes:
        path: Of the bundle.
        name: Of the set.
        serial: Grows with each signing.
        key_id: Who signed.
        digest: SHA-256 (hex) of the manifest.
    """

    path: str
    name: str
    serial: int
    key_id: KeyId
    digest: str


def sign_bundle(bundle: Bundle, key: SigningKey, *, name: str, serial: int) -> bytes:
    """The manifest of a bundle, to be written beside it.

    Args:
        bundle: What is signed; a manifest that it has is not looked at.
        key: Who signs.
        name: Of the set: the same for each signing of it, and another for each other set.
        serial: Greater than that of each earlier signing.

    Raises:
        InputError: Name or serial cannot stand in a manifest.
    """
    if not _SET_NAME.fullmatch(name):
        msg = f"`{name}` cannot name a set of policies"
        raise InputError(msg, code="policy.set_name", hint="use up to 64 letters, digits and `. _ -`")
    if not 1 <= serial <= MAX_SERIAL:
        msg = f"a serial is from 1 to {MAX_SERIAL}, not {serial}"
        raise InputError(msg, code="policy.serial")
    signed: dict[str, JsonValue] = {
        "format": FORMAT,
        "set": name,
        "serial": serial,
        "files": dict(_digests(bundle)),
        "key_id": key.key_id,
    }
    return canonical_json({**signed, "signature": key.sign(DOMAIN, canonical_json(signed)).hex()})


def verify_bundle(bundle: Bundle, trusted: Mapping[KeyId, VerifyingKey]) -> Seal:
    """Checks 1 to 4; returning at all means that they hold.

    Raises:
        SignatureInvalid: One does not; the message says which.
    """
    members = _read(bundle)
    key_id = KeyId(str(members["key_id"]))
    key = trusted.get(key_id)
    if key is None:
        raise _refused(
            bundle,
            f"they are signed by key `{key_id}`, which is not trusted",
            "`policy.trusted_keys` names those that are",
        )
    signature = bytes.fromhex(str(members["signature"]))
    signed = canonical_json({name: value for name, value in members.items() if name != "signature"})
    try:
        key.verify(DOMAIN, signed, signature)
    except SignatureInvalid as error:
        raise _refused(bundle, f"their signature does not hold under key `{key_id}`") from error
    _check_files(bundle, members["files"])
    assert isinstance(bundle.manifest, bytes)
    digest = hashlib.sha256(bundle.manifest).hexdigest()
    return Seal(bundle.path, str(members["set"]), _serial(members["serial"]), key_id, digest)


def serial_in(bundle: Bundle) -> tuple[str, int] | None:
    """Name and serial that the manifest of a bundle claims; None where it has none. Nothing is verified.

    Raises:
        SignatureInvalid: What stands there is no manifest.
    """
    if bundle.manifest is None:
        return None
    members = _read(bundle)
    return str(members["set"]), _serial(members["serial"])


def check_succession(seals: Sequence[Seal], memory: PolicyMemory) -> None:
    """Checks 5 and 6, on the store's thread.

    Raises:
        SignatureInvalid: A set is older than, or another than, what was in force.
        StoreUnavailable: The store cannot be read.
    """
    for index, seal in enumerate(seals):
        twin = next((other for other in seals[:index] if other.name == seal.name), None)
        if twin is not None:
            raise _wrong(seal, f"it is the set `{seal.name}`, and so is `{twin.path}`", "sign them under two names")
        held = memory.policy_note(_path_key(seal.path))
        if held is not None and held != seal.name:
            raise _wrong(
                seal,
                f"it held the set `{held}` and holds `{seal.name}` now",
                f"sign it with `--set {held}`, or use another path",
            )
        noted = memory.policy_note(_set_key(seal.name))
        if noted is None:
            continue
        serial, _, digest = noted.partition(" ")
        if seal.serial < int(serial):
            raise _wrong(seal, f"its serial {seal.serial} is below {serial}, which was in force", "sign it anew")
        if seal.serial == int(serial) and seal.digest != digest:
            raise _wrong(seal, f"its serial {serial} was in force with other files", "sign it with a greater serial")


def remember(seals: Sequence[Seal], memory: PolicyMemory) -> None:
    """Note what is in force from now on, inside the running transaction.

    Raises:
        StoreUnavailable: The store cannot be written.
    """
    for seal in seals:
        memory.put_policy_note(_path_key(seal.path), seal.name)
        memory.put_policy_note(_set_key(seal.name), f"{seal.serial} {seal.digest}")


def _path_key(path: str) -> str:
    return f"path:{path}"


def _set_key(name: str) -> str:
    return f"set:{name}"


def _digests(bundle: Bundle) -> list[tuple[str, str]]:
    return [(file.name, hashlib.sha256(file.data).hexdigest()) for file in bundle.files]


def _read(bundle: Bundle) -> Mapping[str, JsonValue]:
    if bundle.manifest is None:
        raise _refused(bundle, "they are not signed", "sign them with `symbi policy sign`")
    try:
        members = parse_canonical(bundle.manifest)
    except InputError as error:
        raise _refused(bundle, f"their manifest is not canonical JSON: {error.message}") from error
    if not isinstance(members, Mapping) or members.keys() != _MEMBERS:
        raise _refused(bundle, "their manifest has not the members of one")
    holds = {
        "format": members["format"] == FORMAT,
        "set": isinstance(members["set"], str) and _SET_NAME.fullmatch(members["set"]) is not None,
        "serial": type(members["serial"]) is int and 1 <= members["serial"] <= MAX_SERIAL,
        "files": isinstance(members["files"], Mapping)
        and all(isinstance(digest, str) and _DIGEST.fullmatch(digest) for digest in members["files"].values()),
        "key_id": isinstance(members["key_id"], str),
        "signature": isinstance(members["signature"], str) and _SIGNATURE.fullmatch(members["signature"]) is not None,
    }
    wrong = next((name for name, good in holds.items() if not good), None)
    if wrong is not None:
        raise _refused(bundle, f"`{wrong}` of their manifest is not of its form")
    return members


def _check_files(bundle: Bundle, named: JsonValue) -> None:
    assert isinstance(named, Mapping)
    found = dict(_digests(bundle))
    hint = "look at what changed, and sign it again with `symbi policy sign` if it is meant"
    for name in sorted(found.keys() | named.keys()):
        if name not in named:
            raise _refused(bundle, f"`{name}` is there and was not signed", hint)
        if name not in found:
            raise _refused(bundle, f"`{name}` was signed and is not there", hint)
        if found[name] != named[name]:
            raise _refused(bundle, f"`{name}` is not what was signed", hint)


def _serial(value: JsonValue) -> int:
    assert type(value) is int
    return value


def _refused(bundle: Bundle, why: str, hint: str | None = None) -> SignatureInvalid:
    return SignatureInvalid(f"the policies in `{bundle.path}` are refused: {why}", hint=hint, path=bundle.path)


def _wrong(seal: Seal, why: str, hint: str) -> SignatureInvalid:
    return SignatureInvalid(
        f"the policies in `{seal.path}` are refused: {why}", code="verify.policy_serial", hint=hint, path=seal.path
    )
