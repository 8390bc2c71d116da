"""Amounts that runs spend, and the most that they may: values, and how people write them."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from types import MappingProxyType
from typing import Final

from symbi.errors import InputError
from symbi.types import JsonValue

KINDS: Final = ("calls", "tokens", "money_micros", "wall_ms", "cpu_ms")
TIMED: Final = frozenset({"wall_ms", "cpu_ms"})
"""What is measured and charged afterwards."""
UNITS: Final[Mapping[str, tuple[str, int]]] = MappingProxyType(
    {
        "calls": ("calls", 1),
        "tokens": ("tokens", 1),
        "money": ("money_micros", 1_000_000),
        "wall_s": ("wall_ms", 1000),
        "cpu_s": ("cpu_ms", 1000),
    }
)
"""As people write them: which kind, and how many of its units are one of theirs."""
FIELDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "calls": "budgetCalls",
        "tokens": "budgetTokens",
        "money_micros": "budgetMoneyMicros",
        "wall_ms": "budgetWallMs",
        "cpu_ms": "budgetCpuMs",
    }
)
"""As policies see them, by kind; `MOST` where there is no bound."""
WRITTEN: Final[Mapping[str, str]] = MappingProxyType({kind: name for name, (kind, _) in UNITS.items()})
MOST: Final = 2**53 - 1  # of any amount: what JSON carries exactly, and far below what the store can add up


@dataclass(frozen=True, slots=True)
class Spend:
    """Amounts.

    Attributes:
        calls: Calls of tools and models.
        tokens: Of models.
        money_micros: Millionths of the currency that the operator counts in.
        wall_ms: Milliseconds at work; what a run waits for people, for its turn, or for a run that it asked for is none.
        cpu_ms: Milliseconds of a processor.
    """

    calls: int = 0
    tokens: int = 0
    money_micros: int = 0
    wall_ms: int = 0
    cpu_ms: int = 0

    def __add__(self, other: "Spend") -> "Spend":
        return Spend(*(mine + its for mine, its in zip(self.amounts, other.amounts, strict=True)))

    def __sub__(self, other: "Spend") -> "Spend":
        return Spend(*(mine - its for mine, its in zip(self.amounts, other.amounts, strict=True)))

    @property
    def amounts(self) -> tuple[int, ...]:
        """In the order of `KINDS`."""
        return (self.calls, self.tokens, self.money_micros, self.wall_ms, self.cpu_ms)


NOTHING: Final = Spend()


@dataclass(frozen=True, slots=True)
class Budget:
    """The most that may be spent of each kind, as in `Spend`; None sets no bound."""

    calls: int | None = None
    tokens: int | None = None
    money_micros: int | None = None
    wall_ms: int | None = None
    cpu_ms: int | None = None

    @property
    def bounds(self) -> tuple[int | None, ...]:
        """In the order of `KINDS`."""
        return (self.calls, self.tokens, self.money_micros, self.wall_ms, self.cpu_ms)

    @property
    def bounded(self) -> bool:
        """Whether it bounds anything."""
        return any(bound is not None for bound in self.bounds)

    def lowest(self, *others: "Budget") -> "Budget":
        """What all of them let spend."""
        return reduce(_lower, others, self)

    def facts(self) -> dict[str, JsonValue]:
        """Its bounds by kind, for machines."""
        return {kind: bound for kind, bound in zip(KINDS, self.bounds, strict=True) if bound is not None}


UNBOUNDED: Final = Budget()


def _lower(one: Budget, other: Budget) -> Budget:
    pairs = zip(one.bounds, other.bounds, strict=True)
    return Budget(*(min((bound for bound in pair if bound is not None), default=None) for pair in pairs))


def read_amount(name: str, value: object) -> tuple[str, int]:
    """An amount as people write it: its kind, and how much in the units of the kind.

    Raises:
        InputError: There is no such kind, or it is no number, negative, finer than the unit, or too large.
    """
    if name not in UNITS:
        msg = f"`{name[:40]}` is nothing that has a budget"
        raise InputError(msg, code="input.budget", hint=f"{', '.join(f'`{known}`' for known in UNITS)} have")
    kind, unit = UNITS[name]
    whole, dot, rest = (str(value) if isinstance(value, int | float) and not isinstance(value, bool) else
                        value if isinstance(value, str) else "").partition(".")  # fmt: skip
    digits = len(str(unit)) - 1
    good = whole.isascii() and whole.isdecimal() and (not dot or (rest.isascii() and rest.isdecimal()))
    if not good or len(whole) > 20 or len(rest.rstrip("0")) > digits:  # noqa: PLR2004 - far more than `MOST` has
        fine = f"at most {digits} digits after the point" if digits else "without a fraction"
        msg = f"`{name}` of a budget is a number from 0 on, {fine}, not `{str(value)[:40]}`"
        raise InputError(msg, code="input.budget")
    amount = int(whole) * unit + int((rest[:digits]).ljust(digits, "0") or 0)
    if amount > MOST:
        msg = f"`{name}` of a budget is {written(kind, MOST)} at most"
        raise InputError(msg, code="input.budget")
    return kind, amount


def written(kind: str, amount: int) -> str:
    """An amount as people write it."""
    unit = UNITS[WRITTEN[kind]][1]
    if unit == 1:
        return str(amount)
    sign, (whole, rest) = "-" if amount < 0 else "", divmod(abs(amount), unit)
    return f"{sign}{whole}.{str(rest).zfill(len(str(unit)) - 1)}".rstrip("0").rstrip(".")
