"""The keys of the bus as they are made, wrapped, found and destroyed: on the store's thread, inside its transactions.

Each agent, as its file declares it, has an Ed25519 pair and an X25519 pair, made at first use. Each process that seals
anything begins an epoch, with a random secret that every key of the epoch is made of. What is made is remembered until
it is known to be durable, and written again with every transaction that uses it: a transaction that is undone takes
nothing with it that something later was sealed under.
"""

from collections.abc import Callable, Sequence
from typing import Final

from symbi.bus.envelope import Address
from symbi.bus.keys import Block
from symbi.bus.keystore import AgentKeys, BusEpoch, BusKeyStore, GroupKey
from symbi.bus.sealing import pair_key
from symbi.bus.wrapping import Wrapping
from symbi.clock import Clock, random_bytes, rfc3339
from symbi.crypto.keys import KeyRing
from symbi.crypto.provider import AES_KEY_BYTES, AGREEMENT_BYTES, SEED_BYTES, CryptoProvider
from symbi.crypto.secret import Unpicklable
from symbi.crypto.signing import SigningKey, VerifyingKey
from symbi.errors import InternalError, MessageRefused
from symbi.types import AgentId, KeyId

MAX_SHARED: Final = (
    4096  # others with whom an agent's shared secrets are remembered; all are forgotten when there are more
)
MAX_GROUPS: Final = 64  # epochs of a topic, beyond which those under which nothing is kept are ended
GROUP_GRACE_NS: Final = (
    600 * 1_000_000_000
)  # an epoch lasts at least so long beside its next: something may be on its way
MAX_COUNTED: Final = 65_536  # senders and addresses whose sequences are counted; then another epoch begins

_EPOCH_SALT: Final = b"symbi/bus/epoch/1"

Made = AgentKeys | BusEpoch | GroupKey


class KeyPairs(Unpicklable):
    """The key pairs of one generation in memory."""

    __slots__ = ("_mixed", "_provider", "agreement", "kept", "signing")

    def __init__(self, kept: AgentKeys, secret: bytes, provider: CryptoProvider) -> None:
        self.kept = kept
        self.signing = SigningKey(secret[:SEED_BYTES], provider)
        self.agreement = provider.agreement(secret[SEED_BYTES:])
        self._provider = provider
        self._mixed: dict[tuple[bytes, bytes], bytes] = {}

    def shared_with(self, public: bytes, epoch_secret: bytes) -> bytes | None:
        """What these keys and another's public one share in an epoch; None where that is no key.

        All instances of two agents have it in common, so that it is remembered.
        """
        known = self._mixed.get((public, epoch_secret))
        if known is None:
            shared = self.agreement.exchange(public)
            if shared is None:
                return None
            if len(self._mixed) >= MAX_SHARED:
                self._mixed.clear()
            known = self._provider.hkdf_sha256(shared, salt=epoch_secret, info=_EPOCH_SALT, length=AGREEMENT_BYTES)
            self._mixed[public, epoch_secret] = known
        return known


