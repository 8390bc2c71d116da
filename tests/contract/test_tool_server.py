"""The tool server port on every adapter."""

import sys

import pytest

from symbi.adapters.mcp import StdioToolServer
from symbi.clock import SystemClock
from symbi.guard.permit import Authority
from symbi.testing.tool_servers import (
    SERVER,
    TOOL_SERVER_CHECKS,
    ToolServerSimulator,
    ToolServerUnderTest,
    suite_tools,
)

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["stdio", "simulator"])
async def one(request, root):
    authority = Authority(SystemClock())
    if request.param == "stdio":
        script = root / "tests" / "data" / "servers" / "suite.py"
        server = StdioToolServer(SERVER, [sys.executable, str(script)], authority)
    else:
        server = ToolServerSimulator(SERVER, authority, suite_tools())
    async with server:
        yield ToolServerUnderTest(server, authority, server.command_line)


@pytest.mark.parametrize("check", TOOL_SERVER_CHECKS, ids=lambda check: check.__name__)
async def test_the_contract_holds(one, check):
    await check(one)
