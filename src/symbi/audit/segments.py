"""Closed parts of the trail: where one ends, when it may leave the live store, and where it is kept.

A segment ends at a checkpoint, so that it can be verified alone and the next one, or the live store, can be verified
from there. It is closed at the first kept checkpoint that is `events` events after its beginning; one that has stood for
`interval_s` and holds more than what keeping itself writes is closed at the newest checkpoint. What stands at shutdown is
not closed: many short runs would make many small segments, and the next start goes on where this one ended.

Segments leave the live store oldest first, and only whole. A segment stays as long as any of its events must stay: each
is kept for `retention_days`, and longer where its own details say so (`@retain`). So what is kept live is always one
stretch up to the end, with a checkpoint before it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from symbi.audit.checkpoint import Checkpoint
from symbi.audit.event import AuditEvent, AuditEventType
from symbi.clock import parse_rfc3339, rfc3339
from symbi.types import JsonValue

DAY_NS: Final = 86_400_000_000_000
TILE: Final = 256  # events under one tile of the tree's lowest level
MAX_RETENTION_DAYS: Final = 36_500

KEEPING: Final = frozenset(
    {
        AuditEventType.SEGMENT_SEALED,
        AuditEventType.SEGMENT_REMOVED,
        AuditEventType.CHECKPOINT_WITNESSED,
        AuditEventType.CHECKPOINT_ANCHORED,
    }
)
"""What keeping the trail writes: no reason to keep anything, or it would go on for ever."""


@dataclass(frozen=True, slots=True)
class KeepingRules:
    """What is configured.

    Attributes:
        events: How many events a segment has at least.
        interval_s: How long one may stand open; None for as long as it takes.
        retention_days: How long events stay live once they are in the storage; None for ever.
        required: Effects stop where the storage falls behind.
        max_waiting: How many segments may wait for the storage before they do.
        check_s: Time between two looks, where nothing is written.
    """

    events: int = 65_536
    interval_s: float | None = 86_400.0
    retention_days: int | None = None
    required: bool = False
    max_waiting: int = 4
    check_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of the trail that is in the storage, read back and verified.

    Attributes:
        first: Sequence of its first event.
        last: Of its last, which is the size of its checkpoint.
        chain_hash: Of the last event, hex.
        root: Of the tree over the first `last` events, hex.
        folder: Where it is, in the storage: origin and name.
        digest: SHA-256 (hex) of its `events.jsonl`.
        last_at: Time of the last event.
        keep_until: Time until which its events say that they must stay; empty where none does.
        sealed_at: When it was found whole in the storage.
        removed_at: When it left the live store; empty while it is there.
    """

    first: int
    last: int
    chain_hash: str
    root: str
    folder: str
    digest: str
    last_at: str
    keep_until: str
    sealed_at: str
    removed_at: str = ""

    @property
    def events(self) -> int:
        """How many."""
        return self.last - self.first + 1

    def facts(self) -> dict[str, JsonValue]:
        """What the trail says of it."""
        return {
            "first": self.first,
            "last": self.last,
            "chain_hash": self.chain_hash,
            "root": self.root,
            "folder": self.folder,
            "digest": self.digest,
        }


def segment_folder(origin: str, first: int, last: int) -> str:
    """Where a segment is kept: a folder for each trail, and names that sort as the events do."""
    trail = "".join(one if one.isalnum() or one in "._-" else "_" for one in origin)
    return f"{trail}/{first:012}-{last:012}"


def closed_at(first: int, sizes: Iterable[int], rules: KeepingRules) -> int | None:
    """Where the segment that begins at an event ends, by the number of events; None while it is open.

    Args:
        first: Sequence of its first event.
        sizes: Of the kept checkpoints, rising.
        rules: How many events it has.
    """
    return next((size for size in sizes if size >= first + rules.events - 1), None)


def is_due(first_at: str, now_ns: int, rules: KeepingRules) -> bool:
    """Whether the open segment has stood for long enough to be closed."""
    return rules.interval_s is not None and now_ns - parse_rfc3339(first_at) >= rules.interval_s * 1e9


def holds_more_than_keeping(events: Iterable[AuditEvent]) -> bool:
    """Whether there is anything that is worth a segment, or an anchor, of its own."""
    return any(event.event_type not in KEEPING for event in events)


def kept_until(details: Mapping[str, JsonValue], timestamp: str) -> str:
    """Until when an event must stay live by its own word (`@retain`); empty where it has none."""
    days = details.get("retention_days")
    if type(days) is not int or days < 1:
        return ""
    return rfc3339(parse_rfc3339(timestamp) + min(days, MAX_RETENTION_DAYS) * DAY_NS)


def removable(segments: Sequence[Segment], size: int, now_ns: int, rules: KeepingRules) -> Iterator[Segment]:
    """The segments that may leave the live store now, oldest first.

    Args:
        segments: All, by their first event.
        size: How many events the trail has. Those of the tile at its right edge stay: the tree is made anew from them.
        now_ns: The time.
        rules: How long they stay.
    """
    if rules.retention_days is None:
        return
    edge = size - size % TILE
    for segment in segments:
        if segment.removed_at:
            continue
        until = max(parse_rfc3339(segment.last_at) + rules.retention_days * DAY_NS, _time(segment.keep_until))
        if until > now_ns or segment.last > edge:
            return
        yield segment


def waiting(sequence: int, sealed: int, rules: KeepingRules) -> int:
    """How many segments are full and not in the storage."""
    return max(0, sequence - sealed) // rules.events


def segment_at(checkpoint: Checkpoint, first: int, digest: str, keep_until: str, sealed_at: str) -> Segment:
    """The segment that ends at a checkpoint."""
    return Segment(
        first=first,
        last=checkpoint.size,
        chain_hash=checkpoint.chain_hash,
        root=checkpoint.root.hex(),
        folder=segment_folder(checkpoint.origin, first, checkpoint.size),
        digest=digest,
        last_at=checkpoint.timestamp,
        keep_until=keep_until,
        sealed_at=sealed_at,
    )


def _time(text: str) -> int:
    return parse_rfc3339(text) if text else 0
