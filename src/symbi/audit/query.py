"""Asking the trail: which events fit a filter, and how a person says it.

A filter's parts are joined by "and"; several types by "or". An event is judged by what it says of itself
(`symbi.audit.event.index_of`). A store finds the same events by its index, and whoever reads by the index judges each
event again (`judged`): the index is not signed, the event is.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Final, Protocol

from symbi.audit.event import AuditEvent, AuditEventType, index_of, parse_event
from symbi.audit.port import EventIndex, StoredEvent
from symbi.clock import rfc3339
from symbi.errors import ChainBroken, InputError, did_you_mean

VERDICTS: Final = ("allow", "allow_with_conditions", "deny")
LARGEST_SEQUENCE: Final = 2**63 - 1

_NS: Final = 1_000_000_000
_UNITS_S: Final = {"w": 604_800, "d": 86_400, "h": 3_600, "m": 60, "s": 1}
_RELATIVE: Final = re.compile(r"(?:(\d{1,6})w)?(?:(\d{1,6})d)?(?:(\d{1,6})h)?(?:(\d{1,8})m)?(?:(\d{1,10})s)?")
_ABSOLUTE: Final = re.compile(
    r"(\d{4}-\d{2}-\d{2})(?:[Tt ](\d{2}:\d{2}:\d{2})(?:\.(\d{1,9}))?([Zz]|[+-]\d{2}:\d{2}))?", re.ASCII
)
_RANGE: Final = re.compile(r"(\d{0,19})\.\.(\d{0,19})|(\d{1,19})", re.ASCII)


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Which events are wanted; what is None or empty asks for nothing.

    Attributes:
        agent: On whose behalf.
        run: In which run.
        types: Of one of these types.
        verdict: `deny`, `allow_with_conditions`, or `allow`, which takes both kinds of allowing.
        policy: A policy that decided.
        since: Not before this time; RFC 3339 in UTC with nine decimals, as events have it.
        until: Before this time; likewise.
        first: Least sequence number.
        last: Largest sequence number.
    """

    agent: str | None = None
    run: str | None = None
    types: tuple[AuditEventType, ...] = ()
    verdict: str | None = None
    policy: str | None = None
    since: str | None = None
    until: str | None = None
    first: int | None = None
    last: int | None = None

    @property
    def verdicts(self) -> tuple[str, ...]:
        """The verdicts that fit; empty where none is asked for."""
        if not self.verdict:
            return ()
        return ("allow", "allow_with_conditions") if self.verdict == "allow" else (self.verdict,)

    def fits(self, event: AuditEvent) -> bool:
        """Whether an event is wanted."""
        return (
            (self.first is None or event.sequence >= self.first)
            and (self.last is None or event.sequence <= self.last)
            and (self.since is None or event.timestamp >= self.since)
            and (self.until is None or event.timestamp < self.until)
            and self.fits_index(index_of(event.agent_id, event.run_id, event.event_type, event.details))
        )

    def fits_index(self, found: EventIndex) -> bool:
        """Whether an event that is found by this is wanted, its time and place aside."""
        return (
            (not self.agent or found.agent_id == self.agent)
            and (not self.run or found.run_id == self.run)
            and (not self.types or found.event_type in self.types)
            and (not self.verdict or found.verdict in self.verdicts)
            and (not self.policy or self.policy in found.policies)
        )


class EventSource(Protocol):
    """Where events are found by a filter: a store, or a reader of one."""

    def select(
        self, wanted: EventFilter, after: int = 0, limit: int | None = None, *, descending: bool = False
    ) -> Iterator[StoredEvent]:
        """Events that the index says fit, in order of sequence; to be judged again by `judged`.

        Args:
            wanted: Which.
            after: Only those after this sequence number; where descending, only those before it, and 0 is the end.
            limit: At most so many.
            descending: The newest first.

        Raises:
            StoreUnavailable: The store cannot be read.
            ChainBroken: A record on the way to a time cannot be read, or rows are out of order.
        """

    def read(self, first: int, last: int | None = None) -> Iterator[StoredEvent]:
        """Events from one sequence number to another, inclusive, in order."""

    def event_count(self) -> int:
        """Sequence number of the last event; 0 where there is none."""


def judged(wanted: EventFilter, found: Iterable[StoredEvent]) -> Iterator[AuditEvent]:
    """What was found by an index, read, and judged by what it says itself.

    Raises:
        ChainBroken: A record is no event, or not the one that the index says.
    """
    for stored in found:
        event = parse_event(stored.record, sequence=stored.sequence)
        if event.sequence != stored.sequence or not wanted.fits(event):
            msg = f"event {stored.sequence} is not what the store's index says of it"
            raise ChainBroken(
                msg, sequence=stored.sequence, reason="index", hint="`symbi audit verify` reads the events themselves"
            )
        yield event


# --- as people say it -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Asked:
    """A question in the words of whoever asks; `None` and empty ask for nothing.

    Attributes:
        agent: An agent.
        run: A run.
        types: Event types, or families such as `decision.*`.
        verdict: One of `VERDICTS`.
        policy: A policy.
        since: A time: RFC 3339, a date, or how long ago (`90s`, `2h`, `1d12h`).
        until: Likewise.
        span: Sequence numbers: `FROM..TO`, `FROM..`, `..TO` or one number.
    """

    agent: str | None = None
    run: str | None = None
    types: Sequence[str] = ()
    verdict: str | None = None
    policy: str | None = None
    since: str | None = None
    until: str | None = None
    span: str | None = None

    def words(self) -> bytes:
        """The same for the same question, whenever it is asked."""
        asked = [
            self.agent,
            self.run,
            sorted(set(self.types)),
            self.verdict,
            self.policy,
            self.since,
            self.until,
            self.span,
        ]
        return json.dumps(asked).encode()


