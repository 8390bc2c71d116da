"""What people can ask about agents at work: list, show, suspend, resume, stop. JSON in, JSON out, behind the gate."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from symbi.api.caller import Caller, Operation, principal_of
from symbi.errors import InputError, did_you_mean
from symbi.runtime.resources import amount_of
from symbi.runtime.rooms import AtWork
from symbi.runtime.runtime import Runtime
from symbi.types import AgentId, JsonValue


async def list_agents(runtime: Runtime, _caller: Caller, _arguments: Mapping[str, JsonValue]) -> JsonValue:
    """The agents at work, with how the pool stands."""
    status = await runtime.get_system_status()
    return {
        "agents": [_row(one) for one in runtime.at_work],
        "queued": {priority.value: count for priority, count in status.queued.items()},
        "free": status.free.facts(),
        "capacity": status.capacity.facts(),
    }


async def show_agent(runtime: Runtime, _caller: Caller, arguments: Mapping[str, JsonValue]) -> JsonValue:
    """One at work: its runs, what it has claimed, and who keeps it from going on.

    Raises:
        InputError: It is not at work.
    """
    agent = agent_of(arguments)
    rows: list[JsonValue] = [_row(one) for one in runtime.at_work if one.life.agent == agent]
    if not rows:
        msg = f"agent `{agent}` is not at work"
        names = [one.life.agent for one in runtime.at_work]
        raise InputError(msg, code="input.agent", hint=did_you_mean(agent, names) or None)
    seat = runtime.seat_of(agent)
    claim: JsonValue = None
    if seat is not None:
        claim = {
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
    return {"agent": agent, "runs": rows, "claim": claim}


def _row(one: AtWork) -> dict[str, JsonValue]:
    return {
        "agent": one.life.agent,
        "state": one.life.state.value,
        "run": one.life.run_id,
        "file": one.record.file,
        "started_at": one.record.started_at,
    }


async def suspend_agent(runtime: Runtime, caller: Caller, arguments: Mapping[str, JsonValue]) -> JsonValue:
    """Suspend one before its next effect."""
    agent = agent_of(arguments)
    await runtime.suspend(agent, called(runtime, caller))
    return {"agent": agent}


async def resume_agent(runtime: Runtime, _caller: Caller, arguments: Mapping[str, JsonValue]) -> JsonValue:
    """Let one that was suspended so go on."""
    agent = agent_of(arguments)
    runtime.let_go_on(agent)
    return {"agent": agent}


async def stop_agents(runtime: Runtime, caller: Caller, arguments: Mapping[str, JsonValue]) -> JsonValue:
    """Stop one, or all with `all`; answers once their runs are over."""
    everybody = arguments.get("all") is True
    agents = None if everybody else (agent_of(arguments),)
    return {"runs": list(await runtime.stop(agents, called(runtime, caller)))}


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
    }
)
"""Operations by name."""
