"""The gateway: sessions of MCP clients on a runtime.

```
client ── request ──► serving (protocol) ──► GatewaySession ──► calls: label, gate, server, remember
                                                           └──► own: run an agent, its status, why a decision
```

Nothing here speaks to a server but through `tools.invoke`, and so through the gate, with the client as principal.
"""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self

import anyio
from anyio.abc import TaskGroup

from symbi.api.mcp.answers import Refusal
from symbi.api.mcp.bounds import Bounds, Turnstile
from symbi.api.mcp.clients import Client
from symbi.api.mcp.labels import SessionLabels
from symbi.api.mcp.names import OWN, may_be_of, name_all, outside_names, settled, without_oldest
from symbi.audit.event import AuditEventType, Draft
from symbi.config import GatewayNames, GatewaySettings, Settings
from symbi.dsl.spec import CompiledFile
from symbi.errors import ConfigError, Denied, Overloaded, StoreUnavailable, SymbiError
from symbi.guard.waits import Waits
from symbi.policy.counterfactual import Change
from symbi.runtime.runtime import Runtime
from symbi.tools.catalog import VerifiedTool
from symbi.tools.text import cut, printable
from symbi.tools.watching import Notice, ResourceWatch
from symbi.types import JsonValue, Label, Principal

_log = logging.getLogger("symbi.api")

KIB: Final = 1024
MAX_HELD: Final = 64  # requests of one client that wait for people; a further one is refused
MAX_SEEN: Final = 4096  # names of tools that a session knows again once they are gone
MAX_REFUSALS: Final = 1024  # that are kept for whoever asks why
MAX_CLAIM_CHARS: Final = 200  # of what a client says of itself, on the trail
RETRY_S: Final = 10.0  # before a server that could not be had is tried again for a client
WHY_S: Final = 0.5  # between two looks at what would turn a denial
STOP_S: Final = 10.0  # for the runs of a client that has gone to end
TELL_S: Final = 10.0  # for a client to take the notice of a change
TELL_EVERY_S: Final = 1.0  # between two notices that servers have other resources, or other prompts
RETRY_AFTER_S: Final = 1.0  # when there are too many sessions

Search = Callable[[Principal, str, Label, int], Awaitable[tuple[JsonValue, Label]]]
"""Searches knowledge for a principal, through the gate: the words, their label, and how many findings at most. Gives what
was found, and its label."""


@dataclass(frozen=True, slots=True)
class GatewayTerms:
    """What a gateway is told.

    Attributes:
        prefixed: Names outside have their server's name.
        wait_s: How long a held call waits for people before it is answered.
        listing_s: How long a listing waits for a server.
        max_sessions: Sessions at a time.
        max_client_sessions: Of one client, so that none can take them all.
        bounds: Of each.
        remembered_chars: Text of answers that each remembers.
    """

    prefixed: bool = True
    wait_s: float = 20.0
    listing_s: float = 10.0
    max_sessions: int = 64
    max_client_sessions: int = 32
    bounds: Bounds = field(default_factory=Bounds)
    remembered_chars: int = 2048 * KIB


def terms_of(settings: GatewaySettings) -> GatewayTerms:
    """The terms that a configuration sets."""
    gateway = settings
    return GatewayTerms(
        prefixed=gateway.names is GatewayNames.PREFIXED,
        wait_s=gateway.wait_s,
        listing_s=gateway.listing_s,
        max_sessions=gateway.max_sessions,
        max_client_sessions=gateway.max_client_sessions,
        bounds=Bounds(gateway.max_calls, gateway.calls_rate, gateway.max_request_kib * KIB),
        remembered_chars=gateway.remembered_kib * KIB,
    )


@dataclass(slots=True)
class Late:
    """Something that a listing waits for, and that goes on where the listing does not.

    Attributes:
        over: Set once it is there, or cannot be had.
        missed: The kinds of things of which a listing was answered without it.
    """

    over: anyio.Event = field(default_factory=anyio.Event)
    missed: set[str] = field(default_factory=set)


