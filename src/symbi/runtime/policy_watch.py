"""Policy files that change while a runtime is alive are taken up without a restart.

A change is taken up once two looks in a row have seen the same files, and nothing has changed while they were read: what
is being written is left alone. A set that is refused leaves the old one in force, and is not tried again before a file
changes. A file that is gone is a change like any other: a folder without policies permits nothing.
"""

import logging
from collections.abc import AsyncIterator, Hashable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

import anyio
import anyio.to_thread

from symbi.clock import Clock
from symbi.errors import InputError, Unavailable, VerificationError
from symbi.runtime.policies import Cause
from symbi.runtime.port import Bundle, PolicyReader
from symbi.telemetry import log_fields

_log = logging.getLogger("symbi.policy")

NEVER: Final = float("-inf")


class Taker(Protocol):
    """Who takes files up: the book, or a shadow."""

    async def take_up(self, bundles: Sequence[Bundle], cause: Cause) -> object:
        """Use these files in place of those before.

        Raises:
            InputError, VerificationError: They are refused, which is recorded.
            StoreUnavailable: Nothing could be recorded.
        """

    async def refuse(self, cause: Cause, refusal: InputError) -> None:
        """Record that files cannot even be read.

        Raises:
            StoreUnavailable: It cannot be recorded.
        """


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read, and how the files looked just before."""

    paths: tuple[str, ...]
    stamp: Hashable
    bundles: tuple[Bundle, ...]


class PolicyWatch:
    """Looks at policy files, at most once in an interval.

    Args:
        taker: Takes up what has changed.
        reader: Looks and reads.
        paths: What is watched.
        clock: Says when a look is due.
        interval_s: Least seconds between two looks.
        cause: Why files are taken up, for the trail.
    """

    def __init__(
        self,
        taker: Taker,
        reader: PolicyReader,
        paths: Sequence[str],
        clock: Clock,
        *,
        interval_s: float,
        cause: Cause = Cause.FILES,
    ) -> None:
        self._taker = taker
        self._cause = cause
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

    async def read(self, paths: Sequence[str] | None = None, *, may_be_absent: bool = True) -> Reading:
        """Read files, for `use`.

        Args:
            paths: Which, if not those that are watched.
            may_be_absent: A path at which there is nothing is taken as an empty folder.

        Raises:
            InputError: One cannot be read, which is recorded, or is not there.
        """
        wanted = self._paths if paths is None else tuple(paths)
        stamp = await self._look(wanted)
        try:
            bundles = await anyio.to_thread.run_sync(self._reader.read, wanted)
        except InputError as error:
            await self._taker.refuse(self._cause, error)
            raise
        absent = next((bundle.path for bundle in bundles if bundle.absent), None)
        if absent is not None and not may_be_absent:
            msg = f"`{absent}` is not there"
            raise InputError(msg, code="input.unreadable")
        return Reading(wanted, stamp, bundles)

    async def use(self, reading: Reading, cause: Cause | None = None) -> None:
        """Put what was read in force, and watch it from here on.

        Args:
            reading: From `read`.
            cause: Why, for the trail.

        Raises:
            SymbiError: As `PolicyBook.take_up`; the old set stays, and so does what is watched.
        """
        async with self._using:
            await self._taker.take_up(reading.bundles, cause or self._cause)
            self._paths, self._done, self._before = reading.paths, reading.stamp, None

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
            await self._taker.refuse(self._cause, error)
        else:
            if await self._look(self._paths) != seen:
                self._before = None  # written while it was read
                return
            with suppress(InputError, VerificationError):  # it has been said, on the trail and in the log
                await self._taker.take_up(bundles, self._cause)
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


class Runs(Protocol):
    """Something that goes on until it is cancelled, such as a watch."""

    async def run(self) -> None:
        """Go on."""


@asynccontextmanager
async def watching(watches: Iterable[Runs]) -> AsyncIterator[None]:
    """Let watches look for as long as the body lasts. If one fails, the body is cancelled, and its error is raised."""
    failures: list[Exception] = []
    tasks = anyio.create_task_group()

    async def run(watch: Runs) -> None:
        try:
            await watch.run()
        except Exception as error:
            failures.append(error)
            raise

    await tasks.__aenter__()
    for watch in watches:
        tasks.start_soon(run, watch)
    try:
        yield
    finally:
        tasks.cancel_scope.cancel("the runtime ends")
        try:
            await tasks.__aexit__(None, None, None)  # without the body's error, which would come out wrapped
        except ExceptionGroup:
            raise failures[0] from None
