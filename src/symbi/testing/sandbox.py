"""Sandboxes without a gate before them, for tests and measurements of the drivers themselves."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from symbi.adapters.docker import LABEL_INSTANCE, DockerOptions, DockerSandbox, Engine
from symbi.adapters.monty import MontySandbox
from symbi.clock import SystemClock
from symbi.guard.permit import Authority
from symbi.testing.contracts import SandboxUnderTest
from symbi.testing.docker_engine import DockerEngine
from symbi.types import SecurityTier

RUNTIMES: Final = {SecurityTier.TIER1: "runc", SecurityTier.TIER2: "runsc"}
"""The engine's runtime for each container tier."""


@asynccontextmanager
async def open_interpreter(*, workers: int = 1) -> AsyncIterator[SandboxUnderTest]:
    """A running interpreter driver with an authority of its own.

    Raises:
        SandboxUnavailable: It is not installed, or does not answer.
    """
    authority = Authority(SystemClock())
    async with MontySandbox(authority, workers=workers) as driver:
        yield SandboxUnderTest(driver, authority)


@dataclass(frozen=True, slots=True)
class ContainersUnderTest:
    """A running driver of a container tier, and the engine's client that it uses."""

    sandbox: SandboxUnderTest
    driver: DockerSandbox
    engine: Engine
    instance: str

    async def first_processes(self) -> Mapping[str, int]:
        """The first process, as the host numbers it, of each container that there is, by the container's id."""
        found = {}
        for one in await self.engine.containers(f"{LABEL_INSTANCE}={self.instance}"):
            state = (await self.engine.inspect(str(one["Id"])) or {}).get("State")
            if isinstance(state, dict):
                found[str(one["Id"])] = int(state.get("Pid", 0))
        return found


@asynccontextmanager
async def open_containers(
    docker: DockerEngine, tier: SecurityTier, *, warm: int = 0, instance: str = "testing"
) -> AsyncIterator[ContainersUnderTest]:
    """A running driver of a container tier on an engine that has an image with Python."""
    authority = Authority(SystemClock())
    options = DockerOptions(image=docker.image, runtime=RUNTIMES[tier], instance=instance, warm=warm)
    async with Engine(docker.host) as engine, DockerSandbox(authority, tier, engine, options) as driver:
        yield ContainersUnderTest(SandboxUnderTest(driver, authority), driver, engine, instance)
