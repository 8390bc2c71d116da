"""Budgets of runs as a runtime keeps them: opened when a run begins, shown, and raised by whoever may."""

from collections.abc import Mapping, Sequence
from typing import Final

from symbi.agent.journal import RunRecord
from symbi.audit.event import AuditEventType, Draft
from symbi.audit.log import AuditLog
from symbi.errors import BudgetExceeded, InputError
from symbi.guard.budget import Account, Allowance, BudgetStore, cap_account, charge, line_of, raised
from symbi.guard.spending import WRITTEN, Budget, Spend
from symbi.types import AgentId, JsonValue, RunId

MAX_SHOWN: Final = 100  # accounts of an agent, newest run first


class Budgets:
    """The accounts of one runtime.

    Args:
        log: The trail.
        store: Where they are; the trail's store.
    """

    def __init__(self, log: AuditLog, store: BudgetStore) -> None:
        self._log = log
        self._store = store

    def take_up(self, record: RunRecord, most: Budget, allowance: Allowance) -> Account | None:
        """The account of a run that begins or goes on, in the transaction that says so; opened where it has none yet.

        Args:
            record: The run.
            most: What is configured for its agent.
            allowance: What whoever starts it lets it spend.

        Returns:
            None where nothing bounds it.
        """
        found = self._store.account_of(record.run_id)
        if found is not None:
            return found
        account = Account(record.run_id, record.agent_id, allowance.parent)
        return cap_account(self._store, account, most.lowest(allowance.most))

    async def cap(self, account: Account, most: Budget) -> Account | None:
        """The account of a run, once policies have lowered what it may spend.

        Raises:
            StoreUnavailable: It cannot be made durable.
        """

        def work() -> tuple[Account | None, tuple[Draft, ...]]:
            return cap_account(self._store, account, most), ()

        capped, _ = await self._log.transact(work)
        return capped

    async def charge(self, run_id: RunId, cost: Spend) -> Sequence[Account]:
        """Spend what a run has used already; returns its account and those above it as they stand then.

        Raises:
            StoreUnavailable: It cannot be made durable.
        """

        def work() -> tuple[Sequence[Account], tuple[Draft, ...]]:
            return charge(self._store, run_id, cost), ()

        line, _ = await self._log.transact(work, wait=True)  # what was used is recorded, however much waits
        return line

    async def find(self, name: str) -> Sequence[Account]:
        """The account of a run with those above it, or the newest accounts of an agent.

        Raises:
            InputError: There is none of that name.
            StoreUnavailable: The store cannot be read.
        """

        def look() -> Sequence[Account]:
            return line_of(self._store, RunId(name)) or self._store.accounts_of(AgentId(name), MAX_SHOWN)

        found = await self._log.read(look)
        if not found:
            msg = f"neither a run `{name[:64]}` nor an agent of that name has a budget"
            raise InputError(
                msg, code="input.budget", hint="`budget` in [agents.NAME], or `symbi run --budget`, sets one"
            )
        return found

    async def give(self, run_id: RunId, more: Mapping[str, tuple[bool, int]], by: str) -> Account:
        """Let a run spend more; where it was held for that, it can go on.

        Args:
            run_id: The run.
            more: By kind, whether it is added to what there was, and how much.
            by: Who says so.

        Raises:
            InputError: It has no budget, or has no bound there, or would have less.
            StoreUnavailable: It cannot be made durable.
        """

        def work() -> tuple[Account, tuple[Draft, ...]]:
            before = self._store.account_of(run_id)
            if before is None:
                msg = f"run `{run_id[:64]}` has no budget"
                raise InputError(msg, code="input.budget")
            after = raised(before, more)
            self._store.put_account(after)
            details: dict[str, JsonValue] = {"by": by, "from": before.most.facts(), "to": after.most.facts()}
            return after, (Draft(AuditEventType.BUDGET_RAISED, after.agent_id, details, after.run_id),)

        account, _ = await self._log.transact(work)
        return account


def told_of(error: BudgetExceeded, record: RunRecord) -> Draft:
    """The event of a run that has spent its budget, with the numbers."""
    names = ("account", "kind", "most", "spent", "held", "wanted")
    details = {name: error.fields.get(name) for name in names}
    kind = details["kind"]
    details["of"] = WRITTEN.get(kind, kind) if isinstance(kind, str) else kind
    return Draft(AuditEventType.BUDGET_EXCEEDED, record.agent_id, details, record.run_id)
