"""What the bus keeps: its outbox, and the stream that durable subscriptions read. A part of the store."""

import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from symbi.adapters.sqlite.file import SQL, damaged, mapped, unavailable
from symbi.adapters.sqlite.rows import Rows
from symbi.bus.port import Cursor, DeadMessage, SentRow, SentState, StreamRow
from symbi.errors import InternalError

T = TypeVar("T")


class OutboxReader(ABC):
    """What can be read of the outbox, for who only reads."""

    @abstractmethod
    def _use(self, read: Callable[[sqlite3.Connection], T]) -> T:
        """Read from the open store."""

    def find_sent(self, message_id: str) -> SentRow | None:
        """A message by its id."""
        row = self._use(lambda db: db.execute(SQL["find_sent"], (message_id,)).fetchone())
        return None if row is None else _sent(row)

    def dead_sent(self, recipient: str, limit: int, beyond: int = 0) -> Sequence[DeadMessage]:
        """Messages that were given up, newest first."""
        return self._use(lambda db: _dead_in(db, recipient, limit, beyond))


class OutboxTable(Rows):
    """OutboxStore and StreamStore, for the store that has the connection."""

    def put_sent(self, row: SentRow, most: int) -> bool:
        """Keep a message behind all others."""
        self._fence(self._epoch)
        if int(self._one(SQL["count_waiting_sent"], (row.recipient, most))[0]) >= most:
            return False
        values = (
            row.message_id, row.sender, row.recipient, row.wire, row.state.value, row.attempts, row.due_ns,
            row.expires_ns, row.code, row.changed_ns, row.epoch,
        )  # fmt: skip
        try:
            self._db.execute(SQL["put_sent"], values)
        except sqlite3.IntegrityError as error:
            msg = f"message `{row.message_id}` is in the outbox already"
            raise InternalError(msg, code="internal.duplicate") from error
        except sqlite3.Error as error:
            raise unavailable("write", error) from error
        return True

    def find_sent(self, message_id: str) -> SentRow | None:
        """A message by its id."""
        row = self._one(SQL["find_sent"], (message_id,))
        return None if row is None else _sent(row)

    def sent(self, state: SentState, recipient: str, after: int, limit: int) -> Sequence[SentRow]:
        """Messages in a state behind a position."""
        if recipient and state is SentState.WAITING:
            return [_sent(row) for row in self._all(SQL["waiting_sent"], (recipient, after, limit))]
        return [_sent(row) for row in self._all(SQL["all_sent"], (state.value, after, limit, recipient))]

    def dead_sent(self, recipient: str, limit: int, beyond: int = 0) -> Sequence[DeadMessage]:
        """Messages that were given up, newest first."""
        with mapped("read"):
            return _dead_in(self._db, recipient, limit, beyond)

    def awaited_sent(self, declared: str, now_ns: int) -> str | None:
        """Of a declaration and its instances, one for which something waits whose time is not over."""
        row = self._one(SQL["awaited_sent"], (declared, now_ns))
        return None if row is None else str(row[0])

    def move_sent(self, row: SentRow, was: SentState) -> bool:
        """Put a message where it stands now."""
        self._fence(self._epoch)
        values = (
            row.wire, row.state.value, row.attempts, row.due_ns, row.expires_ns, row.code, row.changed_ns,
            row.message_id, was.value,
        )  # fmt: skip
        return self._write(SQL["move_sent"], values) == 1

    def trim_sent(self, before_ns: int) -> int:
        """Forget what is over since before a time."""
        self._fence(self._epoch)
        return self._write(SQL["trim_sent"], (before_ns,))

    def append_stream(self, rows: Sequence[StreamRow]) -> None:
        """Keep messages."""
        self._fence(self._epoch)
        with mapped("write"):
            self._db.executemany(
                SQL["append_stream"], [(row.position, row.subject, row.message_id, row.data) for row in rows]
            )

    def stream_rows(self, after: int, limit: int) -> Sequence[StreamRow]:
        """What is kept behind a position."""
        return [StreamRow(*row) for row in self._all(SQL["stream_rows"], (after, limit))]

    def trim_stream(self, upto: int) -> None:
        """Let go of what is kept up to a position."""
        self._fence(self._epoch)
        self._write(SQL["trim_stream"], (upto,))

    def cursors(self) -> Sequence[Cursor]:
        """Where durable consumers stand."""
        return [Cursor(*row) for row in self._all(SQL["stream_cursors"])]

    def put_cursor(self, cursor: Cursor, *, gone: bool = False) -> None:
        """Note where one stands, or that it is gone."""
        self._fence(self._epoch)
        if gone:
            self._write(SQL["drop_cursor"], (cursor.name,))
        else:
            self._write(SQL["put_cursor"], (cursor.name, cursor.subject, cursor.position))


def _dead_in(db: sqlite3.Connection, recipient: str, limit: int, beyond: int) -> Sequence[DeadMessage]:
    if recipient:  # its instances are what is between `b/` and `b0`, for `0` follows `/`
        rows = db.execute(SQL["dead_sent_to"], (recipient, limit, beyond))
    else:
        rows = db.execute(SQL["dead_sent"], (limit, beyond))
    return [DeadMessage(*row) for row in rows]


def _sent(row: Any) -> SentRow:
    message_id, sender, recipient, wire, state, attempts, due_ns, expires_ns, code, changed_ns, epoch, position = row
    try:
        return SentRow(
            message_id, sender, recipient, wire, SentState(state), attempts, due_ns, expires_ns, code, changed_ns,
            epoch, position,
        )  # fmt: skip
    except ValueError as unknown:
        raise damaged(unknown) from unknown
