"""How actions and decisions stand in ledger and trail."""

import hashlib
import json
import logging
from collections.abc import Mapping
from typing import Final

from symbi.audit.event import AuditEventType, Draft
from symbi.crypto.canonical import canonical_json
from symbi.errors import InputError, InternalError, SymbiError
from symbi.guard.action import Action, CallModel, ReadData, WriteData
from symbi.guard.ledger import EffectRecord
from symbi.guard.outcome import NOT_STARTED, decode_error, encode_result
from symbi.guard.sealed import is_sealed
from symbi.policy.decision import (
    Allow,
    AllowWithConditions,
    ConditionKind,
    Deny,
    PolicyCondition,
    PolicyDecision,
)
from symbi.policy.obligations import LOG_RANK, REDACTED, Obligations, combine
from symbi.telemetry import log_fields
from symbi.types import JsonValue, PolicyId, RecoveryClass

MAX_RECORDED_ARGUMENTS_BYTES: Final = 4096  # larger arguments stand in the trail by digest and size
MAX_RECORDED_RESULT_BYTES: Final = 4096  # likewise of results, where a policy asks for them
LOG_LEVELS: Final[Mapping[str, int]] = {name: logging.getLevelNamesMapping()[name.upper()] for name in LOG_RANK}

_log = logging.getLogger("symbi.guard")

_REPEATABLE: Final = frozenset({RecoveryClass.READ_ONLY, RecoveryClass.IDEMPOTENT})


def never_began(record: EffectRecord) -> bool:
    """Whether it is known of an effect that was cancelled that it had not begun; that is never sealed."""
    error = record.error
    return error is not None and not is_sealed(error) and decode_error(error).code == NOT_STARTED


def is_repeatable(record: EffectRecord, recovery: RecoveryClass) -> bool:
    """Whether an effect changes nothing, or takes our id as its key, as it was dispatched and as it is declared now."""
    return {record.recovery, recovery} <= _REPEATABLE


def may_repeat(record: EffectRecord, recovery: RecoveryClass) -> bool:
    """Whether an effect in doubt may be done again: it never began, changes nothing, or takes our id as its key.

    Args:
        record: As it stands; what it was dispatched with counts.
        recovery: Its class as declared now; a class that was taken back counts no more.
    """
    return never_began(record) or is_repeatable(record, recovery)


def action_name(action: Action) -> str:
    """The Cedar action, also where the action cannot be put to the engine."""
    return action.action


def digest_arguments(action: Action) -> str:
    """SHA-256 (hex) of the canonical arguments; of their JSON text where they have no canonical form. See `confidential.keyed`."""
    try:
        data = canonical_json(action.arguments())
    except InputError:
        data = encode_result(action.arguments())
    return hashlib.sha256(data).hexdigest()


def is_removable(action: Action) -> bool:
    """Whether it is about what is in memories or documents, or a model is told that and answers with it.

    That can be removed, and an event cannot: no word of it is in the trail, whatever a policy asks for.
    """
    return isinstance(action, ReadData | WriteData) or (isinstance(action, CallModel) and action.documents)


def recorded_arguments(action: Action, how: str | None) -> Mapping[str, JsonValue]:
    """How arguments stand in the trail: whole where they are small and no policy says otherwise, else by size alone.

    What is kept in a memory or knowledge base, what is looked for there, and what a model is told of it never stands in it, see
    `is_removable`.
    """
    try:
        size = len(canonical_json(action.arguments()))
    except InputError:
        return {"arguments_unrepresentable": True}
    if how == "digest" or size > MAX_RECORDED_ARGUMENTS_BYTES or is_removable(action):
        return {"arguments_bytes": size}
    if how == "redacted":
        return {"arguments": dict.fromkeys(action.arguments(), REDACTED)}
    return {"arguments": action.arguments()}


def record_refused(decision: PolicyDecision) -> str | None:
    """How the arguments of a refused action stand in the trail: by size alone where a condition would have hidden any."""
    conditions = decision.conditions if isinstance(decision, AllowWithConditions) else ()
    hidden = {ConditionKind.REDACT, ConditionKind.RECORD}
    return "digest" if any(condition.kind in hidden for condition in conditions) else None


