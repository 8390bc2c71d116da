"""What a report is made from: the trail, read-only and verified, beside its owner if there is one.

Events that have left the live store are read from the audit storage, whose segments are verified in a row up to where
the live store goes on.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path

from symbi.adapters.sqlite import SqliteReader
from symbi.audit.event import AuditEvent, parse_event
from symbi.audit.export import open_events, read_events, verify_folder
from symbi.audit.tree import nodes_of
from symbi.audit.verify import BEGINNING, Run, TrailReport, claims_of, verify_trail
from symbi.compliance.evidence import Evidence, no_evidence
from symbi.compliance.report import Trail
from symbi.config import Settings
from symbi.crypto.merkle import Nodes, leaf_hash
from symbi.crypto.signing import VerifyingKey
from symbi.errors import ChainBroken, InputError, StoreUnavailable, Unavailable
from symbi.types import KeyId
from symbi.wiring.keeping import audit_storage, check_removed
from symbi.wiring.runtime import verifying_keys
from symbi.wiring.sources import open_reader
from symbi.wiring.verification import on_all_cores


@contextmanager
def verified_trail(settings: Settings) -> Iterator[Trail]:
    """The trail of a data folder, every event of it verified; one that was never begun is empty.

    Raises:
        ChainBroken: It does not verify.
        StoreUnavailable: It cannot be read.
        Unavailable: Some of it is in the audit storage, which cannot be read.
    """
    with ExitStack() as stack:
        try:
            with open_reader(settings) as looked:
                count = looked.event_count()
            run = stack.enter_context(on_all_cores(count))  # processes are started before the store is open
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
        archived = _verify_archived(_archived(settings, reader), keys, run)
        start = archived[-1][1].end if archived else BEGINNING
        claims = claims_of(reader.checkpoints(start.size + 1))
        report = verify_trail(reader.read(start.size + 1, size), head, keys, start=start, claims=claims, run=run)
        check_removed(reader, start)
        nodes = nodes_of(size, reader.tile, reader.record)

        def read(low: int, high: int) -> Iterator[AuditEvent]:
            for folder, part in archived:
                if low <= part.last and part.first <= high:
                    yield from _read_archived(folder, part.first, (low, min(high, part.last)), nodes)
            for stored in reader.read(max(low, start.size + 1), high):
                yield parse_event(stored.record, sequence=stored.sequence)

        evidence = Evidence(size, head, read, nodes)
        begins = archived[0][1] if archived else report
        yield Trail(evidence, keys, begins.first_timestamp, report.last_timestamp)


def _archived(settings: Settings, reader: SqliteReader) -> Sequence[Path]:
    """The folders of the events that have left the live store, in order.

    Raises:
        Unavailable: There is no storage to read them from.
    """
    live = reader.first_event()
    if live == 1:
        return ()
    storage = audit_storage(settings)
    if storage is None:
        msg = f"events 1 to {live - 1} have left the live store, and no audit storage is configured"
        raise Unavailable(msg, code="unavailable.audit_storage", hint="`audit.storage` says where they are")
    return [storage.path(segment.folder) for segment in reader.segments() if segment.last < live]


def _verify_archived(
    folders: Sequence[Path], keys: Mapping[KeyId, VerifyingKey], run: Run
) -> Sequence[tuple[Path, TrailReport]]:
    """Each segment with the report on it; what follows it must continue that.

    Raises:
        ChainBroken: A segment does not verify, or does not follow the one before it.
        Unavailable: One cannot be read.
    """
    found: list[tuple[Path, TrailReport]] = []
    for folder in folders:
        if not folder.is_dir():
            msg = f"events have left the live store, and `{folder}` is not there"
            raise Unavailable(msg, code="unavailable.audit_storage", hint="is the audit storage mounted?")
        try:
            report = verify_folder(folder, keys, start=found[-1][1].end if found else BEGINNING, run=run)
        except InputError as error:
            raise Unavailable(error.message, code="unavailable.audit_storage", hint=error.hint) from error
        found.append((folder, report))
    return found


def _read_archived(folder: Path, first: int, span: tuple[int, int], nodes: Nodes) -> Iterator[AuditEvent]:
    """Events of a segment, each as the tree of the live store has it, whoever has been at the file meanwhile.

    Args:
        folder: Of the segment.
        first: Sequence number of its first event.
        span: The first and the last that are wanted.
        nodes: Hashes of complete subtrees over the records.

    Raises:
        ChainBroken: One is another than it was.
        Unavailable: The segment cannot be read.
    """
    low, high = span
    try:
        with open_events(folder) as lines:
            for sequence, record in enumerate(islice(read_events(lines, first), high - first + 1), first):
                if leaf_hash(record) != nodes(0, sequence - 1):
                    msg = f"event {sequence} was altered in `{folder}`"
                    raise ChainBroken(msg, sequence=sequence, reason="hash")
                if low <= sequence:
                    yield parse_event(record, sequence=sequence)
    except OSError as error:
        msg = f"cannot read `{folder}`: {error.strerror or error}"
        raise Unavailable(msg, code="unavailable.audit_storage") from error
