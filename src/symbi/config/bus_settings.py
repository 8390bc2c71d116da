# ruff: noqa: RUF009 - the calls make dataclass fields, as `field` does
"""Every key of `[bus]`: what may be sent, how fast, and how it is signed."""

from dataclasses import dataclass
from enum import StrEnum

from symbi.config.declared import declare as _declare
from symbi.config.kinds import ByteSize, OneOf, Real, Whole


class MessageSigning(StrEnum):
    """What a sender signs."""

    MESSAGE = "message"
    """Each message."""
    BATCH = "batch"
    """What is sent together, by a Merkle root; one message alone is signed alone."""


@dataclass(frozen=True, slots=True)
class BusSettings:
    """`[bus]`."""

    signing: MessageSigning = _declare(
        MessageSigning.BATCH, OneOf(MessageSigning), "what a sender signs: each message, or what is sent together"
    )
    max_message_bytes: int = _declare(262_144, ByteSize(1, 2**24 - 2**17), "the largest body of a message")
    mailbox_messages: int = _declare(
        10_000,
        Whole(1, 10_000_000, "messages"),
        "messages that may wait for one agent, in its buffer and in the outbox; further ones are refused",
    )
    agent_rate: float = _declare(
        100_000.0, Real(0, 1e9, "messages a second"), "messages that one agent may send; 0 sets no bound"
    )
    pair_rate: float = _declare(
        50_000.0, Real(0, 1e9, "messages a second"), "messages of one agent to another; 0 sets no bound"
    )
    topic_rate: float = _declare(100_000.0, Real(0, 1e9, "messages a second"), "messages to one topic; 0 sets no bound")
    agent_bytes_rate: float = _declare(
        67_108_864.0, Real(0, 1e12, "bytes a second"), "bytes of bodies that one agent may send; 0 sets no bound"
    )
    burst_s: float = _declare(1.0, Real(0.001, 3600, "seconds"), "so many seconds' worth may be sent at once")
    attempts: int = _declare(8, Whole(1, 1000, "attempts"), "so often a message is given to a handler that fails")
    retry_first_s: float = _declare(
        0.5, Real(0.001, 3600, "seconds"), "until the second attempt; twice as long before each further one"
    )
    retry_most_s: float = _declare(60.0, Real(0.001, 86_400, "seconds"), "the longest pause between two attempts")
    ttl_s: float = _declare(
        604_800.0, Real(1, 31_622_400, "seconds"), "for how long a message waits where its sender does not say"
    )
    receipts_s: float = _declare(
        604_800.0, Real(60, 31_622_400, "seconds"), "for how long the id of a received message is remembered"
    )
    lease_messages: int = _declare(
        1_000_000, Whole(1, 10**9, "messages"), "messages of one sender to one target for which one decision holds"
    )
    lease_s: float = _declare(
        60.0, Real(0.1, 3600, "seconds"), "for how long it holds; a new policy set ends it at once"
    )
