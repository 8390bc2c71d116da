"""What a codec is told of keys, epochs and sequences. Whoever implements it keeps them; in memory for tests: `symbi.testing.bus`."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from symbi.bus.envelope import Address
from symbi.crypto.signing import SigningKey, VerifyingKey
from symbi.types import AgentId, KeyId


class BusKeys(Protocol):
    """The keys of agents and topics, in memory: no method waits for anything."""

    def generation(self, now_ns: int) -> int:
        """A number that has changed when anything that the other methods told may not hold any more.

        A codec asks once for each call of its own, and forgets what it knows when the number is another: a key was
        revoked, an epoch began, an old epoch's time is up by `now_ns`.
        """

    def signing_key(self, agent: AgentId) -> SigningKey:
        """The key with which an agent signs; made at first use.

        Raises:
            MessageRefused: `message.signature`; it has none and gets none.
        """

    def public_key(self, key_id: KeyId) -> tuple[AgentId, VerifyingKey] | None:
        """Whose key that is, and the key; None where it is nobody's, or is not believed any more."""

    def pair_key(self, sender: AgentId, recipient: AgentId, epoch: int) -> bytes:
        """32 bytes for messages of one agent to another, by `symbi.bus.sealing.pair_key`; another key each way.

        Raises:
            MessageRefused: `message.epoch`; the epoch has not begun, or is older than those that are taken.
                `message.recipient`; there is no such agent.
        """

    def group_key(self, topic: str, epoch: int) -> bytes:
        """32 random bytes of a topic and epoch; each sender's own key is made from them by `symbi.bus.sealing.topic_key`.

        Raises:
            MessageRefused: `message.epoch`; likewise.
        """


class Block(NamedTuple):
    """Sequences that nobody else has or gets.

    Attributes:
        epoch: In which they count: the one that is in force for the address.
        first: The first of them, from 1.
    """

    epoch: int
    first: int


class BusSequences(Protocol):
    """Which sequences were given out and which have come; no method waits for anything."""

    def reserve(self, sender: AgentId, address: Address, count: int) -> Block:
        """The next `count` sequences, one after the other, in the epoch that is in force for the address.

        A sequence is a nonce: none may be given out twice for one sender, address and epoch, whatever happens. Whoever
        keeps them has made durable that they are taken before this returns.

        Raises:
            MessageRefused: `message.recipient`; there is no such address.
            Overloaded: None are reserved, and they cannot be without waiting.
        """

    def admit(
        self, reader: AgentId, sender: AgentId, address: Address, epoch: int, sequences: Sequence[int]
    ) -> list[bool]:
        """For each sequence, in order, whether the reader has it for the first time; it is taken as come then.

        Only asked about messages whose signature and seal are right.
        """
