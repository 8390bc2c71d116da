"""The runtime: agents on a gate, from a compiled file to the end of a run."""

import hashlib
import json
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

import anyio

from symbi.agent.effects import CodeLimits, World
from symbi.agent.interpreter import BodyLimits
from symbi.agent.journal import RunRecord, RunState, RunStore
from symbi.agent.run import Bounds, RunOutcome, RunPlan, check_inputs, execute
from symbi.agent.sealing import opened_history, sealed_run
from symbi.agent.task import NO_TASK, Task, check_task, kept_task
from symbi.agent.turn import Turn
from symbi.audit.event import AuditEventType, Draft
from symbi.clock import IdSource, rfc3339
from symbi.dsl.spec import AgentSpec, CompiledFile
from symbi.errors import (
    ApprovalPending,
    InputError,
    InternalError,
    StoreUnavailable,
    SymbiError,
    Unavailable,
)
from symbi.guard.action import AllocateResources, CreateAgent
from symbi.guard.confidential import confided, keys_for
from symbi.guard.desk import ApprovalDesk
from symbi.guard.gate import GateReport, Guard
from symbi.guard.ledger import EffectRecord, EffectStore
from symbi.guard.outcome import encode_error, encode_result, error_label
from symbi.policy.flow import join_subjects
from symbi.runtime.agent_scheduler import AgentConfig, AgentScheduler, SystemStatus
from symbi.runtime.life import Life
from symbi.runtime.lifecycle import Event
from symbi.runtime.policies import PolicyBook
from symbi.runtime.policy_change import set_policies
from symbi.runtime.policy_watch import PolicyWatch
from symbi.runtime.turns import Seat, Turns
from symbi.sandbox.tier import CodeTrust, Needs, RiskAssessment, RiskProfile, assess_security_tier, choose_tier
from symbi.tools.catalog import Catalog
from symbi.types import (
    SYSTEM_AGENT,
    AgentId,
    Confidentiality,
    JsonValue,
    Principal,
    Priority,
    ResourceLimits,
    RunId,
    SecurityTier,
)

MAX_OPEN_RUNS: Final = 1000  # runs looked at to find one that is open


@dataclass(frozen=True, slots=True)
class RuntimeConfig:
    """What the runtime itself is told.

    Attributes:
        mode: `development` or `production`, for the start-up line.
        data_folder: Where the store is, for the start-up line.
        verification: Mode of tool verification, for the start-up line.
        least_tier: The least tier for anything but pure computation.
        body: Bounds of a run's body.
        code_memory_mib, code_timeout_s: Bounds of one piece of code.
        run_timeout_s: The longest that any run may take, whatever its file says, and the longest it waits to start.
        output_bytes: The largest value of a run.
    """

    mode: str
    data_folder: str
    verification: str
    least_tier: SecurityTier
    body: BodyLimits
    code_memory_mib: int
    code_timeout_s: float
    run_timeout_s: float
    output_bytes: int


@dataclass(frozen=True, slots=True)
class Terms:
    """How an agent stands among others that want to run, as configured; policies can refuse it.

    Attributes:
        priority: Its class.
        batch: It may wait behind everything else.
    """

    priority: Priority = Priority.NORMAL
    batch: bool = False


def no_terms(_agent: AgentId) -> Terms:
    """An agent of which nothing is said."""
    return Terms()


