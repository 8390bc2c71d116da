"""The port to durable storage of the trail."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple, Protocol


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


class EventIndex(NamedTuple):
    """What an event is found by; repeated from its record. A tuple, for one is made for each event that is written.

    Attributes:
        agent_id: On whose behalf it happened.
        run_id: The run it belongs to, or empty.
        event_type: What it tells.
        verdict: Of a decision; empty elsewhere.
        policies: The ids of those that made a decision; none elsewhere.
    """

    agent_id: str
    run_id: str
    event_type: str
    verdict: str
    policies: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Tile:
    """A complete tile of the Merkle tree: 256 hashes of one level.

    Attributes:
        level: 0 for the hashes of the leaves; each level above holds the roots of the tiles below it.
        number: 0, 1, 2 … within its level.
        hashes: 256 times 32 bytes.
    """

    level: int
    number: int
    hashes: bytes


@dataclass(frozen=True, slots=True)
class TrailCommit:
    """What one commit adds to the trail.

    Attributes:
        events: In order; they follow those of the store.
        index: What each is found by, in the same order.
        tiles: Those of the tree that became complete.
        head: The checkpoint over all events up to the last of these (a signed note), which replaces the head.
        keep: Whether the head is kept as a checkpoint too.
    """

    events: Sequence[StoredEvent]
    index: Sequence[EventIndex]
    tiles: Sequence[Tile]
    head: bytes
    keep: bool = False


class TreeSource(Protocol):
    """What Merkle trees and proofs are made from."""

    def tile(self, level: int, number: int) -> bytes | None:
        """The 256 hashes of a complete tile, or None where it is not complete.

        Raises:
            StoreUnavailable: The store cannot be read.
            ChainBroken: It is not stored as a tile is.
        """

    def record(self, sequence: int) -> bytes:
        """The record of one event.

        Raises:
            StoreUnavailable: The store cannot be read.
            ChainBroken: There is no such event in the store.
        """


class CheckpointStore(Protocol):
    """Keeps the head, which is the newest checkpoint, and those before it that are to last."""

    def put_checkpoint(self, size: int, note: bytes) -> None:
        """Keep a checkpoint, or replace the one of that size by one with more signatures, inside the transaction.

        Raises:
            StoreUnavailable: The store cannot be written.
        """

    def put_head(self, note: bytes) -> None:
        """Replace the head alone, inside the running transaction.

        Raises:
            StoreUnavailable: The store cannot be written.
        """

    def checkpoints(self, first: int, last: int | None = None) -> Iterator[tuple[int, bytes]]:
        """The kept checkpoints with a size from `first` to `last`, and the sizes, in order.

        Raises:
            StoreUnavailable: The store cannot be read.
        """

    def last_checkpoint(self) -> int:
        """The size of the newest kept checkpoint; 0 where there is none.

        Raises:
            StoreUnavailable: The store cannot be read.
        """


class AuditStore(TreeSource, CheckpointStore, Protocol):
    """Appends events and their signed head in transactions; the methods block and run on one thread."""

    def transaction(self) -> AbstractContextManager[None]:
        """One transaction, durable when it is left without an error, undone otherwise.

        Raises:
            StoreUnavailable: The store cannot begin or commit: locked, full, read-only, corrupt or closed.
        """

    def savepoint(self) -> AbstractContextManager[None]:
        """A part of the running transaction that is undone alone if it raises."""

    def append(self, commit: TrailCommit) -> None:
        """Add events with what they are found by and their tiles, and replace the head, inside the running transaction.

        Raises:
            StoreUnavailable: The store cannot be written.
        """

    def head(self) -> tuple[StoredEvent, bytes] | None:
        """The last event and the head (a signed note), or None where the trail is empty.

        Raises:
            StoreUnavailable: The store cannot be read.
        """

    def read(self, first: int, last: int | None = None) -> Iterator[StoredEvent]:
        """Events from sequence `first` to `last` (inclusive; None reads to the end), in order.

        Raises:
            StoreUnavailable: The store cannot be read.
        """
