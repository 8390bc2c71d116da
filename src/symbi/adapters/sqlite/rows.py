"""What every part of the store stands on: the connection of its owner, and statements on it."""

import sqlite3
from typing import Any

from symbi.adapters.sqlite.backfill import Backfill
from symbi.adapters.sqlite.file import SQL, mapped
from symbi.errors import StoreUnavailable


class Rows:
    """The connection, while the store is open."""

    def __init__(self) -> None:
        self._connection: sqlite3.Connection | None = None
        self._backfill: Backfill | None = None  # none where the store is in memory
        self._epoch = 0

    @property
    def _db(self) -> sqlite3.Connection:
        if self._connection is None:
            msg = "the store is closed"
            raise StoreUnavailable(msg)
        return self._connection

    def _one(self, sql: str, values: tuple[object, ...] = ()) -> Any:
        with mapped("read"):
            return self._db.execute(sql, values).fetchone()

    def _all(self, sql: str, values: tuple[object, ...] = ()) -> list[Any]:
        with mapped("read"):
            return self._db.execute(sql, values).fetchall()

    def _write(self, sql: str, values: tuple[object, ...]) -> int:
        with mapped("write"):
            return self._db.execute(sql, values).rowcount

    def _fence(self, epoch: int) -> None:
        stored = int(self._one(SQL["get_meta"], ("epoch",))[0])
        if epoch != stored:
            msg = f"this process is owner {epoch} of the data folder, which owner {stored} has taken over"
            raise StoreUnavailable(msg, code="unavailable.store_fenced")
