"""Tool servers that files name beside those of the configuration."""

import os
from collections.abc import Mapping

from symbi.adapters.server_files import read_server_files
from symbi.config import Settings
from symbi.config.mcp_files import FoundServer, LeftOut, choose_servers, parse_server_file


def find_servers(
    settings: Settings, environ: Mapping[str, str] | None = None
) -> tuple[tuple[FoundServer, ...], tuple[LeftOut, ...]]:
    """The servers that are taken, and what is left out with its reason; connects nothing.

    Args:
        settings: `mcp.files`, `mcp.registry`, `mcp.expand`; nothing is read where `mcp.discovery_enabled` is false.
        environ: Variables; the process's own if None.
    """
    if not settings.mcp.discovery_enabled:
        return (), ()
    environ = os.environ if environ is None else environ
    found: list[FoundServer] = []
    left: list[LeftOut] = []
    for file in read_server_files(settings.mcp.files, settings.mcp.registry):
        shown = str(file.path.relative_to(settings.folder) if file.path.is_relative_to(settings.folder) else file.path)
        if file.problem:
            left.append(LeftOut("", shown, f"it {file.problem}"))
            continue
        some, others = parse_server_file(file.text, shown, file.path.parent, environ, settings.mcp.expand)
        found += some
        left += others
    taken, refused = choose_servers(
        [server.name for server in settings.mcp.servers], found, settings.mcp.max_concurrent_connections
    )
    return taken, (*left, *refused)
