"""BudgetStore on every adapter: SQLite on disk and in memory."""

import pytest

from symbi.adapters.sqlite import SqliteStore
from symbi.errors import StoreUnavailable
from symbi.guard.budget import Account, Reservation
from symbi.guard.spending import Spend
from symbi.testing.contracts_budgets import check_budget_store
from symbi.types import AgentId, EffectId, RunId


@pytest.fixture(params=["disk", "memory"])
def store(request, tmp_path):
    with SqliteStore(tmp_path if request.param == "disk" else None) as opened:
        yield opened


def test_the_store_keeps_the_contract(store):
    with store.transaction():
        check_budget_store(store)


@pytest.mark.parametrize("what", ["account", "reservation", "taken away"])
def test_an_owner_that_another_has_taken_over_from_writes_nothing(tmp_path, what):
    taken = pytest.raises(StoreUnavailable, match="taken over")
    with taken, SqliteStore(tmp_path) as store, store.transaction():
        store._db.execute("UPDATE meta SET value = '99' WHERE key = 'epoch'")
        with pytest.raises(StoreUnavailable, match="owner 99"):
            if what == "account":
                store.put_account(Account(RunId("r"), AgentId("a")))
            else:
                effect = EffectId("e")
                store.put_reservation(
                    effect, Reservation(effect, RunId("r"), Spend(1)) if what == "reservation" else None
                )
