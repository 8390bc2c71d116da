"""The runtime: agents on a gate, from a compiled file to the end of a run."""

import hashlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

import anyio

from symbi.agent.effects import CodeLimits
from symbi.agent.journal import RunRecord, RunState, absolute
from symbi.agent.run import Bounds, RunOutcome, RunPlan, check_inputs, execute
from symbi.agent.sealing import opened_history, sealed_run
from symbi.agent.task import NO_TASK, Task, check_task, kept_task
from symbi.agent.turn import Turn
from symbi.audit.event import AuditEventType, Draft, Receipt
from symbi.audit.log import Work as Unit
from symbi.audit.stream import AuditStream
from symbi.clock import rfc3339
from symbi.dsl.spec import AgentSpec, CompiledFile
from symbi.errors import (
    AgentFailed,
    ApprovalPending,
    InputError,
    InternalError,
    StoreUnavailable,
    SymbiError,
    Unavailable,
    did_you_mean,
)
from symbi.guard.action import AllocateResources, CreateAgent
from symbi.guard.confidential import confided, keys_for
from symbi.guard.desk import ApprovalDesk
from symbi.guard.gate import GateReport, Guard
from symbi.guard.ledger import EffectRecord
from symbi.guard.outcome import encode_error, encode_result, error_label
from symbi.policy.flow import join_subjects
from symbi.runtime.agent_scheduler import AgentConfig, SystemStatus
from symbi.runtime.assessment import assess_agent, servers_of
from symbi.runtime.key_change import rotate_key
from symbi.runtime.life import Life
from symbi.runtime.lifecycle import Event
from symbi.runtime.policies import PolicyBook
from symbi.runtime.policy_change import set_policies
from symbi.runtime.rooms import AtWork, Rooms, RuntimeConfig
from symbi.runtime.turns import Seat, Turns
from symbi.sandbox.tier import RiskAssessment
from symbi.tools.catalog import Catalog
from symbi.types import (
    SYSTEM_AGENT,
    AgentId,
    JsonValue,
    Principal,
    ResourceLimits,
    RunId,
    SecurityTier,
)

MAX_OPEN_RUNS: Final = 1000  # runs looked at to find one that is open


