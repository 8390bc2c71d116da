"""The bytes of a message, format version 1: docs/reference/message-format.md. Pure.

```
start     magic 4 · version 1 · flags 1 · lengths of sender, address, content type 1 each · epoch 4 · key id 8
names     sender · address · content type
message   id 16 · sequence 8 · timestamp 8 · expiry 8 · length of what is sealed 4 · trace 25, if flagged
sealed    ciphertext · tag 16
proof     signature 64, or: batch size 2 · index 2 · path 32 each · signature 64
```

Start and names are the same for all messages of a flow, so a reader that knows a flow looks them up in one step. Start,
names and message are the associated data of the sealed part. Integers are big-endian. Each message has one encoding.
"""

import re
from functools import lru_cache
from struct import Struct
from typing import Final

import msgspec

from symbi.crypto.ed25519 import SIGNATURE_BYTES
from symbi.crypto.provider import TAG_BYTES
from symbi.errors import MessageRefused
from symbi.types import AgentId, KeyId

MAGIC: Final = b"SyMb"
VERSION: Final = 1
TO_TOPIC: Final = 0x01
TRACED: Final = 0x02
BATCHED: Final = 0x04
_KNOWN_FLAGS: Final = TO_TOPIC | TRACED | BATCHED

MAX_NAME_BYTES: Final = 255  # a length stands in one byte
MAX_CONTENT_TYPE_BYTES: Final = 127
MAX_SEQUENCE: Final = 2**48 - 1  # of one sender, address and epoch
MAX_TIME_NS: Final = 2**63 - 1
MAX_PAYLOAD_BYTES: Final = 16 * 1024 * 1024  # of the format; a codec may be given less
MAX_BATCH: Final = 1024  # messages under one signature; ten hashes of path
HASH_BYTES: Final = 32
ID_BYTES: Final = 16
ID_CHARACTERS: Final = 36
TRACE_BYTES: Final = 25

_PROOF_BYTES: Final = tuple(
    SIGNATURE_BYTES + 4 + HASH_BYTES * (size - 1).bit_length() if size else 0 for size in range(MAX_BATCH + 1)
)  # of a message in a batch, by its size
_START: Final = Struct(">4sBBBBBI8s")
_MESSAGE: Final = Struct(">16sQQQI")
_PLACE: Final = Struct(">HH")
_FLAGS_AT: Final = 5
_LENGTHS_AT: Final = 6
_NAME: Final = re.compile(rb"[!-~]+")
_TRACEPARENT: Final = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_NO_TRACE_ID: Final = bytes(16)
_NO_PARENT_ID: Final = bytes(8)

START_BYTES: Final = _START.size
FLOW_BYTES: Final = START_BYTES + 3 * 255
"""No message needs more of its bytes for its start and names."""
PLACE_BYTES: Final = _PLACE.size
place: Final = _PLACE.pack
"""`(batch size, index) -> 4 bytes`."""
read_place: Final = _PLACE.unpack_from
MESSAGE_BYTES: Final = _MESSAGE.size
encode_message: Final = _MESSAGE.pack
"""`(id, sequence, timestamp, expiry, length of what is sealed) -> bytes`: what stands between names and trace."""
read_message: Final = _MESSAGE.unpack_from


class Address(msgspec.Struct, frozen=True):
    """Whom a message is for: one agent, or whoever listens to a topic.

    Attributes:
        name: Of the agent or the topic.
        is_topic: Which of the two.
    """

    name: str
    is_topic: bool = False


class Flow(msgspec.Struct, frozen=True):
    """What messages of one sender to one address have in common while neither key nor epoch changes.

    Attributes:
        sender: The agent that signs.
        address: Whom it writes to.
        content_type: Media type of the payload.
        epoch: Of the address, from 1; the key changes with it.
        key_id: The sender's signing key.
        traced: Whether messages bear a trace context.
        batched: Whether they are signed by batches.
    """

    sender: AgentId
    address: Address
    content_type: str
    epoch: int
    key_id: KeyId
    traced: bool
    batched: bool


