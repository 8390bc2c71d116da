"""The checks of the port of vector indexes, to be run on every one of them; what is right, the brute force says."""

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol, TypeAlias
from uuid import UUID

import numpy as np

from symbi.errors import InputError, PermitRefused, SymbiError
from symbi.guard.action import ExportData, ReadData, WriteData
from symbi.guard.actions.data import DataRef
from symbi.guard.permit import Authority, Permit
from symbi.knowledge.port import SubjectVectors, VectorIndex
from symbi.knowledge.vectors import (
    Between,
    Filter,
    Namespace,
    OneOf,
    Scope,
    VectorHit,
    VectorPoint,
    VectorQuery,
    VectorSpace,
    unit,
)
from symbi.testing.clock import ManualClock
from symbi.testing.vectors import BruteForceVectors
from symbi.types import AgentId, EffectId, Principal

SPACE: Final = VectorSpace("test", "d" * 64, 8)
DATA: Final = DataRef("Knowledge", "runbooks")
MINE: Final = Namespace("Knowledge", "runbooks", "mine")
YOURS: Final = Namespace("Knowledge", "runbooks", "yours")
_WHO: Final = Principal(AgentId("a"))
_NEAR: Final = 1e-5  # float32 in both, added up in another order


class VectorStore(VectorIndex, SubjectVectors, Protocol):
    """Both ports of one index."""


@dataclass(frozen=True, slots=True)
class Permits:
    """Live permits of a gate that lets everything pass.

    Attributes:
        authority: Where they are checked.
    """

    authority: Authority

    def write(self, data: DataRef = DATA) -> Permit[WriteData]:
        """To write to some data."""
        return self.authority.mint(EffectId("w"), WriteData(principal=_WHO, data=data))

    def read(self, data: DataRef = DATA) -> Permit[ReadData]:
        """To read some data."""
        return self.authority.mint(EffectId("r"), ReadData(principal=_WHO, data=data))

    def export(self, data: DataRef = DATA) -> Permit[ExportData]:
        """To take some data out."""
        return self.authority.mint(EffectId("e"), ExportData(principal=_WHO, data=data, destination="file"))


def open_permits() -> Permits:
    """Of a new gate."""
    return Permits(Authority(ManualClock()))


