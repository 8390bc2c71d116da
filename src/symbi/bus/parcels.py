"""Sealed messages on their way, and how whoever gets them is served."""

from dataclasses import dataclass
from enum import StrEnum

import msgspec

from symbi.bus.envelope import id_text


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
        private: No stream may keep it: it is about a data subject, whose key would not seal it there.
        version: The policy set that let it pass in this process; empty where that was elsewhere.
    """

    __slots__ = ("_id", "data", "opened", "private", "version")

    def __init__(self, message_id: str | bytes, data: bytes, version: str = "", *, private: bool = False) -> None:
        self._id = message_id
        self.data = data
        self.version = version
        self.private = private
        self.opened: object = None

    @property
    def message_id(self) -> str:
        """A UUID in its canonical text form, where 16 bytes were given; else what was given."""
        return self._id if isinstance(self._id, str) else id_text(self._id)


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


class Delivery(msgspec.Struct, frozen=True, gc=False):
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
