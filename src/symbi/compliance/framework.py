"""What a framework is: controls, each with the evidence that would show it and the test that the evidence has to pass.

Values only. `symbi.compliance.parse` reads them from TOML, `symbi.compliance.evaluate` puts them to a trail.
"""

import fnmatch
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias

from symbi.audit.event import AuditEvent, AuditEventType
from symbi.types import JsonValue

Scalar: TypeAlias = bool | int | str

ROOTS: Final = ("agent_id", "run_id", "details")
"""Where a path into an event begins."""


class Source(StrEnum):
    """What a piece of evidence is looked for in."""

    TRAIL = "trail"
    """Events of the period."""
    CONFIGURATION = "configuration"
    """Each configuration that was in force in the period, as `runtime.started` recorded it."""
    POLICIES = "policies"
    """Each policy set that was in force in the period, as `policy.changed` recorded it."""
    VERIFICATION = "verification"
    """The verification of the whole trail, without which there is no report."""


STATE_EVENTS: Final[Mapping[Source, AuditEventType]] = {
    Source.CONFIGURATION: AuditEventType.RUNTIME_STARTED,
    Source.POLICIES: AuditEventType.POLICY_CHANGED,
}
"""The events that record what is in force from then on."""


@dataclass(frozen=True, slots=True)
class Condition:
    """What one value has to be; each part that is given holds.

    Attributes:
        path: Where the value stands, names joined by dots; `*` stands for every element or key.
        one_of: It is one of these; of several values, any.
        none_of: It is none of these; of several values, every one. A value that is missing is none of them.
        like: It is a text that fits a pattern of `*` and `?`.
        present: It is there and not empty, or it is not.
        at_least: It is a number, or a text that is one, not below this.
        at_most: Likewise, not above this.
    """

    path: str
    one_of: tuple[Scalar, ...] = ()
    none_of: tuple[Scalar, ...] = ()
    like: str = ""
    present: bool | None = None
    at_least: int | None = None
    at_most: int | None = None

    def holds(self, value: JsonValue) -> bool:
        """Whether it holds for what the path leads to in a value."""
        return self.holds_for(list(reached(value, self.path.split("."))))

    def holds_for(self, found: Sequence[JsonValue]) -> bool:
        """Whether it holds for the values that a path led to."""
        if self.one_of and not any(_is_one_of(one, self.one_of) for one in found):
            return False
        if self.none_of and any(_is_one_of(one, self.none_of) for one in found):
            return False
        if self.like and not any(isinstance(one, str) and fits(one, self.like) for one in found):
            return False
        if self.present is not None and any(one not in (None, "", [], {}) for one in found) is not self.present:
            return False
        if self.at_least is not None and not any(n >= self.at_least for n in _numbers(found)):
            return False
        return self.at_most is None or any(n <= self.at_most for n in _numbers(found))

    def text(self) -> str:
        """The condition in words."""
        path = f"`{self.path}`"
        parts = []
        if self.one_of:
            parts.append(f"{path} is {_listed(self.one_of)}")
        if self.none_of:
            parts.append(f"{path} is not {_listed(self.none_of)}")
        if self.like:
            parts.append(f"{path} is like `{self.like}`")
        if self.present is not None:
            parts.append(f"{path} is {'there' if self.present else 'not there'}")
        if self.at_least is not None:
            parts.append(f"{path} is {self.at_least} or more")
        if self.at_most is not None:
            parts.append(f"{path} is {self.at_most} or less")
        return " and ".join(parts)


@dataclass(frozen=True, slots=True)
class Query:
    """Which events are meant.

    Attributes:
        types: Of one of these types.
        where: And all of this holds; the paths begin with one of `ROOTS`.
    """

    types: tuple[AuditEventType, ...]
    where: tuple[Condition, ...] = ()

    def matches(self, event: AuditEvent) -> bool:
        """Whether an event is meant."""
        return event.event_type in self.types and holds_all(self.where, event)

    def text(self) -> str:
        """The query in words."""
        types = _listed(tuple(one.value for one in self.types))
        return types + "".join(f", {condition.text()}" for condition in self.where)


@dataclass(frozen=True, slots=True)
class AtLeast:
    """There are so many events, and within each stretch of so many days there is one.

    Attributes:
        count: How many; 1 or more.
        each_days: Longest stretch without one, in days; 0 asks for none.
    """

    count: int
    each_days: int = 0


@dataclass(frozen=True, slots=True)
class NoneOfThem:
    """There is no such event. By itself it shows nothing: no event at all would pass."""


@dataclass(frozen=True, slots=True)
class Every:
    """There are such events, and further conditions hold for each."""

    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Paired:
    """There are such events, and each has a partner elsewhere in the trail.

    Attributes:
        after: The partner stands after it; else before it.
        partner: Which events can be partners.
        same: Paths whose values are the same in both.
        within_s: Longest time between them in seconds; 0 sets no bound.
        differ: Path in the event, and path in the partner, whose values are different; or empty.
    """

    after: bool
    partner: Query
    same: tuple[str, ...]
    within_s: int = 0
    differ: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class InForce:
    """Something was in force in the period, and a condition held for all that was."""

    condition: Condition


@dataclass(frozen=True, slots=True)
class Verified:
    """The trail verifies, and holds so many events beside the one that begins it."""

    count: int


