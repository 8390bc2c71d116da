"""What a bus stands on, and what it is told."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

import anyio

from symbi.audit.log import AuditLog
from symbi.bus.codec import Codec, Opened
from symbi.bus.envelope import Address
from symbi.bus.passages import LeaseTerms
from symbi.bus.port import OutboxStore, Transport
from symbi.bus.ratelimit import RateTerms
from symbi.bus.receiving import RetryTerms
from symbi.clock import Clock, IdSource
from symbi.guard.action import TopicRef
from symbi.guard.gate import Guard
from symbi.types import AgentId, Label, Principal

DAY_S: Final = 86_400.0


def unheard(*_told: object) -> None:
    """The default of `BusRooms.left` and `BusRooms.changed`: nothing."""


@dataclass(frozen=True, slots=True)
class BusTerms:
    """What a bus is told.

    Attributes:
        rates: What may pass in a second.
        leases: For how long a decision holds.
        retry: Where handlers fail.
        mailbox: Messages that may wait for one agent, in its buffer and in the outbox.
        buffer_bytes: Bytes that may wait in one buffer.
        message_bytes: The largest body.
        ttl_s: For how long a message may wait to be received, where its sender says nothing.
        receipts_s: For how long the id of a received message is remembered.
    """

    rates: RateTerms = field(default_factory=RateTerms)
    leases: LeaseTerms = field(default_factory=LeaseTerms)
    retry: RetryTerms = field(default_factory=RetryTerms)
    mailbox: int = 10_000
    buffer_bytes: int = 16 * 1024 * 1024
    message_bytes: int = 256 * 1024
    ttl_s: float = 7 * DAY_S
    receipts_s: float = 7 * DAY_S


@dataclass(frozen=True, slots=True)
class BusRooms:
    """What a bus stands on.

    Attributes:
        guard: The gate.
        log: The trail.
        store: The outbox.
        transport: Carries messages.
        codec: Seals and opens.
        clock, ids: Time, and ids of messages.
        principal: An agent as policies see it.
        topic: A topic as policies see it.
        known: Whether there is an agent that may be sent to while it is away.
        read: Opens what the store keeps, on its thread, as `Codec.read` does.
        ready: Sees to it that a sender has keys and sequences for so many messages to an address; awaited before they are sealed.
        left: Told of each pattern by which somebody listens no more.
        changed: Told of each agent whose keys were changed, and whether the ones before are destroyed.
        sleep: Waits so many seconds.
        signing: What senders sign, for the trail.
    """

    guard: Guard
    log: AuditLog
    store: OutboxStore
    transport: Transport
    codec: Codec
    clock: Clock
    ids: IdSource
    principal: Callable[[AgentId], Principal]
    topic: Callable[[str], TopicRef]
    known: Callable[[AgentId], bool]
    read: Callable[[bytes, AgentId], Opened]
    ready: Callable[[AgentId, Address, int], Awaitable[None]] | None = None
    left: Callable[[str], None] = unheard
    changed: Callable[[AgentId, bool], None] = unheard
    sleep: Callable[[float], Awaitable[None]] = anyio.sleep
    signing: str = "batch"


@dataclass(frozen=True, slots=True)
class Labelled:
    """An answer with a label of its own; without one it has that of the question."""

    body: object
    label: Label