class Runtime:
    """Runs agents.

    Args:
        rooms: What it stands on.
        config: What it is told.
        report: What the gate found at start-up.
        warnings: What is unsafe or without effect, one line each.
    """

    def __init__(self, rooms: Rooms, config: RuntimeConfig, report: GateReport, warnings: Sequence[str] = ()) -> None:
        self._rooms = rooms
        self._config = config
        self._turns = Turns(rooms.scheduler, config.run_timeout_s)
        self._at_work: dict[RunId, AtWork] = {}
        self.report = report
        self.warnings = tuple(warnings)

    @property
    def rooms(self) -> Rooms:
        """What it stands on."""
        return self._rooms

    @property
    def policies(self) -> PolicyBook:
        """The policy set in force, and how it is changed."""
        return self._rooms.policies

    @property
    def catalog(self) -> Catalog:
        """The tools there are."""
        return self._rooms.catalog

    @property
    def guard(self) -> Guard:
        """The gate."""
        return self._rooms.world.guard

    @property
    def events(self) -> AuditStream:
        """The trail as it grows: `async with runtime.events.subscribe(…) as events`."""
        return self._rooms.stream

    @property
    def desk(self) -> ApprovalDesk:
        """Where actions wait for people."""
        desk = self.guard.approvals
        assert desk is not None, "a runtime is opened with one"
        return desk

    def describe(self) -> str:
        """The start-up line: what is enforced."""
        report = self.report
        enforced = f"enforcing {report.policies} policies" if report.enforcing else "NOT ENFORCING policies"
        tiers = ", ".join(sorted(tier.value for tier in self._rooms.world.sandboxes.tiers)) or "none"
        return (
            f"symbi ({self._config.mode}): {enforced} (version {report.policy_version[:12]}), default deny, "
            f"canary refused; tools {self._config.verification}; sandboxes: {tiers}; trail in {self._config.data_folder}"
        )

    async def get_system_status(self) -> SystemStatus:
        """How many agents run and wait, and what is free."""
        return await self._rooms.scheduler.get_system_status()

    async def run(
        self,
        compiled: CompiledFile,
        spec: AgentSpec,
        inputs: Mapping[str, JsonValue],
        task: Task = NO_TASK,
        *,
        run_id: RunId | None = None,
    ) -> RunOutcome:
        """Create an agent and run it on inputs, to its end.

        Args:
            compiled: Its file.
            spec: The agent.
            inputs: Its inputs by name.
            task: What the run is asked to do, and what its inputs are.
            run_id: Its id, where somebody has promised one; new if None.

        Raises:
            InputError: The inputs do not fit the agent.
            Denied: Policy does not let it be created, connected or given resources.
            Unavailable: The store, a sandbox or a tool server cannot be used.
        """
        try:
            check_inputs(spec, inputs)
            check_task(spec, task)
        except InputError as error:
            await self.refuse(Path(spec.file), error, task.everybody)
            raise
        record = RunRecord(
            run_id=run_id or RunId(self._rooms.ids.new()),
            agent_id=spec.id,
            file=absolute(spec.file),
            source_digest=spec.source_digest,
            inputs=encode_result(dict(inputs)),
            state=RunState.RUNNING,
            started_at=rfc3339(self._rooms.world.clock.now_ns()),
            grant=task.grant_json,
            labels=task.labels_json,
        )
        keys = await keys_for(self.guard.vault, spec.id, task.everybody)
        kept = sealed_run(record, keys)

        def begin() -> tuple[None, tuple[Draft]]:
            self._rooms.runs.put_run(kept)
            details: dict[str, JsonValue] = {
                "file": record.file,
                "source_digest": record.source_digest,
                "inputs_digest": hashlib.sha256(kept.inputs).hexdigest(),
                **task.facts(keys),
            }
            return None, (confided(Draft(AuditEventType.RUN_STARTED, spec.id, details, record.run_id), keys),)

        return await self._go(compiled, spec, record, (), begin)

    async def resume(self, compiled: CompiledFile, spec: AgentSpec, record: RunRecord) -> RunOutcome:
        """Go on with a run after its last finished effect.

        Raises:
            InputError: The agent file is another than the run was started with, or what the run knew was erased.
            StoreUnavailable: What is kept of its task cannot be read.
            DecryptionFailed: What is sealed was altered.
            ConfigError: There is no key to open it.
            SymbiError: As `run`.
        """
        if spec.source_digest != record.source_digest:
            msg = f"`{record.file}` has changed since run `{record.run_id}` was started"
            raise InputError(msg, code="input.source_changed", hint="restore the file, or start a new run")
        was, log, vault = record.state, self._rooms.world.log, self.guard.vault
        kept = await log.read(lambda: self._rooms.effects.effects_of(record.run_id))
        own = await keys_for(vault, spec.id, ())
        record = replace(record, state=RunState.RUNNING, error=None, finished_at=None)
        try:
            record, recorded = await log.read(partial(opened_history, record, kept, vault, own.ids))
        except InputError as erased:
            await self._ended_erased(record, was, erased)
            raise
        task = kept_task(record.grant, record.labels)
        keys = await keys_for(vault, spec.id, task.everybody)

        def again() -> tuple[None, tuple[Draft]]:
            if was is not RunState.RUNNING:
                self._rooms.runs.move_run(record, was)
            details: dict[str, JsonValue] = {"effects": len(recorded), **task.facts(keys)}
            return None, (confided(Draft(AuditEventType.RUN_RESUMED, spec.id, details, record.run_id), keys),)

        return await self._go(compiled, spec, record, recorded, again)

    async def find_open_run(self, run_id: RunId | None, file: str | None) -> RunRecord:
        """The run to resume: the one named, or the newest that is running or held (of a file).

        Raises:
            InputError: There is none, or the one named has ended.
        """
        log, runs = self._rooms.world.log, self._rooms.runs
        if run_id is not None:
            record = await log.read(lambda: runs.get_run(run_id))
            if record is None:
                msg = f"there is no run `{run_id}`"
                raise InputError(msg, code="input.run")
            if record.state not in {RunState.RUNNING, RunState.HELD}:
                msg = f"run `{run_id}` is {record.state.value}"
                raise InputError(msg, code="input.run", hint="only what was interrupted or held can be resumed")
            return record
        for record in await log.read(lambda: runs.runs(MAX_OPEN_RUNS)):
            if record.state in {RunState.RUNNING, RunState.HELD} and (file is None or record.file == file):
                return record
        msg = "there is no run to resume"
        raise InputError(msg, code="input.run", hint="every run has ended")

    async def refuse(self, file: Path, error: InputError, subjects: Sequence[str] = ()) -> None:
        """Record that a file or its inputs could not be read, so that also what never ran is in the trail.

        Args:
            file: The agent file.
            error: Why; it may quote inputs.
            subjects: The people whom the inputs are about.
        """
        details: dict[str, JsonValue] = {"file": str(file), "code": error.code, "reason": str(error)}
        keys = await keys_for(self.guard.vault, SYSTEM_AGENT, subjects)
        await self._rooms.world.log.append(confided(Draft(AuditEventType.INPUT_REFUSED, SYSTEM_AGENT, details), keys))

    async def record(self, draft: Draft) -> Receipt:
        """Put on the trail what an operation was asked to record; returns when it is durable.

        Raises:
            InputError: The draft cannot stand in the trail.
            StoreUnavailable: It is not durable, or nobody can tell.
        """
        return await self._rooms.world.log.append(draft)

    async def set_policies(self, principal: Principal, paths: Sequence[str]) -> Mapping[str, JsonValue]:
        """Replace the operator's policies, through the gate; see `symbi.runtime.policy_change`.

        Raises:
            PolicyDenied: Policy does not let the principal.
            InputError, VerificationError: The policies are refused, and the old ones stay.
            StoreUnavailable: It cannot be recorded; likewise.
        """
        rooms = self._rooms
        return await set_policies(rooms.world.guard, rooms.policies, rooms.policy_files, principal, paths)

    async def rotate_key(self) -> Mapping[str, JsonValue]:
        """Hand the trail over to its next signing key; see `symbi.runtime.key_change`.

        Raises:
            ConfigError: There is none, and the keys are kept where none can be put.
            InputError: Somebody else has just done it.
            StoreUnavailable: The key or the event cannot be stored; the old key goes on.
        """
        return await rotate_key(self._rooms.world.log, self._rooms.next_key)

    async def connect(self, servers: Sequence[str], principal: Principal) -> None:
        """Connect tool servers and take up their tools.

        Raises:
            Denied: Policy does not let one be connected.
            ToolServerUnavailable: One cannot be started or does not speak the protocol.
        """
        for server in servers:
            await self._rooms.world.hold(partial(self._rooms.catalog.refresh, server, principal))
        await self._rooms.policies.refresh()

    @asynccontextmanager
    async def _admission(self, compiled: CompiledFile) -> AsyncIterator[None]:
        """The body decides whether an agent of a file is created; only if it is, the rules of the file come in force."""
        policies = self._rooms.policies
        ticket = await policies.stage(compiled)
        try:
            yield
            await policies.admit(ticket, compiled)
        except BaseException:
            # Where even that cannot be recorded, what the file had against its creation stays: nobody is let in by it.
            with anyio.CancelScope(shield=True), suppress(Unavailable):
                await policies.withdraw(ticket)
            raise

    @property
    def at_work(self) -> Sequence[AtWork]:
        """The agents at work, oldest first."""
        return tuple(self._at_work.values())

    async def suspend(self, agent: AgentId, by: str) -> None:
        """Suspend an agent before its next effect; see `symbi.runtime.turns`."""
        await self._turns.suspend(agent, by)

    def seat_of(self, agent: AgentId) -> Seat | None:
        """What an agent at work has claimed, and how it stands with it; None where it has not come so far."""
        return self._turns.seat_of(agent)

    def let_go_on(self, agent: AgentId) -> None:
        """Let an agent that an operator has suspended go on; see `symbi.runtime.turns`."""
        self._turns.resume(agent)

    async def stop(self, agents: Sequence[AgentId] | None, by: str) -> Sequence[RunId]:
        """Stop agents where they are, and return once their runs are over; what they had in flight is settled.

        Args:
            agents: Which; all of them if None.
            by: Who says so.

        Raises:
            InputError: One of them is not at work; none is stopped.
        """
        names = [one.life.agent for one in self._at_work.values()]
        for agent in agents or ():
            if agent not in names:
                msg = f"agent `{agent}` is not at work"
                raise InputError(msg, code="input.agent", hint=did_you_mean(agent, names) or None)
        found = [one for one in self._at_work.values() if agents is None or one.life.agent in agents]
        for one in found:
            one.stopped_by = by
            one.scope.cancel(f"stopped by {by}")
        for one in found:
            await one.over.wait()
        return [one.life.run_id for one in found]

    async def _go(
        self,
        compiled: CompiledFile,
        spec: AgentSpec,
        record: RunRecord,
        recorded: Sequence[EffectRecord],
        begin: Unit[None],
    ) -> RunOutcome:
        """Put on record that a run begins, and let its agent work until it ends, or is stopped: from then on it can be."""
        one = self._at_work[record.run_id] = AtWork(Life(spec.id, record.run_id), record)
        try:
            with one.scope:
                await self._rooms.world.log.transact(begin)
                return await self._work(compiled, spec, one, recorded)
            error = AgentFailed(f"agent `{spec.id}` was stopped by {one.stopped_by}", code="agent.stopped")
            one.life.stop({"by": one.stopped_by})
            await self._record(one.life)
            await self._ended_early(record, error)
            return RunOutcome(record.run_id, RunState.FAILED, error=error)
        finally:
            del self._at_work[record.run_id]
            one.over.set()

    async def _work(
        self, compiled: CompiledFile, spec: AgentSpec, one: AtWork, recorded: Sequence[EffectRecord]
    ) -> RunOutcome:
        life, record = one.life, one.record
        principal = self._rooms.principal(spec.id)
        limits = replace(spec.limits, execution_timeout=min(spec.limits.execution_timeout, self._config.run_timeout_s))
        spec = replace(spec, limits=limits)
        try:
            assessment, tier = assess_agent(spec, self._rooms.catalog.servers, self._config.least_tier)
            principal = replace(principal, tier=tier.value, capabilities=spec.capabilities or ())
            async with self._admission(compiled):
                tier = await self._create(spec, principal, assessment, tier, record)
            principal = replace(principal, tier=tier.value)
            await self.connect(servers_of(spec, self._rooms.catalog.servers), principal)
            life.move(Event.CONFIG_VALID)
            async with self._allocated(spec, principal, life) as (limits, turn):
                spec = replace(spec, limits=limits)
                life.move(Event.TASK_ASSIGNED)
                await self._record(life)
                told = self._config
                code = CodeLimits(tier, told.code_memory_mib, told.code_timeout_s)
                bounds = Bounds(told.body, code, told.output_bytes)
                outcome = await execute(
                    RunPlan(spec, principal, record, bounds, recorded, turn), self._rooms.world, self._rooms.runs
                )
        except (StoreUnavailable, InternalError):
            raise  # the run stays open: it can be resumed once the store or the defect is mended
        except SymbiError as error:
            life.fail(error)
            with anyio.CancelScope(shield=True):  # it is over: who stops it now comes too late
                await self._record(life)
                await self._ended_early(record, error)
            raise
        life.end(outcome.error)
        await self._record(life)
        return outcome

    async def _record(self, life: Life) -> None:
        drafts = life.drafts()
        await self._rooms.world.log.transact(lambda: (None, drafts), wait=True)

    async def _create(
        self, spec: AgentSpec, principal: Principal, assessment: RiskAssessment, tier: SecurityTier, record: RunRecord
    ) -> SecurityTier:
        """Bring the agent to life; returns the tier of its code, which policies may have raised."""
        action = CreateAgent(
            principal=principal,
            source_digest=spec.source_digest,
            tier=tier,
            risk=assessment.score,
            inputs=tuple(json.loads(record.inputs)),
            factors=assessment.factors.texts(),
            within=record.run_id,
        )
        guard = self._rooms.world.guard

        async def create() -> SecurityTier:
            async with guard.enforce(action) as permit:
                effective = guard.authority.redeem(permit, CreateAgent).tier
                permit.observe({"tier": effective.value, "risk": assessment.facts()})
            return effective

        return await self._rooms.world.hold(create)

    @asynccontextmanager
    async def _allocated(
        self, spec: AgentSpec, principal: Principal, life: Life
    ) -> AsyncIterator[tuple[ResourceLimits, Turn]]:
        """The limits that the agent gets, which policies may have lowered, and its turn; its own until the block ends."""
        terms = self._rooms.terms(spec.id)
        action = AllocateResources(principal=principal, limits=spec.limits, priority=terms.priority, within=life.run_id)
        guard = self._rooms.world.guard

        async def note(event: Event, more: Mapping[str, JsonValue]) -> None:
            was = life.state
            life.move(event, more)
            try:
                await self._record(life)
            except BaseException:
                life.state = was  # for it is tried again
                raise

        seats: list[Seat] = []

        async def allocate() -> tuple[ResourceLimits, Seat]:
            async with guard.enforce(action) as permit:
                allowed = guard.authority.redeem(permit, AllocateResources)
                config = AgentConfig(spec.id, allowed.limits, allowed.priority, principal.owner, batch=terms.batch)
                seats.append(await self._turns.take(config, note))
            return allowed.limits, seats[-1]

        try:
            yield await self._rooms.world.hold(allocate)
        finally:
            for seat in seats:  # also where it was taken, and that could not be recorded
                await self._turns.leave(seat)

    async def _ended_early(self, record: RunRecord, error: SymbiError) -> None:
        """A run that could not begin: held where a dependency or an answer was missing, failed otherwise."""
        state = RunState.HELD if isinstance(error, Unavailable | ApprovalPending) else RunState.FAILED
        clock, log, runs = self._rooms.world.clock, self._rooms.world.log, self._rooms.runs
        ended = replace(record, state=state, error=encode_error(error), finished_at=rfc3339(clock.now_ns()))
        about = join_subjects(kept_task(record.grant, record.labels).everybody, error_label(error).subjects)
        keys = await keys_for(self.guard.vault, record.agent_id, about, wait=True)
        kept, draft = sealed_run(ended, keys), confided(_finished(ended, error), keys)

        def end() -> tuple[None, tuple[Draft]]:
            runs.move_run(kept, RunState.RUNNING)
            return None, (draft,)

        await log.transact(end, wait=True)

    async def _ended_erased(self, record: RunRecord, was: RunState, error: InputError) -> None:
        """A run that cannot go on, for what it knew was erased; the error says so, and quotes nothing."""
        clock, runs = self._rooms.world.clock, self._rooms.runs
        ended = replace(record, state=RunState.FAILED, error=encode_error(error), finished_at=rfc3339(clock.now_ns()))

        def end() -> tuple[None, tuple[Draft]]:
            if was is not RunState.RUNNING:
                runs.move_run(record, was)
            runs.move_run(ended, RunState.RUNNING)
            return None, (_finished(ended, error),)

        await self._rooms.world.log.transact(end, wait=True)


def _finished(record: RunRecord, error: SymbiError) -> Draft:
    """The event of a run that ended without its body's end."""
    details: dict[str, JsonValue] = {"state": record.state.value, "error": error.code, "message": str(error)}
    return Draft(AuditEventType.RUN_FINISHED, record.agent_id, details, record.run_id)
