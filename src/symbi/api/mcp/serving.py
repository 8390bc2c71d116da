"""The gateway in the protocol: the SDK's server, whose every request goes to the session of whoever asks."""

import json
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

import anyio
import mcp_types as types
from mcp.server.lowlevel import NotificationOptions, Server
from mcp.server.subscriptions import (
    InMemorySubscriptionBus,
    ListenHandler,
    PromptsListChanged,
    ResourcesListChanged,
    ResourceUpdated,
    ServerEvent,
    ToolsListChanged,
)
from mcp.shared._stream_protocols import ReadStream, WriteStream
from mcp.shared.exceptions import MCPError, NoBackChannelError
from mcp.shared.message import SessionMessage
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from symbi import __version__
from symbi.api.mcp.answers import Refusal, refusal_of
from symbi.api.mcp.browsing import (
    PROMPTS,
    RESOURCES,
    TEMPLATES,
    browse_soon,
    complete,
    get_prompt,
    named_prompts,
    read_resource,
)
from symbi.api.mcp.calls import ToolAnswer, ToolCall, call_tool, key_of
from symbi.api.mcp.clients import Client
from symbi.api.mcp.exchange import LEVELS, Context, Conversation, carry
from symbi.api.mcp.gateway import Gateway, GatewaySession
from symbi.api.mcp.own import call_own, described, own_names
from symbi.api.mcp.watching import THE_SESSION, Stream, subscribe, unsubscribe
from symbi.errors import InternalError, Overloaded, SymbiError
from symbi.tools.catalog import VerifiedTool
from symbi.tools.watching import Notice
from symbi.types import JsonValue

_log = logging.getLogger("symbi.api")

OURS: Final = "symbi/"
"""The prefix of what the gateway says in `_meta`; no server can say it."""
EFFECT_KEY: Final = "symbi/effect-id"
"""Key in the `_meta` of an answer: the effect, as ledger and trail know it."""
LATE_KEY: Final = "symbi/late"
"""Key in the `_meta` of a listing: the servers that were not heard in time; the client is told once they are."""
INSTRUCTIONS: Final = (
    "Every call goes through Symbi, which verifies tools, asks policy, and keeps a signed trail. A call that is denied "
    "says why and what would be allowed; do not try to get around it, tell the user. A call that is held waits for a "
    "person: make the same call again later to learn what came of it."
)
MAX_LISTENERS: Final = 4  # streams of changes that one session may listen on
_OVER: Final = types.LoggingMessageNotificationParams(
    level="warning", logger="symbi", data="changes of this resource are not told any more"
)

Listing = tuple[Any, tuple[str, ...]]
"""What is listed, and the servers that it is listed without."""
Find = Callable[[Context], GatewaySession]
"""Finds the session of a request; raises `MCPError` where there is none."""


