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
MAX_PAIRS: Final = 131_072  # of which keys are at hand; the book begins another epoch after half as many


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
        self._anew: set[str] = set()  # topics that are to have another key

    async def ready(self, sender: AgentId, address: Address, count: int) -> None:
        """See to it that a sender has keys and sequences for so many messages to an address.

        Raises:
            ConfigError: There is no master key, or not the one that wrapped the keys of this store.
            Overloaded, StoreUnavailable: They cannot be made durable.
        """
        taken = self._blocks.get((sender, address))
        if taken is not None and taken.end - taken.next >= count:
            return
        size = max(count, BLOCK)
        anew = address.is_topic and address.name in self._anew
        self._anew.discard(address.name)

        def work() -> tuple[tuple[Block, SigningKey, bytes], Sequence[Draft]]:
            book = self._book
            if anew:
                book.group_epoch(address.name, anew=True)
            block, signing = book.reserve(sender, address, size), book.signing_key(sender)
            if address.is_topic:
                return (block, signing, book.group_key(address.name, block.epoch)), ()
            return (block, signing, book.pair_key(sender, AgentId(address.name), block.epoch)), ()

        while True:
            changes = self._changes
            block, signing, key = await self._transact(work)
            if changes == self._changes:  # keys that were destroyed meanwhile are not to be at hand again
                break
        self._signing[sender] = signing
        self._public[signing.key_id] = sender, signing.verifying_key()
        if address.is_topic:
            self._groups[address.name, block.epoch] = key
        else:
            self._bound(block.epoch)
            self._pairs[sender, AgentId(address.name), block.epoch] = key
        self._blocks[sender, address] = _Taken(block, size)

    def _bound(self, epoch: int) -> None:
        """Where there are too many pairs, let those go whose epoch is over: what of them waits opens here no more."""
        if len(self._pairs) < MAX_PAIRS:
            return
        self._pairs = {of: key for of, key in self._pairs.items() if of[2] >= epoch}
        self._blocks = {of: one for of, one in self._blocks.items() if of[1].is_topic or one.epoch >= epoch}
        self._come = {of: one for of, one in self._come.items() if of[2].is_topic or of[3] >= epoch}
        self._changes += 1

    def left(self, pattern: str) -> None:
        """Somebody who listened by a pattern does not any more: what is published from now on has another key."""
        words = pattern.split(".")
        for sender, address in [one for one in self._blocks if one[1].is_topic]:
            if covers(words, address.name.split(".")):
                del self._blocks[sender, address]
                self._anew.add(address.name)

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
        if come is None:
            come = self._come[stream] = Arrivals()
        return come.admit(sequences)


def _known(key: bytes | None) -> bytes:
    if key is None:
        raise MessageRefused("the epoch has not begun here, or is over", code="message.epoch")
    return key
