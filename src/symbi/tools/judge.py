"""Whether one definition may be called: from values alone, and so the same for all who ask."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from symbi.clock import rfc3339
from symbi.errors import InputError, PinMismatch, SignatureInvalid, SymbiError, VerificationError
from symbi.guard.outcome import decode_error, encode_error
from symbi.tools.port import Pin, ToolDefinition
from symbi.tools.review import covered_definition, signed_digest
from symbi.tools.schemapin import (
    PublicKey,
    SignatureEntry,
    digest_of,
    entry_of,
    fingerprint,
    key_id,
    verify,
)
from symbi.tools.schemapin.lineage import of_descent, parse_provenance, provenance, why_ended, why_older
from symbi.tools.schemapin.resolve import ServerTrust
from symbi.tools.text import shown_name

_log = logging.getLogger("symbi.tools")

PINNED: Final = "pinned"
QUARANTINED: Final = "quarantined:"
"""State of a pin whose tool has changed; the digest that was seen follows."""


class VerificationMode(StrEnum):
    """Which tools may be called."""

    STRICT = "strict"
    TOFU = "tofu"
    DISABLED = "disabled"


@dataclass(frozen=True, slots=True)
class Judgement:
    """What `judge` found.

    Attributes:
        error: Why the tool may not be called, or None.
        pin: What the pin becomes, or None where it stays.
        digest: SHA-256 (hex) of all of the definition; empty where it has no canonical form.
        key: The key under which a signature holds, or None.
        form: What that was made over: `digest` or `bytes`.
    """

    error: SymbiError | None
    pin: Pin | None = None
    digest: str = ""
    key: PublicKey | None = None
    form: str = ""


@dataclass(frozen=True, slots=True)
class Examined:
    """What of a definition takes time to find out, and needs no pin.

    Attributes:
        name: `server.tool`.
        covered: All of the definition in one form, as text; empty where it has none.
        digest: SHA-256 (hex) of that, likewise.
        form: Of the signature that holds; empty where there is none.
        entry: What it carries of SchemaPin, or None.
        error: Why it may not be called, whatever is pinned, or None.
        before: By digest of what is pinned, that of what SchemaPin signs of it, as far as it was found out.
    """

    name: str
    covered: str = ""
    digest: str = ""
    form: str = ""
    entry: SignatureEntry | None = None
    error: SymbiError | None = None
    before: Mapping[str, str] = field(default_factory=dict)


def examine(mode: VerificationMode, definition: ToolDefinition, trust: ServerTrust, now_ns: int) -> Examined:
    """Find out canonical form, digest, and whether the signature holds; up to some 20 ms for a large definition.

    Args:
        mode: Strict or tofu; disabled asks nothing.
        definition: As the server gave it.
        trust: The server's key, if any.
        now_ns: Since the epoch.
    """
    name = f"{definition.server}.{definition.name}"
    # 1. the canonical form: what cannot be signed cannot be pinned
    try:
        covered = covered_definition(definition)
    except InputError as error:
        if mode is VerificationMode.DISABLED:
            return Examined(name, digest=digest_of(repr(definition).encode("utf-8", "replace")))
        return Examined(name, error=error)
    examined = Examined(name, covered.decode(), digest_of(covered))
    if mode is VerificationMode.DISABLED:
        return replace(examined, covered="")
    # 2. the signature, before any pin is looked at
    try:
        form, entry = _check_signature(mode, definition, trust, now_ns)
    except SymbiError as error:
        return replace(examined, error=error)
    return replace(examined, form=form, entry=entry)


def judge(
    mode: VerificationMode,
    examined: Examined,
    trust: ServerTrust,
    pin: Pin | None,
    *,
    now_ns: int,
    reviewed: bool = False,
    older: bool = False,
) -> Judgement:
    """Judge one definition.

    Args:
        mode: Strict or tofu; disabled asks nothing.
        examined: The definition, examined under the same mode and key.
        trust: The server's key, if any, and how it is known; a remote one that nobody has accepted is not pinned in strict.
        pin: What is pinned for this tool, if anything.
        now_ns: Since the epoch.
        reviewed: A person has looked at definition and key: they replace the pin. The signature is checked all the same.
        older: That person lets an older version replace a newer one.
    """
    name, digest, form, entry = examined.name, examined.digest, examined.form, examined.entry
    if examined.error is not None or mode is VerificationMode.DISABLED:
        return Judgement(examined.error, digest=digest)
    key = trust.key if form else None
    signed = "" if key is None else fingerprint(key)
    how = provenance(form, entry.version if entry else "", trust.source if form else "")
    fresh = Pin(name, signed, digest, how.text, examined.covered, rfc3339(now_ns), PINNED)
    # 3. the pin
    if pin is not None and pin.digest != digest and reviewed and not older:
        step_back = why_older(entry or SignatureEntry(""), parse_provenance(pin.form))
        if step_back:
            mismatch = PinMismatch(
                f"tool `{name}` would go back: {step_back}",
                code="verify.older",
                hint=f"if that is meant: `symbi tools pin {name} --older`",
                tool=name,
            )
            return Judgement(mismatch, digest=digest, key=key, form=form)
    if reviewed:
        return Judgement(None, fresh, digest, key, form)
    if pin is None:
        held = _held(mode, name, trust) if key is not None else None
        return Judgement(held, None if held else fresh, digest, key, form)
    if pin.digest == digest and pin.key_fingerprint == signed:
        return Judgement(None, None if pin.state == PINNED else replace(pin, state=PINNED), digest, key, form)
    if pin.digest == digest and not pin.key_fingerprint and (held := _held(mode, name, trust)) is None:
        return Judgement(None, fresh, digest, key, form)  # it was unsigned and is signed now, with nothing else changed
    return Judgement(_changed(pin, examined, signed), replace(pin, state=QUARANTINED + digest), digest, key, form)


def _held(mode: VerificationMode, name: str, trust: ServerTrust) -> PinMismatch | None:
    """Why a tool whose signature holds is not pinned yet: a person has to look at a key that came over the network."""
    if mode is not VerificationMode.STRICT or not trust.remote or trust.key is None:
        return None
    whose = f" of {trust.developer}" if trust.developer else ""
    return PinMismatch(
        f"tool `{name}` is signed by key {key_id(trust.key)}{whose}, which nobody has accepted yet",
        code="verify.consent",
        hint=f"compare it with what its owner says elsewhere, then `symbi tools pin {name}`",
        tool=name,
    )


def _changed(pin: Pin, examined: Examined, signed: str) -> PinMismatch:
    """Why what is pinned is not what is offered; who reviews it accepts definition and key, and is told of both."""
    name, digest, entry = examined.name, examined.digest, examined.entry
    both = pin.digest != digest and pin.key_fingerprint != signed
    what = "definition and key" if both else "definition" if pin.digest != digest else "key"
    said = ""
    if pin.digest != digest and (parse_provenance(pin.form).version or (entry and (entry.version or entry.previous))):
        back = why_older(entry or SignatureEntry(""), parse_provenance(pin.form))
        says = not back and entry is not None and entry.previous  # which takes time where it was not found out before
        before = (examined.before.get(pin.digest) or signed_digest(pin.definition)) if says else ""
        said = f"; {back or of_descent(entry, before)}"
    if pin.key_fingerprint != signed:
        was, now = (f"key sha256:{one}" if one else "nobody" for one in (pin.key_fingerprint, signed))
        said = f"; it was signed by {was}, and is by {now}{said}"
    return PinMismatch(
        f"the {what} of tool `{name}` {'have' if both else 'has'} changed since it was pinned on {pin.pinned_at[:10]}{said}",
        hint=f"`symbi tools review {name}` shows the difference",
        tool=name,
        pinned=pin.digest,
        seen=digest,
    )


def _keyless(name: str, error: SymbiError) -> SymbiError:
    """Why there is no key to check a signature with; a new exception, for the kept one must not gather traces."""
    if isinstance(error, VerificationError):
        return decode_error(encode_error(error))
    msg = f"the key that signs tool `{name}` is not to be had: {error.message}"
    return SignatureInvalid(msg, code="verify.key", hint=error.hint, tool=name, cause=error.code)


def refuse_ended(mode: VerificationMode, definition: ToolDefinition, now_ns: int) -> None:
    """Return if the signature of a definition has not ended, or the mode makes do with one that has.

    Raises:
        SignatureInvalid: It has, in strict mode.
    """
    entry = entry_of(definition) if mode is VerificationMode.STRICT else None
    ended = "" if entry is None else why_ended(entry, now_ns)
    if ended:
        name = f"{definition.server}.{definition.name}"
        raise SignatureInvalid(f"tool `{name}`: {ended}", code="verify.expired", tool=name)


def _check_signature(
    mode: VerificationMode, definition: ToolDefinition, trust: ServerTrust, now_ns: int
) -> tuple[str, SignatureEntry | None]:
    """The form of the signature that holds, or empty where tofu lets an unsigned tool pass; and what it carries.

    Raises:
        SymbiError: It does not hold, there is none, or there is no key to check it with.
    """
    name = f"{definition.server}.{definition.name}"
    entry = entry_of(definition)
    if entry is None and mode is VerificationMode.TOFU:
        return "", None
    if entry is None:
        msg = f"tool `{name}` is not signed"
        hint = 'sign it with `symbi tools sign`, or set `mcp.tool_verification = "tofu"`'
        raise SignatureInvalid(msg, hint=hint, tool=name)
    if trust.error is not None:
        raise _keyless(name, trust.error)
    if trust.key is None:
        msg = f"tool `{name}` is signed, and no public key is configured for server `{definition.server}`"
        where = f"mcp.servers.{definition.server}"
        raise SignatureInvalid(msg, hint=f"set `{where}.public_key` or `{where}.schemapin_domain`", tool=name)
    form = verify(definition, entry.signature, trust.key).value
    refuse_ended(mode, definition, now_ns)
    ended = why_ended(entry, now_ns)
    if ended:
        _log.warning("tool `%s`: %s", shown_name(name), ended)
    return form, entry
