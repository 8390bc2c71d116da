"""One session with a server, from start to end, whatever it is carried by.

It lives in a task of its own, so that requests and the end may come from different tasks, and a caller that is
cancelled takes nobody else with it (the server is told that its request was). A session that has ended stays ended.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import anyio
from mcp.client.client import Client
from mcp.client.subscriptions import ListenNotSupportedError, SubscriptionLost
from mcp.shared.exceptions import MCPError
from mcp_types import (
    CLIENT_CAPABILITIES_META_KEY,
    LOG_LEVEL_META_KEY,
    METHOD_NOT_FOUND,
    DiscoverRequest,
    Implementation,
    ListToolsResult,
    LoggingLevel,
    PaginatedRequestParams,
    PingRequest,
    PromptListChangedNotification,
    Request,
    ResourceListChangedNotification,
    ResourceUpdatedNotification,
    ServerCapabilities,
    SetLevelRequest,
    SetLevelRequestParams,
    ToolListChangedNotification,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import RootModel, ValidationError

from symbi import __version__
from symbi.adapters.mcp.calls import CURRENT, Call, Calls
from symbi.adapters.mcp.traffic import Line
from symbi.adapters.mcp.updates import Told, Updates
from symbi.tools.asking import NO_CALLER, AskKind, CallHooks
from symbi.tools.mask import SecretMask
from symbi.tools.port import PROMPTS, RESOURCES, TOOLS

_log = logging.getLogger("symbi.tools.server")

MAX_LISTENS: Final = 8  # times that a lost stream of changes is opened again
LISTEN_AGAIN_S: Final = 1.0  # before it is
LEAVE_S: Final = 2.0  # for a server to be told that a session ends

Make: TypeAlias = Callable[[Mapping[str, Any] | None, str | None, Mapping[str, Any]], Request[Any, Any]]
"""Makes the request of a call: of the answers to what it asked for, its own state, and entries for `_meta`."""

FOREIGN: Final = (MCPError, ValidationError, OSError, ValueError, RuntimeError)
"""What the SDK raises, beside a time-out."""


class _Raw(RootModel[dict[str, Any]]):
    """A result as the server sent it; the SDK has checked its shape, and nothing is added or dropped."""


@dataclass(frozen=True, slots=True)
class SessionTerms:
    """How a server is spoken to.

    Attributes:
        asks: What it may ask at all; of anything else it is not told that it could.
        mode: `auto`, `legacy` or a version of the protocol, as the SDK names them.
        log_level: The least that it is to log; None to leave that to it.
    """

    asks: frozenset[AskKind] = field(default=frozenset())
    mode: str = "auto"
    log_level: LoggingLevel | None = None


class Session:
    """One connection.

    Args:
        name: Of the server.
        line: What carries it.
        mask: Takes secrets out of what the server says.
        terms: How the server is spoken to.
        changed: Told `tools`, `resources` or `prompts` when the server says that it offers others.
        updated: Told which of the resources that are watched there is something to say of.
    """

    def __init__(
        self,
        name: str,
        line: Line,
        mask: SecretMask,
        terms: SessionTerms,
        changed: Callable[[str], None],
        updated: Told,
    ) -> None:
        self.line = line
        self.scope = anyio.CancelScope()
        self.ready = anyio.Event()
        self.over = anyio.Event()
        self.client: Client | None = None
        self.failure: Exception | None = None
        self.waiting = 0
        self._name = name
        self._terms = terms
        self._changed = changed
        self._updated = updated
        self._updates: Updates | None = None
        self._calls = Calls(name, mask, terms.asks)
        self._leave = anyio.Event()

    @property
    def alive(self) -> bool:
        """It is up, and its line has not ended."""
        return self.client is not None and not self.line.ended.is_set()

    # --- its life ----------------------------------------------------------------------------------

    async def run(self) -> None:
        """The session's own task: it enters the SDK's client, waits for the end, and leaves it."""
        try:
            with self.scope:
                async with self._client() as client:
                    await self._set_level(client)
                    _say_what_callers_can(client)
                    async with anyio.create_task_group() as tasks:
                        self._updates = Updates(
                            self._name, client, tasks, modern=self._modern(client), told=self._updated
                        )
                        self.client = client
                        self.ready.set()
                        tasks.start_soon(self._listen, client)
                        tasks.start_soon(self._until, self.line.ended, tasks.cancel_scope)
                        tasks.start_soon(self._until, self._leave, tasks.cancel_scope)
        except Exception as error:  # noqa: BLE001 - whatever the SDK raises is kept for who asks, where it becomes ours
            leaf = _leaf(error)
            self.failure = leaf if isinstance(leaf, FOREIGN) else RuntimeError(type(leaf).__name__)
        finally:
            if self._updates is not None:
                self._updates.end()
            self.over.set()
            self.ready.set()

    @property
    def updates(self) -> Updates:
        """What it tells of resources.

        Raises:
            RuntimeError: It was never up.
        """
        if self._updates is None:
            raise self.failure or RuntimeError
        return self._updates

    def _client(self) -> Client:
        asks = self._terms.asks
        return Client(
            self.line.transport(),
            cache=None,
            mode=self._terms.mode,
            client_info=Implementation(name="symbi", version=__version__),
            sampling_callback=self._calls.sampling if AskKind.SAMPLING in asks else None,
            elicitation_callback=self._calls.elicitation if AskKind.ELICITATION in asks else None,
            list_roots_callback=self._calls.roots if AskKind.ROOTS in asks else None,
            logging_callback=self._calls.logging,
            message_handler=self._notified,
        )

    @staticmethod
    async def _until(event: anyio.Event, scope: anyio.CancelScope) -> None:
        await event.wait()
        scope.cancel()

    async def end(self, within_s: float) -> None:
        """Leave, which tells the server, and wait until everything has ended; takes at most so long and `LEAVE_S`."""
        self._leave.set()
        with anyio.CancelScope(shield=True):
            with anyio.move_on_after(LEAVE_S if self.client is not None else 0):
                await self.over.wait()
            self.scope.cancel()
            with anyio.move_on_after(within_s):
                await self.over.wait()

    # --- what the server offers and changes ----------------------------------------------------------

    @property
    def capabilities(self) -> ServerCapabilities:
        """What the server says that it can."""
        found = None if self.client is None else self.client.session.server_capabilities
        return found or ServerCapabilities()

    @property
    def modern(self) -> bool:
        """It speaks the protocol without sessions (2026-07-28)."""
        return self.client is not None and self.client.session.protocol_version in MODERN_PROTOCOL_VERSIONS

    async def _set_level(self, client: Client) -> None:
        level, found = self._terms.log_level, client.session.server_capabilities
        if level is not None and found is not None and found.logging is not None and not self._modern(client):
            await client.session.send_request(SetLevelRequest(params=SetLevelRequestParams(level=level)), _Raw)

    @staticmethod
    def _modern(client: Client) -> bool:
        return client.session.protocol_version in MODERN_PROTOCOL_VERSIONS

    async def _notified(self, message: object) -> None:
        match message:
            case ToolListChangedNotification():
                self._changed(TOOLS)
            case ResourceListChangedNotification():
                self._changed(RESOURCES)
            case PromptListChangedNotification():
                self._changed(PROMPTS)
            case ResourceUpdatedNotification() if self._updates is not None:
                self._updates.noticed(str(message.params.uri))
            case _:
                pass

    async def _listen(self, client: Client) -> None:
        """In the protocol without sessions, changes come on a stream of their own, for who opens it."""
        offered, unasked = self.capabilities, self._terms.mode in MODERN_PROTOCOL_VERSIONS
        # One whose version is configured was not asked what it can: then it says so by what it refuses.
        tools = unasked or (offered.tools is not None and bool(offered.tools.list_changed))
        resources = unasked or (offered.resources is not None and bool(offered.resources.list_changed))
        prompts = unasked or (offered.prompts is not None and bool(offered.prompts.list_changed))
        if not self.modern or not (tools or resources or prompts):
            return
        for _ in range(MAX_LISTENS):
            try:
                async with client.listen(
                    tools_list_changed=tools, resources_list_changed=resources, prompts_list_changed=prompts
                ) as stream:
                    async for _event in stream:
                        pass  # `_notified` is told of it, too
            except (ListenNotSupportedError, MCPError, ValidationError) as error:
                _log.info("`%s` does not say what changes: %s", self._name, type(error).__name__)
                return
            except SubscriptionLost:
                # What has changed in between nobody said.
                for what, asked in ((TOOLS, tools), (RESOURCES, resources), (PROMPTS, prompts)):
                    if asked:
                        self._changed(what)
            await anyio.sleep(LISTEN_AGAIN_S)
        _log.warning("`%s` does not keep its stream of changes open, and is not asked for it again", self._name)

    # --- requests --------------------------------------------------------------------------------------

    async def send(self, request: Request[Any, Any], call: Call | None = None) -> dict[str, Any]:
        """The answer to one request, as it came; of a call, what is told meanwhile goes to it.

        Raises:
            MCPError: The server refuses, or is gone.
            ValidationError: The answer is none.
        """
        if self.client is None:
            raise self.failure or RuntimeError
        # Not the client's own methods: they would validate an answer with the server's patterns, without a bound.
        told = call.progress if call is not None and call.heard else None
        return (await self.client.session.send_request(request, _Raw, progress_callback=told)).root

    async def call(self, make: Make, hooks: CallHooks = NO_CALLER) -> dict[str, Any]:
        """The final answer to a request that may ask for input.

        Raises:
            MCPError, ValidationError: As `send`.
            ToolFailed: It asks for what it does not get.
        """
        meta: dict[str, Any] = {}
        if hooks is not NO_CALLER and self.modern:
            meta[LOG_LEVEL_META_KEY] = self._terms.log_level or "info"

        def sending(call: Call) -> Callable[[Mapping[str, Any] | None, str | None], Any]:
            async def send(answers: Mapping[str, Any] | None, state: str | None) -> dict[str, Any]:
                return await self.send(make(answers, state, meta), call)

            return send

        self.waiting += 1
        try:
            return await self._calls.run(hooks, sending)
        finally:
            self.waiting -= 1

    async def page(
        self, request: Callable[[PaginatedRequestParams | None], Request[Any, Any]], cursor: str | None
    ) -> dict[str, Any]:
        """One page of a list; an empty one where the server does not know what is listed.

        Raises:
            MCPError, ValidationError: As `send`.
        """
        return await self.optional(request(PaginatedRequestParams(cursor=cursor) if cursor else None))

    async def optional(self, request: Request[Any, Any]) -> dict[str, Any]:
        """The answer to one request; an empty one where the server does not know what it asks for.

        Raises:
            MCPError, ValidationError: As `send`.
        """
        try:
            return await self.send(request)
        except MCPError as error:
            if error.code != METHOD_NOT_FOUND:
                raise
            return {}

    def absorb(self, page: Mapping[str, Any], *, complete: bool) -> frozenset[str]:
        """Have the SDK remember which arguments go along as headers; the names of the tools that may be kept.

        Over the protocol without sessions a tool whose schema asks for headers that cannot be is dropped.
        """
        assert self.client is not None
        listing = ListToolsResult.model_validate(dict(page), by_name=False)
        kept = self.client.session._absorb_tool_listing(listing, complete=complete)  # noqa: SLF001 - the SDK's `list_tools` alone calls it beside, and hides what the server sent
        return frozenset(tool.name for tool in kept.tools)

    async def ping(self) -> None:
        """Ask whether the server is there.

        Raises:
            MCPError, ValidationError: As `send`.
        """
        await self.send(DiscoverRequest() if self.modern else PingRequest())


def _say_what_callers_can(client: Client) -> None:
    """In the protocol without sessions each request says what can be asked: within a call, what its caller can."""
    stamp = client.session._stamp  # noqa: SLF001 - the SDK says of every request what could be asked in any

    def narrowed(data: dict[str, Any], options: Any) -> None:
        stamp(data, options)
        call, meta = CURRENT.get(), data.get("params", {}).get("_meta", {})
        if call is not None and CLIENT_CAPABILITIES_META_KEY in meta:
            known = meta[CLIENT_CAPABILITIES_META_KEY]
            off = {kind.value for kind in AskKind if kind not in call.can}
            meta[CLIENT_CAPABILITIES_META_KEY] = {name: value for name, value in known.items() if name not in off}

    client.session._stamp = narrowed  # noqa: SLF001 - likewise


def _leaf(error: Exception) -> Exception:
    """The one error in nested groups, or the error itself."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
