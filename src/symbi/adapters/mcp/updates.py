"""The resources of one session with a server that somebody wants to hear of when they change.

Until 2025-11-25 each is subscribed to by a request. Since 2026-07-28 a stream is listened on, which names them all when it
is opened: for one more, a second stream is opened before the first is left, so that nothing is missed between the two.
"""

import logging
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from typing import Any, Final, TypeAlias

import anyio
from anyio.abc import TaskGroup
from mcp.client.client import Client
from mcp.client.subscriptions import ListenNotSupportedError, SubscriptionLost
from mcp.shared.exceptions import MCPError
from mcp_types import (
    CONNECTION_CLOSED,
    SubscribeRequest,
    SubscribeRequestParams,
    UnsubscribeRequest,
    UnsubscribeRequestParams,
)
from pydantic import RootModel, ValidationError

from symbi.errors import Overloaded, ToolFailed
from symbi.tools.port import Notice

_log = logging.getLogger("symbi.tools.server")

MAX_WATCHED: Final = 256  # resources of one server
MAX_LISTENS: Final = 8  # times that a lost stream is opened again
LISTEN_AGAIN_S: Final = 1.0  # before it is
RETRY_AFTER_S: Final = 10.0  # when as many are watched as may be

Told: TypeAlias = Callable[[str, Notice], None]
"""Told the URI of a resource that is watched, and what there is to say of it."""


class _Done(RootModel[dict[str, Any]]):
    """A result that says nothing."""


class _Stream:
    """One stream that is listened on."""

    def __init__(self, uris: frozenset[str]) -> None:
        self.uris = uris
        self.honoured: frozenset[str] = frozenset()
        self.opened = anyio.Event()
        self.scope = anyio.CancelScope()
        self.failure: Exception | None = None


class Updates:
    """What is watched in one session.

    Args:
        name: Of the server.
        client: The session, as the SDK has it.
        tasks: Where streams are listened on.
        modern: It has no subscriptions, but streams.
        told: Told what changes.
    """

    def __init__(self, name: str, client: Client, tasks: TaskGroup, *, modern: bool, told: Told) -> None:
        self._name = name
        self._client = client
        self._tasks = tasks
        self._modern = modern
        self._told = told
        self._uris: set[str] = set()
        self._stream: _Stream | None = None
        self._changing = anyio.Lock()
        self._over = False
        self._opening: _Stream | None = None

    async def open(self, uri: str) -> None:
        """Have changes of a resource told.

        Raises:
            Overloaded: As many are watched as may be.
            ToolFailed: The server does not tell of it.
            MCPError, ValidationError: It refuses, or is gone.
        """
        async with self._changing:
            if uri in self._uris:
                return
            if len(self._uris) >= MAX_WATCHED:
                msg = f"{MAX_WATCHED} resources of tool server `{self._name}` are watched"
                raise Overloaded(msg, retry_after_s=RETRY_AFTER_S)
            if self._modern:  # what it tells of stands in what it acknowledges: it may not have been asked what it can
                await self._listen(frozenset({*self._uris, uri}), uri)
            else:
                found = self._client.session.server_capabilities
                if found is None or found.resources is None or not found.resources.subscribe:
                    raise self._refused()
                request = SubscribeRequest(params=SubscribeRequestParams(uri=uri))
                await self._client.session.send_request(request, _Done)
            if self._over:  # it has ended behind its answer: nobody would ever say so
                raise MCPError(CONNECTION_CLOSED, "its session has ended")
            self._uris.add(uri)

    async def close(self, uri: str) -> None:
        """Have them told no more.

        Raises:
            MCPError, ValidationError: The server refuses, or is gone.
        """
        async with self._changing:
            if uri not in self._uris:
                return
            self._uris.discard(uri)
            if not self._modern:
                request = UnsubscribeRequest(params=UnsubscribeRequestParams(uri=uri))
                await self._client.session.send_request(request, _Done)
            elif self._stream is not None and not self._uris:
                self._stream.scope.cancel()
                self._stream = None

    def noticed(self, uri: str) -> None:
        """The server says that a resource has changed: one that is watched, or something below one."""
        for watched in self._uris:
            if uri == watched or uri.startswith(f"{watched.rstrip('/')}/"):
                self._told(watched, Notice.CHANGED)

    def end(self) -> None:
        """The session is over."""
        self._over = True
        self._lose(set(self._uris))
        if self._opening is not None:
            self._opening.opened.set()

    def _lose(self, gone: AbstractSet[str]) -> None:
        """The server does not tell of these any more."""
        self._uris -= gone
        for uri in gone:
            self._told(uri, Notice.OVER)

    def _refused(self) -> ToolFailed:
        return ToolFailed(f"server `{self._name}` does not tell of changes of this resource", code="agent.tool_watch")

    # --- streams ------------------------------------------------------------------------------------

    async def _listen(self, uris: frozenset[str], wanted: str) -> None:
        fresh = _Stream(uris)
        self._tasks.start_soon(self._hold, fresh)
        self._opening = fresh
        try:
            await fresh.opened.wait()
        except anyio.get_cancelled_exc_class():
            fresh.scope.cancel()
            raise
        finally:
            self._opening = None
        if self._over:
            raise MCPError(CONNECTION_CLOSED, "its session has ended")
        if fresh.failure is not None:
            raise fresh.failure
        if wanted not in fresh.honoured:
            fresh.scope.cancel()
            raise self._refused()
        before, self._stream = self._stream, fresh
        self._lose(self._uris - fresh.honoured)
        if before is not None:
            before.scope.cancel()

    async def _hold(self, stream: _Stream) -> None:
        """Listen, and again where the stream is lost, until it is left."""
        with stream.scope:
            for number in range(MAX_LISTENS):
                if number:
                    await anyio.sleep(LISTEN_AGAIN_S)
                try:
                    await self._once(stream)
                except (ListenNotSupportedError, MCPError, ValidationError) as error:
                    stream.failure = error if isinstance(error, MCPError | ValidationError) else self._refused()
                    break
                except SubscriptionLost:
                    stream.failure = stream.failure or self._refused()
                if not stream.opened.is_set():
                    break
            stream.opened.set()
            if self._stream is stream:
                _log.warning("`%s` does not keep its stream of changed resources open", self._name)
                self._stream = None
                self._lose(set(self._uris))

    async def _once(self, stream: _Stream) -> None:
        async with self._client.listen(resource_subscriptions=sorted(stream.uris)) as events:
            stream.honoured = frozenset(events.honored.resource_subscriptions or ())
            again, stream.failure = stream.opened.is_set(), None
            stream.opened.set()
            if again:  # what has changed in between nobody said
                if self._stream is stream:
                    self._lose(self._uris - stream.honoured)
                for uri in self._uris & stream.uris:
                    self._told(uri, Notice.CHANGED)
            async for _event in events:
                pass  # `noticed` is told of it, too
