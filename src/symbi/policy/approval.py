"""What `@approval` asks for: a plain text, or fields.

| written | what it asks for |
|---|---|
| `@approval("why, or who")` | one person; who, if the whole text is the name of a registered person or group, else any person |
| `@approval("who=finance-leads")` | a person of that group, or the person of that name, and nobody else |
| `@approval("people=2")` | so many different persons, 1 to 9 |
| `@approval("expires=1h")` | the action is denied if they have not agreed by then; `ms`, `s`, `m`, `h` or `d` |
| `@approval("why=money leaves the house")` | shown to whoever is asked |

Fields stand together, parted by `;`, each at most once: `@approval("who=finance-leads; people=2; expires=1h; why=over the limit")`.
A text whose first part has the form `word=…` is read as fields, so that a mistyped field is an error and not a plain text.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from symbi.errors import InputError, did_you_mean

MAX_APPROVAL_CHARS: Final = 200  # bounds what a policy shows to the person who is asked
MAX_PEOPLE: Final = 9  # persons that one policy may ask for
MAX_EXPIRES_S: Final = 31 * 86_400.0  # no action waits longer for its people than a month

_FIELDS: Final = ("who", "people", "expires", "why")
_FIELD_WITHIN: Final = re.compile(rf"(?<![A-Za-z])(?:{'|'.join(_FIELDS)})\s*=", re.IGNORECASE)
_STRUCTURED: Final = re.compile(r"\s*[A-Za-z_]+\s*=")
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}", re.ASCII)
_PEOPLE: Final = re.compile(r"[1-9]", re.ASCII)
_TIME: Final = re.compile(r"([0-9]{1,9})(ms|s|m|h|d)", re.ASCII)
_UNIT_S: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


@dataclass(frozen=True, slots=True)
class Demand:
    """What one `@approval` asks for.

    Attributes:
        text: As the policy wrote it.
        who: The group or person that must agree; empty where the policy did not name one by `who=`.
        people: How many different persons.
        expires_s: Seconds until the action is denied; None leaves it to the configuration.
        why: What is shown to whoever is asked.
    """

    text: str
    who: str = ""
    people: int = 1
    expires_s: float | None = None
    why: str = ""

    @property
    def plain(self) -> bool:
        """Whether it is a plain text: who it names, if anybody, is for the register of persons to say."""
        return _STRUCTURED.match(self.text) is None


def parse_demand(text: str) -> Demand:
    """Read the value of an `@approval`.

    Raises:
        InputError: It is empty, too long, not printable, or a field of it is unknown, repeated or malformed.
    """
    if not text.strip() or len(text) > MAX_APPROVAL_CHARS or not text.isprintable():
        raise InputError(
            "an approval must say who agrees or why, in one line",
            code="policy.condition",
            hint=f"use 1 to {MAX_APPROVAL_CHARS} printable characters",
        )
    if not _STRUCTURED.match(text):
        return Demand(text, why=_without_fields(text))
    fields: dict[str, str] = {}
    for part in text.split(";"):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if name not in _FIELDS or not equals:
            hint = did_you_mean(name, _FIELDS) or 'write "who=GROUP; people=2; expires=1h; why=TEXT"'
            raise InputError(f"`{part.strip()}` is no field of an approval", code="policy.condition", hint=hint)
        if name in fields:
            raise InputError(f"an approval says `{name}` twice", code="policy.condition", hint="say it once")
        fields[name] = value
    return Demand(
        text,
        who=_who(fields["who"]) if "who" in fields else "",
        people=_people(fields["people"]) if "people" in fields else 1,
        expires_s=_expires_s(fields["expires"]) if "expires" in fields else None,
        why=_why(fields["why"]) if "why" in fields else "",
    )


def parse_demands(texts: Iterable[str]) -> tuple[Demand, ...]:
    """All that is asked for, each once, in order of its text.

    Raises:
        InputError: One cannot be read.
    """
    return tuple(parse_demand(text) for text in sorted(set(texts)))


def _who(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise InputError(
            f"`who={value}` names no group or person",
            code="policy.condition",
            hint="use one name of up to 64 letters, digits and `_ . @ -`; two `@approval`s ask two groups",
        )
    return value


def _people(value: str) -> int:
    if not _PEOPLE.fullmatch(value):
        raise InputError(
            f"`people={value}` is no number of persons", code="policy.condition", hint=f"write 1 to {MAX_PEOPLE}"
        )
    return int(value)


def _expires_s(value: str) -> float:
    match = _TIME.fullmatch(value)
    seconds = int(match[1]) * _UNIT_S[match[2]] if match else 0.0
    if not 0 < seconds <= MAX_EXPIRES_S:
        raise InputError(
            f"`expires={value}` is no time to wait",
            code="policy.condition",
            hint="write a number and `ms`, `s`, `m`, `h` or `d`, up to 31 days",
        )
    return seconds


def _why(value: str) -> str:
    if not value:
        raise InputError("`why=` says nothing", code="policy.condition", hint="say why, or leave it out")
    return _without_fields(value)


def _without_fields(value: str) -> str:
    """A reason. A field within it would be shown, and not asked for.

    Raises:
        InputError: There is one.
    """
    found = _FIELD_WITHIN.search(value)
    if found:
        raise InputError(
            f"`{found.group()}` stands within the text of an approval, where it asks for nothing",
            code="policy.condition",
            hint='part fields by `;`: "people=2; expires=1h; why=TEXT"',
        )
    return value
