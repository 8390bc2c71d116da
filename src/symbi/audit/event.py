"""Events of the trail: their form, how one is sealed, and how a record is read back.

A record is the canonical JSON (RFC 8785) of all twelve fields. Its body is the canonical JSON of all but `chain_hash`
and `signature`; the chain hash links the body to the chain hash before it (`symbi.crypto.chain`), and the signature
(`symbi.crypto.signing`, domain `audit.event`) is over the 32 bytes of the chain hash. The head is the canonical JSON of
where the trail ends, signed in the domain `audit.head` over the canonical JSON of its other fields.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, cast

from symbi.audit.port import StoredEvent
from symbi.crypto.canonical import canonical_json, parse_canonical
from symbi.crypto.chain import GENESIS, link
from symbi.crypto.signing import SigningKey, VerifyingKey
from symbi.errors import ChainBroken, InputError, did_you_mean
from symbi.types import SYSTEM_AGENT, AgentId, EventId, JsonValue, KeyId

SCHEMA_VERSION: Final = 1  # of events, heads and the rules that join them
GENESIS_HASH: Final = GENESIS.hex()  # what the first event follows
EVENT_DOMAIN: Final = "audit.event"
HEAD_DOMAIN: Final = "audit.head"
MAX_RECORD_BYTES: Final = 1_048_576  # bounds one event: the trail holds facts and digests, not payloads

_TIMESTAMP: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{9}Z")
_KEY_ID: Final = re.compile(r"[0-9a-f]{16}")
_HASH: Final = re.compile(r"[0-9a-f]{64}")
_SIGNATURE: Final = re.compile(r"[0-9a-f]{128}")
_SECONDS_LENGTH: Final = len("2026-01-02T03:04:05")


class AuditEventType(StrEnum):
    """What an event tells. A type that is not here can be neither written nor read."""

    TRAIL_STARTED = "trail.started"
    """The first event of every trail, and only the first: its format and public key."""
    RUNTIME_STARTED = "runtime.started"
    RUNTIME_STOPPED = "runtime.stopped"
    CONFIG_RECORDED = "config.recorded"
    GATE_CANARY = "gate.canary"
    POLICY_CHANGED = "policy.changed"
    POLICY_REFUSED = "policy.refused"
    POLICY_SHADOW = "policy.shadow"
    """A candidate set would have decided otherwise; nothing came of it."""
    DECISION_ALLOW = "decision.allow"
    DECISION_DENY = "decision.deny"
    EFFECT_OUTCOME = "effect.outcome"
    EFFECT_UNKNOWN = "effect.unknown"
    EFFECT_RECONCILED = "effect.reconciled"
    LEASE_GRANTED = "lease.granted"
    LEASE_CLOSED = "lease.closed"
    AGENT_TRANSITION = "agent.transition"
    RUN_STARTED = "run.started"
    RUN_RESUMED = "run.resumed"
    RUN_FINISHED = "run.finished"
    SCHEDULE_DUE = "schedule.due"
    """A schedule's time has come; its run bears the event's run id."""
    SCHEDULE_SKIPPED = "schedule.skipped"
    TOOL_VERIFIED = "tool.verified"
    TOOL_PINNED = "tool.pinned"
    TOOL_REFUSED = "tool.refused"
    APPROVAL_ASKED = "approval.asked"
    APPROVAL_TOLD = "approval.told"
    """Whether a notice of a held action reached anybody."""
    APPROVAL_VOTED = "approval.voted"
    APPROVAL_REFUSED = "approval.refused"
    """Somebody voted who may not, or on something else."""
    APPROVAL_GRANTED = "approval.granted"
    APPROVAL_DENIED = "approval.denied"
    APPROVAL_EXPIRED = "approval.expired"
    APPROVAL_VOIDED = "approval.voided"
    APPROVAL_USED = "approval.used"
    KEY_ROTATED = "key.rotated"
    """The last event by one key: from the next one on another key signs, which it names."""
    SIGNING_CHANGED = "signing.changed"
    """From the next event on, each has a signature of its own, or the signed head alone covers it."""
    SEGMENT_SEALED = "segment.sealed"
    """A closed part of the trail was copied to the audit storage with its checkpoint."""
    SEGMENT_REMOVED = "segment.removed"
    """A sealed part, kept in the audit storage, was taken out of the live store."""
    CHECKPOINT_WITNESSED = "checkpoint.witnessed"
    CHECKPOINT_ANCHORED = "checkpoint.anchored"
    """A time-stamping authority put its time on a checkpoint (RFC 3161)."""
    SUBJECT_EXPORTED = "subject.exported"
    SUBJECT_ERASED = "subject.erased"
    SUBJECT_HELD = "subject.held"
    """A legal hold blocks the erasure of a subject."""
    SUBJECT_RELEASED = "subject.released"
    COMPLIANCE_REPORTED = "compliance.reported"
    """A report was made; its hash stands here."""
    INPUT_REFUSED = "input.refused"
    """Something that was to be run could not even be read."""


@dataclass(frozen=True, slots=True)
class Draft:
    """What is to be recorded, before it has its place.

    Attributes:
        event_type: One of `AuditEventType`, or its text.
        agent_id: On whose behalf it happened; `SYSTEM_AGENT` for the runtime itself.
        details: What can stand in canonical JSON; ids, sizes and digests, no secrets.
        run_id: The run it belongs to, or empty.
    """

    event_type: str
    agent_id: AgentId
    details: Mapping[str, JsonValue]
    run_id: str = ""


@dataclass(frozen=True, slots=True)
class Receipt:
    """Proof that an event is durable, and where.

    Attributes:
        sequence: Its place, from 1.
        event_id: Its id.
        chain_hash: Hex; commits to it and to everything before it.
    """

    sequence: int
    event_id: EventId
    chain_hash: str


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One event of the trail.

    Attributes:
        schema_version: `SCHEMA_VERSION` of the release that wrote it.
        sequence: 1, 2, 3 … without a gap.
        event_id: UUIDv7.
        timestamp: RFC 3339 in UTC with nine decimals; never before the one of the event before it.
        agent_id: On whose behalf it happened.
        run_id: The run it belongs to, or empty.
        event_type: What it tells.
        details: Facts of its type.
        previous_hash: Hex of the chain hash before it; `GENESIS_HASH` for the first.
        key_id: Which key signed it.
        chain_hash: Hex, 32 bytes.
        signature: Hex, 64 bytes.
    """

    schema_version: int
    sequence: int
    event_id: EventId
    timestamp: str
    agent_id: AgentId
    run_id: str
    event_type: AuditEventType
    details: Mapping[str, JsonValue]
    previous_hash: str
    key_id: KeyId
    chain_hash: str
    signature: str


