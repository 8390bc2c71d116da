"""`StdioToolServer`: an MCP server as a process of ours, one session at a time.

The session lives in a task of its own, so that `connect`, `call` and the end may come from different tasks, and a
caller that is cancelled takes nobody else with it. A session that has ended stays ended: what answers under the name
next was connected, listed and verified anew.
"""

import json
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, cast

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup
from mcp.client.client import Client
from mcp.shared.exceptions import MCPError
from mcp_types import (
    PARSE_ERROR,
    CallToolRequest,
    CallToolRequestParams,
    Implementation,
    ListToolsRequest,
    PaginatedRequestParams,
    PingRequest,
    RequestParamsMeta,
)
from pydantic import RootModel, ValidationError

from symbi import __version__
from symbi.adapters.mcp.stdio import STOP_S, TOO_LARGE, ServerProcess
from symbi.errors import (
    ConfigError,
    InputError,
    OutputLimit,
    Overloaded,
    PermitRefused,
    SymbiError,
    TimeLimit,
    ToolFailed,
    ToolServerUnavailable,
)
from symbi.guard.action import ConnectServer, InvokeTool
from symbi.guard.permit import Authority, Permit
from symbi.tools.asking import NO_CALLER, CallHooks
from symbi.tools.mask import VAULT_SCHEME, SecretMask, put_in, references
from symbi.tools.port import MAX_TOOL_OUTPUT_BYTES, PROTOCOL_FAILURE, RawToolResult, SecretSource, ToolDefinition
from symbi.tools.text import printable

EFFECT_ID_KEY: Final = "symbi/effect-id"
"""Key in the `_meta` of a `tools/call` request: the effect's id, which a server may take as an idempotency key. The
prefix is one label, `symbi`; the protocol reserves prefixes whose second label is `mcp` or `modelcontextprotocol`."""

INHERITED: Final = ("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR")
"""What a server gets of our environment; everything else has to be configured for it."""

FOREIGN_PREFIXES: Final = ("SYMBI_KEY_", "SYMBI_SECRET_")
"""Variables that are ours alone and cannot be configured for a server."""

MAX_TOOLS: Final = 512  # of one server; bounds what pins, policies and prompts have to hold
MAX_PAGES: Final = 16  # of one listing
MAX_CALLS: Final = 64  # calls to one server that wait for an answer
RETRY_AFTER_S: Final = 0.5  # when that many wait
EXIT_WAIT_S: Final = 1.0  # for a server that closed its output to end, so that a message can say how


_FOREIGN: Final = (MCPError, ValidationError, OSError, ValueError, RuntimeError)
"""What the SDK raises, beside a time-out."""


class _Raw(RootModel[dict[str, Any]]):
    """A result as the server sent it; the SDK has checked its shape, and nothing is added or dropped."""


class _Session:
    """One connection, from start to end."""

    def __init__(self, process: ServerProcess) -> None:
        self.process = process
        self.scope = anyio.CancelScope()
        self.ready = anyio.Event()
        self.over = anyio.Event()
        self.client: Client | None = None
        self.failure: Exception | None = None
        self.calls = 0


