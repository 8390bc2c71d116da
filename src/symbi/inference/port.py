"""The port to whatever turns texts into vectors."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from symbi.guard.action import ReadData, WriteData
from symbi.guard.permit import Permit

Vectors: TypeAlias = NDArray[np.float32]
"""One row of float32 for each text."""
TextPurpose: TypeAlias = Literal["document", "query"]
"""Some models read a question otherwise than what may answer it."""


@dataclass(frozen=True, slots=True)
class EmbedderId:
    """Which model makes the vectors; those of two models have nothing to do with one another.

    Attributes:
        name: As the configuration calls it, e.g. `builtin`; what an action's `embedder` must say where it is remote.
        digest: Of the model's files, or of all that is known of a remote one; a store remembers it.
        dimension: Numbers in a vector.
        provider: Who computes, e.g. `builtin`, `openai`.
        remote: Whether texts leave this machine's owner.
    """

    name: str
    digest: str
    dimension: int
    provider: str
    remote: bool = False


class Embedder(Protocol):
    """Turns texts into vectors; whoever made it closes it."""

    @property
    def model(self) -> EmbedderId:
        """Which model it is."""

    async def embed(
        self, permit: Permit[ReadData] | Permit[WriteData], texts: Sequence[str], purpose: TextPurpose
    ) -> Vectors:
        """One row for each text, in order, of unit length; of zeros where a text has nothing in it that the model knows.

        Does not spend the permit, whose decision covers the whole read or write; it must be live. Where the model is
        remote, the permit's action has to say so: `remote`, and `embedder` with the name of this model.

        Args:
            permit: Of the read that asks, or the write that keeps.
            texts: Any number; each is read up to a bound of the model.
            purpose: What the texts are.

        Raises:
            PermitRefused: The permit is not live, or its decision was not about this remote model.
            InputError: The provider refuses the texts or the model.
            Unavailable: The model or its provider cannot be used now, or gave no answer that is one.
            TimeLimit: The provider took too long.
        """
