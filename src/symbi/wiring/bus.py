"""The bus, from settings."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from symbi.adapters.inproc import InprocTransport
from symbi.adapters.sqlite import SqliteStore
from symbi.audit.log import AuditLog
from symbi.bus.at_hand import KeysAtHand
from symbi.bus.bus import Bus, open_bus
from symbi.bus.codec import Codec, Signing
from symbi.bus.envelope import MAX_PAYLOAD_BYTES
from symbi.bus.passages import LeaseTerms, declared
from symbi.bus.ratelimit import RateTerms
from symbi.bus.receiving import RetryTerms
from symbi.bus.rooms import BusRooms, BusTerms
from symbi.bus.topics import Known, known_as
from symbi.clock import Clock, IdSource
from symbi.config import Settings
from symbi.crypto.provider import open_provider
from symbi.guard.gate import Guard
from symbi.runtime.sealed_mail import SealedMail, transact
from symbi.types import AgentId, Principal


def bus_terms(settings: Settings) -> BusTerms:
    """What a bus is told."""
    bus = settings.bus
    return BusTerms(
        rates=RateTerms(bus.agent_rate, bus.pair_rate, bus.topic_rate, bus.agent_bytes_rate, bus.burst_s),
        leases=LeaseTerms(bus.lease_messages, bus.lease_s),
        retry=RetryTerms(bus.attempts, bus.retry_first_s, bus.retry_most_s),
        mailbox=bus.mailbox_messages,
        buffer_bytes=settings.runtime.message_buffer_size,
        message_bytes=bus.max_message_bytes,
        ttl_s=bus.ttl_s,
        receipts_s=bus.receipts_s,
    )


def topics_of(settings: Settings) -> list[Known]:
    """What is configured of topics."""
    return [Known(one.pattern, one.owner, one.classification) for one in settings.topics]


def _principal(settings: Settings, agent: AgentId) -> Principal:
    return declared(settings.principal(AgentId(agent.partition("/")[0])), agent)


def _known(settings: Settings, agent: AgentId) -> bool:
    name = agent.partition("/")[0]
    return any(one.name == name for one in settings.agents)


@asynccontextmanager
async def opened_bus(
    settings: Settings,
    store: SqliteStore,
    log: AuditLog,
    guard: Guard,
    mails: SealedMail,
    times: tuple[Clock, IdSource],
) -> AsyncIterator[Bus]:
    """The bus of a runtime.

    Raises:
        StoreUnavailable: What it keeps cannot be read.
    """
    clock, ids = times
    provider = open_provider(settings.security.crypto_provider.value)
    transport = InprocTransport(clock, (log, store))
    await transport.open()
    keys = KeysAtHand(mails.book, partial(transact, log, mails))
    signing = Signing(settings.bus.signing.value)
    codec = Codec(provider, keys, keys, clock, signing=signing, most_payload=MAX_PAYLOAD_BYTES)
    # What the store keeps is opened on its thread, by whoever has every key that is there.
    kept = Codec(provider, mails.book, mails.book, clock, most_payload=MAX_PAYLOAD_BYTES)
    rooms = BusRooms(
        guard, log, store, transport, codec, clock, ids, partial(_principal, settings),
        partial(known_as, known=topics_of(settings)), partial(_known, settings), kept.read,
        ready=keys.ready, left=keys.left, changed=keys.changed, signing=signing.value,
    )  # fmt: skip
    async with open_bus(rooms, bus_terms(settings)) as bus:
        yield bus
