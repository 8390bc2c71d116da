"""Step 5 of the gate: how an effect ended, made durable with its event; and what a start-up finds in flight."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from symbi.audit.event import AuditEventType, Draft
from symbi.audit.log import AuditLog, Enlisted
from symbi.clock import Clock
from symbi.errors import InternalError, SymbiError, Unavailable
from symbi.guard.action import Action
from symbi.guard.budget import cost_of, settle
from symbi.guard.confidential import confided, failure_subjects, keys_for, outcome_subjects, sealed_effect
from symbi.guard.history import tally_id
from symbi.guard.ledger import EffectRecord, EffectState
from symbi.guard.outcome import NOT_STARTED_JSON, UNANSWERED, encode_error, error_label, state_after
from symbi.guard.records import is_removable, may_repeat, never_began, recorded_result
from symbi.guard.riders import NO_RIDERS, Riders
from symbi.guard.spending import NOTHING
from symbi.guard.tally import GateStore
from symbi.guard.vault import NO_KEYS, Keys, Vault
from symbi.policy.flow import join_subjects
from symbi.telemetry import EFFECT_SECONDS, EFFECTS, Metrics
from symbi.types import EffectId, JsonValue, RecoveryClass

INTERRUPTED: Final = "effect.interrupted"
"""Code of an effect of the runtime itself that ended with its process."""
INTERRUPTED_JSON: Final = encode_error(Unavailable("the runtime ended meanwhile", code=INTERRUPTED))


@dataclass(frozen=True, slots=True)
class Admission:
    """What step 3 made durable, with what step 5 needs; `counted` where it added to counters or rates.

    `since_s` was before it was durable, so before anybody else could know of it. `noted` is how it was carried out.
    `riders` is what is done beside.
    """

    record: EffectRecord
    action: Action
    started_s: float
    counted: bool = False
    subjects: tuple[str, ...] = ()
    keys: Keys = NO_KEYS
    since_s: float | None = None
    noted: Mapping[str, JsonValue] = field(default_factory=dict)
    riders: Riders = NO_RIDERS


@dataclass(frozen=True, slots=True)
class Conclusion:
    """What came out of an effect in doubt.

    Attributes:
        happened: Whether it happened.
        by: Who says so: the tool that was asked, or a person.
        result: Its result as JSON, where it happened.
        told: Why, and what else the event says.
        over: Nobody asks for it again, for its run has ended, or it belongs to none.
        unseen: Its body was not told of the error that is on record of it, or is about to hear of it anew: it is held there.
        keys: Seal what is kept of it.
    """

    happened: bool
    by: str
    result: bytes = b"null"
    told: Mapping[str, JsonValue] = field(default_factory=dict)
    over: bool = False
    unseen: bool = False
    keys: Keys = NO_KEYS


class Settlement:
    """Writes outcomes.

    Args:
        log: Makes them durable.
        ledger: Keeps effect records and counts, in the log's store.
        clock: For durations.
        metrics: Counts effects and how long they take.
        vault: Has the keys of whom outcomes are about.
        epoch: The owner number of the data folder.
        probe: Called at named points; see `symbi.guard.gate.Guard`.

    Attributes:
        lost_s: When calls that this process has begun, and that can be looked up, were lost, so that nobody knows of them; by
            the monotonic clock.
    """

    def __init__(
        self,
        log: AuditLog,
        ledger: GateStore,
        clock: Clock,
        metrics: Metrics,
        vault: Vault | None = None,
        epoch: int = 0,
        probe: Callable[[str], None] = lambda _point: None,
    ) -> None:
        self._probe = probe
        self._epoch = epoch
        self.lost_s: dict[EffectId, float] = {}
        self._vault = vault
        self._log = log
        self._ledger = ledger
        self._clock = clock
        self._metrics = metrics

    async def success(
        self, admission: Admission, observed: object, result: bytes, later: list[Enlisted[None]] | None = None
    ) -> None:
        """The effect happened, with this result; `observed` is what `result` encodes; `later` as of `Guard.enforce`."""
        keys = await self._keys(admission, outcome_subjects(admission.action, observed))
        record = sealed_effect(replace(admission.record, state=EffectState.CONFIRMED, result=result), keys)
        assert record.result is not None
        hidden = is_removable(admission.action)
        details = recorded_result(admission.record, result, record.result, hidden=hidden)
        await self.settle(replace(admission, keys=keys), record, details, later=later)

    async def _keys(self, admission: Admission, subjects: tuple[str, ...]) -> Keys:
        """The keys of an outcome: of whom the action is about, and of whom else the outcome is."""
        if not subjects:
            return admission.keys
        everybody = join_subjects(admission.subjects, subjects)
        return await keys_for(self._vault, admission.record.agent_id, everybody, wait=True)

    async def failure(self, admission: Admission, error: BaseException, *, used: bool) -> None:
        """The effect ended in an error; `used` says whether its permit was redeemed, so that it may have begun."""
        state = state_after(error, used=used, recovery=admission.record.recovery)
        told: tuple[str, ...] = ()
        if isinstance(error, SymbiError):
            data: bytes | None = None if error.code == UNANSWERED else encode_error(error)
            told = error_label(error).subjects  # it may quote what is about others than the action was
            details: dict[str, JsonValue] = {"error": error.code, "message": error.message}
        else:
            # Cancelled, or a defect: whether to do it again is for the restart to decide.
            data = None if used else NOT_STARTED_JSON
            details = {"error": "cancelled" if _is_cancellation(error) else "internal", "message": type(error).__name__}
        whom = join_subjects(told, failure_subjects(admission.action) if used else ())
        keys = await self._keys(admission, whom)
        record = sealed_effect(replace(admission.record, state=state, error=data), keys)
        if state is EffectState.UNKNOWN and record.recovery is RecoveryClass.RECONCILABLE:
            self.lost_s[record.effect_id] = self._clock.monotonic_s()
        await self.settle(replace(admission, keys=keys), record, details | {"used": used}, used=used)

    async def settle(
        self,
        admission: Admission,
        record: EffectRecord,
        details: Mapping[str, JsonValue],
        kind: AuditEventType = AuditEventType.EFFECT_OUTCOME,
        *,
        used: bool = True,
        later: list[Enlisted[None]] | None = None,
    ) -> None:
        """Move the record on from `dispatched`, with its event.

        What it counts for and what it costs become final; both are given back where its permit was not `used`, so that
        it did not happen, and stay open where nobody knows.

        Raises:
            StoreUnavailable: It cannot be made durable; the effect stays `dispatched`.
        """
        draft = Draft(
            kind,
            record.agent_id,
            {
                "effect_id": record.effect_id,
                "action": record.action,
                "resource": record.resource,
                "outcome": record.state.value,
                "attempt": record.attempt,
                "duration_us": round((self._clock.monotonic_s() - admission.started_s) * 1e6),
                **details,
                **admission.noted,
            },
            record.run_id,
        )
        draft = confided(draft, admission.keys)

        def work() -> tuple[None, tuple[Draft]]:
            self._probe("recording")
            if record.state is EffectState.CONFIRMED:
                admission.riders.succeeded()
            self._ledger.move_effect(record, EffectState.DISPATCHED)
            if not (used and record.state is EffectState.UNKNOWN):
                if admission.counted:
                    self._ledger.settle_tallies(tally_id(record.effect_id, record.attempt), happened=used)
                if cost_of(admission.action) != NOTHING:
                    settle(self._ledger, record.effect_id, happened=used)
            self._probe("recorded")
            return None, (draft,)

        self._metrics.inc(EFFECTS, action=admission.action.kind, outcome=record.state.value)
        self._metrics.observe(
            EFFECT_SECONDS, self._clock.monotonic_s() - admission.started_s, action=admission.action.kind
        )
        if later is None:
            await self._log.transact(work, wait=True)  # what happened is recorded, however much waits
        else:
            later.append(await self._log.enlist(work, wait=True))

    async def conclude(self, found: EffectRecord, conclusion: Conclusion) -> EffectRecord:
        """Put on record what came out of an effect in doubt; returns its record, with the result as it was told.

        One that happened is `reconciled`. One that did not stays `unknown` with a note that it never began, so that its
        run asks for it again, through the gate; where nobody does, it is `reconciled` with that note. What a body has
        seen of it already, an error, stays as it is.

        Args:
            found: Its record, opened.
            conclusion: What came out.

        Raises:
            InternalError: Somebody else has settled it meanwhile, or it was tried again.
            StoreUnavailable: It cannot be made durable.
        """
        heard = found.error is not None and not never_began(found) and not conclusion.unseen
        seen = found.error if heard else None
        happened = conclusion.happened
        record = replace(
            found,
            epoch=self._epoch,
            state=EffectState.RECONCILED if happened or conclusion.over or seen else EffectState.UNKNOWN,
            result=conclusion.result if happened and seen is None else None,
            error=seen or (None if happened else NOT_STARTED_JSON),
        )
        kept = sealed_effect(record, conclusion.keys)
        details: dict[str, JsonValue] = {
            "effect_id": record.effect_id,
            "action": record.action,
            "resource": record.resource,
            "position": record.position,
            "attempt": record.attempt,
            "outcome": "happened" if happened else "not_happened",
            "state": record.state.value,
            "by": conclusion.by,
            **conclusion.told,
        }
        if kept.result is not None:
            details |= recorded_result(record, conclusion.result, kept.result)
        event = Draft(AuditEventType.EFFECT_RECONCILED, record.agent_id, details, record.run_id)
        draft = confided(event, conclusion.keys)

        def work() -> tuple[None, tuple[Draft]]:
            stands = self._ledger.effect_at(record.run_id, record.position)  # None for what has no place in a run
            if stands is not None and stands.attempt != record.attempt:
                msg = f"effect `{record.effect_id}` was tried again meanwhile: what was found out is about an earlier attempt"
                raise InternalError(msg, code="internal.effect_stale", effect_id=record.effect_id)
            self._ledger.move_effect(kept, EffectState.UNKNOWN)
            self._ledger.settle_tallies(tally_id(record.effect_id, record.attempt), happened=happened)
            settle(self._ledger, record.effect_id, happened=happened)
            return None, (draft,)

        self._probe("concluding")
        await self._log.transact(work, wait=True)
        self._probe("concluded")
        self.lost_s.pop(record.effect_id, None)
        return record

    async def recover(self, epoch: int) -> tuple[EffectRecord, ...]:
        """Turn what is dispatched without an outcome into `unknown`; returns what must not be repeated.

        What the runtime did by itself and changes nothing (a connection, a reservation) ended with its process: it has
        failed, for nobody asks for it again, and there is nothing to find out.
        """

        def work() -> tuple[Sequence[EffectRecord], list[Draft]]:
            drafts: list[Draft] = []
            for found in self._ledger.effects_in(EffectState.DISPATCHED):
                if found.position < 0 and found.recovery is RecoveryClass.READ_ONLY:
                    drafts.append(self._interrupted(replace(found, epoch=epoch)))
                    continue
                self._ledger.move_effect(replace(found, state=EffectState.UNKNOWN, epoch=epoch), EffectState.DISPATCHED)
                drafts.append(
                    Draft(
                        AuditEventType.EFFECT_UNKNOWN,
                        found.agent_id,
                        {"effect_id": found.effect_id, "resource": found.resource, "recovery": found.recovery.value},
                        found.run_id,
                    )
                )
            return self._ledger.effects_in(EffectState.UNKNOWN), drafts

        unknown, _ = await self._log.transact(work)
        return tuple(record for record in unknown if not may_repeat(record, record.recovery))

    def _interrupted(self, found: EffectRecord) -> Draft:
        """Close an effect that ended with the process; inside the store's transaction."""
        self._ledger.move_effect(
            replace(found, state=EffectState.FAILED, error=INTERRUPTED_JSON), EffectState.DISPATCHED
        )
        self._ledger.settle_tallies(tally_id(found.effect_id, found.attempt), happened=True)
        settle(self._ledger, found.effect_id, happened=True)
        details: dict[str, JsonValue] = {
            "effect_id": found.effect_id,
            "action": found.action,
            "resource": found.resource,
            "outcome": EffectState.FAILED.value,
            "attempt": found.attempt,
            "error": INTERRUPTED,
        }
        return Draft(AuditEventType.EFFECT_OUTCOME, found.agent_id, details, found.run_id)


def _is_cancellation(error: BaseException) -> bool:
    return type(error).__name__ in {"CancelledError", "GeneratorExit", "KeyboardInterrupt"}
