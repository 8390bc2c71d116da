"""What `verify_trail` refuses although every hash and signature is right, and what it says of each fault."""

import hashlib
import json
from dataclasses import replace

import pytest
from nacl.signing import VerifyKey

from symbi.audit.event import AuditEventType, Draft, seal_head
from symbi.audit.port import StoredEvent
from symbi.audit.verify import verify_head, verify_trail
from symbi.crypto.provider import open_provider
from symbi.errors import ChainBroken
from symbi.testing.trail import build_trail, fixed_signing_key, sample_draft
from symbi.types import AgentId

KEY = fixed_signing_key(1)
SECOND = fixed_signing_key(2)
TRAIL = build_trail(4)
BOTH = {key.key_id: key.verifying_key() for key in (KEY, SECOND)}


def canonical(fields):
    return json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def sign(fields, key=KEY):
    """Hash and sign fields as a writer that follows other rules would."""
    body = {name: value for name, value in fields.items() if name not in {"chain_hash", "signature"}}
    chain_hash = hashlib.sha256(b"symbi/chain/1\0" + bytes.fromhex(fields["previous_hash"]) + canonical(body)).digest()
    record = canonical(body | {"chain_hash": chain_hash.hex(), "signature": key.sign("audit.event", chain_hash).hex()})
    return StoredEvent(fields["sequence"], record, chain_hash.hex())


def head_of(stored, key=KEY, **changes):
    fields = json.loads(stored.record)
    values = {name: fields[name] for name in ("sequence", "chain_hash", "timestamp")} | changes
    return seal_head(**values, key=key)


def resigned(changes_by_place, key=KEY):
    """The trail with some fields changed, then linked, hashed and signed anew from there on: well made and wrong."""
    events = []
    for place, stored in enumerate(TRAIL.events, 1):
        fields = json.loads(stored.record)
        if events:
            fields["previous_hash"] = events[-1].chain_hash
        events.append(sign(fields | changes_by_place.get(place, {}), key))
    return events


def broken(events, head, keys=TRAIL.keys, **options):
    with pytest.raises(ChainBroken) as caught:
        verify_trail(events, head, keys, **options)
    return caught.value.fields["sequence"], caught.value.fields["reason"]


def test_a_whole_trail_is_reported():
    report = verify_trail(TRAIL.events, TRAIL.head, TRAIL.keys)
    assert (report.events, report.first, report.last) == (5, 1, 5)
    assert (report.first_timestamp, report.last_timestamp) == (TRAIL.parsed[0].timestamp, TRAIL.parsed[-1].timestamp)
    assert report.chain_hash == TRAIL.parsed[-1].chain_hash
    assert report.key_ids == (KEY.key_id,)


def test_a_trail_can_be_verified_from_its_documentation_alone():
    """With the standard library and any Ed25519: what an auditor writes who does not trust this code."""
    public = VerifyKey(KEY.verifying_key().public)
    previous = bytes(32)
    for place, stored in enumerate(TRAIL.events, 1):
        fields = json.loads(stored.record)
        assert canonical(fields) == stored.record
        assert fields["sequence"] == place
        assert fields["previous_hash"] == previous.hex()
        signature, chain_hash = bytes.fromhex(fields.pop("signature")), bytes.fromhex(fields.pop("chain_hash"))
        assert hashlib.sha256(b"symbi/chain/1\0" + previous + canonical(fields)).digest() == chain_hash
        public.verify(b"symbi/sign/1\0" + b"\x0baudit.event" + chain_hash, signature)
        previous = chain_hash
    head = json.loads(TRAIL.head)
    signature = bytes.fromhex(head.pop("signature"))
    public.verify(b"symbi/sign/1\0" + b"\x0aaudit.head" + canonical(head), signature)
    assert (head["sequence"], head["chain_hash"]) == (len(TRAIL.events), previous.hex())


def test_the_forger_of_these_tests_makes_good_trails():
    events = resigned({})
    assert events == list(TRAIL.events)
    changed = resigned({3: {"details": {"changed": True}}})
    assert verify_trail(changed, head_of(changed[-1]), TRAIL.keys).events == 5


def test_an_empty_trail_is_never_verified():
    assert broken([], None) == (1, "empty")
    assert broken([], TRAIL.head) == (1, "empty")
    assert broken(iter(()), b"") == (1, "empty")


def test_a_trail_without_a_head_is_broken():
    assert broken(TRAIL.events, None) == (5, "head")


def test_without_trusted_keys_nothing_is_verified():
    assert broken(TRAIL.events, TRAIL.head, {}) == (1, "key")
    assert broken(TRAIL.events, TRAIL.head, {SECOND.key_id: SECOND.verifying_key()}) == (1, "key")
    assert broken(TRAIL.events, TRAIL.head, {KEY.key_id: SECOND.verifying_key()}) == (1, "start")
    assert broken(TRAIL.events[1:], TRAIL.head, {KEY.key_id: SECOND.verifying_key()}, expect_first=2) == (2, "key")


