import hashlib
import json

import pytest

from symbi.audit import event as event_module
from symbi.audit.event import (
    GENESIS_HASH,
    AuditEventType,
    Draft,
    Signing,
    key_rotated,
    parse_event,
    seal_event,
    trail_started,
)
from symbi.crypto.canonical import canonical_json
from symbi.crypto.provider import open_provider
from symbi.errors import ChainBroken, InputError
from symbi.testing.trail import build_trail, fixed_signing_key, sample_draft
from symbi.types import SYSTEM_AGENT, AgentId, EventId

KEY = fixed_signing_key()
TRAIL = build_trail(2)
FIELDS = {
    "schema_version", "sequence", "event_id", "timestamp", "agent_id", "run_id", "event_type", "details",
    "previous_hash", "key_id", "chain_hash", "signature",
}  # fmt: skip


def seal(draft=None, **changes):
    place = {
        "sequence": 2,
        "previous_hash": "ab" * 32,
        "event_id": EventId("01900000-0000-7000-9000-000000000002"),
        "timestamp": "2026-01-02T03:04:05.000000006Z",
        "key": KEY,
    }
    return seal_event(draft or sample_draft(1), **(place | changes))


def fields_of(stored):
    return json.loads(stored.record)


def record_with(**changes):
    """A record that is canonical and has other fields than it should."""
    fields = fields_of(TRAIL.events[1]) | changes
    return canonical_json({name: value for name, value in fields.items() if value is not ...})


def test_a_record_is_the_canonical_json_of_all_fields():
    event, stored = seal()
    fields = fields_of(stored)
    assert fields.keys() == FIELDS
    assert stored.record == canonical_json(fields)
    assert (stored.sequence, stored.chain_hash) == (fields["sequence"], fields["chain_hash"])
    assert {name: getattr(event, name) for name in FIELDS} == fields


def test_hash_and_signature_are_as_documented():
    _, stored = seal()
    fields = fields_of(stored)
    signature, chain_hash = bytes.fromhex(fields.pop("signature")), bytes.fromhex(fields.pop("chain_hash"))
    body = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    assert chain_hash == hashlib.sha256(b"symbi/chain/1\0" + b"\xab" * 32 + body).digest()
    verify = open_provider("libsodium").verifier(KEY.verifying_key().public)
    assert verify(signature, b"symbi/sign/1\0" + b"\x0b" + b"audit.event" + chain_hash)


def test_reading_a_record_gives_the_event_that_was_sealed():
    event, stored = seal(
        Draft("run.started", AgentId("a"), {"t": (1, 2.0, None), "x": 1e20, "e": AuditEventType.GATE_CANARY})
    )
    assert parse_event(stored.record) == event
    assert event.event_type is AuditEventType.RUN_STARTED
    assert event.details == {"t": [1, 2, None], "x": 1e20, "e": "gate.canary"}


def test_details_that_change_later_do_not_change_the_event():
    details = {"list": [1]}
    event, stored = seal(Draft(AuditEventType.RUN_STARTED, AgentId("a"), details))
    details["list"].append(2)
    assert event.details == {"list": [1]}
    assert parse_event(stored.record) == event


@pytest.mark.parametrize("event_type", AuditEventType)
def test_every_type_can_be_written_by_its_text_and_read(event_type):
    sequence = 1 if event_type is AuditEventType.TRAIL_STARTED else 2
    event, stored = seal(Draft(event_type.value, AgentId("a"), {}), sequence=sequence)
    assert parse_event(stored.record).event_type is event.event_type is event_type


def test_an_unknown_type_is_refused_with_a_hint():
    with pytest.raises(
        InputError, match=r"unknown event type `decision\.alow`; did you mean `decision\.allow`"
    ) as caught:
        seal(Draft("decision.alow", AgentId("a"), {}))
    assert caught.value.code == "audit.event_type"


@pytest.mark.parametrize(
    ("sequence", "event_type"), [(1, AuditEventType.RUN_STARTED), (2, AuditEventType.TRAIL_STARTED)]
)
def test_a_trail_begins_with_its_start_and_only_once(sequence, event_type):
    with pytest.raises(InputError) as caught:
        seal(Draft(event_type, AgentId("a"), {}), sequence=sequence)
    assert caught.value.code == "audit.first_event"


def test_details_that_cannot_be_represented_are_refused_with_their_place():
    with pytest.raises(InputError, match=r"`arguments\.amount` cannot stand") as caught:
        seal(Draft(AuditEventType.DECISION_ALLOW, AgentId("a"), {"arguments": {"amount": 2**60}}))
    assert caught.value.code == "canonical.unrepresentable"


def test_an_event_is_bounded(monkeypatch):
    _, stored = seal()
    monkeypatch.setattr(event_module, "MAX_RECORD_BYTES", len(stored.record) - 1)
    with pytest.raises(InputError, match="record a digest and a size instead"):
        seal()
    with pytest.raises(ChainBroken, match="at most"):
        parse_event(stored.record)


