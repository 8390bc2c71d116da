"""The keys and sequences of the bus where nobody may wait for the store: copies of what the book of keys has made.

A sender takes a block of sequences from the book before it seals, durably, and counts in it from there: whatever crashes
skips what is left of it, and never gives one out again. Keys of this owner's epochs alone are at hand. So a message that
was sealed before a restart opens here no more, and there is nothing that it could be repeated to; what the store keeps
beyond a crash is opened where it is kept.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Protocol

from symbi.audit.event import Draft
from symbi.bus.envelope import Address
from symbi.bus.keybook import KeyBook
from symbi.bus.keys import Block
from symbi.bus.seen import Arrivals
from symbi.bus.topics import covers
from symbi.crypto.signing import SigningKey, VerifyingKey
from symbi.errors import MessageRefused, Overloaded
from symbi.types import AgentId, KeyId

BLOCK: Final = 65_536  # sequences that a sender takes for an address at once
MAX_AT_HAND: Final = (
    262_144  # keys, and what has come under them; when there are more, those of epochs before the last two are let go
)


class Transact(Protocol):
    """Runs a unit of work in the store's transaction, with what the book has made; `symbi.runtime.sealed_mail.transact`."""

    def __call__(self, work: Callable[[], tuple[Any, Sequence[Draft]]]) -> Awaitable[Any]:
        """Return what the work returns, once it is durable."""


class _Taken:
    """A block of sequences."""

    __slots__ = ("end", "epoch", "next")

    def __init__(self, block: Block, count: int) -> None:
        self.epoch = block.epoch
        self.next = block.first
        self.end = block.first + count


