"""What a report is made from: the store, read-only and verified, beside its owner if there is one."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from symbi.audit.event import AuditEvent, parse_event
from symbi.audit.tree import nodes_of
from symbi.audit.verify import verify_trail
from symbi.compliance.evidence import Evidence, no_evidence
from symbi.compliance.report import Trail
from symbi.config import Settings
from symbi.errors import StoreUnavailable
from symbi.wiring.runtime import verifying_keys
from symbi.wiring.sources import open_reader


@contextmanager
def verified_trail(settings: Settings) -> Iterator[Trail]:
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
            yield Trail(no_evidence(), {})
            return
        size, head = reader.event_count(), reader.head_record()
        if not size and head is None:
            yield Trail(no_evidence(), {})
            return
        keys = verifying_keys(settings)
        report = verify_trail(reader.read(1, size), head, keys)

        def read(first: int, last: int) -> Iterator[AuditEvent]:
            return (parse_event(stored.record, sequence=stored.sequence) for stored in reader.read(first, last))

        evidence = Evidence(size, head, read, nodes_of(size, reader.tile, reader.record))
        yield Trail(evidence, keys, report.first_timestamp, report.last_timestamp)