@pytest.mark.parametrize(
    "change",
    [
        {"timestamp": "2026-01-02T03:04:05Z"},
        {"timestamp": "2026-13-02T03:04:05.000000006Z"},
        {"event_id": EventId("")},
        {"previous_hash": "AB" * 32},
        {"sequence": 0},
        {"sequence": True},
        {"draft": Draft(AuditEventType.RUN_STARTED, AgentId(""), {})},
        {"draft": Draft(AuditEventType.RUN_STARTED, AgentId("a"), ["details"])},
    ],
)
def test_what_could_not_be_read_is_not_written(change):
    with pytest.raises(InputError):
        seal(**change)


def test_the_start_names_format_and_key():
    draft = trail_started(KEY.verifying_key())
    assert (draft.event_type, draft.agent_id) == (AuditEventType.TRAIL_STARTED, SYSTEM_AGENT)
    assert draft.details == {
        "format": 2, "signature_algorithm": "Ed25519", "public_key": KEY.verifying_key().hex, "signing": "event",
    }  # fmt: skip
    assert bytes(32).hex() == GENESIS_HASH == TRAIL.parsed[0].previous_hash


def test_in_batch_mode_an_event_has_no_signature_and_one_that_hands_over_has():
    _, stored = seal(signing=Signing.BATCH)
    assert fields_of(stored)["signature"] == ""
    handing_over = key_rotated(fixed_signing_key(2).verifying_key(), Signing.BATCH)
    fields = fields_of(seal(handing_over, signing=Signing.BATCH)[1])
    KEY.verifying_key().verify("audit.event", bytes.fromhex(fields["chain_hash"]), bytes.fromhex(fields["signature"]))


@pytest.mark.parametrize(
    "change",
    [
        {"extra": 1},
        {"details": ...},
        {"signature": ...},
        {"schema_version": 3},
        {"schema_version": True},
        {"schema_version": "1"},
        {"sequence": 0},
        {"sequence": -1},
        {"sequence": 1.5},
        {"sequence": True},
        {"sequence": "2"},
        {"sequence": 1e20},
        {"event_id": ""},
        {"event_id": None},
        {"timestamp": "2026-01-01 00:00:00.002000002Z"},
        {"timestamp": "2026-01-01T00:00:00.002000002+00:00"},
        {"timestamp": "2026-01-01T00:00:00.002Z"},
        {"timestamp": "2026-02-30T00:00:00.002000002Z"},
        {"timestamp": "2026-01-01T25:00:00.002000002Z"},
        {"timestamp": "2026-01-01T00:00:00.00200000٢Z"},
        {"timestamp": "2026-01-01T00:00:00.002000002Z\n"},
        {"timestamp": 1767225600},
        {"agent_id": ""},
        {"agent_id": ["a"]},
        {"run_id": None},
        {"event_type": "decision.perhaps"},
        {"event_type": ["decision.allow"]},
        {"details": []},
        {"details": None},
        {"previous_hash": "AB" * 32},
        {"previous_hash": "ab" * 31},
        {"previous_hash": "ab" * 32 + "\n"},
        {"key_id": "ab" * 7},
        {"key_id": "AB" * 8},
        {"chain_hash": ""},
        {"chain_hash": 7},
        {"signature": "ab" * 63},
        {"signature": "zz" * 64},
    ],
    ids=str,
)
def test_a_record_with_another_form_is_not_read(change):
    with pytest.raises(ChainBroken) as caught:
        parse_event(record_with(**change), sequence=2)
    assert caught.value.fields == {"sequence": 2, "reason": "fields"}


@pytest.mark.parametrize("record", [b"null", b"[]", b'"event"', b"1", b"{}"])
def test_json_that_is_no_event_is_not_read(record):
    with pytest.raises(ChainBroken) as caught:
        parse_event(record)
    assert caught.value.fields["reason"] == "fields"


@pytest.mark.parametrize(
    "alter",
    [
        lambda _: b"",
        lambda record: record[:-1],
        lambda record: record + b"\n",
        lambda record: record.replace(b'":"', b'": "', 1),
        lambda record: record.replace(b'{"agent_id"', b'{"agent_id":"x","agent_id"', 1),
        lambda record: json.dumps(dict(reversed(json.loads(record).items())), separators=(",", ":")).encode(),
        lambda record: record.replace("Zürich".encode(), b"Z\\u00fcrich"),
        lambda record: record.replace("Zürich".encode(), b"Z\xfcrich"),
        lambda record: record.replace(b'"sequence":2', b'"sequence":2.0'),
    ],
)
def test_a_record_that_is_not_canonical_is_not_read(alter):
    record = TRAIL.events[1].record
    assert alter(record) != record
    with pytest.raises(ChainBroken) as caught:
        parse_event(alter(record), sequence=2)
    assert caught.value.fields == {"sequence": 2, "reason": "canonical"}
