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

`record` prefers what stores least, because what once stands in the trail cannot be taken out of it, and a digest still
proves the arguments to whoever holds them.

A path begins with `arguments.`; a step into an array goes into each of its items. A field is redacted where it exists.
A field that is capped must be there and be a number: a bound that cannot be applied denies.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from symbi.errors import InputError, did_you_mean
from symbi.policy.approval import parse_demand
from symbi.policy.decision import ConditionKind, PolicyCondition
from symbi.types import JsonValue, SecurityTier

REDACTED: Final = "[redacted]"
"""What stands in place of a redacted field."""

TIER_RANK: Final[Mapping[SecurityTier, int]] = {SecurityTier.TIER1: 1, SecurityTier.TIER2: 2}
"""How far a tier keeps code from the host. The interpreter is outside of the order: any of them is above it."""

RECORD_RANK: Final[Mapping[str, int]] = {"full": 0, "redacted": 1, "digest": 2}
"""How little of the arguments a form of recording stores."""

_PATH: Final = re.compile(r"arguments(?:\.[^\s.,=]+)+")
_NUMBER: Final = re.compile(r"-?[0-9]{1,15}(?:\.[0-9]{1,4})?")
_TIMEOUT: Final = re.compile(r"([0-9]{1,9})(ms|s|m|h)")
_UNIT_S: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


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
    """

    redact: tuple[str, ...] = ()
    caps: tuple[tuple[str, int | float], ...] = ()
    tier: SecurityTier | None = None
    timeout_s: float | None = None
    approvals: tuple[str, ...] = ()
    record: str | None = None

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
    redact: set[str] = set()
    caps: dict[str, int | float] = {}
    tiers: list[SecurityTier] = []
    timeouts_s: list[float] = []
    approvals: set[str] = set()
    records: list[str] = []
    for condition in conditions:
        match condition.kind:
            case ConditionKind.REDACT:
                redact.update(_paths(condition.value))
            case ConditionKind.CAP:
                for path, bound in _bounds(condition.value):
                    caps[path] = min(bound, caps.get(path, bound))
            case ConditionKind.TIER:
                tiers.append(_tier(condition.value))
            case ConditionKind.TIMEOUT:
                timeouts_s.append(_timeout_s(condition.value))
            case ConditionKind.APPROVAL:
                approvals.add(parse_demand(condition.value).text)
            case ConditionKind.RECORD:
                records.append(_record(condition.value))
            case _:
                raise InputError(f"unknown condition `{condition.kind}`", code="policy.condition")
    return Obligations(
        redact=tuple(sorted(redact)),
        caps=tuple(sorted(caps.items())),
        tier=max(tiers, key=TIER_RANK.__getitem__, default=None),
        timeout_s=min(timeouts_s, default=None),
        approvals=tuple(sorted(approvals)),
        record=max(records, key=RECORD_RANK.__getitem__, default=None),
    )


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


def _record(value: str) -> str:
    if value not in RECORD_RANK:
        hint = did_you_mean(value, RECORD_RANK) or "use `full`, `redacted` or `digest`"
        raise InputError(f"`{value}` is not a way to record", code="policy.condition", hint=hint)
    return value


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
