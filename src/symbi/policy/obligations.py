"""What must be done before an effect that was allowed with conditions may happen.

Every permit that fired adds its conditions, and all of them hold. Where several speak of the same thing, the strictest
wins:

| condition | several of them |
|---|---|
| `@redact("arguments.a, arguments.b.c")` | all fields are redacted |
| `@cap("arguments.amount=500")` | the smallest bound of each field |
| `@tier("gvisor")` | the highest tier: docker < gvisor |
| `@timeout("30s")` | the shortest time |
| `@approval("who or why")` | every approval that is asked for |
| `@record("digest")` | the one that stores least: digest, then redacted, then full |
| `@output("full")` | likewise: digest, then full |
| `@mark("untrusted")`, `@mark("confidential:pii")` | the join of all: least trusted, most confidential, all categories |
| `@rate("500/minute")` | every rate that is asked for |
| `@lease("none")` | no lease: each effect is decided and recorded by itself |
| `@log("warning")` | the gravest: debug < info < warning < error |
| `@tags("SOC2, GDPR")` | all tags |
| `@retain("365d")` | the longest time |

`record` prefers what stores least, because what once stands in the trail cannot be taken out of it, and a digest still
proves the arguments to whoever holds them.

A mark raises the label of what comes back, results and errors, and never lowers it. Of `log`, `tags` and `retain` the
strictest is what tells most: they add to the trail and reveal no arguments.

A path begins with `arguments.`; a step into an array goes into each of its items. A field is redacted where it exists.
A field that is capped must be there and be a number: a bound that cannot be applied denies.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from types import MappingProxyType
from typing import Any, Final

from symbi.errors import InputError, did_you_mean
from symbi.policy.approval import parse_demand
from symbi.policy.decision import ConditionKind, PolicyCondition
from symbi.policy.flow import join
from symbi.types import Confidentiality, Integrity, JsonValue, Label, PolicyId, SecurityTier

REDACTED: Final = "[redacted]"
"""What stands in place of a redacted field."""

TIER_RANK: Final[Mapping[SecurityTier, int]] = {SecurityTier.TIER1: 1, SecurityTier.TIER2: 2}
"""How far a tier keeps code from the host. The interpreter is outside of the order: any of them is above it."""

RECORD_RANK: Final[Mapping[str, int]] = {"full": 0, "redacted": 1, "digest": 2}
"""How little of the arguments a form of recording stores."""

OUTPUT_RANK: Final[Mapping[str, int]] = {"full": 0, "digest": 1}
"""How little of the result a form of recording stores."""

LOG_RANK: Final[Mapping[str, int]] = {"debug": 0, "info": 1, "warning": 2, "error": 3}
"""How grave a level of the log is."""

ALTERABLE: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "ExecuteCode": frozenset({"inputs"}),
        "RunContainer": frozenset({"inputs"}),
        "SendMessage": frozenset({"body"}),
        "PublishMessage": frozenset({"body"}),
        "WriteLog": frozenset({"message"}),
        "CallModel": frozenset({"prompt", "maxTokens"}),
        "ReadData": frozenset({"query", "maxItems"}),
        "WriteData": frozenset({"content"}),
        "ExportData": frozenset({"content"}),
        "AllocateResources": frozenset(
            {"memoryMib", "cpuMilli", "diskMibps", "networkMibitps", "timeoutMs"}
            | {"budgetCalls", "budgetTokens", "budgetMoneyMicros", "budgetWallMs", "budgetCpuMs"}
        ),
    }
)
"""By action, the arguments that `redact` and `cap` may change; of tools and of `ConfigureAgent`, all."""

NUMBERS: Final = frozenset({"maxTokens", "maxItems", *ALTERABLE["AllocateResources"]})
"""Those that stay numbers: they can be capped and not redacted."""

MAX_RETENTION_DAYS: Final = 36_525  # a century bounds what still makes sense

_PATH: Final = re.compile(r"arguments(?:\.[^\s.,=]+)+")
_NUMBER: Final = re.compile(r"-?[0-9]{1,15}(?:\.[0-9]{1,4})?")
_TIMEOUT: Final = re.compile(r"([0-9]{1,9})(ms|s|m|h)")
_RATE: Final = re.compile(r"([0-9]{1,7}) ?/ ?(?:(second|minute|hour|day)|([0-9]{1,5})(s|m|h))")
_WINDOW_S: Final = {"second": 1, "minute": 60, "hour": 3_600, "day": 86_400, "s": 1, "m": 60, "h": 3_600}

MAX_RATE: Final = 1_000_000  # bounds how many events one rate keeps
MAX_RATE_WINDOW_S: Final = 86_400  # bounds how long it keeps them

_TAG: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,63}")
_CATEGORY: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_DAYS: Final = re.compile(r"([1-9][0-9]{0,4})d")
_UNIT_S: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `limit` effects of one agent, that `policy` allows, in any `window_s` seconds."""

    policy: PolicyId
    limit: int
    window_s: int


