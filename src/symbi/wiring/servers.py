"""Tool servers, from settings: their links, their keys, and what the operator says of their tools."""

from contextlib import AsyncExitStack
from pathlib import Path

from symbi.config import Settings
from symbi.config.mcp_settings import ServerSettings
from symbi.errors import ConfigError
from symbi.guard.gate import Guard
from symbi.tools.breaker import BreakerTerms
from symbi.tools.catalog import SecretSource, ServerLink
from symbi.tools.dependency import DependencyTerms
from symbi.tools.manifest import Manifest, parse_manifest
from symbi.tools.schemapin import PublicKey, load_public_key
from symbi.wiring.sources import read_text


async def server_links(
    stack: AsyncExitStack, settings: Settings, guard: Guard, secrets: SecretSource
) -> list[ServerLink]:
    """The configured servers, each entered on the stack; none is connected.

    Raises:
        ConfigError: What is configured of one cannot be used.
    """
    return [await _link(stack, server, settings, guard, secrets) for server in settings.mcp.servers]


def public_keys(settings: Settings) -> dict[str, PublicKey]:
    """The key that signs each server's tools.

    Raises:
        InputError: A key file cannot be read or is no P-256 key.
    """
    named = [server for server in settings.mcp.servers if server.public_key is not None]
    return {s.name: load_public_key(read_text(settings.folder / (s.public_key or Path()))) for s in named}


def manifests(settings: Settings) -> dict[str, Manifest]:
    """What the operator says of each server's tools.

    Raises:
        ConfigError: A manifest is wrong.
        InputError: It cannot be read.
    """
    named = [(server, server.manifest) for server in settings.mcp.servers if server.manifest is not None]
    return {server.name: parse_manifest(str(path), read_text(settings.folder / path)) for server, path in named}


async def _link(
    stack: AsyncExitStack, server: ServerSettings, settings: Settings, guard: Guard, secrets: SecretSource
) -> ServerLink:
    if server.command is None:
        msg = f"`mcp.servers.{server.name}.url` is set: servers at an address are not part of this release"
        raise ConfigError(msg, place=settings.origin(f"mcp.servers.{server.name}.url").place, hint="use a `command`")
    from symbi.adapters.mcp.server import StdioToolServer  # noqa: PLC0415 - half a second, for those who have tools

    process = await stack.enter_async_context(
        StdioToolServer(
            server.name,
            server.command,
            guard.authority,
            env=dict(server.env),
            cwd=settings.folder / server.cwd if server.cwd else settings.folder,
            secrets=secrets,
            start_timeout_s=settings.mcp.connection_timeout_s,
        )
    )
    timeout_s = server.timeout_s or settings.limits.tool_timeout_s
    terms = dependency_terms(server)
    return ServerLink(
        server.name, process.command_line, process, process.secret_paths, timeout_s, terms, lambda: process.pid, process
    )


def dependency_terms(server: ServerSettings) -> DependencyTerms:
    """How a configured server is treated."""
    breaker = BreakerTerms(server.breaker_failures, server.breaker_window_s, server.breaker_open_s)
    return DependencyTerms(server.max_concurrent, server.max_waiting, server.max_wait_s, breaker)
