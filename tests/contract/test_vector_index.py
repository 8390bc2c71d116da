"""The ports of vector indexes on every index there is."""

import pytest
from qdrant_client import AsyncQdrantClient

from symbi.adapters.qdrant import QdrantVectors
from symbi.adapters.qdrant_edge import EdgeVectors
from symbi.testing.contracts_vectors import SPACE, VECTOR_CHECKS, open_permits
from symbi.testing.vectors import BruteForceVectors

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore:Local mode performs exact"),  # what the local mode of the client does not do
    pytest.mark.filterwarnings("ignore:Payload indexes have no effect"),
]


@pytest.fixture
def permits():
    return open_permits()


@pytest.fixture(params=["reference", "edge", "server"])
async def index(request, permits, tmp_path):
    if request.param == "reference":
        yield BruteForceVectors(permits.authority, SPACE)
    elif request.param == "server":
        async with QdrantVectors(permits.authority, local_client(), "symbi-test", SPACE) as server:
            yield server
    else:
        async with EdgeVectors(permits.authority, tmp_path / "vectors", SPACE) as edge:
            yield edge


def local_client():
    """The client's own mode without a server, which answers by looking at all."""
    return AsyncQdrantClient(":memory:")


@pytest.mark.parametrize("check", VECTOR_CHECKS, ids=lambda check: check.__name__)
async def test_the_contract(check, index, permits):
    await check(index, permits)
