"""Budgets of runs as a runtime keeps them: opened when a run begins, shown, and raised by whoever may."""

from collections.abc import Mapping, Sequence
from typing import Final

from symbi.agent.journal import RunRecord
from symbi.audit.event import AuditEventType, Draft
from symbi.audit.log import AuditLog
from symbi.errors import InputError
from symbi.guard.budget import (
    NO_ALLOWANCE,
    Account,
    Allowance,
    BudgetStore,
    cap_account,
    charge,
    line_above,
    line_of,
    raised,
)
from symbi.guard.spending import UNBOUNDED, Budget, Spend
from symbi.runtime.lineage import LineageStore
from symbi.types import AgentId, JsonValue, RunId

MAX_SHOWN: Final = 100  # accounts of an agent, newest run first


class Budgets:
    """The accounts of one runtime.

    Args:
        log: The trail.
        store: Where they are; the trail's store.
        lineage: Which run asked for which.
    """

    def __init__(self, log: AuditLog, store: BudgetStore, lineage: LineageStore) -> None:
        self._log = log
        self._lineage = lineage
        self._some: bool | None = None  # whether there is any account; not known before somebody asks
        self._store = store

    async def line(
        self, record: RunRecord, most: Budget = UNBOUNDED, allowance: Allowance = NO_ALLOWANCE, *, new: bool = False
    ) -> Sequence[Account]:
        """The account of a run that begins or goes on, and those above it, nearest first; none where nothing bounds it.

        Args:
            record: The run.
            most: What is configured for its agent; counts only where it has no account yet.
            allowance: What whoever starts it lets it spend; likewise.
            new: Its id was made just now, so that nothing is known of it yet.

        Raises:
            InputError: It was asked for through more runs than may be.
            StoreUnavailable: The store cannot be read.
        """

        def look() -> Sequence[Account]:
            found = () if new else line_of(self._store, record.run_id)
            if found:
                return found
            descent = None if new or allowance.parent else self._lineage.descent_of(record.run_id)
            parent = allowance.parent if descent is None else descent.parent
            return line_above(self._store, Account(record.run_id, record.agent_id, parent, bounds))

        bounds = most.lowest(allowance.most)
        if not bounds.bounded and ((new and not allowance.parent) or not await self._any()):
            return ()
        return await self._log.read(look)

    async def _any(self) -> bool:
        """Whether any run has an account; where none has, nothing is looked up for each."""
        if self._some is None:
            self._some = bool(await self._log.read(lambda: self._store.accounts_of(None, 1)))
        return self._some

    def open(self, line: Sequence[Account]) -> dict[str, JsonValue]:
        """Open the account of a run, in the transaction that says that it begins; returns what its event says of it."""
        if not line or self._store.account_of(line[0].run_id) is not None:
            return {}
        self._store.put_account(line[0])
        self._some = True
        return {"budget": line[0].told()}

    async def cap(self, account: Account, most: Budget) -> Sequence[Account]:
        """The account of a run and those above it, once policies have lowered what it may spend.

        Raises:
            StoreUnavailable: It cannot be made durable.
        """

        def work() -> tuple[Sequence[Account], tuple[Draft, ...]]:
            cap_account(self._store, account, most)
            self._some = True
            return line_of(self._store, account.run_id), ()

        line, _ = await self._log.transact(work)
        return line

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
