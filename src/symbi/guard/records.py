"""How actions and decisions stand in ledger and trail."""

import hashlib
from collections.abc import Mapping
from typing import Final

from symbi.crypto.canonical import canonical_json
from symbi.errors import InputError
from symbi.guard.action import Action, InvokeTool
from symbi.guard.ledger import EffectRecord
from symbi.guard.outcome import NOT_STARTED, encode_result
from symbi.policy.decision import Allow, AllowWithConditions, Deny, PolicyDecision
from symbi.policy.obligations import REDACTED
from symbi.types import JsonValue, RecoveryClass

MAX_RECORDED_ARGUMENTS_BYTES: Final = 4096  # larger arguments stand in the trail by digest and size


def may_repeat(record: EffectRecord) -> bool:
    """Whether an effect in doubt may be done again: it never began, changes nothing, or takes our id as its key."""
    if record.error is not None and f'"{NOT_STARTED}"'.encode() in record.error:
        return True
    return record.recovery in {RecoveryClass.READ_ONLY, RecoveryClass.IDEMPOTENT}


def action_name(action: Action) -> str:
    """The Cedar action, also where the action cannot be put to the engine."""
    return f"{action.kind}::{action.tool.name}" if isinstance(action, InvokeTool) else action.kind


def digest_arguments(action: Action) -> str:
    """SHA-256 (hex) of the canonical arguments; of their JSON text where they have no canonical form."""
    try:
        data = canonical_json(action.arguments())
    except InputError:
        data = encode_result(action.arguments())
    return hashlib.sha256(data).hexdigest()


def recorded_arguments(action: Action, how: str | None) -> Mapping[str, JsonValue]:
    """How arguments stand in the trail: whole where they are small and no policy says otherwise, else by size alone."""
    try:
        size = len(canonical_json(action.arguments()))
    except InputError:
        return {"arguments_unrepresentable": True}
    if how == "digest" or size > MAX_RECORDED_ARGUMENTS_BYTES:
        return {"arguments_bytes": size}
    if how == "redacted":
        return {"arguments": dict.fromkeys(action.arguments(), REDACTED)}
    return {"arguments": action.arguments()}


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
