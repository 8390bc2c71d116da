"""What the bus asks of whatever carries its messages.

A subject is words with dots between them, a filter a subject in which `*` stands for one word and `>`, at the end, for
all that are left (`symbi.bus.topics`). Whoever carries knows neither agents nor policies, and sees sealed bytes alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from symbi.bus.parcels import ConsumerTerms, Delivery, Parcel
from symbi.types import JsonValue


class Consumer(Protocol):
    """One who gets messages."""

    def take(self, most: int) -> Sequence[Delivery]:
        """The next messages, in their order; none where there are none. Does not wait: `wake` tells when to come."""

    async def acknowledge(self, positions: Sequence[int]) -> None:
        """Let a durable one get these never again; of an ephemeral one nothing is to be said."""

    async def refuse(self, position: int, after_s: float) -> None:
        """Let a durable one get this again, so many seconds later, before what comes behind it is let go of."""

    def standing(self) -> tuple[int, int]:
        """Messages that wait for it, and those that were dropped because its buffer was full."""

    async def close(self) -> None:
        """Let it get nothing more. A durable one goes on at its position when it is opened again by its name."""


class Transport(Protocol):
    """Carries messages. One that is full or slow at one consumer is neither at the others."""

    async def publish(self, subject: str, parcels: Sequence[Parcel]) -> int:
        """Hand messages to whoever consumes a subject, in their order, and to the streams that keep it.

        Returns:
            How many consumers got them; those of other processes may not be counted.

        Raises:
            InputError: `message.subject`; a stream would keep what it may not: nobody got any.
            Overloaded: A consumer refuses where its buffer is full, and it is: nobody got any.
            StoreUnavailable: A stream cannot keep them.
        """

    async def consume(self, subject: str, terms: ConsumerTerms, wake: Callable[[], None]) -> Consumer:
        """Begin to get what is published on whatever fits a filter.

        Args:
            subject: The filter.
            terms: How it is served.
            wake: Called on the event loop where there is something to take after there was nothing; it does not wait.

        Raises:
            InputError: The name of a durable one is open already, or stands for another filter.
            StoreUnavailable: Its position cannot be kept.
        """

    async def forget(self, durable: str) -> None:
        """Let go of the position of a durable consumer that is not open; one that is not there is not."""


@dataclass(frozen=True, slots=True)
class StreamRow:
    """A message that the stream keeps."""

    position: int
    subject: str
    message_id: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a durable consumer stands: up to `position` it has acknowledged everything."""

    name: str
    subject: str
    position: int


class StreamStore(Protocol):
    """Keeps the stream; the methods run on the store's thread, those that write inside its transaction."""

    def append_stream(self, rows: Sequence[StreamRow]) -> None:
        """Keep messages."""

    def stream_rows(self, after: int, limit: int) -> Sequence[StreamRow]:
        """What is kept behind a position, in order."""

    def trim_stream(self, upto: int) -> None:
        """Let go of what is kept up to a position."""

    def cursors(self) -> Sequence[Cursor]:
        """Where durable consumers stand."""

    def put_cursor(self, cursor: Cursor, *, gone: bool = False) -> None:
        """Note where one stands, or that it is gone."""


class SentState(StrEnum):
    """Where a message of the outbox stands."""

    WAITING = "waiting"
    """It is to be received."""
    RECEIVED = "received"
    """It was; its id is kept for a while, so that it is not taken for a new one."""
    DEAD = "dead"
    """It was given up, and is kept until somebody decides."""
    DROPPED = "dropped"
    """Somebody gave it up for good."""


@dataclass(frozen=True, slots=True)
class SentRow:
    """A message of the outbox.

    Attributes:
        message_id, sender, recipient: As its sender gave them.
        wire: The sealed bytes; empty once nobody is to get them.
        state: Where it stands.
        attempts: How often its receiver has failed, or was not done when the process ended.
        due_ns: Not before then.
        expires_ns: Not after then; 0 for never.
        code: Of the error for which it was given up.
        changed_ns: When it came to its state.
        epoch: In which it was sealed, so that its keys are kept as long as it is.
        position: Its place; 0 before it has one.
    """

    message_id: str
    sender: str
    recipient: str
    wire: bytes
    state: SentState
    attempts: int
    due_ns: int
    expires_ns: int
    code: str
    changed_ns: int
    epoch: int = 0
    position: int = 0


@dataclass(frozen=True, slots=True)
class DeadMessage:
    """A message that was given up."""

    message_id: str
    sender: str
    recipient: str
    code: str
    attempts: int
    changed_ns: int
    size: int

    def facts(self) -> dict[str, JsonValue]:
        """As JSON."""
        return {name: getattr(self, name) for name in self.__slots__}


class SentReader(Protocol):
    """What is asked of an outbox without an effect; the methods run on the store's thread."""

    def awaited_sent(self, declared: str, now_ns: int) -> str | None:
        """Of a declaration and its instances, one for which something waits whose time is not over."""

    def dead_sent(self, recipient: str, limit: int, beyond: int = 0) -> Sequence[DeadMessage]:
        """Messages that were given up, newest first; for everybody where the recipient is empty.

        Args:
            recipient: A declaration and all its instances, or one instance.
            limit: How many at most.
            beyond: The newest that are left out.
        """


class OutboxStore(SentReader, Protocol):
    """Keeps what `send_message` has taken over; the methods run on the store's thread, those that write inside its transaction."""

    def put_sent(self, row: SentRow, most: int) -> bool:
        """Keep a message behind all others; no where so many wait for its recipient already.

        Raises:
            InternalError: Its id is there already.
        """

    def find_sent(self, message_id: str) -> SentRow | None:
        """A message by its id."""

    def sent(self, state: SentState, recipient: str, after: int, limit: int) -> Sequence[SentRow]:
        """Messages in a state behind a position, in order; for everybody where the recipient is empty."""

    def move_sent(self, row: SentRow, was: SentState) -> bool:
        """Put a message where it stands now, if it still stands where the caller saw it."""

    def trim_sent(self, before_ns: int) -> int:
        """Forget what was received or dropped before a time; how many those were."""