def sample_points(count: int, seed: int = 1, namespaces: Sequence[Namespace] = (MINE, YOURS)) -> list[VectorPoint]:
    """Points in all directions, in turn of each namespace, with every kind of payload."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((count, SPACE.dimension)).astype(np.float32)
    return [
        VectorPoint(
            UUID(int=(seed << 64) + number),
            rows[number],
            namespaces[number % len(namespaces)],
            {
                "document": f"d{number % 7}",
                "subject": tuple(f"s{one}" for one in range(number % 3)),
                "label": ("public", "internal", "secret")[number % 3],
                "time": 1_000 * number,
                "weight": number / 4,
                "pinned": number % 2 == 0,
            },
        )
        for number in range(count)
    ]


FILTERS: Final = (
    Filter(),
    Filter((OneOf("document", ("d1", "d4")),)),
    Filter((OneOf("subject", ("s1",)),)),
    Filter((OneOf("time", (3_000, 5_000, 7_000)),)),
    Filter((Between("time", 4_000, 20_000), OneOf("label", ("public",)))),
    Filter((Between("weight", None, 3.25),)),
    Filter((Between("time", 12_000),), frozenset(UUID(int=(1 << 64) + number) for number in range(10, 20))),
    Filter((OneOf("weight", ("1",)),)),  # a text is no number
    Filter((OneOf("nothing", ("x",)),)),
    Filter(ids=frozenset()),
)


async def check_vectors_a_point_is_found_once_it_is_in(index: VectorStore, permits: Permits) -> None:
    """And it comes back with what is known of it, and the cosine of the angle."""
    point = sample_points(1)[0]
    await index.upsert(permits.write(), [point])
    (hit,) = await index.query(permits.read(), VectorQuery(point.vector * 3, 5, Scope((MINE,))))
    assert (hit.id, hit.namespace, dict(hit.payload)) == (point.id, MINE, dict(point.payload))
    assert (abs(hit.score - 1) < _NEAR, hit.vector) == (True, None)
    (hit,) = await index.query(permits.read(), VectorQuery(point.vector, 5, Scope((MINE,)), with_vectors=True))
    assert hit.vector is not None
    assert np.allclose(hit.vector, unit(point.vector), atol=_NEAR)


async def check_vectors_answers_equal_the_brute_force(index: VectorStore, permits: Permits) -> None:
    """Every filter, one namespace and both, few hits and all."""
    points = sample_points(60)
    reference = BruteForceVectors(permits.authority, SPACE)
    for one in (index, reference):
        await one.upsert(permits.write(), points)
    for scope in (Scope(names, filter_) for filter_ in FILTERS for names in ((MINE,), (YOURS, MINE))):
        for k in (1, 7, 100):
            query = VectorQuery(points[3].vector + points[8].vector, k, scope, exact=True)
            assert_same(await index.query(permits.read(), query), await reference.query(permits.read(), query))
        assert await index.count(permits.read(), scope) == await reference.count(permits.read(), scope)
        assert list(await index.ids(permits.read(), scope)) == list(await reference.ids(permits.read(), scope))


async def check_vectors_a_point_is_replaced_with_all_that_is_known(index: VectorStore, permits: Permits) -> None:
    """The last one counts, also within one call."""
    first, second, third = sample_points(3, namespaces=(MINE,))
    changed = VectorPoint(first.id, second.vector, MINE, {"document": "other"})
    again = VectorPoint(first.id, third.vector, MINE, {"label": "last"})
    await index.upsert(permits.write(), [first])
    await index.upsert(permits.write(), [changed])
    assert await index.count(permits.read(), Scope((MINE,))) == 1
    (hit,) = await index.query(permits.read(), VectorQuery(second.vector, 5, Scope((MINE,))))
    assert (abs(hit.score - 1) < _NEAR, dict(hit.payload)) == (True, {"document": "other"})
    await index.upsert(permits.write(), [changed, again])
    (hit,) = await index.query(permits.read(), VectorQuery(third.vector, 5, Scope((MINE,))))
    assert (abs(hit.score - 1) < _NEAR, dict(hit.payload)) == (True, {"label": "last"})


async def check_vectors_what_is_deleted_is_gone(index: VectorStore, permits: Permits) -> None:
    """By filter, within the namespaces that are named, and no more than that."""
    points = sample_points(40)
    reference = BruteForceVectors(permits.authority, SPACE)
    for one in (index, reference):
        await one.upsert(permits.write(), points)
    for scope in (
        Scope((MINE,), Filter((OneOf("document", ("d2",)),))),
        Scope((YOURS,), Filter((Between("time", 20_000),))),
    ):
        assert await index.delete(permits.write(), scope) == await reference.delete(permits.write(), scope) > 0
        assert await index.delete(permits.write(), scope) == 0
    both = Scope((MINE, YOURS))
    assert list(await index.ids(permits.read(), both)) == list(await reference.ids(permits.read(), both))
    query = VectorQuery(points[0].vector, 100, both, exact=True)
    assert_same(await index.query(permits.read(), query), await reference.query(permits.read(), query))


async def check_vectors_no_namespace_reaches_another(index: VectorStore, permits: Permits) -> None:
    """Neither by an id that is another's, nor by a permit for other data."""
    mine, yours = sample_points(2)
    other = Namespace("Knowledge", "payroll")
    await index.upsert(permits.write(), [mine, yours])
    await expect(InputError, index.upsert(permits.write(), [VectorPoint(yours.id, mine.vector, MINE)]))
    (hit,) = await index.query(permits.read(), VectorQuery(yours.vector, 5, Scope((YOURS,))))
    assert (hit.id, dict(hit.payload)) == (yours.id, dict(yours.payload))
    assert await index.delete(permits.write(), Scope((MINE,), Filter(ids=frozenset({yours.id})))) == 0
    for names in ((other,), (MINE, other)):
        scope = Scope(names)
        await expect(
            PermitRefused, index.upsert(permits.write(), [VectorPoint(mine.id, mine.vector, one) for one in names])
        )
        await expect(PermitRefused, index.delete(permits.write(), scope))
        await expect(PermitRefused, index.query(permits.read(), VectorQuery(mine.vector, 1, scope)))
        await expect(PermitRefused, index.count(permits.read(), scope))
        await expect(PermitRefused, index.ids(permits.export(), scope))
    assert await index.count(permits.write(), Scope((MINE, YOURS))) == 2  # noqa: PLR2004 - both are there


async def check_vectors_a_permit_that_is_closed_reads_and_writes_nothing(index: VectorStore, permits: Permits) -> None:
    """As one that was made by hand."""
    point = sample_points(1)[0]
    write, read = permits.write(), permits.read()
    forged = Permit(EffectId("f"), WriteData(principal=_WHO, data=DATA))
    permits.authority.close(write)
    permits.authority.close(read)
    for one in (write, forged):
        await expect(PermitRefused, index.upsert(one, [point]))
        await expect(PermitRefused, index.delete(one, Scope((MINE,))))
    await expect(PermitRefused, index.query(read, VectorQuery(point.vector, 1, Scope((MINE,)))))
    assert await index.count(permits.read(), Scope((MINE,))) == 0


async def check_vectors_of_another_space_are_refused(index: VectorStore, permits: Permits) -> None:
    """Of another number of dimensions."""
    short = VectorPoint(UUID(int=5), np.ones(SPACE.dimension - 1, np.float32), MINE)
    await expect(InputError, index.upsert(permits.write(), [short]))
    await expect(InputError, index.query(permits.read(), VectorQuery(short.vector, 1, Scope((MINE,)))))
    assert await index.count(permits.read(), Scope((MINE,))) == 0


