"""What people can ask about the tool servers of a runtime that is alive. JSON in, JSON out, behind the gate."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from symbi.api.caller import Caller, Operation
from symbi.runtime.runtime import Runtime
from symbi.types import JsonValue


async def list_servers(runtime: Runtime, _caller: Caller, _arguments: Mapping[str, JsonValue]) -> JsonValue:
    """Each configured server: whether it is connected, how its breaker stands, and what it has to do."""
    catalog = runtime.catalog
    return [
        {
            "server": server,
            "connected": catalog.is_connected(server),
            "breaker": status.state.value,
            "retry_after_s": status.retry_after_s,
            "calls": status.calls,
            "waiting": status.waiting,
            "down": catalog.down[server].message if server in catalog.down else None,
        }
        for server, status in zip(catalog.servers, catalog.dependencies, strict=True)
    ]


OPERATIONS: Final[Mapping[str, Operation]] = MappingProxyType({"tools.servers": list_servers})
"""Operations by name."""