def trail_started(key: VerifyingKey) -> Draft:
    """The draft of a trail's first event.

    The public key in it tells a reader which key to ask for; it is no reason to trust that key.
    """
    details: dict[str, JsonValue] = {"format": SCHEMA_VERSION, "signature_algorithm": "Ed25519", "public_key": key.hex}
    return Draft(AuditEventType.TRAIL_STARTED, SYSTEM_AGENT, details)


def seal_event(
    draft: Draft, *, sequence: int, previous_hash: str, event_id: EventId, timestamp: str, key: SigningKey
) -> tuple[AuditEvent, StoredEvent]:
    """Give a draft its place in the chain, and sign it.

    Args:
        draft: What to record; it is read once.
        sequence: One more than that of the event before it.
        previous_hash: Hex of the chain hash of the event before it, or `GENESIS_HASH`.
        event_id: A new id.
        timestamp: `symbi.clock.rfc3339`, not before that of the event before it.
        key: The trail's key.

    Returns:
        The event, and what to store of it.

    Raises:
        InputError: The type is unknown, the details cannot stand in canonical JSON, the event is too large, or
            `trail.started` is not the first event and nothing else is.
    """
    event_type = _known_type(draft.event_type)
    if (sequence == 1) is not (event_type is AuditEventType.TRAIL_STARTED):
        msg = f"a trail begins with `{AuditEventType.TRAIL_STARTED}`, once: event {sequence} cannot be `{event_type}`"
        raise InputError(msg, code="audit.first_event")
    # A copy in plain JSON types: nobody can change it between the hash and the record.
    details = parse_canonical(canonical_json(draft.details))
    fields: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "sequence": sequence,
        "event_id": event_id,
        "timestamp": timestamp,
        "agent_id": draft.agent_id,
        "run_id": draft.run_id,
        "event_type": event_type.value,
        "details": details,
        "previous_hash": previous_hash,
        "key_id": key.key_id,
    }
    chain_hash = link(bytes.fromhex(previous_hash), canonical_json(fields))
    fields["chain_hash"] = chain_hash.hex()
    fields["signature"] = key.sign(EVENT_DOMAIN, chain_hash).hex()
    record = canonical_json(fields)
    if len(record) > MAX_RECORD_BYTES:
        msg = f"an event of {len(record)} bytes; the trail takes {MAX_RECORD_BYTES}"
        raise InputError(msg, code="audit.too_large", hint="record a digest and a size instead")
    fault = _fault(fields)
    if fault is not None:
        msg = f"the event cannot be written: {fault}"
        raise InputError(msg, code="audit.event")
    event = AuditEvent(**(fields | {"event_type": event_type}))
    return event, StoredEvent(sequence, record, event.chain_hash)


