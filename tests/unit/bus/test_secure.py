import json
from pathlib import Path

import msgspec
import pytest

from symbi.bus.secure import SecureMessage
from symbi.errors import MessageRefused

MESSAGES = json.loads((Path(__file__).parents[2] / "vectors/bus/messages.json").read_text("utf-8"))["messages"]


@pytest.mark.parametrize("case", MESSAGES, ids=lambda case: case["name"])
def test_what_anybody_can_see_is_all_but_the_payload(case):
    wire = bytes.fromhex(case["wire"])
    seen = SecureMessage.from_bytes(wire)
    assert seen.to_bytes() == wire
    assert (seen.id, seen.sender, seen.recipient, seen.topic) == (
        case["message_id"],
        case["sender"],
        case.get("recipient"),
        case.get("topic"),
    )
    assert (seen.timestamp_ns, seen.expires_ns, seen.trace) == (
        case["timestamp_ns"],
        case["expires_ns"],
        case["trace"],
    )
    assert (seen.epoch, seen.sequence, seen.content_type) == (case["epoch"], case["sequence"], case["content_type"])
    assert seen.timestamp == "2026-01-01T00:00:00.000000000Z"
    assert len(seen.encrypted_payload) == len(case["payload"]) // 2 + 16
    assert len(seen.signature) == 64 or seen.batched


@pytest.mark.parametrize("wire", [b"", b"SyMb", bytes.fromhex(MESSAGES[0]["wire"])[:-1]])
def test_what_is_no_message_is_refused(wire):
    with pytest.raises(MessageRefused):
        SecureMessage.from_bytes(wire)


@pytest.mark.parametrize(
    "fields",
    [
        {"recipient": None},
        {"topic": "orders"},
        {"id": "x"},
        {"sender": ""},
        {"key_id": "0011"},
        {"key_id": "00" * 9},
        {"key_id": "F4117910B3CCC0DF"},
        {"key_id": "no key id"},
        {"epoch": 0},
        {"epoch": -1},
        {"sequence": 0},
        {"sequence": -1},
        {"sequence": 2**64},
        {"timestamp_ns": 0},
        {"expires_ns": 1},
        {"encrypted_payload": b"short"},
        {"signature": bytes(63)},
        {"batched": True},
        {"trace": "x"},
    ],
    ids=str,
)
def test_fields_that_are_none_of_a_message_are_not_written(fields):
    seen = SecureMessage.from_bytes(bytes.fromhex(MESSAGES[0]["wire"]))
    with pytest.raises(MessageRefused) as caught:
        msgspec.structs.replace(seen, **fields).to_bytes()
    assert caught.value.code == "message.malformed"
