"""What the runtime says about itself: log lines, metrics and health.

Ids, sizes and digests only. A payload has no place in a log line, so fields and arguments are let through by their
shape (numbers, and words that look like an id, a name or a code) and never by trust in the caller; messages of other
libraries are withheld, and of an exception stand its class, its code and where it was raised, not its text.
Exporters are not part of this module: `Metrics.snapshot` is what they read.
"""

import json as _json
import logging
import re
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Final, Protocol, TypeAlias

# --- log lines ---------------------------------------------------------------------------------------------------

Scalar: TypeAlias = bool | int | float | str | None

OUR_LOGGER: Final = "symbi"
AGENT_LINES: Final = "symbi.agent.lines"
"""Logger of what agents write with `log(…)`: each line passed the gate as an effect, so it is shown as it stands."""
MAX_WORD_CHARS: Final = 128  # a longer text in a log line is a payload
MAX_FRAMES: Final = 12  # innermost frames of an exception that are named

_WORD: Final = re.compile(r"[\w.:/@#*+,<>-]*")
_PAYLOADS: Final = re.compile(
    r"(?i)(^|_)(argument|arguments|args|authorization|body|code_text|content|cookie|credential|credentials|data|headers"
    r"|input|inputs|key|output|outputs|password|payload|private|prompt|result|results|secret|secrets|source|text|token"
    r"|value|values)$"
)
_FIELDS: Final = "symbi_fields"
_HANDLER: Final = "symbi.stderr"


def log_fields(**fields: Scalar) -> dict[str, object]:
    """Structured fields of a log line: `log.info("tool called", extra=log_fields(effect_id=…, size_bytes=…))`."""
    return {_FIELDS: fields}


class RedactingFilter(logging.Filter):
    """Takes out of a record what may be a payload, in place, before any formatter sees it."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Redact fields and arguments; the record always goes on."""
        if record.name == AGENT_LINES:
            return True
        ours = record.name == OUR_LOGGER or record.name.startswith(f"{OUR_LOGGER}.")
        if not ours:
            record.msg, record.args = f"[message withheld: {len(str(record.msg))} characters]", None
        elif isinstance(record.args, Mapping):
            record.args = {name: redact(name, value) for name, value in record.args.items()}
        elif record.args:
            record.args = tuple(redact("", value) for value in record.args)
        fields = getattr(record, _FIELDS, {}) if ours else {}
        setattr(record, _FIELDS, {name: redact(name, value) for name, value in fields.items()})
        return True


def redact(name: str, value: object) -> Scalar:
    """A value as a log line may hold it.

    Args:
        name: Name of its field; one that speaks of a payload or a secret is redacted whatever it holds.
        value: Numbers, booleans and None stay, and texts that look like an id, a name or a code.
    """
    if value is None or isinstance(value, bool):
        return value
    if _PAYLOADS.search(name):
        return f"[redacted: {type(value).__name__}]"
    if isinstance(value, int | float):
        return value
    if isinstance(value, str) and len(value) <= MAX_WORD_CHARS and _WORD.fullmatch(value):
        return str(value)
    size = f", {len(value)} characters" if isinstance(value, str) else ""
    return f"[redacted: {type(value).__name__}{size}]"


def setup_logging(level: str, *, json: bool) -> None:
    """Send log lines to standard error, redacted; replaces what an earlier call set up.

    Args:
        level: `debug`, `info`, `warning` or `error` for our own lines; those of other libraries from `warning` on.
        json: One JSON object a line (`timestamp`, `level`, `logger`, `message`, fields); else text for people.

    Raises:
        ValueError: Unknown level.
    """
    number = logging.getLevelNamesMapping()[level.upper()] if level in {"debug", "info", "warning", "error"} else None
    if number is None:
        msg = f"unknown log level `{level}`"
        raise ValueError(msg)
    handler = _StandardError()
    handler.name = _HANDLER
    handler.addFilter(RedactingFilter())
    handler.setFormatter(_JsonLines() if json else _TextLines())
    root = logging.getLogger()
    for old in [one for one in root.handlers if one.name == _HANDLER]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(max(number, logging.WARNING))
    logging.getLogger(OUR_LOGGER).setLevel(number)


