"""Whatever is asked of whatever is there: the embedded index and the server's client answer as the brute force does."""

from uuid import UUID

import anyio
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from qdrant_client import AsyncQdrantClient

from symbi.adapters.qdrant import QdrantVectors
from symbi.adapters.qdrant_edge import EdgeVectors
from symbi.errors import InputError
from symbi.guard.actions.data import DataRef
from symbi.knowledge.vectors import (
    MAX_WHOLE,
    Between,
    Filter,
    Namespace,
    OneOf,
    Scope,
    VectorPoint,
    VectorQuery,
)
from symbi.testing.contracts_vectors import SPACE, assert_same, open_permits
from symbi.testing.vectors import BruteForceVectors

pytestmark = [
    pytest.mark.filterwarnings("ignore:Local mode performs exact"),
    pytest.mark.filterwarnings("ignore:Payload indexes have no effect"),
]
FIELDS = ("document", "subject", "label", "time", "weight")
SPACES = [
    Namespace(type_, name, part) for type_ in ("Knowledge", "Memory") for name in ("a", "b") for part in ("", "x")
]
TEXTS = st.sampled_from(["", "a", "b", "1", "ä", "x y"]) | st.text(max_size=4).filter(
    lambda text: text.isascii() or text.isprintable()
)
WHOLE = st.integers(-3, 3) | st.sampled_from([MAX_WHOLE, -MAX_WHOLE])
NUMBERS = WHOLE | st.floats(-4, 4).map(lambda one: round(one, 2))
VALUES = TEXTS | NUMBERS | st.booleans() | st.lists(TEXTS, max_size=3).map(tuple)
CONDITIONS = st.one_of(
    st.builds(OneOf, st.sampled_from(FIELDS), st.lists(TEXTS, min_size=1, max_size=3).map(tuple)),
    st.builds(OneOf, st.sampled_from(FIELDS), st.lists(WHOLE, min_size=1, max_size=3).map(tuple)),
    st.builds(Between, st.sampled_from(FIELDS), NUMBERS, st.none() | NUMBERS),
    st.builds(Between, st.sampled_from(FIELDS), st.none(), NUMBERS),
)
IDS = st.integers(1, 12).map(lambda number: UUID(int=number))
FILTERS = st.builds(Filter, st.lists(CONDITIONS, max_size=3).map(tuple), st.none() | st.frozensets(IDS, max_size=6))
DATA = st.sampled_from(sorted({(one.type, one.name) for one in SPACES}))


@st.composite
def vectors(draw):
    return np.array(draw(st.lists(st.integers(-5, 5), min_size=SPACE.dimension, max_size=SPACE.dimension)), np.float32)


@st.composite
def scopes(draw):
    type_, name = draw(DATA)
    mine = [one for one in SPACES if (one.type, one.name) == (type_, name)]
    names = draw(st.lists(st.sampled_from(mine), min_size=1, unique=True))
    return Scope(tuple(names), draw(FILTERS))


@st.composite
def steps(draw):
    kind = draw(st.sampled_from(["upsert", "upsert", "upsert", "query", "query", "delete"]))
    if kind == "upsert":
        payload = st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=4)
        return kind, [
            VectorPoint(draw(IDS), draw(vectors()), draw(st.sampled_from(SPACES)), draw(payload))
            for _ in range(draw(st.integers(1, 4)))
        ]
    if kind == "query":
        return kind, VectorQuery(draw(vectors()), draw(st.sampled_from([1, 3, 50])), draw(scopes()), exact=True)
    return kind, draw(scopes())


@pytest.fixture(params=["edge", "server"])
def opened(request, tmp_path_factory):
    """One index for all examples, emptied between them: starting an engine takes longer than asking it."""
    permits = open_permits()
    with anyio.from_thread.start_blocking_portal() as portal:
        if request.param == "edge":
            made = EdgeVectors(permits.authority, tmp_path_factory.mktemp("edge") / "v", SPACE)
        else:
            made = QdrantVectors(permits.authority, AsyncQdrantClient(":memory:"), "v", SPACE)
        with portal.wrap_async_context_manager(made) as index:
            yield permits, portal, index


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(todo=st.lists(steps(), min_size=2, max_size=12))
def test_answers_are_those_of_the_brute_force_and_no_namespace_reaches_another(opened, todo):
    permits, portal, index = opened
    portal.call(run, permits, index, todo)


async def run(permits, index, todo):
    reference = BruteForceVectors(permits.authority, SPACE)
    for name in SPACES:
        await index.delete(permits.write(ref(name)), Scope((name,)))
    for kind, what in todo:
        match kind:
            case "upsert":
                for point in what:
                    answers = [
                        await attempt(one.upsert(permits.write(ref(point.namespace)), [point]))
                        for one in (index, reference)
                    ]
                    assert answers[0] == answers[1]
            case "query":
                read = permits.read(ref(what.scope.namespaces[0]))
                found = await index.query(read, what)
                assert_same(found, await reference.query(read, what))
                assert {hit.namespace for hit in found} <= set(what.scope.namespaces)
                for hit in found:
                    assert reference.points[hit.id].namespace == hit.namespace
            case _:
                write = permits.write(ref(what.namespaces[0]))
                assert await index.count(write, what) == await reference.count(write, what)
                assert await index.delete(write, what) == await reference.delete(write, what)
    for name in SPACES:
        read, scope = permits.read(ref(name)), Scope((name,))
        assert list(await index.ids(read, scope)) == list(await reference.ids(read, scope))


def ref(name):
    return DataRef(name.type, name.name)


async def attempt(call):
    try:
        await call
    except InputError as error:
        return error.code
    return None


@given(st.text(max_size=8), st.text(max_size=8), st.text(max_size=8), st.text(max_size=8))
def test_no_two_namespaces_are_kept_under_one_text(name, part, other_name, other_part):
    try:
        one, other = Namespace("Memory", name, part), Namespace("Memory", other_name, other_part)
    except InputError:
        return
    assert Namespace.parse(one.text) == one
    assert (one.text == other.text) == (one == other)
