"""Events of the trail: their form, how one is sealed, and how a record is read back.

A record is the canonical JSON (RFC 8785) of all twelve fields. Its body is the canonical JSON of all but `chain_hash`
and `signature`; the chain hash links the body to the chain hash before it (`symbi.crypto.chain`), and the signature
(`symbi.crypto.signing`, domain `audit.event`) is over the 32 bytes of the chain hash. In the mode `batch` it is the
empty text, and the signed head (`symbi.audit.checkpoint`) covers the event; `key.rotated` has one in either mode. Records
of schema version 1 differ in nothing else than that they had no modes; trails that a release before this one began keep
theirs.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, Final, NamedTuple, cast

from symbi.audit.kinds import AuditEventType as AuditEventType  # noqa: PLC0414 - others take both from here
from symbi.audit.kinds import Signing as Signing  # noqa: PLC0414 - likewise
from symbi.audit.port import EventIndex, StoredEvent
from symbi.crypto.canonical import canonical_json, parse_canonical
from symbi.crypto.chain import GENESIS, link
from symbi.crypto.signing import SigningKey, VerifyingKey
from symbi.errors import ChainBroken, InputError, did_you_mean
from symbi.types import SYSTEM_AGENT, AgentId, EventId, JsonValue, KeyId

SCHEMA_VERSION: Final = 2  # of events and the rules that join them
READABLE_VERSIONS: Final = frozenset({1, 2})  # of events; never going down within a trail
GENESIS_HASH: Final = GENESIS.hex()  # what the first event follows
EVENT_DOMAIN: Final = "audit.event"
MAX_RECORD_BYTES: Final = 1_048_576  # bounds one event: the trail holds facts and digests, not payloads

_TIMESTAMP: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{9}Z")
_KEY_ID: Final = re.compile(r"[0-9a-f]{16}")
_HASH: Final = re.compile(r"[0-9a-f]{64}")
_SIGNATURE: Final = re.compile(r"[0-9a-f]{128}")
_SECONDS_LENGTH: Final = len("2026-01-02T03:04:05")
_SEAL_BYTES: Final = len(',"chain_hash":"","signature":""') + 64 + 128  # what a signed record has beside its body


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
        key_id: Which key was in force.
        chain_hash: Hex, 32 bytes.
        signature: Hex, 64 bytes, or empty where the signed head covers it.
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


class Prepared(NamedTuple):
    """A draft that was checked and copied: nothing that its writer does later changes what is recorded.

    Attributes:
        event_type: What it tells.
        agent: The agent id in JSON.
        details: Canonical JSON.
        run: The run id in JSON.
        found_by: What the event will be found by.
        key_id: Of the key that a `key.rotated` names; empty elsewhere.
        signing: The mode that a `signing.changed` names; empty elsewhere.
    """

    event_type: AuditEventType
    agent: bytes
    details: bytes
    run: bytes
    found_by: EventIndex
    key_id: str
    signing: str


def trail_started(key: VerifyingKey, signing: Signing = Signing.EVENT) -> Draft:
    """The draft of a trail's first event.

    The public key in it tells a reader which key to ask for; it is no reason to trust that key.
    """
    details: dict[str, JsonValue] = {
        "format": SCHEMA_VERSION,
        "signature_algorithm": "Ed25519",
        "public_key": key.hex,
        "signing": signing.value,
    }
    return Draft(AuditEventType.TRAIL_STARTED, SYSTEM_AGENT, details)


def key_rotated(key: VerifyingKey, signing: Signing) -> Draft:
    """The draft of the last event by one key, which names the next, and the mode that goes on."""
    details: dict[str, JsonValue] = {"public_key": key.hex, "key_id": key.key_id, "signing": signing.value}
    return Draft(AuditEventType.KEY_ROTATED, SYSTEM_AGENT, details)


def signing_changed(signing: Signing) -> Draft:
    """The draft of the last event in one mode, which names the next."""
    return Draft(AuditEventType.SIGNING_CHANGED, SYSTEM_AGENT, {"signing": signing.value})


def prepare(draft: Draft) -> Prepared:
    """Check a draft and put it in the form that it is recorded in.

    Args:
        draft: What to record; it is read once.

    Raises:
        InputError: The type is unknown, the details cannot stand in canonical JSON, or it has no agent.
    """
    event_type = _known_type(draft.event_type)
    agent_id, run_id, details = draft.agent_id, draft.run_id, draft.details
    written = canonical_json(details)
    if not written.startswith(b"{"):
        msg = "the event cannot be written: `details` is not of its form"
        raise InputError(msg, code="audit.event")
    if not agent_id:
        msg = "the event cannot be written: `agent_id` is not of its form"
        raise InputError(msg, code="audit.event")
    agent, run = _quoted(agent_id), _quoted(run_id)
    key_id = signing = ""
    if event_type is AuditEventType.KEY_ROTATED:
        key_id = str(details.get("key_id", ""))
    elif event_type is AuditEventType.SIGNING_CHANGED:
        signing = str(details.get("signing", ""))
    index = index_of(agent_id, run_id, event_type, details)
    return Prepared(event_type, agent, written, run, index, key_id, signing)


def index_of(agent_id: str, run_id: str, event_type: str, details: Mapping[str, JsonValue]) -> EventIndex:
    """What an event is found by."""
    verdict, policies = "", ()
    if event_type in _DECISIONS:
        verdict = str(details.get("verdict", ""))
        named = details.get("policies")
        if isinstance(named, list | tuple):
            policies = tuple(
                {one["id"]: None for one in named if isinstance(one, Mapping) and type(one.get("id")) is str}
            )
    return EventIndex(agent_id, run_id, str(event_type), verdict, policies)


class Unsigned(NamedTuple):
    """An event in its place that still lacks its signature; the record is put together from these pieces.

    Attributes:
        agent: The agent id in JSON.
        middle: The fields from `details` to `sequence` as they stand in body and record.
        timestamp: As it is written.
        sequence: Its place.
        chain_hash: 32 bytes.
        chain_hex: The same in hexadecimal.
    """

    agent: bytes
    middle: bytes
    timestamp: bytes
    sequence: int
    chain_hash: bytes
    chain_hex: str

    def finish(self, signature: bytes) -> StoredEvent:
        """The event with its signature of 64 bytes, or without any."""
        record = b'{"agent_id":%b,"chain_hash":"%b"%b,"signature":"%b","timestamp":"%b"}' % (
            self.agent, self.chain_hex.encode(), self.middle, signature.hex().encode(), self.timestamp
        )  # fmt: skip
        return StoredEvent(self.sequence, record, self.chain_hex)


def place_event(
    draft: Prepared, sequence: int, previous_hash: bytes, event_id: bytes, timestamp: bytes, key_id: bytes
) -> Unsigned:
    """Give a draft its place in the chain.

    Body and record are written as canonical JSON writes them, fields in the order of their names.

    Args:
        draft: What to record.
        sequence: One more than that of the event before it.
        previous_hash: The chain hash of the event before it, 32 bytes.
        event_id: A new id.
        timestamp: `symbi.clock.rfc3339`, not before that of the event before it.
        key_id: Of the key that is in force.

    Raises:
        InputError: The event is too large, or `trail.started` is not the first event and nothing else is.
    """
    if (sequence == 1) is not (draft.event_type is AuditEventType.TRAIL_STARTED):
        msg = f"a trail begins with `{AuditEventType.TRAIL_STARTED}`, once: event {sequence} cannot be `{draft.event_type}`"
        raise InputError(msg, code="audit.first_event")
    middle = (
        b',"details":%b,"event_id":"%b","event_type":"%b","key_id":"%b","previous_hash":"%b","run_id":%b,'
        b'"schema_version":%d,"sequence":%d'
    ) % (
        draft.details, event_id, draft.event_type.encode(), key_id, previous_hash.hex().encode(),
        draft.run, SCHEMA_VERSION, sequence,
    )  # fmt: skip
    body = b'{"agent_id":%b%b,"timestamp":"%b"}' % (draft.agent, middle, timestamp)
    size = len(body) + _SEAL_BYTES
    if size > MAX_RECORD_BYTES:
        msg = f"an event of {size} bytes; the trail takes {MAX_RECORD_BYTES}"
        raise InputError(msg, code="audit.too_large", hint="record a digest and a size instead")
    chain_hash = link(previous_hash, body)
    return Unsigned(draft.agent, middle, timestamp, sequence, chain_hash, chain_hash.hex())


def seal_event(
    draft: Draft,
    *,
    sequence: int,
    previous_hash: str,
    event_id: EventId,
    timestamp: str,
    key: SigningKey,
    signing: Signing = Signing.EVENT,
) -> tuple[AuditEvent, StoredEvent]:
    """Give a draft its place in the chain, and sign it.

    Args:
        draft: What to record; it is read once.
        sequence: One more than that of the event before it.
        previous_hash: Hex of the chain hash of the event before it, or `GENESIS_HASH`.
        event_id: A new id.
        timestamp: `symbi.clock.rfc3339`, not before that of the event before it.
        key: The trail's key.
        signing: The mode in force.

    Returns:
        The event, and what to store of it.

    Raises:
        InputError: The type is unknown, the details cannot stand in canonical JSON, the event is too large, or
            `trail.started` is not the first event and nothing else is.
    """
    if not is_hash(previous_hash):
        msg = "the event cannot be written: `previous_hash` is not of its form"
        raise InputError(msg, code="audit.event")
    unsigned = place_event(
        prepare(draft), sequence, bytes.fromhex(previous_hash), event_id.encode(), timestamp.encode(), key.key_id.encode()
    )  # fmt: skip
    signed = needs_signature(_known_type(draft.event_type), signing)
    stored = unsigned.finish(key.sign(EVENT_DOMAIN, unsigned.chain_hash) if signed else b"")
    try:
        event = parse_event(stored.record, sequence=sequence)
    except ChainBroken as fault:
        msg = f"the event cannot be written: {fault.message}"
        raise InputError(msg, code="audit.event") from fault
    return event, stored


def needs_signature(event_type: AuditEventType, signing: Signing) -> bool:
    """Whether an event has a signature of its own: each in the mode `event`, and whatever hands over to another key."""
    return signing is Signing.EVENT or event_type is AuditEventType.KEY_ROTATED


def parse_event(record: bytes, *, sequence: int = 0) -> AuditEvent:
    """Read a record strictly; says nothing of its hash, its signature or its place.

    Args:
        record: As it stands in the store.
        sequence: Where it stands, for the error.

    Raises:
        ChainBroken: The record is not canonical JSON, has other fields than an event, or a field of another form;
            `fields["reason"]` is `canonical` or `fields`.
    """
    values = parse_fields(record, sequence=sequence)
    return AuditEvent(**(values | {"event_type": AuditEventType(values["event_type"])}))


def parse_fields(record: bytes, *, sequence: int = 0) -> dict[str, Any]:
    """The fields of a record, read as strictly as by `parse_event`, in plain JSON types.

    Raises:
        ChainBroken: As of `parse_event`.
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
    return cast("dict[str, Any]", fields)


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
    """Whether a value is a signature of 64 bytes in lower-case hexadecimal, or the empty text."""
    return isinstance(value, str) and (not value or _SIGNATURE.fullmatch(value) is not None)


def is_place(value: object) -> bool:
    """Whether a value is a sequence number."""
    return type(value) is int and value >= 1


def _is_event_type(value: object) -> bool:
    return isinstance(value, str) and value in _TYPES


def _is_version(value: object) -> bool:
    return type(value) is int and value in READABLE_VERSIONS


def _is_name(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_object(value: object) -> bool:
    return isinstance(value, dict)


_TYPES: Final = frozenset(AuditEventType)
_TYPE_OF: Final = {one.value: one for one in AuditEventType}
_DECISIONS: Final = frozenset({AuditEventType.DECISION_ALLOW, AuditEventType.DECISION_DENY})
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
FIELDS: Final = frozenset(_FORMS)
"""The names of the fields of an event."""


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
    found = _TYPE_OF.get(name)
    if found is None:
        msg = f"unknown event type `{name}`"
        hint = did_you_mean(name, AuditEventType)
        raise InputError(msg, code="audit.event_type", hint=hint or None)
    return found


@lru_cache(4096)
def _quoted(text: str) -> bytes:
    return canonical_json(text)