@dataclass(frozen=True, slots=True)
class Rooms:
    """The rooms that a runtime stands on.

    Attributes:
        world: Gate, trail, clock, tools, sandboxes.
        policies: The set in force.
        policy_files: Where the operator's part of it comes from.
        catalog: Tools.
        runs: The journal.
        effects: The ledger.
        scheduler: Says when an agent may start, and holds the pool.
        ids: Makes run ids.
        principal: An agent as policies see it.
        terms: How it stands among others.
    """

    world: World
    policies: PolicyBook
    policy_files: PolicyWatch
    catalog: Catalog
    runs: RunStore
    effects: EffectStore
    scheduler: AgentScheduler
    ids: IdSource
    principal: Callable[[AgentId], Principal]
    terms: Callable[[AgentId], Terms] = no_terms


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
        self.report = report
        self.warnings = tuple(warnings)

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
        self, compiled: CompiledFile, spec: AgentSpec, inputs: Mapping[str, JsonValue], task: Task = NO_TASK
    ) -> RunOutcome:
        """Create an agent and run it on inputs, to its end.

        Args:
            compiled: Its file.
            spec: The agent.
            inputs: Its inputs by name.
            task: What the run is asked to do, and what its inputs are.

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
            run_id=RunId(self._rooms.ids.new()),
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

        await self._rooms.world.log.transact(begin)
        return await self._go(compiled, spec, record, ())

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

        await log.transact(again)
        return await self._go(compiled, spec, record, recorded)

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

    async def set_policies(self, principal: Principal, paths: Sequence[str]) -> Mapping[str, JsonValue]:
        """Replace the operator's policies, through the gate; see `symbi.runtime.policy_change`.

        Raises:
            PolicyDenied: Policy does not let the principal.
            InputError, VerificationError: The policies are refused, and the old ones stay.
            StoreUnavailable: It cannot be recorded; likewise.
        """
        rooms = self._rooms
        return await set_policies(rooms.world.guard, rooms.policies, rooms.policy_files, principal, paths)

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

    async def _go(
        self, compiled: CompiledFile, spec: AgentSpec, record: RunRecord, recorded: Sequence[EffectRecord]
    ) -> RunOutcome:
        principal = self._rooms.principal(spec.id)
        limits = replace(spec.limits, execution_timeout=min(spec.limits.execution_timeout, self._config.run_timeout_s))
        spec = replace(spec, limits=limits)
        life = Life(spec.id, record.run_id)
        try:
            assessment, tier = self._assess(spec)
            principal = replace(principal, tier=tier.value, capabilities=spec.capabilities or ())
            async with self._admission(compiled):
                tier = await self._create(spec, principal, assessment, tier, record)
            principal = replace(principal, tier=tier.value)
            await self.connect(self._servers_of(spec), principal)
            life.move(Event.CONFIG_VALID)
            async with self._allocated(spec, principal, life) as (limits, turn):
                spec = replace(spec, limits=limits)
                life.move(Event.TASK_ASSIGNED)
                await self._record(life)
                bounds = Bounds(self._config.body, self._code_limits(tier), self._config.output_bytes)
                outcome = await execute(
                    RunPlan(spec, principal, record, bounds, recorded, turn), self._rooms.world, self._rooms.runs
                )
        except (StoreUnavailable, InternalError):
            raise  # the run stays open: it can be resumed once the store or the defect is mended
        except SymbiError as error:
            life.fail(error)
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
            life.move(event, more)
            await self._record(life)

        async def allocate() -> tuple[ResourceLimits, Seat]:
            async with guard.enforce(action) as permit:
                allowed = guard.authority.redeem(permit, AllocateResources)
                config = AgentConfig(spec.id, allowed.limits, allowed.priority, principal.owner, batch=terms.batch)
                seat = await self._turns.take(config, note)
            return allowed.limits, seat

        limits, seat = await self._rooms.world.hold(allocate)
        try:
            yield limits, seat
        finally:
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

    def _code_limits(self, tier: SecurityTier) -> CodeLimits:
        return CodeLimits(tier, self._config.code_memory_mib, self._config.code_timeout_s)

    def _assess(self, spec: AgentSpec) -> tuple[RiskAssessment, SecurityTier]:
        """Score and tier of what the agent runs by itself; tools run where their servers run."""
        assessment = assess_security_tier(
            RiskProfile(
                data_sensitivity=Confidentiality.INTERNAL,
                code_trust=CodeTrust.UNSIGNED,
                requires_network=False,
                requires_filesystem=any(p.type.name == "Path" for p in spec.parameters),
                external_apis=self._servers_of(spec),
            )
        )
        floor = self._config.least_tier
        return assessment, choose_tier(assessment, needs=Needs.PURE, requested=spec.sandbox, floor=floor)

    def _servers_of(self, spec: AgentSpec) -> tuple[str, ...]:
        """Servers that the agent's capabilities name; all of them where it sets no bound."""
        servers = self._rooms.catalog.servers
        if spec.capabilities is None:
            return servers
        named = {capability.partition(".")[0] for capability in spec.capabilities if "." in capability}
        return tuple(server for server in servers if server in named)


def _finished(record: RunRecord, error: SymbiError) -> Draft:
    """The event of a run that ended without its body's end."""
    details: dict[str, JsonValue] = {"state": record.state.value, "error": error.code, "message": str(error)}
    return Draft(AuditEventType.RUN_FINISHED, record.agent_id, details, record.run_id)


def absolute(file: str) -> str:
    """A file's name as seen from the root; touches no file."""
    return os.path.abspath(file)  # noqa: PTH100 - links in the name stay as the user wrote them
