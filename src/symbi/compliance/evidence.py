"""Where a report takes its facts from: the events of a trail that was verified, and proofs that they stand in it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from symbi.audit.event import AuditEvent
from symbi.crypto.merkle import Nodes, inclusion_proof
from symbi.errors import ChainBroken


@dataclass(frozen=True, slots=True)
class Inclusion:
    """That one event stands in the trail that a checkpoint is about.

    Attributes:
        leaf: Hash of the event's record as a leaf of the tree; 32 bytes.
        path: Hashes up to the root, each of 32 bytes.
    """

    leaf: bytes
    path: tuple[bytes, ...]


class Evidence:
    """A trail that was verified, as it stood at one moment; its events are read anew as they are asked for.

    Args:
        size: How many events there are.
        checkpoint: The signed note over all of them; None where there are none.
        read: Reads the events from one sequence number to another, both inclusive, oldest first.
        nodes: Hashes of complete subtrees over the records.
    """

    def __init__(
        self, size: int, checkpoint: bytes | None, read: Callable[[int, int], Iterable[AuditEvent]], nodes: Nodes
    ) -> None:
        self._size = size
        self._checkpoint = checkpoint
        self._read = read
        self._nodes = nodes

    @property
    def size(self) -> int:
        """How many events there are."""
        return self._size

    @property
    def checkpoint(self) -> bytes | None:
        """The signed note that proofs are against; None where there are no events."""
        return self._checkpoint

    @property
    def nodes(self) -> Nodes:
        """Hashes of complete subtrees over the records."""
        return self._nodes

    def events(self) -> Iterator[AuditEvent]:
        """All events, oldest first.

        Raises:
            StoreUnavailable: The trail cannot be read.
        """
        return iter(self._read(1, self._size) if self._size else ())

    def event_at(self, sequence: int) -> AuditEvent:
        """One event.

        Raises:
            ChainBroken: There is none of that number.
            StoreUnavailable: The trail cannot be read.
        """
        found = next(iter(self._read(sequence, sequence)), None) if 0 < sequence <= self._size else None
        if found is None:
            msg = f"the trail has no event {sequence}"
            raise ChainBroken(msg, sequence=sequence, reason="sequence")
        return found

    def inclusion(self, sequence: int) -> Inclusion:
        """The proof that an event stands in the tree of the checkpoint.

        Raises:
            StoreUnavailable: The trail cannot be read.
        """
        index = sequence - 1
        return Inclusion(self._nodes(0, index), tuple(inclusion_proof(index, self._size, self._nodes)))

    def up_to(self, size: int, checkpoint: bytes | None) -> "Evidence":
        """The same trail as it stood at an earlier checkpoint."""
        return Evidence(size, checkpoint, self._read, self._nodes)


def no_evidence() -> Evidence:
    """Of a trail that has no event."""

    def none(_level: int, _index: int) -> bytes:
        msg = "an empty tree has no nodes"
        raise ValueError(msg)

    return Evidence(0, None, lambda _first, _last: (), none)


def listed(events: Sequence[AuditEvent], checkpoint: bytes | None, nodes: Nodes) -> Evidence:
    """Of events that are in memory, all of a trail."""
    return Evidence(len(events), checkpoint, lambda first, last: events[first - 1 : last], nodes)
