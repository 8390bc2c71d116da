"""The ports of vector indexes on every index there is."""

import pytest

from symbi.adapters.qdrant_edge import EdgeVectors
from symbi.testing.contracts_vectors import SPACE, VECTOR_CHECKS, open_permits
from symbi.testing.vectors import BruteForceVectors

pytestmark = pytest.mark.anyio


@pytest.fixture
def permits():
    return open_permits()


@pytest.fixture(params=["reference", "edge"])
async def index(request, permits, tmp_path):
    if request.param == "reference":
        yield BruteForceVectors(permits.authority, SPACE)
    else:
        async with EdgeVectors(permits.authority, tmp_path / "vectors", SPACE) as edge:
            yield edge


@pytest.mark.parametrize("check", VECTOR_CHECKS, ids=lambda check: check.__name__)
async def test_the_contract(check, index, permits):
    await check(index, permits)
