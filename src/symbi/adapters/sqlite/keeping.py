"""Segments and anchors in the store."""

import sqlite3
from collections.abc import Sequence
from typing import Final

from symbi.adapters.sqlite.file import SQL, mapped
from symbi.adapters.sqlite.rows import Rows
from symbi.audit.anchor import Anchor
from symbi.audit.segments import Segment
from symbi.errors import InternalError

_LAST: Final = 2**63 - 1


class SegmentTable(Rows):
    """KeepingStore, for the store that has the connection."""

    def segments(self) -> Sequence[Segment]:
        """All that were sealed, by their first event."""
        return segments_in(self._db)

    def put_segment(self, segment: Segment) -> None:
        """Note a segment as sealed."""
        self._fence(self._epoch)
        self._write(SQL["put_segment"], tuple(getattr(segment, name) for name in Segment.__slots__))

    def remove_segment(self, segment: Segment) -> None:
        """Take the events of a segment out, and note when; its checkpoints and the tree over it stay."""
        self._fence(self._epoch)
        place = (segment.first, segment.last)
        if self._write(SQL["mark_segment_removed"], (segment.removed_at, *place)) != 1:
            msg = f"there is no segment from event {segment.first} to {segment.last} that could be removed"
            raise InternalError(msg, code="internal.segment")
        self._write(SQL["remove_event_policies"], place)
        if self._write(SQL["remove_events"], place) != segment.events:
            msg = f"the segment from event {segment.first} to {segment.last} is not whole in the store"
            raise InternalError(msg, code="internal.segment")

    def anchors(self, first: int, last: int | None = None) -> Sequence[Anchor]:
        """Time stamps of the checkpoints with a size from `first` to `last`, by size."""
        return anchors_in(self._db, first, last)

    def last_anchor(self) -> int:
        """Size of the newest checkpoint that has one; 0 where none has."""
        return int(self._one(SQL["last_anchor"])[0])

    def put_anchor(self, anchor: Anchor) -> None:
        """Keep a time stamp."""
        self._fence(self._epoch)
        self._write(SQL["put_anchor"], (anchor.size, anchor.authority, anchor.time, anchor.token))


def segments_in(db: sqlite3.Connection) -> list[Segment]:
    """All segments, by their first event."""
    with mapped("read"):
        return [Segment(*row) for row in db.execute(SQL["segments"])]


def anchors_in(db: sqlite3.Connection, first: int, last: int | None) -> list[Anchor]:
    """Time stamps of checkpoints, by size."""
    with mapped("read"):
        return [Anchor(*row) for row in db.execute(SQL["anchors"], (first, _LAST if last is None else last))]
