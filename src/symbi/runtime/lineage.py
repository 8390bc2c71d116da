"""Which run asked for which: what bounds delegation, and the port that keeps it.

A run that an agent asks another for is noted before it begins. So a chain of runs is bounded in length, whoever
crashes, and no agent is asked for what waits for it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from symbi.types import AgentId, RunId

MAX_DEPTH: Final = 16
"""How many runs may stand between a run and the one that nobody asked for."""


@dataclass(frozen=True, slots=True)
class Descent:
    """Where a run comes from.

    Attributes:
        run_id: The run.
        parent: The run that asked for it, and waits.
        root: The first of the chain, which no run asked for.
        depth: How many runs stand above it; at least 1.
    """

    run_id: RunId
    parent: RunId
    root: RunId
    depth: int


class LineageStore(Protocol):
    """Durable descent of runs; the methods block, and the one that writes runs inside the store's running transaction."""

    def put_descent(self, descent: Descent) -> None:
        """Note where a run comes from. What is noted already stays.

        Raises:
            StoreUnavailable: The store cannot be written.
        """

    def descent_of(self, run_id: RunId) -> Descent | None:
        """Where a run comes from; None where no run asked for it.

        Raises:
            StoreUnavailable: The store cannot be read.
        """

    def chain_of(self, run_id: RunId) -> Sequence[tuple[RunId, AgentId]]:
        """A run and those above it, each with its agent, from the run upward.

        Raises:
            StoreUnavailable: The store cannot be read.
        """

    def answer_label(self, run_id: RunId) -> bytes | None:
        """The label of the value that a run gave, or of what its error may quote, as `RunRecord.answer` was kept; None where there is nothing to say.

        Raises:
            StoreUnavailable: The store cannot be read.
        """

    def asked_by(self, run_id: RunId) -> Sequence[Descent]:
        """The runs that a run has asked for, oldest first.

        Raises:
            StoreUnavailable: The store cannot be read.
        """