@pytest.mark.parametrize(
    ("place", "changes", "reason"),
    [
        (1, {"previous_hash": "ab" * 32}, "link"),
        (3, {"previous_hash": "ab" * 32}, "link"),
        (3, {"previous_hash": TRAIL.parsed[0].chain_hash}, "link"),
        (3, {"sequence": 4}, "sequence"),
        (3, {"sequence": 2}, "sequence"),
        (3, {"timestamp": "2025-12-31T23:59:59.999999999Z"}, "time"),
        (1, {"event_type": "run.started"}, "start"),
        (4, {"event_type": "trail.started"}, "start"),
        (1, {"details": {}}, "start"),
        (1, {"details": {"format": 2, "public_key": KEY.verifying_key().hex}}, "start"),
        (1, {"details": {"format": 1, "public_key": SECOND.verifying_key().hex}}, "start"),
        (1, {"details": {"format": 1}}, "start"),
        (3, {"event_type": "decision.maybe"}, "fields"),
        (3, {"schema_version": 2}, "fields"),
        (3, {"extra": 1}, "fields"),
        (3, {"key_id": SECOND.key_id}, "key"),
        (3, {"key_id": "0" * 16}, "key"),
    ],
)
def test_a_well_signed_event_that_breaks_the_rules_is_found(place, changes, reason):
    events = resigned({place: changes})
    assert broken(events, head_of(events[-1])) == (place, reason)


def test_an_event_signed_by_another_key_than_it_names_is_found():
    assert broken(resigned({}, SECOND), TRAIL.head) == (1, "signature")
    forged = sign(json.loads(TRAIL.events[3].record), SECOND)
    assert broken([*TRAIL.events[:3], forged, TRAIL.events[4]], TRAIL.head, BOTH) == (4, "signature")


def test_a_signature_for_another_purpose_is_none():
    """The chain hash signed as if it were a head is not a signature of the event."""
    fields = json.loads(TRAIL.events[2].record)
    fields["signature"] = KEY.sign("audit.head", bytes.fromhex(fields["chain_hash"])).hex()
    events = [*TRAIL.events[:2], replace(TRAIL.events[2], record=canonical(fields)), *TRAIL.events[3:]]
    assert broken(events, TRAIL.head) == (3, "signature")


def test_events_at_the_same_time_are_in_order():
    time = TRAIL.parsed[0].timestamp
    events = resigned({place: {"timestamp": time} for place in range(1, 6)})
    assert verify_trail(events, head_of(events[-1]), TRAIL.keys).last_timestamp == time


def test_a_trail_may_go_on_with_another_trusted_key():
    changed = {place: {"key_id": SECOND.key_id} for place in (4, 5)}
    events = resigned({})[:3]
    for place in (4, 5):
        fields = json.loads(TRAIL.events[place - 1].record)
        events.append(sign(fields | changed[place] | {"previous_hash": events[-1].chain_hash}, SECOND))
    head = head_of(events[-1], SECOND)
    assert verify_trail(events, head, BOTH).key_ids == (KEY.key_id, SECOND.key_id)
    assert broken(events, head) == (4, "key")
    assert broken(events, head_of(events[-1], KEY), BOTH) == (5, "head")


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"sequence": 4}, 5),
        ({"sequence": 6}, 6),
        ({"sequence": 2**53 - 1}, 6),
        ({"sequence": 1}, 2),
        ({"chain_hash": "ab" * 32}, 5),
        ({"timestamp": "2026-01-02T00:00:00.000000000Z"}, 5),
    ],
)
def test_a_well_signed_head_that_says_something_else_is_found(changes, place):
    assert broken(TRAIL.events, head_of(TRAIL.events[-1], **changes)) == (place, "head")


@pytest.mark.parametrize("change", [{"extra": 1}, {"schema_version": 2}, {"sequence": "5"}, {"signature": "ab" * 64}])
def test_a_head_of_another_form_is_found(change):
    head = canonical(json.loads(TRAIL.head) | change)
    assert broken(TRAIL.events, head) == (5, "signature" if "signature" in change else "head")


def test_a_stretch_of_a_trail_is_verified_from_its_first_number_on():
    report = verify_trail(TRAIL.events[2:], TRAIL.head, TRAIL.keys, expect_first=3)
    assert (report.events, report.first, report.last) == (3, 3, 5)
    assert broken(TRAIL.events[2:], TRAIL.head, expect_first=2) == (2, "sequence")
    assert broken(TRAIL.events[3:], TRAIL.head, expect_first=3) == (3, "sequence")


def test_verify_head_takes_the_last_event_and_no_other():
    verify_head(TRAIL.head, TRAIL.events[-1], TRAIL.keys)
    for stored in TRAIL.events[:-1]:
        with pytest.raises(ChainBroken):
            verify_head(TRAIL.head, stored, TRAIL.keys)
    alone = build_trail(0)
    verify_head(alone.head, alone.events[0], alone.keys)


def test_verify_head_finds_an_altered_last_event():
    fields = json.loads(TRAIL.events[-1].record) | {"agent_id": "other"}
    with pytest.raises(ChainBroken) as caught:
        verify_head(TRAIL.head, replace(TRAIL.events[-1], record=canonical(fields)), TRAIL.keys)
    assert caught.value.fields == {"sequence": 5, "reason": "hash"}
    with pytest.raises(ChainBroken):
        verify_head(TRAIL.head, replace(TRAIL.events[-1], sequence=4), TRAIL.keys)


@pytest.mark.parametrize("provider", ["openssl", "libsodium"])
def test_both_providers_verify_what_either_wrote(provider):
    key = fixed_signing_key(1, open_provider(provider))
    trail = build_trail(4, key=key)
    assert trail.events == TRAIL.events
    assert trail.head == TRAIL.head
    assert verify_trail(TRAIL.events, TRAIL.head, trail.keys).events == 5


def test_unusual_details_survive():
    details = {"": {"\U0001f600": [None, True, 1.5, 1e30, 5e-324]}, "\ufb33": "\x00\u2028\uffff", "n": -(2**53 - 1)}
    trail = build_trail([Draft(AuditEventType.CONFIG_RECORDED, AgentId("ägent"), details), sample_draft(1)])
    assert verify_trail(trail.events, trail.head, trail.keys).events == 3
    assert trail.parsed[1].details == details
