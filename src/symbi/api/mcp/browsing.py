"""Resources, templates, prompts and completions of the servers that a client sees, each asked for through the gate.

Prompts have names outside as tools do. A resource keeps its URI: it is read from the one server that lists it, or of
whose templates it is made; one of which two servers say that it is theirs is refused. What a server listed last stays its
own while it cannot be asked: nobody else comes by its names meanwhile. What comes back is remembered as untrusted.
"""

import logging
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Final, TypeVar

import anyio

from symbi.api.mcp.calls import Exchange, judged, remembered, until_agreed
from symbi.api.mcp.gateway import GatewaySession, Late
from symbi.api.mcp.labels import UNMARKED
from symbi.api.mcp.names import name_all
from symbi.errors import AgentFailed, InputError, PolicyDenied, StoreUnavailable, SymbiError
from symbi.guard.action import Complete
from symbi.guard.outcome import error_label
from symbi.policy.fields import UNDECLARED
from symbi.tools.reading import Offered, ServerReader
from symbi.tools.text import shown_name
from symbi.types import JsonValue, Label

_log = logging.getLogger("symbi.api")

RESOURCES: Final = "resources"
TEMPLATES: Final = "templates"
PROMPTS: Final = "prompts"
FRESH_S: Final = 30.0  # for which the next listing has what a server answered too late for the last one
MAX_HOMES: Final = 10_000  # resources of which a session knows the server
MAX_TEMPLATE_CHARS: Final = 2048
COMPLETION_S: Final = 30.0
_KEYS: Final = {RESOURCES: "uri", TEMPLATES: "uriTemplate", PROMPTS: "name"}
"""What tells things of a kind apart."""
_EXPRESSION: Final = re.compile(r"\{([+#./;?&]?)[^{}]*\}")

T = TypeVar("T")
Things = Sequence[Mapping[str, Any]]


@dataclass(slots=True)
class Answering(Late):
    """What one server is asked for a listing.

    Attributes:
        things: What it answered; None where it has not, or cannot.
        lost: Why that cannot be recorded, or None.
        at_s: When it was over.
    """

    things: Things | None = None
    lost: SymbiError | None = None
    at_s: float = 0.0


def reader_of(session: GatewaySession) -> ServerReader:
    """What asks servers for a session."""
    return ServerReader(session.runtime.catalog, session.runtime.guard, session.id, session.waits)


async def browse(session: GatewaySession, what: str, among: Iterable[str] | None = None) -> Mapping[str, Things]:
    """What each server of a session offers of a kind; nothing of those that cannot be asked, or may not.

    Args:
        session: Whose.
        what: Which kind.
        among: The servers that are asked; all of them if None.

    Raises:
        StoreUnavailable: A decision cannot be recorded.
    """
    found: dict[str, Things] = {}
    lost: list[SymbiError] = []

    async def ask(server: str) -> None:
        try:
            found[server] = (await reader_of(session).browse(session.principal, server, what)).value
        except StoreUnavailable as error:
            lost.append(error)
        except SymbiError as error:
            _not_browsed(session, server, what, error)

    async with anyio.create_task_group() as tasks:
        for server in sorted(session.servers if among is None else session.servers & set(among)):
            tasks.start_soon(ask, server)
    if lost:
        raise lost[0]
    _browsed(session, what, found)
    if what == RESOURCES and among is None:
        session.homes = _homes(_offers(session, what, found))
    return {server: found[server] for server in sorted(found)}


async def browse_soon(session: GatewaySession, what: str) -> tuple[Mapping[str, Things], tuple[str, ...]]:
    """Likewise for a listing, which waits no longer than one may take; and the servers that it does without.

    They go on answering. The client is then told that there is more, and its next listing has what they said.

    Raises:
        StoreUnavailable: A decision cannot be recorded.
    """
    asked: dict[str, Answering] = {}
    now_s = session.gateway.clock.monotonic_s()
    for server in sorted(session.servers):
        known = session.answering.get((server, what))
        if known is None or (known.over.is_set() and (known.things is None or now_s - known.at_s > FRESH_S)):
            known = session.answering[server, what] = Answering()
            session.tasks.start_soon(_answer, session, server, what, known)
        asked[server] = known
    kind = RESOURCES if what == TEMPLATES else what
    late = await session.waited_for(asked, kind)
    for server, one in asked.items():
        if one.over.is_set() and session.answering.get((server, what)) is one:
            del session.answering[server, what]
        if one.lost is not None:
            raise one.lost
    found = {server: one.things for server, one in asked.items() if one.things is not None}
    _browsed(session, what, found)
    if what == RESOURCES:
        homes = _homes(_offers(session, what, found))
        if late or session.coming:  # one that is missing may offer them too: what was known of all of them stays
            homes = {uri: server for uri, server in homes.items() if session.homes.get(uri) == server}
        session.homes = homes
    return found, late


