"""One run of one agent: its record in the journal, its body in the interpreter, its end in the trail."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

import anyio

from symbi.agent.again import held_at
from symbi.agent.containers import CodeLimits
from symbi.agent.effects import RunEffects, World
from symbi.agent.interpreter import BodyLimits, Interpreter
from symbi.agent.journal import RunRecord, RunState, RunStore
from symbi.agent.meter import UNMETERED, Meter, metered
from symbi.agent.pieces import data_of, in_pieces, label_of, made
from symbi.agent.remedies import Remedy, remedy_for
from symbi.agent.sealing import sealed_run
from symbi.agent.task import TASK_LABEL, Task, kept_task, label_json
from symbi.agent.turn import ALWAYS, RunClock, Turn
from symbi.agent.values import Value, from_json, to_json
from symbi.audit.event import AuditEventType, Draft
from symbi.audit.log import Enlisted, Work
from symbi.clock import rfc3339
from symbi.dsl import ast
from symbi.dsl.spec import AgentSpec
from symbi.errors import (
    InputError,
    InternalError,
    OutputLimit,
    ScriptFailed,
    StoreUnavailable,
    SymbiError,
    TimeLimit,
    did_you_mean,
)
from symbi.guard.confidential import confided, keys_for
from symbi.guard.ledger import EffectRecord
from symbi.guard.outcome import encode_error, encode_result, error_label
from symbi.policy.flow import join
from symbi.types import JsonValue, Label, Principal, RunId


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """How a run ended.

    Attributes:
        run_id: The run.
        state: finished, failed or held.
        output: Its value, as JSON, if it finished.
        error: What ended it otherwise.
        effects: Effects that the body asked for.
        replayed: Of these, those that were on record from before a restart.
        label: Join of all that went into the value.
    """

    run_id: RunId
    state: RunState
    output: JsonValue = None
    error: SymbiError | None = None
    effects: int = 0
    replayed: int = 0
    label: Label | None = None


@dataclass(frozen=True, slots=True)
class Bounds:
    """Bounds of a run: of its body, of its code, and of its value in bytes of JSON."""

    body: BodyLimits
    code: CodeLimits
    output_bytes: int


Also: TypeAlias = Callable[[], Sequence[Draft]]
"""What else is written with the end of a run, in its transaction and on the store's thread; returns its events."""


def nothing_else(_outcome: RunOutcome) -> Also:
    """The default of `RunPlan.closing`: nothing."""
    return tuple


SUSPENDED: Final = "suspended"
"""The field of an error that a run is held for, where its agent is suspended and goes on from there."""

FINAL: Final = "final"
"""The field of an error that a restart would meet again: its effect was answered, and must not be repeated."""

Ends: TypeAlias = Callable[[SymbiError], RunState]
"""What becomes of a run that an error has ended: held, so that it can go on, or failed."""


