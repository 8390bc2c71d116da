"""The index of vectors that cannot be wrong: every point is looked at, one after another."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

import numpy as np

from symbi.errors import InputError
from symbi.guard.action import WriteData
from symbi.guard.permit import Authority, Permit
from symbi.knowledge.permits import check_read, check_write
from symbi.knowledge.port import ReadPermit
from symbi.knowledge.vectors import (
    Between,
    Condition,
    OneOf,
    PayloadValue,
    Scope,
    Vector,
    VectorHit,
    VectorPoint,
    VectorQuery,
    VectorSpace,
    unit,
)


@dataclass(slots=True)
class BruteForceVectors:
    """`symbi.knowledge.port.VectorIndex` and `SubjectVectors` in memory.

    Attributes:
        authority: Where permits are checked.
        space: Of which vectors.
        points: What is in it, by id.
    """

    authority: Authority
    space: VectorSpace
    points: dict[UUID, VectorPoint] = field(default_factory=dict)

    async def upsert(self, permit: Permit[WriteData], points: Sequence[VectorPoint]) -> None:
        """Put points in."""
        check_write(self.authority, permit, [one.namespace for one in points])
        for one in points:
            self.space.check(one.vector)
            there = self.points.get(one.id)
            if there is not None and there.namespace != one.namespace:
                raise InputError("another namespace has a point of this id", code="vectors.id")
        self.points |= {one.id: one for one in points}

    async def query(self, permit: ReadPermit, query: VectorQuery) -> Sequence[VectorHit]:
        """The nearest points."""
        check_read(self.authority, permit, query.scope.namespaces)
        self.space.check(query.vector)
        if not query.vector.any():
            return ()
        found = [(cosine(query.vector, one.vector), one) for one in self._within(query.scope)]
        found.sort(key=lambda pair: (-pair[0], pair[1].id))
        return [
            VectorHit(one.id, score, one.namespace, one.payload, unit(one.vector) if query.with_vectors else None)
            for score, one in found[: query.k]
        ]

    async def delete(self, permit: Permit[WriteData], scope: Scope) -> int:
        """Remove points."""
        check_write(self.authority, permit, scope.namespaces)
        gone = self._within(scope)
        for one in gone:
            del self.points[one.id]
        return len(gone)

    async def count(self, permit: ReadPermit, scope: Scope) -> int:
        """How many there are."""
        check_read(self.authority, permit, scope.namespaces)
        return len(self._within(scope))

    async def ids(
        self, permit: ReadPermit, scope: Scope, after: UUID | None = None, limit: int = 1000
    ) -> Sequence[UUID]:
        """Ids in order."""
        check_read(self.authority, permit, scope.namespaces)
        return sorted(one.id for one in self._within(scope) if after is None or one.id > after)[:limit]

    async def count_subjects(self, subjects: Sequence[str]) -> int:
        """How many points are about some people."""
        return len(self._about(subjects))

    async def erase_subjects(self, subjects: Sequence[str], documents: Sequence[str] = ()) -> int:
        """Remove points about some people, and of some documents."""
        theirs = OneOf("document", tuple(documents)) if documents else None
        of_them = [one.id for one in self.points.values() if theirs is not None and fits(one.payload, theirs)]
        gone = {one.id for one in self._about(subjects)}.union(of_them)
        for one in gone:
            del self.points[one]
        return len(gone)

    async def remove_subjects(self, subjects: Sequence[str]) -> int:
        """Likewise."""
        gone = self._about(subjects)
        for one in gone:
            del self.points[one.id]
        return len(gone)

    def _within(self, scope: Scope) -> list[VectorPoint]:
        return [one for one in self.points.values() if is_within(one, scope)]

    def _about(self, subjects: Sequence[str]) -> list[VectorPoint]:
        return [
            one for one in self.points.values() if subjects and fits(one.payload, OneOf("subject", tuple(subjects)))
        ]


def is_within(point: VectorPoint, scope: Scope) -> bool:
    """Whether a point is meant."""
    return (
        point.namespace in scope.namespaces
        and (scope.filter.ids is None or point.id in scope.filter.ids)
        and all(fits(point.payload, one) for one in scope.filter.conditions)
    )


def fits(payload: Mapping[str, PayloadValue], condition: Condition) -> bool:
    """Whether a condition holds of a payload."""
    value = payload.get(condition.name)
    match condition:
        case OneOf():
            return any(
                type(one) is type(wanted) and one == wanted
                for one in (value if isinstance(value, tuple) else (value,))
                for wanted in condition.values
            )
        case Between():
            if not isinstance(value, int | float) or isinstance(value, bool):
                return False
            return (condition.least is None or value >= condition.least) and (
                condition.most is None or value <= condition.most
            )


def cosine(a: Vector, b: Vector) -> float:
    """Of the angle between two vectors; 0 where one is of zeros."""
    x, y = a.astype(np.float64), b.astype(np.float64)
    lengths = float(np.linalg.norm(x) * np.linalg.norm(y))
    return float(x @ y) / lengths if lengths else 0.0
