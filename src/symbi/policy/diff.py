"""Two policy sets compared: by their policies, and by what they decide on the same requests."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from symbi.policy.cases import verdict_of
from symbi.policy.decision import AllowWithConditions, Deny, PolicyDecision, PolicyRequest
from symbi.policy.engine import decide
from symbi.policy.policies import PolicySet
from symbi.types import EffectId, JsonValue, PolicyId

MAX_ERRORS: Final = 4  # errors of one decision that are told


@dataclass(frozen=True, slots=True)
class SetChange:
    """Policies of one set and not of another, by id, sorted; a policy has changed where it says something else."""

    added: tuple[PolicyId, ...]
    removed: tuple[PolicyId, ...]
    changed: tuple[PolicyId, ...]


class Shift(StrEnum):
    """What becomes of a request under another set."""

    ALLOWED = "becomes allowed"
    DENIED = "becomes denied"
    CONDITIONS = "has other conditions"


@dataclass(frozen=True, slots=True)
class RecordedRequest:
    """A request as it was decided.

    Attributes:
        effect_id: The effect that it was made for.
        request: As the engine was asked.
        verdict: What was decided then.
    """

    effect_id: EffectId
    request: PolicyRequest
    verdict: str


@dataclass(frozen=True, slots=True)
class Difference:
    """A request on which two sets do not agree."""

    effect_id: EffectId
    request: PolicyRequest
    shift: Shift
    old: PolicyDecision
    new: PolicyDecision


def compare_sets(old: PolicySet, new: PolicySet) -> SetChange:
    """What is another in the new set. A policy that stands elsewhere, or is written otherwise, is the same."""
    both = old.by_id.keys() & new.by_id.keys()
    return SetChange(
        tuple(sorted(new.by_id.keys() - both)),
        tuple(sorted(old.by_id.keys() - both)),
        tuple(sorted(name for name in both if old.by_id[name].json != new.by_id[name].json)),
    )


def compare_decisions(old: PolicySet, new: PolicySet, recorded: Iterable[RecordedRequest]) -> Iterable[Difference]:
    """The recorded requests on which two sets do not agree, in their order. Each is decided twice."""
    for one in recorded:
        before, after = decide(old, one.request), decide(new, one.request)
        shift = shift_between(before, after)
        if shift is not None:
            yield Difference(one.effect_id, one.request, shift, before, after)


def shift_between(before: PolicyDecision, after: PolicyDecision) -> Shift | None:
    """What becomes of a request, or None where nothing does. Which policies decide, and why one denies, is no shift."""
    match before, after:
        case Deny(), Deny():
            return None
        case _, Deny():
            return Shift.DENIED
        case Deny(), _:
            return Shift.ALLOWED
        case _:
            return None if _asked(before) == _asked(after) else Shift.CONDITIONS


def _asked(decision: PolicyDecision) -> frozenset[tuple[str, str]]:
    conditions = decision.conditions if isinstance(decision, AllowWithConditions) else ()
    return frozenset((condition.kind.value, condition.value) for condition in conditions)


def difference_facts(before: PolicyDecision, after: PolicyDecision) -> dict[str, JsonValue]:
    """Both decisions as JSON: verdicts, policies, conditions and versions; no reasons, for those may be long."""
    return {"old": _facts(before), "new": _facts(after)}


def _facts(decision: PolicyDecision) -> dict[str, JsonValue]:
    return {
        "verdict": verdict_of(decision),
        "version": decision.version,
        "policies": [{"id": ref.id, "file": ref.file, "line": ref.line} for ref in decision.policies],
        "conditions": [list(pair) for pair in sorted(_asked(decision))],
        "errors": list(decision.errors[:MAX_ERRORS]) if isinstance(decision, Deny) else [],
    }