Test: TypeAlias = AtLeast | NoneOfThem | Every | Paired | InForce | Verified


@dataclass(frozen=True, slots=True)
class Claim:
    """One piece of evidence: where it is looked for, and what must hold of it.

    Attributes:
        id: Unique in its control.
        says: What it shows where it holds, in a sentence.
        source: Where it is looked for.
        query: Which events it rests on.
        test: What must hold.
    """

    id: str
    says: str
    source: Source
    query: Query
    test: Test

    @property
    def positive(self) -> bool:
        """Whether it holds only where there is something to see."""
        return not isinstance(self.test, NoneOfThem)

    def looked_for(self) -> str:
        """Query and test in words, for whoever wants to look again."""
        match self.test:
            case AtLeast(count, days):
                spread = f", and one within each {days} days" if days else ""
                return f"at least {count} of {self.query.text()}{spread}"
            case NoneOfThem():
                return f"none of {self.query.text()}"
            case Every(conditions):
                return f"every one of {self.query.text()}: {' and '.join(c.text() for c in conditions)}"
            case Paired(after, partner, same, within_s, differ):
                told = f"every one of {self.query.text()} {'followed' if after else 'preceded'} by {partner.text()}"
                told += f", with the same {_listed(same, 'and')}"
                told += f", within {duration(within_s)}" if within_s else ""
                return told + (f", where `{differ[0]}` is not its `{differ[1]}`" if differ else "")
            case InForce(condition):
                return f"each {'configuration' if self.source is Source.CONFIGURATION else 'policy set'} in force: {condition.text()}"
            case Verified(count):
                return (
                    f"the whole trail verifies, with at least {count} event{'s' if count > 1 else ''} after its first"
                )


@dataclass(frozen=True, slots=True)
class Applies:
    """When a control is of any concern.

    Attributes:
        claim: Holds where it is.
        otherwise: Why it is not, in a sentence.
    """

    claim: Claim
    otherwise: str


@dataclass(frozen=True, slots=True)
class Control:
    """One demand of a framework.

    Attributes:
        id: Unique in its framework.
        title: Its name.
        citation: Where it stands.
        question: What it asks, in own words.
        claims: The evidence; all of it must hold. Without any, software cannot tell.
        applies: When it is of concern; None for always.
        cannot_know: What software cannot tell of it.
    """

    id: str
    title: str
    citation: str
    question: str
    claims: tuple[Claim, ...]
    applies: Applies | None
    cannot_know: tuple[str, ...]

    def all_claims(self) -> Iterator[Claim]:
        """Its evidence, and what decides whether it applies."""
        yield from self.claims
        if self.applies is not None:
            yield self.applies.claim


@dataclass(frozen=True, slots=True)
class Framework:
    """A set of demands.

    Attributes:
        id: Its name at the command line.
        title: Its name.
        citation: The law or standard.
        about: What it covers here, and what it leaves out.
        controls: In their order.
        digest: SHA-256 of the file, hex.
    """

    id: str
    title: str
    citation: str
    about: str
    controls: tuple[Control, ...]
    digest: str


def holds_all(conditions: Sequence[Condition], event: AuditEvent) -> bool:
    """Whether all conditions hold for an event."""
    return all(condition.holds_for(values_of(event, condition.path)) for condition in conditions)


def values_of(event: AuditEvent, path: str) -> list[JsonValue]:
    """What a path leads to in an event."""
    root, *rest = path.split(".")
    match root:
        case "agent_id":
            return [event.agent_id]
        case "run_id":
            return [event.run_id]
        case _:
            return list(reached(event.details, rest))


def reached(value: JsonValue, names: Sequence[str]) -> Iterator[JsonValue]:
    """What a path leads to, which is nothing where a name is missing."""
    if not names:
        yield value
        return
    name, rest = names[0], names[1:]
    if isinstance(value, Mapping):
        found = list(value.values()) if name == "*" else [value[name]] if name in value else []
    elif isinstance(value, Sequence) and not isinstance(value, str) and name == "*":
        found = list(value)
    else:
        return
    for one in found:
        yield from reached(one, rest)


def duration(seconds: int) -> str:
    """A number of seconds in the largest unit that divides it."""
    for unit, length in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds % length == 0:
            return f"{seconds // length} {unit}{'s' if seconds > length else ''}"
    return f"{seconds} s"


def fits(text: str, pattern: str) -> bool:
    """Whether a text fits a pattern of `*` and `?`, which alone mean something in it."""
    escaped = pattern.replace("[", "[[]")
    return re.match(fnmatch.translate(escaped), text) is not None


def _is_one_of(value: JsonValue, wanted: Sequence[Scalar]) -> bool:
    return any(type(value) is type(one) and value == one for one in wanted)


def _numbers(found: Sequence[JsonValue]) -> Iterator[float]:
    for one in found:
        if isinstance(one, bool):
            continue
        if isinstance(one, int | float):
            yield one
        elif isinstance(one, str) and re.fullmatch(r"-?[0-9]{1,18}(\.[0-9]{1,18})?", one):
            yield float(one)


def _listed(values: Sequence[Scalar], word: str = "or") -> str:
    shown = [f"`{str(one).lower() if isinstance(one, bool) else one}`" for one in values]
    return f" {word} ".join((", ".join(shown[:-1]), shown[-1])) if len(shown) > 1 else shown[0]
