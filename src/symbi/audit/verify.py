"""Verifying a trail: values in, a report or `ChainBroken` out.

Of the writer it shares only the field forms of `event`, canonical JSON and the primitives of `crypto`. Keys come from
outside: a public key that stands in the trail proves nothing. For each event, in order:

1. the record is canonical JSON with exactly the fields of an event, each of its form;
2. the sequence number is the next one, and the store's column says the same;
3. `trail.started` stands first, names the format and the key that signed it, and stands nowhere else;
4. the previous hash is the chain hash of the event before it;
5. the chain hash is that of the body in this place, and the store's column says the same;
6. the signature over the chain hash is by a trusted key;
7. the time is not before that of the event before it.

Then the head is there, is canonical, is signed by the key of the last event, and says what the last event says. What
this cannot show is a whole store that was put back to an earlier state, which was a true one: only a head that is
kept elsewhere shows that.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Never

from symbi.audit.checkpoint import parse_note, verify_note
from symbi.audit.event import (
    EVENT_DOMAIN,
    GENESIS_HASH,
    READABLE_VERSIONS,
    AuditEvent,
    AuditEventType,
    Signing,
    parse_event,
)
from symbi.audit.port import StoredEvent
from symbi.crypto.canonical import canonical_json
from symbi.crypto.chain import link
from symbi.crypto.merkle import Frontier, leaf_hash
from symbi.crypto.provider import open_provider
from symbi.crypto.signing import VerifyingKey
from symbi.errors import ChainBroken, SignatureInvalid
from symbi.types import JsonValue, KeyId


@dataclass(frozen=True, slots=True)
class TrailReport:
    """What a verified trail, or stretch of it, holds.

    Attributes:
        events: How many events.
        first: Sequence number of the first.
        last: Sequence number of the last.
        first_timestamp: RFC 3339 time of the first.
        last_timestamp: RFC 3339 time of the last.
        chain_hash: Hex, of the last; commits to the whole trail.
        key_ids: The keys that signed it, in order of appearance.
    """

    events: int
    first: int
    last: int
    first_timestamp: str
    last_timestamp: str
    chain_hash: str
    key_ids: tuple[KeyId, ...]


def verify_trail(
    events: Iterable[StoredEvent],
    head: bytes | None,
    keys: Mapping[KeyId, VerifyingKey],
    *,
    expect_first: int = 1,
) -> TrailReport:
    """Return if the trail is whole, unaltered, and signed by trusted keys.

    Args:
        events: In the order of the store.
        head: The signed head, or None where the store has none.
        keys: The trusted keys by id.
        expect_first: Sequence number that the events begin with. Where it is not 1, the link of the first event to
            the one before it cannot be checked.

    Raises:
        ChainBroken: It is not. `fields["sequence"]` is the place of the first bad event, and `fields["reason"]` one of
            `canonical`, `fields`, `sequence`, `start`, `link`, `hash`, `key`, `signature`, `time`, `column`, `empty`,
            `head`.
    """
    first: AuditEvent | None = None
    last: AuditEvent | None = None
    key_ids: dict[KeyId, None] = {}
    rules, tree = _Rules(dict(keys)), Frontier()
    for place, stored in enumerate(events, expect_first):
        last = _check_event(stored, place, last, rules)
        first = first or last
        key_ids[last.key_id] = None
        tree.append(leaf_hash(stored.record))
    if first is None or last is None:
        _broken(
            expect_first,
            "empty",
            "the trail has no events" + ("" if head is None else ", and its head says that it has"),
        )
    if head is None:
        _broken(last.sequence, "head", "the trail has no signed head, so that nobody can tell where it ends")
    _check_head(head, last, rules, tree.root() if expect_first == 1 else None)
    return TrailReport(
        events=last.sequence - first.sequence + 1,
        first=first.sequence,
        last=last.sequence,
        first_timestamp=first.timestamp,
        last_timestamp=last.timestamp,
        chain_hash=last.chain_hash,
        key_ids=tuple(key_ids),
    )


@dataclass(slots=True)
class _Rules:
    """What holds from here on: the trusted keys, the key in force, and the mode of signing."""

    keys: dict[KeyId, VerifyingKey]
    key_id: KeyId | None = None
    signing: Signing | None = None

    def follow(self, event: AuditEvent) -> None:
        """Take in what an event changes for those after it."""
        details = event.details
        if event.event_type in {AuditEventType.TRAIL_STARTED, AuditEventType.SIGNING_CHANGED}:
            self.signing = Signing(str(details.get("signing", Signing.EVENT)))
        self.key_id = event.key_id
        if event.event_type is AuditEventType.KEY_ROTATED:
            self.key_id = KeyId(str(details["key_id"]))
            trusted = self.keys.get(event.key_id)
            if trusted is not None:
                self.keys[self.key_id] = VerifyingKey.from_hex(
                    str(details["public_key"]), open_provider(trusted.provider_name)
                )


def _check_event(stored: StoredEvent, place: int, before: AuditEvent | None, rules: _Rules) -> AuditEvent:
    # 1 canonical form and fields
    event = parse_event(stored.record, sequence=place)
    # 2 sequence
    if event.sequence != place:
        _broken(place, "sequence", f"event {place} is missing: event {event.sequence} stands in its place")
    if stored.sequence != place:
        _broken(place, "column", f"the store keeps event {place} as event {stored.sequence}")
    # 3 beginning
    _check_start(event, place, rules.keys)
    # 4 link
    expected = before.chain_hash if before is not None else (GENESIS_HASH if place == 1 else event.previous_hash)
    if event.previous_hash != expected:
        _broken(place, "link", f"event {place} does not follow the event before it")
    # 5 chain hash
    chain_hash = link(bytes.fromhex(event.previous_hash), canonical_json(_body(event)))
    if event.chain_hash != chain_hash.hex():
        _broken(place, "hash", f"event {place} was altered: its hash is of something else")
    if stored.chain_hash != event.chain_hash:
        _broken(place, "column", f"the store keeps another hash beside event {place}")
    # 6 signature
    if rules.key_id not in {None, event.key_id}:
        _broken(place, "key", f"event {place} names key `{event.key_id}`, and `{rules.key_id}` is in force")
    if event.signature or rules.signing is not Signing.BATCH or event.event_type is AuditEventType.KEY_ROTATED:
        _check_signature(rules.keys, event, chain_hash)
    rules.follow(event)
    # 7 time; the texts have a fixed width in UTC, so they sort as times do
    if before is not None and event.timestamp < before.timestamp:
        _broken(place, "time", f"event {place} is dated before the event before it")
    return event


def _body(event: AuditEvent) -> dict[str, JsonValue]:
    """What the chain hash covers: every field but the hash itself and the signature over it."""
    return {
        "schema_version": event.schema_version,
        "sequence": event.sequence,
        "event_id": event.event_id,
        "timestamp": event.timestamp,
        "agent_id": event.agent_id,
        "run_id": event.run_id,
        "event_type": event.event_type.value,
        "details": event.details,
        "previous_hash": event.previous_hash,
        "key_id": event.key_id,
    }


def _check_start(event: AuditEvent, place: int, keys: Mapping[KeyId, VerifyingKey]) -> None:
    starts = event.event_type is AuditEventType.TRAIL_STARTED
    if starts is not (place == 1):
        _broken(place, "start", f"event {place} is `{event.event_type}`; a trail starts once, with its first event")
    if not starts:
        return
    if event.details.get("format") not in READABLE_VERSIONS:
        _broken(place, "start", "the trail is of a format that is not read here")
    key = keys.get(event.key_id)
    if key is not None and event.details.get("public_key") != key.hex:
        _broken(place, "start", "the trail says that it was started with another key than the one that signed it")


def _check_head(head: bytes, last: AuditEvent, rules: _Rules, root: bytes | None) -> None:
    place = last.sequence
    note = parse_note(head)
    found = note.checkpoint
    if found.size != place:
        _broken(
            min(place, found.size) + 1,
            "head",
            f"the head says that the trail ends with event {found.size}, and it ends with event {place}",
        )
    for name in ("chain_hash", "timestamp"):
        if getattr(found, name) != getattr(last, name):
            _broken(place, "head", f"`{name}` of the head is not that of the last event")
    key = rules.keys.get(last.key_id)
    if key is None:
        _broken(place, "key", f"the head is signed by key `{last.key_id}`, which is not trusted here")
    verify_note(note, key)
    if root is not None and found.root != root:
        _broken(place, "head", "the head was signed over other events")


def _check_signature(keys: Mapping[KeyId, VerifyingKey], event: AuditEvent, chain_hash: bytes) -> None:
    place = event.sequence
    key = keys.get(event.key_id)
    if key is None or key.key_id != event.key_id:
        _broken(place, "key", f"event {place} is signed by key `{event.key_id}`, which is not trusted here")
    try:
        key.verify(EVENT_DOMAIN, chain_hash, bytes.fromhex(event.signature))
    except SignatureInvalid as error:
        msg = f"the signature of event {place} is wrong"
        raise ChainBroken(msg, sequence=place, reason="signature") from error


def _broken(sequence: int, reason: str, message: str) -> Never:
    raise ChainBroken(message, sequence=sequence, reason=reason)
