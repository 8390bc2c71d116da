"""What `verify_trail` refuses although every hash and signature is right, and what it says of each fault."""

import base64
import hashlib
import json
from dataclasses import replace

import pytest
from nacl.signing import VerifyKey

from symbi.audit.checkpoint import parse_note
from symbi.audit.event import FIELDS, AuditEventType, Draft
from symbi.audit.port import StoredEvent
from symbi.audit.verify import claims_of, verify_trail
from symbi.crypto.canonical import canonical_json
from symbi.crypto.merkle import node_hash
from symbi.crypto.provider import open_provider
from symbi.errors import ChainBroken
from symbi.testing.trail import (
    TrailBuilder,
    build_trail,
    checkpoint_over,
    fixed_signing_key,
    sample_draft,
    seal_fields,
    start_before,
)
from symbi.types import AgentId

PROVIDER = open_provider("libsodium")
KEY, SECOND, THIRD = (fixed_signing_key(number, PROVIDER) for number in (1, 2, 3))
TRAIL = build_trail(4, key=KEY)
BATCH = build_trail(4, key=KEY, signing="batch")
LONG = build_trail(40, key=KEY, every=7)
BOTH = {key.key_id: key.verifying_key() for key in (KEY, SECOND)}


def canonical(fields):
    return json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def resealed(changes_by_place, key=KEY, trail=TRAIL, *, signed=True):
    """The trail with some fields changed, then linked, hashed and signed anew from there on: well made and wrong."""
    events = []
    for place, stored in enumerate(trail.events, 1):
        fields = json.loads(stored.record)
        if events:
            fields["previous_hash"] = events[-1].chain_hash
        events.append(seal_fields(fields | changes_by_place.get(place, {}), key if signed else None))
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
    assert bytes.fromhex(report.root) == parse_note(TRAIL.head).checkpoint.root
    assert (report.checkpoints, report.witnessed) == (0, 0)


@pytest.mark.parametrize("trail", [TRAIL, BATCH], ids=["event", "batch"])
def test_a_trail_can_be_verified_from_its_documentation_alone(trail):
    """With the standard library and any Ed25519: what an auditor writes who does not trust this code."""
    public = VerifyKey(KEY.verifying_key().public)
    previous = bytes(32)
    leaves = []
    for place, stored in enumerate(trail.events, 1):
        fields = json.loads(stored.record)
        assert canonical(fields) == stored.record
        assert fields["sequence"] == place
        assert fields["previous_hash"] == previous.hex()
        signature, chain_hash = bytes.fromhex(fields.pop("signature")), bytes.fromhex(fields.pop("chain_hash"))
        assert hashlib.sha256(b"symbi/chain/1\0" + previous + canonical(fields)).digest() == chain_hash
        if trail is TRAIL:
            public.verify(b"symbi/sign/1\0" + b"\x0baudit.event" + chain_hash, signature)
        else:
            assert signature == b""
        previous = chain_hash
        leaves.append(hashlib.sha256(b"\0" + stored.record).digest())
    text, _, signatures = trail.head.decode().partition("\n\n")
    origin, size, root, chain, _ = text.split("\n")
    name, signature = signatures.removeprefix("\u2014 ").split()
    assert origin == name == "symbi.trail/01900000-0000-7000-9000-000000000001"
    assert (size, chain) == ("5", f"chain {previous.hex()}")
    four = node_hash(node_hash(*leaves[:2]), node_hash(*leaves[2:4]))
    assert base64.b64decode(root) == node_hash(four, leaves[4])
    public.verify(text.encode() + b"\n", base64.b64decode(signature)[4:])


def test_the_forger_of_these_tests_makes_good_trails():
    events = resealed({})
    assert events == list(TRAIL.events)
    changed = resealed({3: {"details": {"changed": True}}})
    assert verify_trail(changed, checkpoint_over(changed, KEY), TRAIL.keys).events == 5


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
    later = start_before(TRAIL.events, 1)
    assert broken(TRAIL.events[1:], TRAIL.head, {KEY.key_id: SECOND.verifying_key()}, start=later) == (2, "key")


