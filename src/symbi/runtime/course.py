"""The course of one run: from its record, through the creation of its agent and its turn in the pool, to its end."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial

import anyio

from symbi.agent.journal import RunRecord, RunState
from symbi.agent.run import SUSPENDED, Also, Bounds, Ends, RunOutcome, RunPlan, by_remedy, execute
from symbi.agent.sealing import sealed_run
from symbi.agent.task import kept_task
from symbi.agent.turn import Turn
from symbi.audit.event import AuditEventType, Draft
from symbi.audit.log import Work as Unit
from symbi.clock import rfc3339
from symbi.dsl.spec import AgentSpec, CompiledFile
from symbi.errors import (
    AgentFailed,
    ApprovalPending,
    InputError,
    InternalError,
    RateLimited,
    StoreUnavailable,
    SymbiError,
    Unavailable,
)
from symbi.guard.action import AllocateResources, CreateAgent
from symbi.guard.budget import Account
from symbi.guard.confidential import confided, keys_for
from symbi.guard.ledger import EffectRecord
from symbi.guard.outcome import decode_error, encode_error, error_label
from symbi.guard.spending import UNBOUNDED
from symbi.policy.flow import join_subjects
from symbi.runtime.agent_scheduler import AgentConfig
from symbi.runtime.assessment import assess_agent, profile_of, servers_of
from symbi.runtime.budgets import Budgets
from symbi.runtime.claims import code_limits, refuse_unenforceable
from symbi.runtime.life import Life, reason_of
from symbi.runtime.lifecycle import AgentState, Event
from symbi.runtime.living import Kind, Move, Roster
from symbi.runtime.measuring import Measuring
from symbi.runtime.rooms import AtWork, Rooms, RuntimeConfig
from symbi.runtime.turns import Seat, Turns
from symbi.sandbox.tier import RiskAssessment
from symbi.types import AgentId, JsonValue, Principal, ResourceLimits, RunId, SecurityTier


def told_nobody(_run_id: RunId) -> None:
    """The default of `Course.over`: nothing."""


@dataclass(frozen=True, slots=True)
class Order:
    """Who is to run.

    Attributes:
        compiled: The file, whose rules come in force with the agent.
        spec: The agent, as it is declared there.
        instance: Which of several that were made of the declaration; empty where there is one alone.
        ends: What becomes of the run where an error ends it.
    """

    compiled: CompiledFile
    spec: AgentSpec
    instance: str = ""
    ends: Ends = by_remedy

    @property
    def name(self) -> AgentId:
        """As ledger and trail call the agent."""
        return Principal(self.spec.id, instance=self.instance).name


class Course:
    """Lets agents work.

    Args:
        rooms: What a runtime stands on.
        config: What it is told.

    Attributes:
        turns: Where agents wait for the pool.
        budgets: What runs may spend and have spent.
        measuring: What is at work, measured.
        at_work: The agents at work, by their runs.
        roster: The agents that stay.
        orders: Who they are, likewise.
        over: Told of each run that is not at work any more.
    """

    def __init__(self, rooms: Rooms, config: RuntimeConfig) -> None:
        self._rooms = rooms
        self._config = config
        self.roster = Roster(
            rooms.agents, rooms.world.log, rooms.world.clock, rooms.terms, self._create_kind, config.max_living
        )
        self.turns = Turns(rooms.scheduler, config.run_timeout_s)
        self.budgets = Budgets(rooms.world.log, rooms.budgets, rooms.lineage)
        self.measuring = Measuring(rooms, self.turns, self.budgets)
        self.at_work: dict[RunId, AtWork] = {}
        self._taking_up = anyio.Lock()
        self._taken_up = -1  # the changes of the catalogue that policies know of
        self.orders: dict[RunId, Order] = {}
        self.over: Callable[[RunId], None] = told_nobody

    async def connect(self, servers: Sequence[str], principal: Principal) -> None:
        """Connect tool servers and take up their tools.

        Raises:
            Denied: Policy does not let one be connected.
            ToolServerUnavailable: One cannot be started or does not speak the protocol.
        """
        catalog = self._rooms.catalog
        for server in servers:
            await self._rooms.world.hold(partial(catalog.ready, server, principal))
        async with self._taking_up:  # nobody goes on before the tools that he needs are known to the policies
            if self._taken_up != catalog.changes:
                changes = catalog.changes
                await self._rooms.policies.refresh()
                self._taken_up = changes

    async def _create_kind(self, kind: Kind, count: int) -> Principal:
        return await self.create(Order(kind.compiled, kind.spec), (), count=count)

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

    async def go(
        self,
        order: Order,
        record: RunRecord,
        recorded: Sequence[EffectRecord],
        prepare: Callable[[], Awaitable[Unit[None]]],
        line: Sequence[Account] = (),
    ) -> RunOutcome:
        """Put on record that a run begins, and let its agent work until it ends, or is stopped: from now on it can be.

        Args:
            order: Who.
            record: Its run.
            recorded: What it did before.
            prepare: Makes what puts its beginning on record. Who is stopped before that has begun nothing, and has no run.
            line: The accounts that it spends from.
        """
        on_record = False
        one = self.at_work[record.run_id] = AtWork(Life.of(record), record, line=line)
        self.orders[record.run_id] = order
        try:
            with one.scope:
                begin = await prepare()
                one.later.append(await self._rooms.world.log.enlist(begin))  # durable before the agent is created
                on_record = True
                return await self._work(order, one, recorded)
            await one.recorded()
            error = AgentFailed(f"agent `{record.agent_id}` was stopped by {one.stopped_by}", code="agent.stopped")
            one.life.stop({"by": one.stopped_by})
            await self.record(one)
            if on_record:
                await self.ended_early(record, error, RunState.FAILED)
            return RunOutcome(record.run_id, RunState.FAILED, error=error)
        finally:
            del self.at_work[record.run_id], self.orders[record.run_id]
            one.over.set()
            self.over(record.run_id)

    async def _work(self, order: Order, one: AtWork, recorded: Sequence[EffectRecord]) -> RunOutcome:
        life, record, spec = one.life, one.record, order.spec
        spec = self.bounded(spec)
        try:
            principal = await self.create(order, tuple(json.loads(record.inputs)), one=one)
            life.made()
            async with self.allocated(spec, principal, one) as (limits, turn):
                spec = replace(spec, limits=limits)
                life.assigned()
                await self.record(one)
                await one.recorded()
                self._rooms.world.guard.probe("working")
                async with self.measuring.measured(one, principal, limits, turn) as meter:
                    plan = RunPlan(
                        spec, principal, record, self.bounds(spec, principal), recorded, meter, order.ends, meter=meter
                    )
                    outcome = await execute(plan, self._rooms.world, self._rooms.runs, one.later)
        except (StoreUnavailable, InternalError):
            raise  # the run stays open: it can be resumed once the store or the defect is mended
        except SymbiError as error:
            comes_back = life.held is not None or isinstance(error, Unavailable | ApprovalPending | RateLimited)
            state = order.ends(error) if comes_back else RunState.FAILED
            life.fail(error, state)
            with anyio.CancelScope(shield=True):  # it is over: who stops it now comes too late
                await self.record(one)
                await self.ended_early(record, error, state)
            raise
        life.end(outcome.error, outcome.state)
        await self.record(one)
        await one.recorded()
        return outcome

    async def record(self, one: AtWork) -> None:
        """Put the moves of an agent on record, and wait until they are durable."""
        drafts, move = self.moves(one)

        def work() -> tuple[None, Sequence[Draft]]:
            if move is not None:
                self.roster.write(move)
            return None, drafts

        await self._rooms.world.log.transact(work, wait=True)
        if move is not None:
            self.roster.made(move)

    def moves(self, one: AtWork) -> tuple[Sequence[Draft], Move | None]:
        """The moves that are not on record yet: their events, and, of an agent that stays, what writes where it stands."""
        drafts, state = one.life.drafts(), one.life.state
        if one.living is None or not drafts:
            return drafts, None
        reason = reason_of(state, drafts)
        if one.suspended_by and state is AgentState.SUSPENDED:  # whatever else has: it is theirs to let go on
            reason = f"{Event.OPERATOR_SUSPENDED}: {one.suspended_by}"
        return drafts, self.roster.moving(one.living, state, len(drafts), reason)

    def bounded(self, spec: AgentSpec) -> AgentSpec:
        """An agent with no more time than any may have."""
        timeout_s = min(spec.limits.execution_timeout, self._config.run_timeout_s)
        return replace(spec, limits=replace(spec.limits, execution_timeout=timeout_s))

    def bounds(self, spec: AgentSpec, principal: Principal) -> Bounds:
        """What a run of an agent is held to."""
        told, profile = self._config, profile_of(spec, self._rooms.catalog.servers)
        return Bounds(told.body, code_limits(spec, SecurityTier(principal.tier), profile, told), told.output_bytes)

    async def create(
        self, order: Order, inputs: Sequence[str], *, count: int = 1, one: AtWork | None = None
    ) -> Principal:
        """Bring agents to life: by one decision, whereupon the rules of their file come in force and its tools are connected.

        Args:
            order: Who.
            inputs: Names of the inputs that are there.
            count: How many are made of the declaration.
            one: The run that the agent is made for: what is in line for it is durable with the decision.

        Returns:
            Who they are to policies, with the tier of their code, which policies may have raised.

        Raises:
            Denied: Policy does not let them be created, or connected.
            InputError: The file asks for less than is needed, or for what there is not.
            Unavailable: A tool server, or the store, cannot be used.
        """
        spec, servers = self.bounded(order.spec), self._rooms.catalog.servers
        refuse_unenforceable(spec.limits)
        assessment, tier = assess_agent(spec, servers, self._config.least_tier)
        principal = replace(
            self._rooms.principal(spec.id),
            instance=order.instance,
            tier=tier.value,
            capabilities=spec.capabilities or (),
        )
        action = CreateAgent(
            principal=principal,
            source_digest=spec.source_digest,
            tier=tier,
            risk=assessment.score,
            inputs=tuple(inputs),
            factors=assessment.factors.texts(),
            count=count,
            within=None if one is None else one.record.run_id,
        )
        async with self._admission(order.compiled):
            tier = await self._created(action, assessment, one)
        principal = replace(principal, tier=tier.value)
        await self.connect(servers_of(spec, servers), principal)
        return principal

    async def _created(self, action: CreateAgent, assessment: RiskAssessment, one: AtWork | None) -> SecurityTier:
        """The tier that the decision gives."""
        guard = self._rooms.world.guard

        async def create() -> SecurityTier:
            async with guard.enforce(action, None if one is None else one.later) as permit:
                if one is not None:
                    await one.recorded()  # with the decision: that the run begins
                effective = guard.authority.redeem(permit, CreateAgent).tier
                permit.observe({"tier": effective.value, "risk": assessment.facts()})
            return effective

        return await self._rooms.world.hold(create)

    @asynccontextmanager
    async def allocated(
        self, spec: AgentSpec, principal: Principal, one: AtWork
    ) -> AsyncIterator[tuple[ResourceLimits, Turn]]:
        """The limits that the agent gets, which policies may have lowered, and its turn; its own until the block ends."""
        terms, life = self._rooms.terms(spec.id), one.life
        action = AllocateResources(
            principal=principal,
            limits=spec.limits,
            priority=terms.priority,
            budget=one.line[0].most if one.line else UNBOUNDED,
            within=life.run_id,
        )
        guard = self._rooms.world.guard

        async def note(event: Event, more: Mapping[str, JsonValue]) -> None:
            was = life.state
            life.move(event, more)
            try:
                await self.record(one)
            except BaseException:
                life.state = was  # for it is tried again
                raise

        seats: list[Seat] = []

        async def allocate() -> tuple[ResourceLimits, Seat]:
            async with guard.enforce(action, one.later) as permit:
                await one.recorded()  # with the decision: that the agent was created
                allowed = guard.authority.redeem(permit, AllocateResources)
                if allowed.budget != action.budget:
                    account = one.line[0] if one.line else Account(one.record.run_id, one.record.agent_id)
                    one.line = await self.budgets.cap(account, allowed.budget)
                config = AgentConfig(
                    principal.name, allowed.limits, allowed.priority, principal.owner, batch=terms.batch
                )
                seats.append(await self.turns.take(config, note))
                seats[-1].stopped_by = one.suspended_by or seats[-1].stopped_by  # who came before there was a seat
            return allowed.limits, seats[-1]

        try:
            yield await self._rooms.world.hold(allocate)
        finally:
            for seat in seats:  # also where it was taken, and that could not be recorded
                await self.turns.leave(seat)

    async def suspend(self, agent: AgentId, by: str) -> None:
        """An operator suspends an agent at work: before its next effect, or at once where it waits, see `symbi.runtime.turns`.

        One that has no seat yet is suspended once it has one. One that stays is suspended also where its run has no
        effect left: it begins with no other message.

        Raises:
            InputError: It is not at work, or is suspended by an operator already.
            StoreUnavailable: It cannot be recorded.
        """
        found = [one for one in self.at_work.values() if one.life.agent == agent and not one.suspended_by]
        for one in found:
            one.suspended_by = by
        if found and self.turns.seat_of(agent) is None:
            return
        try:
            await self.turns.suspend(agent, by)
        except BaseException:
            for one in found:
                one.suspended_by = ""
            raise

    def resume(self, agent: AgentId) -> None:
        """An operator lets an agent go on that is at work and suspended.

        Raises:
            InputError: It is not.
        """
        found = [one for one in self.at_work.values() if one.life.agent == agent and one.suspended_by]
        seat = self.turns.seat_of(agent)
        if not found or (seat is not None and seat.stopped_by is not None):
            self.turns.resume(agent)
        for one in found:
            one.suspended_by = ""

    async def ended_early(self, record: RunRecord, error: SymbiError, state: RunState, also: Also = tuple) -> None:
        """A run that could not begin, or go on: held where a dependency or an answer was missing, failed otherwise.

        What it was held for before, it is held for still. `also` says what else is written with that.
        """
        if record.error is not None:
            kept = decode_error(record.error).fields
            error.fields |= {name: kept[name] for name in ("position", SUSPENDED) if name in kept}
        await self._close(record, error, state, also)

    async def ended_at_rest(self, record: RunRecord, error: SymbiError, moves: Sequence[Draft]) -> None:
        """An open run that is not at work has failed.

        Args:
            record: As it stands, opened.
            error: Why.
            moves: What that makes of its agent.
        """
        await self._close(record, error, RunState.FAILED, lambda: moves)

    async def _close(self, record: RunRecord, error: SymbiError, state: RunState, also: Also) -> None:
        clock, log, runs = self._rooms.world.clock, self._rooms.world.log, self._rooms.runs
        ended = replace(record, state=state, error=encode_error(error), finished_at=rfc3339(clock.now_ns()))
        about = join_subjects(kept_task(record.grant, record.labels).everybody, error_label(error).subjects)
        keys = await keys_for(self._rooms.world.guard.vault, record.declared, about, wait=True)
        kept, draft = sealed_run(ended, keys), confided(_finished(ended, error), keys)

        def end() -> tuple[None, tuple[Draft, ...]]:
            if record.state is RunState.HELD:
                runs.move_run(replace(record, state=RunState.RUNNING, error=None, finished_at=None), RunState.HELD)
            runs.move_run(kept, RunState.RUNNING)
            return None, (draft, *also())

        await log.transact(end, wait=True)

    async def ended_erased(self, record: RunRecord, was: RunState, error: InputError) -> None:
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
