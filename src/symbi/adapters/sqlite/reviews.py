"""What waits for a person of tools, keys and servers, and what people have said of them."""

import sqlite3
from collections.abc import Sequence
from typing import Any

from symbi.adapters.sqlite.file import SQL, damaged
from symbi.adapters.sqlite.rows import Rows
from symbi.tools.port import Review, ReviewKind, ReviewState


class ReviewTable(Rows):
    """ReviewStore, for the store that has the connection."""

    def get_review(self, kind: ReviewKind, name: str) -> Review | None:
        """The review of one thing, or None."""
        row = self._one(SQL["get_review"], (kind.value, name))
        return None if row is None else to_review(row)

    def put_review(self, review: Review) -> None:
        """Insert or replace."""
        values = (review.kind.value, review.name, review.state.value, review.digest, review.definition, review.reason)
        self._write(SQL["put_review"], (*values, review.since))

    def drop_review(self, kind: ReviewKind, name: str) -> None:
        """Forget it."""
        self._write(SQL["drop_review"], (kind.value, name))

    def reviews(self) -> Sequence[Review]:
        """All of them, by kind and name."""
        return [to_review(row) for row in self._all(SQL["reviews"])]


def reviews_in(db: sqlite3.Connection) -> Sequence[Review]:
    """All of them, of a store that is read; none where an earlier release left it."""
    there = {row[0] for row in db.execute(SQL["tables"])}
    return [to_review(row) for row in db.execute(SQL["reviews"])] if "reviews" in there else []


def to_review(row: Any) -> Review:
    """A row as a review.

    Raises:
        StoreUnavailable: It is none.
    """
    kind, name, state, digest, definition, reason, since = row
    try:
        return Review(ReviewKind(kind), name, ReviewState(state), digest, definition, reason, since)
    except ValueError as unknown:
        raise damaged(unknown) from unknown
