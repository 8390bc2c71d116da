"""A tool server that speaks the Model Context Protocol, one session at a time: all that is the same however it is reached.

`StdioToolServer` starts a process of ours, and `HttpToolServer` speaks to an endpoint. A session that has ended stays ended: what answers under
the name next was connected, listed and verified anew.
"""

import json
import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Final, Self, TypeVar, cast

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup
from mcp.shared.exceptions import MCPError
from mcp_types import MISSING_REQUIRED_CLIENT_CAPABILITY, PARSE_ERROR
from pydantic import ValidationError

from symbi.adapters.mcp.answers import (
    MAX_ENTRIES,
    MAX_LISTING_BYTES,
    MAX_PAGES,
    MAX_TOOLS,
    completion,
    definition,
    items,
    needed,
    plain,
    tool_result,
)
from symbi.adapters.mcp.requests import LISTS, completing, list_tools, listing, prompt, resource, tool_call
from symbi.adapters.mcp.session import FOREIGN, LEAVE_S, Session, SessionTerms
from symbi.adapters.mcp.stdio import STOP_S
from symbi.adapters.mcp.traffic import TOO_LARGE, UNREACHABLE, Line
from symbi.errors import (
    InputError,
    OutputLimit,
    Overloaded,
    PermitRefused,
    SymbiError,
    TimeLimit,
    ToolFailed,
    ToolServerUnavailable,
)
from symbi.guard.action import (
    BrowseServer,
    Complete,
    ConnectServer,
    GetPrompt,
    InvokeTool,
    ReadResource,
    ServerQuestion,
)
from symbi.guard.permit import Authority, Permit
from symbi.tools.asking import NO_CALLER, CallHooks
from symbi.tools.mask import VAULT_SCHEME, SecretMask, put_in
from symbi.tools.port import (
    PROMPTS,
    PROTOCOL_FAILURE,
    Changed,
    Completion,
    Notice,
    RawToolResult,
    SecretSource,
    ToolDefinition,
    Updated,
)
from symbi.types import JsonValue

_log = logging.getLogger("symbi.tools.server")

MAX_CALLS: Final = 64  # calls to one server that wait for an answer
RETRY_AFTER_S: Final = 0.5  # when that many wait
EXIT_WAIT_S: Final = 1.0  # for a server that closed its output to end, so that a message can say how

T = TypeVar("T")
Q = TypeVar("Q", bound=ServerQuestion)


