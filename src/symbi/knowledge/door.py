"""Knowledge that is opened when somebody asks for it: most runs of agents do not."""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

import anyio

from symbi.audit.log import AuditLog
from symbi.clock import Clock
from symbi.errors import ConfigError, Denied, Unavailable
from symbi.knowledge.documents import DocumentStore
from symbi.knowledge.knowledge import DAY_NS, Knowledge
from symbi.knowledge.late import Late
from symbi.types import SYSTEM_AGENT, Principal

_log = logging.getLogger("symbi.knowledge")

INTERVAL_S: Final = 3600.0  # between two looks for what is too old


KnowledgeDoor: TypeAlias = Late[Knowledge]
"""Opens knowledge when somebody asks for it first."""


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
        """Remove what is too old, and what writes and removals left that broke off; returns how many documents that were.

        Raises:
            Denied: Policy does not let the runtime remove them.
            StoreUnavailable: Store or index cannot be used.
        """
        before_ns = self.clock.now_ns() - self.days * DAY_NS
        if not await self.log.read(lambda: self.store.documents_before(before_ns, 1) or self.store.unfinished()):
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
                _log.warning("documents that are too old, or what is left of some, were not removed: %s", error.message)
            else:
                if removed:
                    _log.info("%d documents were too old and are removed", removed)
            await self.wait(INTERVAL_S)
