"""How an effect in doubt is looked up: what a manifest says of it, and what an answer says. Pure.

```toml
[tools.pay]
recovery = "reconcilable"

[tools.pay.query]
tool = "find_payment"                                  # a read-only tool of the same server
arguments = { key = "$effect", to = "$arguments.to" }  # our effect id, an argument of the call, or a constant
field = "status"                                       # the one field of the answer that decides
happened = ["booked", "pending"]                       # values that say: it happened
not_happened = ["absent"]                              # values that say: it did not, and will not any more
result = "receipt"                                     # what of the answer is the result of the call; null where not given
after_s = 10.0                                         # how long after the call a `not_happened` is believed
```

The answer is data from outside. The declared field decides, by equality of type and value, and everything else leaves
the effect in doubt.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from symbi.errors import InputError
from symbi.policy.fields import FieldPath
from symbi.types import EffectId, JsonValue

EFFECT_ID: Final = "$effect"
ARGUMENTS: Final = "$arguments."


class Finding(StrEnum):
    """What is known of an effect in doubt."""

    HAPPENED = "happened"
    NOT_HAPPENED = "not_happened"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class RecoveryQuery:
    """How to ask whether a call happened.

    Attributes:
        tool: Name of the read-only tool, on the same server.
        arguments: Its arguments: `$effect`, `$arguments.NAME`, or a constant, by name.
        decides: The field of the answer that decides.
        happened: Its values that say that the call happened.
        not_happened: Its values that say that it did not, and will not any more.
        result: The field that is the result of the call; None where it has none.
        after_s: Seconds after the call from which `not_happened` is believed; None for as long as a call may take.
    """

    tool: str
    arguments: Mapping[str, JsonValue]
    decides: FieldPath
    happened: tuple[JsonValue, ...]
    not_happened: tuple[JsonValue, ...]
    result: FieldPath | None = None
    after_s: float | None = None

    @property
    def needs(self) -> tuple[str, ...]:
        """The arguments of the call that it is asked with."""
        texts = [one for one in self.arguments.values() if isinstance(one, str)]
        return tuple(one.removeprefix(ARGUMENTS) for one in texts if one.startswith(ARGUMENTS))

    def asked_with(self, effect_id: EffectId, values: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
        """The arguments of the query.

        Args:
            effect_id: The effect in doubt.
            values: The arguments of its call.

        Raises:
            InputError: The call had no such argument.
        """
        asked: dict[str, JsonValue] = {}
        for name, said in self.arguments.items():
            if said == EFFECT_ID:
                asked[name] = effect_id
            elif isinstance(said, str) and said.startswith(ARGUMENTS):
                wanted = said.removeprefix(ARGUMENTS)
                if wanted not in values:
                    msg = f"the call in doubt had no argument `{wanted}` to ask `{self.tool}` with"
                    raise InputError(msg, code="input.query")
                asked[name] = values[wanted]
            else:
                asked[name] = said
        return asked

    def read(self, answer: JsonValue) -> "Answered":
        """What an answer says; anything that was not declared says nothing."""
        document = _document(answer)
        decides = _at(document, self.decides)
        if not decides or not _is_plain(decides[0]):
            return Answered(Finding.UNKNOWN)
        if any(_same(decides[0], one) for one in self.not_happened):
            return Answered(Finding.NOT_HAPPENED)
        if not any(_same(decides[0], one) for one in self.happened):
            return Answered(Finding.UNKNOWN)
        if self.result is None:
            return Answered(Finding.HAPPENED)
        result = _at(document, self.result)
        return Answered(Finding.HAPPENED, result[0]) if result else Answered(Finding.UNKNOWN)


@dataclass(frozen=True, slots=True)
class Answered:
    """What an answer says of an effect in doubt, and with which result it happened."""

    finding: Finding
    result: JsonValue = field(default=None)


def _document(answer: JsonValue) -> JsonValue:
    """An answer to look into: a text that is an object of JSON is that object."""
    if not isinstance(answer, str):
        return answer
    try:
        parsed: JsonValue = json.loads(answer)
    except (ValueError, RecursionError):
        return answer
    return parsed if isinstance(parsed, Mapping) else answer


def _at(value: JsonValue, path: FieldPath) -> Sequence[JsonValue]:
    """What stands at a path of names: one value, or none."""
    for name, _ in path.segments:
        if not isinstance(value, Mapping) or name not in value:
            return ()
        value = value[name]
    return (value,)


def _is_plain(value: object) -> bool:
    return value is None or isinstance(value, str | int | float)


def _same(one: JsonValue, other: JsonValue) -> bool:
    """Whether two plain values are the same, and of one type: 1 is neither true nor 1.0."""
    return type(one) is type(other) and one == other
