"""TallyStore on every adapter: SQLite on disk and in memory."""

import pytest

from symbi.adapters.sqlite import SqliteStore
from symbi.guard.tally import Tally
from symbi.policy.counters import Window
from symbi.testing.contracts_history import check_tally_store
from symbi.types import EffectId


@pytest.fixture(params=["disk", "memory"])
def store(request, tmp_path):
    with SqliteStore(tmp_path if request.param == "disk" else None) as opened:
        yield opened


def test_the_store_keeps_the_contract(store):
    with store.transaction():
        check_tally_store(store)


def test_what_a_unit_of_work_added_is_undone_with_it(store):
    tally = Tally("n", "all:", Window(60))
    with store.transaction():
        with pytest.raises(RuntimeError), store.savepoint():
            store.add_to_tallies(EffectId("e"), [(tally, 1)], 0)
            raise RuntimeError
        assert store.read_tallies([tally], 0)[0].total == 0