class _StandardError(logging.Handler):
    """Writes to whatever standard error is at the moment of writing, so that a redirection holds."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except (TypeError, ValueError, KeyError):  # the message does not fit its arguments
            line = f"malformed log line from {record.name} at {record.filename}:{record.lineno}"
        with suppress(OSError, ValueError):  # closed or broken: nobody is left to tell
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()


def _facts(record: logging.LogRecord) -> dict[str, Scalar | list[str]]:
    facts: dict[str, Scalar | list[str]] = {
        "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
        "level": record.levelname.lower(),
        "logger": record.name,
        "message": record.getMessage(),
    }
    for name, value in getattr(record, _FIELDS, {}).items():
        facts[name if name not in facts else f"field_{name}"] = value
    if record.exc_info and record.exc_info[1] is not None:
        error = record.exc_info[1]
        facts["error"] = type(error).__name__
        code = getattr(error, "code", None)
        if isinstance(code, str):
            facts["error_code"] = redact("error_code", code)
        frames = traceback.extract_tb(error.__traceback__)[-MAX_FRAMES:]
        facts["frames"] = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
    return facts


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return _json.dumps(_facts(record), ensure_ascii=True, allow_nan=True, separators=(",", ":"))


class _TextLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        facts = _facts(record)
        head = f"{facts.pop('timestamp')} {facts.pop('level'):<7} {facts.pop('logger')}: {facts.pop('message')}"
        frames = facts.pop("frames", [])
        tail = "".join(f" {name}={value}" for name, value in facts.items())
        below = frames if isinstance(frames, list) else []
        return "\n    ".join(_printable(line) for line in (f"{head}{tail}", *below))


def _printable(text: str) -> str:
    """Without what could end the line or drive a terminal."""
    return "".join(char if char.isprintable() else "?" for char in text)


# --- metrics -----------------------------------------------------------------------------------------------------

MAX_SERIES: Final = 1_000  # label combinations kept for one metric; further ones are counted together as `other`

Labels: TypeAlias = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Counter:
    """A metric that only grows.

    Attributes:
        name: As exporters show it, ending in `_total`.
        unit: What is counted.
        help: One line.
        labels: Names of its labels; each takes few values.
    """

    name: str
    unit: str
    help: str
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Histogram:
    """A metric of many observations.

    Attributes:
        name: As exporters show it, ending in the unit.
        unit: Of an observation.
        help: One line.
        bounds: Upper bounds of its buckets, ascending; one without a bound follows.
        labels: Names of its labels.
    """

    name: str
    unit: str
    help: str
    bounds: tuple[float, ...]
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Gauge:
    """A metric that somebody is asked for when it is looked at.

    Attributes:
        name: As exporters show it, ending in the unit.
        unit: Of the value.
        help: One line.
        labels: Names of its labels; each takes few values.
    """

    name: str
    unit: str
    help: str
    labels: tuple[str, ...] = ()


_LATENCY_S: Final = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)

DECISIONS: Final = Counter("symbi_decisions_total", "decisions", "Decisions of the gate", ("action", "verdict"))
EFFECTS: Final = Counter("symbi_effects_total", "effects", "Effects that ended", ("action", "outcome"))
DECISION_SECONDS: Final = Histogram("symbi_decision_seconds", "seconds", "Evaluation of the policy set", _LATENCY_S)
ADMISSION_SECONDS: Final = Histogram(
    "symbi_admission_seconds", "seconds", "From asking the gate to a durable decision", _LATENCY_S
)
EFFECT_SECONDS: Final = Histogram("symbi_effect_seconds", "seconds", "From permit to outcome", _LATENCY_S, ("action",))

AGENT_CPU_SECONDS: Final = Counter(
    "symbi_agent_cpu_seconds_total", "seconds", "Processor time of bodies and their code", ("agent",)
)
AGENT_EFFECTS: Final = Counter("symbi_agent_effects_total", "effects", "Effects of runs", ("agent",))
TOOL_BYTES: Final = Counter(
    "symbi_tool_bytes_total", "bytes", "JSON given to tools and answered", ("agent", "direction")
)
BREACHES: Final = Counter("symbi_breaches_total", "breaches", "Agents over their claim", ("what", "remedy"))
DEPENDENCY_CHANGES: Final = Counter(
    "symbi_dependency_changes_total", "changes", "Changes of a dependency's circuit breaker", ("dependency", "state")
)
DEPENDENCY_REFUSALS: Final = Counter(
    "symbi_dependency_refusals_total", "calls", "Calls that a breaker or a bulkhead refused", ("dependency", "reason")
)
BUS_MESSAGES: Final = Counter("symbi_bus_messages_total", "messages", "Messages that the bus let pass", ("pattern",))
BUS_REFUSED: Final = Counter("symbi_bus_refused_total", "messages", "Messages that were not taken", ("code",))
BUS_RECEIVED: Final = Counter("symbi_bus_received_total", "messages", "Messages that were handled", ("outcome",))
LOOP_LAG_SECONDS: Final = Histogram(
    "symbi_loop_lag_seconds", "seconds", "How late the event loop comes to what is due", _LATENCY_S
)
LOOP_LAG_RECENT: Final = Gauge(
    "symbi_loop_lag_recent_seconds", "seconds", "Lag of the event loop in the last minute", ("quantile",)
)
COLLECTION_SECONDS: Final = Histogram(
    "symbi_gc_collection_seconds", "seconds", "Looks of the garbage collector", _LATENCY_S, ("age",)
)


@dataclass(frozen=True, slots=True)
class Series:
    """One metric with one set of label values, as it stood.

    Attributes:
        metric: Its declaration.
        labels: Label values in the order of the declaration.
        count: The value of a counter or a gauge, or the number of observations.
        total: Sum of the observations; the value of a counter or a gauge once more.
        buckets: Observations in each bucket, the last one without an upper bound; empty but for a histogram.
    """

    metric: Counter | Histogram | Gauge
    labels: Labels
    count: float
    total: float
    buckets: tuple[int, ...] = ()


class _Cell:
    __slots__ = ("buckets", "count", "total")

    def __init__(self, buckets: int) -> None:
        self.count = 0.0
        self.total = 0.0
        self.buckets = [0] * buckets


class Metrics:
    """Counts in this process; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cells: dict[Counter | Histogram, dict[Labels, _Cell]] = {}
        self._asked: dict[tuple[Gauge, Labels], Callable[[], float]] = {}

    def inc(self, counter: Counter, amount: float = 1.0, **labels: str) -> None:
        """Add to a counter.

        Raises:
            ValueError: A negative amount, or other labels than declared.
        """
        if not amount >= 0:
            msg = f"`{counter.name}` only grows; cannot add {amount}"
            raise ValueError(msg)
        with self._lock:
            cell = self._cell(counter, labels, 0)
            cell.count += amount
            cell.total += amount

    def observe(self, histogram: Histogram, value: float, **labels: str) -> None:
        """Note one observation, in the histogram's unit.

        Raises:
            ValueError: Not a number, or other labels than declared.
        """
        if value != value:  # noqa: PLR0124 - what only a NaN is
            msg = f"`{histogram.name}` was given something that is not a number"
            raise ValueError(msg)
        bucket = next((i for i, bound in enumerate(histogram.bounds) if value <= bound), len(histogram.bounds))
        with self._lock:
            cell = self._cell(histogram, labels, len(histogram.bounds) + 1)
            cell.count += 1
            cell.total += value
            cell.buckets[bucket] += 1

    def watch(self, gauge: Gauge, read: Callable[[], float], **labels: str) -> None:
        """Have a function tell the value of a gauge whenever it is looked at; it must not wait, and takes the place of an earlier one.

        Raises:
            ValueError: Other labels than declared.
        """
        with self._lock:
            self._asked[gauge, _key(gauge, labels)] = read

    def snapshot(self) -> tuple[Series, ...]:
        """All series as they stand, by name and labels."""
        with self._lock:
            asked = tuple(self._asked.items())
            found = [
                Series(metric, labels, cell.count, cell.total, tuple(cell.buckets))
                for metric, cells in self._cells.items()
                for labels, cell in cells.items()
            ]
        for (gauge, labels), read in asked:
            value = read()
            found.append(Series(gauge, labels, value, value))
        return tuple(sorted(found, key=lambda series: (series.metric.name, series.labels)))

    def _cell(self, metric: Counter | Histogram, labels: Mapping[str, str], buckets: int) -> _Cell:
        key = _key(metric, labels)
        cells = self._cells.setdefault(metric, {})
        if key not in cells and len(cells) >= MAX_SERIES:
            key = tuple((name, "other") for name in metric.labels)
        return cells.setdefault(key, _Cell(buckets))


