"""`SecureMessage`: what anybody can see of a message without a key."""

from struct import error as struct_error

import msgspec

from symbi.bus.envelope import (
    MAX_PAYLOAD_BYTES,
    Address,
    Flow,
    encode_flow,
    encode_message,
    flow_end,
    id_text,
    pack_id,
    pack_trace,
    parse_flow,
    parse_message,
    trace_text,
)
from symbi.clock import rfc3339
from symbi.errors import MessageRefused
from symbi.types import AgentId, KeyId


class SecureMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A message as it travels. Nothing of it is verified: a reader that acts on it opens it by `Codec.open`.

    Attributes:
        id: A UUID.
        sender: The agent that is said to have signed.
        recipient: The agent that it is for; None where it is for a topic.
        topic: The topic that it is for; None where it is for an agent.
        encrypted_payload: Ciphertext and tag.
        signature: The proof: 64 bytes, or size, index, path and signature of a batch.
        timestamp_ns: When it was sealed, in nanoseconds since the Unix epoch.
        expires_ns: From when on it is refused; 0 where it does not expire.
        content_type: Media type of what is sealed.
        epoch: Which key of the address sealed it.
        sequence: Its place among the messages of sender, address and epoch.
        key_id: Which key is said to have signed.
        batched: Whether the proof is that of a batch.
        trace: W3C traceparent; empty where there is none.
    """

    id: str
    sender: AgentId
    recipient: AgentId | None
    topic: str | None
    encrypted_payload: bytes
    signature: bytes
    timestamp_ns: int
    expires_ns: int
    content_type: str
    epoch: int
    sequence: int
    key_id: KeyId
    batched: bool
    trace: str

    @property
    def timestamp(self) -> str:
        """When it was sealed, as RFC 3339 in UTC."""
        return rfc3339(self.timestamp_ns)

    @classmethod
    def from_bytes(cls, wire: bytes) -> "SecureMessage":
        """The message that these bytes are.

        Raises:
            MessageRefused: `message.malformed`, `message.version` or `message.size`; they are none.
        """
        flow = parse_flow(wire)
        found = parse_message(wire, flow_end(wire), flow, MAX_PAYLOAD_BYTES)
        name, is_topic = flow.address.name, flow.address.is_topic
        return cls(
            id=id_text(found.id),
            sender=flow.sender,
            recipient=None if is_topic else AgentId(name),
            topic=name if is_topic else None,
            encrypted_payload=found.signed[len(found.header) :],
            signature=found.proof,
            timestamp_ns=found.timestamp_ns,
            expires_ns=found.expires_ns,
            content_type=flow.content_type,
            epoch=flow.epoch,
            sequence=found.sequence,
            key_id=flow.key_id,
            batched=flow.batched,
            trace=trace_text(found.trace) if found.trace else "",
        )

    def to_bytes(self) -> bytes:
        """The bytes that it was read from.

        Raises:
            MessageRefused: `message.malformed` or `message.size`; the fields are none of a message.
        """
        try:
            wire = self._written()
        except (ValueError, OverflowError, struct_error):
            raise MessageRefused("a field of the message is out of range") from None
        if SecureMessage.from_bytes(wire) != self:  # a recipient beside a topic, a key id of another length
            raise MessageRefused("the fields are not as they are read from a message")
        return wire

    def _written(self) -> bytes:
        address = Address(self.recipient or "") if self.topic is None else Address(self.topic, is_topic=True)
        flow = Flow(
            self.sender,
            address,
            self.content_type,
            self.epoch,
            self.key_id,
            traced=bool(self.trace),
            batched=self.batched,
        )
        sizes = self.sequence, self.timestamp_ns, self.expires_ns, len(self.encrypted_payload)
        parts = (
            encode_flow(flow),
            encode_message(pack_id(self.id), *sizes),
            pack_trace(self.trace) if self.trace else b"",
            self.encrypted_payload,
            self.signature,
        )
        return b"".join(parts)