SEALED = {"sequence", "previous_hash", "chain_hash", "signature"}  # what the sealing of these tests sets or needs
FIRST = {"format": 2, "public_key": KEY.verifying_key().hex, "signing": "event"}


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
        (1, {"details": FIRST | {"format": 3}}, "start"),
        (1, {"details": FIRST | {"format": 1}}, "start"),
        (1, {"details": FIRST | {"format": True}}, "start"),
        (1, {"details": FIRST | {"public_key": SECOND.verifying_key().hex}}, "start"),
        (1, {"details": FIRST | {"signing": "none"}}, "start"),
        (1, {"details": FIRST | {"signing": ["event"]}}, "start"),
        (1, {"details": {name: FIRST[name] for name in ("format", "public_key")}}, "start"),
        (3, {"event_type": "decision.maybe"}, "fields"),
        (3, {"schema_version": 3}, "fields"),
        (3, {"schema_version": 0}, "fields"),
        (3, {"schema_version": 1}, "version"),
        (3, {"extra": 1}, "fields"),
        (3, {"key_id": SECOND.key_id}, "key"),
        (3, {"key_id": "0" * 16}, "key"),
        (3, {"event_type": "key.rotated"}, "rotation"),
        (3, {"event_type": "key.rotated", "details": {"public_key": "00" * 32, "key_id": "66687aadf862bd77"}}, "rotation"),
        (3, {"event_type": "key.rotated", "details": {"public_key": KEY.verifying_key().hex, "key_id": KEY.key_id}}, "rotation"),
        (3, {"event_type": "key.rotated", "details": {"public_key": SECOND.verifying_key().hex, "key_id": KEY.key_id}}, "rotation"),
        (3, {"event_type": "signing.changed"}, "rotation"),
        (3, {"event_type": "signing.changed", "details": {"signing": "event"}}, "rotation"),
        (3, {"event_type": "signing.changed", "details": {"signing": {}}}, "rotation"),
    ],
)  # fmt: skip
def test_a_well_signed_event_that_breaks_the_rules_is_found(place, changes, reason):
    events = resealed({place: changes})
    assert broken(events, TRAIL.head) == (place, reason)


@pytest.mark.parametrize("field", sorted(FIELDS))
def test_what_is_taken_as_ordinary_is_what_each_step_would_take(monkeypatch, field):
    """The short way through ordinary events lets nothing pass that the long way would not."""
    values = (None, True, False, 0, 1, 2, 3, 3.0, "", "x", "AB" * 64, " " * 128, "\ud7ff", [], {}, {"a": 1.5}, "b" * 64, "c" * 16,
              "2026-01-01T00:00:00.003000003Z", "2026-01-01T24:00:00.000000000Z", "run.started", "key.rotated")  # fmt: skip
    verdicts = []
    for short in (True, False):
        if not short:
            monkeypatch.setattr("symbi.audit.piece._Walk._pass", lambda *_: False)
        told = []
        for trail, signed in ((TRAIL, True), (BATCH, False)):
            for value in values:
                fields = json.loads(trail.events[2].record)
                written = [seal_fields(fields | {field: value}, KEY if signed else None)] if field not in SEALED else []
                for stored in (*written, replace(trail.events[2], record=canonical_json(fields | {field: value}))):
                    events = (*trail.events[:2], stored, *trail.events[3:])
                    try:
                        told.append(verify_trail(events, trail.head, trail.keys).chain_hash)
                    except ChainBroken as error:
                        told.append((error.message, error.fields))
        verdicts.append(told)
    assert verdicts[0] == verdicts[1]


def test_an_event_signed_by_another_key_than_it_names_is_found():
    assert broken(resealed({}, SECOND), TRAIL.head) == (1, "signature")
    forged = seal_fields(json.loads(TRAIL.events[3].record), SECOND)
    assert broken([*TRAIL.events[:3], forged, TRAIL.events[4]], TRAIL.head, BOTH) == (4, "signature")


