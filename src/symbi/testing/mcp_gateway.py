"""A gateway in a folder, and the SDK's own client of it over memory streams."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
from mcp.client.client import Client as McpClient
from mcp.shared.memory import create_client_server_memory_streams

from symbi.api.mcp.clients import client_of
from symbi.api.mcp.gateway import Gateway, Search, terms_of
from symbi.api.mcp.serving import serve
from symbi.clock import Clock
from symbi.config import CONFIG_NAME, Settings, parse_settings
from symbi.runtime.runtime import Runtime
from symbi.testing.runtime import open_in


@dataclass(frozen=True, slots=True)
class GatewayUnderTest:
    """An open gateway.

    Attributes:
        runtime: What it serves.
        gateway: Itself.
        settings: What it was told.
        ended: The names of clients that it has done with, in order.
    """

    runtime: Runtime
    gateway: Gateway
    settings: Settings
    ended: list[str] = field(default_factory=list)

    @asynccontextmanager
    async def client(self, name: str = "local", *, uid: int | None = None, **options: Any) -> AsyncIterator[McpClient]:
        """The SDK's client, connected as a client of some name.

        Args:
            name: As the transport would have made sure.
            uid: The operating-system user at the client.
            options: Of the SDK's client.
        """
        async with create_client_server_memory_streams() as (ours, theirs), anyio.create_task_group() as tasks:

            async def serve_one() -> None:
                await serve(self.gateway, client_of(self.settings, name), theirs, transport="memory", uid=uid)
                self.ended.append(name)

            tasks.start_soon(serve_one)
            async with McpClient(_transport(ours), cache=None, **options) as client:
                yield client


@asynccontextmanager
async def _transport(streams: Any) -> AsyncIterator[Any]:
    yield streams


@asynccontextmanager
async def open_gateway(
    folder: Path,
    *,
    config: str,
    policies: str,
    agents: str,
    clock: Clock | None = None,
    search: Search | None = None,
) -> AsyncIterator[GatewayUnderTest]:
    """A gateway over a runtime in a folder.

    Args:
        folder: Is made if it is not there.
        config: Text of the configuration.
        policies: Text of the operator's policies.
        agents: Text of an agent file.
        clock: The machine's if None.
        search: Searches knowledge.
    """
    opened = open_in(folder, agents, config=config, policies=policies, clock=clock)
    async with opened as running:
        settings = parse_settings(config, file=folder / CONFIG_NAME, cwd=folder, environ={}, overrides={})
        async with Gateway(running.runtime, terms_of(settings.gateway), [running.compiled], search) as gateway:
            yield GatewayUnderTest(running.runtime, gateway, settings)
