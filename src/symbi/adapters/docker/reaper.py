"""Removes the containers that an earlier crash has left, at the start and from time to time.

Ours are those that bear our instance's label: the origin of the trail, which one data folder has, and one process at a
time owns that folder. So whatever bears it and is not in use by this process is nobody's. Containers of ours have no
network, no volume and no file of the host, so nothing else is left of one that is removed; the engine ends its processes.
"""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import chain, repeat
from typing import Final

import anyio

from symbi.adapters.docker.container import LABEL_INSTANCE
from symbi.adapters.docker.engine import Engine
from symbi.errors import SandboxUnavailable

SOON_AGAIN_S: Final = (1.0, 3.0, 10.0)  # after the first round: an engine ends what a killed process had asked of it
REAP_EVERY_S: Final = 60.0
FIRST_TIMEOUT_S: Final = 20.0  # how long a start may wait for it; what is left then goes with the next round
REMOVE_TIMEOUT_S: Final = 20.0

_log = logging.getLogger("symbi.sandbox")


async def reap(engine: Engine, instance: str) -> tuple[str, ...]:
    """Remove every container of ours that nobody here uses, and give their ids.

    One that cannot be removed is told of and passed over: the next round tries again.

    Raises:
        SandboxUnavailable: The engine cannot be asked what there is.
    """
    gone = []
    for container in await engine.containers(f"{LABEL_INSTANCE}={instance}"):
        names = container.get("Names")
        known = {str(name).lstrip("/") for name in names} if isinstance(names, list) else set()
        found = container.get("Id")
        if known & engine.in_use or not isinstance(found, str):
            continue
        try:
            await engine.remove(found, REMOVE_TIMEOUT_S)
        except SandboxUnavailable as error:
            _log.warning(
                "container `%s` was left by an earlier run and cannot be removed: %s", found[:12], error.message
            )
        else:
            gone.append(found)
    if gone:
        _log.warning("%d containers that an earlier run had left were removed", len(gone))
    return tuple(gone)


@asynccontextmanager
async def reaping(engine: Engine, instance: str) -> AsyncIterator[None]:
    """A first round, and while this is open further ones."""
    await _first(engine, instance)
    rounds = anyio.create_task_group()
    await rounds.__aenter__()
    rounds.start_soon(_further, engine, instance)
    try:
        yield
    finally:  # by hand: what the body raises goes on as it is, and not in a group
        rounds.cancel_scope.cancel()
        await rounds.__aexit__(None, None, None)


async def _first(engine: Engine, instance: str) -> None:
    """Within a bound: a runtime opens also where no engine answers."""
    with anyio.move_on_after(FIRST_TIMEOUT_S):
        await _round(engine, instance)


async def _further(engine: Engine, instance: str) -> None:
    for pause_s in chain(SOON_AGAIN_S, repeat(REAP_EVERY_S)):
        await anyio.sleep(pause_s)
        await _round(engine, instance)


async def _round(engine: Engine, instance: str) -> None:
    try:
        await reap(engine, instance)
    except SandboxUnavailable as error:  # who needs the engine is told
        _log.debug("no container could be looked for: %s", error.message)