class KeyBook(Unpicklable):
    """`symbi.bus.keys.BusKeys` and `BusSequences`, for who is inside the store's transaction.

    Args:
        store: Keeps wrapped keys, and what has been taken in.
        ring: Has the master key.
        provider: The library that does it.
        clock: For the times of keys.
        owner: Number of this owner of the store; 0 for who only reads, and makes nothing.
        random: Where secrets come from.
    """

    def __init__(
        self,
        store: BusKeyStore,
        ring: KeyRing,
        provider: CryptoProvider,
        clock: Clock,
        *,
        owner: int = 0,
        random: Callable[[int], bytes] = random_bytes,
    ) -> None:
        self._store = store
        self.wrapping: Final = Wrapping(store, ring)
        self._provider = provider
        self._clock = clock
        self._owner = owner
        self._random = random
        self._changes = 0
        self._epoch: BusEpoch | None = None
        self._last = 0  # the last epoch that this owner has begun
        self._secrets: dict[int, bytes] = {}  # of epochs
        self._groups: dict[tuple[str, int], bytes] = {}
        self._group_epochs: dict[str, int] = {}  # of topics, begun by this owner
        self._agents: dict[AgentId, list[KeyPairs]] = {}
        self._next: dict[tuple[AgentId, AgentId], int] = {}  # of the epoch in force
        self._published: dict[tuple[AgentId, str, int], int] = {}  # topics have epochs of their own
        self._stale: set[str] = set()  # topics that are to have another key before anything is counted for them
        self._most_groups: dict[str, int] = {}  # of topics: beyond how many epochs some are looked for to end
        self._groups_seen = False  # those of earlier owners were looked at
        self._undurable: dict[Made, None] = {}
        self._rotated: set[AgentKeys] = set()  # of these, which were written by the rotation that made them

    # --- what is made -----------------------------------------------------------------------------

    def flush(self) -> tuple[Made, ...]:
        """Write what is not known to be durable; call it in each transaction that seals, once that is done.

        Returns:
            What to tell `durable` once the transaction is.
        """
        self._forget_undone()
        made = tuple(self._undurable)
        for one in made:
            match one:
                case AgentKeys():
                    self._store.put_agent_keys(one)
                case BusEpoch():
                    self._store.put_epoch(one)
                case GroupKey():
                    self._store.put_group(one)
        return made

    def durable(self, made: Sequence[Made]) -> None:
        """What `flush` has written is durable."""
        for one in made:
            self._undurable.pop(one, None)
            if isinstance(one, AgentKeys):
                self._rotated.discard(one)

    def all_keys(self) -> Sequence[AgentKeys]:
        """Those of all agents, by agent and generation."""
        return self._store.all_agent_keys()

    def has_keys(self) -> bool:
        """Whether there was ever an epoch in this store."""
        return self._store.last_epoch() > 0 or self._epoch is not None

    @property
    def epoch(self) -> int:
        """The epoch in which this owner seals; begun at first use.

        Raises:
            ConfigError: There is no master key, or it is not the one that wrapped the keys of this store.
            StoreUnavailable: The store cannot be used.
        """
        return self.begin_epoch() if self._epoch is None else self._epoch.epoch

    def begin_epoch(self) -> int:
        """Begin another epoch; returns its number. Raises as `epoch`."""
        self._epoch = self._new_epoch()
        self._next.clear()
        self._changes += 1
        return self._epoch.epoch

    def _new_epoch(self) -> BusEpoch:
        self.wrapping.require_master()
        if not self._last:
            self._store.end_epochs(self._owner)
            self._let_old_go()
        number = self._last = max(self._store.last_epoch(), self._last) + 1
        secret = self._random(AES_KEY_BYTES)
        wrapped = self.wrapping.wrap(secret, "epoch", "", number)
        made = BusEpoch(number, self._owner, wrapped, rfc3339(self._clock.now_ns()))
        self._secrets[number] = secret
        self._undurable[made] = None
        return made

    def _let_old_go(self) -> None:
        """Destroy the private parts of generations that no epoch has use for any more."""
        least = min((one.epoch for one in self._store.epochs()), default=self._store.last_epoch() + 1)
        at = rfc3339(self._clock.now_ns())
        before: AgentKeys | None = None
        for kept in self._store.all_agent_keys():
            if before is not None and before.agent == kept.agent and before.wrapped is not None and kept.epoch <= least:
                self._store.destroy_agent_keys(kept.agent, before.generation, at)
            before = kept

    def rotate(self, agent: AgentId) -> AgentKeys:
        """Give an agent key pairs of another generation, which count from a new epoch on; raises as `epoch`.

        What was sealed before can be opened as long as its epoch lasts; the process that ends that destroys the older pairs.
        """
        self._generations(agent)
        made = self._make(agent, self.begin_epoch()).kept
        self._store.put_agent_keys(made)
        self._rotated.add(made)
        return made

    def _forget_undone(self) -> None:
        """Forget what a rotation made that was undone: no other transaction writes it, for the trail would not tell of it."""
        for made in tuple(self._rotated):
            if all(one.signing_id != made.signing_id for one in self._store.agent_keys(made.agent)):
                self._rotated.discard(made)
                self._undurable.pop(made, None)
                self._agents.pop(made.agent, None)
                self._changes += 1

    def forget(self, agent: AgentId, upto: int | None = None) -> int:
        """Destroy the private parts of an agent that is gone for good; returns of how many generations.

        What was sent to it and was not opened cannot be opened any more. What it has sent still can.

        Args:
            agent: The agent.
            upto: The last generation; all if None.

        Raises:
            StoreUnavailable: The store cannot be written.
        """
        self.flush()
        last = max((one.generation for one in self._store.agent_keys(agent)), default=0)
        count = self._store.destroy_agent_keys(agent, last if upto is None else upto, rfc3339(self._clock.now_ns()))
        self._agents.pop(agent, None)
        self._changes += 1
        if self._epoch is not None:
            self.begin_epoch()  # should it come back, its new keys are none of the epoch that has ended
        return count

    # --- BusKeys ----------------------------------------------------------------------------------

    def generation(self, _now_ns: int) -> int:
        """Changes when an epoch begins, or keys are rotated or destroyed."""
        self._forget_undone()
        return self._changes

    def signing_key(self, agent: AgentId) -> SigningKey:
        """The newest signing key of an agent, made at first use."""
        self.wrapping.require_master()
        return self._newest(agent).signing

    def public_key(self, key_id: KeyId) -> tuple[AgentId, VerifyingKey] | None:
        """Whose key that is; also one whose private part was destroyed."""
        made = tuple(self._undurable)  # at once: what is durable leaves it on another thread
        kept = next((one for one in made if isinstance(one, AgentKeys) and one.signing_id == key_id), None)
        kept = kept or self._store.agent_keys_by(key_id)
        return None if kept is None else (kept.agent, VerifyingKey(kept.signing, self._provider))

    def pair_key(self, sender: AgentId, recipient: AgentId, epoch: int) -> bytes:
        """The key for messages of one agent to another, or to one of its instances."""
        secret = self._epoch_secret(epoch)
        private = self._of_epoch(declared_of(recipient), epoch)
        theirs = self._public(declared_of(sender), epoch)
        mixed = private.shared_with(theirs, secret)
        if mixed is None:
            raise MessageRefused(f"agent `{sender}` has no X25519 key", code="message.recipient")
        return pair_key(self._provider, mixed, (theirs, private.kept.agreement), (sender, recipient), epoch)

    def group_key(self, topic: str, epoch: int) -> bytes:
        """The key of a topic."""
        found = self._groups.get((topic, epoch))
        if found is None:
            self.wrapping.require_master()
            kept = next((one for one in self._store.groups(topic) if one.epoch == epoch), None)
            if kept is None:
                raise MessageRefused(f"there is no epoch {epoch} of the topic", code="message.epoch")
            found = self._groups[topic, epoch] = self.wrapping.unwrap(kept.wrapped, "group", topic, epoch)
        return found

    def group_epoch(self, topic: str, *, anew: bool = False) -> int:
        """The epoch of a topic in which this owner seals; begun at first use, and on request: a member has left.

        Raises as `epoch`.
        """
        number = self._group_epochs.get(topic)
        if number is not None and not anew and topic not in self._stale:
            return number
        self.wrapping.require_master()
        if not self._groups_seen:
            self._end_earlier_groups()
        kept = self._store.groups(topic)
        number = max([one.epoch for one in kept] + [number or 0]) + 1
        if len(kept) >= self._most_groups.get(topic, MAX_GROUPS):
            self._end_old_groups(topic, kept)
        secret = self._random(AES_KEY_BYTES)
        wrapped = self.wrapping.wrap(secret, "group", topic, number)
        self._groups[topic, number] = secret
        self._group_epochs[topic] = number
        self._stale.discard(topic)
        self._undurable[GroupKey(topic, number, wrapped, rfc3339(self._clock.now_ns()))] = None
        self._changes += 1
        return number

    def _end_earlier_groups(self) -> None:
        """End what earlier owners have begun and nothing is kept under; the last of each topic stays, for its number."""
        self._groups_seen = True
        needed = self._store.needed_groups()
        for topic, last in self._store.last_groups().items():
            self.end_groups(topic, min(last, needed.get(topic, last)))

    def _end_old_groups(self, topic: str, kept: Sequence[GroupKey]) -> None:
        """End epochs of a topic under which nothing is kept, nor on its way to be.

        What is kept is looked through once for as many epochs as are left at least, however many come.
        """
        over = rfc3339(self._clock.now_ns() - GROUP_GRACE_NS)
        before = max((one.epoch for one in kept if one.begun_at <= over), default=0)
        ended = self.end_groups(topic, min(before, self._store.needed_groups().get(topic, before)))
        self._most_groups[topic] = max(MAX_GROUPS, 2 * (len(kept) - ended))

    def end_groups(self, topic: str, before: int) -> int:
        """Destroy the keys of a topic before an epoch; returns how many. What was sealed under them opens no more."""
        self.flush()
        for name, epoch in tuple(self._groups):
            if name == topic and epoch < before:
                del self._groups[name, epoch]
        for one in tuple(self._undurable):
            if isinstance(one, GroupKey) and one.topic == topic and one.epoch < before:
                self._undurable.pop(one, None)  # else the next transaction would write again what this one destroys
        self._changes += 1
        return self._store.end_groups(topic, before)

    # --- BusSequences -----------------------------------------------------------------------------

    def reserve(self, sender: AgentId, address: Address, count: int) -> Block:
        """The next sequences of a sender: counted in memory, for the epoch is this owner's alone.

        What is counted is forgotten only with the key under which it counts: an epoch of agents and one of a topic end
        apart from each other.
        """
        if address.is_topic:
            return self._reserve_published(sender, address.name, count)
        where = (sender, AgentId(address.name))
        if where not in self._next and len(self._next) >= MAX_COUNTED:
            self.begin_epoch()
        epoch = self.epoch
        for agent in where:  # have keys before another epoch begins, and this message has none of its own
            self._newest(declared_of(agent))
        first = self._next.get(where, 1)
        self._next[where] = first + count
        return Block(epoch, first)

    def _reserve_published(self, sender: AgentId, topic: str, count: int) -> Block:
        if len(self._published) >= MAX_COUNTED:
            self._stale.update(self._group_epochs)
            self._published.clear()
        epoch = self.group_epoch(topic)
        where = (sender, topic, epoch)
        first = self._published.get(where, 1)
        self._published[where] = first + count
        return Block(epoch, first)

    def admit(
        self, reader: AgentId, sender: AgentId, address: Address, epoch: int, sequences: Sequence[int]
    ) -> list[bool]:
        """For each sequence whether it comes for the first time, ever; it has come once the transaction is durable.

        For whoever is not addressed, nothing comes.

        Raises:
            InternalError: The address is a topic, whose readers each have a window, and the store keeps none of them.
        """
        _require_agent(address)
        if reader != address.name:
            return [False] * len(sequences)
        seen = self._store.seen(sender, address.name, epoch)
        admitted: list[bool] = []
        for sequence in sequences:
            more = seen.with_one(sequence)
            admitted.append(more is not None)
            seen = more or seen
        if any(admitted):
            self._store.put_seen(sender, address.name, epoch, seen)
        return admitted

    def has_come(self, sender: AgentId, address: Address, epoch: int, sequence: int) -> bool:
        """Whether a sequence has come to the agent that it is for; nothing changes. Raises as `admit`."""
        _require_agent(address)
        return self._store.seen(sender, address.name, epoch).with_one(sequence) is None

    # --- key pairs --------------------------------------------------------------------------------

    def _generations(self, agent: AgentId) -> list[KeyPairs]:
        """All generations of an agent whose private parts are there; the newest last."""
        self._forget_undone()
        found = self._agents.get(agent)
        if found is None:
            rows = self._rows(agent).items()
            found = self._agents[agent] = [self._load(one) for _, one in sorted(rows) if one.wrapped is not None]
        return found

    def _rows(self, agent: AgentId) -> dict[int, AgentKeys]:
        """By generation, what an agent has and had: what stands in the store, and what is not known to be durable."""
        made = {
            one.generation: one for one in tuple(self._undurable) if isinstance(one, AgentKeys) and one.agent == agent
        }
        return made | {one.generation: one for one in self._store.agent_keys(agent)}  # the store says what is destroyed

    def _newest(self, agent: AgentId) -> KeyPairs:
        found = self._generations(agent)
        if found:
            return found[-1]
        return self._make(agent, self.epoch)

    def _of_epoch(self, agent: AgentId, epoch: int) -> KeyPairs:
        """The pairs that an agent has in an epoch; made where that is the one in force.

        Raises:
            MessageRefused: It has none, or they were destroyed.
        """
        for one in reversed(self._generations(agent)):
            if one.kept.epoch <= epoch:
                return one
        if self._epoch is not None and epoch == self._epoch.epoch:
            return self._newest(agent)
        raise MessageRefused(f"agent `{agent}` has no keys of epoch {epoch}", code="message.epoch")

    def _public(self, agent: AgentId, epoch: int) -> bytes:
        """The public X25519 key that an agent has in an epoch, also where the private part was destroyed."""
        if self._epoch is not None and epoch == self._epoch.epoch:
            return self._newest(agent).kept.agreement
        known = [one.kept for one in self._generations(agent)]  # some of them are not in the store yet
        for one in reversed([*self._store.agent_keys(agent), *known]):
            if one.epoch <= epoch:
                return one.agreement
        raise MessageRefused(f"agent `{agent}` has no keys of epoch {epoch}", code="message.epoch")

    def _make(self, agent: AgentId, epoch: int) -> KeyPairs:
        self.wrapping.require_master()
        generation = max(self._rows(agent), default=0) + 1  # no number twice: what is there is not written over
        secret = self._random(SEED_BYTES) + self._random(AGREEMENT_BYTES)
        signing = SigningKey(secret[:SEED_BYTES], self._provider)
        agreement = self._provider.agreement(secret[SEED_BYTES:])
        kept = AgentKeys(
            agent, generation, epoch, signing.key_id, signing.verifying_key().public, agreement.public,
            self.wrapping.wrap(secret, "agent", agent, generation), rfc3339(self._clock.now_ns()),
        )  # fmt: skip
        made = KeyPairs(kept, secret, self._provider)
        self._agents.setdefault(agent, []).append(made)
        self._undurable[kept] = None
        return made

    def _load(self, kept: AgentKeys) -> KeyPairs:
        assert kept.wrapped is not None
        return KeyPairs(kept, self.wrapping.unwrap(kept.wrapped, "agent", kept.agent, kept.generation), self._provider)

    def _epoch_secret(self, epoch: int) -> bytes:
        secret = self._secrets.get(epoch)
        if secret is None:
            self.wrapping.require_master()
            kept = next((one for one in self._store.epochs() if one.epoch == epoch), None)
            if kept is None:
                raise MessageRefused(f"epoch {epoch} is over, or has never begun", code="message.epoch")
            secret = self._secrets[epoch] = self.wrapping.unwrap(kept.wrapped, "epoch", "", epoch)
        return secret


def _require_agent(address: Address) -> None:
    if address.is_topic:
        msg = "the store keeps what has come to agents, and not what readers of a topic have had"
        raise InternalError(msg, code="internal.sequences")


def declared_of(agent: AgentId) -> AgentId:
    """An agent as its file declares it; whose instances all have its keys."""
    return AgentId(agent.partition("/")[0])
