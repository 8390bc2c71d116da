"""The resources that a client wants to hear of when they change, in both eras of the protocol.

Each subscribing is decided as reading is (`ReadResource`), also to what the client hears of already, and so is each change before
it is told of it. A client is told of the very URI that it asked for, and of nothing else: what has become of the resource it has to
read. Changes that come faster than once a second are told as one. Where the session with a server has ended, the resource is
subscribed to again, through the gate, a bounded number of times; the client is then told that it may have changed. Where that
cannot be had, the streams on which it listens end with an error; the protocol with sessions has nothing for it but a change.
"""

import logging
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final

import anyio

from symbi.api.mcp.browsing import home_of, reader_of
from symbi.api.mcp.calls import Exchange, judged, until_agreed
from symbi.api.mcp.gateway import GatewaySession
from symbi.errors import Overloaded, StoreUnavailable, SymbiError, Unavailable
from symbi.guard.action import ReadResource
from symbi.policy.fields import UNDECLARED
from symbi.tools.watching import Notice

_log = logging.getLogger("symbi.api")

MAX_WATCHED: Final = 32  # resources of one client, in all of its sessions
TELL_EVERY_S: Final = 1.0  # one resource changes for a client no more often
TELL_S: Final = 10.0  # for a client to take a notice
MAX_RENEWALS: Final = 8  # tries to subscribe again where a server's session has ended
RENEW_FIRST_S: Final = 1.0  # before the first of them, and twice as long before each further one
RENEW_MOST_S: Final = 60.0
RETRY_AFTER_S: Final = 10.0  # when as many are watched as may be
THE_SESSION: Final = "session"
"""Who holds a subscription of the protocol with sessions; those of streams are held by the stream."""


class Stream:
    """Where a client listens; it holds what it has subscribed to, and ends where that cannot be told of any more.

    Attributes:
        scope: What it goes on in.
        lost: The resource that it has ended for; empty as long as it has not.
    """

    def __init__(self) -> None:
        self.scope = anyio.CancelScope()
        self.lost = ""

    def lose(self, uri: str) -> None:
        """End it."""
        self.lost = self.lost or uri
        self.scope.cancel("a resource cannot be told of any more")

    async def ended(self) -> None:
        """Say why it has ended.

        Raises:
            Unavailable: A resource cannot be told of any more.
        """
        msg = "changes of a resource cannot be told of any more"
        raise Unavailable(msg, code="unavailable.subscription")


@dataclass(slots=True)
class _Watched:
    """One resource, as long as somebody holds it."""

    holders: set[object] = field(default_factory=set)
    action: ReadResource | None = None
    mark: object = None
    noticed: anyio.Event = field(default_factory=anyio.Event)
    is_over: bool = False
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)

    def hear(self, notice: Notice) -> None:
        self.is_over = self.is_over or notice is Notice.OVER
        self.noticed.set()


async def subscribe(session: GatewaySession, uri: str, holder: object, exchange: Exchange | None = None) -> None:
    """Have a client told of changes of a resource, as long as its session lasts.

    Args:
        session: Whose.
        uri: Which.
        holder: Who wants it, and will want it no more; once is enough for each.
        exchange: Where a person may be asked meanwhile; None: nobody is.

    Raises:
        Overloaded: As many are watched as a client may.
        InputError: No server offers it, or more than one.
        SymbiError: As `ServerReader.subscribe`.
    """
    with session.turnstile.passing({"uri": uri}):  # also those that wait for their turn are counted
        async with session.watching:
            known = session.watched.get(uri)
            if known is not None:
                await _decide(session, uri, known, exchange)
                if uri in session.watched:  # it may have come to its end meanwhile
                    known.holders.add(holder)
                    return
            _check_room(session)
            watched = session.watched[uri] = _Watched({holder})
            try:
                await _open(session, uri, watched, exchange)
                session.tasks.start_soon(_follow, session, uri, watched)
            except BaseException:
                del session.watched[uri]
                if watched.action is not None and watched.mark is not None:  # the session has ended meanwhile
                    await session.gateway.watch.unsubscribe(watched.action.server, uri, watched.mark)
                raise