async def check_vectors_of_zeros_are_near_to_nothing(index: VectorStore, permits: Permits) -> None:
    """Such a point is there, and such a query finds nothing."""
    zeros = VectorPoint(UUID(int=5), np.zeros(SPACE.dimension, np.float32), MINE)
    point = sample_points(1)[0]
    await index.upsert(permits.write(), [zeros, point])
    assert await index.query(permits.read(), VectorQuery(zeros.vector, 5, Scope((MINE,)))) == ()
    hits = await index.query(permits.read(), VectorQuery(point.vector, 1, Scope((MINE,))))
    assert [one.id for one in hits] == [point.id]
    assert await index.count(permits.read(), Scope((MINE,))) == 2  # noqa: PLR2004 - both are there


async def check_vectors_are_compared_by_their_direction_alone(index: VectorStore, permits: Permits) -> None:
    """However long or short a vector is, and the one that is looked for: as far as its numbers can say where it points."""
    points = [replace(one, namespace=MINE) for one in sample_points(9)]
    brute = BruteForceVectors(permits.authority, SPACE)
    await brute.upsert(permits.write(), points)
    asked = points[4].vector
    wanted = await brute.query(permits.read(), VectorQuery(asked, 9, Scope((MINE,))))
    for length in (1e-30, 1e-6, 1e-4, 1e19, 1e30):
        factor = np.float32(length)
        await index.upsert(permits.write(), [replace(one, vector=one.vector * factor) for one in points])
        for one in (asked, asked * factor):
            assert_same(await index.query(permits.read(), VectorQuery(one, 9, Scope((MINE,)))), wanted)


async def check_vectors_ids_come_in_pages(index: VectorStore, permits: Permits) -> None:
    """In order, each once."""
    points = sample_points(25, namespaces=(MINE,))
    await index.upsert(permits.write(), points)
    found: list[UUID] = []
    while page := await index.ids(permits.read(), Scope((MINE,)), found[-1] if found else None, 10):
        found += page
    assert found == sorted(one.id for one in points)


async def check_vectors_odd_names_and_texts_come_back(index: VectorStore, permits: Permits) -> None:
    """Whatever a name is made of, it is that name alone."""
    names = ["a/b", "a", "a%2Fb", "ä ö", "b/", "*", ""]
    spaces = [Namespace("Knowledge", DATA.name, name) for name in names]
    points = sample_points(len(spaces), namespaces=spaces)
    await index.upsert(permits.write(), points)
    for space, point in zip(spaces, points, strict=True):
        hits = await index.query(permits.read(), VectorQuery(point.vector, 9, Scope((space,))))
        assert [(one.id, one.namespace) for one in hits] == [(point.id, space)]


async def check_vectors_about_people_are_erased_everywhere(index: VectorStore, permits: Permits) -> None:
    """In every namespace, and nobody else's."""
    points = sample_points(30)
    reference = BruteForceVectors(permits.authority, SPACE)
    for one in (index, reference):
        await one.upsert(permits.write(), points)
    assert await index.count_subjects(["s1", "x"]) == await reference.count_subjects(["s1", "x"]) > 0
    assert await index.count_subjects([]) == await index.erase_subjects([]) == 0
    assert await index.erase_subjects(["s1", "x"]) == await reference.erase_subjects(["s1", "x"])
    assert await index.erase_subjects(["s1", "x"]) == 0
    assert await index.erase_subjects([], ["d1", "x"]) == await reference.erase_subjects([], ["d1", "x"]) > 0
    assert await index.erase_subjects(["s0"], ["d2"]) == await reference.erase_subjects(["s0"], ["d2"]) > 0
    both = Scope((MINE, YOURS))
    assert list(await index.ids(permits.read(), both)) == list(await reference.ids(permits.read(), both))


def assert_same(found: Sequence[VectorHit], wanted: Sequence[VectorHit]) -> None:
    """The same points with the same scores; where two are as near as makes no difference, in either order."""
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert abs(one.score - other.score) < _NEAR
    parts = {one.id: (one.namespace, dict(one.payload)) for one in found}
    least = wanted[-1].score + _NEAR if wanted else 0.0  # below it, which of those that are as near came in is open
    for other in wanted:
        assert other.score <= least or parts[other.id] == (other.namespace, dict(other.payload))


async def expect(kind: type[SymbiError], call: Coroutine[Any, Any, object]) -> None:
    """It is refused, and with this error."""
    try:
        await call
    except kind:
        return
    msg = f"no {kind.__name__} was raised"
    raise AssertionError(msg)


VectorCheck: TypeAlias = Callable[[VectorStore, Permits], Coroutine[Any, Any, None]]

VECTOR_CHECKS: Final[Sequence[VectorCheck]] = (
    check_vectors_a_point_is_found_once_it_is_in,
    check_vectors_answers_equal_the_brute_force,
    check_vectors_a_point_is_replaced_with_all_that_is_known,
    check_vectors_what_is_deleted_is_gone,
    check_vectors_no_namespace_reaches_another,
    check_vectors_a_permit_that_is_closed_reads_and_writes_nothing,
    check_vectors_of_another_space_are_refused,
    check_vectors_of_zeros_are_near_to_nothing,
    check_vectors_are_compared_by_their_direction_alone,
    check_vectors_ids_come_in_pages,
    check_vectors_odd_names_and_texts_come_back,
    check_vectors_about_people_are_erased_everywhere,
)
"""Every check of an index."""