class KeysAtHand:
    """`symbi.bus.keys.BusKeys` and `BusSequences` on the event loop.

    Args:
        book: The keys, on the store's thread.
        transact: Runs work there.
    """

    def __init__(self, book: KeyBook, transact: Transact) -> None:
        self._book = book
        self._transact = transact
        self._signing: dict[AgentId, SigningKey] = {}
        self._public: dict[KeyId, tuple[AgentId, VerifyingKey]] = {}
        self._pairs: dict[tuple[AgentId, AgentId, int], bytes] = {}
        self._groups: dict[tuple[str, int], bytes] = {}
        self._blocks: dict[tuple[AgentId, Address], _Taken] = {}
        self._come: dict[tuple[AgentId, AgentId, Address, int], Arrivals] = {}
        self._changes = 0
        self._leavings: dict[str, int] = {}  # by topic that was ever asked for: how often somebody left it
        self._rekeyed: dict[str, int] = {}  # how many of them the key that is in force knows of
        self._most = MAX_AT_HAND

    async def ready(self, sender: AgentId, address: Address, count: int) -> None:
        """See to it that a sender has keys and sequences for so many messages to an address.

        Raises:
            ConfigError: There is no master key, or not the one that wrapped the keys of this store.
            Overloaded, StoreUnavailable: They cannot be made durable.
        """
        if address.is_topic:
            self._leavings.setdefault(address.name, 0)
        while not self._has(sender, address, count):
            await self._take(sender, address, max(count, BLOCK))

    def _has(self, sender: AgentId, address: Address, count: int) -> bool:
        taken = self._blocks.get((sender, address))
        return taken is not None and taken.end - taken.next >= count

    async def _take(self, sender: AgentId, address: Address, size: int) -> None:
        """Take a block, unless somebody leaves or keys are changed meanwhile: then what was taken is let go, unused."""
        changes, leavings = self._changes, self._left(address)
        anew = leavings > self._rekeyed.get(address.name, 0)

        def work() -> tuple[tuple[Block, SigningKey, bytes], Sequence[Draft]]:
            book = self._book
            if anew:
                book.group_epoch(address.name, anew=True)
            block, signing = book.reserve(sender, address, size), book.signing_key(sender)
            if address.is_topic:
                return (block, signing, book.group_key(address.name, block.epoch)), ()
            return (block, signing, book.pair_key(sender, AgentId(address.name), block.epoch)), ()

        block, signing, key = await self._transact(work)
        if anew:
            self._rekeyed[address.name] = max(leavings, self._rekeyed.get(address.name, 0))
        if changes != self._changes or leavings != self._left(address):
            return
        self._signing[sender] = signing
        self._public[signing.key_id] = sender, signing.verifying_key()
        if address.is_topic:
            self._groups[address.name, block.epoch] = key
        else:
            self._pairs[sender, AgentId(address.name), block.epoch] = key
        self._blocks[sender, address] = _Taken(block, size)
        self._let_old_go()

    def _let_old_go(self) -> None:
        """Bound what is at hand: of agents and of each topic, keys, and what has come under them, of the last two epochs are kept.

        What has come is forgotten with the key, and never without it: what comes under a key that is not at hand is not taken.
        """
        if len(self._pairs) + len(self._groups) + len(self._come) <= self._most:
            return
        last = max((epoch for _, _, epoch in self._pairs), default=0)
        last_of: dict[str, int] = {}
        for topic, epoch in self._groups:
            last_of[topic] = max(epoch, last_of.get(topic, 0))
        self._pairs = {of: key for of, key in self._pairs.items() if of[2] >= last - 1}
        self._groups = {of: key for of, key in self._groups.items() if of[1] >= last_of[of[0]] - 1}
        self._come = {of: come for of, come in self._come.items() if self._is_at_hand(of[1], of[2], of[3])}
        self._blocks = {of: taken for of, taken in self._blocks.items() if self._is_at_hand(of[0], of[1], taken.epoch)}
        self._most = max(MAX_AT_HAND, 2 * (len(self._pairs) + len(self._groups) + len(self._come)))
        self._changes += 1  # else whoever remembers a key opens again with it what has come before

    def _is_at_hand(self, sender: AgentId, address: Address, epoch: int) -> bool:
        if address.is_topic:
            return (address.name, epoch) in self._groups
        return (sender, AgentId(address.name), epoch) in self._pairs

    def _left(self, address: Address) -> int:
        return self._leavings[address.name] if address.is_topic else 0

    def left(self, pattern: str) -> None:
        """Somebody who listened by a pattern does not any more: what is published from now on has another key."""
        words = pattern.split(".")
        gone = {name for name in self._leavings if covers(words, name.split("."))}
        for name in gone:
            self._leavings[name] += 1
        self._blocks = {of: taken for of, taken in self._blocks.items() if not (of[1].is_topic and of[1].name in gone)}

    def changed(self, agent: AgentId, destroyed: bool) -> None:  # noqa: FBT001 - as `BusRooms.changed` says
        """An agent and its instances have other keys: what is sealed from now on has those.

        What waits in buffers is opened with the ones before, where they are not destroyed.
        """

        def is_its(name: str) -> bool:
            return name.partition("/")[0] == agent

        self._signing = {name: key for name, key in self._signing.items() if not is_its(name)}
        self._blocks = {
            of: taken
            for of, taken in self._blocks.items()
            if not (is_its(of[0]) or (not of[1].is_topic and is_its(of[1].name)))
        }
        if destroyed:
            self._pairs = {of: key for of, key in self._pairs.items() if not (is_its(of[0]) or is_its(of[1]))}
        self._changes += 1

    # --- BusKeys ----------------------------------------------------------------------------------

    def generation(self, _now_ns: int) -> int:
        """Changes where an agent's keys were; nothing else that was told ceases to hold."""
        return self._changes

    def signing_key(self, agent: AgentId) -> SigningKey:
        """As `BusKeys` says."""
        found = self._signing.get(agent)
        if found is None:
            raise MessageRefused("the sender has no key", code="message.signature")
        return found

    def public_key(self, key_id: KeyId) -> tuple[AgentId, VerifyingKey] | None:
        """As `BusKeys` says."""
        return self._public.get(key_id)

    def pair_key(self, sender: AgentId, recipient: AgentId, epoch: int) -> bytes:
        """As `BusKeys` says."""
        return _known(self._pairs.get((sender, recipient, epoch)))

    def group_key(self, topic: str, epoch: int) -> bytes:
        """As `BusKeys` says."""
        return _known(self._groups.get((topic, epoch)))

    # --- BusSequences -----------------------------------------------------------------------------

    def reserve(self, sender: AgentId, address: Address, count: int) -> Block:
        """The next sequences of the block that was taken."""
        taken = self._blocks.get((sender, address))
        if taken is None or taken.end - taken.next < count:
            msg = "the sender has taken no sequences yet"
            raise Overloaded(msg, retry_after_s=0.0)
        first, taken.next = taken.next, taken.next + count
        return Block(taken.epoch, first)

    def admit(
        self, reader: AgentId, sender: AgentId, address: Address, epoch: int, sequences: Sequence[int]
    ) -> list[bool]:
        """For each sequence whether it comes for the first time; in memory, for its epoch does not outlive the process."""
        stream = reader, sender, address, epoch
        come = self._come.get(stream)
        if come is not None:
            return come.admit(sequences)
        if not self._is_at_hand(sender, address, epoch):
            return [False] * len(sequences)
        come = self._come[stream] = Arrivals()
        answers = come.admit(sequences)
        self._let_old_go()
        return answers


def _known(key: bytes | None) -> bytes:
    if key is None:
        raise MessageRefused("the epoch has not begun here, or is over", code="message.epoch")
    return key
