"""What an earlier crash left in the engine is removed: at start-up, and now and then.

All that is ours in an engine bears the label of our instance. One process owns an instance at a time (it owns the data
folder), so what bears the label and was not made by this process is nobody's any more; likewise what this process could
not remove when it was done with it. A container that died with its runtime may still be on its way into the engine
when the next start looks, so there are further looks soon after the first.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from itertools import chain, repeat
from types import TracebackType
from typing import Any, Final, Self

import anyio
from anyio.abc import TaskGroup

from symbi.adapters.docker.container import LABEL_INSTANCE
from symbi.adapters.docker.engine import Engine
from symbi.errors import SandboxUnavailable

START_BOUND_S: Final = 15.0  # what a start waits for the first look; an engine that hangs is looked at again later
SOON_S: Final = (1.0, 3.0, 10.0)  # between the first looks: an engine still does what a killed process had asked of it
CADENCE_S: Final = 60.0  # between looks after that
REMOVE_TIMEOUT_S: Final = 20.0  # one container, on a busy machine

_log = logging.getLogger("symbi.sandbox")


@dataclass(frozen=True, slots=True)
class Swept:
    """What one look removed, and what it could not.

    Attributes:
        containers, networks, volumes: How many were removed.
        stayed: How many could not be; the next look tries again.
    """

    containers: int = 0
    networks: int = 0
    volumes: int = 0
    stayed: int = 0


class Reaper:
    """Removes what bears the label of an instance and belongs to nothing that this process does.

    Args:
        engine: Where; it knows what this process has made there.
        instance: Whose label.
        sleep: Waits so many seconds.
    """

    def __init__(
        self, engine: Engine, instance: str, *, sleep: Callable[[float], Awaitable[None]] = anyio.sleep
    ) -> None:
        self._engine = engine
        self._label = f"{LABEL_INSTANCE}={instance}"
        self._sleep = sleep
        self._tasks: TaskGroup | None = None

    async def __aenter__(self) -> Self:
        """Look once, within a bound, and go on looking. No engine is no error: there is nothing in it then."""
        with anyio.move_on_after(START_BOUND_S):
            await self._look()
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        self._tasks.start_soon(self._go_on)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop looking."""
        assert self._tasks is not None
        self._tasks.cancel_scope.cancel("the runtime ends")
        await self._tasks.__aexit__(None, None, None)  # without the body's error, which would come out wrapped

    async def sweep(self) -> Swept:
        """Look once.

        Raises:
            SandboxUnavailable: The engine cannot be asked.
        """
        stayed = containers = networks = volumes = 0
        for found in await self._engine.containers(self._label):
            if not self._engine.is_ours(found):
                gone = await self._try(self._engine.remove, str(found["Id"]), REMOVE_TIMEOUT_S)
                containers, stayed = containers + gone, stayed + (not gone)
        # A network or a volume of ours is used by a container of ours; the engine refuses to remove one in use.
        if not self._engine.made:
            for network in await self._engine.networks(self._label):
                gone = await self._try(self._engine.remove_network, str(network["Id"]))
                networks, stayed = networks + gone, stayed + (not gone)
            for volume in await self._engine.volumes(self._label):
                gone = await self._try(self._engine.remove_volume, str(volume["Name"]))
                volumes, stayed = volumes + gone, stayed + (not gone)
        return Swept(containers, networks, volumes, stayed)

    async def _try(self, remove: Callable[..., Awaitable[None]], *arguments: Any) -> bool:
        """Whether it went; what stays is tried again at the next look, and is no reason to leave the others."""
        try:
            await remove(*arguments)
        except SandboxUnavailable as error:
            _log.warning("what an earlier run left cannot be removed: %s", error.message)
            return False
        return True

    async def _look(self) -> None:
        try:
            swept = await self.sweep()
        except SandboxUnavailable as error:
            _log.info("the engine cannot be asked for what earlier runs left: %s", error.message)
            return
        counts: Mapping[str, int] = {
            "containers": swept.containers, "networks": swept.networks, "volumes": swept.volumes
        }  # fmt: skip
        told = [f"{count} {name}" for name, count in counts.items() if count]
        if told:
            _log.warning("removed what an earlier run left in the engine: %s", ", ".join(told))

    async def _go_on(self) -> None:
        for pause_s in chain(SOON_S, repeat(CADENCE_S)):
            await self._sleep(pause_s)
            await self._look()
