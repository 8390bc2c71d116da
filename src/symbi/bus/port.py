"""What the bus asks of whatever carries its messages.

A subject is words with dots between them, a filter a subject in which `*` stands for one word and `>`, at the end, for
all that are left (`symbi.bus.topics`). Whoever carries knows neither agents nor policies, and sees sealed bytes alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class Overflow(StrEnum):
    """What becomes of a message where the buffer of a consumer is full."""

    OLDEST = "oldest"
    """The oldest in the buffer makes room."""
    NEWEST = "newest"
    """The one that comes is dropped."""
    REFUSE = "refuse"
    """Whoever sends is refused, and nobody gets it."""


class Parcel:
    """A sealed message on its way; one object for all who get it in a process.

    Attributes:
        message_id: Of the message; a stream takes the same one once.
        data: The sealed bytes.
        opened: What it says, kept by whoever opened it first in this process, so that a message for many is opened once.
        version: The policy set that let it pass in this process; empty where that was elsewhere.
    """

    __slots__ = ("data", "message_id", "opened", "version")

    def __init__(self, message_id: str, data: bytes, version: str = "") -> None:
        self.message_id = message_id
        self.data = data
        self.version = version
        self.opened: object = None


@dataclass(frozen=True, slots=True)
class ConsumerTerms:
    """How a consumer is served.

    Attributes:
        durable: Its name, under which its position is kept while it is away; empty for one that lives as long as it is open.
        start: Position of the first message that a durable one gets where it is new; 0 for what comes from now on.
        most: Messages in its buffer at most; of a durable one, those that are taken and not acknowledged.
        most_bytes: Bytes likewise.
        overflow: What becomes of a message where the buffer is full; a durable one has its messages in the stream, and drops none.
        again_s: Seconds after which a durable one gets a message again that it took and did not acknowledge.
    """

    durable: str = ""
    start: int = 0
    most: int = 1024
    most_bytes: int = 16 * 1024 * 1024
    overflow: Overflow = Overflow.OLDEST
    again_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message as a consumer gets it.

    Attributes:
        subject: Where it was published.
        parcel: The message.
        position: Its place in the stream, from 1; 0 where no stream keeps it.
        attempt: How often this consumer has got it, this time included.
    """

    subject: str
    parcel: Parcel
    position: int = 0
    attempt: int = 1


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
        attempts: How often its receiver has failed.
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


class OutboxStore(Protocol):
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
