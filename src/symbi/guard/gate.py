"""THE GATE. Every effect of every agent passes `Guard.enforce`.

1. put the action, with what came before it, to the policy engine (default deny, forbid wins, any error denies);
2. carry out the conditions of the permits that fired, and have the changed action rechecked; where people must agree,
   hold it at the desk (`symbi.guard.desk`) until it is asked for again and they have;
3. in one transaction: reserve the effect in the ledger, in counters and rates, and with its approval, append the
   decision to the trail, mark the effect dispatched; go back to 1 if the policy set, the approval, or what came before
   changed meanwhile so that the decision would be another; wait until it is durable;
4. mint the permit;
5. on leaving, in one transaction: append the outcome and settle the ledger.

What rides with an effect of the store (`symbi.guard.riders`) is done in the transactions of 3 and 5.
If the store cannot commit step 3, the effect does not happen. If it cannot commit step 5, the caller gets the store's
error and the effect stays `dispatched`, which the next start turns into `unknown`.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, TypeVar, cast

import anyio

from symbi.audit.event import AuditEventType, Draft
from symbi.audit.log import AuditLog, Enlisted
from symbi.clock import Clock, IdSource
from symbi.errors import (
    ApprovalPending,
    ApprovalRequired,
    EffectInDoubt,
    InputError,
    InternalError,
    Overloaded,
    PolicyDenied,
    RateLimited,
    StoreUnavailable,
    SymbiError,
    Unavailable,
)
from symbi.guard.action import Action, Canary
from symbi.guard.approval import ApprovalRecord, HeldCase, agreed_facts
from symbi.guard.conditions import ONE_BY_ONE, effective_of, require_leasable
from symbi.guard.confidential import confided, failure_subjects, keys_for, sealed_effect, subjects_of
from symbi.guard.desk import ApprovalChanged, ApprovalDesk
from symbi.guard.earlier import Places
from symbi.guard.history import Claim, FactsChanged, History
from symbi.guard.lease import Lease
from symbi.guard.ledger import EffectRecord, EffectState
from symbi.guard.outcome import encode_error, encode_result, mark_error
from symbi.guard.permit import Authority, Permit
from symbi.guard.recorder import Decided, Recorder
from symbi.guard.records import decision_draft, log_decision, record_refused
from symbi.guard.riders import NO_RIDERS, Riders
from symbi.guard.settlement import Admission, Settlement
from symbi.guard.tally import GateStore
from symbi.guard.vault import Keys, Vault
from symbi.policy.approval import parse_demands
from symbi.policy.decision import AllowWithConditions, Deny, PolicyDecision, PolicyRequest
from symbi.policy.engine import PolicyEngine
from symbi.policy.flow import join, join_subjects
from symbi.policy.history import Past, supply
from symbi.policy.obligations import combine
from symbi.policy.policies import PolicySet
from symbi.telemetry import ADMISSION_SECONDS, DECISION_SECONDS, DECISIONS, Metrics
from symbi.types import SYSTEM_AGENT, EffectId, JsonValue, Label, Principal

A = TypeVar("A", bound=Action)

CANARY_POLICY: Final = "symbi.canary"
NOTHING: Final[Mapping[str, JsonValue]] = {}
MAX_RECHECKS: Final = 8  # times a decision is made again because the policy set, or what came before, changed under it
RETRY_AFTER_S: Final = 1.0  # when they change faster than decisions are made


@dataclass(frozen=True, slots=True)
class GateReport:
    """What start-up found.

    Attributes:
        enforcing: Decisions are enforced; otherwise they are only recorded.
        policies: Number of policies in the set.
        policy_version: Its digest.
        in_doubt: Effects that may or may not have happened and must not be repeated, oldest first: a person decides.
    """

    enforcing: bool
    policies: int
    policy_version: str
    in_doubt: tuple[EffectRecord, ...]


class _PolicyChanged(Exception):
    """The policy set was replaced between decision and reservation."""


def told_nobody(_decided: Decided) -> None:
    """The default of `Guard.tell`: nothing."""


def no_barrier() -> None:
    """The default of `Guard.barrier`: effects may happen."""


def no_probe(_point: str) -> None:
    """The default of `probe`: nothing."""


class Guard:
    """The reference monitor.

    Args:
        engine: Decides.
        log: Makes decisions and outcomes durable.
        ledger: Keeps effect records and counts, in the log's store.
        clock: For durations and permits' ends.
        ids: Makes effect ids.
        epoch: The owner number of the data folder; every record carries it.
        enforcing: False decides and records but lets everything through; development mode only.
        metrics: Counts decisions, effects and how long they take.
        approvals: Where actions wait for people; without it, what needs an approval is denied.
        vault: Has the keys of data subjects; without it, what is about one is refused.
        probe: Called at named points around an effect; tests crash the process there.
    """

    def __init__(  # noqa: PLR0913 - the gate stands between that many rooms
        self,
        engine: PolicyEngine,
        log: AuditLog,
        ledger: GateStore,
        clock: Clock,
        ids: IdSource,
        *,
        epoch: int,
        enforcing: bool = True,
        metrics: Metrics | None = None,
        approvals: ApprovalDesk | None = None,
        vault: Vault | None = None,
        probe: Callable[[str], None] = no_probe,
    ) -> None:
        self.engine = engine
        self._log = log
        self._ledger = ledger
        self._clock = clock
        self._ids = ids
        self._epoch = epoch
        self._enforcing = enforcing
        self.metrics = metrics or Metrics()
        self.approvals = approvals
        self.vault = vault
        self.probe = probe
        self.tell: Callable[[Decided], None] = told_nobody  # once a decision is on record; neither raises nor waits
        self.barrier: Callable[[], None] = no_barrier  # raises where no effect may happen, whatever policy says
        self.authority = Authority(clock)
        self._recorder = Recorder(engine, epoch)
        self.settlement = self._settlement = Settlement(log, ledger, clock, self.metrics, vault, epoch, probe)
        self._history = History(ledger, clock, str(epoch))
        self.places = Places(log, ledger, vault)
        engine.on_change(self._policies_changed)

    async def open(self) -> GateReport:
        """Settle what the last owner left in flight, and prove that the gate closes.

        Raises:
            InternalError: The canary was not denied by its own policy: the runtime must not start.
            StoreUnavailable: The store cannot be used.
        """
        in_doubt = await self._settlement.recover(self._epoch)
        try:
            async with self.enforce(Canary(principal=Principal(SYSTEM_AGENT))):
                msg = "the gate let the canary pass"
                raise InternalError(msg, code="internal.canary")
        except PolicyDenied as denial:
            if denial.fields.get("policies") != [CANARY_POLICY]:
                msg = f"the canary was denied for another reason than its own policy: {denial.message}"
                raise InternalError(msg, code="internal.canary") from denial
        current = self.engine.current
        return GateReport(self._enforcing, len(current.policies), current.version, in_doubt)

    @asynccontextmanager
    async def enforce(
        self, action: A, later: list[Enlisted[None]] | None = None, riders: Riders = NO_RIDERS
    ) -> AsyncIterator[Permit[A]]:
        """Let an action happen, if policy permits: the body of the `async with` is the effect, and `riders` what is done beside.

        With `later`, a success goes on record with the next commit, and whoever asked waits for what is put there.

        Raises:
            PolicyDenied: The decision is no, or could not be made.
            ApprovalPending: A person has been asked to agree: ask again once one has.
            ApprovalRequired: A person had to agree and did not.
            EffectInDoubt: The action was in flight at this place of the run before, and must not be repeated.
            InternalError: What is on record at this place of the run may not be asked for again.
            InputError: The arguments cannot be put to the engine, or do not fit once conditions changed them.
            StoreUnavailable: The decision, or the outcome, could not be made durable.
        """
        self.probe("asked")
        try:
            admission = await self._admit(action, riders=riders)
        except Overloaded as overload:
            if action.slot is None:
                raise
            # Nothing is on record at this place of the run: a body that caught this and went on could not be replayed.
            raise StoreUnavailable(
                overload.message, code="unavailable.undecided", retry_after_s=overload.retry_after_s
            ) from overload
        self.probe("dispatched")
        effective = cast("A", admission.action)
        permit = self.authority.mint(admission.record.effect_id, effective, since_s=admission.since_s)
        try:
            yield permit
            result = encode_result(permit.observed)
        except BaseException as error:
            used = self.authority.uses_left(permit) == 0
            self.authority.close(permit)
            whom = join_subjects(admission.subjects, failure_subjects(admission.action))
            mark_error(error, join(admission.action.mark, Label(subjects=whom)))
            self.probe("before_settle")
            admission = replace(admission, noted=permit.noted)
            await self._settlement.failure(admission, error, used=used)
            raise
        self.probe("done")
        self.authority.close(permit)
        self.probe("before_settle")
        admission = replace(admission, noted=permit.noted)
        await self._settlement.success(admission, permit.observed, result, later)
        self.probe("settled")
        if riders.after is not None:
            if later:
                await later[-1].durable()  # nothing is let go of before what has taken its place is there
            last = self.authority.mint(admission.record.effect_id, effective)
            try:
                await riders.after(last)
            finally:
                self.authority.close(last)

    async def refuse(self, action: Action, refusal: SymbiError, draft: Draft) -> None:
        """Record, at its place in the run, an action that was refused before it could be put to the policy engine.

        Raises:
            EffectInDoubt: It was in flight at this place before the restart, so nobody can say that it did not happen.
            StoreUnavailable: The refusal could not be made durable.
        """
        keys = await keys_for(self.vault, action.principal.agent, subjects_of(action), wait=True)
        earlier = await self.places.earlier(action, refused=True)
        decision = Deny(refusal.message, (), self.engine.current.version)
        effect_id = EffectId(self._ids.new()) if earlier is None else earlier.effect_id
        record = self._recorder.record(
            Decided(effect_id, action, action.request, decision, keys), EffectState.DENIED, earlier
        )
        record = sealed_effect(replace(record, error=encode_error(refusal)), keys)
        draft = confided(replace(draft, details={**draft.details, "effect_id": effect_id}), keys)
        await self._put_refusal(action, record, draft, earlier, refusal)

    @asynccontextmanager
    async def lease(self, action: A, *, uses: int, seconds: float) -> AsyncIterator[Lease[A]]:
        """One decision for many small effects of one kind: the trail holds the grant and, at its close, what was used.

        A new policy set ends the lease at once. Tool calls, code and model calls are never leased.

        Args:
            action: What every use does; its arguments may differ between uses and are digested by `Lease.use`.
            uses: How often it may be used.
            seconds: How long it holds.

        Raises:
            PolicyDenied: The decision is no.
            PermitRefused: `permit.one_by_one`; policy wants each of the effects decided by itself.
            InternalError: This kind of action cannot be leased.
            StoreUnavailable: Grant or close could not be made durable.
        """
        if not action.leasable or action.slot is not None:
            msg = f"`{action.kind}` is decided one by one and cannot be leased"
            raise InternalError(msg, code="internal.lease")
        bound = {"uses": uses, "seconds": round(seconds)}
        leased = replace(action, leased=True)
        if "history" in self.engine.current.reads:
            await self._require_leasable(leased)
        admission = await self._admit(leased, AuditEventType.LEASE_GRANTED, {"lease": bound}, uses=uses)
        permit = self.authority.mint(
            admission.record.effect_id, cast("A", admission.action), uses=uses, seconds=seconds
        )
        lease = Lease(self.authority, permit, admission.keys)
        if self.engine.current.version != admission.record.policy_version:
            self.authority.close(permit)  # the set changed between grant and here: the lease ends unused
        try:
            yield lease
        finally:
            self.authority.close(permit)
            record = replace(admission.record, state=EffectState.CONFIRMED, result=encode_result(lease.account()))
            record = sealed_effect(record, admission.keys)
            with anyio.CancelScope(shield=True):
                self.probe("before_settle")
                await self._settlement.settle(admission, record, lease.account(), AuditEventType.LEASE_CLOSED)

    async def _require_leasable(self, action: Action) -> None:
        """Ask about one effect alone: a lease is told the count of all that it stands for, which may deny it before.

        Raises:
            PermitRefused: Policy wants each of them decided by itself.
        """
        policies = self.engine.current
        decision = self._decide(action, await self._past(action, policies, 1, None))
        if isinstance(decision, AllowWithConditions):
            require_leasable(action, combine(decision.conditions))

    # --- step 1 to 3 ----------------------------------------------------------------------------

    async def _admit(
        self,
        action: Action,
        kind: AuditEventType = AuditEventType.DECISION_ALLOW,
        extra: Mapping[str, JsonValue] = NOTHING,
        *,
        uses: int = 1,
        riders: Riders = NO_RIDERS,
    ) -> Admission:
        self.barrier()
        started_s = self._clock.monotonic_s()
        keys = await self._keys(action)
        earlier = await self.places.earlier(action)
        effect_id = earlier.effect_id if earlier is not None else EffectId(self._ids.new())
        if earlier is not None:
            action = replace(action, attempt=earlier.attempt + 1)
        for _ in range(MAX_RECHECKS):
            policies = self.engine.current
            past = await self._past(action, policies, uses, earlier)
            if self.engine.current is not policies:
                continue
            told = past.recorded(policies.reads)
            asked = partial(_question, action, policies, past)
            decided = Decided(effect_id, action, asked, self._decide(action, past), keys)
            decision = decided.decision
            try:
                effective, obligations = effective_of(action, decision, enforcing=self._enforcing)
                entries = self._history.entries(effective, policies, uses)
                wanted = parse_demands((*obligations.approvals, *action.approvals()))
                approval = await self._approved(
                    HeldCase(action, effective, decision, wanted, effect_id, earlier is not None, keys)
                )
            except ApprovalPending:
                self.metrics.inc(DECISIONS, action=action.kind, verdict="held")
                self.probe("held")
                raise
            except (Overloaded, StoreUnavailable):
                raise  # nobody was asked, and so nobody refused
            except SymbiError as refusal:
                await self._refuse(decided, refusal, earlier, told)
                raise
            agreed = decided if approval is None else replace(decided, effect_id=approval.id)
            record = self._recorder.record(agreed, EffectState.DISPATCHED, earlier)
            draft = decision_draft(effective, record, decision, obligations.record)
            details = {**draft.details, **told, **agreed_facts(approval), **extra}
            draft = confided(replace(draft, event_type=kind, details=details), keys)
            claim = Claim(
                action, policies, past, decision, entries, obligations.rates, agreed.effect_id,
                earlier=earlier, approval=approval, riders=riders,
            )  # fmt: skip
            try:
                since_s = self._clock.monotonic_s()
                self.probe("before_dispatch")
                await self._log.transact(partial(self._reserve, record, draft, earlier, claim))
            except (_PolicyChanged, FactsChanged, ApprovalChanged):
                continue
            except (RateLimited, InputError) as refusal:
                # The approval is not used, and holds for the same action asked again: at its place in the run by the same
                # id, and elsewhere by one of its own, for what is asked there is another effect each time.
                refused = decided if action.slot is None else agreed
                await self._refuse(refused, refusal, earlier, {**told, **agreed_facts(approval)})
                raise
            self._tell_allowed(agreed, record, started_s)
            return Admission(
                record, effective, started_s, bool(entries or obligations.rates), subjects_of(action), keys, since_s,
                riders=riders,
            )  # fmt: skip
        msg = "the policy set, or what it reads, changes faster than a decision can be made"
        raise Overloaded(msg, retry_after_s=RETRY_AFTER_S)

    def _tell_allowed(self, decided: Decided, record: EffectRecord, started_s: float) -> None:
        self.tell(decided)
        self.metrics.inc(DECISIONS, action=decided.action.kind, verdict="allow")
        log_decision(record, "allow")
        self.metrics.observe(ADMISSION_SECONDS, self._clock.monotonic_s() - started_s)

    def _reserve(
        self, record: EffectRecord, draft: Draft, earlier: EffectRecord | None, claim: Claim
    ) -> tuple[None, tuple[Draft, ...]]:
        if not self.engine.holds(record.policy_version):
            raise _PolicyChanged
        self.probe("reserving")
        self._history.reserve(claim, self._decide)
        used = self.approvals.use(claim.approval) if claim.approval is not None and self.approvals is not None else None
        if earlier is None:
            self._ledger.put_effect(record)
        else:
            self._ledger.move_effect(record, earlier.state)
        claim.riders.decided()
        self.probe("reserved")
        return None, (draft,) if used is None else (used, draft)

    async def _approved(self, case: HeldCase) -> ApprovalRecord | None:
        """The approval under which a case may go on; None where nobody is asked.

        Raises:
            ApprovalPending, ApprovalRequired, InputError, StoreUnavailable: As `ApprovalDesk.demand`.
        """
        if not case.demands:
            return None
        if self.approvals is None or not case.action.holdable:
            wanted = ", ".join(demand.text for demand in case.demands)
            why = "nobody can be asked here" if self.approvals is None else f"`{case.action.kind}` cannot be held"
            msg = f"a person must approve this first, and {why}: {wanted}"
            raise ApprovalRequired(msg)
        approval = await self.approvals.demand(case)
        self.probe("approved")
        return approval

    async def _past(self, action: Action, policies: PolicySet, uses: int, earlier: EffectRecord | None) -> Past:
        """What came before; the store is read where policies ask about it."""
        look = partial(self._history.look, action, policies, uses=uses, earlier=earlier)
        return await self._log.read(look) if policies.reads - {"time"} else look()

    async def _keys(self, action: Action) -> Keys:
        """The keys of whom an action is about, made if they are not there; raises as `keys_for`."""
        return await keys_for(self.vault, action.principal.agent, subjects_of(action))

    def _decide(self, action: Action, past: Past) -> PolicyDecision:
        current = self.engine.current
        version = current.version
        asked_s = self._clock.monotonic_s()
        try:
            decision = self.engine.decide(_question(action, current, past))
            took_s = self._clock.monotonic_s() - asked_s
            self.metrics.observe(DECISION_SECONDS, took_s)
            self.probe("decided")
            return self.engine.in_time(decision, took_s)
        except InputError as error:
            return Deny(f"the action cannot be put to the engine: {error}", (), version, (str(error),))
        except Exception as error:  # noqa: BLE001 - whatever an engine raises is a no, and is recorded as one
            return Deny("the policy engine failed", (), version, (f"{type(error).__name__}: {error}",))

    async def _refuse(
        self, decided: Decided, refusal: SymbiError, earlier: EffectRecord | None, told: Mapping[str, JsonValue]
    ) -> None:
        """Record a refusal: nothing happened, and the trail says why, and what the decision was told of the past."""
        if refusal.code == ONE_BY_ONE:
            return  # a lease alone is refused: whoever wanted it asks for each
        action, decision = decided.action, decided.decision
        self.metrics.inc(DECISIONS, action=action.kind, verdict="deny")
        if earlier is None and isinstance(refusal, ApprovalRequired) and "approval" in refusal.fields:
            decided = replace(decided, effect_id=EffectId(str(refusal.fields["approval"])))
        record = self._recorder.record(decided, EffectState.DENIED, earlier)
        record = sealed_effect(replace(record, error=encode_error(refusal)), decided.keys)
        draft = decision_draft(action, record, decision, record_refused(decision), refusal)
        draft = confided(replace(draft, details={**draft.details, **told}), decided.keys)
        log_decision(record, "deny")
        await self._put_refusal(action, record, draft, earlier, refusal)
        if action.session:  # a client may ask later why
            refusal.fields["effect_id"] = decided.effect_id
        self.tell(decided)

    async def _put_refusal(
        self, action: Action, record: EffectRecord, draft: Draft, earlier: EffectRecord | None, refusal: SymbiError
    ) -> None:
        in_doubt = earlier is not None and earlier.state is EffectState.UNKNOWN

        def work() -> tuple[None, tuple[Draft]]:
            if in_doubt:
                self._ledger.put_facts(record)
            else:
                if earlier is None:
                    self._ledger.put_effect(record)
                else:
                    self._ledger.move_effect(record, earlier.state)
                self._history.refused(action, self.engine.current, record)
            if self.approvals is not None and isinstance(refusal, ApprovalRequired):
                self.approvals.told(record.effect_id)
            return None, (draft,)

        await self._log.transact(work, wait=True)
        if in_doubt:
            msg = f"`{record.resource}` was in flight before, and cannot be repeated: {refusal.message}"
            doubt = EffectInDoubt(msg, effect_id=record.effect_id, position=record.position)
            if isinstance(refusal, Unavailable | RateLimited):  # only not just now
                doubt.fields["retry_after_s"] = refusal.fields.get("retry_after_s", RETRY_AFTER_S)
            raise doubt from refusal

    def _policies_changed(self, _policies: PolicySet) -> None:
        """A new set ends every lease; permits of effects already dispatched are a decision that was made."""
        self.authority.revoke_leases()


def _question(action: Action, policies: PolicySet, past: Past) -> PolicyRequest:
    """What is put to the engine: the action's own request, and what came before."""
    return supply(policies.counters, policies.reads, action.request(), past)
