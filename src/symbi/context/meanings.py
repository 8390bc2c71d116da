"""What items mean: vectors of those that are not sealed, in the namespace of their agent.

A vector says nothing that the item does not; so one that is to be sealed has none. The row is the truth: it is there,
and says that its vector is due, before the vector is; and a vector is removed after its row is, which leaves a note
until then. What a crash left half done is mended from these notes.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from symbi.context.port import Row, Wanted
from symbi.context.words import text_of
from symbi.guard.action import ReadData, WriteData
from symbi.guard.permit import Permit
from symbi.inference.port import Embedder, Vectors
from symbi.knowledge.port import SubjectVectors, VectorIndex
from symbi.knowledge.vectors import Between, Filter, Namespace, OneOf, Scope, VectorPoint, VectorQuery
from symbi.types import AgentId, JsonValue

MAX_TEXT_CHARS: Final = 8192  # of an item, that count for what it means
ALL_KINDS: Final = ("working", "short-term", "long-term", "shared")


@dataclass(frozen=True, slots=True)
class VectorRooms:
    """What makes vectors, and what has them.

    Attributes:
        embedder: Makes them.
        index: Has them.
        removal: Removes those of items whose rows are gone.
    """

    embedder: Embedder
    index: VectorIndex
    removal: SubjectVectors


class Meanings:
    """Vectors of memories.

    Args:
        opened: Gives the rooms; opens them when they are asked for first, for most runs need none.
        left: Whether they are open, or files of theirs may hold what is gone.
    """

    def __init__(self, opened: Callable[[], Awaitable[VectorRooms]], left: Callable[[], bool] = lambda: True) -> None:
        self._opened = opened
        self._left = left

    async def embedder(self) -> tuple[str, bool]:
        """The embedder's name, and whether texts leave for it: what actions say of it.

        Raises:
            ConfigError, Unavailable: It cannot be opened; also of the other methods.
        """
        model = (await self._opened()).embedder.model
        return model.name, model.remote

    async def of_texts(self, permit: Permit[WriteData], contents: Sequence[JsonValue]) -> Vectors:
        """What some contents mean.

        Raises:
            Unavailable, TimeLimit, InputError, PermitRefused: As `Embedder.embed`.
        """
        embedder = (await self._opened()).embedder
        return await embedder.embed(permit, [text_of(one)[:MAX_TEXT_CHARS] for one in contents], "document")

    async def put(self, permit: Permit[WriteData], rows: Sequence[Row], vectors: Vectors) -> None:
        """Put the vectors of items where they are found; raises as `VectorIndex.upsert`."""
        points = [
            VectorPoint(
                UUID(row.id), vector, namespace_of(row.space),
                {"label": _mark(row.kind.value, row.level, shared=row.shared), "time": row.at_ms, "subject": (row.id,)},
            )
            for row, vector in zip(rows, vectors, strict=True)
            if vector.any()
        ]  # fmt: skip
        if points:
            await (await self._opened()).index.upsert(permit, points)

    async def near(
        self, permit: Permit[ReadData], about: str, wanted: Wanted, most: int, ids: Sequence[str] | None = None
    ) -> Mapping[str, float]:
        """How near the nearest items come to what is asked, by their ids; raises as `Embedder.embed`, `VectorIndex.query`."""
        rooms = await self._opened()
        vectors = await rooms.embedder.embed(permit, [about[:MAX_TEXT_CHARS]], "query")
        if not vectors[0].any():
            return {}
        kinds = [one.value for one in wanted.kinds] or ALL_KINDS
        marks = tuple(
            _mark(kind, level, shared=shared)
            for kind in kinds
            for level in sorted(wanted.levels)
            for shared in ((True,) if wanted.shared_only else (False, True))
        )
        since = max(wanted.oldest_ms, wanted.since_ms or wanted.oldest_ms)
        until = None if wanted.until_ms is None else wanted.until_ms - 1
        chosen = Filter(
            (OneOf("label", marks), Between("time", since, until)),
            None if ids is None else frozenset(UUID(one) for one in ids),
        )
        scope = Scope((namespace_of(wanted.space),), chosen)
        hits = await rooms.index.query(permit, VectorQuery(vectors[0], most, scope))
        return {str(hit.id): hit.score for hit in hits}

    async def missing(self, ids: Sequence[str]) -> Sequence[str]:
        """Of some items, those that have no vector; raises as `SubjectVectors.count_subjects`.

        Halves are counted until they are whole or empty: few questions where nearly all are there, or nearly none.
        """
        removal, lost, parts = (await self._opened()).removal, list[str](), [list(ids)]
        while parts:
            part = parts.pop()
            there = await removal.count_subjects(part)
            if not there:
                lost += part
            elif there < len(part):
                half = len(part) // 2
                parts += (part[half:], part[:half])
        return lost

    async def remove(self, ids: Sequence[str], *, wait: bool) -> None:
        """Remove the vectors of items that are no more; raises as `SubjectVectors.erase_subjects`.

        Args:
            ids: Which.
            wait: Until nothing of them is in a file, which takes as long as to write the index.
        """
        removal = (await self._opened()).removal
        await (removal.erase_subjects if wait else removal.remove_subjects)(ids)

    async def erase_left(self, subjects: Collection[str]) -> None:
        """Have nothing in a file of what was removed before; raises as `SubjectVectors.erase_subjects`.

        Args:
            subjects: Who is erased: it may have been about them.
        """
        if subjects and self._left():
            await (await self._opened()).removal.erase_subjects(sorted(subjects))


def namespace_of(space: AgentId) -> Namespace:
    """Where the vectors of an agent's memory are: under the name that policies know it by, and its instance."""
    declared, _, instance = space.partition("/")
    return Namespace("Memory", declared, instance)


def _mark(kind: str, level: str, *, shared: bool) -> str:
    """What readers are kept apart by, in one field."""
    return f"{kind}|{'shared' if shared else 'own'}|{level}"