def decision_draft(
    action: Action,
    record: EffectRecord,
    decision: PolicyDecision,
    how: str | None,
    refusal: SymbiError | None = None,
) -> Draft:
    """The event of a decision.

    Args:
        action: What was decided on, as conditions left it.
        record: Its record in the ledger.
        decision: The decision.
        how: How its arguments stand in the trail, see `recorded_arguments`.
        refusal: What refused it, if it was refused.
    """
    denied = refusal is not None
    details: dict[str, JsonValue] = {
        "effect_id": record.effect_id,
        "action": record.action,
        "resource": record.resource,
        "position": record.position,
        "attempt": record.attempt,
        "label": record.label,
        "recovery": record.recovery.value,
        "enforced": denied or not isinstance(decision, Deny),
        "arguments_digest": record.arguments_digest,
        **({} if record.facts is None else {"request_digest": record.facts.digest}),
        **({"session": action.session} if action.session else {}),
        **recorded_arguments(action, how),
        **decision_facts(decision),
        **audit_facts(decision),
    }
    if refusal is not None:
        details |= {"verdict": "deny", "reason": str(refusal), "code": refusal.code}
    kind = AuditEventType.DECISION_DENY if denied else AuditEventType.DECISION_ALLOW
    return Draft(kind, record.agent_id, details, record.run_id)


def audit_facts(decision: PolicyDecision) -> dict[str, JsonValue]:
    """What policies want whoever reads the trail to know: compliance tags, and for how many days to keep the event."""
    if not isinstance(decision, AllowWithConditions):
        return {}
    try:
        obligations = combine(decision.conditions)
    except InputError:  # this is the record of its refusal
        return {}
    facts: dict[str, JsonValue] = {}
    if obligations.tags:
        facts["compliance_tags"] = list(obligations.tags)
    if obligations.retention_days is not None:
        facts["retention_days"] = obligations.retention_days
    return facts


def obligations_of(record: EffectRecord) -> Obligations:
    """The conditions that an effect was decided with, as they stand in the ledger; so a resumed run obeys the same.

    Raises:
        InternalError: The record cannot be read.
    """
    if b'"conditions"' not in record.decision:
        return Obligations()
    try:
        written = json.loads(record.decision).get("conditions", ())
        conditions = [PolicyCondition(ConditionKind(c["kind"]), c["value"], PolicyId(c["policy"])) for c in written]
        return combine(conditions)
    except (ValueError, KeyError, TypeError, AttributeError, InputError) as error:
        msg = f"the conditions of effect `{record.effect_id}` cannot be read"
        raise InternalError(msg, code="internal.conditions") from error


def recorded_result(record: EffectRecord, result: bytes, kept: bytes, *, hidden: bool = False) -> dict[str, JsonValue]:
    """How a result stands in the trail: by digest and size, and in full where a policy asks for it and it is small.

    Args:
        record: The effect.
        result: What came back.
        kept: The same as the ledger keeps it, sealed where it is about somebody; the digest is of this.
        hidden: It never stands there in full.
    """
    facts: dict[str, JsonValue] = {"result_digest": hashlib.sha256(kept).hexdigest(), "result_bytes": len(result)}
    if not hidden and obligations_of(record).output == "full" and len(result) <= MAX_RECORDED_RESULT_BYTES:
        facts["result"] = result.decode()
    return facts


def log_decision(record: EffectRecord, verdict: str) -> None:
    """The line that policies ask for in the log, at the level they ask for; none where none does."""
    try:
        level = obligations_of(record).log_level
    except InternalError:  # why it was refused: nobody can say at which level to tell it, so it is told at the gravest
        level = "error"
    if level is not None:
        fields = log_fields(action=record.action, verdict=verdict, effect_id=record.effect_id, agent=record.agent_id)
        _log.log(LOG_LEVELS[level], "decision", extra=fields)


def decision_facts(decision: PolicyDecision) -> dict[str, JsonValue]:
    """Verdict, deciding policies with file and line, conditions, reason and errors as JSON."""
    facts: dict[str, JsonValue] = {
        "policy_version": decision.version,
        "policies": [{"id": ref.id, "file": ref.file, "line": ref.line} for ref in decision.policies],
    }
    match decision:
        case Allow():
            return facts | {"verdict": "allow"}
        case AllowWithConditions():
            conditions = [{"kind": c.kind.value, "value": c.value, "policy": c.policy} for c in decision.conditions]
            return facts | {"verdict": "allow_with_conditions", "conditions": conditions}
        case Deny():
            return facts | {"verdict": "deny", "reason": decision.reason, "errors": list(decision.errors)}
