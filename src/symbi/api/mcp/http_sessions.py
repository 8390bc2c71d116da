"""Sessions of one client over HTTP: what has been read in one conversation is nobody's concern in another.

Until 2025-11-25 the protocol has sessions, and each has one of the gateway. Since 2026-07-28 every request stands alone: then
the client has one, which ends once it has asked nothing for as long as a session may be idle.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import anyio
import mcp_types as types
from anyio.abc import TaskGroup, TaskStatus
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.shared.exceptions import MCPError
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS

from symbi.api.mcp.clients import Client
from symbi.api.mcp.gateway import Gateway, GatewaySession
from symbi.api.mcp.names import may_be_of, outside_names
from symbi.api.mcp.serving import SessionServer
from symbi.errors import Overloaded, SymbiError
from symbi.types import JsonValue

HEADER: Final = "mcp-session-id"
VERSION_HEADER: Final = "mcp-protocol-version"
ALONE: Final = ""  # the session of requests that belong to none


class _Open:
    """One session of the gateway, and who uses it."""

    def __init__(self, session: GatewaySession) -> None:
        self.session = session
        self.busy = 0
        self.touched = anyio.Event()
        self.is_over = False

    def touch(self) -> None:
        """Something has happened."""
        self.touched.set()

    def end(self) -> None:
        """Its client has ended it."""
        self.is_over = True
        self.touched.set()


class _Sessions:
    def __init__(self, gateway: Gateway, client: Client, tasks: TaskGroup, idle_s: float) -> None:
        self._gateway = gateway
        self._client = client
        self._tasks = tasks
        self._idle_s = idle_s
        self._open: dict[str, _Open] = {}
        self._opening = anyio.Lock()

    def find(self, ctx: ServerRequestContext[Any, Any]) -> GatewaySession:
        """The session of a request that was admitted."""
        found = self._open.get(_key(ctx))
        if found is None:
            raise MCPError(types.INVALID_REQUEST, "this session is over")
        return found.session

    def schema_of(self, name: str) -> Mapping[str, JsonValue] | None:
        """The schema of a tool by its name outside, which says what of a call its headers have to repeat; None of one not known.

        The SDK would else list all tools before each call, and every call would wait for the slowest server there is.
        """
        seen, prefixed, catalog = self._client.servers, self._gateway.terms.prefixed, self._gateway.runtime.catalog
        several = [one for one in catalog.servers if seen is None or one in seen]
        several = [one for one in several if not prefixed or may_be_of(name, one)]
        tools = [tool for tool in catalog.tools if tool.ref.server in several]
        names = outside_names([(tool.ref.server, tool.definition.name) for tool in tools], prefixed=prefixed)
        meant = [tool for tool, outside in zip(tools, names, strict=True) if outside == name]
        return meant[0].definition.input_schema if len(meant) == 1 else None

    async def admit(self, ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
        """See that a request has its session while it is carried out."""
        if ctx.method == "initialize" or ctx.method.startswith("notifications/"):
            return await call_next(ctx)
        key = _key(ctx)
        try:
            async with self._opening:
                opened = self._open.get(key)
                if opened is None or opened.is_over:
                    opened = await self._tasks.start(self._keep, key)
                    if key != ALONE:
                        ctx.session._connection.exit_stack.callback(opened.end)  # noqa: SLF001 - no other way tells its end
                opened.busy += 1
        except Overloaded as error:
            raise MCPError(
                types.INTERNAL_ERROR, error.message, {"retryAfterSeconds": error.fields["retry_after_s"]}
            ) from None
        except SymbiError as error:
            raise MCPError(types.INTERNAL_ERROR, "no session can be opened now", {"code": error.code}) from None
        opened.touch()
        try:
            return await call_next(ctx)
        finally:
            opened.busy -= 1
            opened.touch()

    async def _keep(self, key: str, *, task_status: TaskStatus[_Open]) -> None:
        async with self._gateway.session(self._client, "http") as session:
            opened = self._open[key] = _Open(session)
            task_status.started(opened)
            try:
                while not opened.is_over:
                    # One of the protocol lasts as long as that, for which the SDK knows how long nobody has been there:
                    # its client may do nothing but listen, and what it has read must still be known then.
                    with anyio.move_on_after(self._idle_s if key == ALONE else None) as idle:
                        await opened.touched.wait()
                    if idle.cancelled_caught and not opened.busy:
                        return
                    opened.touched = anyio.Event()
            finally:
                if self._open.get(key) is opened:
                    del self._open[key]


def _key(ctx: ServerRequestContext[Any, Any]) -> str:
    headers = getattr(ctx.request, "headers", {})
    version = headers.get(VERSION_HEADER)
    if version is not None and version not in HANDSHAKE_PROTOCOL_VERSIONS:
        return ALONE  # what it says of a session says nothing: such a request would open one of its own, and leave it
    return str(headers.get(HEADER, ALONE))


@asynccontextmanager
async def serving(gateway: Gateway, client: Client, idle_s: float) -> AsyncIterator[Server[Any]]:
    """The SDK's server of one client, and its sessions, which end with the context.

    Args:
        gateway: Serves.
        client: Who, as the door has made sure.
        idle_s: How long a session may be idle.
    """
    async with anyio.create_task_group() as tasks:
        sessions = _Sessions(gateway, client, tasks, idle_s)
        served = SessionServer(gateway, sessions.find)
        served.server.middleware.append(sessions.admit)
        served.server.get_tool_input_schema = sessions.schema_of
        told = served.options
        # The SDK's sessions over HTTP take no options, and would say that nothing is told of changes.
        served.server.create_initialization_options = lambda *_arguments, **_named: told  # type: ignore[method-assign]
        yield served.server
        tasks.cancel_scope.cancel()
