"""What a search did, stage by stage, with what it took; no word of what was found."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from symbi.clock import Clock
from symbi.types import JsonValue

STAGES: Final = ("query analysis", "retrieval", "document fetch", "ranking", "response")


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage.

    Attributes:
        name: One of `STAGES`.
        took_ms: How long it took, in milliseconds.
        facts: Counts, weights and names.
    """

    name: str
    took_ms: float
    facts: Mapping[str, JsonValue]


@dataclass(slots=True)
class Trace:
    """The stages of one search, as they come.

    Attributes:
        clock: Measures them.
        stages: In order.
    """

    clock: Clock
    stages: list[Stage] = field(default_factory=list)

    @contextmanager
    def stage(self, name: str) -> Iterator[dict[str, JsonValue]]:
        """One stage; what it puts into the mapping is shown."""
        begun_s, facts = self.clock.monotonic_s(), dict[str, JsonValue]()
        yield facts
        self.stages.append(Stage(name, (self.clock.monotonic_s() - begun_s) * 1000, facts))

    @property
    def took_ms(self) -> float:
        """All stages together."""
        return sum(stage.took_ms for stage in self.stages)
