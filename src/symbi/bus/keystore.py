"""What the store keeps of the bus: key pairs of agents, epochs, group keys of topics, and what has been taken in.

Private parts are wrapped by the master key, as the keys of data subjects are; public parts stand readable. An epoch is
begun by each process that seals anything, with a random secret of its own, which every key of that epoch is made of. So
no counter has to be durable before it is used: what a process has counted is never counted again under the same key,
whenever it dies, and also where its store was brought back from a copy.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from symbi.bus.seen import Seen
from symbi.types import AgentId, KeyId


@dataclass(frozen=True, slots=True)
class AgentKeys:
    """The key pairs of an agent, as the store keeps them.

    Attributes:
        agent: As its file declares it; or the runtime itself, for all who are no agents.
        generation: 1, and one more with each rotation.
        epoch: The first epoch in which they are used.
        signing_id: Of the signing key: first 16 hexadecimal digits of the SHA-256 of its public part.
        signing: Public part of the Ed25519 pair, 32 bytes.
        agreement: Public part of the X25519 pair, 32 bytes.
        wrapped: Both private parts, sealed by the master; None once they were destroyed.
        created_at: RFC 3339.
        destroyed_at: RFC 3339, once they were destroyed.
    """

    agent: AgentId
    generation: int
    epoch: int
    signing_id: KeyId
    signing: bytes
    agreement: bytes
    wrapped: bytes | None
    created_at: str
    destroyed_at: str | None = None


@dataclass(frozen=True, slots=True)
class BusEpoch:
    """A time in which the same keys seal.

    Attributes:
        epoch: Its number, from 1.
        owner: Which owner of the store has begun it.
        wrapped: Its secret, sealed by the master.
        begun_at: RFC 3339.
    """

    epoch: int
    owner: int
    wrapped: bytes
    begun_at: str


@dataclass(frozen=True, slots=True)
class GroupKey:
    """The key of a topic for a time.

    Attributes:
        topic: The topic.
        epoch: Its number among those of the topic, from 1.
        wrapped: The key, sealed by the master.
        begun_at: RFC 3339.
    """

    topic: str
    epoch: int
    wrapped: bytes
    begun_at: str


class AgentKeyStore(Protocol):
    """Durable key pairs; the methods block and run inside the store's running transaction.

    Each of them raises StoreUnavailable where the store cannot be used.
    """

    def put_agent_keys(self, keys: AgentKeys) -> bool:
        """Insert key pairs, unless those of the generation are there; whether they are new."""

    def agent_keys(self, agent: AgentId) -> Sequence[AgentKeys]:
        """All that an agent has and had, oldest first; destroyed ones without their private parts."""

    def agent_keys_by(self, signing_id: KeyId) -> AgentKeys | None:
        """Those with a signing key, or None."""

    def all_agent_keys(self) -> Sequence[AgentKeys]:
        """Those of all agents, by agent and generation."""

    def destroy_agent_keys(self, agent: AgentId, upto: int, at: str) -> int:
        """Overwrite private parts up to a generation; returns of how many. Public parts stay."""


class EpochStore(Protocol):
    """Durable epochs; the methods block and run inside the store's running transaction.

    Each of them raises StoreUnavailable where the store cannot be used.
    """

    def put_epoch(self, epoch: BusEpoch) -> bool:
        """Insert an epoch, unless it is there; whether it is new."""

    def epochs(self) -> Sequence[BusEpoch]:
        """All that were not ended, oldest first."""

    def last_epoch(self) -> int:
        """The highest number that an epoch ever had; 0 for none."""

    def end_epochs(self, owner: int) -> int:
        """Destroy the epochs of earlier owners under which nothing waits, and what was seen in them; returns how many.

        Args:
            owner: The one that has the store now.
        """


class GroupStore(Protocol):
    """Durable keys of topics; the methods block and run inside the store's running transaction.

    Each of them raises StoreUnavailable where the store cannot be used.
    """

    def put_group(self, group: GroupKey) -> bool:
        """Insert the key of a topic, unless that of the epoch is there; whether it is new."""

    def groups(self, topic: str) -> Sequence[GroupKey]:
        """All keys of a topic, oldest first."""

    def last_groups(self) -> Mapping[str, int]:
        """The last epoch of each topic that has a key."""

    def needed_groups(self) -> Mapping[str, int]:
        """Of each topic of which messages are kept, the first epoch under which one is."""

    def end_groups(self, topic: str, before: int) -> int:
        """Destroy the keys of a topic before an epoch; returns how many."""


class SeenStore(Protocol):
    """What has been taken in; the methods block and run inside the store's running transaction.

    Each of them raises StoreUnavailable where the store cannot be used.
    """

    def seen(self, sender: str, address: str, epoch: int) -> Seen:
        """What has been taken in of a sender, at an address, in an epoch."""

    def put_seen(self, sender: str, address: str, epoch: int, seen: Seen) -> None:
        """Insert or replace it."""


class BusKeyStore(AgentKeyStore, EpochStore, GroupStore, SeenStore, Protocol):
    """All of it, as one store keeps it."""
