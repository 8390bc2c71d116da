"""What people can ask about agents: list, show, suspend, resume, stop, spawn, send. JSON in, JSON out, behind the gate."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from symbi.agent.task import Task, parse_labels, parse_subjects
from symbi.agent.texts import read_texts
from symbi.api.caller import Caller, Discreet, Operation, principal_of
from symbi.errors import InputError
from symbi.runtime.course import Order
from symbi.runtime.intake import When
from symbi.runtime.lifecycle import AgentState
from symbi.runtime.living import MAX_SPAWNED
from symbi.runtime.population import Population
from symbi.runtime.resources import amount_of
from symbi.runtime.rests import Rest
from symbi.runtime.rooms import AtWork
from symbi.runtime.roster import AgentRecord
from symbi.runtime.runtime import Runtime
from symbi.types import AgentId, JsonValue

DEFAULT_PAGE: Final = 100  # agents that stay, of a list
MAX_NAME_CHARS: Final = 200  # of an agent's name, in the record of an operation
SPAWN_TIMEOUT_S: Final = 600.0  # for a million of them
SEND_TIMEOUT_S: Final = 30.0


async def list_agents(runtime: Runtime, _caller: Caller, arguments: Mapping[str, JsonValue]) -> JsonValue:
    """The agents at work, with how the pool stands, and a page of those that stay: of one state, or of all.

    Raises:
        InputError: There is no such state, or the page is too long.
    """
    status = await runtime.get_system_status()
    state, after, limit = _state(arguments), arguments.get("after", ""), arguments.get("limit", DEFAULT_PAGE)
    if not isinstance(after, str) or not isinstance(limit, int) or isinstance(limit, bool):
        msg = "the operation takes `after`, a text, and `limit`, a whole number"
        raise InputError(msg, code="control.argument")
    page = await Population(runtime).page(state, after, limit)
    return {
        "agents": [*(_row(one) for one in runtime.at_work), *(_resting(rest) for rest in runtime.rests.all)],
        "queued": {priority.value: count for priority, count in status.queued.items()},
        "free": status.free.facts(),
        "capacity": status.capacity.facts(),
        "persistent": [_record(one) for one in page],
        "next": page[-1].agent_id if len(page) == limit else None,
        "states": {one.value: count for one, count in sorted(runtime.roster.counts.items()) if count},
        "in_memory": runtime.roster.living,
        "halted_by": runtime.roster.halted,
    }


def _state(arguments: Mapping[str, JsonValue]) -> AgentState | None:
    value = arguments.get("state")
    if value is None:
        return None
    states = {one.value.casefold(): one for one in AgentState}
    if not isinstance(value, str) or value.casefold() not in states:
        msg = f"no agent is ever `{str(value)[:64]}`"
        raise InputError(msg, code="input.value", hint=", ".join(one.value for one in AgentState))
    return states[value.casefold()]


def _record(record: AgentRecord) -> dict[str, JsonValue]:
    return {
        "agent": record.agent_id,
        "state": record.state.value,
        "reason": record.reason,
        "file": record.file,
        "parent": record.parent,
        "created_at": record.created_at,
        "changed_at": record.changed_at,
        "moves": record.revision,
    }


async def show_agent(runtime: Runtime, _caller: Caller, arguments: Mapping[str, JsonValue]) -> JsonValue:
    """One at work: its runs, what it has claimed, and who keeps it from going on; one that stays: how it stands, and its mailbox.

    Raises:
        InputError: It is neither at work nor there.
    """
    agent = agent_of(arguments)
    population = Population(runtime)
    rows: list[JsonValue] = [_row(one) for one in runtime.at_work if one.life.agent == agent]
    rows += [_resting(rest) for rest in runtime.rests.of(agent)]
    standing = await population.standing(agent)
    if not rows and standing is None:
        raise population.unknown(agent)
    kept: JsonValue = None
    if standing is not None:
        first = standing.first
        kept = {
            **_record(standing.record),
            "messages": standing.messages,
            "first": None if first is None else {"message": first.message_id, "begun": first.attempts},
            "runnable": standing.record.declared in runtime.roster.kinds,
        }
    used = runtime.measuring.book.of_agent(agent).facts()
    return {"agent": agent, "runs": rows, "claim": _claim(runtime, agent), "persistent": kept, "used": used}


def _claim(runtime: Runtime, agent: AgentId) -> JsonValue:
    """What an agent at work has claimed, and who keeps it from going on."""
    seat = runtime.seat_of(agent)
    if seat is None:
        return None
    return {
        **amount_of(seat.config.limits).facts(),
        "priority": seat.config.priority.value,
        "owner": seat.config.owner,
        "batch": seat.config.batch,
        "held": seat.holds,
        "waits": seat.waits,
        "waits_for_people": seat.waits_for_others,
        "suspended_by": seat.stopped_by,
        "told_to_stop_for": None if seat.told is None else seat.told.for_task,
    }


def _row(one: AtWork) -> dict[str, JsonValue]:
    return {
        "agent": one.life.agent,
        "state": one.life.state.value,
        "run": one.life.run_id,
        "file": one.record.file,
        "started_at": one.record.started_at,
    }


def _resting(rest: Rest) -> dict[str, JsonValue]:
    return {
        "agent": rest.agent,
        "state": rest.state.value,
        "run": rest.run_id,
        "file": rest.file,
        "started_at": rest.since,
        "reason": rest.error.code,
        "suspended_by": rest.suspended_by or None,
    }


async def suspend_agent(runtime: Runtime, caller: Caller, arguments: Mapping[str, JsonValue]) -> JsonValue:
    """Suspend one before its next effect, or at once where it waits."""
    agent = agent_of(arguments)
    await Population(runtime).suspend(agent, called(runtime, caller))
    return {"agent": agent}


async def resume_agent(runtime: Runtime, caller: Caller, arguments: Mapping[str, JsonValue]) -> JsonValue:
    """Let one go on that was suspended; or, with `all`, let things begin again after all were stopped."""
    population = Population(runtime)
    if arguments.get("all") is True:
        await population.go_on()
        return {"agent": None}
    agent = agent_of(arguments)
    await population.resume(agent, called(runtime, caller))
    return {"agent": agent}


async def stop_agents(runtime: Runtime, caller: Caller, arguments: Mapping[str, JsonValue]) -> JsonValue:
    """Stop one for good, or, with `all`, everything; answers once what was at work is over."""
    population, by = Population(runtime), called(runtime, caller)
    if arguments.get("all") is True:
        return {"runs": list(await population.stop_all(by))}
    return {"runs": list(await population.stop(agent_of(arguments), by))}


# --- agents that stay -------------------------------------------------------------------------------


async def spawn_agents(runtime: Runtime, _caller: Caller, arguments: Mapping[str, JsonValue]) -> JsonValue:
    """Make an agent that stays, as it is declared or as an instance of that; or, with `count`, that many instances.

    Raises:
        InputError: It is there, or is not declared to stay.
        Denied: Policy does not let it be created.
    """
    declared, _, instance = agent_of(arguments).partition("/")
    kind, count = runtime.roster.kind_of(AgentId(declared)), arguments.get("count")
    instances: Sequence[str] = (instance,)
    if count is not None:
        if not isinstance(count, int) or isinstance(count, bool) or instance or not 0 < count <= MAX_SPAWNED:
            msg = f"`count` is a whole number up to {MAX_SPAWNED}, and instances are numbered"
            raise InputError(msg, code="control.argument")
        instances = await runtime.roster.numbered(kind, count)
    names = await runtime.spawn(Order(kind.compiled, kind.spec), instances)
    return {"count": len(names), "first": names[0], "last": names[-1]}


async def send_message(runtime: Runtime, caller: Caller, arguments: Mapping[str, JsonValue]) -> JsonValue:
    """Put a message into an agent's mailbox; answers with its id, which its run will have.

    Raises:
        InputError: There is no such agent, it takes no messages, or the inputs do not fit it.
        Overloaded: Its mailbox is full, or the runtime is shutting down.
    """
    agent = agent_of(arguments)
    await runtime.roster.find(agent)
    spec = runtime.roster.kind_of(agent).spec
    inputs, texts = arguments.get("inputs", {}), arguments.get("texts", {})
    labels, subjects = _texts(arguments, "labels"), _texts(arguments, "subjects")
    if not isinstance(inputs, Mapping) or not isinstance(texts, Mapping):
        raise InputError("`inputs` and `texts` are objects", code="control.argument")
    read = read_texts({name: str(text) for name, text in texts.items()}, spec)
    when = When(_seconds(arguments, "after_s") or 0.0, _seconds(arguments, "expires_s"))
    task = Task(None, parse_labels(labels), parse_subjects(subjects))
    message_id = await runtime.send(agent, {**inputs, **read}, task, sender=called(runtime, caller), when=when)
    return {"agent": agent, "message": message_id}


def _texts(arguments: Mapping[str, JsonValue], name: str) -> list[str]:
    value = arguments.get(name, ())
    if isinstance(value, str) or not isinstance(value, Sequence) or not all(isinstance(one, str) for one in value):
        msg = f"`{name}` is a list of texts"
        raise InputError(msg, code="control.argument")
    return [str(one) for one in value]


def _seconds(arguments: Mapping[str, JsonValue], name: str) -> float | None:
    value = arguments.get(name)
    if value is not None and (not isinstance(value, int | float) or isinstance(value, bool)):
        msg = f"`{name}` is a number of seconds"
        raise InputError(msg, code="control.argument")
    return value


def shown_message(_runtime: Runtime, arguments: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
    """What the record of a message shows: for whom it is, and the names of its inputs; what they say, its run tells."""
    names: list[JsonValue] = []
    for part in ("inputs", "texts"):
        given = arguments.get(part, {})
        if isinstance(given, Mapping):
            names += [str(name)[:64] for name in list(given)[:64]]
    return {"agent": agent_of(arguments)[:MAX_NAME_CHARS], "inputs": names}


def shown_spawn(_runtime: Runtime, arguments: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
    """What the record of it shows: what was asked."""
    return {"agent": agent_of(arguments)[:MAX_NAME_CHARS], "count": arguments.get("count")}


def called(runtime: Runtime, caller: Caller) -> str:
    """Who asks, as the trail names them: the registered person, or the operating-system user."""
    owner = principal_of(runtime, caller).owner
    return f"user {caller.uid}" if owner == "unknown" else owner


def agent_of(arguments: Mapping[str, JsonValue]) -> AgentId:
    """The agent that an operation is about.

    Raises:
        InputError: It is missing, or no text.
    """
    value = arguments.get("agent")
    if not isinstance(value, str) or not value:
        msg = "the operation needs `agent`, a text"
        raise InputError(msg, code="control.argument")
    return AgentId(value)


OPERATIONS: Final[Mapping[str, Operation]] = MappingProxyType(
    {
        "agents.list": list_agents,
        "agents.show": show_agent,
        "agents.suspend": suspend_agent,
        "agents.resume": resume_agent,
        "agents.stop": stop_agents,
        "agents.spawn": Discreet(spawn_agents, shown_spawn, SPAWN_TIMEOUT_S),
        "agents.send": Discreet(send_message, shown_message, SEND_TIMEOUT_S),
    }
)
"""Operations by name."""