class GatewaySession:
    """One client, as long as it is there.

    Attributes:
        id: On the trail, with each of its effects.
        client: Who.
        labels: What it has read.
        turnstile: Lets its requests pass.
        servers: The servers that it may use, once it was let.
        down: Why it may not use the others.
        tasks: Where what it asked for goes on; ends with it.
        changed: Told that the tools there are have changed; set by whoever serves it.
        uid: The operating-system user at the other end; None where it is not known.
        person_uid: The operating-system user at the client, where that user may vote there; None for nobody.
        denials: What would turn a denial, by its effect; of the last ones.
        parked: Requests that wait for an answer of the client, by what it has to send with it.
        log_level: The least that the client wants to hear of what servers log.
        claims: What the client says of itself, for the trail alone.
        runs: The runs that it asked for, by their ids.
        homes: The server that each resource was listed by, of those that one server alone lists.
        watched: What it wants to hear of when it changes, by URI.
        updated: Told the URI of such a resource, and what there is to say; set by whoever serves it.
        watching: Held while that changes.
        coming: Servers that are being connected for a listing.
        answering: What servers are being asked for a listing, by server and kind.
        denied: Servers and kinds of which policy lets it list nothing.
    """

    def __init__(
        self, gateway: "Gateway", client: Client, session_id: str, tasks: TaskGroup, uid: int | None = None
    ) -> None:
        self.gateway = gateway
        self.client = client
        self.uid = uid
        self.person_uid = uid if client.approves_as else None
        self.denials: dict[str, Sequence[Change]] = {}
        self.parked: dict[str, tuple[str, Any]] = {}
        self.log_level = "info"
        self.claims: dict[str, JsonValue] = {}
        self.runs: dict[str, Any] = {}
        self.id = session_id
        self.tasks = tasks
        self.labels = SessionLabels(gateway.terms.remembered_chars)
        self.turnstile = Turnstile(gateway.terms.bounds, gateway.clock)
        self.servers: set[str] = set()
        self.down: dict[str, SymbiError] = {}
        self.changed: Callable[[str], Awaitable[None]] = _nobody
        self.labelling = anyio.Lock()
        self.homes: dict[str, str] = {}
        self.watched: dict[str, Any] = {}
        self.updated: Callable[[str, Notice], Awaitable[None]] = _nobody
        self.watching = anyio.Lock()
        self.coming: dict[str, Late] = {}
        self.answering: dict[tuple[str, str], Any] = {}
        self._ready: dict[str, anyio.Lock] = {}
        self._tried: dict[str, tuple[str, float]] = {}
        self._seen: dict[str, str] = {}
        self.denied: set[tuple[str, str]] = set()
        self._changing: dict[str, bool] = {}  # kinds that the client is being told of, and whether there is more
        self._why_s = 0.0

    @property
    def principal(self) -> Principal:
        """The client, as policies see it."""
        return self.client.principal

    @property
    def waits(self) -> Waits:
        """What bounds how many of its client's requests wait for people."""
        return self.gateway.waits_of(self.client)

    @property
    def runtime(self) -> Runtime:
        """What it works on."""
        return self.gateway.runtime

    async def ready(self, servers: Iterable[str] | None = None) -> None:
        """Connect servers that the client sees, each through the gate; one that cannot be is left out.

        Args:
            servers: Which; all of them if None. Nobody waits for another one.

        Raises:
            StoreUnavailable: The books cannot be kept.
        """
        asked = self.runtime.catalog.servers if servers is None else tuple(servers)
        wanted = [name for name in asked if self._wants(name)]
        if wanted:  # as a rule there is nothing to do
            async with anyio.create_task_group() as tasks:
                for name in wanted:
                    tasks.start_soon(self._connect, name)
        self._check_books(asked)

    async def ready_to_list(self, kind: str) -> tuple[str, ...]:
        """Connect servers for a listing, which waits no longer than one may take; those that it does without.

        They are connected all the same, and the client is then told that there are others of that kind.

        Args:
            kind: `tools`, `resources` or `prompts`.

        Raises:
            StoreUnavailable: The books cannot be kept.
        """
        asked = self.runtime.catalog.servers
        for name in asked:
            if name not in self.coming and self._wants(name):
                self.coming[name] = Late()
                self.tasks.start_soon(self._come, name, self.coming[name])
        late = await self.waited_for({name: self.coming[name] for name in asked if name in self.coming}, kind)
        self._check_books(asked)
        return late

    async def waited_for(self, coming: Mapping[str, Late], kind: str) -> tuple[str, ...]:
        """Wait for what a listing needs as long as one may; the names of what it does without."""
        with anyio.move_on_after(self.gateway.terms.listing_s):
            for one in coming.values():
                await one.over.wait()
        late = tuple(name for name, one in coming.items() if not one.over.is_set())
        for name in late:
            coming[name].missed.add(kind)
        return late

    async def _come(self, name: str, late: Late) -> None:
        try:
            await self._connect(name)
        finally:
            late.over.set()
            del self.coming[name]
        if name in self.servers:
            await self.tell_missed(late)

    async def tell_missed(self, late: Late) -> None:
        """Tell the client of the kinds of things that it was answered without this."""
        for kind in sorted(late.missed):
            await _told(self, kind)

    def offers_others(self, server: str, kind: str) -> None:
        """Tell the client that a server says that it has other `resources` or `prompts`, and no more often than it can take."""
        if server not in self.servers:
            return
        for one in [one for one, known in self.answering.items() if one[0] == server and known.over.is_set()]:
            del self.answering[one]  # what it said for a next listing
        self.homes = {} if kind == "resources" else self.homes
        if kind in self._changing:
            self._changing[kind] = True
        else:
            self._changing[kind] = False
            self.tasks.start_soon(self._tell_others, kind)

    async def _tell_others(self, kind: str) -> None:
        more = True
        while more:
            await _told(self, kind)
            await anyio.sleep(TELL_EVERY_S)
            more, self._changing[kind] = self._changing[kind], False
        del self._changing[kind]

    def _check_books(self, servers: Iterable[str]) -> None:
        lost = next((self.down[name] for name in servers if isinstance(self.down.get(name), StoreUnavailable)), None)
        if lost is not None:
            raise lost

    def servers_of(self, name: str) -> tuple[str, ...] | None:
        """The servers that have to be there for a name outside; None for all of them."""
        if self.coming and not self.gateway.terms.prefixed:
            return None  # one that is still to come may have the same name, which is then nobody's
        if self.gateway.terms.prefixed:
            return tuple(server for server in self.runtime.catalog.servers if may_be_of(name, server))
        whole = self.whole(name)
        return None if whole is None else (whole.partition(".")[0],)

    def _wants(self, server: str) -> bool:
        """Whether a server is to be connected now: at first, once it is gone, and again where that may help."""
        if self.client.servers is not None and server not in self.client.servers:
            return False
        if server in self.servers:
            return not self.runtime.catalog.is_connected(server)
        version, at_s = self._tried.get(server, ("", -RETRY_S))
        if isinstance(self.down.get(server), Denied):
            return version != self.runtime.guard.engine.current.version
        return self.gateway.clock.monotonic_s() - at_s >= RETRY_S

    async def _connect(self, server: str) -> None:
        async with self._ready.setdefault(server, anyio.Lock()):
            if not self._wants(server):
                return
            version = self.runtime.guard.engine.current.version
            try:
                await self.runtime.catalog.ready(server, self.principal)
                await self.runtime.connect((), self.principal)  # takes up its tools
                self.servers.add(server)
                self.down.pop(server, None)
            except SymbiError as error:
                self.down[server] = error
                _log.warning("client `%s` is not given server `%s`: %s", self.client.name, server, error.code)
            finally:  # counted from the end: a server that takes long to fail would else hold up every request
                self._tried[server] = version, self.gateway.clock.monotonic_s()

    def tools(self) -> Mapping[str, VerifiedTool]:
        """The tools that it may ask for, by their names outside."""
        served = {str(tool.ref.name): tool for tool in self.runtime.catalog.tools if tool.ref.server in self.servers}
        return {outside: served[whole] for outside, whole in self.named().items() if whole in served}

    def named(self) -> Mapping[str, str]:
        """`server.tool` of every name outside, quarantined tools among them; own names stand for nothing of a server."""
        catalog = self.runtime.catalog
        there = [(tool.ref.server, tool.definition.name) for tool in catalog.tools]
        there += [(whole.partition(".")[0], whole.partition(".")[2]) for whole in catalog.quarantined]
        seen = [one for one in there if one[0] in self.servers]
        prefixed = self.gateway.terms.prefixed
        named = name_all(seen, prefixed=prefixed, taken=self.gateway.own_names)
        named, self._seen = settled(self._seen, named, outside_names(seen, prefixed=prefixed), catalog.is_connected)
        away = {one for one in catalog.servers if not catalog.is_connected(one)}
        self._seen = without_oldest(self._seen, named, MAX_SEEN, away)
        return named

    def whole(self, name: str) -> str | None:
        """What a name outside stands for, or stood for while its server was there; None where it never did."""
        return self.named().get(name) or self._seen.get(name)

    def may_look_why(self) -> bool:
        """Whether what would turn a denial is looked for, which takes long: not more often than once a while."""
        now_s = self.gateway.clock.monotonic_s()
        if now_s < self._why_s:
            return False
        self._why_s = now_s + WHY_S
        return True

    async def stop_runs(self, *several: Any) -> None:
        """Stop runs that it asked for and that are not over; all of them where none is named."""
        left = {one.agent for one in several or self.runs.values() if not one.over.is_set()}
        names = [one.life.agent for one in self.runtime.at_work if one.life.agent in left]
        if names:
            with anyio.move_on_after(STOP_S, shield=True):
                await self.runtime.stop(names, self.principal.agent)