def test_a_signature_for_another_purpose_is_none():
    """The chain hash signed in another domain is not a signature of the event."""
    fields = json.loads(TRAIL.events[2].record)
    fields["signature"] = KEY.sign("audit.head", bytes.fromhex(fields["chain_hash"])).hex()
    events = [*TRAIL.events[:2], replace(TRAIL.events[2], record=canonical(fields)), *TRAIL.events[3:]]
    assert broken(events, TRAIL.head) == (3, "signature")


def test_events_at_the_same_time_are_in_order():
    time = TRAIL.parsed[0].timestamp
    events = resealed({place: {"timestamp": time} for place in range(1, 6)})
    assert verify_trail(events, checkpoint_over(events, KEY), TRAIL.keys).last_timestamp == time


# --- signing modes and rotation ------------------------------------------------------------------------------------------


def test_an_event_without_a_signature_is_refused_where_each_has_one():
    events = list(TRAIL.events)
    events[2] = seal_fields(json.loads(events[2].record), None)
    assert broken(events, checkpoint_over(events, KEY)) == (3, "signature")
    assert broken(resealed({}, signed=False), TRAIL.head) == (1, "signature")


def test_a_batch_signed_trail_is_covered_by_its_head():
    assert verify_trail(BATCH.events, BATCH.head, BATCH.keys).events == 5
    assert not any(event.signature for event in BATCH.parsed)
    assert broken(BATCH.events, checkpoint_over(BATCH.events, SECOND)) == (1, "key")
    changed = resealed({4: {"details": {"changed": True}}}, trail=BATCH, signed=False)
    assert broken(changed, BATCH.head) == (1, "head")
    assert broken(changed, checkpoint_over(changed, SECOND)) == (1, "key")


def test_what_was_written_anew_is_named_as_near_as_the_checkpoints_tell():
    trail = build_trail(40, key=KEY, signing="batch", every=7)
    changed = resealed({20: {"details": {"changed": True}}}, trail=trail, signed=False)
    with pytest.raises(ChainBroken, match="one of the events 15 to 21") as caught:
        verify_trail(changed, trail.head, trail.keys, claims=claims_of(trail.checkpoints))
    assert caught.value.fields == {"sequence": 15, "reason": "checkpoint"}


def test_a_signature_that_a_batch_signed_event_has_all_the_same_is_checked():
    events = list(BATCH.events)
    fields = json.loads(events[2].record)
    events[2] = seal_fields(fields, KEY)
    assert verify_trail(events, checkpoint_over(events, KEY), BATCH.keys).events == 5
    events[2] = seal_fields(fields, SECOND)
    assert broken(events, checkpoint_over(events, KEY)) == (3, "signature")


def test_modes_and_keys_change_by_events_of_the_trail():
    changes = {3: SECOND, 6: "batch", 9: THIRD, 12: "event"}
    trail = build_trail(15, key=KEY, changes=changes, every=2)
    report = verify_trail(trail.events, trail.head, trail.keys, claims=claims_of(trail.checkpoints))
    assert report.key_ids == (KEY.key_id, SECOND.key_id, THIRD.key_id)
    assert report.checkpoints == report.events // 2
    unsigned = [event.sequence for event in trail.parsed if not event.signature]
    rotated = [event.sequence for event in trail.parsed if event.event_type is AuditEventType.KEY_ROTATED]
    assert rotated == [5, 13]
    assert unsigned == [10, 11, 12, 14, 15, 16, 17]


def test_a_rotation_has_a_signature_in_either_mode():
    """Else anybody could hand a batch-signed trail over to a key of his own."""
    builder = TrailBuilder(KEY, signing="batch")
    events = [builder.start()]
    rotated = builder.rotate(SECOND)
    events.append(seal_fields(json.loads(rotated.record), None))
    assert broken(events, checkpoint_over(events, SECOND)) == (2, "signature")
    assert broken(events, checkpoint_over(events, KEY)) == (2, "signature")


