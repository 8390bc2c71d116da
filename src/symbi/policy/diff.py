"""Two policy sets compared: by their policies, and by what they decide on the same requests.

A request was recorded with what the set in force then read of the time and of what came before. What another set reads
beyond that is not known any more: it is taken as zero or false, and each difference names it.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from symbi.errors import InputError
from symbi.policy.cases import verdict_of
from symbi.policy.decision import VOLATILE, AllowWithConditions, Deny, PolicyDecision, PolicyRequest
from symbi.policy.engine import decide
from symbi.policy.history import offline
from symbi.policy.policies import PolicySet
from symbi.policy.slice import SliceTooLarge
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
    """A request on which two sets do not agree.

    Attributes:
        effect_id: The effect that it was made for.
        request: As it was recorded.
        shift: What becomes of it.
        old: What the one set decides.
        new: What the other does.
        assumed: Facts that one of them reads and that were not recorded: taken as zero or false.
    """

    effect_id: EffectId
    request: PolicyRequest
    shift: Shift
    old: PolicyDecision
    new: PolicyDecision
    assumed: tuple[str, ...] = ()


def compare_sets(old: PolicySet, new: PolicySet) -> SetChange:
    """What is another in the new set. A policy that stands elsewhere, or is written otherwise, is the same."""
    both = old.by_id.keys() & new.by_id.keys()
    return SetChange(
        tuple(sorted(new.by_id.keys() - both)),
        tuple(sorted(old.by_id.keys() - both)),
        tuple(sorted(name for name in both if old.by_id[name].json != new.by_id[name].json)),
    )


def compare_decisions(
    old: PolicySet,
    new: PolicySet,
    recorded: Iterable[RecordedRequest],
    on_assumed: Callable[[tuple[str, ...]], None] = lambda _: None,
) -> Iterable[Difference]:
    """The recorded requests on which two sets do not agree, in their order. Each is decided twice.

    Args:
        old: The one set.
        new: The other.
        recorded: What both are asked.
        on_assumed: Told of the facts that a request lacks, whether or not the sets agree on it.
    """
    for one in recorded:
        (before, lacked), (after, lacks) = judge_recorded(old, one.request), judge_recorded(new, one.request)
        assumed = tuple(sorted({*lacked, *lacks}))
        if assumed:
            on_assumed(assumed)
        shift = shift_between(before, after)
        if shift is not None:
            yield Difference(one.effect_id, one.request, shift, before, after, assumed)


def judge_recorded(policies: PolicySet, request: PolicyRequest) -> tuple[PolicyDecision, tuple[str, ...]]:
    """What a set decides on a recorded request, and the facts that it reads there and that were not recorded."""
    told = request.context.get("history", {})
    known = {fact for counter in policies.counters for fact in counter.facts}
    history = {name: value for name, value in told.items() if name in known} if isinstance(told, Mapping) else told
    asked = replace(request, context={**request.context, "history": history})
    try:
        decision = decide(policies, offline(policies.counters, asked))
    except InputError as error:  # what cannot be added up is denied by the gate as well
        decision = Deny(error.message, (), policies.version, (str(error),))
    return decision, tuple(sorted(set(_unrecorded(policies, request))))


def _unrecorded(policies: PolicySet, request: PolicyRequest) -> Iterable[str]:
    """Of `VOLATILE`, what policies that concern a request read and it lacks; counters each by its name."""
    try:
        parts = policies.slices.of(request)
    except SliceTooLarge:  # it is denied, whatever the facts are
        return
    for part in parts:
        read = dict.fromkeys(VOLATILE & policies.reads) if part.reads.everything else part.reads.fields
        for name in VOLATILE & read.keys():
            told = request.context.get(name)
            if name != "history":
                if told is None:
                    yield name
                continue
            facts = read[name] or [fact for counter in policies.counters for fact in counter.facts]
            yield from (f"{name}.{fact}" for fact in facts if not isinstance(told, Mapping) or fact not in told)


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