class Gateway:
    """Sessions of clients on a runtime; to be entered.

    Args:
        runtime: What they work on.
        terms: What it is told.
        files: The agents that clients may ask to be run, where policies let them.
        search: Searches knowledge; None where there is none.

    Raises:
        ConfigError: A server is called as the gateway's own tools are.
    """

    def __init__(
        self,
        runtime: Runtime,
        terms: GatewayTerms,
        files: Sequence[CompiledFile] = (),
        search: Search | None = None,
    ) -> None:
        if OWN in runtime.catalog.servers:
            msg = f"a tool server cannot be called `{OWN}` where the gateway serves: its own tools begin so"
            raise ConfigError(msg, code="config.server")
        self.runtime = runtime
        self.terms = terms
        self.files = tuple(files)
        self.search = search
        self.clock = runtime.rooms.world.clock
        self.watch = ResourceWatch(runtime.catalog, runtime.guard)
        self.own_names: frozenset[str] = frozenset()
        self.sessions: dict[str, GatewaySession] = {}
        self.offered: dict[tuple[str, str], frozenset[str]] = {}  # what servers listed last, by server and kind
        self.refusals: dict[str, tuple[str, Refusal]] = {}
        self._left = anyio.Event()
        self._waits: dict[str, Waits] = {}
        self._tasks: TaskGroup | None = None
        self._told: Callable[[], Awaitable[None]] | None = None

    async def __aenter__(self) -> Self:
        """Begin to listen for changes of the catalogue."""
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        catalog = self.runtime.catalog
        self._told, catalog.changed = catalog.changed, self._changed
        catalog.others = self._offers_others
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End what still goes on."""
        assert self._tasks is not None
        if self._told is not None:
            self.runtime.catalog.changed = self._told
        tasks, self._tasks = self._tasks, None
        tasks.cancel_scope.cancel("the gateway ends")
        await tasks.__aexit__(None, None, None)

    def waits_of(self, client: Client) -> Waits:
        """What bounds how many requests of a client wait for people, in whichever of its sessions."""
        return self._waits.setdefault(client.name, Waits(MAX_HELD))

    def keep_refusal(self, named: str, client: Client, told: Refusal) -> None:
        """Keep what a client was told under an id, for it may ask again; the oldest is forgotten.

        Args:
            named: The effect, or the approval.
            client: Who may ask.
            told: What.
        """
        self.refusals.pop(named, None)
        self.refusals[named] = client.name, told
        while len(self.refusals) > MAX_REFUSALS:
            del self.refusals[next(iter(self.refusals))]

    def check_room(self, client: Client) -> None:
        """Return if a client may open a further session.

        Raises:
            Overloaded: There are too many, or it has too many.
        """
        own = sum(session.client.name == client.name for session in self.sessions.values())
        if own >= self.terms.max_client_sessions:
            msg = f"as many sessions of this client are open as `gateway.max_client_sessions` allows: {own}"
            raise Overloaded(msg, retry_after_s=RETRY_AFTER_S, code="mcp.client_sessions")
        if len(self.sessions) >= self.terms.max_sessions:
            msg = f"as many sessions are open as `gateway.max_sessions` allows: {len(self.sessions)}"
            raise Overloaded(msg, retry_after_s=RETRY_AFTER_S, code="mcp.sessions")

    async def deserted(self) -> None:
        """Return once no session is open."""
        while self.sessions:
            await self._left.wait()

    async def _changed(self) -> None:
        """The catalogue has changed: policies hear of it first, and then every client."""
        assert self._told is not None
        await self._told()
        if self._tasks is not None:
            for session in list(self.sessions.values()):
                self._tasks.start_soon(_told, session, "tools")

    def _offers_others(self, server: str, what: str) -> None:
        for session in list(self.sessions.values()):
            session.offers_others(server, what)

    @asynccontextmanager
    async def session(self, client: Client, transport: str, *, uid: int | None = None) -> AsyncIterator[GatewaySession]:
        """A session of a client, from its first word to its last; what it asked for ends with it.

        Args:
            client: Who, as the transport has made sure.
            transport: `stdio`, `http`, `socket` or `memory`.
            uid: The operating-system user at the other end, as the system says; None where it is not known.

        Raises:
            Overloaded: There are too many, or it has too many.
            StoreUnavailable: It cannot be recorded.
        """
        self.check_room(client)
        session_id = self.runtime.rooms.ids.new()
        opened: dict[str, JsonValue] = {"session": session_id, "client": client.name, "transport": transport}
        agent = client.principal.agent
        tasks = anyio.create_task_group()
        await tasks.__aenter__()
        session = self.sessions[session_id] = GatewaySession(self, client, session_id, tasks, uid)
        try:
            await self.runtime.record(Draft(AuditEventType.SESSION_OPENED, agent, opened))
            yield session
        finally:
            del self.sessions[session_id]
            self._left.set()
            self._left = anyio.Event()
            try:
                await session.stop_runs()
            finally:
                tasks.cancel_scope.cancel("the client is gone")
                # The error is not handed to the group, which would wrap it in an exception group.
                await tasks.__aexit__(None, None, None)
            with anyio.CancelScope(shield=True):
                said = {name: cut(printable(str(value)), MAX_CLAIM_CHARS) for name, value in session.claims.items()}
                details: dict[str, JsonValue] = {**opened, "claims": {**said}}
                await self.runtime.record(Draft(AuditEventType.SESSION_CLOSED, agent, details))


async def _told(session: GatewaySession, what: str) -> None:
    with anyio.move_on_after(TELL_S):  # one that does not listen will list anew when it wants to
        await session.changed(what)


async def _nobody(_what: str, _notice: object = None) -> None:
    """The default of `changed` and `updated`: nobody."""


__all__ = ["Gateway", "GatewaySession", "GatewayTerms", "Search", "Settings", "terms_of"]
