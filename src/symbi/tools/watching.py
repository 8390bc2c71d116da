"""Who hears of which resource of a server when it changes: each once subscribed to at its server, however many want to hear."""

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import anyio

from symbi.errors import SymbiError
from symbi.guard.action import ReadResource
from symbi.guard.gate import Guard
from symbi.guard.permit import Permit
from symbi.tools.catalog import Catalog
from symbi.tools.port import Notice, ResourceUpdates
from symbi.tools.reading import ServerReader

_log = logging.getLogger("symbi.tools")

LEAVE_S: Final = 5.0  # for a server to be told that nobody wants to hear any more

Key: TypeAlias = tuple[str, str]
"""Server, and URI."""
Hear: TypeAlias = Callable[[Notice], None]
"""Told what there is to say of a resource; it must not block."""


@dataclass(slots=True)
class _Turns:
    """Whoever begins or ends to hear of one resource, one after the other."""

    lock: anyio.Lock = field(default_factory=anyio.Lock)
    users: int = 0


class ResourceWatch:
    """Subscriptions to resources of the servers of a catalogue.

    Args:
        catalog: The servers there are.
        guard: The gate.
    """

    def __init__(self, catalog: Catalog, guard: Guard) -> None:
        self._catalog = catalog
        self._guard = guard
        self._hears: dict[Key, dict[object, Hear]] = {}
        self._turns: dict[Key, _Turns] = {}
        for server in catalog.servers:
            updates = catalog.link(server).updates
            if updates is not None:
                updates.follow(self._noticed)

    async def subscribe(self, reader: ServerReader, action: ReadResource, hear: Hear) -> object:
        """Have changes of a resource told, through the gate; what ends it again.

        Args:
            reader: Asks for whoever wants to hear.
            action: Which resource, and for whom.
            hear: Told of them; where it is told that this is over, nothing has to be ended.

        Raises:
            SymbiError: As `ServerReader.subscribe`.
        """
        key, mark = (action.server, action.uri), object()

        async def opening(updates: ResourceUpdates, permit: Permit[ReadResource]) -> None:
            async with self._turn(key):
                if self._hears.get(key):
                    self._guard.authority.redeem(permit, ReadResource)
                else:
                    await updates.subscribe(permit)
                self._hears.setdefault(key, {})[mark] = hear

        try:
            await reader.subscribe(action, opening)
        except BaseException:
            await self.unsubscribe(action.server, action.uri, mark)
            raise
        return mark

    async def unsubscribe(self, server: str, uri: str, mark: object) -> None:
        """End what `subscribe` began; also where it is over. Takes at most `LEAVE_S`, and goes on in a cancelled task."""
        key = server, uri
        if self._hears.get(key, {}).pop(mark, None) is None:
            return
        updates = self._catalog.link(server).updates
        with anyio.move_on_after(LEAVE_S, shield=True):
            async with self._turn(key):
                if updates is None or self._hears.get(key) != {}:  # somebody hears of it, or it is over
                    return
                self._hears.pop(key, None)
                try:
                    await updates.unsubscribe(uri)
                except SymbiError as error:
                    _log.info("server `%s` goes on to tell of a resource: %s", server, error.code)

    @asynccontextmanager
    async def _turn(self, key: Key) -> AsyncIterator[None]:
        """Its turn; nothing is kept of a resource that nobody hears of, whether it could be subscribed to or not."""
        turns = self._turns.setdefault(key, _Turns())
        turns.users += 1
        try:
            async with turns.lock:
                yield
        finally:
            turns.users -= 1
            if not turns.users:
                del self._turns[key]
                if not self._hears.get(key):
                    self._hears.pop(key, None)

    def _noticed(self, server: str, uri: str, notice: Notice) -> None:
        key = server, uri
        hears = self._hears.pop(key, {}) if notice is Notice.OVER else self._hears.get(key, {})
        for hear in list(hears.values()):
            hear(notice)


__all__ = ["Hear", "Notice", "ResourceWatch"]