def by_remedy(error: SymbiError) -> RunState:
    """Held where something can be cleared, given, or come back; failed where the same would end the same way."""
    return RunState.HELD if remedy_for(type(error)) in {Remedy.SUSPEND, Remedy.RETRY} else RunState.FAILED


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What a run needs to start or to go on.

    Attributes:
        spec: The agent.
        principal: On whose behalf.
        record: Its journal record, in state running; with the error that it was held for, where it goes on after that.
        bounds: Its bounds.
        recorded: Effects on record from before a restart, open.
        turn: Whether it may go on.
        ends: What becomes of it where an error ends it.
        closing: Told how it ended, says what else is written with that.
        meter: Takes what it uses.
    """

    spec: AgentSpec
    principal: Principal
    record: RunRecord
    bounds: Bounds
    recorded: Sequence[EffectRecord] = ()
    turn: Turn = ALWAYS
    ends: Ends = by_remedy
    closing: Callable[[RunOutcome], Also] = nothing_else
    meter: Meter = UNMETERED

    @property
    def task(self) -> Task:
        """What is said of the run besides its inputs.

        Raises:
            StoreUnavailable: It is not of the form in which it was kept.
        """
        return kept_task(self.record.grant, self.record.labels)


def check_inputs(spec: AgentSpec, inputs: Mapping[str, JsonValue]) -> None:
    """Inputs against the agent's parameters.

    Raises:
        InputError: One is missing, unknown or of another type; the message lists what the agent takes.
    """
    takes = ", ".join(f"{p.name}: {p.type.name}" for p in spec.parameters) or "nothing"
    names = [p.name for p in spec.parameters]
    for name in inputs:
        if name not in names:
            hint = did_you_mean(name, names) or f"it takes {takes}"
            msg = f"agent `{spec.id}` has no input `{name}`"
            raise InputError(msg, code="input.unknown", hint=hint)
    for parameter in spec.parameters:
        optional = parameter.type.name == "Optional"
        if parameter.name not in inputs and not optional:
            msg = f"agent `{spec.id}` needs the input `{parameter.name}`"
            raise InputError(msg, code="input.missing", hint=f"it takes {takes}; give `--input {parameter.name}=…`")
        if parameter.name in inputs and not fits(inputs[parameter.name], parameter.type):
            msg = f"input `{parameter.name}` of agent `{spec.id}` must be {parameter.type.name}"
            raise InputError(msg, code="input.type", hint=f"it takes {takes}")
    for name, value in inputs.items():
        try:
            from_json(value, TASK_LABEL)
        except (OutputLimit, ScriptFailed) as refusal:
            msg = f"input `{name}` of agent `{spec.id}` cannot be taken: {refusal.message}"
            raise InputError(msg, code="input.value") from None


def fits(value: JsonValue, kind: ast.TypeRef) -> bool:
    """Whether a JSON value is of a built-in or generic type; declared types and `Any` take everything."""
    match kind.name:
        case "String":
            return isinstance(value, str)
        case "bool":
            return isinstance(value, bool)
        case "int":
            return isinstance(value, int) and not isinstance(value, bool)
        case "float":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "List" | "Array" | "Set":
            return isinstance(value, list | tuple) and all(fits(item, kind.arguments[0]) for item in value)
        case "Map":
            return isinstance(value, Mapping) and all(fits(item, kind.arguments[1]) for item in value.values())
        case "Optional":
            return value is None or fits(value, kind.arguments[0])
        case _:
            return True


async def execute(plan: RunPlan, world: World, runs: RunStore, later: list[Enlisted[None]] | None = None) -> RunOutcome:
    """Run a body to its end and record how it ended; with `later`, by the next commit, for which the caller waits.

    A run that is cancelled, or whose trail fails, is left `running`: it can be resumed.

    Raises:
        StoreUnavailable: The store cannot be used; nothing more happened.
        InternalError: A defect of ours; the run is left as it was.
    """
    spec, record = plan.spec, plan.record
    if world.memory is not None:
        world.memory.declare(spec.id, spec.memory)
    task = plan.task
    code, recorded, held = plan.bounds.code, plan.recorded, held_at(record.error)
    effects = RunEffects(world, plan.principal, record.run_id, spec.file, code, recorded, task.grant, held)
    effects.clock = RunClock(plan.turn)
    effects.meter = plan.meter
    interpreter = Interpreter(spec.file, spec.functions, effects, plan.bounds.body, plan.meter.check)
    inputs: dict[str, JsonValue] = json.loads(record.inputs)
    variables = {p.name: await in_pieces(made(inputs.get(p.name), task.label(p.name))) for p in spec.parameters}
    output: JsonValue = None
    label: Label | None = None
    failure: SymbiError | None = None
    if spec.body is None:
        msg = f"agent `{spec.id}` has nothing to run: give it a `with` block or a function `main`"
        raise InputError(msg, code="input.no_body")
    try:
        with anyio.move_on_after(spec.limits.execution_timeout) as scope:
            effects.clock.scope = scope
            plan.meter.check()
            value = await metered(interpreter.run(spec.body, variables), plan.meter)
            output = await _output(value, spec, plan.bounds.output_bytes)
            label = await label_of(value)
        if scope.cancelled_caught:
            msg = f"the run took longer than {spec.limits.execution_timeout:g} s"
            failure = TimeLimit(msg, hint="raise `timeout` in the `with` attributes")
    except (StoreUnavailable, InternalError):
        raise
    except SymbiError as error:
        failure = error
    if failure is not None and failure is effects.told:
        failure.fields["position"] = effects.count - 1
        if remedy_for(type(failure)) is Remedy.RESTART and await effects.is_final():
            failure.fields[FINAL] = True
    state = RunState.FINISHED if failure is None else plan.ends(failure)
    if failure is not None and state is RunState.HELD and remedy_for(type(failure)) is not Remedy.RESTART:
        failure.fields[SUSPENDED] = True
    ended = replace(
        record,
        state=state,
        output=None if failure is not None else encode_result(output),
        error=None if failure is None else encode_error(failure),
        finished_at=rfc3339(world.clock.now_ns()),
    )
    outcome = RunOutcome(record.run_id, state, output, failure, effects.count, effects.replayed, label)
    # An error may quote whatever the body has seen, and what its last effect was about.
    about = label if failure is None else join(interpreter.seen, error_label(failure))
    unit = await _end_of(plan, world, runs, ended, outcome, about)
    world.guard.probe("run_ending")
    if later is None:
        await world.log.transact(unit, wait=True)
    else:
        later.append(await world.log.enlist(unit, wait=True))
    world.guard.probe("run_ended")
    return outcome


async def _end_of(
    plan: RunPlan, world: World, runs: RunStore, ended: RunRecord, outcome: RunOutcome, about: Label | None
) -> Work[None]:
    """The unit of work that writes the end of a run, and what is written with it; `about` joins all that it may quote."""
    if about is not None and replace(about, sources=()) != Label():
        ended = replace(ended, answer=encode_result(label_json(about)))
    subjects = () if about is None else about.subjects
    keys = await keys_for(world.guard.vault, plan.spec.id, subjects, wait=True)
    kept, draft = sealed_run(ended, keys), confided(_finished(ended, outcome), keys)
    also = plan.closing(outcome)
    if world.memory is not None:
        world.memory.ended(plan.spec.id)

    def end() -> tuple[None, tuple[Draft, ...]]:
        runs.move_run(kept, RunState.RUNNING)
        return None, (draft, *also())

    return end


async def _output(value: Value, spec: AgentSpec, most_bytes: int) -> JsonValue:
    span = spec.body.span if spec.body is not None else ast.NOWHERE
    try:
        output = await in_pieces(data_of(value, lambda part: to_json(part, span, spec.file)))
    except ScriptFailed as failure:
        failure.hint = "the value of a run must be data"
        raise
    except RecursionError:
        msg = "the value of the run nests too deeply"
        raise OutputLimit(msg, place=span.place(spec.file)) from None
    size = len(encode_result(output))
    if size > most_bytes:
        msg = f"the value of the run has {size} bytes; {most_bytes} are allowed"
        raise OutputLimit(msg, place=span.place(spec.file), hint="raise `limits.output_bytes`, or return less")
    return output


def _finished(record: RunRecord, outcome: RunOutcome) -> Draft:
    details: dict[str, JsonValue] = {
        "state": record.state.value,
        "effects": outcome.effects,
        "replayed": outcome.replayed,
    }
    if outcome.error is not None:
        details |= {"error": outcome.error.code, "message": str(outcome.error)}
    return Draft(AuditEventType.RUN_FINISHED, record.agent_id, details, record.run_id)
