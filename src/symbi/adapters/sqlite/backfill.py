"""Moves what was committed from the write-ahead log into the file: beside the commits, and not within one of them.

SQLite does it by itself within the commit that makes the log a thousand pages long, so that whoever makes that commit
waits for two more syncs and some hundred pages written. Here a thread with a connection of its own does it, which commits and
readers do not wait for. Each commit is durable in the log before it returns, as before; where the file cannot be written now,
nothing is lost, for the log has it.

Where commits follow each other so closely that the log is never in the file as a whole, it would grow: from
`MOST_PAGES` on, the commit moves what is left, as SQLite does.
"""

import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from symbi.adapters.sqlite.file import connect, mapped
from symbi.errors import StoreUnavailable

PAGES: Final = 1_000  # about, of the log, after which they are moved; where SQLite would do it
MOST_PAGES: Final = 4_000  # of the log, beyond which a commit moves what is left: 16 MiB
COMMIT_PAGES: Final = 5  # of any commit; measured, as the next two
ROW_PAGES: Final = 1  # of each row that it changes, where it is one of few
MOST_COMMIT_PAGES: Final = 300  # where it is one of many, which share pages


class Backfill:
    """Moves pages of a store's log into its file.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread: ThreadPoolExecutor | None = None  # begun when it is needed first: most processes commit little
        self._connection: sqlite3.Connection | None = None
        self._moving: Future[None] | None = None
        self._turn = threading.Lock()
        self._rows = 0  # changed since the store was opened
        self._pages = 0  # written since they were moved last, about

    def committed(self, rows: int) -> None:
        """Note a commit, and have pages moved where enough were written; on the store's thread.

        Args:
            rows: How many its connection has changed since it was opened.
        """
        self._pages += min(COMMIT_PAGES + ROW_PAGES * (rows - self._rows), MOST_COMMIT_PAGES)
        self._rows = rows
        if self._pages < PAGES or (self._moving is not None and not self._moving.done()):
            return
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="symbi-backfill")
        self._pages = 0
        # Where no thread is to be had, what is committed stays so, and a later commit asks again.
        with suppress(RuntimeError):
            self._moving = self._thread.submit(self._move)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Nothing is moved meanwhile, for who moves pages itself: SQLite lets only one do it, and the other does not wait."""
        with self._turn:
            yield

    def settle(self) -> None:
        """Wait until nothing is moved."""
        if self._moving is not None:
            self._moving.result()

    def close(self) -> None:
        """End the thread, once it has moved what it is at."""
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.shutdown()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _move(self) -> None:
        with self._turn, suppress(StoreUnavailable):  # the log has it; the next ones try again
            if self._connection is None:
                self._connection = _connected(self._path)
            with mapped("move its log into its file"):
                self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()


def _connected(path: Path) -> sqlite3.Connection:
    """A connection that makes no file where there is none, and syncs what it moves."""
    connection = connect(f"{path.absolute().as_uri()}?mode=rw", uri=True)
    try:
        with mapped("open"):
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA checkpoint_fullfsync = ON")
    except StoreUnavailable:
        connection.close()
        raise
    return connection
