"""Patterns of topics in a configuration."""

from dataclasses import dataclass
from pathlib import Path

from symbi.config.kinds import BadValue, Kind, describe
from symbi.dsl.messages import parse_pattern
from symbi.errors import InputError


@dataclass(frozen=True, slots=True)
class TopicPattern(Kind[str]):
    """Words with dots between them; `*` for one word, `>` at the end for the rest."""

    @property
    def name(self) -> str:
        """For the reference."""
        return "pattern of topics, such as `incidents.>`"

    def from_toml(self, value: object, base: Path) -> str:
        """A text that is a pattern."""
        if not isinstance(value, str):
            raise BadValue(f"must be a text, not {describe(value)}", "write it in quotes")
        return self.from_text(value, base)

    def from_text(self, text: str, base: Path) -> str:  # noqa: ARG002 - a pattern is the same wherever it stands
        """Likewise."""
        try:
            return parse_pattern(text)
        except InputError as error:
            raise BadValue(error.message, error.hint or "") from None
