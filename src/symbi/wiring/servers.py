"""Tool servers, from settings: their links, their keys, and what the operator says of their tools."""

import logging
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from symbi.audit.log import AuditLog
from symbi.config import Settings
from symbi.config.mcp_settings import OAuthGrant, ServerSandbox, ServerSettings
from symbi.errors import ConfigError
from symbi.guard.gate import Guard
from symbi.tools.asking import AskKind
from symbi.tools.breaker import BreakerTerms
from symbi.tools.catalog import SecretSource, ServerLink
from symbi.tools.dependency import DependencyTerms
from symbi.tools.manifest import Manifest, parse_manifest
from symbi.tools.schemapin import PublicKey, load_public_key
from symbi.types import SecurityTier
from symbi.wiring.discovery import find_servers
from symbi.wiring.sandboxes import container_options, open_engine
from symbi.wiring.sources import read_text

_log = logging.getLogger("symbi.tools")

if TYPE_CHECKING:
    from symbi.adapters.docker import Engine
    from symbi.adapters.mcp.oauth import OAuthTerms


async def server_links(
    stack: AsyncExitStack, settings: Settings, guard: Guard, secrets: SecretSource, log: AuditLog
) -> "tuple[list[ServerLink], Engine | None]":
    """The configured servers and those that files name, each entered on the stack; none is connected.

    Raises:
        ConfigError: What is configured of one cannot be used.
    """
    kept = [server for server in settings.mcp.servers if server.sandbox is not ServerSandbox.NONE]
    # The engine first, so that it is left last: the end of a server is the end of its container.
    engine = await open_engine(stack, settings, log) if kept else None
    links = [await _link(stack, server, settings, guard, secrets) for server in settings.mcp.servers]
    if engine is not None:
        _contain(engine, settings, kept, links, log.origin)
    found, left_out = find_servers(settings)
    for one in left_out:
        _log.warning("a tool server that was found is left out: `%s` in `%s`: %s", one.name, one.file, one.reason)
    for each in found:
        link = await _link(stack, each.settings, settings, guard, secrets)
        links.append(replace(link, source=each.file, digest=each.digest, definition=each.definition))
    return links, engine


def _contain(
    engine: "Engine", settings: Settings, kept: Sequence[ServerSettings], links: Sequence[ServerLink], origin: str
) -> None:
    """Have the commands of servers run in containers."""
    from symbi.adapters.docker import serve_from  # noqa: PLC0415 - for those who have containers
    from symbi.adapters.mcp import StdioToolServer  # noqa: PLC0415 - likewise

    by_name = {link.name: link.server for link in links}
    for server in kept:
        made = by_name[server.name]
        tier = SecurityTier.TIER1 if server.sandbox is ServerSandbox.DOCKER else SecurityTier.TIER2
        options = replace(container_options(settings, tier, origin), image=server.image or "")
        if isinstance(made, StdioToolServer):
            made.start = serve_from(engine, options, tier, server.name, server.memory_mb)


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
    from symbi.adapters.mcp import HttpToolServer, StdioToolServer  # noqa: PLC0415 - half a second, for those who have tools
    from symbi.adapters.mcp.session import SessionTerms  # noqa: PLC0415 - likewise

    made: HttpToolServer | StdioToolServer
    if server.command is not None:
        made = StdioToolServer(
            server.name,
            server.command,
            guard.authority,
            env=dict(server.env),
            cwd=settings.folder / server.cwd if server.cwd else settings.folder,
            secrets=secrets,
            start_timeout_s=settings.mcp.connection_timeout_s,
        )
    else:
        made = HttpToolServer(
            server.name,
            server.url or "",
            guard.authority,
            headers=dict(server.headers),
            secrets=secrets,
            private_addresses=server.private_addresses,
            start_timeout_s=settings.mcp.connection_timeout_s,
        )
        made.oauth = _oauth(server, settings)
    made.terms = SessionTerms(frozenset(AskKind(one.value) for one in server.asks), server.protocol.value)
    await stack.enter_async_context(made)
    timeout_s = server.timeout_s or settings.limits.tool_timeout_s
    return ServerLink(
        server.name, made.command_line, made, made.secret_paths, timeout_s, dependency_terms(server),
        lambda: made.pid, made, updates=made,
    )  # fmt: skip


def _oauth(server: ServerSettings, settings: Settings) -> "OAuthTerms | None":
    """How its tokens are got.

    Raises:
        ConfigError: What is needed for that is not there.
    """
    from symbi.adapters.mcp.oauth import OAuthTerms  # noqa: PLC0415 - likewise

    if server.oauth_grant is OAuthGrant.NONE:
        return None
    needed = {
        OAuthGrant.CREDENTIALS: ("oauth_issuer", "oauth_client_id", "oauth_client_secret"),
        OAuthGrant.KEY: ("oauth_issuer", "oauth_client_id", "oauth_private_key"),
        OAuthGrant.IDENTITY: ("oauth_issuer", "oauth_client_id", "oauth_client_secret", "oauth_assertion"),
        OAuthGrant.CODE: ("oauth_redirect_uri",),
    }[server.oauth_grant]
    absent = [name for name in needed if getattr(server, name) is None]
    if absent:
        key = f"mcp.servers.{server.name}.oauth_grant"
        msg = f"`{key}` is `{server.oauth_grant.value}`, which needs `{absent[0]}`"
        raise ConfigError(msg, place=settings.origin(key).place)
    return OAuthTerms(
        server.oauth_grant.value,
        issuer=server.oauth_issuer or "",
        client_id=server.oauth_client_id or "",
        client_secret=server.oauth_client_secret or "",
        private_key=server.oauth_private_key or "",
        assertion=server.oauth_assertion or "",
        scope=server.oauth_scope or "",
        redirect_uri=server.oauth_redirect_uri or "",
        metadata_url=server.oauth_metadata_url or "",
    )


def dependency_terms(server: ServerSettings) -> DependencyTerms:
    """How a configured server is treated."""
    breaker = BreakerTerms(server.breaker_failures, server.breaker_window_s, server.breaker_open_s)
    return DependencyTerms(server.max_concurrent, server.max_waiting, server.max_wait_s, breaker)