class SessionServer:
    """The SDK's server of one session, or of all that a door lets in.

    Args:
        gateway: Serves.
        find: Whose a request is.

    Attributes:
        server: The SDK's.
    """

    def __init__(self, gateway: Gateway, find: Find) -> None:
        self._gateway = gateway
        self._find = find
        gateway.own_names = own_names(searches=gateway.search is not None)
        self._bus = InMemorySubscriptionBus()
        self.server: Server[Any] = Server(
            "symbi",
            version=__version__,
            title="Symbi",
            instructions=INSTRUCTIONS,
            on_list_tools=self._list_tools,
            on_call_tool=self._call_tool,
            on_list_resources=self._list_resources,
            on_list_resource_templates=self._list_templates,
            on_read_resource=self._read_resource,
            on_list_prompts=self._list_prompts,
            on_get_prompt=self._get_prompt,
            on_completion=self._complete,
            on_subscriptions_listen=self._listen,
        )
        self._listeners = ListenHandler(self._bus, max_subscriptions=MAX_LISTENERS)
        # Not by the constructor, which warns that the next era has them no more.
        self.server.add_request_handler("logging/setLevel", types.SetLevelRequestParams, self._set_level)
        self.server.add_request_handler("resources/subscribe", types.SubscribeRequestParams, self._subscribe)
        self.server.add_request_handler("resources/unsubscribe", types.UnsubscribeRequestParams, self._unsubscribe)

    @property
    def options(self) -> Any:
        """What the handshake says."""
        changes = NotificationOptions(prompts_changed=True, resources_changed=True, tools_changed=True)
        return self.server.create_initialization_options(changes)

    async def session_of(self, ctx: Context) -> GatewaySession:
        """The session of a request, which hears of changes from now on."""
        session = self._find(ctx)
        info = ctx.session.client_params.client_info if ctx.session.client_params else None
        if info is not None:
            session.claims = {"name": info.name, "version": info.version}

        async def changed(what: str) -> None:
            await self._tell(ctx, what)

        async def updated(uri: str, notice: Notice) -> None:
            if ctx.protocol_version in MODERN_PROTOCOL_VERSIONS:
                await self._bus.publish(ResourceUpdated(uri))
                return
            if notice is Notice.OVER and LEVELS.index(_OVER.level) >= LEVELS.index(session.log_level):
                over = types.LoggingMessageNotification(
                    params=_OVER.model_copy(update={"data": f"{_OVER.data}: {uri}"})
                )
                await handed(lambda: ctx.session.send_notification(over))
            await handed(lambda: ctx.session.send_resource_updated(uri))  # who reads it anew learns why

        session.changed, session.updated = changed, updated
        return session

    async def _tell(self, ctx: Context, what: str) -> None:
        events: Mapping[str, tuple[Callable[[], Awaitable[None]], ServerEvent]] = {
            "tools": (ctx.session.send_tool_list_changed, ToolsListChanged()),
            "resources": (ctx.session.send_resource_list_changed, ResourcesListChanged()),
            "prompts": (ctx.session.send_prompt_list_changed, PromptsListChanged()),
        }
        notify, event = events[what]
        if ctx.protocol_version in MODERN_PROTOCOL_VERSIONS:
            await self._bus.publish(event)
        else:
            await handed(notify)

    # --- tools ------------------------------------------------------------------------------------

    async def _list_tools(self, ctx: Context, _params: Any) -> types.ListToolsResult:
        session, late = await self._listed(ctx, "tools", _itself)
        tools = [_tool(name, tool) for name, tool in session.tools().items()]
        tools += [types.Tool.model_validate(one) for one in described(session)]
        return types.ListToolsResult(tools=tools, _meta=_without(late))

    async def _call_tool(
        self, ctx: Context, params: types.CallToolRequestParams
    ) -> types.CallToolResult | types.InputRequiredResult:
        session = await self.session_of(ctx)
        call = ToolCall(params.name, params.arguments or {}, _meta(ctx))
        key = key_of(call.name, json.dumps(call.arguments, sort_keys=True, default=str))

        async def work(talk: Conversation) -> types.CallToolResult:
            carried_out = call_own if call.name in self._gateway.own_names else call_tool

            async def answer() -> types.CallToolResult:
                answered = await carried_out(session, call, talk)
                _refuse_lacking(answered, talk)
                return _result(answered, modern=talk.is_modern)

            return await guarded(call.name, session, answer)  # type: ignore[no-any-return]

        return await carry(session, ctx, params, key, work)  # type: ignore[no-any-return]

    # --- what servers offer beside tools ----------------------------------------------------------

    async def _listed(self, ctx: Context, kind: str, work: Callable[[GatewaySession], Awaitable[Listing]]) -> Listing:
        """What there is of a kind, and the servers that it is said without."""
        session = await self.session_of(ctx)

        async def listing() -> Listing:
            with session.turnstile.passing():
                late = await session.ready_to_list(kind)
                found, others = await work(session)
                return found, tuple(dict.fromkeys((*late, *others)))

        return await guarded(f"{kind}/list", session, listing)  # type: ignore[no-any-return]

    async def _list_resources(self, ctx: Context, _params: Any) -> types.ListResourcesResult:
        things, late = await self._listed(ctx, RESOURCES, lambda session: _offered(session, RESOURCES))
        return types.ListResourcesResult.model_validate({"resources": things, "_meta": _without(late)})

    async def _list_templates(self, ctx: Context, _params: Any) -> types.ListResourceTemplatesResult:
        things, late = await self._listed(ctx, RESOURCES, lambda session: _offered(session, TEMPLATES))
        return types.ListResourceTemplatesResult.model_validate({"resourceTemplates": things, "_meta": _without(late)})

    async def _list_prompts(self, ctx: Context, _params: Any) -> types.ListPromptsResult:
        named, late = await self._listed(ctx, PROMPTS, _prompts)
        return types.ListPromptsResult.model_validate({"prompts": named, "_meta": _without(late)})

    async def _read_resource(self, ctx: Context, params: types.ReadResourceRequestParams) -> Any:
        session = await self.session_of(ctx)
        uri = str(params.uri)

        async def work(talk: Conversation) -> types.ReadResourceResult:
            async def answer() -> types.ReadResourceResult:
                contents = await read_resource(session, uri, talk)
                return types.ReadResourceResult.model_validate({"contents": list(contents)})

            return await guarded(uri, session, answer)  # type: ignore[no-any-return]

        return await carry(session, ctx, params, key_of("resource", uri), work)

    async def _subscribe(self, ctx: Context, params: types.SubscribeRequestParams) -> types.EmptyResult:
        session = await self.session_of(ctx)
        talk = Conversation(session, ctx)
        await guarded(params.uri, session, lambda: subscribe(session, params.uri, THE_SESSION, talk))
        return types.EmptyResult()

    async def _unsubscribe(self, ctx: Context, params: types.UnsubscribeRequestParams) -> types.EmptyResult:
        session = await self.session_of(ctx)

        async def work() -> None:
            with session.turnstile.passing({"uri": params.uri}):
                await unsubscribe(session, params.uri, THE_SESSION)

        await guarded(params.uri, session, work)
        return types.EmptyResult()

    async def _listen(
        self, ctx: Context, params: types.SubscriptionsListenRequestParams
    ) -> types.SubscriptionsListenResult:
        """A stream of changes; of resources those that policy lets the client hear of, as the acknowledgement says."""
        session = await self.session_of(ctx)
        stream, heard = Stream(), list[str]()
        try:
            with stream.scope:
                for uri in dict.fromkeys(params.notifications.resource_subscriptions or ()):
                    try:
                        await subscribe(session, uri, stream)
                    except SymbiError as error:
                        _log.info("client `%s` does not hear of a resource: %s", session.client.name, error.code)
                        if isinstance(error, Overloaded):
                            break  # the rest is not asked for either
                    else:
                        heard.append(uri)
                wanted = params.notifications.model_copy(update={"resource_subscriptions": heard or None})
                return await self._listeners(ctx, params.model_copy(update={"notifications": wanted}))
        finally:
            with anyio.CancelScope(shield=True):
                for uri in heard:
                    await unsubscribe(session, uri, stream)
        return await guarded(stream.lost, session, stream.ended)  # type: ignore[no-any-return]  # which raises

    async def _get_prompt(self, ctx: Context, params: types.GetPromptRequestParams) -> Any:
        session = await self.session_of(ctx)
        values = dict(params.arguments or {})
        key = key_of("prompt", params.name, json.dumps(values, sort_keys=True))

        async def work(talk: Conversation) -> types.GetPromptResult:
            async def answer() -> types.GetPromptResult:
                prompt = await get_prompt(session, params.name, values, talk)
                return types.GetPromptResult.model_validate(prompt)

            return await guarded(params.name, session, answer)  # type: ignore[no-any-return]

        return await carry(session, ctx, params, key, work)

    async def _complete(self, ctx: Context, params: types.CompleteRequestParams) -> types.CompleteResult:
        session = await self.session_of(ctx)
        ref = params.ref.model_dump(mode="json", by_alias=True)
        others = dict((params.context.arguments if params.context else None) or {})
        argument = params.argument.name, params.argument.value
        found = await guarded("completion/complete", session, lambda: complete(session, ref, argument, others))
        return types.CompleteResult.model_validate({"completion": found})

    async def _set_level(self, ctx: Context, params: types.SetLevelRequestParams) -> types.EmptyResult:
        session = await self.session_of(ctx)
        session.log_level = params.level if params.level in LEVELS else session.log_level
        return types.EmptyResult()