@dataclass(frozen=True, slots=True)
class Obligations:
    """Conditions of one decision, combined.

    Attributes:
        redact: Paths below the arguments, without the leading `arguments.`, sorted.
        caps: (path, largest allowed number), sorted.
        tier: The sandbox is at least of this tier.
        timeout_s: The effect gets no more time than this.
        approvals: Who must agree, or to what; as the policies put it, sorted.
        record: `full`, `redacted` or `digest`.
        output: `full` or `digest`.
        mark: What the label of the outcome is raised to; the lowest label where nothing asks for it.
        rates: How often the policies allow it, sorted; all of them hold.
        each: Each effect is decided and recorded by itself: none of them by lease.
        log_level: `debug`, `info`, `warning` or `error`.
        tags: Compliance tags, sorted.
        retention_days: How long the event is to be kept.
    """

    redact: tuple[str, ...] = ()
    caps: tuple[tuple[str, int | float], ...] = ()
    tier: SecurityTier | None = None
    timeout_s: float | None = None
    approvals: tuple[str, ...] = ()
    record: str | None = None
    output: str | None = None
    mark: Label = field(default_factory=Label)
    rates: tuple[Rate, ...] = ()
    each: bool = False
    log_level: str | None = None
    tags: tuple[str, ...] = ()
    retention_days: int | None = None

    def apply_arguments(self, values: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
        """The arguments with caps and then redactions applied; `values` itself is not touched.

        Raises:
            InputError: A capped field is missing or is not a number: the action must not happen.
        """
        changed: JsonValue = values
        for path, bound in self.caps:
            changed = _cap(changed, path.split("."), bound, f"arguments.{path}")
        for path in self.redact:
            changed = _redact(changed, path.split("."))
        assert isinstance(changed, Mapping)
        return changed

    def raise_tier(self, tier: SecurityTier) -> SecurityTier:
        """The tier to run in, where `tier` was asked for."""
        if self.tier is None or TIER_RANK.get(tier, 0) >= TIER_RANK[self.tier]:
            return tier
        return self.tier

    def limit_timeout(self, timeout_s: float) -> float:
        """The time to give, in seconds, where `timeout_s` was asked for."""
        return timeout_s if self.timeout_s is None else min(timeout_s, self.timeout_s)


def combine(conditions: Iterable[PolicyCondition]) -> Obligations:
    """All conditions as one; the strictest wins.

    Raises:
        InputError: A condition is unknown or malformed: the action must not happen.
    """
    read: dict[ConditionKind, list[Any]] = {}
    for condition in conditions:
        reader = _READERS.get(condition.kind)
        if reader is None:
            raise InputError(f"unknown condition `{condition.kind}`", code="policy.condition")
        read.setdefault(condition.kind, []).append(reader(condition))

    def each(kind: ConditionKind) -> list[Any]:
        return read.get(kind, [])

    caps: dict[str, int | float] = {}
    for path, bound in chain.from_iterable(each(ConditionKind.CAP)):
        caps[path] = min(bound, caps.get(path, bound))
    return Obligations(
        redact=_united(*each(ConditionKind.REDACT)),
        caps=tuple(sorted(caps.items())),
        tier=max(each(ConditionKind.TIER), key=TIER_RANK.__getitem__, default=None),
        timeout_s=min(each(ConditionKind.TIMEOUT), default=None),
        approvals=_united(each(ConditionKind.APPROVAL)),
        record=max(each(ConditionKind.RECORD), key=RECORD_RANK.__getitem__, default=None),
        output=max(each(ConditionKind.OUTPUT), key=OUTPUT_RANK.__getitem__, default=None),
        mark=join(*each(ConditionKind.MARK)),
        rates=tuple(sorted(set(each(ConditionKind.RATE)), key=lambda rate: (rate.policy, rate.window_s, rate.limit))),
        each=bool(each(ConditionKind.LEASE)),
        log_level=max(each(ConditionKind.LOG), key=LOG_RANK.__getitem__, default=None),
        tags=_united(*each(ConditionKind.TAGS)),
        retention_days=max(each(ConditionKind.RETAIN), default=None),
    )


def _united(*parts: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(chain.from_iterable(parts))))