async def _answer(session: GatewaySession, server: str, what: str, answering: Answering) -> None:
    try:
        offered = await reader_of(session).browse(session.principal, server, what)
        if offered.value:  # nobody has verified what it says of them, and a client is about to read it
            await _kept(session, {}, _without_blobs(offered.value), offered)
        answering.things = offered.value
    except StoreUnavailable as error:
        answering.lost = error
    except SymbiError as error:
        _not_browsed(session, server, what, error)
    finally:
        answering.at_s = session.gateway.clock.monotonic_s()
        answering.over.set()
    if answering.things is not None:
        await session.tell_missed(answering)


def _by_policy(error: SymbiError) -> bool:
    """Whether a client may not use a server, or not so: then the server's names are nothing to it. Not so where people decide."""
    return isinstance(error, PolicyDenied)


def _not_browsed(session: GatewaySession, server: str, what: str, error: SymbiError) -> None:
    _log.debug("server `%s` is not browsed for %s: %s", server, what, error.code)
    if _by_policy(error):
        session.denied.add((server, what))


def _browsed(session: GatewaySession, what: str, found: Mapping[str, Things]) -> None:
    """Remember what servers have listed, of each the first things."""
    for server, things in found.items():
        session.denied.discard((server, what))
        named = (str(one.get(_KEYS[what])) for one in things)
        session.gateway.offered[server, what] = frozenset(islice(named, MAX_HOMES))


def _offers(session: GatewaySession, what: str, found: Mapping[str, Things]) -> dict[str, frozenset[str]]:
    """What each server offers by its own names: as it has just said, or as it said last where it cannot be asked now."""
    down = {name for name, why in session.down.items() if not _by_policy(why)}
    offers: dict[str, frozenset[str]] = {}
    for server in sorted({*session.servers, *session.coming, *down, *found}):
        if server in found:
            offers[server] = frozenset(str(one.get(_KEYS[what])) for one in found[server])
        elif (server, what) not in session.denied:
            offers[server] = session.gateway.offered.get((server, what), frozenset())
    return offers


def _homes(offers: Mapping[str, frozenset[str]]) -> dict[str, str]:
    """The server of each resource that one server alone offers; of the first ones, for there is no end to them."""
    found: dict[str, str] = {}
    twice: set[str] = set()
    for server, uris in offers.items():
        for uri in uris:
            if uri in found:
                twice.add(uri)
            elif len(found) < MAX_HOMES:
                found[uri] = server
    return {uri: server for uri, server in found.items() if uri not in twice}


async def prompts(
    session: GatewaySession, among: Iterable[str] | None = None
) -> Mapping[str, tuple[str, Mapping[str, Any]]]:
    """Prompts by their names outside, each with its server."""
    return named_prompts(session, await browse(session, PROMPTS, among))


def named_prompts(
    session: GatewaySession, offered: Mapping[str, Things]
) -> Mapping[str, tuple[str, Mapping[str, Any]]]:
    """Prompts of servers by their names outside, each with its server; the name of one whose server is away is nobody else's."""
    things = {(server, str(one.get("name"))): one for server, several in offered.items() for one in several}
    away = {(server, name) for server, names in _offers(session, PROMPTS, offered).items() for name in names}
    named = name_all([*things, *sorted(away - things.keys())], prefixed=session.gateway.terms.prefixed)
    whole = {f"{server}.{name}": (server, thing) for (server, name), thing in things.items()}
    return {outside: whole[name] for outside, name in named.items() if name in whole}


async def get_prompt(
    session: GatewaySession, name: str, values: Mapping[str, str], exchange: Exchange
) -> Mapping[str, JsonValue]:
    """A prompt, filled in.

    Raises:
        InputError: There is none of that name.
        SymbiError: As `ServerReader.prompt`.
    """
    with session.turnstile.passing(dict(values)):
        server, thing = await _prompt(session, name)
        label = (await judged(session, UNDECLARED, values, {})).label
        exchange.reads(UNMARKED, label)
        ask = partial(
            reader_of(session).prompt,
            session.principal,
            server,
            str(thing["name"]),
            values,
            label=label,
            caller=exchange,
        )
        return await _asked(session, ask, exchange, values, label)


async def _prompt(session: GatewaySession, name: str) -> tuple[str, Mapping[str, Any]]:
    among = session.servers_of(name) if session.gateway.terms.prefixed else None  # of prompts alone, no name is kept
    await session.ready(among)
    found = (await prompts(session, among)).get(name)
    if found is None:
        raise InputError(f"there is no prompt `{shown_name(name)}`", code="mcp.prompt")
    return found


async def read_resource(session: GatewaySession, uri: str, exchange: Exchange) -> Things:
    """The contents of a resource.

    Raises:
        InputError: No server offers it, or more than one.
        SymbiError: As `ServerReader.read`.
    """
    with session.turnstile.passing({"uri": uri}):
        server = await home_of(session, uri)
        label = (await judged(session, UNDECLARED, {"uri": uri}, {})).label
        exchange.reads(UNMARKED, label)
        ask = partial(reader_of(session).read, session.principal, server, uri, label=label, caller=exchange)
        return await _asked(session, ask, exchange, {"uri": uri}, label)