class Envelope(msgspec.Struct, frozen=True, gc=False):
    """A message taken apart; nothing of it is verified.

    Attributes:
        id: 16 bytes, a UUID.
        sequence: In the flow's epoch, from 1.
        timestamp_ns: When it was sealed, in nanoseconds since the Unix epoch.
        expires_ns: Likewise, from when on it is refused; 0 where it does not expire.
        trace: 25 bytes; empty where there is none.
        header: All bytes before the sealed part: its associated data.
        signed: All bytes before the proof.
        proof: All bytes after that.
    """

    id: bytes
    sequence: int
    timestamp_ns: int
    expires_ns: int
    trace: bytes
    header: bytes
    signed: bytes
    proof: bytes


def encode_flow(flow: Flow) -> bytes:
    """Start and names.

    Raises:
        MessageRefused: `message.malformed`; a name, the content type or the epoch is none.
    """
    sender, address, content_type = (_text(one) for one in (flow.sender, flow.address.name, flow.content_type))
    if not 0 < flow.epoch < 1 << 32:
        raise MessageRefused("an epoch is 1 to 4294967295")
    if len(content_type) > MAX_CONTENT_TYPE_BYTES:
        raise MessageRefused(f"a content type has at most {MAX_CONTENT_TYPE_BYTES} bytes")
    flags = TO_TOPIC * flow.address.is_topic | TRACED * flow.traced | BATCHED * flow.batched
    lengths = len(sender), len(address), len(content_type)
    start = _START.pack(MAGIC, VERSION, flags, *lengths, flow.epoch, bytes.fromhex(flow.key_id))
    return start + sender + address + content_type


def flow_end(wire: bytes) -> int:
    """Where the names end if they are as long as the start says; at least the length of a start.

    Raises:
        MessageRefused: `message.malformed`; there is no whole start.
    """
    if len(wire) < START_BYTES:
        raise MessageRefused("a message has a start of 21 bytes")
    return START_BYTES + wire[_LENGTHS_AT] + wire[_LENGTHS_AT + 1] + wire[_LENGTHS_AT + 2]


def parse_flow(wire: bytes) -> Flow:
    """What stands in start and names.

    Raises:
        MessageRefused: `message.version` where this release does not read it, `message.malformed` where nobody does.
    """
    end = flow_end(wire)
    magic, version, flags, sender_bytes, address_bytes, type_bytes, epoch, key_id = _START.unpack_from(wire)
    if magic != MAGIC:
        raise MessageRefused("this is no message: it does not begin as one")
    if version != VERSION or flags & ~_KNOWN_FLAGS:
        msg = f"a message of version {version} with flags {flags:#04x}; this release reads version {VERSION}"
        raise MessageRefused(msg, code="message.version")
    if len(wire) < end:
        raise MessageRefused("the message ends within its names")
    address_at = START_BYTES + sender_bytes
    type_at = address_at + address_bytes
    names = wire[START_BYTES:address_at], wire[address_at:type_at], wire[type_at:end]
    if not all(_NAME.fullmatch(name) for name in names) or type_bytes > MAX_CONTENT_TYPE_BYTES:
        raise MessageRefused("sender, address and content type are visible ASCII, one character at least")
    if not epoch:
        raise MessageRefused("an epoch is 1 to 4294967295")
    sender, address, content_type = (name.decode("ascii") for name in names)
    return Flow(
        AgentId(sender),
        Address(address, bool(flags & TO_TOPIC)),
        content_type,
        epoch,
        KeyId(key_id.hex()),
        bool(flags & TRACED),
        bool(flags & BATCHED),
    )


