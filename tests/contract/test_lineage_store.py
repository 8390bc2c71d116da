"""The port that keeps which run asked for which, on every store."""

import pytest

from symbi.adapters.sqlite import SqliteStore
from symbi.errors import StoreUnavailable
from symbi.testing.contracts_lineage import LINEAGE_CHECKS, descent


@pytest.fixture(params=["disk", "memory"])
def store(request, tmp_path):
    with SqliteStore(tmp_path / "data" if request.param == "disk" else None) as opened:
        yield opened


@pytest.mark.parametrize("check", LINEAGE_CHECKS, ids=lambda check: check.__name__)
def test_the_contract(check, store):
    check(store)


def test_a_newer_owner_keeps_an_older_one_from_it(tmp_path):
    with SqliteStore(tmp_path) as store:
        store._db.execute("UPDATE meta SET value = '9' WHERE key = 'epoch'")
        with pytest.raises(StoreUnavailable, match="taken over"), store.transaction():
            store.put_descent(descent(1))
