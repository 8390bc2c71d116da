"""Requirements: forbids that hold unless the permits ask for something.

```
@id("audit.exports-are-recorded")
@requires("record=full")
forbid (principal, action == Action::"ExportData", resource);
```

Where its scope and conditions fit, such a forbid denies what permits allow without the condition that it names: a
missing requirement denies. Several are parted by commas, and all of them must be there. `record`, `output` and `tier`
can say how much at least: `record=redacted` is met by `redacted` and `full`, `tier=docker` by `docker` and `gvisor`.
What counts is what the conditions of all permits come to, so that a permit that records less than is required is of
no use. A requirement permits nothing.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from symbi.errors import InputError, did_you_mean
from symbi.policy.decision import ConditionKind, PolicyCondition
from symbi.policy.obligations import OUTPUT_RANK, RECORD_RANK, TIER_RANK, Obligations, combine

ANNOTATION: Final = "requires"

_LEAST: Final[Mapping[ConditionKind, Mapping[str, int]]] = MappingProxyType(
    {
        ConditionKind.RECORD: {form: -rank for form, rank in RECORD_RANK.items()},
        ConditionKind.OUTPUT: {form: -rank for form, rank in OUTPUT_RANK.items()},
        ConditionKind.TIER: {tier.value: rank for tier, rank in TIER_RANK.items()},
    }
)
"""How much each value of a condition gives of what a requirement can ask for."""


@dataclass(frozen=True, slots=True)
class Requirement:
    """A condition that must be there.

    Attributes:
        kind: Which.
        least: What it must come to at least; None where any will do.
    """

    kind: ConditionKind
    least: str | None = None

    def __str__(self) -> str:
        return f"@{self.kind.value}" if self.least is None else f'@{self.kind.value}("{self.least}")'


def read_requirements(text: str) -> tuple[Requirement, ...]:
    """What the annotation asks for.

    Raises:
        InputError: It names no condition, or an amount that there is not.
    """
    return tuple(_read(part.strip()) for part in text.split(","))


def _read(text: str) -> Requirement:
    word, equals, least = text.partition("=")
    kinds = {kind.value: kind for kind in ConditionKind}
    if word not in kinds:
        hint = did_you_mean(word, kinds) or f"known are {', '.join(f'`{name}`' for name in kinds)}"
        raise InputError(f"`{word}` is no condition that could be required", code="policy.condition", hint=hint)
    kind = kinds[word]
    if not equals:
        return Requirement(kind)
    amounts = _LEAST.get(kind, {})
    if least not in amounts:
        hint = did_you_mean(least, amounts) or f"write `{word}`{''.join(f', `{word}={name}`' for name in amounts)}"
        raise InputError(f"`{text}` is no amount that could be required", code="policy.condition", hint=hint)
    return Requirement(kind, least)


def missing(required: Iterable[Requirement], conditions: Sequence[PolicyCondition]) -> Requirement | None:
    """The first requirement that the conditions of the permits do not meet.

    Raises:
        InputError: A condition is unknown or malformed.
    """
    given = {condition.kind for condition in conditions}
    whole = combine(conditions)
    return next((one for one in required if one.kind not in given or not _enough(one, whole)), None)


def _enough(required: Requirement, whole: Obligations) -> bool:
    if required.least is None:
        return True
    amounts = _LEAST[required.kind]
    given = {
        ConditionKind.RECORD: whole.record,
        ConditionKind.OUTPUT: whole.output,
        ConditionKind.TIER: None if whole.tier is None else whole.tier.value,
    }[required.kind]
    return given is not None and amounts[given] >= amounts[required.least]
