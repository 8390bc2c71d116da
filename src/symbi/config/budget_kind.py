"""The kind of value that only budgets have: `{ calls = 100, money = "1.50", cpu_s = 2 }`."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from symbi.config.kinds import BadValue, Kind, describe
from symbi.errors import ConfigError, InputError
from symbi.guard.spending import KINDS, UNBOUNDED, UNITS, WRITTEN, Budget, read_amount, written


@dataclass(frozen=True, slots=True)
class Amounts(Kind[Budget]):
    """Amounts by what they are of."""

    @property
    def name(self) -> str:
        """For the reference."""
        return f"table of numbers: {', '.join(f'`{name}`' for name in UNITS)}"

    def from_toml(self, value: object, base: Path) -> Budget:
        """A table; money may stand as a text, so that no fraction is lost."""
        del base
        if not isinstance(value, dict):
            raise BadValue(f"must be a table of amounts, not {describe(value)}", "write { calls = 100, cpu_s = 2 }")
        return _read(value.items())

    def from_text(self, text: str, base: Path) -> Budget:
        """`calls=100,cpu_s=2`."""
        del base
        pairs = [part.strip().partition("=") for part in text.split(",")]
        if len({name for name, _, _ in pairs}) < len(pairs) or not all(equals for _, equals, _ in pairs):
            raise BadValue(f"must name each amount once, not {describe(text)}", "write `calls=100,cpu_s=2`")
        return _read((name.strip(), amount.strip()) for name, _, amount in pairs)

    def show(self, value: Budget) -> str:
        """As `from_text` reads it."""
        bounds = zip(KINDS, value.bounds, strict=True)
        return ",".join(f"{WRITTEN[kind]}={written(kind, most)}" for kind, most in bounds if most is not None)


def read_budget(name: str, text: str | None) -> Budget:
    """A budget from the command line; without a text, no bound.

    Args:
        name: The option.
        text: What it says.

    Raises:
        ConfigError: It is none.
    """
    if text is None:
        return UNBOUNDED
    try:
        return Amounts().from_text(text, Path())
    except BadValue as bad:
        msg = f"`{name}` {bad.message}"
        raise ConfigError(msg, code="config.value", hint=bad.hint or None) from None


def _read(amounts: Iterable[tuple[str, object]]) -> Budget:
    try:
        return Budget(**dict(read_amount(name, value) for name, value in amounts))
    except InputError as error:
        raise BadValue(f"cannot be taken: {error.message}", error.hint or "") from None
