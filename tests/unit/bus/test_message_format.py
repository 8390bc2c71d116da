"""The published vectors, read by a reader that has nothing of the package: docs/reference/message-format.md in code."""

import hashlib
import json
import re
import uuid
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from symbi.bus.codec import Opened, Outgoing
from symbi.bus.envelope import Address
from symbi.testing.bus import Correspondence

VECTORS = json.loads((Path(__file__).parents[2] / "vectors/bus/messages.json").read_text("utf-8"))
MESSAGES = VECTORS["messages"]


def number(data):
    return int.from_bytes(data, "big")


def framed(name):
    return len(name).to_bytes(2, "big") + name.encode()


def derived(secret, info):
    return HKDF(hashes.SHA256(), 32, salt=None, info=info).derive(secret)


def signing_key(agent):
    return Ed25519PrivateKey.from_private_bytes(bytes.fromhex(VECTORS["agents"][agent]["signing"]))


def agreement_key(agent):
    return X25519PrivateKey.from_private_bytes(bytes.fromhex(VECTORS["agents"][agent]["agreement"]))


def verify(agent, domain, text, signature):
    prefix = b"symbi/sign/1\0" + bytes([len(domain)]) + domain.encode()
    signing_key(agent).public_key().verify(signature, prefix + text)


def sealing_key(sender, address, epoch, *, is_topic):
    counted = epoch.to_bytes(4, "big")
    if is_topic:
        group = bytes.fromhex(VECTORS["groups"][address][str(epoch)])
        return derived(group, b"symbi/bus/topic/1\0" + framed(address) + framed(sender) + counted)
    mine, other = agreement_key(address), agreement_key(sender).public_key()
    publics = other.public_bytes_raw() + mine.public_key().public_bytes_raw()
    return derived(mine.exchange(other), b"symbi/bus/pair/1\0" + framed(sender) + framed(address) + counted + publics)


def read(wire):
    """All that stands in a message, after it was verified and opened."""
    assert wire[:5] == b"SyMb\x01"
    flags = wire[5]
    assert flags < 8
    epoch, key_id = number(wire[9:13]), wire[13:21]
    names, at = [], 21
    for length in wire[6:9]:
        names.append(wire[at : at + length].decode("ascii"))
        at += length
    sender, address, content_type = names
    message_id, at = uuid.UUID(bytes=wire[at : at + 16]), at + 16
    sequence, timestamp, expires = (number(wire[at + 8 * n : at + 8 * n + 8]) for n in range(3))
    sealed_bytes, at = number(wire[at + 24 : at + 28]), at + 28
    trace = ""
    if flags & 2:
        trace = f"00-{wire[at : at + 16].hex()}-{wire[at + 16 : at + 24].hex()}-{wire[at + 24 : at + 25].hex()}"
        at += 25
    header, sealed, proof = wire[:at], wire[at : at + sealed_bytes], wire[at + sealed_bytes :]
    assert key_id == hashlib.sha256(signing_key(sender).public_key().public_bytes_raw()).digest()[:8]
    if flags & 4:
        size, index, path = number(proof[:2]), number(proof[2:4]), proof[4:-64]
        node = hashlib.sha256(b"\x00symbi/bus/leaf/1\0" + header + sealed).digest()
        for row in range(len(path) // 32):
            beside = path[32 * row : 32 * row + 32]
            children = beside + node if index >> row & 1 else node + beside
            node = hashlib.sha256(b"\x01symbi/bus/node/1\0" + children).digest()
        assert index < size
        assert 1 << len(path) // 32 >= size > 1 << len(path) // 32 >> 1
        verify(sender, "symbi/bus/batch/1", size.to_bytes(2, "big") + node, proof[-64:])
    else:
        verify(sender, "symbi/bus/message/1", hashlib.sha256(header + sealed).digest(), proof)
    key = sealing_key(sender, address, epoch, is_topic=bool(flags & 1))
    payload = AESGCM(key).decrypt(sequence.to_bytes(12, "big"), sealed, header)
    return {
        "message_id": str(message_id),
        "sender": sender,
        "topic" if flags & 1 else "recipient": address,
        "content_type": content_type,
        "expires_ns": expires,
        "trace": trace,
        "payload": payload.hex(),
        "timestamp_ns": timestamp,
        "epoch": epoch,
        "sequence": sequence,
    }


@pytest.mark.parametrize("case", MESSAGES, ids=lambda case: case["name"])
def test_a_reader_of_its_own_reads_what_was_written(case):
    assert read(bytes.fromhex(case["wire"])) == {key: case[key] for key in case if key not in ("name", "wire")}


def test_the_message_that_the_specification_shows_is_the_first_vector(root):
    text = (root / "docs/reference/message-format.md").read_text("utf-8")
    lines = text.partition("```text vector\n")[2].partition("```")[0].splitlines()
    shown = "".join("".join(re.match(r"(?:[0-9a-f]{2})+(?: [0-9a-f]{2}\b)*", line)[0].split()) for line in lines)
    assert shown == MESSAGES[0]["wire"]
    key = sealing_key("anna", "ben", 1, is_topic=False)
    assert f"| key of anna to ben, epoch 1 | `{key.hex()}` |" in text


def batches():
    """Vectors that were sealed together: those of one name before the colon."""
    found = {}
    for case in MESSAGES:
        found.setdefault(case["name"].partition(":")[0], []).append(case)
    return found


@pytest.mark.parametrize("provider", ["openssl", "libsodium"])
def test_the_same_keys_and_messages_give_the_same_bytes(provider):
    under_test = Correspondence(("anna", "ben"), provider=provider)
    keys = under_test.keys
    for cases in batches().values():
        if cases[0]["epoch"] > 1:
            keys.rotate(Address("ben"), under_test.clock.now_ns())
        messages = [outgoing(case) for case in cases]
        wires = under_test.writer.seal_many(messages)
        assert [wire.hex() for wire in wires] == [case["wire"] for case in cases]
        for message, opened in zip(messages, under_test.reader.open_many(wires, "ben"), strict=True):
            assert isinstance(opened, Opened)
            assert (opened.message_id, opened.sender, opened.address) == (
                message.message_id,
                message.sender,
                message.address,
            )
            assert (opened.content_type, opened.trace, opened.payload) == (
                message.content_type,
                message.trace,
                message.payload,
            )


def outgoing(case):
    address = Address(case["topic"], is_topic=True) if "topic" in case else Address(case["recipient"])
    return Outgoing(
        case["message_id"],
        case["sender"],
        address,
        bytes.fromhex(case["payload"]),
        case["content_type"],
        case["expires_ns"],
        case["trace"],
    )
