"""The port to durable storage of the trail."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """One event as it stands in the store.

    Attributes:
        sequence: 1, 2, 3 …
        record: Canonical JSON of the whole event.
        chain_hash: Hex, repeated from the record, for the next link.
    """

    sequence: int
    record: bytes
    chain_hash: str


class AuditStore(Protocol):
    """Appends events and their signed head in transactions; the methods block and run on one thread."""

    def transaction(self) -> AbstractContextManager[None]:
        """One transaction, durable when it is left without an error, undone otherwise.

        Raises:
            StoreUnavailable: The store cannot begin or commit: locked, full, read-only, corrupt or closed.
        """

    def savepoint(self) -> AbstractContextManager[None]:
        """A part of the running transaction that is undone alone if it raises."""

    def append(self, events: list[StoredEvent], head: bytes) -> None:
        """Add events and replace the signed head, inside the running transaction.

        Raises:
            StoreUnavailable: The store cannot be written.
        """

    def head(self) -> tuple[StoredEvent, bytes] | None:
        """The last event and the signed head (canonical JSON), or None where the trail is empty.

        Raises:
            StoreUnavailable: The store cannot be read.
        """

    def read(self, first: int, last: int | None = None) -> Iterator[StoredEvent]:
        """Events from sequence `first` to `last` (inclusive; None reads to the end), in order.

        Raises:
            StoreUnavailable: The store cannot be read.
        """
