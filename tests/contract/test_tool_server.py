"""The tool server port on every adapter."""

import importlib.util
import sys
from contextlib import ExitStack

import pytest

from symbi.adapters.mcp import HttpToolServer, StdioToolServer
from symbi.adapters.mcp.session import SessionTerms
from symbi.clock import SystemClock
from symbi.guard.permit import Authority
from symbi.testing.tool_servers import (
    SERVER,
    TOOL_SERVER_CHECKS,
    ToolServerSimulator,
    ToolServerUnderTest,
    suite_tools,
)
from symbi.testing.web import served

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["stdio", "simulator", "http", "http with sessions"])
async def one(request, root):
    authority = Authority(SystemClock())
    servers = root / "tests" / "data" / "servers"
    with ExitStack() as stack:
        if request.param == "stdio":
            server = StdioToolServer(SERVER, [sys.executable, str(servers / "suite.py")], authority)
        elif request.param == "simulator":
            server = ToolServerSimulator(SERVER, authority, suite_tools())
        else:
            url = stack.enter_context(served(house(servers / "house.py").application(more=False)))
            server = HttpToolServer(SERVER, f"{url}/mcp", authority)
            server.terms = SessionTerms(mode="auto" if request.param == "http" else "legacy")
        async with server:
            yield ToolServerUnderTest(server, authority, server.command_line)


def house(path):
    spec = importlib.util.spec_from_file_location("house", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("check", TOOL_SERVER_CHECKS, ids=lambda check: check.__name__)
async def test_the_contract_holds(one, check):
    await check(one)
