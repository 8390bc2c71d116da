"""Accounts of runs, and what effects hold in them: a part of the store."""

from collections.abc import Sequence
from typing import Any, Final

from symbi.adapters.sqlite.file import SQL
from symbi.adapters.sqlite.rows import Rows
from symbi.guard.budget import Account, Reservation
from symbi.guard.spending import KINDS, Budget, Spend
from symbi.types import AgentId, EffectId, RunId

_NAMES: Final = 3  # columns before the amounts
_OF: Final = len(KINDS)


class BudgetTable(Rows):
    """`symbi.guard.budget.BudgetStore`, for the store that has the connection."""

    def account_of(self, run_id: RunId) -> Account | None:
        """The account of a run."""
        row = self._one(SQL["get_budget"], (run_id,))
        return None if row is None else _account(row)

    def accounts_of(self, agent_id: AgentId | None, limit: int) -> Sequence[Account]:
        """Accounts of an agent, or of all, newest run first."""
        if agent_id is None:
            return [_account(row) for row in self._all(SQL["budgets"], (limit,))]
        return [_account(row) for row in self._all(SQL["budgets_of"], (agent_id, limit))]

    def put_account(self, account: Account) -> None:
        """Insert or replace an account."""
        self._fence(self._epoch)
        names = (account.run_id, account.agent_id, account.parent)
        amounts = (*account.most.bounds, *account.spent.amounts, *account.held.amounts)
        self._write(SQL["put_budget"], (*names, *amounts))

    def reservation_of(self, effect_id: EffectId) -> Reservation | None:
        """What an effect holds."""
        row = self._one(SQL["get_reservation"], (effect_id,))
        return None if row is None else Reservation(EffectId(row[0]), RunId(row[1]), Spend(*row[2:]))

    def put_reservation(self, effect_id: EffectId, reservation: Reservation | None) -> None:
        """Insert what an effect holds, or take it away."""
        self._fence(self._epoch)
        if reservation is None:
            self._write(SQL["drop_reservation"], (effect_id,))
        else:
            self._write(SQL["put_reservation"], (effect_id, reservation.run_id, *reservation.amount.amounts))


def _account(row: Any) -> Account:
    run_id, agent_id, parent = row[:_NAMES]
    most, spent, held = (row[at : at + _OF] for at in range(_NAMES, _NAMES + 3 * _OF, _OF))
    return Account(RunId(run_id), AgentId(agent_id), RunId(parent), Budget(*most), Spend(*spent), Spend(*held))
