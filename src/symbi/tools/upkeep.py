"""Asks connected tool servers now and then whether they are there, so that a dead one is known before it is needed."""

import logging
from collections.abc import Awaitable, Callable
from typing import Final

import anyio

from symbi.clock import Clock
from symbi.errors import PolicyDenied, StoreUnavailable, SymbiError
from symbi.tools.catalog import Catalog

_log = logging.getLogger("symbi.tools")

LOOK_S: Final = 1.0  # the longest between two looks at the clock
MAX_AT_A_TIME: Final = 16  # servers that are asked at a time


class Upkeep:
    """Health checks of the servers of a catalogue; to be run.

    Each is asked by itself and within a bound, so that one that hangs holds up no other. One that has calls at work is not
    asked: these show how it is. Keys that come from domains are asked for again when what was found of them is not kept any more. One that does not answer is connected no more, and is started again when somebody needs it.

    Args:
        catalog: Whose servers.
        clock: Says when it is time.
        interval_s: Between two rounds; 0: there is none.
        within_s: How long a server may take to say that it is there.
        sleep: Waits for so many seconds.
    """

    def __init__(
        self,
        catalog: Catalog,
        clock: Clock,
        *,
        interval_s: float,
        within_s: float,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
    ) -> None:
        self._catalog = catalog
        self._clock = clock
        self._interval_s = interval_s
        self._within_s = within_s
        self._sleep = sleep
        self._due_s = clock.monotonic_s() + interval_s

    async def run(self) -> None:
        """Go on."""
        while self._interval_s:
            await self._sleep(min(self._interval_s, LOOK_S))
            await self.look()

    async def look(self) -> bool:
        """Ask all of them, if it is time; whether it was."""
        now_s = self._clock.monotonic_s()
        if not self._interval_s or now_s < self._due_s:
            return False
        self._due_s = now_s + self._interval_s
        room = anyio.CapacityLimiter(MAX_AT_A_TIME)
        async with anyio.create_task_group() as tasks:
            for server in self._catalog.servers:
                tasks.start_soon(self._ask, server, room)
        return True

    async def _ask(self, server: str, room: anyio.CapacityLimiter) -> None:
        async with room:
            try:
                await self._catalog.relist(server)  # if it said that its tools have changed, and that was too often
                await self._catalog.check(server, self._within_s)
                await self._ask_for_key(server)
            except StoreUnavailable as error:
                _log.warning("how tool server `%s` is cannot be recorded: %s", server, error)  # the next effect says so
            except SymbiError as error:
                _log.info("tool server `%s` could not be looked at: %s", server, error)

    async def _ask_for_key(self, server: str) -> None:
        """Ask again for the key of a connected server, through the gate, once what was found of it is not kept any more.

        It may have been revoked, and nobody connects: where another key counts than before, no tool is called until it is
        verified anew. A server that may not be connected any more is not.
        """
        catalog = self._catalog
        if not catalog.is_connected(server) or not catalog.verifier.is_old(server):
            return
        try:
            await catalog.ready(server, catalog.principal_of(server))
        except PolicyDenied as error:
            await catalog.take_out(server, error)
            raise