async def unsubscribe(session: GatewaySession, uri: str, holder: object) -> None:
    """Have it told no more, once nobody holds it."""
    async with session.watching:
        watched = session.watched.get(uri)
        if watched is None:
            return
        watched.holders.discard(holder)
        if not watched.holders:
            del session.watched[uri]
            watched.scope.cancel("nobody wants to hear of it any more")


def _check_room(session: GatewaySession) -> None:
    name = session.client.name
    taken = sum(len(one.watched) for one in session.gateway.sessions.values() if one.client.name == name)
    if taken >= MAX_WATCHED:
        msg = f"{taken} resources are watched for this client"
        raise Overloaded(msg, retry_after_s=RETRY_AFTER_S, code="mcp.subscriptions")


async def _decide(session: GatewaySession, uri: str, watched: _Watched, exchange: Exchange | None) -> None:
    """Return if a client may subscribe to what it hears of already, with what it has read by now; its server is not asked."""
    assert watched.action is not None
    label = (await judged(session, UNDECLARED, {"uri": uri}, {})).label
    once = partial(reader_of(session).may_subscribe, replace(watched.action, label=label))
    await (once() if exchange is None else until_agreed(session, once, exchange))


async def _open(session: GatewaySession, uri: str, watched: _Watched, exchange: Exchange | None) -> None:
    server = await home_of(session, uri)
    label = (await judged(session, UNDECLARED, {"uri": uri}, {})).label
    watched.action = ReadResource(principal=session.principal, server=server, uri=uri, label=label)
    once = partial(_begin, session, watched)
    await (once() if exchange is None else until_agreed(session, once, exchange))


async def _begin(session: GatewaySession, watched: _Watched) -> None:
    assert watched.action is not None
    watched.is_over = False
    watched.mark = await session.gateway.watch.subscribe(reader_of(session), watched.action, watched.hear)


# --- what is told -----------------------------------------------------------------------------------


async def _follow(session: GatewaySession, uri: str, watched: _Watched) -> None:
    """Tell of changes until nobody holds the resource, or the session ends."""
    assert watched.action is not None
    try:
        with watched.scope:
            while True:
                await watched.noticed.wait()
                watched.noticed = anyio.Event()
                if watched.is_over and not await _renewed(session, watched):
                    await _give_up(session, uri, watched)
                    return
                await _tell(session, uri, watched.action, Notice.CHANGED)
                await anyio.sleep(TELL_EVERY_S)
    finally:
        if session.watched.get(uri) is watched:
            del session.watched[uri]
        await session.gateway.watch.unsubscribe(watched.action.server, uri, watched.mark)


async def _give_up(session: GatewaySession, uri: str, watched: _Watched) -> None:
    """Tell whoever holds a resource that there is nothing more to be told of it."""
    assert watched.action is not None
    _log.warning("client `%s` is not told of a resource any more", session.client.name)
    if session.watched.get(uri) is watched:  # who wants it from now on begins anew
        del session.watched[uri]
    for holder in list(watched.holders):
        if isinstance(holder, Stream):
            holder.lose(uri)
    if THE_SESSION in watched.holders:
        await _tell(session, uri, watched.action, Notice.OVER)


async def _tell(session: GatewaySession, uri: str, action: ReadResource, notice: Notice) -> None:
    try:
        await reader_of(session).may_hear(action)
    except SymbiError as error:  # it is not told; the next change is decided anew
        level = logging.WARNING if isinstance(error, StoreUnavailable) else logging.DEBUG
        _log.log(level, "client `%s` is not told of a change: %s", session.client.name, error.code)
        return
    with anyio.move_on_after(TELL_S):  # one that does not listen will read anew when it wants to
        await session.updated(uri, notice)


async def _renewed(session: GatewaySession, watched: _Watched) -> bool:
    """Subscribe again where a server's session has ended; whether that was to be had."""
    wait_s = RENEW_FIRST_S
    for _ in range(MAX_RENEWALS):
        await anyio.sleep(wait_s)
        wait_s = min(2 * wait_s, RENEW_MOST_S)
        try:
            await _begin(session, watched)
        except SymbiError as error:
            _log.info("a resource is not subscribed to again: %s", error.code)
        else:
            return True
    return False