def test_after_a_rotation_the_key_before_is_trusted_no_more():
    builder = TrailBuilder(KEY)
    events = [builder.start(), builder.rotate(SECOND), builder.add(sample_draft(1))]
    assert verify_trail(events, builder.checkpoint(), TRAIL.keys).key_ids == (KEY.key_id, SECOND.key_id)
    fields = json.loads(events[2].record)
    forged = [*events[:2], seal_fields(fields | {"key_id": KEY.key_id}, KEY)]
    for keys in (TRAIL.keys, BOTH):
        assert broken(forged, checkpoint_over(forged, KEY), keys) == (3, "key")
        assert broken(events, checkpoint_over(events, KEY), keys) == (3, "key")


def test_a_key_that_no_event_hands_over_to_is_refused_though_it_is_trusted():
    events = resealed({})[:3]
    fields = json.loads(TRAIL.events[3].record)
    events.append(seal_fields(fields | {"key_id": SECOND.key_id}, SECOND))
    assert broken(events, checkpoint_over(events, SECOND), BOTH) == (4, "key")


def test_a_trail_of_the_schema_before_goes_on_in_this_one_and_not_back():
    builder = TrailBuilder(KEY, version=1)
    events = [builder.start(), builder.add(sample_draft(1))]
    builder.version = 2
    events.append(builder.add(sample_draft(2)))
    assert verify_trail(events, builder.checkpoint(), TRAIL.keys).events == 3
    builder.version = 1
    events.append(builder.add(sample_draft(3)))
    assert broken(events, builder.checkpoint()) == (4, "version")


# --- checkpoints, the head, witnesses -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"size": 4}, 5),
        ({"size": 6}, 6),
        ({"size": 2**53 - 1}, 6),
        ({"size": 1}, 2),
        ({"chain_hash": "ab" * 32}, 5),
        ({"root": bytes(32)}, 5),
        ({"timestamp": "2026-01-02T00:00:00.000000000Z"}, 5),
        ({"origin": "symbi.trail/other"}, 5),
    ],
)
def test_a_well_signed_head_that_says_something_else_is_found(changes, place):
    found = broken(TRAIL.events, checkpoint_over(TRAIL.events, KEY, **changes))
    # A head of fewer events is bad in itself where it stands, before what lies beyond it.
    assert found in {(place, "head"), (changes.get("size"), "head")}


def test_events_beyond_the_head_are_not_covered_by_it():
    for size in range(1, 5):
        assert broken(TRAIL.events, checkpoint_over(TRAIL.events[:size], KEY)) == (size + 1, "head")


def test_kept_checkpoints_are_held_against_the_events():
    claims = claims_of(LONG.checkpoints)
    report = verify_trail(LONG.events, LONG.head, LONG.keys, claims=claims)
    assert (report.events, report.checkpoints) == (41, 5)


@pytest.mark.parametrize("index", range(5))
@pytest.mark.parametrize(
    ("altered", "reason"),
    [
        (lambda _: b"", "checkpoint"),
        (lambda _: LONG.head, "checkpoint"),
        (lambda at: checkpoint_over(LONG.events[:at], SECOND), "key"),
        (lambda at: checkpoint_over(LONG.events[:at], KEY, root=bytes(32)), "checkpoint"),
        (lambda at: checkpoint_over(LONG.events[:at], KEY, chain_hash="ab" * 32), "checkpoint"),
        (lambda at: checkpoint_over(LONG.events[:at], KEY, timestamp=LONG.parsed[-1].timestamp), "checkpoint"),
        (lambda at: checkpoint_over(LONG.events[:at], KEY, origin="symbi.trail/x"), "checkpoint"),
        (lambda at: checkpoint_over(LONG.events[:at], KEY)[:-4] + b"AA=\n", "signature"),
    ],
)
def test_a_kept_checkpoint_that_does_not_fit_is_found_where_it_stands(index, altered, reason):
    checkpoints = list(LONG.checkpoints)
    size = checkpoints[index][0]
    checkpoints[index] = (size, altered(size))
    found = broken(LONG.events, LONG.head, LONG.keys, claims=claims_of(checkpoints))
    assert found in {(size, reason), (size, "checkpoint")}