def seal_head(sequence: int, chain_hash: str, timestamp: str, key: SigningKey) -> bytes:
    """Where the trail ends, signed: makes a truncated tail visible.

    Args:
        sequence: That of the last event.
        chain_hash: That of the last event, hex.
        timestamp: That of the last event.
        key: The key of the last event.

    Returns:
        Canonical JSON.
    """
    fields: dict[str, JsonValue] = {
        "schema_version": SCHEMA_VERSION,
        "sequence": sequence,
        "chain_hash": chain_hash,
        "timestamp": timestamp,
        "key_id": key.key_id,
    }
    fields["signature"] = key.sign(HEAD_DOMAIN, canonical_json(fields)).hex()
    return canonical_json(fields)


def parse_event(record: bytes, *, sequence: int = 0) -> AuditEvent:
    """Read a record strictly; says nothing of its hash, its signature or its place.

    Args:
        record: As it stands in the store.
        sequence: Where it stands, for the error.

    Raises:
        ChainBroken: The record is not canonical JSON, has other fields than an event, or a field of another form;
            `fields["reason"]` is `canonical` or `fields`.
    """
    if len(record) > MAX_RECORD_BYTES:
        msg = f"event {sequence} has {len(record)} bytes; an event has at most {MAX_RECORD_BYTES}"
        raise ChainBroken(msg, sequence=sequence, reason="canonical")
    try:
        fields = parse_canonical(record)
    except InputError as error:
        msg = f"event {sequence} is {error.message}"
        raise ChainBroken(msg, sequence=sequence, reason="canonical") from error
    fault = _fault(fields)
    if fault is not None:
        msg = f"event {sequence} is malformed: {fault}"
        raise ChainBroken(msg, sequence=sequence, reason="fields")
    values = cast("dict[str, Any]", fields)
    return AuditEvent(**(values | {"event_type": AuditEventType(values["event_type"])}))


def is_timestamp(value: object) -> bool:
    """Whether a value is an RFC 3339 time in UTC with nine decimals; such texts sort by time."""
    if not isinstance(value, str) or _TIMESTAMP.fullmatch(value) is None:
        return False
    try:
        datetime.fromisoformat(value[:_SECONDS_LENGTH])
    except ValueError:
        return False
    return True


def is_hash(value: object) -> bool:
    """Whether a value is a hash of 32 bytes in lower-case hexadecimal."""
    return isinstance(value, str) and _HASH.fullmatch(value) is not None


def is_key_id(value: object) -> bool:
    """Whether a value is a key id."""
    return isinstance(value, str) and _KEY_ID.fullmatch(value) is not None


def is_signature(value: object) -> bool:
    """Whether a value is a signature of 64 bytes in lower-case hexadecimal."""
    return isinstance(value, str) and _SIGNATURE.fullmatch(value) is not None


def is_place(value: object) -> bool:
    """Whether a value is a sequence number."""
    return type(value) is int and value >= 1


def _is_event_type(value: object) -> bool:
    return isinstance(value, str) and value in _TYPES


def _is_version(value: object) -> bool:
    return type(value) is int and value == SCHEMA_VERSION


def _is_name(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_object(value: object) -> bool:
    return isinstance(value, dict)


_TYPES: Final = frozenset(AuditEventType)
_FORMS: Final = {
    "schema_version": _is_version,
    "sequence": is_place,
    "event_id": _is_name,
    "timestamp": is_timestamp,
    "agent_id": _is_name,
    "run_id": _is_text,
    "event_type": _is_event_type,
    "details": _is_object,
    "previous_hash": is_hash,
    "key_id": is_key_id,
    "chain_hash": is_hash,
    "signature": is_signature,
}


def _fault(fields: JsonValue) -> str | None:
    """What is wrong with the fields of an event, or None."""
    if not isinstance(fields, dict):
        return "it is not an object"
    if fields.keys() != _FORMS.keys():
        missing = ", ".join(f"`{name}`" for name in sorted(_FORMS.keys() - fields.keys()))
        return f"fields are missing: {missing}" if missing else "it has fields that an event has not"
    for name, holds in _FORMS.items():
        if not holds(fields[name]):
            return f"`{name}` is not of its form"
    return None


def _known_type(name: str) -> AuditEventType:
    try:
        return AuditEventType(name)
    except ValueError:
        msg = f"unknown event type `{name}`"
        hint = did_you_mean(name, AuditEventType)
        raise InputError(msg, code="audit.event_type", hint=hint or None) from None