class StdioToolServer:
    """`ToolServer` on a process of ours.

    Args:
        name: Its name in the configuration.
        command: Program and arguments; no shell.
        authority: Redeems permits.
        env: Its environment besides `INHERITED`; a `vault://path` value resolves when it is started.
        cwd: Its working folder, or None for ours.
        secrets: Where those references resolve.
        start_timeout_s: Seconds to start, agree on a protocol version and list the tools.

    Raises:
        ConfigError: There is no command, or `env` names a variable that holds keys or secrets of ours.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        authority: Authority,
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        secrets: SecretSource | None = None,
        start_timeout_s: float = 30.0,
    ) -> None:
        env = env or {}
        if not command:
            msg = f"server `{name}` has no command"
            raise ConfigError(msg)
        for variable in env:
            if variable.startswith(FOREIGN_PREFIXES):
                msg = f"`{variable}` cannot be given to server `{name}`"
                raise ConfigError(msg, hint="it holds a key or a secret of the runtime; use a `vault://` value")
        self.name = name
        self._command = tuple(command)
        self._authority = authority
        self._env = dict(env)
        self._cwd = cwd
        self._secrets = secrets
        self._start_timeout_s = start_timeout_s
        self._mask = SecretMask()
        self._tasks: TaskGroup | None = None
        self._session: _Session | None = None

    @property
    def pid(self) -> int | None:
        """Its process, while it has one."""
        return None if self._session is None else self._session.process.pid

    @property
    def command_line(self) -> str:
        """The command as policies see it."""
        return shlex.join(self._command)

    @property
    def secret_paths(self) -> tuple[str, ...]:
        """The vault paths that its environment asks for, sorted; `ConnectServer.secrets` has to name them."""
        return tuple(sorted(set(references(list(self._env.values())))))

    async def __aenter__(self) -> Self:
        """Prepare; nothing is started."""
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the session and the process; takes at most `STOP_S`, also after a cancellation."""
        tasks, self._tasks, self._session = self._tasks, None, None
        assert tasks is not None
        tasks.cancel_scope.cancel()
        # The error is not handed to the group, which would wrap it in an exception group.
        await tasks.__aexit__(None, None, None)

    @property
    def connected(self) -> bool:
        """A session is up, and its process has not ended."""
        session = self._session
        return session is not None and session.client is not None and not session.process.ended.is_set()

    # --- connect ---------------------------------------------------------------------------------

    async def connect(self, permit: Permit[ConnectServer]) -> Sequence[ToolDefinition]:
        """Start the server anew and list its tools, all pages, past the SDK's response cache."""
        action = self._authority.check(permit, ConnectServer)
        if action.server != self.name or action.command != self.command_line:
            msg = f"permit is for another server or command than those of `{self.name}`"
            raise PermitRefused(msg, code="permit.foreign", effect_id=permit.effect_id)
        if self._tasks is None:
            msg = f"tool server `{self.name}` is closed"
            raise ToolServerUnavailable(msg)
        await self._end_session()
        session: _Session | None = None
        failure: SymbiError
        try:
            with anyio.fail_after(self._start_timeout_s):
                environment = await self._environment(permit)
                self._authority.redeem(permit, ConnectServer)
                session = _Session(ServerProcess(self._command, environment, self._cwd))
                self._session = session
                self._tasks.start_soon(self._serve, session)
                await session.ready.wait()
                return await self._list(session)
        except TimeoutError:
            failure = self._unavailable(f"did not get ready within {self._start_timeout_s:g} s", session)
        except _FOREIGN as error:
            failure = await self._mapped(error, session, "listing its tools")
        except SymbiError as error:
            failure = error
        except anyio.get_cancelled_exc_class():
            await self._end_session()
            raise
        await self._end_session()
        raise self._mask.error(failure)

    async def _environment(self, permit: Permit[ConnectServer]) -> Mapping[str, str]:
        """What is inherited and what is configured, with vault references resolved."""
        values: dict[str, str] = {}
        for path in self.secret_paths:
            value = None
            if self._secrets is not None:
                value = await anyio.to_thread.run_sync(self._secrets.resolve, permit, path, abandon_on_cancel=True)
            if value is None:
                msg = f"no source has the secret `{VAULT_SCHEME}{path}` that server `{self.name}` is started with"
                raise InputError(msg, code="secret.unknown")
            values[path] = value
        self._mask.add(values)
        inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
        return inherited | {name: str(put_in(value, values)) for name, value in self._env.items()}

    async def _serve(self, session: _Session) -> None:
        """The session's own task: it enters the SDK's client, waits for the end, and leaves it."""
        try:
            with session.scope:
                client = Client(
                    session.process.transport(),
                    cache=None,
                    client_info=Implementation(name="symbi", version=__version__),
                )
                async with client:
                    session.client = client
                    session.ready.set()
                    await session.process.ended.wait()
        except Exception as error:  # noqa: BLE001 - whatever the SDK raises is kept for `_mapped`, where it becomes ours
            session.failure = _leaf(error)
        finally:
            session.over.set()
            session.ready.set()

    async def _end_session(self) -> None:
        session, self._session = self._session, None
        if session is None:
            return
        session.scope.cancel()
        with anyio.move_on_after(STOP_S + EXIT_WAIT_S, shield=True):
            await session.over.wait()

    async def _list(self, session: _Session) -> Sequence[ToolDefinition]:
        definitions: list[ToolDefinition] = []
        cursor: str | None = None
        for _ in range(MAX_PAGES):
            params = PaginatedRequestParams(cursor=cursor) if cursor else None
            page = await self._request(session, ListToolsRequest(params=params))
            definitions.extend(self._definition(tool) for tool in page["tools"])
            if len(definitions) > MAX_TOOLS:
                raise self._unavailable(f"offers more than {MAX_TOOLS} tools", session)
            cursor = page.get("nextCursor")
            if not cursor:
                return definitions
        raise self._unavailable(f"lists its tools on more than {MAX_PAGES} pages", session)

    def _definition(self, tool: Mapping[str, Any]) -> ToolDefinition:
        if self._mask.value(tool) != tool:
            raise self._unavailable("puts a secret that it was given into the definition of a tool", None)
        return ToolDefinition(
            server=self.name,
            name=tool["name"],
            description=tool.get("description") or "",
            input_schema=tool["inputSchema"],
            output_schema=tool.get("outputSchema"),
            title=tool.get("title"),
            annotations=tool.get("annotations") or {},
            meta=tool.get("_meta") or {},
        )

    # --- call ------------------------------------------------------------------------------------

    async def call(
        self, permit: Permit[InvokeTool], secrets: Mapping[str, str], hooks: CallHooks = NO_CALLER
    ) -> RawToolResult:
        """Call the permit's tool; secrets are put in here, and taken out of whatever comes back."""
        del hooks
        try:
            return await self._call(permit, secrets)
        except SymbiError as error:
            failure = self._mask.error(error)
        raise failure

    async def _call(self, permit: Permit[InvokeTool], secrets: Mapping[str, str]) -> RawToolResult:
        action = self._authority.check(permit, InvokeTool)
        if action.tool.server != self.name:
            msg = f"permit is for a tool of `{action.tool.server}`, not of `{self.name}`"
            raise PermitRefused(msg, code="permit.foreign", effect_id=permit.effect_id)
        self._mask.add(secrets)
        session = self._live()
        request = CallToolRequest(
            params=CallToolRequestParams(
                name=action.tool.name.removeprefix(f"{self.name}."),
                arguments=cast("dict[str, Any]", put_in(action.values, secrets)),
                _meta=cast("RequestParamsMeta", {EFFECT_ID_KEY: permit.effect_id}),
            )
        )
        # From here on the call may have an effect; whatever was refused above left the permit unspent.
        self._authority.redeem(permit, InvokeTool)
        session.calls += 1
        try:
            with anyio.fail_after(action.timeout_s):
                raw = await self._request(session, request)
        except TimeoutError:
            msg = f"tool `{action.tool.name}` did not answer within {action.timeout_s:g} s"
            raise TimeLimit(msg, tool=action.tool.name) from None
        except _FOREIGN as error:
            raise await self._mapped(error, session, f"the call of `{action.tool.name}`") from None
        finally:
            session.calls -= 1
        return self._decode(raw, action.tool.name)

    async def ping(self, within_s: float) -> None:
        """Ask the server whether it is there."""
        session = self._live()
        try:
            with anyio.fail_after(within_s):
                await self._request(session, PingRequest())
        except TimeoutError:
            msg = f"tool server `{self.name}` did not answer within {within_s:g} s"
            raise TimeLimit(msg, server=self.name) from None
        except _FOREIGN as error:
            raise await self._mapped(error, session, "a ping") from None

    def _live(self) -> _Session:
        session = self._session
        if session is None or not self.connected:
            raise self._unavailable(_how_it_ended(session), session)
        if session.calls >= MAX_CALLS:
            msg = f"{session.calls} calls wait for tool server `{self.name}`"
            raise Overloaded(msg, retry_after_s=RETRY_AFTER_S)
        return session

    async def _request(
        self, session: _Session, request: CallToolRequest | ListToolsRequest | PingRequest
    ) -> dict[str, Any]:
        if session.client is None:
            raise session.failure or RuntimeError
        # Not `client.call_tool`: it would validate the answer with the server's own patterns, without a bound.
        return (await session.client.session.send_request(request, _Raw)).root

    def _decode(self, raw: Mapping[str, Any], tool: str) -> RawToolResult:
        if raw.get("resultType", "complete") != "complete":
            msg = f"tool `{tool}` asks for further input, which no agent can give in this release"
            raise ToolFailed(msg, tool=tool)
        content = "\n".join(_part(part) for part in raw["content"])
        structured = raw.get("structuredContent")
        try:
            written = json.dumps(structured, ensure_ascii=False, allow_nan=False)
        except ValueError:
            msg = f"tool `{tool}` answered a number that is not finite"
            raise ToolFailed(msg, tool=tool) from None
        size = max(len(content.encode()), len(written.encode()))
        if size > MAX_TOOL_OUTPUT_BYTES:
            msg = f"tool `{tool}` answered {size} bytes; {MAX_TOOL_OUTPUT_BYTES} are allowed"
            raise OutputLimit(msg, tool=tool)
        return RawToolResult(self._mask.text(content), self._mask.value(structured), bool(raw.get("isError")))

    # --- the one place where the SDK's errors become ours -------------------------------------------

    async def _mapped(self, error: Exception, session: _Session | None, during: str) -> SymbiError:
        gone = session is None or session.process.ended.is_set()
        if session is not None and gone:
            with anyio.move_on_after(EXIT_WAIT_S, shield=True):
                await session.over.wait()
        match error:
            case OSError():
                what = f": `{error.filename}`" if error.filename else ""
                return self._unavailable(f"cannot be started: {error.strerror or error}{what}", session)
            case MCPError() if gone:
                return self._unavailable(f"{_how_it_ended(session)} during {during}", session)
            case MCPError(code=code) if code == TOO_LARGE:
                return OutputLimit(f"tool server `{self.name}` gave no usable answer to {during}: {error.message}")
            case MCPError(code=code) if code == PARSE_ERROR:
                msg = f"server `{self.name}` refused {during}: {error.message}"
                return ToolFailed(msg, code=PROTOCOL_FAILURE, rpc_code=error.code)
            case MCPError():
                return ToolFailed(f"server `{self.name}` refused {during}: {error.message}", rpc_code=error.code)
            case ValidationError():
                # Its text quotes the answer, so it goes no further.
                msg = f"server `{self.name}` answered {during} with something that is no answer"
                return ToolFailed(msg, code=PROTOCOL_FAILURE)
            case _:
                return self._unavailable(f"does not speak the protocol: {type(error).__name__}", session)

    def _unavailable(self, reason: str, session: _Session | None) -> ToolServerUnavailable:
        words = session.process.last_words.text() if session is not None else ""
        hint = f"its last words: {words}" if words else None
        return ToolServerUnavailable(f"tool server `{self.name}` {reason}", hint=hint, server=self.name)


def _how_it_ended(session: _Session | None) -> str:
    if session is None:
        return "is not connected"
    if session.process.fault:
        return f"{session.process.fault}, and was ended"
    match session.process.exit_code:
        case None:
            return "closed its standard input or output"
        case code if code < 0:
            return f"was killed by signal {-code}"
        case code:
            return f"ended with exit status {code}"


def _leaf(error: Exception) -> Exception:
    """The one error in nested groups, or the error itself."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _part(part: Mapping[str, Any]) -> str:
    """Text as it is; anything else by type and size."""
    if part.get("type") == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    return f"[{printable(str(part.get('type')))[:32]}, {len(json.dumps(part))} bytes]"
