"""What a whole trail tells, as it was signed: for questions on which the index, which is not signed, is not believed."""

from collections.abc import Iterator, Mapping
from typing import Protocol

from symbi.audit.event import AuditEventType, parse_event
from symbi.audit.port import StoredEvent
from symbi.audit.query import EventSource
from symbi.audit.verify import verify_trail
from symbi.crypto.signing import VerifyingKey
from symbi.types import KeyId


class WholeTrail(EventSource, Protocol):
    """A trail that can be verified."""

    def head(self) -> tuple[StoredEvent, bytes] | None:
        """The last event and the head (a signed note), or None where the trail is empty.

        Raises:
            StoreUnavailable: The store cannot be read.
        """


def first_of(trail: WholeTrail, kind: AuditEventType, keys: Mapping[KeyId, VerifyingKey]) -> int | None:
    """Sequence number of the first event of a type, or None where there is none; verifies the whole trail.

    Raises:
        ChainBroken: The trail is not as it was signed, or its beginning is not in the store.
        StoreUnavailable: The store cannot be read.
    """
    found: int | None = None
    name = f'"{kind.value}"'.encode()  # records are canonical, as is verified: it stands in them as it is

    def events() -> Iterator[StoredEvent]:
        nonlocal found
        for stored in trail.read(1):
            if found is None and name in stored.record and parse_event(stored.record).event_type is kind:
                found = stored.sequence
            yield stored

    head = trail.head()
    verify_trail(events(), None if head is None else head[1], keys)
    return found
