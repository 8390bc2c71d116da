"""What watches a trail for one piece of evidence each: events in one after the other, a result out.

Memory is bounded but for the tests of pairs: `followed_by` keeps the events whose partner has not come yet, and
`preceded_by` an entry for each value that partners had.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Final, Protocol

from symbi.audit.event import AuditEvent, AuditEventType
from symbi.clock import parse_rfc3339
from symbi.compliance.framework import (
    AtLeast,
    Claim,
    Every,
    InForce,
    NoneOfThem,
    Paired,
    Source,
    Verified,
    fits,
    holds_all,
    reached,
    values_of,
)
from symbi.crypto.canonical import canonical_json
from symbi.types import JsonValue

FIRST_SAMPLES: Final = 3  # of the events behind a piece of evidence: so many from the beginning
LAST_SAMPLES: Final = 2  # and so many from the end
MAX_SHOWN_CHARS: Final = 80  # of a value that a reason quotes
NS_PER_S: Final = 1_000_000_000
NS_PER_DAY: Final = 86_400 * NS_PER_S


class Finding(StrEnum):
    """What was found of one piece of evidence."""

    HOLDS = "holds"
    CONTRADICTED = "contradicted"
    """Events say otherwise."""
    NOT_EVIDENCED = "not evidenced"
    """Nothing was found, or less than was asked for."""


class Side(IntEnum):
    """Where a moment lies, as seen from a period."""

    BEFORE = -1
    INSIDE = 0
    AFTER = 1


@dataclass(frozen=True, slots=True)
class Period:
    """The time that a report is about.

    Attributes:
        since: RFC 3339 in UTC with nine decimals; the first moment of it.
        until: Likewise; the first moment after it.
    """

    since: str
    until: str

    def side(self, timestamp: str) -> Side:
        """Where a moment lies; such texts sort as times do."""
        if timestamp < self.since:
            return Side.BEFORE
        return Side.INSIDE if timestamp < self.until else Side.AFTER


@dataclass(frozen=True, slots=True)
class Found:
    """Some of the events behind a finding, and how many there are.

    Attributes:
        count: How many there are.
        samples: The first and the last of them.
    """

    count: int = 0
    samples: tuple[AuditEvent, ...] = ()


@dataclass(frozen=True, slots=True)
class ClaimResult:
    """What was found of one piece of evidence.

    Attributes:
        claim: Which.
        finding: What was found.
        reason: The same in a sentence.
        bearing: The events that bear on it.
        against: Those that contradict it.
    """

    claim: Claim
    finding: Finding
    reason: str
    bearing: Found = field(default_factory=Found)
    against: Found = field(default_factory=Found)


class Gauge(Protocol):
    """Watches the trail for one piece of evidence."""

    def take(self, event: AuditEvent, side: Side) -> None:
        """See an event; `side` tells where it lies, as seen from the period."""

    def result(self, end_ns: int) -> ClaimResult:
        """What was found; `end_ns` is when the trail ends."""


class _Tally:
    """Counts events and keeps the first and the last of them."""

    def __init__(self) -> None:
        self._count = 0
        self._first: list[AuditEvent] = []
        self._last: deque[AuditEvent] = deque(maxlen=LAST_SAMPLES)

    def add(self, event: AuditEvent) -> None:
        self._count += 1
        if len(self._first) < FIRST_SAMPLES:
            self._first.append(event)
        else:
            self._last.append(event)

    @property
    def count(self) -> int:
        return self._count

    def found(self) -> Found:
        return Found(self._count, (*self._first, *self._last))


class _Count:
    """`at_least`, and the longest stretch without an event."""

    def __init__(self, claim: Claim, test: AtLeast, period: Period) -> None:
        self._claim, self._test = claim, test
        self._seen = _Tally()
        self._at_ns = parse_rfc3339(period.since)
        self._until_ns = parse_rfc3339(period.until)
        self._gap_ns = 0

    def take(self, event: AuditEvent, side: Side) -> None:
        if side is Side.INSIDE and self._claim.query.matches(event):
            self._seen.add(event)
            self._reach(parse_rfc3339(event.timestamp))

    def _reach(self, at_ns: int) -> None:
        self._gap_ns = max(self._gap_ns, at_ns - self._at_ns)
        self._at_ns = at_ns

    def result(self, end_ns: int) -> ClaimResult:
        found, test = self._seen.found(), self._test
        if found.count < test.count:
            reason = _few(found.count, test.count)
            return ClaimResult(self._claim, Finding.NOT_EVIDENCED, reason, found)
        if test.each_days:
            self._reach(max(self._at_ns, min(self._until_ns, end_ns)))
            if self._gap_ns > test.each_days * NS_PER_DAY:
                days = f"{self._gap_ns / NS_PER_DAY:.1f}"
                reason = (
                    f"{_events(found.count)}, with {days} days between two or at an end; {test.each_days} are allowed"
                )
                return ClaimResult(self._claim, Finding.NOT_EVIDENCED, reason, found)
        return ClaimResult(self._claim, Finding.HOLDS, _events(found.count), found)


class _None:
    """`none`."""

    def __init__(self, claim: Claim) -> None:
        self._claim = claim
        self._seen = _Tally()

    def take(self, event: AuditEvent, side: Side) -> None:
        if side is Side.INSIDE and self._claim.query.matches(event):
            self._seen.add(event)

    def result(self, end_ns: int) -> ClaimResult:  # noqa: ARG002 - the end of the trail means nothing to it
        found = self._seen.found()
        if found.count:
            reason = f"{_events(found.count)} that should not be there"
            return ClaimResult(self._claim, Finding.CONTRADICTED, reason, against=found)
        return ClaimResult(self._claim, Finding.HOLDS, "no such event")


class _Every:
    """`every`, with what holds for each event."""

    def __init__(self, claim: Claim, test: Every) -> None:
        self._claim, self._test = claim, test
        self._holds, self._fails = _Tally(), _Tally()

    def take(self, event: AuditEvent, side: Side) -> None:
        if side is Side.INSIDE and self._claim.query.matches(event):
            (self._holds if holds_all(self._test.conditions, event) else self._fails).add(event)

    def result(self, end_ns: int) -> ClaimResult:  # noqa: ARG002 - the end of the trail means nothing to it
        return _each(self._claim, self._holds.found(), self._fails.found(), "it does not hold for")


@dataclass(frozen=True, slots=True)
class _Waiting:
    event: AuditEvent
    at_ns: int
    mine: JsonValue


class _Pairs:
    """`followed_by` and `preceded_by`. A partner may lie outside of the period."""

    def __init__(self, claim: Claim, test: Paired) -> None:
        self._claim, self._test = claim, test
        self._holds, self._fails = _Tally(), _Tally()
        self._waiting: dict[bytes, list[_Waiting]] = {}
        self._before: dict[bytes, list[tuple[int, JsonValue]]] = {}
        self._within_ns = test.within_s * NS_PER_S

    def take(self, event: AuditEvent, side: Side) -> None:
        test = self._test
        if test.partner.matches(event):
            self._take_partner(event)
        if side is not Side.INSIDE or not self._claim.query.matches(event):
            return
        one = _Waiting(event, parse_rfc3339(event.timestamp), self._value(event, 0))
        key = self._key(event)
        if key is None:  # nothing could belong to it
            self._fails.add(event)
        elif test.after:
            self._waiting.setdefault(key, []).append(one)
        else:
            found = any(self._fit(one, *partner) for partner in self._before.get(key, ()))
            (self._holds if found else self._fails).add(event)

    def _take_partner(self, event: AuditEvent) -> None:
        key = self._key(event)
        if key is None:
            return
        at_ns, theirs = parse_rfc3339(event.timestamp), self._value(event, 1)
        if not self._test.after:
            told = self._before.setdefault(key, [])
            if not told or self._within_ns or self._test.differ is not None:
                told.append((at_ns, theirs))
            return
        waiting = self._waiting.pop(key, None)
        if waiting is None:
            return
        left = []
        for one in waiting:
            if self._fit(one, at_ns, theirs):
                self._holds.add(one.event)
            else:
                left.append(one)
        if left:
            self._waiting[key] = left

    def _fit(self, one: _Waiting, at_ns: int, theirs: JsonValue) -> bool:
        in_time = not self._within_ns or abs(at_ns - one.at_ns) <= self._within_ns
        return in_time and (self._test.differ is None or (theirs is not None and one.mine != theirs))

    def _value(self, event: AuditEvent, side: int) -> JsonValue:
        if self._test.differ is None:
            return None
        return next(iter(values_of(event, self._test.differ[side])), None)

    def _key(self, event: AuditEvent) -> bytes | None:
        values = [next(iter(values_of(event, path)), None) for path in self._test.same]
        return None if any(value in (None, "") for value in values) else canonical_json(values)

    def result(self, end_ns: int) -> ClaimResult:
        for waiting in self._waiting.values():
            for one in waiting:
                if not self._within_ns or one.at_ns + self._within_ns < end_ns:
                    self._fails.add(one.event)
        found = "nothing of the kind follows" if self._test.after else "nothing of the kind stands before"
        return _each(self._claim, self._holds.found(), self._fails.found(), found)


class _State:
    """What was in force in the period, as events record it that stand before or in it."""

    def __init__(self, claim: Claim, test: InForce) -> None:
        self._claim, self._condition = claim, test.condition
        self._before: AuditEvent | None = None
        self._holds, self._fails, self._silent = _Tally(), _Tally(), _Tally()

    def take(self, event: AuditEvent, side: Side) -> None:
        if side is Side.AFTER:
            return
        stopped = event.event_type is AuditEventType.RUNTIME_STOPPED  # between two runtimes nothing is in force
        if side is Side.BEFORE:
            self._before = None if stopped else event
            return
        self._begin()
        if not stopped:
            self._judge(event)

    def _begin(self) -> None:
        """What was in force when the period began counts too."""
        if self._before is not None:
            self._judge(self._before)
            self._before = None

    def _judge(self, event: AuditEvent) -> None:
        found = self._values(event)
        if not found:
            self._silent.add(event)
        elif all(self._condition.holds_for([one]) for one in found):
            self._holds.add(event)
        else:
            self._fails.add(event)

    def _values(self, event: AuditEvent) -> list[JsonValue]:
        if self._claim.source is Source.POLICIES:
            return list(reached(event.details, self._condition.path.split(".")))
        recorded = event.details.get("configuration")
        return [value for key, value in settings(recorded) if fits_key(key, self._condition.path)]

    def result(self, end_ns: int) -> ClaimResult:  # noqa: ARG002 - the end of the trail means nothing to it
        self._begin()
        silent = self._silent.found()
        if silent.count:
            reason = f"what was recorded does not say `{self._condition.path}`"
            return ClaimResult(self._claim, Finding.NOT_EVIDENCED, reason, against=silent)
        failed = self._fails.found()
        if failed.samples:
            values = ", ".join(dict.fromkeys(shown(one) for one in self._values(failed.samples[-1])))
            reason = f"`{self._condition.path}` was {values} in {failed.count} of {self._holds.count + failed.count}"
            return ClaimResult(self._claim, Finding.CONTRADICTED, reason, self._holds.found(), failed)
        return _each(self._claim, self._holds.found(), failed, "it does not hold for")


class _Whole:
    """The verification, which came before."""

    def __init__(self, claim: Claim, test: Verified, size: int) -> None:
        self._claim, self._test, self._size = claim, test, size

    def take(self, event: AuditEvent, side: Side) -> None:
        """The events were seen by the verifier."""

    def result(self, end_ns: int) -> ClaimResult:  # noqa: ARG002 - the end of the trail means nothing to it
        after_first = max(self._size - 1, 0)
        if after_first < self._test.count:
            return ClaimResult(self._claim, Finding.NOT_EVIDENCED, _few(after_first, self._test.count))
        return ClaimResult(self._claim, Finding.HOLDS, f"all {_events(self._size)} verify", Found(self._size))


def settings(recorded: JsonValue) -> Iterable[tuple[str, JsonValue]]:
    """The keys and values of a recorded configuration."""
    return recorded.items() if isinstance(recorded, Mapping) else ()


def fits_key(key: str, pattern: str) -> bool:
    """Whether a key of the configuration fits a pattern, in which `*` stands for one part of it."""
    parts, wanted = key.split("."), pattern.split(".")
    return len(parts) == len(wanted) and all(fits(part, one) for part, one in zip(parts, wanted, strict=True))


def shown(value: JsonValue) -> str:
    """A recorded value in a sentence."""
    text = value if isinstance(value, str) else canonical_json(value).decode()
    return f"`{text}`" if len(text) <= MAX_SHOWN_CHARS else f"`{text[:MAX_SHOWN_CHARS]}\u2026`"


def watched(claim: Claim) -> frozenset[AuditEventType]:
    """The types of events that a gauge has to see."""
    types = set(claim.query.types) if claim.source is not Source.VERIFICATION else set()
    if isinstance(claim.test, Paired):
        types.update(claim.test.partner.types)
    if isinstance(claim.test, InForce):
        types.add(AuditEventType.RUNTIME_STOPPED)
    return frozenset(types)


def gauge_of(claim: Claim, period: Period, size: int) -> Gauge:
    """What watches for a piece of evidence.

    Args:
        claim: Which.
        period: What it is asked of.
        size: How many events the whole trail has.
    """
    match claim.test:
        case AtLeast() as test:
            return _Count(claim, test, period)
        case NoneOfThem():
            return _None(claim)
        case Every() as test:
            return _Every(claim, test)
        case Paired() as test:
            return _Pairs(claim, test)
        case InForce() as test:
            return _State(claim, test)
        case Verified() as test:
            return _Whole(claim, test, size)


def _each(claim: Claim, holds: Found, fails: Found, why: str) -> ClaimResult:
    if fails.count:
        reason = f"{why} {fails.count} of {_events(holds.count + fails.count)}"
        return ClaimResult(claim, Finding.CONTRADICTED, reason, holds, fails)
    if not holds.count:
        return ClaimResult(claim, Finding.NOT_EVIDENCED, _few(0, 1))
    return ClaimResult(claim, Finding.HOLDS, _events(holds.count), holds)


def _events(count: int) -> str:
    return "1 event" if count == 1 else f"{count} events"


def _few(count: int, wanted: int) -> str:
    if count:
        return f"{_events(count)}, and {wanted} are asked for"
    return "no event shows it"
