"""The ports of this room: an index of vectors, how it is kept up, what it holds about people; and models that rank and write."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, TypeAlias
from uuid import UUID

from symbi.guard.action import CallModel, ExportData, ReadData, WriteData
from symbi.guard.permit import Permit
from symbi.knowledge.answer import AnswerModelId
from symbi.knowledge.vectors import IndexStats, Scope, VectorHit, VectorPoint, VectorQuery

ReadPermit: TypeAlias = Permit[ReadData] | Permit[WriteData] | Permit[ExportData]
"""Whoever may write or export may look what is there."""


class VectorIndex(Protocol):
    """Vectors of one space; whoever made it opens and closes it.

    Each method checks that the permit is live and for the knowledge base or memory of every namespace that is named, and
    does not spend it: one decision covers what a read or write does in index and store. A point of another namespace than
    those named is never touched, counted or given back. Where too many wait, each raises `Overloaded`.
    """

    async def upsert(self, permit: Permit[WriteData], points: Sequence[VectorPoint]) -> None:
        """Put points in, or in the place of those with the same id; found by queries, and kept, once it has returned.

        After it has returned, the end of the process loses nothing. Where it raises, some of the points may be in.

        Raises:
            PermitRefused: The permit is not live, or is for other data.
            InputError: A vector of another dimension, or an id that another namespace has.
            StoreUnavailable: The index cannot be written.
        """

    async def query(self, permit: ReadPermit, query: VectorQuery) -> Sequence[VectorHit]:
        """The nearest points, nearest first; those as near as another by id. A query of zeros is near to nothing.

        Raises:
            PermitRefused: As `upsert`.
            InputError: A vector of another dimension.
            StoreUnavailable: The index cannot be read.
        """

    async def delete(self, permit: Permit[WriteData], scope: Scope) -> int:
        """Remove points; returns how many. No query finds them once it has returned.

        Raises:
            PermitRefused: As `upsert`.
            StoreUnavailable: The index cannot be written.
        """

    async def count(self, permit: ReadPermit, scope: Scope) -> int:
        """How many points there are, exactly.

        Raises:
            PermitRefused: As `upsert`.
            StoreUnavailable: The index cannot be read.
        """

    async def ids(
        self, permit: ReadPermit, scope: Scope, after: UUID | None = None, limit: int = 1000
    ) -> Sequence[UUID]:
        """Ids of points, in their order, behind one of them; to compare with what a store holds.

        Raises:
            PermitRefused: As `upsert`.
            StoreUnavailable: The index cannot be read.
        """


class VectorUpkeep(Protocol):
    """What the owner of an index does with it as a whole; for an operator, who has passed the gate."""

    async def optimize(self) -> bool:
        """Put it in order: merge pieces, build graphs, let go of what was deleted. Reads and writes go on meanwhile.

        Returns whether there was something to do. Asked while it is at it, it waits for that.

        Raises:
            StoreUnavailable: The index cannot be written.
        """

    async def snapshot(self, target: Path) -> None:
        """Write a copy that `restore` reads, as of a moment between two writes.

        Raises:
            InputError: Something is there already.
            StoreUnavailable: It cannot be read or written.
        """

    async def restore(self, source: Path) -> None:
        """Put a copy in the place of all that is there.

        Raises:
            ConfigError: It is of another space.
            InputError: It is no copy.
            StoreUnavailable: It cannot be read or written.
        """

    async def stats(self) -> IndexStats:
        """How it stands.

        Raises:
            StoreUnavailable: The index cannot be read.
        """


class SubjectVectors(Protocol):
    """What an index holds about people, in all namespaces; for erasures, which an operator has asked for at the gate."""

    async def count_subjects(self, subjects: Sequence[str]) -> int:
        """How many points have one of these in their field `subject`.

        Raises:
            StoreUnavailable: The index cannot be read.
        """

    async def erase_subjects(self, subjects: Sequence[str], documents: Sequence[str] = ()) -> int:
        """Remove them; returns how many. May be asked again after a crash.

        Nothing of them is in a file of ours once it has returned, also of what was deleted before.

        Args:
            subjects: As `count_subjects`.
            documents: And those that have one of these in their field `document`, whomever they are about.

        Raises:
            StoreUnavailable: The index cannot be written.
        """

    async def remove_subjects(self, subjects: Sequence[str]) -> int:
        """The same, without waiting for the files: they are written anew a while later, also after a crash.

        Raises:
            StoreUnavailable: The index cannot be written.
        """


class AnswerModel(Protocol):
    """A model that writes answers."""

    @property
    def model(self) -> AnswerModelId:
        """Which model it is."""

    async def write(self, permit: Permit[CallModel]) -> str:
        """An answer to the permit's own prompt, see `Told.read`.

        Raises:
            PermitRefused: The permit is spent, or its decision was not about this model.
            ModelFailed: It gave none.
            TimeLimit: It took too long.
            Unavailable: It cannot be reached.
        """


class CrossEncoder(Protocol):
    """Reads question and passage together; slower than everything else, and better."""

    async def scores(self, permit: Permit[ReadData], question: str, texts: Sequence[str]) -> Sequence[float]:
        """How well each text answers the question, from 0 to 1.

        Raises:
            PermitRefused: The permit is not live.
            Unavailable: The model cannot be used.
        """
