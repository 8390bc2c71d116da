"""Carries runs out, from wherever they stand to their end, by the table of errors.

| remedy    | what is done                                                                                            |
|-----------|---------------------------------------------------------------------------------------------------------|
| retry     | the run is held and goes on after a wait, asking for what failed once more                              |
| restart   | likewise, and its agent is made anew                                                                    |
| suspend   | the run is held and its agent suspended, until policy is changed, an operator says so, or it is stopped |
| terminate | the run has failed                                                                                      |

How often a run has failed in a row without getting further, and since when, is kept with the error that it is held for:
a crash of the process begins no new count. Where that is too often the agent has failed, the trail says of which error,
how often and since when, and the run becomes a dead letter. A defect that one run meets ends no other.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from symbi.agent.again import UNDECIDED
from symbi.agent.journal import RunRecord, RunState, absolute
from symbi.agent.remedies import Remedy
from symbi.agent.run import RunOutcome
from symbi.agent.sealing import opened_run
from symbi.agent.task import NO_TASK, Task
from symbi.clock import rfc3339
from symbi.dsl.spec import AgentSpec, CompiledFile
from symbi.errors import AgentFailed, Denied, EffectInDoubt, InternalError, StoreUnavailable, SymbiError
from symbi.guard.outcome import decode_error
from symbi.guard.records import may_repeat
from symbi.runtime.course import Order
from symbi.runtime.dead_letters import GivenUp, LetterKind, Payload
from symbi.runtime.life import TRIES
from symbi.runtime.lifecycle import AgentState
from symbi.runtime.rests import Rest
from symbi.runtime.runtime import Runtime
from symbi.runtime.tries import WAITED_FOR, Tries, position_of
from symbi.types import JsonValue, RunId

_log = logging.getLogger("symbi.runtime")

OPEN: Final = frozenset({RunState.RUNNING, RunState.HELD})


@dataclass(frozen=True, slots=True)
class Work:
    """A run that is to be carried out.

    Attributes:
        compiled: The file of its agent.
        spec: The agent, as it is declared there.
        run_id: The run; there need not be one by this id yet.
        inputs: Its inputs by name.
        task: What is said of it besides.
        instance: Which of several agents that were made of one declaration.
        kind: As what it is put with the dead letters, where it is given up.
    """

    compiled: CompiledFile
    spec: AgentSpec
    run_id: RunId
    inputs: Mapping[str, JsonValue] = field(default_factory=dict)
    task: Task = NO_TASK
    instance: str = ""
    kind: LetterKind = LetterKind.RUN

    @property
    def order(self) -> Order:
        """Who is to run."""
        return Order(self.compiled, self.spec, self.instance)


class Supervision:
    """Carries runs out.

    Args:
        runtime: Runs agents.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._rooms = runtime.rooms
        self._patience = runtime.rooms.world.patience
        runtime.guard.engine.on_change(lambda policies: runtime.rests.policies_changed(policies.version))

    async def carry_out(self, work: Work) -> RunOutcome:
        """Take a run from wherever it stands to its end, or until it is suspended.

        Then its outcome is held, and whoever lets it go on calls this once more.

        Raises:
            StoreUnavailable: The books cannot be kept; the run stays as it is.
            InputError: It cannot begin or go on as it is, such as where its file has changed; likewise.
        """
        tries = Tries(self._rooms.world.clock, self._patience)
        while True:
            outcome = await self._once(work, tries)
            error = outcome.error
            if outcome.state is RunState.FINISHED or error is None:
                return outcome
            if outcome.state is RunState.FAILED:
                if TRIES in error.fields:  # also where a crash kept it from being put there
                    await self._give_up(work, error)
                return outcome
            if tries.verdict.remedy not in WAITED_FOR:
                return outcome
            _log.info("run `%s` is tried again in %.3g s: %s", work.run_id, tries.verdict.after_s, error.code)
            state = AgentState.TERMINATED if tries.verdict.remedy is Remedy.RESTART else AgentState.SUSPENDED
            stopped = await self._rest(work, self._at_rest(work, state, error), tries.verdict.after_s)
            if stopped is not None:
                return stopped

    async def see_through(self, work: Work) -> RunOutcome:
        """Take a run to its end, however often it is suspended.

        It goes on when another policy set is in force, when an operator says so, or when what it waits for is settled;
        it is over when it is stopped; and it stays held where the runtime shuts down.

        Raises:
            StoreUnavailable, InputError: As `carry_out`.
        """
        while True:
            outcome = await self.carry_out(work)
            error = outcome.error
            if outcome.state is not RunState.HELD or error is None:
                return outcome
            version = await self._refused_by(work, error)
            rest = self._at_rest(work, AgentState.SUSPENDED, error, version)
            if version is not None and version != self._runtime.guard.engine.current.version:
                rest.release()  # it was changed meanwhile
            stopped = await self._rest(work, rest, None)
            if stopped is not None:
                return stopped

    def _at_rest(self, work: Work, state: AgentState, error: SymbiError, version: str | None = None) -> Rest:
        since = rfc3339(self._rooms.world.clock.now_ns())
        return Rest(work.order.name, work.run_id, absolute(work.compiled.file), since, state, error, version)

    async def _refused_by(self, work: Work, error: SymbiError) -> str | None:
        """The policy set that has refused what a run is held for; None where it is held for something else."""
        if not isinstance(error, Denied | EffectInDoubt):
            return None
        position = position_of(error)
        record = await self._rooms.world.log.read(partial(self._rooms.effects.effect_at, work.run_id, position))
        if isinstance(
            error, EffectInDoubt
        ):  # what may be repeated was refused; its record is of when it was let through
            refused = record is not None and may_repeat(record, record.recovery)
            return self._runtime.guard.engine.current.version if refused else None
        return self._runtime.guard.engine.current.version if record is None else record.policy_version

    async def _once(self, work: Work, tries: Tries) -> RunOutcome:
        """Begin a run or go on with it, once; what it ended in is judged."""
        runtime = self._runtime
        tries.anew()
        try:
            record = await self._record(work.run_id)
            if runtime.roster.halted:  # since it was begun with, or let go on; who is at work is stopped otherwise
                return await self._halted(work, record)
            if record is None:
                return await runtime.run(
                    work.compiled, work.spec, work.inputs, task=work.task,
                    run_id=work.run_id, instance=work.instance, ends=tries.ends,
                )  # fmt: skip
            if record.state not in OPEN:
                return self._ended(record)
            if record.error is not None:
                tries.known(decode_error(record.error))
            return await runtime.resume(work.compiled, work.spec, record, ends=tries.ends)
        except StoreUnavailable as error:
            if error.code != UNDECIDED:
                raise
            failure: SymbiError = error
        except SymbiError as error:
            failure = error
        except Exception as error:  # noqa: BLE001 - a defect that one run meets ends no other
            _log.error("run `%s` met a defect", work.run_id, exc_info=error)
            failure = InternalError(f"a defect: {type(error).__name__}: {error}")
        return await self._broken_off(work, failure, tries)

    async def _broken_off(self, work: Work, failure: SymbiError, tries: Tries) -> RunOutcome:
        """How a run stands that did not get to its end."""
        record = await self._record(work.run_id)
        state = tries.ends(failure)
        if record is not None and record.state not in OPEN:
            return RunOutcome(work.run_id, record.state, error=failure)
        if state is RunState.FAILED:
            if not tries.verdict.exhausted:
                raise failure
            if record is not None:
                await self._runtime.give_up(record, failure)
        return RunOutcome(work.run_id, state, error=failure)

    async def _record(self, run_id: RunId) -> RunRecord | None:
        """The record of a run, opened."""

        def look() -> RunRecord | None:
            found = self._rooms.runs.get_run(run_id)
            return None if found is None else opened_run(found, self._runtime.guard.vault)

        return await self._rooms.world.log.read(look)

    async def _halted(self, work: Work, record: RunRecord | None) -> RunOutcome:
        """Somebody has stopped everything: what is open has failed with that, and what has not begun does not."""
        error = AgentFailed(
            f"agent `{work.order.name}` was stopped by {self._runtime.roster.halted}", code="agent.stopped"
        )
        if record is not None and record.state in OPEN:
            rest = self._at_rest(work, AgentState.SUSPENDED, error)
            rest.stopped_by = self._runtime.roster.halted
            await self._runtime.stopped_at_rest(record, rest, error)
        return RunOutcome(work.run_id, RunState.FAILED, error=error)

    def _ended(self, record: RunRecord) -> RunOutcome:
        """The outcome of a run that had ended before."""
        output = None if record.output is None else json.loads(record.output)
        error = None if record.error is None else decode_error(record.error)
        return RunOutcome(record.run_id, record.state, output, error)

    async def _rest(self, work: Work, rest: Rest, seconds: float | None) -> RunOutcome | None:
        """Wait; the outcome of the run, where it was stopped meanwhile or is left as it is."""
        self._runtime.rests.begin(rest)
        try:
            await rest.wait(seconds, self._patience.wait)
            if rest.left:
                return RunOutcome(work.run_id, RunState.HELD, error=rest.error)
            if not rest.stopped_by:
                return None
            error = AgentFailed(f"agent `{rest.agent}` was stopped by {rest.stopped_by}", code="agent.stopped")
            record = await self._record(work.run_id)
            if record is not None and record.state in OPEN:
                await self._runtime.stopped_at_rest(record, rest, error)
            return RunOutcome(work.run_id, RunState.FAILED, error=error)
        finally:
            self._runtime.rests.end(rest)

    async def _give_up(self, work: Work, error: SymbiError) -> None:
        """Put a run with the dead letters; one that is there stays as it is."""
        count = error.fields[TRIES]
        assert isinstance(count, int)
        payload = Payload(work.order.name, work.compiled.file, work.inputs, work.task)
        await self._rooms.letters.put(GivenUp(work.kind, work.run_id, error, count, payload))
