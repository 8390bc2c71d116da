"""The parts of the trail that are in the audit storage and not in the live store any more, for exports and erasures."""

import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import anyio.to_thread

from symbi.audit.event import MAX_RECORD_BYTES
from symbi.compliance.port import SealedRow
from symbi.compliance.sealed import MARKED, event_row
from symbi.errors import ChainBroken, StoreUnavailable

EVENTS_NAME: Final = "events.jsonl"  # in each folder of the storage, one event a line
LINES_AT_ONCE: Final = 2000  # bounds what a page takes
PLACE: Final = "archive.record"


class ArchivedTrail:
    """The sealed events of an audit storage, a page at a time.

    Args:
        folder: The storage, or None where there is none.
        first_live: Sequence of the first event of the live store.
    """

    def __init__(self, folder: Path | None, first_live: Callable[[], Awaitable[int]]) -> None:
        self._folder = folder
        self._first_live = first_live

    async def pages(self, _store: str, after: str) -> tuple[Sequence[SealedRow], str | None]:
        """As `page`, of what the live store does not hold any more."""
        return await anyio.to_thread.run_sync(self.page, after, await self._first_live())

    def page(self, after: str, below: int) -> tuple[Sequence[SealedRow], str | None]:
        """Sealed events of the next lines, and from where to go on.

        Args:
            after: What the call before returned; empty at the beginning.
            below: Sequence of the first event of the live store, which is not read here.

        Raises:
            StoreUnavailable: A file cannot be read.
        """
        name, _, offset = after.rpartition(":")
        for path in self._files():
            if str(path) < name:
                continue
            rows, on = self._lines(path, int(offset or 0) if str(path) == name else 0, below)
            if on is not None:
                return rows, f"{path}:{on}"
            following = next((other for other in self._files() if str(other) > str(path)), None)
            return rows, None if following is None else f"{following}:0"
        return (), None

    def _files(self) -> list[Path]:
        """What is whole, by name; what is just being written has no name yet, and is still live."""
        found: list[Path] = []
        if self._folder is None:
            return found
        for place, folders, names in os.walk(self._folder, onerror=_unless_gone):
            folders[:] = [one for one in folders if not one.startswith(".")]
            if EVENTS_NAME in names:
                found.append(Path(place, EVENTS_NAME))
        return sorted(found, key=str)

    def _lines(self, path: Path, offset: int, below: int) -> tuple[Sequence[SealedRow], int | None]:
        found: list[SealedRow] = []
        try:
            with os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW), "rb") as file:
                file.seek(offset)
                for _ in range(LINES_AT_ONCE):
                    line = file.readline(MAX_RECORD_BYTES + 2)
                    if not line:
                        return found, None
                    found.extend(_rows(path, line, below))
                return found, file.tell()
        except OSError as error:
            msg = f"cannot read `{path}`: {error.strerror or error}"
            raise StoreUnavailable(msg, hint="is the audit storage there?") from error


def _unless_gone(error: OSError) -> None:
    """A folder that goes while others are listed was one without a name, or has none of what is looked for."""
    if not isinstance(error, FileNotFoundError):
        msg = f"cannot read `{error.filename}`: {error.strerror or error}"
        raise StoreUnavailable(msg, hint="is the audit storage there?") from error


def _rows(path: Path, line: bytes, below: int) -> Iterator[SealedRow]:
    """The event of a line, if something is sealed in it and the live store does not hold it."""
    if MARKED not in line:
        return
    try:
        row = event_row(line.removesuffix(b"\n"), 0, PLACE)
    except ChainBroken as error:
        msg = f"`{path}` holds a line that is no event: {error.message}"
        raise StoreUnavailable(msg, code="unavailable.store_damaged", hint="verify the segment") from error
    if int(row.key) < below:
        yield row