def parse_message(wire: bytes, flow_ends: int, flow: Flow, most_payload: int) -> Envelope:
    """Take the rest of a message apart.

    Args:
        wire: The whole message, and nothing else.
        flow_ends: Where its names end.
        flow: What stands before that.
        most_payload: Bytes of payload that the reader takes.

    Raises:
        MessageRefused: `message.size` where the payload is larger, `message.malformed` where it is no message.
    """
    header_ends = flow_ends + MESSAGE_BYTES
    if len(wire) < header_ends + flow.traced * TRACE_BYTES:
        raise MessageRefused("the message ends within its header")
    id_, sequence, timestamp, expires, sealed_bytes = read_message(wire, flow_ends)
    trace = b""
    if flow.traced:
        trace = wire[header_ends : header_ends + TRACE_BYTES]
        header_ends += TRACE_BYTES
        if trace[:16] == _NO_TRACE_ID or trace[16:24] == _NO_PARENT_ID:
            raise MessageRefused("a trace context of zeros is none")
    if not 0 < sequence <= MAX_SEQUENCE or not 0 < timestamp <= MAX_TIME_NS:
        raise MessageRefused("a sequence or a time is out of range")
    if expires and not timestamp < expires <= MAX_TIME_NS:
        raise MessageRefused("the message expired before it was sent, or never can")
    if sealed_bytes < TAG_BYTES:
        raise MessageRefused("the sealed part is shorter than its tag")
    if sealed_bytes - TAG_BYTES > most_payload:
        raise _too_large(sealed_bytes - TAG_BYTES, most_payload)
    signed_ends = header_ends + sealed_bytes
    proof_bytes = SIGNATURE_BYTES
    if flow.batched:
        if len(wire) < signed_ends + PLACE_BYTES:
            raise MessageRefused("the message ends before its proof")
        size, index = read_place(wire, signed_ends)
        if not 1 < size <= MAX_BATCH or index >= size:
            raise MessageRefused(f"a batch has 2 to {MAX_BATCH} messages, counted from 0")
        proof_bytes = _PROOF_BYTES[size]
    if len(wire) != signed_ends + proof_bytes:
        raise MessageRefused("the message is longer or shorter than its parts")
    return Envelope(
        id_, sequence, timestamp, expires, trace, wire[:header_ends], wire[:signed_ends], wire[signed_ends:]
    )


def require_name(name: str) -> None:
    """Return if a message can bear a name.

    Raises:
        MessageRefused: `message.malformed`.
    """
    _text(name)


def require_payload(size: int, most: int) -> None:
    """Return if a payload is not too large.

    Raises:
        MessageRefused: `message.size`.
    """
    if size > most:
        raise _too_large(size, most)


def depth_of(size: int) -> int:
    """How many hashes the path of a message in a batch of that size has."""
    return (size - 1).bit_length()


def pack_id(text: str) -> bytes:
    """The 16 bytes of a UUID in its canonical text form.

    Raises:
        MessageRefused: `message.malformed`; it is none.
    """
    try:
        packed = bytes.fromhex(text.replace("-", ""))
    except ValueError:
        packed = b""
    if len(packed) != ID_BYTES or len(text) != ID_CHARACTERS or text[8:24:5] != "----" or text != text.lower():
        raise MessageRefused("the id of a message is a UUID of 36 characters in small letters")
    return packed


def require_id(packed: bytes) -> bytes:
    """The same bytes, if they may be a UUID.

    Raises:
        MessageRefused: `message.malformed`; they are not 16.
    """
    if len(packed) != ID_BYTES:
        raise MessageRefused("the id of a message is a UUID of 16 bytes")
    return packed


def id_text(packed: bytes) -> str:
    """The canonical text form of a UUID of 16 bytes."""
    digits = packed.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


@lru_cache(1024)  # the messages of one piece of work bear one trace
def pack_trace(traceparent: str) -> bytes:
    """The 25 bytes of a W3C trace context of version 00: trace id, parent id, flags.

    Raises:
        MessageRefused: `message.malformed`; it is none.
    """
    found = _TRACEPARENT.fullmatch(traceparent)
    packed = bytes.fromhex("".join(found.groups())) if found else bytes(TRACE_BYTES)
    if packed[:16] == _NO_TRACE_ID or packed[16:24] == _NO_PARENT_ID:
        raise MessageRefused("a trace context is a W3C traceparent of version 00")
    return packed


def trace_text(packed: bytes) -> str:
    """The traceparent of 25 bytes."""
    return f"00-{packed[:16].hex()}-{packed[16:24].hex()}-{packed[24:].hex()}"


def _text(name: str) -> bytes:
    encoded = name.encode("ascii") if name.isascii() else b""
    if len(encoded) > MAX_NAME_BYTES or not _NAME.fullmatch(encoded):
        raise MessageRefused("sender, address and content type are 1 to 255 characters of visible ASCII")
    return encoded


def _too_large(size: int, most: int) -> MessageRefused:
    return MessageRefused(
        f"a payload of {size} bytes, and {most} are taken", code="message.size", bytes=size, most=most
    )
