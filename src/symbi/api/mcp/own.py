"""The runtime's own tools: run an agent, ask how its run stands, why a call was denied, and search knowledge.

Running an agent is a message to it that expects an answer (`SendMessage`); the others are operations that a client asks
of the runtime (`ControlRuntime` on `Resource::"gateway.…"`). Each passes the gate with the client as principal. A run
that a client asked for is the agent's own, under the agent's own policies, with inputs labelled as the session knows
them; it ends when the client goes away.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import anyio

from symbi.agent.journal import RunState
from symbi.agent.run import RunOutcome, check_inputs
from symbi.agent.task import Task
from symbi.api.mcp.answers import Refusal, refusal_of
from symbi.api.mcp.calls import Exchange, ToolAnswer, ToolCall, explained, judged, noted, remembered, until_agreed
from symbi.api.mcp.gateway import GatewaySession
from symbi.api.mcp.names import OWN, PARTED
from symbi.dsl.spec import AgentSpec, CompiledFile
from symbi.errors import InputError, Overloaded, PolicyDenied, SymbiError
from symbi.guard.action import SendMessage
from symbi.guard.actions.people import ControlRuntime
from symbi.guard.outcome import error_label
from symbi.policy.fields import UNDECLARED
from symbi.policy.flow import join
from symbi.runtime.course import Order
from symbi.types import AgentId, JsonValue, Label, RunId

WAIT_S: Final = 60.0  # for a run, where a client does not say
MAX_WAIT_S: Final = 3600.0
MAX_RUNS: Final = 64  # of one session that are remembered; the oldest that are over are forgotten
RETRY_AFTER_S: Final = 5.0  # when too many runs are at work
MAX_FOUND: Final = 50  # passages of one search
NO_UID: Final = -1  # of a client of which no operating-system user is known

_TEXT: Final[dict[str, JsonValue]] = {"type": "string"}


@dataclass(slots=True)
class AskedRun:
    """A run that a client asked for."""

    run_id: RunId
    agent: AgentId
    over: anyio.Event = field(default_factory=anyio.Event)
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    outcome: RunOutcome | None = None
    error: SymbiError | None = None


def _schema(required: list[str], **properties: JsonValue) -> dict[str, JsonValue]:
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


_DESCRIBED: Final[Mapping[str, dict[str, JsonValue]]] = {
    "list_agents": {
        "title": "List agents",
        "description": "The agents that can be run here, with the names and types of their inputs.",
        "inputSchema": _schema([]),
        "annotations": {"readOnlyHint": True},
    },
    "run_agent": {
        "title": "Run an agent",
        "description": "Runs an agent on inputs, under its own policies, and answers with its result; or, after `wait_s` "
        "seconds, with the id of its run, for `run_status`.",
        "inputSchema": _schema(
            ["agent"],
            agent=_TEXT,
            inputs={"type": "object", "description": "the agent's inputs by name"},
            wait_s={"type": "number", "minimum": 0, "maximum": MAX_WAIT_S},
        ),
    },
    "run_status": {
        "title": "Status of a run",
        "description": "How a run stands that this session asked for, and its result once it has one.",
        "inputSchema": _schema(["run_id"], run_id=_TEXT),
        "annotations": {"readOnlyHint": True},
    },
    "explain_decision": {
        "title": "Explain a decision",
        "description": "Why a call of this client was denied or held: give the id that the answer named.",
        "inputSchema": _schema(["decision"], decision=_TEXT),
        "annotations": {"readOnlyHint": True},
    },
    "search_knowledge": {
        "title": "Search knowledge",
        "description": "Passages of the knowledge base that fit a question, with where each stands.",
        "inputSchema": _schema(["query"], query=_TEXT, limit={"type": "integer", "minimum": 1, "maximum": MAX_FOUND}),
        "annotations": {"readOnlyHint": True},
    },
}


def own_names(*, searches: bool) -> frozenset[str]:
    """The names of the tools that there are.

    Args:
        searches: There is a knowledge base.
    """
    return frozenset(f"{OWN}{PARTED}{name}" for name in _DESCRIBED if searches or name != "search_knowledge")


def described(session: GatewaySession) -> list[dict[str, Any]]:
    """The tools as clients see them."""
    names = session.gateway.own_names
    every = [{"name": f"{OWN}{PARTED}{name}", **told} for name, told in _DESCRIBED.items()]
    return [one for one in every if one["name"] in names]


async def call_own(session: GatewaySession, call: ToolCall, exchange: Exchange) -> ToolAnswer | Refusal:
    """Carry out one of them, or say why not."""
    name = call.name.removeprefix(f"{OWN}{PARTED}")
    work = _WORK[name]
    try:
        with session.turnstile.passing(call.arguments):
            _check(name, call.arguments)
            return await work(session, call, exchange)
    except SymbiError as error:
        return await explained(session, call.name, error)


def _check(name: str, arguments: Mapping[str, JsonValue]) -> None:
    """Raise InputError if arguments are not of the types that the schema says."""
    schema: Any = _DESCRIBED[name]["inputSchema"]
    properties: Mapping[str, Any] = schema["properties"]
    for argument, value in arguments.items():
        if argument not in properties:
            raise InputError(f"it takes no `{argument[:64]}`", code="schema.unknown")
        fits = {
            "string": isinstance(value, str),
            "object": isinstance(value, Mapping),
            "number": isinstance(value, int | float) and not isinstance(value, bool),
            "integer": isinstance(value, int) and not isinstance(value, bool),
        }[properties[argument]["type"]]
        if not fits:
            raise InputError(f"`{argument}` must be of type {properties[argument]['type']}", code="schema.type")
        least, most = properties[argument].get("minimum"), properties[argument].get("maximum")
        if (least is not None and value < least) or (most is not None and value > most):
            raise InputError(f"`{argument}` must be from {least} to {most}", code="schema.range")
    for argument in schema["required"]:
        if argument not in arguments:
            raise InputError(f"it needs `{argument}`", code="schema.required")


# --- operations -----------------------------------------------------------------------------------


async def _operated(
    session: GatewaySession, operation: str, call: ToolCall, work: Callable[[], Awaitable[JsonValue]]
) -> ToolAnswer:
    """An operation, through the gate."""
    action = ControlRuntime(
        principal=session.principal,
        operation=f"gateway.{operation}",
        uid=NO_UID if session.uid is None else session.uid,
        values=call.arguments,
        session=session.id,
        waits=session.waits,
    )
    try:
        guard = session.runtime.guard
        async with guard.enforce(action) as permit:
            guard.authority.redeem(permit, ControlRuntime)
            value = await work()
            return ToolAnswer(value, structured=True, effect_id=permit.effect_id)
    except PolicyDenied as denial:
        await noted(session, action, denial)
        raise


async def _list_agents(session: GatewaySession, call: ToolCall, _exchange: Exchange) -> ToolAnswer:
    async def work() -> JsonValue:
        return {
            "agents": [
                {"agent": spec.id, "inputs": {one.name: one.type.name for one in spec.parameters}}
                for _, spec in _agents(session)
            ]
        }

    return await _operated(session, "agents", call, work)


async def _run_status(session: GatewaySession, call: ToolCall, _exchange: Exchange) -> ToolAnswer:
    async def work() -> JsonValue:
        asked: AskedRun | None = session.runs.get(str(call.arguments["run_id"]))
        if asked is None:
            raise InputError("this session has asked for no such run", code="mcp.run")
        return _standing(session, asked)

    answer = await _operated(session, "status", call, work)
    await _remember_run(session, session.runs[str(call.arguments["run_id"])])
    return answer


async def _explain(session: GatewaySession, call: ToolCall, _exchange: Exchange) -> ToolAnswer:
    async def work() -> JsonValue:
        told = session.gateway.refusals.get(str(call.arguments["decision"]))
        if told is None or told[0] != session.client.name:
            msg = "no call of this client was refused under that id since the gateway started"
            raise InputError(msg, code="mcp.decision")
        return {"text": told[1].text, "code": told[1].code, "kind": told[1].kind, **told[1].facts}

    return await _operated(session, "explain", call, work)


async def _search(session: GatewaySession, call: ToolCall, _exchange: Exchange) -> ToolAnswer:
    search, limit = session.gateway.search, call.arguments.get("limit", 10)
    assert search is not None, "it is offered only where there is one"
    assert isinstance(limit, int)
    query, label = str(call.arguments["query"]), (await judged(session, UNDECLARED, call.arguments, call.meta)).label
    marks: list[Label] = []

    async def work() -> JsonValue:
        found, mark = await search(session.principal, query, label, limit)
        marks.append(mark)
        return found

    answer = await _operated(session, "search", call, work)
    await remembered(session, UNDECLARED, call.arguments, answer.value, answer.effect_id, mark=marks[0])
    return answer


# --- runs -----------------------------------------------------------------------------------------


def _agents(session: GatewaySession) -> list[tuple[CompiledFile, AgentSpec]]:
    return [(one, spec) for one in session.gateway.files for spec in one.agents if spec.body is not None]


def _found(session: GatewaySession, name: str) -> tuple[CompiledFile, AgentSpec]:
    for compiled, spec in _agents(session):
        if spec.id == name:
            return compiled, spec
    raise InputError(f"there is no agent `{name[:64]}` to be run", code="mcp.agent")


async def _run_agent(session: GatewaySession, call: ToolCall, exchange: Exchange) -> ToolAnswer:
    compiled, spec = _found(session, str(call.arguments["agent"]))
    inputs, wait_s = call.arguments.get("inputs", {}), call.arguments.get("wait_s", WAIT_S)
    assert isinstance(inputs, Mapping)
    assert isinstance(wait_s, int | float)
    check_inputs(spec, inputs)
    _check_room(session, spec)
    found = await judged(session, UNDECLARED, inputs, call.meta)
    run_id = RunId(session.runtime.rooms.ids.new())
    order = Order(compiled, spec, run_id)
    action = SendMessage(
        principal=session.principal,
        to=session.runtime.post.addresses.principal(order, session.principal),
        body=inputs,
        expects_reply=True,
        label=found.label,
        session=session.id,
        waits=session.waits,
    )
    asked = AskedRun(run_id, order.name)

    async def begin() -> str:
        guard = session.runtime.guard
        try:
            async with guard.enforce(action) as permit:
                guard.authority.redeem(permit, SendMessage)
                _keep(session, asked)
                session.tasks.start_soon(_run, session, asked, order, partial(_begun, inputs, found.labels))
                permit.observe({"run": run_id})
                return permit.effect_id
        except PolicyDenied as denial:
            await noted(session, action, denial)
            raise

    try:
        effect_id = await until_agreed(session, begin, exchange)
        with anyio.move_on_after(wait_s):
            await asked.over.wait()
    except BaseException:  # nobody was told its id, and it may have begun
        await session.stop_runs(asked)
        asked.scope.cancel("whoever asked for it has gone")  # before it is at work there is nothing to stop
        raise
    await _remember_run(session, asked)
    return ToolAnswer(_standing(session, asked), structured=True, effect_id=effect_id, is_error=_failed(asked))


def _check_room(session: GatewaySession, spec: AgentSpec) -> None:
    """Raise InputError for an agent that is no one-run agent, and Overloaded where a session has too many runs open."""
    if session.runtime.rooms.terms(spec.id).persistent:
        msg = f"agent `{spec.id}` stays, and is sent messages by its operator alone"
        raise InputError(msg, code="mcp.stays")
    at_work = sum(not one.over.is_set() for one in session.runs.values())
    if at_work >= session.gateway.terms.bounds.calls:
        msg = f"{at_work} runs of this session are at work"
        raise Overloaded(msg, retry_after_s=RETRY_AFTER_S, code="mcp.runs")


def _begun(inputs: Mapping[str, JsonValue], labels: Mapping[str, Label]) -> tuple[Mapping[str, JsonValue], Task]:
    """What a run begins with: inputs labelled as they were found, without where a session read them."""
    raised = {
        name: Label(one.integrity, one.confidentiality, (), one.categories, one.subjects)
        for name, one in labels.items()
    }
    return inputs, Task(labels=raised)


async def _run(
    session: GatewaySession,
    asked: AskedRun,
    order: Order,
    begun: Callable[[], tuple[Mapping[str, JsonValue], Task]],
) -> None:
    inputs, task = begun()
    try:
        with asked.scope:
            asked.outcome = await session.runtime.run(
                order.compiled, order.spec, inputs, task, run_id=asked.run_id, instance=order.instance
            )
    except SymbiError as error:
        asked.error = error
    finally:
        asked.over.set()


def _keep(session: GatewaySession, asked: AskedRun) -> None:
    done = [run_id for run_id, one in session.runs.items() if one.over.is_set()]
    for run_id in done[: max(0, len(session.runs) - MAX_RUNS + 1)]:
        del session.runs[run_id]
    session.runs[asked.run_id] = asked


def _standing(session: GatewaySession, asked: AskedRun) -> dict[str, JsonValue]:
    """A run as its client sees it."""
    said: dict[str, JsonValue] = {"run_id": asked.run_id, "agent": asked.agent.partition("/")[0]}
    if not asked.over.is_set():
        return {**said, "state": RunState.RUNNING.value}
    outcome, error = asked.outcome, asked.error
    if outcome is not None and outcome.error is None:
        return {**said, "state": outcome.state.value, "output": outcome.output}
    failure = error or (outcome.error if outcome is not None else None)
    state = RunState.FAILED if outcome is None else outcome.state
    if failure is None:
        return {**said, "state": state.value}
    told = refusal_of(f"the run of {said['agent']}", failure, session.runtime.guard.engine.current)
    return {**said, "state": state.value, "error": {"code": told.code, "text": told.text}}


def _failed(asked: AskedRun) -> bool:
    return asked.error is not None or (asked.outcome is not None and asked.outcome.error is not None)


async def _remember_run(session: GatewaySession, asked: AskedRun) -> None:
    outcome = asked.outcome
    mark = (outcome.label if outcome is not None else None) or Label()
    if outcome is not None and outcome.error is None:
        await remembered(session, UNDECLARED, {}, outcome.output, asked.run_id, mark=mark)
    elif asked.over.is_set():
        said, failure = _standing(session, asked).get("error"), asked.error
        mark = mark if failure is None else join(mark, error_label(failure))
        await remembered(session, UNDECLARED, {}, said, asked.run_id, mark=mark)


_WORK: Final[Mapping[str, Callable[[GatewaySession, ToolCall, Exchange], Awaitable[ToolAnswer]]]] = {
    "list_agents": _list_agents,
    "run_agent": _run_agent,
    "run_status": _run_status,
    "explain_decision": _explain,
    "search_knowledge": _search,
}

__all__ = ["call_own", "described", "own_names"]
