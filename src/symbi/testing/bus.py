"""Keys and sequences of the bus in memory, and messages for tests."""

from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from hashlib import sha256
from itertools import count
from typing import Any, Final

from symbi.bus.codec import DEFAULT_BATCH, Codec, Outgoing, Signing
from symbi.bus.envelope import ID_BYTES, Address, id_text
from symbi.bus.keys import Block
from symbi.bus.sealing import pair_key
from symbi.bus.seen import Arrivals
from symbi.clock import random_bytes
from symbi.crypto.provider import AES_KEY_BYTES, DEFAULT_PROVIDER, SEED_BYTES, Agreement, CryptoProvider, open_provider
from symbi.crypto.signing import SigningKey, VerifyingKey
from symbi.errors import MessageRefused
from symbi.testing.clock import ManualClock
from symbi.types import AgentId, KeyId

OLD_EPOCH_NS: Final = 60 * 1_000_000_000  # for how long messages of an epoch are taken after the next one began

_Stream = tuple[AgentId, AgentId, Address, int]


def counted_random(seed: str) -> Callable[[int], bytes]:
    """A source of bytes that gives the same ones each time: SHA-256 over the seed and a number."""
    numbers = count()

    def random(size: int) -> bytes:
        return b"".join(sha256(f"{seed}/{next(numbers)}".encode()).digest() for _ in range(-(-size // 32)))[:size]

    return random


class Correspondence:
    """Agents with the same keys each time, on a clock that stands still, and codecs of who writes and who reads.

    Args:
        agents: Who there is.
        provider: Name of the library that does the arithmetic.
        signing: What is signed.
        batch: Messages under one signature, at most.
    """

    def __init__(
        self,
        agents: Iterable[str] = ("anna", "ben", "cleo"),
        *,
        provider: str = DEFAULT_PROVIDER,
        signing: Signing = Signing.BATCH,
        batch: int = DEFAULT_BATCH,
    ) -> None:
        self.provider = open_provider(provider)
        self.clock = ManualClock()
        self.keys = MemoryKeys(self.provider, agents, random=counted_random("keys"))
        self.writer = Codec(self.provider, self.keys, self.keys, self.clock, signing=signing, batch=batch)
        self.reader = self.other_reader()
        self._ids = counted_random("ids")

    def other_reader(self) -> Codec:
        """A codec that has seen nothing; who has come is shared with the others."""
        return Codec(self.provider, self.keys, self.keys, self.clock)

    def message(self, payload: bytes = b"", to: str = "ben", sender: str = "anna", **others: Any) -> Outgoing:
        """A message with an id of its own; `to` begins with `#` where it is a topic."""
        address = Address(to.removeprefix("#"), to.startswith("#"))
        return Outgoing(id_text(self._ids(ID_BYTES)), AgentId(sender), address, payload, **others)


class MemoryKeys:
    """`BusKeys` and `BusSequences` of agents that are known, gone with the process.

    Args:
        provider: The library that does the arithmetic.
        agents: Who has keys.
        random: Where keys come from.
        old_epoch_ns: For how long messages of an epoch are taken after the next one began.
    """

    def __init__(
        self,
        provider: CryptoProvider,
        agents: Iterable[str] = (),
        *,
        random: Callable[[int], bytes] = random_bytes,
        old_epoch_ns: int = OLD_EPOCH_NS,
    ) -> None:
        self._provider = provider
        self._random = random
        self._old_epoch_ns = old_epoch_ns
        self._changes = 0
        self._signing: dict[AgentId, SigningKey] = {}
        self._agreements: dict[AgentId, Agreement] = {}
        self._public: dict[KeyId, tuple[AgentId, VerifyingKey]] = {}
        self._groups: dict[tuple[str, int], bytes] = {}
        self._epochs: dict[Address, int] = {}
        self._ends: dict[tuple[Address, int], int] = {}  # when an old epoch is taken no longer
        self._over: set[tuple[Address, int]] = set()
        self._next: dict[tuple[AgentId, Address, int], int] = {}
        self._come: dict[_Stream, Arrivals] = {}
        for agent in agents:
            self.add(agent)

    def add(self, agent: str) -> None:
        """Make keys for an agent, new ones where it has some; messages by the old ones are still taken."""
        name = AgentId(agent)
        key = SigningKey(self._random(SEED_BYTES), self._provider)
        self._signing[name] = key
        self._public[key.key_id] = name, key.verifying_key()
        self._agreements.setdefault(name, self._provider.agreement(self._random(SEED_BYTES)))
        self._changes += 1

    def revoke(self, key_id: KeyId) -> None:
        """Believe a signing key no longer."""
        del self._public[key_id]
        self._changes += 1

    def rotate(self, address: Address, now_ns: int) -> int:
        """Begin the next epoch of an address, and return it; the one before is taken for a while yet."""
        old = self._epochs.get(address, 1)
        self._ends[address, old] = now_ns + self._old_epoch_ns
        self._epochs[address] = old + 1
        self._changes += 1
        return old + 1

    def come(self) -> dict[_Stream, Arrivals]:
        """What has come of each flow, as a durable store would keep it."""
        return deepcopy(self._come)

    def load_come(self, kept: dict[_Stream, Arrivals]) -> None:
        """Begin with what has come before."""
        self._come = deepcopy(kept)

    def generation(self, now_ns: int) -> int:
        """As `BusKeys` says."""
        over = {ended for ended, end in self._ends.items() if end <= now_ns}
        self._changes += over != self._over
        self._over = over
        return self._changes

    def signing_key(self, agent: AgentId) -> SigningKey:
        """As `BusKeys` says."""
        if agent not in self._signing:
            raise MessageRefused("the sender has no key", code="message.signature")
        return self._signing[agent]

    def public_key(self, key_id: KeyId) -> tuple[AgentId, VerifyingKey] | None:
        """As `BusKeys` says."""
        return self._public.get(key_id)

    def pair_key(self, sender: AgentId, recipient: AgentId, epoch: int) -> bytes:
        """As `BusKeys` says."""
        self._require(Address(recipient), epoch)
        mine, other = self._agreements.get(sender), self._agreements.get(recipient)
        shared = mine.exchange(other.public) if mine is not None and other is not None else None
        if mine is None or other is None or shared is None:
            raise MessageRefused("there is no such agent", code="message.recipient")
        return pair_key(self._provider, shared, (mine.public, other.public), (sender, recipient), epoch)

    def group_key(self, topic: str, epoch: int) -> bytes:
        """As `BusKeys` says."""
        self._require(Address(topic, is_topic=True), epoch)
        if (topic, epoch) not in self._groups:
            self._groups[topic, epoch] = self._random(AES_KEY_BYTES)
        return self._groups[topic, epoch]

    def reserve(self, sender: AgentId, address: Address, count: int) -> Block:
        """As `BusSequences` says."""
        if not address.is_topic and AgentId(address.name) not in self._agreements:
            raise MessageRefused("there is no such agent", code="message.recipient")
        epoch = self._epochs.get(address, 1)
        first = self._next.get((sender, address, epoch), 1)
        self._next[sender, address, epoch] = first + count
        return Block(epoch, first)

    def admit(
        self, reader: AgentId, sender: AgentId, address: Address, epoch: int, sequences: Sequence[int]
    ) -> list[bool]:
        """As `BusSequences` says."""
        stream = reader, sender, address, epoch
        come = self._come.get(stream)
        if come is None:
            come = self._come[stream] = Arrivals()
        return come.admit(sequences)

    def _require(self, address: Address, epoch: int) -> None:
        if epoch > self._epochs.get(address, 1) or (address, epoch) in self._over:
            raise MessageRefused("the epoch has not begun, or is over", code="message.epoch")