async def home_of(session: GatewaySession, uri: str) -> str:
    """The server that a resource is on; where it was listed by one, nobody else is asked again."""
    known = session.homes.get(uri)
    await session.ready(None if known is None else (known,))
    if known in session.servers:
        return known
    listed = await browse(session, RESOURCES)
    homes = [server for server, uris in _offers(session, RESOURCES, listed).items() if uri in uris]
    if not homes:
        made = _offers(session, TEMPLATES, await browse(session, TEMPLATES))
        homes = [server for server, templates in made.items() if any(is_made_of(uri, one) for one in templates)]
        if not homes and list(listed) == _could_offer(session):
            homes = list(listed)  # there is nobody else to ask, and none that cannot be asked just now
    return _only(homes, uri)


def _only(homes: Sequence[str], uri: str) -> str:
    """The one home there is.

    Raises:
        InputError: There is none, or more than one.
    """
    if len(homes) != 1:
        why = "no server offers" if not homes else f"{len(homes)} servers offer"
        raise InputError(f"{why} the resource `{shown_name(uri)}`", code="mcp.resource")
    return homes[0]


def _could_offer(session: GatewaySession) -> list[str]:
    """The one server of which a client sees resources, as far as it was let; none where there are several."""
    catalog, seen = session.runtime.catalog, session.client.servers
    several = [
        name for name in catalog.servers if (seen is None or name in seen) and catalog.link(name).session is not None
    ]
    return several if len(several) == 1 else []


def is_made_of(uri: str, template: object) -> bool:
    """Whether a URI may be made of a template, of whatever values."""
    if not isinstance(template, str) or len(template) > MAX_TEMPLATE_CHARS:
        return False
    parts = _EXPRESSION.split(template)
    literal, operators = parts[::2], parts[1::2]
    at = 0
    if not uri.startswith(literal[0]):
        return False
    at = len(literal[0])
    for operator, following in zip(operators, literal[1:], strict=True):
        end = uri.find(following, at) if following else len(uri)
        if end < 0:
            return False
        if not operator and "/" in uri[at:end]:
            return False
        at = end + len(following)
    return at == len(uri) or (bool(literal[-1]) and uri.endswith(literal[-1]))


async def complete(
    session: GatewaySession, ref: Mapping[str, Any], argument: tuple[str, str], others: Mapping[str, str]
) -> Mapping[str, JsonValue]:
    """How an argument of a prompt or template may go on.

    Args:
        session: Whose.
        ref: The reference, in the protocol's form.
        argument: Its name, and what is written of it.
        others: The other arguments so far.

    Raises:
        InputError: There is no such prompt or template.
        SymbiError: As `ServerReader.complete`.
    """
    values = {**others, argument[0]: argument[1]}
    with session.turnstile.passing(dict(values)):
        if ref.get("type") == "ref/prompt":
            server, thing = await _prompt(session, str(ref.get("name")))
            of, name = "prompt", str(thing["name"])
        else:
            server, of, name = await _template_home(session, str(ref.get("uri"))), "resource", str(ref.get("uri"))
        label = (await judged(session, UNDECLARED, values, {})).label
        action = Complete(
            principal=session.principal,
            server=server,
            of=of,
            name=name,
            argument=argument[0],
            value=argument[1],
            others=others,
            label=label,
            timeout_s=COMPLETION_S,
        )
        try:
            offered = await reader_of(session).complete(action)
        except AgentFailed as failure:
            await _failed(session, values, failure, label)
            raise
        await _kept(session, values, list(offered.value.values), offered)
        found = offered.value
        total: dict[str, JsonValue] = {} if found.total is None else {"total": found.total}
        return {"values": list(found.values), "hasMore": found.more, **total}


async def _template_home(session: GatewaySession, template: str) -> str:
    await session.ready()
    made = _offers(session, TEMPLATES, await browse(session, TEMPLATES))
    homes = [server for server, templates in made.items() if template in templates]
    return _only(homes, template) if homes else await home_of(session, template)


async def _asked(
    session: GatewaySession,
    ask: Callable[[], Awaitable[Offered[T]]],
    exchange: Exchange,
    values: Mapping[str, JsonValue],
    label: Label,
) -> T:
    try:
        offered = await until_agreed(session, ask, exchange)
    except AgentFailed as failure:
        await _failed(session, values, failure, label)
        raise
    await _kept(session, values, _without_blobs(offered.value), offered)
    return offered.value


async def _kept(
    session: GatewaySession, values: Mapping[str, JsonValue], said: JsonValue, offered: Offered[Any]
) -> None:
    """Remember what a server answered, as confidential as what it was asked with, and as policies mark it."""
    source, mark = offered.effect_id, offered.mark
    await remembered(session, UNDECLARED, values, said, source, mark=mark, given=offered.label)


async def _failed(session: GatewaySession, values: Mapping[str, JsonValue], failure: AgentFailed, label: Label) -> None:
    """Remember a server's own words, which the client is told, likewise."""
    await remembered(session, UNDECLARED, values, failure.message, "server", mark=error_label(failure), given=label)


def _without_blobs(value: Any) -> Any:
    """An answer without what no model reads as text."""
    if isinstance(value, Mapping):
        return {key: _without_blobs(one) for key, one in value.items() if key not in {"blob", "data"}}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_without_blobs(one) for one in value]
    return value