def _paths(value: str) -> list[str]:
    return [_path(part.strip()) for part in value.split(",")]


def _path(text: str) -> str:
    if not _PATH.fullmatch(text):
        raise InputError(
            f"`{text}` is not a path", code="policy.condition", hint="write `arguments.NAME`, or `arguments.NAME.NAME`"
        )
    return text.removeprefix("arguments.")


def _bounds(value: str) -> list[tuple[str, int | float]]:
    bounds: list[tuple[str, int | float]] = []
    for part in value.split(","):
        path, _, number = part.partition("=")
        if not _NUMBER.fullmatch(number.strip()):
            raise InputError(
                f"`{part.strip()}` is not a bound", code="policy.condition", hint="write `arguments.NAME=500`"
            )
        bounds.append((_path(path.strip()), float(number) if "." in number else int(number)))
    return bounds


def _tier(value: str) -> SecurityTier:
    tiers = {tier.value: tier for tier in TIER_RANK}
    if value not in tiers:
        hint = did_you_mean(value, tiers) or "use `docker` or `gvisor`"
        raise InputError(f"`{value}` is not a tier to raise to", code="policy.condition", hint=hint)
    return tiers[value]


def _timeout_s(value: str) -> float:
    match = _TIMEOUT.fullmatch(value)
    if match is None or int(match[1]) == 0:
        raise InputError(
            f"`{value}` is not a time", code="policy.condition", hint="write a number and `ms`, `s`, `m` or `h`"
        )
    return int(match[1]) * _UNIT_S[match[2]]


def _one_of(what: str, words: Iterable[str]) -> Callable[[str], str]:
    known = tuple(words)

    def read(value: str) -> str:
        if value not in known:
            hint = did_you_mean(value, known) or f"use one of {', '.join(f'`{word}`' for word in known)}"
            raise InputError(f"`{value}` is not {what}", code="policy.condition", hint=hint)
        return value

    return read


def read_mark(value: str) -> Label:
    """What `untrusted, confidential:pii` raises a label to.

    Raises:
        InputError: A word is not known.
    """
    return join(*(_one_mark(part.strip()) for part in value.split(",")))


def _one_mark(text: str) -> Label:
    word, colon, category = text.partition(":")
    if word in _INTEGRITIES and not colon:
        return Label(integrity=_INTEGRITIES[word])
    if word in _CONFIDENTIALITIES and (not colon or _CATEGORY.fullmatch(category)):
        return Label(confidentiality=_CONFIDENTIALITIES[word], categories=(category,) if colon else ())
    known = (*_INTEGRITIES, *_CONFIDENTIALITIES)
    hint = did_you_mean(word, known) or f"use one of {', '.join(f'`{name}`' for name in known)}, or `confidential:pii`"
    raise InputError(f"`{text}` is not a mark", code="policy.condition", hint=hint)


