"""The runtime: agents on a gate, from a compiled file to the end of a run."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from symbi.agent.journal import RunRecord, RunState, absolute
from symbi.agent.run import Ends, RunOutcome, by_remedy, check_inputs
from symbi.agent.sealing import opened_history, sealed_run
from symbi.agent.task import NO_TASK, Task, check_task, kept_task
from symbi.audit.event import AuditEventType, Draft, Receipt
from symbi.audit.log import Work as Unit
from symbi.audit.stream import AuditStream
from symbi.clock import rfc3339
from symbi.dsl.spec import AgentSpec, CompiledFile
from symbi.errors import InputError, SymbiError, did_you_mean
from symbi.guard.budget import NO_ALLOWANCE, Allowance
from symbi.guard.confidential import confided, keys_for
from symbi.guard.desk import ApprovalDesk
from symbi.guard.gate import GateReport, Guard
from symbi.guard.outcome import encode_result
from symbi.runtime.agent_scheduler import SystemStatus
from symbi.runtime.asking import as_asked
from symbi.runtime.budgets import Budgets
from symbi.runtime.course import Course, Order
from symbi.runtime.dead_letters import DeadLetters
from symbi.runtime.dispatch import Dispatch
from symbi.runtime.errands import Errands
from symbi.runtime.intake import AT_ONCE, Mail, When
from symbi.runtime.key_change import rotate_key
from symbi.runtime.life import Life
from symbi.runtime.lifecycle import AgentState
from symbi.runtime.living import NOBODY
from symbi.runtime.mailbox import NOW
from symbi.runtime.measuring import Measuring
from symbi.runtime.policies import PolicyBook
from symbi.runtime.policy_change import set_policies
from symbi.runtime.post import PostOffice
from symbi.runtime.pulse import Lag
from symbi.runtime.replays import Begun, begin_replay
from symbi.runtime.rests import Rest, Rests
from symbi.runtime.rooms import AtWork, Rooms, RuntimeConfig
from symbi.runtime.standing import standing_of
from symbi.runtime.turns import Seat
from symbi.tools.catalog import Catalog
from symbi.types import (
    OPERATOR_AGENT,
    SYSTEM_AGENT,
    AgentId,
    JsonValue,
    Principal,
    RunId,
)

MAX_OPEN_RUNS: Final = 1000  # runs looked at to find one that is open


class Runtime:
    """Runs agents.

    Args:
        rooms: What it stands on.
        config: What it is told.
        report: What the gate found at start-up.
        warnings: What is unsafe or without effect, one line each.

    Attributes:
        roster: The agents that stay.
        mail: Puts messages into their mailboxes.
        errands: Carries out one message.
        dispatch: Lets them carry these out, while `carry_out_messages` runs.
        post: Gets messages to agents.
        bus, context: Messages between agents, and what agents remember, for Python; see `symbi.bus`, `symbi.context`.
        data_folder: Where what it keeps is; None where it keeps nothing.
        take_up: Carries out what a dead letter became, and says whether it does; whoever stays sets it.
    """

    def __init__(self, rooms: Rooms, config: RuntimeConfig, report: GateReport, warnings: Sequence[str] = ()) -> None:
        self.post = PostOffice(rooms, config)
        self._rooms = rooms = replace(rooms, world=replace(rooms.world, post=self.post))
        self._config = config
        self._course = Course(rooms, config)
        self.roster = self._course.roster
        self.mail = Mail(rooms, self.roster)
        self.errands = Errands(rooms, self._course)
        self.dispatch = Dispatch(rooms, self.roster, self.mail, self.errands, config.max_at_work)
        self.dispatch.asked = self.post.questions.asked
        self.rests = Rests()
        self.bus, self.context = rooms.bus, rooms.context
        self.data_folder = None if config.data_folder == "memory" else config.data_folder
        self._course.over = self.post.questions.over
        self.post.addresses.course, self.post.questions.carry_out = self._course, self._carry_out
        self.post.questions.rests = self.rests
        self.report = report
        self.warnings = tuple(warnings)
        self.take_up: Callable[[Begun], bool] = _nobody

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
    def letters(self) -> DeadLetters:
        """What was given up."""
        return self._rooms.letters

    @property
    def budgets(self) -> Budgets:
        """What runs may spend and have spent."""
        return self._course.budgets

    @property
    def measuring(self) -> Measuring:
        """What is at work, measured."""
        return self._course.measuring

    @property
    def desk(self) -> ApprovalDesk:
        """Where actions wait for people."""
        desk = self.guard.approvals
        assert desk is not None, "a runtime is opened with one"
        return desk

    @property
    def lag(self) -> Lag:
        """How late the event loop came to what was due, in the last minute."""
        return self._rooms.pulse.lag

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
        """How many agents run and wait, what is free, and how the rest stands; costs the same however many agents there are."""
        status = await self._rooms.scheduler.get_system_status()
        return replace(status, standing=await standing_of(self._rooms, self._course, len(self.rests)))

    async def run(  # noqa: PLR0913 - most callers leave most of them out
        self,
        compiled: CompiledFile,
        spec: AgentSpec,
        inputs: Mapping[str, JsonValue],
        task: Task = NO_TASK,
        *,
        run_id: RunId | None = None,
        instance: str = "",
        allowance: Allowance = NO_ALLOWANCE,
        ends: Ends = by_remedy,
    ) -> RunOutcome:
        """Create an agent and run it on inputs, to its end.

        Args:
            compiled: Its file.
            spec: The agent.
            inputs: Its inputs by name.
            task: What the run is asked to do, and what its inputs are.
            run_id: Its id, where somebody has promised one; new if None.
            instance: Which of several agents that were made of one declaration.
            allowance: What it may spend.
            ends: What becomes of it where an error ends it.

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
        order = Order(compiled, spec, instance, ends)
        record = RunRecord(
            run_id=run_id or RunId(self._rooms.ids.new()),
            agent_id=order.name,
            file=absolute(spec.file),
            source_digest=spec.source_digest,
            inputs=encode_result(dict(inputs)),
            state=RunState.RUNNING,
            started_at=rfc3339(self._rooms.world.clock.now_ns()),
            grant=task.grant_json,
            labels=task.labels_json,
        )
        line = await self.budgets.line(record, self._rooms.terms(spec.id).budget, allowance, new=run_id is None)

        async def prepare() -> Unit[None]:
            keys = await keys_for(self.guard.vault, spec.id, task.everybody)
            kept = sealed_run(record, keys)

            def begin() -> tuple[None, tuple[Draft]]:
                self._rooms.runs.put_run(kept)
                details: dict[str, JsonValue] = {
                    "file": record.file,
                    "source_digest": record.source_digest,
                    "inputs_digest": hashlib.sha256(kept.inputs).hexdigest(),
                    **task.facts(keys),
                    **self.budgets.open(line),
                }
                return None, (confided(Draft(AuditEventType.RUN_STARTED, order.name, details, record.run_id), keys),)

            return begin

        return await self._course.go(order, record, (), prepare, line)

    async def _carry_out(self, order: Order, run_id: RunId, inputs: Mapping[str, JsonValue], task: Task) -> RunOutcome:
        """Begin a run that another asks for, or go on with it."""
        record = await self._rooms.world.log.read(lambda: self._rooms.runs.get_run(run_id))
        if record is not None:
            return await self.resume(order.compiled, order.spec, record, ends=as_asked)
        return await self.run(
            order.compiled, order.spec, inputs, task, run_id=run_id, instance=order.instance, ends=as_asked
        )

    async def resume(
        self, compiled: CompiledFile, spec: AgentSpec, record: RunRecord, *, ends: Ends = by_remedy
    ) -> RunOutcome:
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
            raise InputError(
                msg, code="input.source_changed", hint="restore the file, or start a new run; this one stays open"
            )
        was, log, vault = record.state, self._rooms.world.log, self.guard.vault
        kept = await log.read(lambda: self._rooms.effects.effects_of(record.run_id))
        own = await keys_for(vault, spec.id, ())
        record = replace(record, state=RunState.RUNNING, finished_at=None)
        try:
            record, recorded = await log.read(partial(opened_history, record, kept, vault, own.ids))
        except InputError as erased:
            await self._course.ended_erased(replace(record, error=None), was, erased)
            raise
        task = kept_task(record.grant, record.labels)
        keys = await keys_for(vault, spec.id, task.everybody)

        line = await self.budgets.line(record, self._rooms.terms(spec.id).budget)

        def again() -> tuple[None, tuple[Draft]]:
            if was is not RunState.RUNNING:
                self._rooms.runs.move_run(replace(record, error=None), was)
            details: dict[str, JsonValue] = {"effects": len(recorded), **task.facts(keys), **self.budgets.open(line)}
            return None, (confided(Draft(AuditEventType.RUN_RESUMED, record.agent_id, details, record.run_id), keys),)

        async def prepared() -> Unit[None]:
            return again

        return await self._course.go(Order(compiled, spec, record.instance, ends), record, recorded, prepared, line)

    async def abandon(self, run_id: RunId, error: InputError) -> None:
        """End an open run, which is not at work, as failed: what it was begun with is there no more.

        Args:
            run_id: Which; one that has ended stays as it is.
            error: Why; it must not quote what the run knew.

        Raises:
            StoreUnavailable: It cannot be recorded.
        """
        record = await self._rooms.world.log.read(lambda: self._rooms.runs.get_run(run_id))
        if record is not None and record.state in {RunState.RUNNING, RunState.HELD}:
            await self._course.ended_erased(replace(record, error=None), record.state, error)

    async def replay(self, compiled: CompiledFile, run_id: RunId, by: str) -> Begun:
        """Put a dead letter's work on record anew, see `symbi.runtime.replays`; `take_up` is for the caller to ask.

        Raises:
            InputError: There is no open letter of this run, its agent does not take these inputs now, or they were erased.
            StoreUnavailable: It cannot be recorded.
        """
        begun = await begin_replay(self._rooms, compiled, await self.letters.opened(run_id), by)
        if begun.record is None:
            self.mail.told([begun.order.name], NOW)
        return begun

    async def carry_out_messages(self) -> None:
        """Let agents that stay carry out their messages, until `dispatch.stop`; then wait for those at work.

        Raises:
            StoreUnavailable: The store cannot be used; what was begun goes on at the next start.
        """
        self.post.wake = lambda agent, due_ns: self.dispatch.call([agent], due_ns)
        await self.post.listen(self.roster.kinds.values())
        try:
            await self.dispatch.run()
        finally:
            self.post.wake = None

    async def spawn(self, order: Order, instances: Sequence[str] = NOBODY, parent: str = "") -> Sequence[AgentId]:
        """Make agents that stay, of one declaration and by one decision; see `symbi.runtime.living`.

        Args:
            order: The declaration; its instance does not count.
            instances: A name for each; the empty one is the declaration's own.
            parent: Who asks for them.

        Raises:
            InputError: One is there already, a name is none, or the configuration does not say that they stay.
            Denied: Policy does not let them be created.
            Unavailable: The store, or a tool server, cannot be used.
        """
        self.roster.declare(order.compiled)
        kind = self.roster.kind_of(order.spec.id)
        names = await self.roster.spawn(kind, instances, parent)
        await self.post.listen([kind])
        self.dispatch.look_again(kind)
        return names

    async def send(
        self,
        agent: AgentId,
        inputs: Mapping[str, JsonValue],
        task: Task = NO_TASK,
        *,
        sender: str = OPERATOR_AGENT,
        when: When = AT_ONCE,
    ) -> RunId:
        """Put a message into an agent's mailbox; returns its id, which is that of its run. See `symbi.runtime.mail`."""
        return await self.mail.send(agent, inputs, task, sender=sender, when=when)

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
        """Connect tool servers and take up their tools; see `symbi.runtime.course`."""
        await self._course.connect(servers, principal)

    @property
    def at_work(self) -> Sequence[AtWork]:
        """The agents at work, oldest first."""
        return tuple(self._course.at_work.values())

    async def suspend(self, agent: AgentId, by: str) -> None:
        """Suspend an agent before its next effect, see `symbi.runtime.course`; what waits to be tried again goes on waiting."""
        for rest in self.rests.of(agent):
            rest.suspended_by = by
        if not self.rests.of(agent):
            await self._course.suspend(agent, by)

    def seat_of(self, agent: AgentId) -> Seat | None:
        """What an agent at work has claimed, and how it stands with it; None where it has not come so far."""
        return self._course.turns.seat_of(agent)

    def let_go_on(self, agent: AgentId) -> None:
        """Let an agent go on that an operator, policy or a limit has suspended, or that waits; see `symbi.runtime.turns`."""
        for rest in self.rests.of(agent):
            rest.let_go()
        if not self.rests.of(agent):
            self._course.resume(agent)

    async def stop(self, agents: Sequence[AgentId] | None, by: str) -> Sequence[RunId]:
        """Stop agents where they are, and return once their runs are over; what they had in flight is settled.

        Args:
            agents: Which; all of them if None.
            by: Who says so.

        Raises:
            InputError: One of them is not at work; none is stopped.
        """
        rests = [rest for rest in self.rests.all if agents is None or rest.agent in agents]
        names = [one.life.agent for one in self._course.at_work.values()] + [rest.agent for rest in rests]
        for agent in agents or ():
            if agent not in names:
                msg = f"agent `{agent}` is not at work"
                raise InputError(msg, code="input.agent", hint=did_you_mean(agent, names) or None)
        found = [one for one in self._course.at_work.values() if agents is None or one.life.agent in agents]
        for one in found:
            one.stopped_by, one.stays = by, agents is None
            one.scope.cancel(f"stopped by {by}")
        for rest in rests:
            rest.stop(by)
        for over in (*(one.over for one in found), *(rest.over for rest in rests)):
            await over.wait()
        return [*(one.life.run_id for one in found), *(rest.run_id for rest in rests)]

    async def stopped_at_rest(self, record: RunRecord, rest: Rest, error: SymbiError) -> None:
        """A run was stopped that rested: it has failed, and its agent is gone.

        Raises:
            StoreUnavailable: It cannot be recorded.
        """
        life = Life(rest.agent, rest.run_id, rest.state)
        if life.state is AgentState.SUSPENDED:
            life.stop({"by": rest.stopped_by})
        await self._course.ended_at_rest(record, error, life.drafts())

    async def give_up(self, record: RunRecord, error: SymbiError) -> None:
        """A run that is open has failed too often: its agent has failed.

        Raises:
            StoreUnavailable: It cannot be recorded.
        """
        life = Life(record.agent_id, record.run_id, AgentState.RUNNING)
        life.fail(error, RunState.FAILED)
        await self._course.ended_at_rest(record, error, life.drafts())


def _nobody(_begun: Begun) -> bool:
    """The default of `take_up`: nobody stays to carry it out."""
    return False