class McpServer(ABC):
    """`ToolServer` and `ServerSession` over the protocol.

    Args:
        name: Its name in the configuration.
        authority: Redeems permits.
        secrets: Where the vault references of its configuration resolve.
        start_timeout_s: Seconds to connect, agree on a protocol version and list the tools.

    Attributes:
        terms: How it is spoken to, from the next session on.
    """

    def __init__(
        self,
        name: str,
        authority: Authority,
        secrets: SecretSource | None,
        start_timeout_s: float,
    ) -> None:
        self.name = name
        self._authority = authority
        self._secrets = secrets
        self._start_timeout_s = start_timeout_s
        self.terms = SessionTerms()
        self._mask = SecretMask()
        self._tasks: TaskGroup | None = None
        self._session: Session | None = None
        self._watcher: Changed | None = None
        self._dirty: set[str] = set()
        self._telling = False
        self._follower: Updated | None = None

    @property
    @abstractmethod
    def command_line(self) -> str:
        """What is connected, as policies see it: a command, or a URL."""

    @property
    @abstractmethod
    def secret_paths(self) -> tuple[str, ...]:
        """The vault paths that its configuration asks for, sorted; `ConnectServer.secrets` has to name them."""

    @property
    def start_timeout_s(self) -> float:
        """Seconds to connect, agree on a protocol version and list the tools."""
        return self._start_timeout_s

    @abstractmethod
    def _line(self, secrets: Mapping[str, str]) -> Line:
        """A new connection; nothing is done before it is entered."""

    async def __aenter__(self) -> Self:
        """Prepare; nothing is started."""
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the session; takes at most `STOP_S` and `LEAVE_S`, also after a cancellation."""
        await self._end_session()
        tasks, self._tasks = self._tasks, None
        assert tasks is not None
        tasks.cancel_scope.cancel()
        # The error is not handed to the group, which would wrap it in an exception group.
        await tasks.__aexit__(None, None, None)

    @property
    def connected(self) -> bool:
        """A session is up, and what carries it has not ended."""
        return self._session is not None and self._session.alive

    # --- connect ---------------------------------------------------------------------------------

    async def connect(self, permit: Permit[ConnectServer]) -> Sequence[ToolDefinition]:
        """Connect anew and list the tools, all pages, past the SDK's response cache."""
        self._check(permit)
        if self._tasks is None:
            msg = f"tool server `{self.name}` is closed"
            raise ToolServerUnavailable(msg)
        await self._end_session()
        session: Session | None = None
        failure: SymbiError
        try:
            with anyio.fail_after(self.start_timeout_s):
                secrets = await self._resolve(permit)
                self._authority.redeem(permit, ConnectServer)
                session = Session(self.name, self._line(secrets), self._mask, self.terms, self._note, self._hear)
                self._session = session
                self._tasks.start_soon(session.run)
                await session.ready.wait()
                return await self._list(session)
        except TimeoutError:
            failure = self._unavailable(f"did not get ready within {self.start_timeout_s:g} s", session)
        except FOREIGN as error:
            failure = await self._mapped(error, session, "listing its tools")
        except SymbiError as error:
            failure = error
        except anyio.get_cancelled_exc_class():
            await self._end_session()
            raise
        await self._end_session()
        raise self._mask.error(failure)

    def _check(self, permit: Permit[ConnectServer]) -> None:
        action = self._authority.check(permit, ConnectServer)
        if action.server != self.name or action.command != self.command_line:
            msg = f"permit is for another server or command than those of `{self.name}`"
            raise PermitRefused(msg, code="permit.foreign", effect_id=permit.effect_id)

    async def relist(self, permit: Permit[ConnectServer]) -> Sequence[ToolDefinition]:
        """List the tools anew on the session that is up, past the SDK's response cache."""
        self._check(permit)
        session = self._live()
        self._authority.redeem(permit, ConnectServer)
        try:
            return await self._within(session, self._list(session), self._start_timeout_s, "listing its tools")
        except SymbiError as error:
            failure = self._mask.error(error)
        raise failure

    async def _resolve(self, permit: Permit[ConnectServer]) -> Mapping[str, str]:
        """The secrets that its configuration asks for."""
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
        return values

    async def _end_session(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.end(STOP_S + EXIT_WAIT_S)

    async def _list(self, session: Session) -> Sequence[ToolDefinition]:
        definitions: list[ToolDefinition] = []
        cursor: str | None = None
        size = 0
        for number in range(MAX_PAGES):
            page = await session.page(list_tools, cursor)
            cursor = page.get("nextCursor")
            tools = page.get("tools") or []
            size += _bytes(tools)
            if size > MAX_LISTING_BYTES:
                raise self._unavailable(f"lists tools of more than {MAX_LISTING_BYTES} bytes", session)
            kept = session.absorb(page, complete=number == 0 and not cursor) if page else frozenset()
            if self._mask.value(tools) != tools:
                raise self._unavailable("puts a secret that it was given into the definition of a tool", None)
            definitions.extend(definition(tool, self.name) for tool in tools if tool["name"] in kept)
            if len(definitions) > MAX_TOOLS:
                raise self._unavailable(f"offers more than {MAX_TOOLS} tools", session)
            if not cursor:
                return definitions
        raise self._unavailable(f"lists its tools on more than {MAX_PAGES} pages", session)

    # --- what changes ------------------------------------------------------------------------------

    def watch(self, changed: Changed) -> None:
        """Have this told when the server says that it offers something else."""
        self._watcher = changed

    def _note(self, what: str) -> None:
        """However often a server says so, its watcher is told of it one at a time."""
        self._dirty.add(what)
        if self._watcher is not None and self._tasks is not None and not self._telling:
            self._telling = True
            self._tasks.start_soon(self._tell)

    def follow(self, updated: Updated) -> None:
        """Have this told of resources that change."""
        self._follower = updated

    def _hear(self, uri: str, notice: Notice) -> None:
        if self._follower is not None:
            self._follower(self.name, uri, notice)

    async def _tell(self) -> None:
        try:
            while self._dirty and self._watcher is not None:
                what = self._dirty.pop()
                try:
                    await self._watcher(self.name, what)
                except SymbiError as error:
                    _log.warning("`%s` has changed its %s, which fails: %s", self.name, what, error)
        finally:
            self._telling = False

    # --- call ------------------------------------------------------------------------------------

    async def call(
        self, permit: Permit[InvokeTool], secrets: Mapping[str, str], hooks: CallHooks = NO_CALLER
    ) -> RawToolResult:
        """Call the permit's tool; secrets are put in here, and taken out of whatever comes back."""
        try:
            return await self._call(permit, secrets, hooks)
        except SymbiError as error:
            failure = self._mask.error(error)
        raise failure

    async def _call(self, permit: Permit[InvokeTool], secrets: Mapping[str, str], hooks: CallHooks) -> RawToolResult:
        action = self._authority.check(permit, InvokeTool)
        if action.tool.server != self.name:
            msg = f"permit is for a tool of `{action.tool.server}`, not of `{self.name}`"
            raise PermitRefused(msg, code="permit.foreign", effect_id=permit.effect_id)
        self._mask.add(secrets)
        session = self._live()
        name = action.tool.name
        make = tool_call(name.removeprefix(f"{self.name}."), put_in(action.values, secrets), permit.effect_id)
        # From here on the call may have an effect; whatever was refused above left the permit unspent.
        self._authority.redeem(permit, InvokeTool)
        raw = await self._within(session, session.call(make, hooks), action.timeout_s, f"the call of `{name}`", name)
        return tool_result(raw, name, self._mask)

    async def _within(
        self, session: Session, work: Awaitable[T], timeout_s: float, during: str, tool: str | None = None
    ) -> T:
        """The work's result, in time; with the SDK's errors made ours."""
        fields = {"server": self.name} if tool is None else {"tool": tool}
        what = f"tool `{tool}`" if tool is not None else f"tool server `{self.name}`"
        try:
            with anyio.fail_after(timeout_s):
                return await work
        except TimeoutError:
            msg = f"{what} did not answer within {timeout_s:g} s"
            raise TimeLimit(msg, code=None, hint=None, place=None, **fields) from None
        except FOREIGN as error:
            raise await self._mapped(error, session, during) from None

    async def ping(self, within_s: float) -> None:
        """Ask the server whether it is there."""
        session = self._live()
        await self._within(session, session.ping(), within_s, "a ping")

    def _live(self) -> Session:
        session = self._session
        if session is None or not session.alive:
            raise self._unavailable(_how_it_ended(session), session)
        if session.waiting >= MAX_CALLS:
            msg = f"{session.waiting} calls wait for tool server `{self.name}`"
            raise Overloaded(msg, retry_after_s=RETRY_AFTER_S)
        return session

    # --- what it offers beside tools -------------------------------------------------------------

    async def browse(self, permit: Permit[BrowseServer]) -> Sequence[Mapping[str, JsonValue]]:
        """List resources, templates or prompts, all pages; none of what the server does not know."""
        action, session = self._asked(permit, BrowseServer)
        if action.what not in LISTS:
            msg = f"a server cannot be browsed for `{action.what}`"
            raise InputError(msg, code="tool.browse")
        self._authority.redeem(permit, BrowseServer)
        offered = session.capabilities.prompts if action.what == PROMPTS else session.capabilities.resources
        if offered is None and not session.modern:
            return ()
        return await self._asking(session, self._entries(session, action.what), action)

    async def _entries(self, session: Session, what: str) -> Sequence[Mapping[str, JsonValue]]:
        kind, key = LISTS[what]
        found: list[Mapping[str, JsonValue]] = []
        cursor: str | None = None
        size = 0
        for _ in range(MAX_PAGES):
            page = await session.page(partial(listing, kind), cursor)
            entries = page.get(key) or []
            size += _bytes(entries)
            if size > MAX_LISTING_BYTES:
                raise self._unavailable(f"lists {what} of more than {MAX_LISTING_BYTES} bytes", session)
            found.extend(items(entries, self._mask))
            if len(found) > MAX_ENTRIES:
                raise self._unavailable(f"offers more than {MAX_ENTRIES} {what}", session)
            cursor = page.get("nextCursor")
            if not cursor:
                return found
        raise self._unavailable(f"lists its {what} on more than {MAX_PAGES} pages", session)

    async def read(
        self, permit: Permit[ReadResource], hooks: CallHooks = NO_CALLER
    ) -> Sequence[Mapping[str, JsonValue]]:
        """Read the permit's resource."""
        action, session = self._asked(permit, ReadResource)

        self._authority.redeem(permit, ReadResource)
        raw = await self._asking(session, session.call(resource(action, permit.effect_id), hooks), action)
        found = plain(raw, ["contents"], f"{self.name}.resource", self._mask)
        return cast("Sequence[Mapping[str, JsonValue]]", found.get("contents", []))

    async def subscribe(self, permit: Permit[ReadResource]) -> None:
        """Have changes of the permit's resource told."""
        action, session = self._asked(permit, ReadResource)
        self._authority.redeem(permit, ReadResource)
        await self._asking(session, session.updates.open(action.uri), action)

    async def unsubscribe(self, uri: str) -> None:
        """Have them told no more."""
        session = self._session
        if session is not None and session.alive:
            await self._within(session, session.updates.close(uri), LEAVE_S, "an end of a subscription")

    async def prompt(self, permit: Permit[GetPrompt], hooks: CallHooks = NO_CALLER) -> Mapping[str, JsonValue]:
        """Have the permit's prompt filled in."""
        action, session = self._asked(permit, GetPrompt)

        self._authority.redeem(permit, GetPrompt)
        raw = await self._asking(session, session.call(prompt(action, permit.effect_id), hooks), action)
        return plain(raw, ["description", "messages"], f"{self.name}.prompt", self._mask)

    async def complete(self, permit: Permit[Complete]) -> Completion:
        """Ask how the permit's argument may go on; it does not, where the server cannot say."""
        action, session = self._asked(permit, Complete)
        self._authority.redeem(permit, Complete)
        if session.capabilities.completions is None and not session.modern:
            return Completion(())
        raw = await self._asking(session, session.optional(completing(action)), action)
        return completion(raw, self.name, self._mask) if raw else Completion(())

    def _asked(self, permit: Permit[Q], kind: type[Q]) -> tuple[Q, Session]:
        action = self._authority.check(permit, kind)
        if action.server != self.name:
            msg = f"permit is for `{action.server}`, not for `{self.name}`"
            raise PermitRefused(msg, code="permit.foreign", effect_id=permit.effect_id)
        return action, self._live()

    async def _asking(self, session: Session, work: Awaitable[T], action: ServerQuestion) -> T:
        try:
            return await self._within(session, work, action.timeout_s, f"`{action.kind}`")
        except SymbiError as error:
            failure = self._mask.error(error)
        raise failure

    # --- the one place where the SDK's errors become ours -------------------------------------------

    async def _mapped(self, error: Exception, session: Session | None, during: str) -> SymbiError:
        gone = session is None or session.line.ended.is_set()
        if session is not None and gone:
            with anyio.move_on_after(EXIT_WAIT_S, shield=True):
                await session.over.wait()
        match error:
            case OSError():
                what = f": `{error.filename}`" if error.filename else ""
                return self._unavailable(f"cannot be started: {error.strerror or error}{what}", session)
            case MCPError() if gone:
                return self._unavailable(f"{_how_it_ended(session)} during {during}", session)
            case MCPError(code=code) if code == UNREACHABLE:
                return self._unavailable(f"{error.message} during {during}", session)
            case MCPError(code=code) if code == TOO_LARGE:
                return OutputLimit(f"tool server `{self.name}` gave no usable answer to {during}: {error.message}")
            case MCPError(code=code) if code == PARSE_ERROR:
                msg = f"server `{self.name}` refused {during}: {error.message}"
                return ToolFailed(msg, code=PROTOCOL_FAILURE, rpc_code=error.code)
            case MCPError(code=code) if code == MISSING_REQUIRED_CLIENT_CAPABILITY:
                msg = f"server `{self.name}` refused {during}: it has to ask something that the caller cannot be asked"
                return ToolFailed(msg, rpc_code=code, needs=needed(error.data))
            case MCPError():
                return ToolFailed(f"server `{self.name}` refused {during}: {error.message}", rpc_code=error.code)
            case ValidationError():
                # Its text quotes the answer, so it goes no further.
                msg = f"server `{self.name}` answered {during} with something that is no answer"
                return ToolFailed(msg, code=PROTOCOL_FAILURE)
            case _:
                return self._unavailable(f"does not speak the protocol: {type(error).__name__}", session)

    def _unavailable(self, reason: str, session: Session | None) -> ToolServerUnavailable:
        words = session.line.last_said() if session is not None else ""
        hint = f"its last words: {words}" if words else None
        return ToolServerUnavailable(f"tool server `{self.name}` {reason}", hint=hint, server=self.name)


def _bytes(value: JsonValue) -> int:
    return len(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))


def _how_it_ended(session: Session | None) -> str:
    return "is not connected" if session is None else session.line.how_it_ended()
