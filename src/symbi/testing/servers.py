"""Simulated tool servers in the place of configured ones, for whole runtimes in a test."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from typing import Any, Final
from unittest.mock import patch

from symbi.config import Settings
from symbi.config.mcp_settings import ServerSettings
from symbi.guard.gate import Guard
from symbi.testing.tool_servers import Answer, ToolServerSimulator
from symbi.tools.catalog import SecretSource, ServerLink
from symbi.tools.port import ToolDefinition
from symbi.types import JsonValue
from symbi.wiring.servers import dependency_terms

ANYTHING: Final[Mapping[str, JsonValue]] = {"type": "object"}
"""Arguments of any kind."""


def simulated(server: str, tools: Mapping[str, Answer], schema: Mapping[str, JsonValue] = ANYTHING) -> Any:
    """Tools of a server by name, as `ToolServerSimulator` takes them."""
    return [(ToolDefinition(server, name, "Simulated.", schema), answer) for name, answer in tools.items()]


@contextmanager
def in_place_of(servers: Mapping[str, Sequence[tuple[ToolDefinition, Answer]]]) -> Iterator[None]:
    """While it lasts, runtimes are opened with simulators in the place of the servers of these names."""

    async def link(
        stack: AsyncExitStack, server: ServerSettings, settings: Settings, guard: Guard, _secrets: SecretSource
    ) -> ServerLink:
        simulator = ToolServerSimulator(server.name, guard.authority, servers[server.name])
        timeout_s = server.timeout_s or settings.limits.tool_timeout_s
        entered = await stack.enter_async_context(simulator)
        return ServerLink(
            server.name, simulator.command_line, entered, timeout_s=timeout_s, terms=dependency_terms(server)
        )

    with patch("symbi.wiring.servers._link", link):
        yield