def test_checkpoints_out_of_their_order_or_place_are_found():
    first, second, *_ = LONG.checkpoints
    assert broken(LONG.events, LONG.head, claims=claims_of([second, first])) == (15, "checkpoint")
    assert broken(LONG.events[:10], checkpoint_over(LONG.events[:10], KEY), claims=claims_of([second])) == (
        11,
        "checkpoint",
    )
    start = start_before(LONG.events, 10)
    assert broken(LONG.events[10:], LONG.head, start=start, claims=claims_of([first])) == (11, "checkpoint")


def seen(*notes):
    return claims_of(LONG.checkpoints, [parse_note(note) for note in notes])


def test_a_witness_that_saw_the_same_agrees():
    report = verify_trail(LONG.events, LONG.head, LONG.keys, claims=seen(LONG.checkpoints[1][1]))
    assert report.witnessed == 14
    assert (
        verify_trail(LONG.events, LONG.head, LONG.keys, claims=seen(LONG.head, LONG.checkpoints[1][1])).witnessed == 41
    )


def test_a_witness_finds_a_store_that_was_put_back():
    earlier = LONG.events[:20]
    head = checkpoint_over(earlier, KEY)
    kept = LONG.checkpoints[:2]
    assert verify_trail(earlier, head, LONG.keys, claims=claims_of(kept)).events == 20
    claims = claims_of(kept, [parse_note(LONG.checkpoints[4][1])])
    with pytest.raises(ChainBroken, match="a witness has seen event 35, and it ends with event 20") as caught:
        verify_trail(earlier, head, LONG.keys, claims=claims)
    assert caught.value.fields == {"sequence": 21, "reason": "witness"}


def test_a_witness_finds_a_history_that_the_holder_of_the_key_wrote_anew():
    events = resealed({18: {"details": {"changed": True}}}, trail=LONG)
    kept = [(size, checkpoint_over(events[:size], KEY)) for size, _ in LONG.checkpoints]
    head = checkpoint_over(events, KEY)
    assert verify_trail(events, head, LONG.keys, claims=claims_of(kept)).events == 41
    saw = [parse_note(LONG.checkpoints[index][1]) for index in (0, 1, 2)]
    with pytest.raises(ChainBroken, match="one of the events 15 to 21") as caught:
        verify_trail(events, head, LONG.keys, claims=claims_of(kept, saw))
    assert caught.value.fields == {"sequence": 15, "reason": "witness"}


def test_what_a_witness_saw_of_another_trail_is_no_comfort():
    other = parse_note(checkpoint_over(LONG.events[:7], KEY, origin="symbi.trail/other"))
    assert broken(LONG.events, LONG.head, claims=claims_of((), [other])) == (1, "witness")
    unsigned = parse_note(checkpoint_over(LONG.events[:7], SECOND))
    assert broken(LONG.events, LONG.head, claims=claims_of((), [unsigned]))[1] == "key"


@pytest.mark.parametrize("provider", ["openssl", "libsodium"])
def test_both_providers_verify_what_either_wrote(provider):
    key = fixed_signing_key(1, open_provider(provider))
    trail = build_trail(4, key=key)
    assert trail.events == TRAIL.events
    assert trail.head == TRAIL.head
    assert verify_trail(TRAIL.events, TRAIL.head, trail.keys).events == 5


def test_unusual_details_survive():
    details = {"": {"\U0001f600": [None, True, 1.5, 1e30, 5e-324]}, "\ufb33": "\x00\u2028\uffff", "n": -(2**53 - 1)}
    agent = AgentId('"ägent\\",\\"chain_hash\\":\\"' + "a" * 64)
    trail = build_trail([Draft(AuditEventType.CONFIG_RECORDED, agent, details), sample_draft(1)], key=KEY)
    assert verify_trail(trail.events, trail.head, trail.keys).events == 3
    assert trail.parsed[1].details == details
    records = [event.record for event in trail.events]
    assert verify_trail(records, trail.head, trail.keys).events == 3
    assert isinstance(trail.events[0], StoredEvent)
