"""Policy files that change while a runtime is alive are taken up without a restart.

A change is taken up once two looks in a row have seen the same files, and nothing has changed while they were read: what
is being written is left alone. A set that is refused leaves the old one in force, and is not tried again before a file
changes. A file that is gone is a change like any other: a folder without policies permits nothing.
"""

import logging
from collections.abc import Hashable, Sequence
from contextlib import suppress
from functools import partial
from typing import Final

import anyio
import anyio.to_thread

from symbi.clock import Clock
from symbi.errors import InputError, Unavailable, VerificationError
from symbi.runtime.policies import Cause, PolicyBook
from symbi.runtime.port import PolicyReader
from symbi.telemetry import log_fields

_log = logging.getLogger("symbi.policy")

NEVER: Final = float("-inf")


class PolicyWatch:
    """Looks at the operator's policy files, at most once in an interval.

    Args:
        book: Takes up what has changed.
        reader: Looks and reads.
        paths: What is watched.
        clock: Says when a look is due.
        interval_s: Least seconds between two looks.
    """

    def __init__(
        self, book: PolicyBook, reader: PolicyReader, paths: Sequence[str], clock: Clock, interval_s: float
    ) -> None:
        self._book = book
        self._reader = reader
        self._paths = tuple(paths)
        self._clock = clock
        self._interval_s = interval_s
        self._looked_s = NEVER
        self._done: Hashable = None  # what was seen when the files were last taken up, or refused
        self._before: Hashable = None  # what the last look saw, if it has not been dealt with
        self._using = anyio.Lock()

    @property
    def paths(self) -> tuple[str, ...]:
        """What is watched now."""
        return self._paths

    async def take_up(self, paths: Sequence[str] | None = None, cause: Cause = Cause.FILES) -> None:
        """Read the files now, put them in force, and watch them from here on.

        Args:
            paths: Others than before, if given; those before are watched no more.
            cause: Why.

        Raises:
            SymbiError: As `PolicyBook.take_up`; the old set stays, and so does what is watched.
        """
        async with self._using:
            wanted = self._paths if paths is None else tuple(paths)
            seen = await self._look(wanted)
            await self._book.take_up(await anyio.to_thread.run_sync(self._reader.read, wanted), cause)
            self._paths, self._done, self._before = wanted, seen, None

    async def look(self) -> None:
        """Look, if it is due; take up what has settled.

        Raises:
            InternalError: The set is in force, and not everybody took it up.
        """
        now_s = self._clock.monotonic_s()
        if now_s - self._looked_s < self._interval_s:
            return
        self._looked_s = now_s
        async with self._using:
            try:
                await self._take_up_settled()
            except Unavailable as error:  # the old set stays in force, and the next look tries again
                _log.warning("a change of policies cannot be recorded", extra=log_fields(code=error.code))

    async def run(self) -> None:
        """Look for as long as the runtime lives."""
        while True:
            await anyio.sleep(self._interval_s)
            await self.look()

    async def _take_up_settled(self) -> None:
        seen = await self._look(self._paths)
        if seen == self._done:
            self._before = None
            return
        if seen != self._before:
            self._before = seen
            return
        try:
            bundles = await anyio.to_thread.run_sync(self._reader.read, self._paths)
        except InputError as error:
            await self._book.refuse(Cause.FILES, error)
        else:
            if await self._look(self._paths) != seen:
                self._before = None  # written while it was read
                return
            with suppress(InputError, VerificationError):  # the book has said so, on the trail and in the log
                await self._book.take_up(bundles)
        self._done, self._before = seen, None

    async def _look(self, paths: Sequence[str]) -> Hashable:
        """What there is; where a folder cannot be listed, the error, so that it is met once it has settled."""
        try:
            return await anyio.to_thread.run_sync(partial(self._reader.look, paths))
        except InputError as error:
            return _Unlisted(str(error))


class _Unlisted(str):
    """Why files cannot be listed."""

    __slots__ = ()