def read_filter(asked: Asked, now_ns: int) -> EventFilter:
    """A question as a filter.

    Args:
        asked: The question.
        now_ns: What "ago" is counted from, in nanoseconds since the epoch.

    Raises:
        InputError: A type or a verdict is unknown, a time or a range is none, or one ends before it begins.
    """
    for name in ("agent", "run", "policy"):
        if getattr(asked, name) == "":
            msg = f"an empty {name} names nothing"
            raise InputError(msg, code="input.filter", hint=f"leave `--{name}` out to have all of them")
    if asked.verdict is not None and asked.verdict not in VERDICTS:
        msg = f"unknown verdict `{asked.verdict}`"
        hint = did_you_mean(asked.verdict, VERDICTS) or f"verdicts are {', '.join(VERDICTS)}"
        raise InputError(msg, code="input.verdict", hint=hint)
    since = None if asked.since is None else read_time(asked.since, now_ns)
    until = None if asked.until is None else read_time(asked.until, now_ns)
    if since is not None and until is not None and until <= since:
        msg = f"`{asked.until}` is not after `{asked.since}`: no event can lie between them"
        raise InputError(msg, code="input.time")
    first, last = (None, None) if asked.span is None else read_span(asked.span)
    return EventFilter(
        agent=asked.agent,
        run=asked.run,
        types=read_types(asked.types),
        verdict=asked.verdict,
        policy=asked.policy,
        since=since,
        until=until,
        first=first,
        last=last,
    )


def read_types(names: Iterable[str]) -> tuple[AuditEventType, ...]:
    """Event types by name, and whole families by `decision.*`; each once, in the order of the release's list.

    Raises:
        InputError: A name is unknown.
    """
    chosen: set[AuditEventType] = set()
    families = {kind.partition(".")[0] for kind in AuditEventType}
    for name in names:
        family = name.removesuffix(".*")
        if name in list(AuditEventType):
            chosen.add(AuditEventType(name))
        elif name.endswith(".*") and family in families:
            chosen.update(kind for kind in AuditEventType if kind.startswith(f"{family}."))
        else:
            msg = f"unknown event type `{name}`"
            known = [*AuditEventType, *(f"{one}.*" for one in families)]
            hint = f"did you mean `{name}.*`?" if name in families else did_you_mean(name, known)
            raise InputError(msg, code="input.event_type", hint=hint or f"types are {', '.join(AuditEventType)}")
    return tuple(kind for kind in AuditEventType if kind in chosen)


def read_time(text: str, now_ns: int) -> str:
    """A time as people write it, as events have it: RFC 3339 in UTC with nine decimals.

    Args:
        text: RFC 3339 with an offset; a date, which is its midnight in UTC; or how long ago, in `w`, `d`, `h`, `m`, `s`.
        now_ns: What "ago" is counted from, in nanoseconds since the epoch.

    Raises:
        InputError: It is none of them, or there is no such time.
    """
    try:
        relative = _RELATIVE.fullmatch(text)
        if relative is not None and text and text.isascii():
            ago_s = sum(
                int(count or 0) * unit_s for count, unit_s in zip(relative.groups(), _UNITS_S.values(), strict=True)
            )
            return rfc3339(max(0, now_ns - ago_s * _NS))
        absolute = _ABSOLUTE.fullmatch(text)
        if absolute is not None:
            return _in_utc(*absolute.groups())
        reason = "it is of another form"
    except (ValueError, OverflowError) as error:
        reason = str(error)
    msg = f"`{text[:64]}` is not a time: {reason}"
    raise InputError(
        msg, code="input.time", hint="write `2026-01-31T08:00:00Z`, `2026-01-31`, or how long ago: `90s`, `2h`, `1d12h`"
    )


def _in_utc(date: str, time: str | None, fraction: str | None, offset: str | None) -> str:
    local = datetime.fromisoformat(f"{date}T{time or '00:00:00'}")
    zone = UTC
    if offset is not None and offset not in {"Z", "z"}:
        hours, minutes = int(offset[1:3]), int(offset[4:6])
        if minutes > 59:  # noqa: PLR2004 - of an hour
            msg = "minutes of an offset go to 59"
            raise ValueError(msg)
        away = timedelta(hours=hours, minutes=minutes)
        zone = timezone(-away if offset.startswith("-") else away)
    seconds = local.replace(tzinfo=zone).astimezone(UTC)
    return f"{seconds.replace(tzinfo=None).isoformat()}.{fraction or '':0<9}Z"


def read_span(text: str) -> tuple[int | None, int | None]:
    """`FROM..TO`, `FROM..`, `..TO` or one number, as least and largest sequence number.

    Raises:
        InputError: It is none of them, is empty, or counts from less than 1.
    """
    found = _RANGE.fullmatch(text)
    if found is None or text == "..":
        msg = f"`{text[:64]}` is not a range of events"
        raise InputError(msg, code="input.range", hint="write `17`, `10..20`, `10..` or `..20`; events count from 1")
    one = found[3]
    first, last = (int(end) if end else None for end in ((one, one) if one else (found[1], found[2])))
    if 0 in {first, last}:
        msg = f"`{text}` begins with no event: events count from 1"
        raise InputError(msg, code="input.range")
    if max(first or 1, last or 1) > LARGEST_SEQUENCE:
        msg = f"`{text}` is beyond any trail"
        raise InputError(msg, code="input.range")
    if first is not None and last is not None and last < first:
        msg = f"`{text}` ends before it begins"
        raise InputError(msg, code="input.range", hint=f"write `{last}..{first}`")
    return first, last
