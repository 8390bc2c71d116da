"""What every store of budgets must do, whatever it is made of."""

from symbi.guard.budget import Account, BudgetStore, Reservation
from symbi.guard.spending import MOST, Budget, Spend
from symbi.types import AgentId, EffectId, RunId

_A, _B = AgentId("a"), AgentId("b")


def check_budget_store(store: BudgetStore) -> None:
    """Run the whole suite on an empty store, inside a transaction.

    Raises:
        AssertionError: The store does not keep the contract.
    """
    _what_was_never_opened_is_not_there(store)
    _an_account_is_kept_as_it_was_put(store)
    _accounts_of_an_agent_come_newest_first(store)
    _a_reservation_is_there_until_it_is_taken_away(store)


def _what_was_never_opened_is_not_there(store: BudgetStore) -> None:
    assert store.account_of(RunId("r1")) is None
    assert list(store.accounts_of(_A, 10)) == []
    assert store.reservation_of(EffectId("e1")) is None
    store.put_reservation(EffectId("e1"), None)


def _an_account_is_kept_as_it_was_put(store: BudgetStore) -> None:
    whole = Account(
        RunId("r1"), _A, RunId(""), Budget(1, 2, 3, 4, 5), Spend(6, 7, 8, 9, MOST), Spend(10, 11, 12, 13, 14)
    )
    store.put_account(whole)
    assert store.account_of(RunId("r1")) == whole
    unbounded = Account(RunId("r2"), _A, RunId("r1"))
    store.put_account(unbounded)
    assert store.account_of(RunId("r2")) == unbounded
    replaced = Account(RunId("r1"), _A, RunId(""), Budget(cpu_ms=1), Spend(1), Spend(0, 1))
    store.put_account(replaced)
    assert store.account_of(RunId("r1")) == replaced


def _accounts_of_an_agent_come_newest_first(store: BudgetStore) -> None:
    store.put_account(Account(RunId("r3"), _B))
    assert [account.run_id for account in store.accounts_of(_A, 10)] == ["r2", "r1"]
    assert [account.run_id for account in store.accounts_of(_A, 1)] == ["r2"]
    assert [account.run_id for account in store.accounts_of(_B, 10)] == ["r3"]
    assert [account.run_id for account in store.accounts_of(None, 2)] == ["r3", "r2"]


def _a_reservation_is_there_until_it_is_taken_away(store: BudgetStore) -> None:
    one = Reservation(EffectId("e1"), RunId("r1"), Spend(1, 2, 3, 4, 5))
    store.put_reservation(one.effect_id, one)
    assert store.reservation_of(EffectId("e1")) == one
    assert store.reservation_of(EffectId("e2")) is None
    store.put_reservation(one.effect_id, None)
    assert store.reservation_of(EffectId("e1")) is None
