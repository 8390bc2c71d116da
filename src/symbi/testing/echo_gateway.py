"""A gateway in front of servers that only echo, with tools that are signed: what measurements are made on."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, cast

from symbi.testing import echo_server
from symbi.testing.mcp_gateway import GatewayUnderTest, open_gateway
from symbi.tools.port import ToolDefinition
from symbi.tools.schemapin import make_key_pair, sign_definitions
from symbi.types import JsonValue

POLICIES: Final = """\
@id("clients-connect") permit (principal in Group::"mcp.clients", action == Action::"ConnectServer", resource);
@id("clients-call") permit (principal in Group::"mcp.clients", action in Action::"InvokeTool", resource);
"""
AGENT: Final = 'agent idle() { with { "done" } }'
NAMES: Final = [
    "alfa",
    "bravo",
    "charlie",
    "delta",
    "echo",
    "foxtrot",
    "golf",
    "hotel",
    "india",
    "juliett",
    "kilo",
    "lima",
    "mike",
    "november",
    "oscar",
    "papa",
    "quebec",
    "romeo",
    "sierra",
    "tango",
]
"""Of servers and their tools: no two that look alike, for those are refused."""
TOOL: Final = f"{NAMES[0]}__{NAMES[0]}"
"""The tool of the first server, as clients call it."""

_HEAD: Final = """\
[mcp]
tool_verification = "strict"
[gateway]
port = 0
max_calls = 1000
max_sessions = 1000
max_client_sessions = 1000
max_requests = 1000
calls_rate = 100000.0
"""
_SERVER: Final = """\
[mcp.servers.{name}]
command = ["{{python}}", "-I", "-S", {script}, "{name}", "{signature}"]
public_key = "key.pub"
"""


@asynccontextmanager
async def open_echoes(folder: Path, servers: int) -> AsyncIterator[GatewayUnderTest]:
    """A gateway in a folder, in front of so many servers.

    Args:
        folder: Is empty.
        servers: How many processes, of one signed tool each; as many as there are `NAMES`, at most.
    """
    private, public = make_key_pair()
    (folder / "key.pub").write_bytes(public)
    parts = [_HEAD]
    schema = cast("dict[str, JsonValue]", echo_server.SCHEMA)
    for name in NAMES[:servers]:
        definition = ToolDefinition(name, name, echo_server.MEANING, schema)
        signature = sign_definitions([definition], private)[name]
        parts.append(_SERVER.format(name=name, script=json.dumps(echo_server.__file__), signature=signature))
    async with open_gateway(folder, config="".join(parts), policies=POLICIES, agents=AGENT) as under_test:
        yield under_test
