"""`LiveKeys`: the keys of the bus in memory, for an event loop that seals and opens without a store between.

It seals in epochs of its own, each begun durably before the first message and counted in by nobody else, so that a
sequence is a number in memory. What came in an epoch of another process is not taken in here: after a restart no message
of before comes again. Whoever keeps messages opens them with `Codec.read`, which asks for keys alone.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

from symbi.bus.envelope import Address
from symbi.bus.keybook import MAX_COUNTED, KeyBook, KeyPairs, Live, declared_of, key_of_pair
from symbi.bus.keys import Block
from symbi.bus.keystore import AgentKeys
from symbi.bus.window import Window
from symbi.crypto.secret import Unpicklable
from symbi.crypto.signing import SigningKey, VerifyingKey
from symbi.errors import MessageRefused, Overloaded
from symbi.types import AgentId, KeyId

RETRY_AFTER_S: Final = 0.1  # a commit's length on a busy disk, roughly
NOT_READY: Final = "unavailable.keys"


class LiveKeys(Unpicklable):
    """`BusKeys` and `BusSequences` in memory.

    Args:
        book: Makes and finds keys.
        durably: Runs something on the store's thread in a transaction, with what the book has made, and returns once
            that is durable.
    """

    def __init__(self, book: KeyBook, durably: Callable[[Callable[[], Live]], Awaitable[Live]]) -> None:
        self._book = book
        self._durably = durably
        self._provider = book.provider
        self._changes = 0
        self._live: Live | None = None
        self._rows: dict[KeyId, tuple[AgentId, VerifyingKey]] = {}
        self._kept: dict[AgentId, dict[int, AgentKeys]] = {}  # by generation
        self._pairs: dict[AgentId, Sequence[KeyPairs]] = {}
        self._groups: dict[tuple[str, int], bytes] = {}
        self._group_epochs: dict[str, int] = {}
        self._epochs: list[int] = []  # of this process, the newest last
        self._ready: set[AgentId] = set()
        self._next: dict[tuple[AgentId, Address, int], int] = {}
        self._windows: dict[tuple[AgentId, AgentId, Address, int], Window] = {}

    async def ready(self, agents: Iterable[AgentId] = (), topics: Iterable[str] = ()) -> None:
        """See to it that agents and topics have keys; at once where they do. Await it before their messages are sealed.

        Raises:
            ConfigError: There is no master key, or it is not the one that wrapped the keys of this store.
            Overloaded, StoreUnavailable: Keys cannot be made durable.
        """
        wanted, names = {declared_of(agent) for agent in agents}, set(topics)
        live = self._live
        if live is None or len(self._next) >= MAX_COUNTED:
            await self._renew(0, wanted | self._ready, names | set(self._group_epochs))
        elif not (wanted <= self._ready and names <= self._group_epochs.keys()):
            await self._renew(live.epoch, wanted - self._ready, names - self._group_epochs.keys())

    async def renew(self) -> None:
        """Begin another epoch: keys were rotated, or destroyed. Raises as `ready`."""
        await self._renew(0, set(self._ready), set(self._group_epochs))

    async def rekey(self, topic: str) -> None:
        """Give a topic another key: somebody may not listen to it any more. Raises as `ready`."""
        epoch = self._live.epoch if self._live else 0

        def work() -> Live:
            self._book.group_epoch(topic, anew=True)
            return self._book.live(epoch, (), [topic])

        self._take(await self._durably(work), set())

    async def _renew(self, epoch: int, agents: set[AgentId], topics: set[str]) -> None:
        self._take(await self._durably(lambda: self._book.live(epoch, agents, topics)), agents)

    def _take(self, live: Live, agents: set[AgentId]) -> None:
        """Take in what is new, beside what is known."""
        self._live = live
        self._ready |= agents
        self._pairs |= live.pairs
        self._groups |= live.groups
        self._group_epochs |= live.group_epochs
        for one in live.rows:
            self._rows[one.signing_id] = one.agent, VerifyingKey(one.signing, self._provider)
            self._kept.setdefault(one.agent, {})[one.generation] = one
        if live.epoch not in self._epochs:
            self._epochs = [*self._epochs[-1:], live.epoch]  # and the one before, for what is on its way
            self._next = {where: number for where, number in self._next.items() if where[1].is_topic}
            kept = set(self._epochs)
            self._windows = {
                where: one for where, one in self._windows.items() if where[2].is_topic or where[3] in kept
            }
        self._changes += 1

    @property
    def _known(self) -> Live:
        if self._live is None:
            raise _not_ready()
        return self._live

    # --- BusKeys ----------------------------------------------------------------------------------

    def generation(self, _now_ns: int) -> int:
        """Changes with whatever `ready`, `renew` and `rekey` have brought."""
        return self._changes

    def signing_key(self, agent: AgentId) -> SigningKey:
        """The signing key of an agent that is ready."""
        return self._of_epoch(agent, self._known.epoch).signing

    def public_key(self, key_id: KeyId) -> tuple[AgentId, VerifyingKey] | None:
        """Whose key that is."""
        return self._rows.get(key_id)

    def pair_key(self, sender: AgentId, recipient: AgentId, epoch: int) -> bytes:
        """The key for messages of one agent to another."""
        secret = self._known.secrets.get(epoch)
        if secret is None:
            raise MessageRefused(f"epoch {epoch} is over, or has never begun", code="message.epoch")
        found = [one for one in self._kept.get(declared_of(sender), {}).values() if one.epoch <= epoch]
        if not found:
            raise MessageRefused(f"agent `{sender}` has no keys of epoch {epoch}", code="message.epoch")
        theirs = max(found, key=lambda one: one.generation).agreement
        private = self._of_epoch(declared_of(recipient), epoch)
        return key_of_pair(self._provider, secret, (private, theirs), (sender, recipient), epoch)

    def group_key(self, topic: str, epoch: int) -> bytes:
        """The key of a topic that is ready."""
        key = self._groups.get((topic, epoch))
        if key is None:
            raise MessageRefused(f"there is no epoch {epoch} of the topic", code="message.epoch")
        return key

    def _of_epoch(self, agent: AgentId, epoch: int) -> KeyPairs:
        for one in reversed(self._pairs.get(agent, ())):
            if one.kept.epoch <= epoch:
                return one
        raise MessageRefused(f"agent `{agent}` has no keys of epoch {epoch}", code="message.epoch")

    # --- BusSequences -----------------------------------------------------------------------------

    def reserve(self, sender: AgentId, address: Address, count: int) -> Block:
        """The next sequences of a sender; of agents and topics that are ready."""
        live = self._known
        epoch = self._group_epochs.get(address.name) if address.is_topic else live.epoch
        here = address.is_topic or declared_of(AgentId(address.name)) in self._ready
        if epoch is None or not here or sender not in self._ready:
            raise _not_ready()
        where = (sender, address, epoch)
        first = self._next.get(where, 1)
        self._next[where] = first + count
        return Block(epoch, first)

    def admit(
        self, reader: AgentId, sender: AgentId, address: Address, epoch: int, sequences: Sequence[int]
    ) -> list[bool]:
        """For each sequence whether it comes for the first time; nothing that another process has sealed does."""
        mine = self._group_epochs.get(address.name) if address.is_topic else None
        if (epoch not in self._epochs) if mine is None else (epoch != mine):
            return [False] * len(sequences)
        where = (reader, sender, address, epoch)
        window = self._windows.get(where)
        if window is None:
            window = self._windows[where] = Window()
        return window.admit(sequences)


def _not_ready() -> Overloaded:
    msg = "there are no keys for these messages yet"
    return Overloaded(msg, retry_after_s=RETRY_AFTER_S, code=NOT_READY)
