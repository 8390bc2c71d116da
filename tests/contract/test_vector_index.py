"""The ports of vector indexes on every index there is."""

import pytest

from symbi.testing.contracts_vectors import SPACE, VECTOR_CHECKS, open_permits
from symbi.testing.vectors import BruteForceVectors

pytestmark = pytest.mark.anyio


@pytest.fixture
def permits():
    return open_permits()


@pytest.fixture(params=["reference"])
async def index(request, permits):
    return BruteForceVectors(permits.authority, SPACE)


@pytest.mark.parametrize("check", VECTOR_CHECKS, ids=lambda check: check.__name__)
async def test_the_contract(check, index, permits):
    await check(index, permits)
