"""MCP-3: what a call costs through the gateway beside the same call without it, many clients, and many servers."""

import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from time import perf_counter_ns
from typing import Any, Final

import anyio
import httpx2
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.memory import create_client_server_memory_streams

from symbi.api.mcp.clients import client_of
from symbi.api.mcp.gateway import Gateway, terms_of
from symbi.api.mcp.over_http import http_gateway
from symbi.api.mcp.serving import serve
from symbi.api.mcp.tokens import ClientBook
from symbi.bench.machine import describe_file_system
from symbi.bench.measure import Measurement, Scale, latency, rate, single
from symbi.config import Settings, parse_settings
from symbi.errors import InternalError
from symbi.testing import echo_server
from symbi.tools.port import ToolDefinition
from symbi.tools.schemapin import make_key_pair, sign_definitions
from symbi.wiring import open_runtime

CALLS: Final = 2_000
CONNECTIONS: Final = 100
CALLS_EACH: Final = 40
SERVERS: Final = 20
STARTS: Final = 5
TEXT: Final = "x" * 256
LEGACY: Final = "2025-11-25"

_POLICIES: Final = """\
@id("clients-connect") permit (principal in Group::"mcp.clients", action == Action::"ConnectServer", resource);
@id("clients-call") permit (principal in Group::"mcp.clients", action in Action::"InvokeTool", resource);
"""
_HEAD: Final = """\
[mcp]
tool_verification = "strict"
[gateway]
port = 0
max_calls = 1000
max_sessions = 1000
max_requests = 1000
calls_rate = 100000.0
[mcp.clients.bench]
"""
_SERVER: Final = """\
[mcp.servers.{name}]
command = ["{{python}}", "-I", "-S", "{script}", "{signature}"]
public_key = "key.pub"
"""


async def gateway(scale: Scale) -> list[Measurement]:
    """Calls beside calls, calls a second, and how long it is until the first tools are listed."""
    return [*await _overhead(scale), await _many(scale), await _start(scale)]


def _write(folder: Path, servers: int) -> None:
    """A configuration with so many servers, whose tools are signed."""
    private, public = make_key_pair()
    (folder / "key.pub").write_bytes(public)
    (folder / "policies").mkdir()
    (folder / "policies" / "clients.cedar").write_text(_POLICIES, encoding="utf-8")
    parts = [_HEAD]
    for number in range(servers):
        name = f"echo{number}"
        (listed,) = echo_server.tools("", 1)
        definition = ToolDefinition(name, echo_server.NAME, str(listed["description"]), listed["inputSchema"])  # type: ignore[arg-type] # JSON
        signature = sign_definitions([definition], private)[echo_server.NAME]
        parts.append(_SERVER.format(name=name, script=echo_server.__file__, signature=signature))
    (folder / "symbi.toml").write_text("".join(parts), encoding="utf-8")


@asynccontextmanager
async def _opened(servers: int) -> AsyncIterator[tuple[Gateway, Path, str]]:
    with tempfile.TemporaryDirectory(prefix="symbi-bench-") as name:
        folder = Path(name)
        _write(folder, servers)
        settings = _settings(folder)
        async with open_runtime(settings) as runtime, Gateway(runtime, terms_of(settings.gateway)) as opened:
            yield opened, folder, describe_file_system(folder)


def _settings(folder: Path) -> Settings:
    text = (folder / "symbi.toml").read_text(encoding="utf-8")
    return parse_settings(text, file=folder / "symbi.toml", cwd=folder, environ={}, overrides={})


@asynccontextmanager
async def _in_memory(opened: Gateway, folder: Path) -> AsyncIterator[Client]:
    """A client of the gateway in this process."""
    client = client_of(_settings(folder), "bench")
    async with create_client_server_memory_streams() as (theirs, ours), anyio.create_task_group() as tasks:

        async def served() -> None:
            await serve(opened, client, ours, transport="memory")

        tasks.start_soon(served)
        async with Client(_Given(theirs), mode="legacy") as asking:
            yield asking
        tasks.cancel_scope.cancel()


class _Given:
    """Streams that are there, in the form of a transport."""

    def __init__(self, streams: Any) -> None:
        self._streams = streams

    async def __aenter__(self) -> Any:
        return self._streams

    async def __aexit__(self, *error: object) -> None:
        return None


async def _overhead(scale: Scale) -> list[Measurement]:
    """The same call one after the other, straight and through the gateway in turn, so that both have the same machine."""
    direct: list[int] = []
    governed: list[int] = []
    calls = scale.of(CALLS, least=10)
    straight = StdioServerParameters(command=sys.executable, args=["-I", "-S", echo_server.__file__])
    async with AsyncExitStack() as stack:
        opened, folder, on = await stack.enter_async_context(_opened(1))
        alone = await stack.enter_async_context(Client(straight, mode="legacy"))
        behind = await stack.enter_async_context(_in_memory(opened, folder))
        (tool,) = [one.name for one in (await behind.list_tools()).tools if one.name.startswith("echo0")]
        for number in range(calls + 5):
            for client, name, samples in ((alone, echo_server.NAME, direct), (behind, tool, governed)):
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
    async with AsyncExitStack() as stack:
        opened, folder, on = await stack.enter_async_context(_opened(1))
        settings = _settings(folder)
        token = ClientBook(settings.runtime.data_dir).add("bench", 0)
        served = http_gateway(opened, settings)
        ready = anyio.Event()
        url: list[str] = []

        def started(at: str) -> None:
            url.append(at)
            ready.set()

        tasks = await stack.enter_async_context(anyio.create_task_group())
        tasks.start_soon(served.serve, started)
        await ready.wait()
        async with AsyncExitStack() as clients:
            there = []
            for _ in range(connections):
                http = await clients.enter_async_context(
                    httpx2.AsyncClient(headers={"authorization": f"Bearer {token}"}, timeout=60)
                )
                there.append(
                    await clients.enter_async_context(
                        Client(streamable_http_client(url[0], http_client=http), mode="legacy")
                    )
                )
            tool = next(one.name for one in (await there[0].list_tools()).tools if one.name.startswith("echo0"))

            async def in_a_row(client: Client) -> None:
                for _ in range(each):
                    await _call(client, tool)

            begun = perf_counter_ns()
            async with anyio.create_task_group() as at_once:
                for client in there:
                    at_once.start_soon(in_a_row, client)
            took = perf_counter_ns() - begun
        served.stop()
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
        async with _opened(servers) as (opened, folder, _), _in_memory(opened, folder) as client:
            listed = [tool for tool in (await client.list_tools()).tools if echo_server.NAME in tool.name]
            samples.append(perf_counter_ns() - begun)
        if len(listed) != servers:
            msg = f"{len(listed)} tools are listed, not {servers}"
            raise InternalError(msg)
    method = "runtime opened on a new folder, servers started, their tools verified and pinned; the servers are processes of a few lines"
    return latency(
        "MCP-3", f"start until the tools of {servers} servers are listed", samples, unit="s", judged="p50", target=None, method=method
    )  # fmt: skip
