"""What people can ask about the tool servers of a runtime that is alive. JSON in, JSON out, behind the gate."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from symbi.api.approvals import text_of
from symbi.api.caller import Caller, Operation, principal_of
from symbi.runtime.runtime import Runtime
from symbi.tools.reviewing import ToolReviews
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


async def accept(runtime: Runtime, caller: Caller, arguments: Mapping[str, JsonValue]) -> JsonValue:
    """Take a tool as it was shown."""
    name, digest = text_of(arguments, "tool"), text_of(arguments, "digest")
    older = arguments.get("older") is True
    tool = await ToolReviews(runtime.catalog).accept(name, digest, principal_of(runtime, caller), older=older)
    return {"tool": tool.ref.name, "digest": tool.ref.schema_digest, "signed": tool.ref.verified}


async def reject(runtime: Runtime, caller: Caller, arguments: Mapping[str, JsonValue]) -> JsonValue:
    """Refuse exactly what was shown of a tool."""
    name, digest = text_of(arguments, "tool"), text_of(arguments, "digest")
    reason = str(arguments.get("reason", ""))
    found = await ToolReviews(runtime.catalog).reject(name, digest, principal_of(runtime, caller), reason)
    return {"tool": found.name, "digest": found.digest, "state": found.state.value}


async def revoke(runtime: Runtime, caller: Caller, arguments: Mapping[str, JsonValue]) -> JsonValue:
    """Refuse a tool, whatever it is or becomes, or all that a key has signed."""
    reviews, reason = ToolReviews(runtime.catalog), str(arguments.get("reason", ""))
    if "key" in arguments:
        key = text_of(arguments, "key")
        return {"key": key, "tools": list(await reviews.revoke_key(key, principal_of(runtime, caller), reason))}
    found = await reviews.revoke(text_of(arguments, "tool"), principal_of(runtime, caller), reason)
    return {"tool": found.name, "state": found.state.value}


async def decide_server(runtime: Runtime, caller: Caller, arguments: Mapping[str, JsonValue]) -> JsonValue:
    """Let a server that was found in a file be connected, or not."""
    name, digest, accept = text_of(arguments, "server"), text_of(arguments, "digest"), arguments.get("accept") is True
    principal = principal_of(runtime, caller)
    found = await ToolReviews(runtime.catalog).decide_server(name, digest, principal, accept=accept)
    return {"server": found.name, "digest": found.digest, "state": found.state.value}


OPERATIONS: Final[Mapping[str, Operation]] = MappingProxyType(
    {
        "tools.servers": list_servers,
        "tools.accept": accept,
        "tools.reject": reject,
        "tools.revoke": revoke,
        "tools.server": decide_server,
    }
)
"""Operations by name."""
