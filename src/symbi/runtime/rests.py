"""Runs that rest: to be tried again after a while, or until what suspended them is over. Each can be let go on, or stopped, at once.

A run that rests holds nothing of the pool and is not at work; it is held in the journal, so that a crash loses nothing
of it but the wait.
"""

from collections.abc import Awaitable, Callable, Sequence

import anyio

from symbi.errors import SymbiError
from symbi.runtime.lifecycle import AgentState
from symbi.types import AgentId, RunId


class Rest:
    """One run that rests.

    Args:
        agent: Its agent.
        run_id: The run.
        file: The agent's file.
        since: RFC 3339.
        state: Where the agent stands meanwhile.
        error: Why it rests.
        version: The policy set that refused it; None where no policy set lets it go on.

    Attributes:
        stopped_by: The operator who has stopped it.
        suspended_by: The operator who does not let it go on, though its time has come.
        left: It stays as it is: the runtime shuts down.
        over: Set once it has gone on, or is over.
    """

    def __init__(
        self,
        agent: AgentId,
        run_id: RunId,
        file: str,
        since: str,
        state: AgentState,
        error: SymbiError,
        version: str | None = None,
    ) -> None:
        self.agent = agent
        self.run_id = run_id
        self.file = file
        self.since = since
        self.state = state
        self.error = error
        self.version = version
        self.stopped_by = ""
        self.suspended_by = ""
        self.left = False
        self.over = anyio.Event()
        self._scope = anyio.CancelScope()
        self._let_go = anyio.Event()

    def let_go(self) -> None:
        """An operator says so: go on now."""
        self.suspended_by = ""
        self.release()

    def release(self) -> None:
        """What it waited for is there: go on, unless an operator has suspended it."""
        self._let_go.set()

    def stop(self, by: str) -> None:
        """Never go on."""
        self.stopped_by = by
        self._scope.cancel(f"stopped by {by}")

    def leave(self) -> None:
        """Stay as it is."""
        self.left = True
        self._scope.cancel("the runtime shuts down")

    async def wait(self, seconds: float | None, wait: Callable[[float], Awaitable[None]]) -> None:
        """Return when it may go on, or was stopped.

        Args:
            seconds: After which it goes on by itself, unless an operator has suspended it; None for never.
            wait: Waits so many seconds.
        """
        with self._scope:
            if seconds is not None:
                async with anyio.create_task_group() as tasks:

                    async def woken() -> None:
                        await self._let_go.wait()
                        tasks.cancel_scope.cancel("it may go on")

                    tasks.start_soon(woken)
                    await wait(seconds)
                    tasks.cancel_scope.cancel("its time has come")
            while self.suspended_by or (seconds is None and not self._let_go.is_set()):
                if self._let_go.is_set():
                    self._let_go = anyio.Event()
                await self._let_go.wait()


class Rests:
    """The runs that rest in this process."""

    def __init__(self) -> None:
        self._by_run: dict[RunId, Rest] = {}
        self._closed = False

    @property
    def all(self) -> Sequence[Rest]:
        """All of them, oldest first."""
        return tuple(self._by_run.values())

    def __len__(self) -> int:
        """How many there are."""
        return len(self._by_run)

    def of(self, agent: AgentId) -> Sequence[Rest]:
        """Those of an agent."""
        return [rest for rest in self._by_run.values() if rest.agent == agent]

    def begin(self, rest: Rest) -> None:
        """A run begins to rest."""
        self._by_run[rest.run_id] = rest
        if self._closed:
            rest.leave()

    def end(self, rest: Rest) -> None:
        """A run rests no more, and what became of it is on record, or it is at work."""
        del self._by_run[rest.run_id]
        rest.over.set()

    def close(self) -> None:
        """Let all of them stay as they are, and those that come: the runtime shuts down."""
        self._closed = True
        for rest in self.all:
            rest.leave()

    def wake(self, run_id: RunId) -> bool:
        """Let a run go on, for somebody has settled or given what it waits for; False where it does not rest."""
        rest = self._by_run.get(run_id)
        if rest is not None:
            rest.release()
        return rest is not None

    def policies_changed(self, version: str) -> None:
        """Let those go on that another policy set has refused: they ask again, and may be refused again."""
        for rest in self.all:
            if rest.version is not None and rest.version != version:
                rest.release()
