"""How an index of vectors is built and searched."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from symbi.errors import ConfigError

LEAST_CANDIDATES: Final = 40  # scored again for one query, however few hits it asks for; costs some microseconds
SCAN_BELOW: Final = 20_000  # points; asking each of them whether it fits takes longer than comparing its vector
BYTES_OF_A_NUMBER: Final = 4


class Quantization(StrEnum):
    """How vectors are made smaller for the first pass of a search."""

    TURBO4 = "turbo4"
    """Four bits for each number, after a turn that spreads them evenly (TurboQuant)."""
    NONE = "none"
    """Not at all: whole vectors are compared."""


@dataclass(frozen=True, slots=True)
class VectorConfig:
    """Values of an index; those that Symbi had from the first are the defaults.

    Attributes:
        dimension: Numbers in a vector, e.g. 1,536 for OpenAI's embeddings; the embedder's if None.
        distance: How near two vectors are: `cosine`.
        m: Edges of each node of the graph (HNSW).
        ef_construct: Candidates that are looked at for each node while the graph is built.
        quantization: How vectors are made smaller.
        oversampling: Quantised candidates for each hit, which are scored again with the whole vectors.
        scan_below: Up to so many points, all or those that a filter leaves, a query goes through the quantised vectors and
            scores the best again; beyond it goes through the graph.

    Raises:
        ConfigError: A value is out of bounds.
    """

    dimension: int | None = None
    distance: str = "cosine"
    m: int = 16
    ef_construct: int = 200
    quantization: Quantization = Quantization.TURBO4
    oversampling: float = 2.0
    scan_below: int = SCAN_BELOW

    def __post_init__(self) -> None:
        """Refuse what no engine takes."""
        bounds = {
            "m": (self.m, 4, 128),
            "ef_construct": (self.ef_construct, 4, 4096),
            "scan_below": (self.scan_below, 2, 10**7),
        }
        for name, (value, least, most) in bounds.items():
            if not least <= value <= most:
                raise ConfigError(f"`{name}` of an index is from {least} to {most}, not {value}", code="vectors.config")
        if self.distance != "cosine":
            raise ConfigError(f"vectors are compared by `cosine`, not by `{self.distance}`", code="vectors.config")
        if not 1 <= self.oversampling <= 100:  # noqa: PLR2004 - a hundredfold is plenty
            raise ConfigError("oversampling is from 1 to 100", code="vectors.config")

    @property
    def graph_from(self) -> int:
        """So many points that are in no graph are put into one: then few are gone through beside it."""
        return self.scan_below // 2

    def candidates(self, k: int, wanted: float | None) -> float | None:
        """Oversampling of a query for `k` hits; None where nothing is quantised."""
        if self.quantization is Quantization.NONE:
            return None
        return max(self.oversampling, LEAST_CANDIDATES / k) if wanted is None else wanted


def kib(points: int, dimension: int) -> int:
    """What engines count by: KiB of so many whole vectors."""
    return max(1, points * dimension * BYTES_OF_A_NUMBER // 1024)
