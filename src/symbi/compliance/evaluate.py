"""Puts a framework to a trail: one pass over the events, values in, a result for each control out."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from symbi.audit.event import AuditEvent, AuditEventType
from symbi.clock import parse_rfc3339
from symbi.compliance.framework import Control, Framework, Source
from symbi.compliance.gauges import ClaimResult, Finding, Gauge, Period, Side, gauge_of, watched

NOT_EVIDENCED = "not evidenced"


class Status(StrEnum):
    """What a report says of a control."""

    MET = "met"
    NOT_MET = "not met"
    NOT_APPLICABLE = "not applicable"
    UNKNOWN = "cannot be known from here"


@dataclass(frozen=True, slots=True)
class ControlResult:
    """What a report says of a control.

    Attributes:
        control: Which.
        status: The word.
        reason: Why, in a sentence.
        evidenced: Whether any event bears on it.
        claims: Its evidence; empty where it does not apply.
        applies: What was found of whether it applies; None where it always does.
    """

    control: Control
    status: Status
    reason: str
    evidenced: bool
    claims: tuple[ClaimResult, ...]
    applies: ClaimResult | None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A framework put to a trail.

    Attributes:
        controls: In the order of the framework.
        events: How many events lie in the period.
        first: Sequence number of the first of them; 0 where there is none.
        last: That of the last.
    """

    controls: tuple[ControlResult, ...]
    events: int
    first: int
    last: int


def evaluate(framework: Framework, events: Iterable[AuditEvent], period: Period, *, size: int, end: str) -> Evaluation:
    """Put a framework to a trail that was verified.

    Args:
        framework: What is asked.
        events: All of the trail, oldest first.
        period: What it is asked of.
        size: How many events the trail has.
        end: Timestamp of the last.
    """
    gauges: dict[int, Gauge] = {}
    by_type: dict[AuditEventType, list[Gauge]] = {}
    for claim in (claim for control in framework.controls for claim in control.all_claims()):
        gauge = gauges[id(claim)] = gauge_of(claim, period, size)
        for kind in watched(claim):
            by_type.setdefault(kind, []).append(gauge)
    count = first = last = 0
    for event in events:
        side = period.side(event.timestamp)
        if side is Side.INSIDE and event.event_type is not AuditEventType.TRAIL_STARTED:
            count, first, last = count + 1, first or event.sequence, event.sequence
        for gauge in by_type.get(event.event_type, ()):
            gauge.take(event, side)
    end_ns = parse_rfc3339(end)
    results = {key: gauge.result(end_ns) for key, gauge in gauges.items()}
    return Evaluation(
        tuple(_judge(control, results, empty=count == 0) for control in framework.controls), count, first, last
    )


def _judge(control: Control, results: Mapping[int, ClaimResult], *, empty: bool) -> ControlResult:
    claims = tuple(results[id(claim)] for claim in control.claims)
    if not claims:
        reason = f"{NOT_EVIDENCED}: this is for people to show"
        return ControlResult(control, Status.UNKNOWN, reason, evidenced=False, claims=(), applies=None)
    applies = results[id(control.applies.claim)] if control.applies is not None else None
    if empty:
        reason = f"{NOT_EVIDENCED}: the trail has no event of this period"
        return ControlResult(control, Status.NOT_MET, reason, evidenced=False, claims=claims, applies=applies)
    if control.applies is not None and applies is not None and applies.finding is not Finding.HOLDS:
        unseen = applies.bearing.count + applies.against.count == 0
        if unseen and applies.claim.source is not Source.TRAIL:
            reason = f"{NOT_EVIDENCED}: whether it applies is not on record"
            return ControlResult(control, Status.NOT_MET, reason, evidenced=False, claims=(), applies=applies)
        reason = control.applies.otherwise
        return ControlResult(control, Status.NOT_APPLICABLE, reason, evidenced=False, claims=(), applies=applies)
    evidenced = any(result.bearing.count or result.against.count for result in claims)
    failed = [result for result in claims if result.finding is not Finding.HOLDS]
    if not failed:
        reason = "its evidence holds" if len(claims) == 1 else f"all {len(claims)} pieces of its evidence hold"
        return ControlResult(control, Status.MET, reason, evidenced=evidenced, claims=claims, applies=applies)
    first = next((one for one in failed if one.finding is Finding.CONTRADICTED), failed[0])
    reason = f"{first.finding.value}: \u201c{first.claim.says.rstrip('.')}\u201d; {first.reason}"
    if len(failed) > 1:
        verb = "does" if len(failed) == 2 else "do"  # noqa: PLR2004 - one more
        reason += f"; and {len(failed) - 1} more of its {len(claims)} pieces of evidence {verb} not hold"
    return ControlResult(control, Status.NOT_MET, reason, evidenced=evidenced, claims=claims, applies=applies)
