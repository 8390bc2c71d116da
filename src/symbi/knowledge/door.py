"""Knowledge that is opened when somebody asks for it: most runs of agents do not."""

import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Final, Self

import anyio
from anyio.abc import TaskStatus

from symbi.audit.log import AuditLog
from symbi.clock import Clock
from symbi.errors import ConfigError, Denied, StoreUnavailable, Unavailable
from symbi.knowledge.documents import DocumentStore
from symbi.knowledge.knowledge import DAY_NS, Knowledge
from symbi.types import SYSTEM_AGENT, Principal

_log = logging.getLogger("symbi.knowledge")

INTERVAL_S: Final = 3600.0  # between two looks for what is too old


class KnowledgeDoor:
    """Opens knowledge once, and closes it with itself; to be entered.

    Args:
        opening: Opens it.
    """

    def __init__(self, opening: Callable[[], AbstractAsyncContextManager[Knowledge]]) -> None:
        self._opening = opening
        self._turn = anyio.Lock()
        self._closing = anyio.Event()
        self._open: Knowledge | None = None

    async def __aenter__(self) -> Self:
        """Nothing is opened yet."""
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close what was opened, whether or not somebody still waits."""
        self._open = None
        self._closing.set()
        await self._tasks.__aexit__(None, None, None)

    async def opened(self) -> Knowledge:
        """What is behind it.

        Raises:
            ConfigError: It cannot be had with this configuration.
            StoreUnavailable: Store or index cannot be opened, or the door is closed.
            Unavailable: The embedder cannot.
        """
        async with self._turn:
            if self._closing.is_set():
                raise StoreUnavailable("knowledge is closed")
            if self._open is None:
                self._open = await self._tasks.start(self._hold)
            return self._open

    async def _hold(self, *, task_status: TaskStatus[Knowledge]) -> None:
        """Open and close in one task: whoever asks first has deadlines, which end before what is opened does."""
        with anyio.CancelScope() as scope:
            async with self._opening() as knowledge:
                scope.shield = True  # from here on it is closed in order, and by the door alone
                task_status.started(knowledge)
                await self._closing.wait()


@dataclass(slots=True)
class Retention:
    """Removes documents that are too old, through the gate; goes on until it is cancelled.

    Attributes:
        door: To the documents.
        log: The store's thread.
        store: Says whether there are any, without opening the door.
        clock: Says how old they are.
        days: Age from which on they go.
        wait: Waits for some seconds.
    """

    door: KnowledgeDoor
    log: AuditLog
    store: DocumentStore
    clock: Clock
    days: int
    wait: Callable[[float], Awaitable[None]] = anyio.sleep

    async def sweep(self) -> int:
        """Remove what is too old; returns how many documents that were.

        Raises:
            Denied: Policy does not let the runtime remove them.
            StoreUnavailable: Store or index cannot be used.
        """
        before_ns = self.clock.now_ns() - self.days * DAY_NS
        if not await self.log.read(partial(self.store.documents_before, before_ns, 1)):
            return 0
        return await (await self.door.opened()).expire(Principal(SYSTEM_AGENT), self.days)

    async def run(self) -> None:
        """Sweep on a cadence."""
        while True:
            try:
                removed = await self.sweep()
            except (
                ConfigError,
                Denied,
                Unavailable,
            ) as error:  # the next look tries again, and nothing else stops for it
                _log.warning("documents that are too old were not removed: %s", error.message)
            else:
                if removed:
                    _log.info("%d documents were too old and are removed", removed)
            await self.wait(INTERVAL_S)
