"""MCP-3: what a call costs through the gateway beside the same call without it, many clients, and many servers."""

import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from time import perf_counter_ns
from typing import Final

import anyio
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters

from symbi.bench.machine import describe_file_system
from symbi.bench.measure import Measurement, Scale, latency, rate, single
from symbi.errors import InternalError
from symbi.testing import echo_server
from symbi.testing.echo_gateway import NAMES, TOOL, open_echoes
from symbi.testing.gateway_http import over_http
from symbi.testing.mcp_gateway import GatewayUnderTest

CALLS: Final = 2_000
CONNECTIONS: Final = 100
CALLS_EACH: Final = 40
SERVERS: Final = len(NAMES)
STARTS: Final = 5
TEXT: Final = "x" * 256
LEGACY: Final = "2025-11-25"


async def gateway(scale: Scale) -> list[Measurement]:
    """Calls beside calls, calls a second, and how long it is until the first tools are listed."""
    return [*await _overhead(scale), await _many(scale), await _start(scale)]


@asynccontextmanager
async def _opened(servers: int) -> AsyncIterator[tuple[GatewayUnderTest, str]]:
    with tempfile.TemporaryDirectory(prefix="symbi-bench-") as name:
        async with open_echoes(Path(name), servers) as opened:
            yield opened, describe_file_system(Path(name))


async def _overhead(scale: Scale) -> list[Measurement]:
    """The same call one after the other, straight and through the gateway in turn, so that both have the same machine."""
    direct: list[int] = []
    governed: list[int] = []
    calls = scale.of(CALLS, least=10)
    straight = StdioServerParameters(command=sys.executable, args=["-I", "-S", echo_server.__file__])
    async with AsyncExitStack() as stack:
        opened, on = await stack.enter_async_context(_opened(1))
        alone = await stack.enter_async_context(Client(straight, mode="legacy"))
        behind = await stack.enter_async_context(opened.client(mode="legacy"))
        await behind.list_tools()
        for number in range(calls + 5):
            for client, name, samples in ((alone, "echo", direct), (behind, TOOL, governed)):
                begun = perf_counter_ns()
                await _call(client, name)
                if number >= 5:  # noqa: PLR2004 - the first are to warm up
                    samples.append(perf_counter_ns() - begun)
    method = (
        f"{len(TEXT)} bytes to a tool that answers them, in a process over standard streams, by the SDK's client; one after the "
        "other, straight and through the gateway in turn"
    )
    checked = f"{method}; tool signed and pinned, policy in force, decision and outcome durable on {on}, client in the same process"
    median = sorted(after - before for before, after in zip(direct, governed, strict=True))[calls // 2]
    return [
        latency("MCP-3", "call without the gateway", direct, unit="ms", judged="p50", target=None, method=method),
        latency("MCP-3", "call through the gateway", governed, unit="ms", judged="p50", target=None, method=checked),
        single(
            "MCP-3", "what the gateway adds to a call, median", median / 1e6, unit="ms", n=calls, target=None, method=checked
        ),
    ]  # fmt: skip


async def _call(client: Client, name: str) -> None:
    result = await client.call_tool(name, {"text": TEXT})
    if result.is_error or getattr(result.content[0], "text", None) != TEXT:
        msg = f"a measured call was answered {result.content!r}"
        raise InternalError(msg)


async def _many(scale: Scale) -> Measurement:
    """Calls in a second, by HTTP, from many clients at a time."""
    connections, each = scale.of(CONNECTIONS, least=2), scale.of(CALLS_EACH, least=2)
    async with _opened(1) as (opened, on), over_http(opened) as served, AsyncExitStack() as clients:
        there = [await clients.enter_async_context(served.client(mode="legacy")) for _ in range(connections)]
        await there[0].list_tools()

        async def in_a_row(client: Client) -> None:
            for _ in range(each):
                await _call(client, TOOL)

        begun = perf_counter_ns()
        async with anyio.create_task_group() as at_once:
            for client in there:
                at_once.start_soon(in_a_row, client)
        took = perf_counter_ns() - begun
    method = (
        f"streamable HTTP on loopback, a session of {LEGACY} each, clients in the same process; bearer token, tool signed and pinned, "
        f"policy in force, decisions and outcomes durable on {on}"
    )
    return rate(
        "MCP-3", f"calls through the gateway, {connections} connections", connections * each, took,
        unit="calls/s", target=None, method=method,
    )  # fmt: skip


async def _start(scale: Scale) -> Measurement:
    """From nothing to the first list of tools."""
    servers, samples = scale.of(SERVERS, least=2), []
    for _ in range(scale.of(STARTS)):
        begun = perf_counter_ns()
        async with _opened(servers) as (opened, _), opened.client(mode="legacy") as client:
            listed = [tool for tool in (await client.list_tools()).tools if not tool.name.startswith("symbi__")]
            samples.append(perf_counter_ns() - begun)
        if len(listed) != servers:
            msg = f"{len(listed)} tools are listed, not {servers}"
            raise InternalError(msg)
    method = "runtime opened on a new folder, servers started, their tools verified and pinned; the servers are processes of a few lines"
    return latency(
        "MCP-3", f"start until the tools of {servers} servers are listed", samples, unit="s", judged="p50", target=None, method=method
    )  # fmt: skip
