"""Whether a run may go on: the time that it has, and the turn that others may ask it to give up."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, nullcontext
from math import inf
from typing import Final, Protocol

import anyio

from symbi.errors import SymbiError


class Turn(Protocol):
    """What a run holds while it works, and may have to give up for a while at an effect boundary."""

    @property
    def must_stop(self) -> bool:
        """Somebody else needs what it holds, or has it already."""

    async def keep(self) -> None:
        """Return when the run may go on.

        Raises:
            TimeLimit: Its turn does not come back in time.
            StoreUnavailable: It cannot be recorded.
        """

    def idle(self) -> AbstractAsyncContextManager[None]:
        """While the run waits for somebody, its turn may be taken at once."""

    def away(self) -> AbstractAsyncContextManager[None]:
        """While the run waits for another, others have what it holds; `keep` takes it up again."""


class Unscheduled:
    """The turn of a run that nobody schedules."""

    must_stop = False

    async def keep(self) -> None:
        """It may always go on."""

    def idle(self) -> AbstractAsyncContextManager[None]:
        """Nobody takes anything."""
        return nullcontext()

    def away(self) -> AbstractAsyncContextManager[None]:
        """Nothing is given back."""
        return nullcontext()


ALWAYS: Final = Unscheduled()
LONG_S: Final = 2.0  # what is waited for longer is waited for without a seat


class RunClock:
    """The time that a run has; it stands still while people are asked, and while others have its turn.

    Args:
        turn: The turn of the run.
    """

    def __init__(self, turn: Turn = ALWAYS) -> None:
        self._turn = turn
        self._lost: SymbiError | None = None  # why its turn does not come back
        self.scope: anyio.CancelScope | None = None

    @asynccontextmanager
    async def stopped(self) -> AsyncIterator[None]:
        """Give the run back the time that passes in here; its turn may be taken meanwhile."""
        with self._standing():
            async with self._turn.idle():
                yield

    def away(self) -> AbstractAsyncContextManager[None]:
        """Let others have the turn of the run while it waits for another; its time goes on. `boundary` takes it up again."""
        return self._turn.away()

    def resting(self, seconds: float) -> AbstractAsyncContextManager[None]:
        """Let others have the turn of the run while it waits to try something again: what is long is waited for without it."""
        return self._turn.away() if seconds >= LONG_S else self._turn.idle()

    @property
    def left_s(self) -> float:
        """How much time the run has."""
        return inf if self.scope is None else self.scope.deadline - anyio.current_time()

    @property
    def timed_out(self) -> bool:
        """The run has used up its time."""
        return self.scope is not None and self.scope.cancel_called

    async def boundary(self) -> None:
        """Return when the next effect may begin.

        Raises:
            TimeLimit: The run was suspended, and is not resumed in time. Its body may catch that, but has no further
                effect: nothing is on record at this place of the run, and what came after could not be replayed.
        """
        if self._lost is not None:
            raise self._lost
        if self._turn.must_stop:
            try:
                with self._standing():
                    await self._turn.keep()
            except SymbiError as lost:
                self._lost = lost
                raise

    @contextmanager
    def _standing(self) -> Iterator[None]:
        scope = self.scope
        if scope is None:
            yield
            return
        left_s = scope.deadline - anyio.current_time()
        scope.deadline = inf
        try:
            yield
        finally:
            scope.deadline = anyio.current_time() + left_s