def _key(metric: Counter | Histogram | Gauge, labels: Mapping[str, str]) -> Labels:
    if set(labels) != set(metric.labels):
        msg = f"`{metric.name}` has the labels {list(metric.labels)}, not {sorted(labels)}"
        raise ValueError(msg)
    return tuple((name, labels[name]) for name in metric.labels)


# --- health ------------------------------------------------------------------------------------------------------


class HealthState(StrEnum):
    """How well something works, best first."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"


@dataclass(frozen=True, slots=True)
class ComponentHealth:
    """One component: how it is, and why where it is not well."""

    state: HealthState
    detail: str = ""


@dataclass(frozen=True, slots=True)
class ErrorSummary:
    """Errors of one kind, without their texts.

    Attributes:
        code: Stable code, `area.reason`.
        count: How often since start.
        last_at: When last, RFC 3339.
    """

    code: str
    count: int
    last_at: str


@dataclass(frozen=True, slots=True)
class HealthStatus:
    """The seed's answer of `health_check`.

    Attributes:
        overall_status: That of the worst component; unhealthy where there is none to ask.
        component_health: By component.
        resource_utilization: Shares from 0 to 1, by resource.
        recent_errors: Newest first.
    """

    overall_status: HealthState
    component_health: Mapping[str, ComponentHealth]
    resource_utilization: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    recent_errors: tuple[ErrorSummary, ...] = ()


class HealthProbe(Protocol):
    """Something whose health can be asked."""

    @property
    def component(self) -> str:
        """Its name."""

    async def check(self) -> ComponentHealth:
        """Ask it, within a second; what cannot be asked is unhealthy, never an exception."""


def overall(components: Mapping[str, ComponentHealth]) -> HealthState:
    """The worst state among components; unhealthy where there are none."""
    order = list(HealthState)
    return max((one.state for one in components.values()), key=order.index, default=HealthState.UNHEALTHY)
