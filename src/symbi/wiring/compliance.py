"""What a report is made from: the store, read-only and verified, beside its owner if there is one."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from symbi.adapters.sqlite import SqliteReader
from symbi.audit.event import AuditEvent, parse_event
from symbi.audit.tree import nodes_of
from symbi.audit.verify import verify_trail
from symbi.compliance.evidence import TrailEvidence, no_evidence
from symbi.compliance.report import Trail
from symbi.config import Settings
from symbi.crypto.merkle import Nodes
from symbi.errors import ChainBroken, StoreUnavailable
from symbi.wiring.runtime import verifying_keys
from symbi.wiring.sources import open_reader


@dataclass(frozen=True, slots=True)
class VerifiedStore:
    """A store whose trail was verified, and stays as it was while this is open.

    Attributes:
        trail: The trail, for reports.
        reader: The store; None where there is none.
    """

    trail: Trail
    reader: SqliteReader | None

    def event_at(self, sequence: int) -> AuditEvent:
        """An event of the trail.

        Raises:
            ChainBroken: There is none of that number.
        """
        if self.reader is None or not 0 < sequence <= self.trail.evidence.size:
            msg = f"the trail has no event {sequence}"
            raise ChainBroken(msg, sequence=sequence, reason="sequence")
        return parse_event(self.reader.record(sequence), sequence=sequence)

    def nodes(self) -> Nodes:
        """Hashes of complete subtrees over the records of the trail."""
        return nodes_over(self.reader, self.trail.evidence.size)


def nodes_over(reader: SqliteReader | None, size: int) -> Nodes:
    """Hashes of complete subtrees over the first records of a store."""
    if reader is None:
        return nodes_of(0, lambda _level, _number: None, lambda _sequence: b"")
    return nodes_of(size, reader.tile, reader.record)


@contextmanager
def verified_store(settings: Settings) -> Iterator[VerifiedStore]:
    """The trail of a data folder, every event of it verified; one that was never begun is empty.

    Raises:
        ChainBroken: It does not verify.
        StoreUnavailable: It cannot be read.
    """
    with ExitStack() as stack:
        try:
            reader = stack.enter_context(open_reader(settings))
        except StoreUnavailable as error:
            if error.code != "unavailable.store_absent":
                raise
            yield VerifiedStore(Trail(no_evidence(), {}), None)
            return
        size, head = reader.event_count(), reader.head_record()
        if not size and head is None:
            yield VerifiedStore(Trail(no_evidence(), {}), reader)
            return
        keys = verifying_keys(settings)
        report = verify_trail(reader.read(1, size), head, keys)

        def events() -> Iterator[AuditEvent]:
            return (parse_event(stored.record, sequence=stored.sequence) for stored in reader.read(1, size))

        evidence = TrailEvidence(size, head, events, nodes_over(reader, size))
        yield VerifiedStore(Trail(evidence, keys, report.first_timestamp, report.last_timestamp), reader)