def _rate(condition: PolicyCondition) -> Rate:
    match = _RATE.fullmatch(condition.value)
    window_s = 0 if match is None else int(match[3] or 1) * _WINDOW_S[match[2] or match[4]]
    if match is None or not 1 <= int(match[1]) <= MAX_RATE or not 1 <= window_s <= MAX_RATE_WINDOW_S:
        raise InputError(
            f"`{condition.value}` is not a rate",
            code="policy.condition",
            hint=f"write 1 to {MAX_RATE}, `/`, and `second`, `minute`, `hour`, `day`, or a time like `30s` up to a day",
        )
    return Rate(condition.policy, int(match[1]), window_s)


def _tags(value: str) -> list[str]:
    tags = [part.strip() for part in value.split(",")]
    for tag in tags:
        if not _TAG.fullmatch(tag):
            hint = "use up to 64 letters, digits and `. _ : / -`"
            raise InputError(f"`{tag}` is not a tag", code="policy.condition", hint=hint)
    return tags


def _retain(value: str) -> int:
    match = _DAYS.fullmatch(value)
    if match is None or int(match[1]) > MAX_RETENTION_DAYS:
        hint = f"write 1 to {MAX_RETENTION_DAYS} days, such as `365d`"
        raise InputError(f"`{value}` is not a time to keep something", code="policy.condition", hint=hint)
    return int(match[1])


_INTEGRITIES: Final = {level.value: level for level in Integrity if level is not Integrity.USER}
_CONFIDENTIALITIES: Final = {level.value: level for level in Confidentiality if level is not Confidentiality.PUBLIC}


def _value(read: Callable[[str], Any]) -> Callable[[PolicyCondition], Any]:
    return lambda condition: read(condition.value)


_READERS: Final[Mapping[ConditionKind, Callable[[PolicyCondition], Any]]] = {
    ConditionKind.REDACT: _value(_paths),
    ConditionKind.CAP: _value(_bounds),
    ConditionKind.TIER: _value(_tier),
    ConditionKind.TIMEOUT: _value(_timeout_s),
    ConditionKind.APPROVAL: _value(lambda text: parse_demand(text).text),
    ConditionKind.RECORD: _value(_one_of("a way to record", RECORD_RANK)),
    ConditionKind.OUTPUT: _value(_one_of("a way to record a result", OUTPUT_RANK)),
    ConditionKind.MARK: _value(read_mark),
    ConditionKind.RATE: _rate,
    ConditionKind.LEASE: _value(_one_of("a way to lease", ("none",))),
    ConditionKind.LOG: _value(_one_of("a level of the log", LOG_RANK)),
    ConditionKind.TAGS: _value(_tags),
    ConditionKind.RETAIN: _value(_retain),
}
"""How the value of each condition is read. What is not here is unknown, and denies."""


def _redact(value: JsonValue, path: Sequence[str]) -> JsonValue:
    if not path:
        return REDACTED
    if isinstance(value, Mapping):
        return {name: _redact(item, path[1:]) if name == path[0] else item for name, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_redact(item, path) for item in value]
    return value


def _cap(value: JsonValue, path: Sequence[str], bound: float, shown: str) -> JsonValue:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_cap(item, path, bound, shown) for item in value]
    if path:
        if not isinstance(value, Mapping) or path[0] not in value:
            raise InputError(
                f"`{shown}` is capped and missing", code="policy.condition", hint=f"give it, up to {bound}"
            )
        return {name: _cap(item, path[1:], bound, shown) if name == path[0] else item for name, item in value.items()}
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        raise InputError(f"`{shown}` is capped and not a number", code="policy.condition", field=shown)
    if value <= bound:
        return value
    return math.floor(bound) if isinstance(value, int) else bound
