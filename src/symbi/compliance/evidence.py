"""Where a report takes its facts from: the events of a trail that was verified, and proofs that they stand in it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

from symbi.audit.event import AuditEvent
from symbi.crypto.merkle import Nodes, inclusion_proof


@dataclass(frozen=True, slots=True)
class Inclusion:
    """That one event stands in the trail that a checkpoint is about.

    Attributes:
        leaf: Hash of the event's record as a leaf of the tree; 32 bytes.
        path: Hashes up to the root, each of 32 bytes.
    """

    leaf: bytes
    path: tuple[bytes, ...]


class Evidence(Protocol):
    """A trail that was verified, as it stood at one moment."""

    def events(self) -> Iterator[AuditEvent]:
        """All events, oldest first.

        Raises:
            StoreUnavailable: The trail cannot be read.
        """

    def inclusion(self, sequence: int) -> Inclusion:
        """The proof that an event stands in the tree of the checkpoint.

        Raises:
            StoreUnavailable: The trail cannot be read.
        """

    def up_to(self, size: int, checkpoint: bytes | None) -> "Evidence":
        """The same trail as it stood at an earlier checkpoint."""

    @property
    def checkpoint(self) -> bytes | None:
        """The signed note that proofs are against; None where the trail is empty."""

    @property
    def size(self) -> int:
        """How many events there are."""


class TrailEvidence:
    """A trail of which events are read anew as they are asked for.

    Args:
        size: How many events there are.
        checkpoint: The signed note over all of them; None where there are none.
        read: Reads all events, oldest first.
        nodes: Hashes of complete subtrees over the records.
    """

    def __init__(
        self,
        size: int,
        checkpoint: bytes | None,
        read: Callable[[], Iterable[AuditEvent]],
        nodes: Nodes,
    ) -> None:
        self._size = size
        self._checkpoint = checkpoint
        self._read = read
        self._nodes = nodes

    @property
    def checkpoint(self) -> bytes | None:
        """The signed note that proofs are against."""
        return self._checkpoint

    @property
    def size(self) -> int:
        """How many events there are."""
        return self._size

    def events(self) -> Iterator[AuditEvent]:
        """All events, oldest first."""
        return iter(self._read())

    def inclusion(self, sequence: int) -> Inclusion:
        """The proof that an event stands in the tree of the checkpoint."""
        index = sequence - 1
        return Inclusion(self._nodes(0, index), tuple(inclusion_proof(index, self._size, self._nodes)))

    def up_to(self, size: int, checkpoint: bytes | None) -> "TrailEvidence":
        """The same trail as it stood at an earlier checkpoint."""
        return TrailEvidence(size, checkpoint, lambda: islice(self._read(), size), self._nodes)


def no_evidence() -> TrailEvidence:
    """Of a trail that has no event."""

    def none(_level: int, _index: int) -> bytes:
        msg = "an empty tree has no nodes"
        raise ValueError(msg)

    return TrailEvidence(0, None, tuple, none)


def listed(events: Sequence[AuditEvent], checkpoint: bytes | None, nodes: Nodes) -> TrailEvidence:
    """Of events that are in memory, all of a trail."""
    return TrailEvidence(len(events), checkpoint, lambda: events, nodes)