async def handed(notice: Callable[[], Awaitable[None]]) -> None:
    """Hand a notice to a client; one that has gone, or takes none, misses it, and nothing else comes of it."""
    try:
        await notice()
    except (MCPError, NoBackChannelError, anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
        _log.debug("a client takes no notice: %s", type(error).__name__)


async def guarded(name: str, session: GatewaySession, work: Callable[[], Awaitable[Any]]) -> Any:
    """Do something for a client; what goes wrong becomes an error of the protocol that says what a client may know.

    Raises:
        MCPError: It went wrong, and no answer says so.
    """
    try:
        return await work()
    except SymbiError as error:
        told = refusal_of(name, error, session.runtime.guard.engine.current)
    except MCPError:
        raise
    except Exception as error:  # noqa: BLE001 - the outermost place: a defect answers one client and ends no other
        _log.error("the gateway met a defect", exc_info=error)
        told = refusal_of(name, InternalError(type(error).__name__), session.runtime.guard.engine.current)
    code = types.INVALID_PARAMS if told.kind == "input" else types.INTERNAL_ERROR
    raise MCPError(code, told.text, told.meta)


def _refuse_lacking(answered: ToolAnswer | Refusal, talk: Conversation) -> None:
    """Return unless a tool was refused because it has to ask what the client says that it cannot be asked.

    Raises:
        MCPError: It was; a client of the protocol without sessions is told so by the error that is there for it.
    """
    needs = answered.facts.get("needs") if isinstance(answered, Refusal) else None
    lacking = [str(one) for one in needs if one not in talk.can] if isinstance(needs, list) else []
    if isinstance(answered, Refusal) and lacking and talk.is_modern:
        wanted: dict[str, Any] = {"requiredCapabilities": {one: {} for one in lacking}}
        raise MCPError(types.MISSING_REQUIRED_CLIENT_CAPABILITY, answered.text, wanted)


async def _itself(session: GatewaySession) -> Listing:
    return session, ()


async def _offered(session: GatewaySession, what: str) -> Listing:
    found, late = await browse_soon(session, what)
    return [one for several in found.values() for one in several], late


async def _prompts(session: GatewaySession) -> Listing:
    offered, late = await browse_soon(session, PROMPTS)
    found = named_prompts(session, offered)
    return [{**thing, "name": name} for name, (_, thing) in found.items()], late


def _without(late: Sequence[str]) -> dict[str, Any] | None:
    """What a listing says in `_meta` of the servers that it was made without."""
    return {LATE_KEY: list(late)} if late else None


def _meta(ctx: Context) -> dict[str, JsonValue]:
    meta: Any = ctx.meta or {}
    return dict(meta)


def _tool(name: str, tool: VerifiedTool) -> types.Tool:
    definition = tool.definition
    described: dict[str, Any] = {
        "name": name,
        "title": definition.title,
        "description": definition.description or None,
        "inputSchema": definition.input_schema,
        "outputSchema": definition.output_schema,
        "annotations": definition.annotations or None,
        "_meta": definition.meta or None,
    }
    return types.Tool.model_validate({key: value for key, value in described.items() if value is not None})


def _result(answer: ToolAnswer | Refusal, *, modern: bool) -> types.CallToolResult:
    if isinstance(answer, Refusal):
        return types.CallToolResult.model_validate(
            {"content": [_text(answer.text)], "isError": True, "_meta": answer.meta}
        )
    blocks = [dict(block) for block in answer.blocks] or [_text(_written(answer.value))]
    result: dict[str, Any] = {
        "content": blocks,
        "isError": answer.is_error,
        "_meta": {**_theirs(answer.meta), **({EFFECT_KEY: answer.effect_id} if answer.effect_id else {})},
    }
    if answer.structured and (modern or isinstance(answer.value, Mapping)):
        result["structuredContent"] = answer.value
    return types.CallToolResult.model_validate(result)


def _theirs(meta: Mapping[str, Any]) -> dict[str, Any]:
    """What a server says in `_meta`, without what only the gateway says there."""
    return {key: value for key, value in meta.items() if not key.startswith(OURS)}


def _text(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def _written(value: JsonValue) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


async def serve(
    gateway: Gateway,
    client: Client,
    streams: tuple[ReadStream[SessionMessage | Exception], WriteStream[SessionMessage]],
    *,
    transport: str,
    uid: int | None = None,
) -> None:
    """Serve one client over a pair of streams, until it goes away.

    Args:
        gateway: Serves.
        client: Who, as the transport has made sure.
        streams: What comes from it, and what goes to it.
        transport: `stdio`, `socket` or `memory`.
        uid: The operating-system user at the other end; None where it is not known.

    Raises:
        Overloaded: There are too many sessions.
        StoreUnavailable: The session cannot be recorded.
    """
    async with gateway.session(client, transport, uid=uid) as session:
        serving = SessionServer(gateway, lambda _ctx: session)
        await serving.server.run(*streams, serving.options)
