"""Budgets: what a run may spend, in an account that is durable and shared with the runs that it asks for others.

An account belongs to a run. The account of a run that another run asked for lies below that one's, and what is spent in
it is spent in all of those above: a child can spend only what its parent has left. What an effect costs is held in the
transaction that reserves the effect, and spent, or given back, in the one that records its outcome. What nobody knows
the outcome of stays held. So in no account is more spent and held than it has, whoever crashes, and nothing is lost.

Time is measured, and so it is charged afterwards: an account can be over by what passes between two measurements, and
nothing begins in it from then on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from symbi.errors import BudgetExceeded, InputError, InternalError
from symbi.guard.action import Action, CallModel, InvokeTool
from symbi.guard.spending import KINDS, MOST, NOTHING, TIMED, UNBOUNDED, WRITTEN, Budget, Spend, written
from symbi.types import AgentId, EffectId, JsonValue, RunId

MAX_DEPTH: Final = 64  # runs that asked for one another
NO_RUN: Final = RunId("")


@dataclass(frozen=True, slots=True)
class Account:
    """What a run may spend and has spent, with what was spent in the accounts below it.

    Attributes:
        run_id: Whose it is.
        agent_id: The agent of that run.
        parent: The run that asked for it, and in whose account everything here is spent too; empty for none.
        most: What may be spent.
        spent: What is spent for good.
        held: What is in flight, or in doubt.
    """

    run_id: RunId
    agent_id: AgentId
    parent: RunId = NO_RUN
    most: Budget = UNBOUNDED
    spent: Spend = NOTHING
    held: Spend = NOTHING

    @property
    def left(self) -> Budget:
        """What can still be spent here, whatever accounts above say; less than nothing where time went over."""
        used = (self.spent + self.held).amounts
        return Budget(
            *(None if most is None else most - gone for most, gone in zip(self.most.bounds, used, strict=True))
        )

    @property
    def out_of_time(self) -> bool:
        """Whether a time of it is used up, so that nothing may begin."""
        amounts = zip(KINDS, self.most.bounds, self.spent.amounts, strict=True)
        return any(kind in TIMED and most is not None and spent >= most for kind, most, spent in amounts)

    def told(self) -> dict[str, JsonValue]:
        """What the trail says when it is opened."""
        return {**self.most.facts(), "parent": self.parent} if self.parent else self.most.facts()

    def facts(self) -> dict[str, JsonValue]:
        """For machines."""
        return {
            "run": self.run_id,
            "agent": self.agent_id,
            "parent": self.parent or None,
            "budget": self.most.facts(),
            "spent": dict(zip(KINDS, self.spent.amounts, strict=True)),
            "held": dict(zip(KINDS, self.held.amounts, strict=True)),
            "left": self.left.facts(),
        }


@dataclass(frozen=True, slots=True)
class Reservation:
    """What an effect holds until its outcome is known.

    Attributes:
        effect_id: The effect.
        run_id: In whose account, and those above it.
        amount: How much.
    """

    effect_id: EffectId
    run_id: RunId
    amount: Spend


@dataclass(frozen=True, slots=True)
class Allowance:
    """What whoever starts a run lets it spend.

    Attributes:
        most: The bounds; those that are configured hold too.
        parent: The run that asks for it, and pays for it.
    """

    most: Budget = UNBOUNDED
    parent: RunId = NO_RUN


NO_ALLOWANCE: Final = Allowance()


class BudgetStore(Protocol):
    """Durable accounts; the methods block, and those that write run inside the store's running transaction."""

    def account_of(self, run_id: RunId) -> Account | None:
        """The account of a run, or None where it has none.

        Raises:
            StoreUnavailable: The store cannot be read.
        """

    def accounts_of(self, agent_id: AgentId | None, limit: int) -> Sequence[Account]:
        """Accounts of an agent, or of all, newest run first.

        Raises:
            StoreUnavailable: The store cannot be read.
        """

    def put_account(self, account: Account) -> None:
        """Insert or replace an account.

        Raises:
            StoreUnavailable: The store cannot be written, or a newer owner has taken it over.
        """

    def reservation_of(self, effect_id: EffectId) -> Reservation | None:
        """What an effect holds, or None where it holds nothing.

        Raises:
            StoreUnavailable: The store cannot be read.
        """

    def put_reservation(self, effect_id: EffectId, reservation: Reservation | None) -> None:
        """Insert what an effect holds; None takes it away.

        Raises:
            StoreUnavailable: The store cannot be written, or a newer owner has taken it over.
        """


def cost_of(action: Action) -> Spend:
    """What an action costs as it is asked for."""
    return Spend(calls=1) if isinstance(action, InvokeTool | CallModel) else NOTHING


def line_above(store: BudgetStore, account: Account) -> Sequence[Account]:
    """An account that is to be opened, and those above it; none where it bounds nothing and lies below none that does.

    Raises:
        InputError: Runs have asked for one another more often than there may be accounts above one.
    """
    above = line_of(store, account.parent) if account.parent else ()
    if len(above) >= MAX_DEPTH:
        msg = f"run `{account.run_id}` was asked for through {len(above)} other runs, and there may be {MAX_DEPTH - 1}"
        raise InputError(msg, code="input.depth")
    if above:
        return (account, *above)
    return (replace(account, parent=NO_RUN),) if account.most.bounded else ()


def open_account(store: BudgetStore, account: Account) -> None:
    """Open an account, where it bounds anything or lies below one that does.

    Raises:
        InputError: As `line_above`.
    """
    for opened in line_above(store, account)[:1]:
        store.put_account(opened)


def cap_account(store: BudgetStore, account: Account, most: Budget) -> Account | None:
    """Let a run spend no more than this from here on: what it may is never raised by it.

    Args:
        store: Where accounts are.
        account: The run's; where it is not in the store, it is opened if there is a bound now.
        most: The bounds.

    Returns:
        The account as it stands then, or None where there is none.
    """
    found = store.account_of(account.run_id)
    capped = replace(found or account, most=(found or account).most.lowest(most))
    if capped == found:
        return found
    open_account(store, capped) if found is None else store.put_account(capped)
    return store.account_of(account.run_id)


def line_of(store: BudgetStore, run_id: RunId) -> Sequence[Account]:
    """The account of a run and those above it, nearest first; none where the run has no account.

    Raises:
        InternalError: One above is missing, or there are too many.
    """
    found: list[Account] = []
    while run_id:
        account = store.account_of(run_id)
        if account is None and not found:
            return ()
        if account is None or len(found) >= MAX_DEPTH:
            msg = f"the accounts above that of run `{found[0].run_id}` are not as they were opened"
            raise InternalError(msg, code="internal.budget")
        found.append(account)
        run_id = account.parent
    return found


def reserve(store: BudgetStore, effect_id: EffectId, run_id: RunId, cost: Spend) -> None:
    """Reservation what an effect costs; what an earlier attempt at it held is given back first.

    Raises:
        BudgetExceeded: An account has not as much left; nothing is held, and what was held still is.
    """
    line = line_of(store, run_id)
    if not line:
        return
    earlier = store.reservation_of(effect_id)
    given = NOTHING if earlier is None else earlier.amount
    for account in line:
        refuse_exceeded(replace(account, held=account.held - given), run_id, cost)
    for account in line:
        store.put_account(replace(account, held=account.held - given + cost))
    if earlier is not None:
        store.put_reservation(effect_id, None)
    store.put_reservation(effect_id, Reservation(effect_id, run_id, cost))


def refuse_exceeded(account: Account, run_id: RunId, cost: Spend = NOTHING) -> None:
    """Refuse what an account has not left; at no cost, only what time has used up.

    Raises:
        BudgetExceeded: It would be more than it has.
    """
    amounts = zip(KINDS, account.most.bounds, account.spent.amounts, account.held.amounts, cost.amounts, strict=True)
    for kind, most, spent, held, wanted in amounts:
        if most is None:
            continue
        if (wanted and spent + held + wanted > most) or (kind in TIMED and spent >= most):
            raise exceeded(account, run_id, kind, wanted)


def exceeded(account: Account, run_id: RunId, kind: str, wanted: int = 0) -> BudgetExceeded:
    """The error of a run that wants more of a kind than an account has left."""
    numbers = dict(
        zip(KINDS, zip(account.most.bounds, account.spent.amounts, account.held.amounts, strict=True), strict=True)
    )
    most, spent, held = numbers[kind]
    whose = (
        f"run `{run_id}`" if account.run_id == run_id else f"run `{account.run_id}`, which asked for run `{run_id}`,"
    )
    assert most is not None
    flight = f" and {written(kind, held)} in flight or in doubt" if held else ""
    msg = f"{whose} has spent {written(kind, spent)} of {written(kind, most)} {WRITTEN[kind]}{flight}"
    return BudgetExceeded(
        msg,
        hint=f"`symbi budget raise {account.run_id} {WRITTEN[kind]}=+N` gives it more",
        run=run_id, account=account.run_id, kind=kind, most=most, spent=spent, held=held, wanted=wanted,
    )  # fmt: skip


def settle(store: BudgetStore, effect_id: EffectId, spent: Spend | None = None, *, happened: bool = True) -> None:
    """Spend what an effect held, or give it back; of one that holds nothing, nothing.

    Args:
        store: Where accounts are.
        effect_id: The effect.
        spent: What it really cost, if that is known to be something else than was held.
        happened: False gives all of it back.
    """
    found = store.reservation_of(effect_id)
    if found is None:
        return
    cost = NOTHING if not happened else found.amount if spent is None else spent
    for account in line_of(store, found.run_id):
        store.put_account(replace(account, held=account.held - found.amount, spent=account.spent + cost))
    store.put_reservation(effect_id, None)


def charge(store: BudgetStore, run_id: RunId, cost: Spend) -> Sequence[Account]:
    """Spend what has been used already, be there as much left or not; returns the accounts as they stand then."""
    line = [replace(account, spent=account.spent + cost) for account in line_of(store, run_id)]
    for account in line:
        store.put_account(account)
    return line


def raised(account: Account, more: Mapping[str, tuple[bool, int]]) -> Account:
    """An account with more in it.

    Args:
        account: As it stands.
        more: By kind, whether it is added to what there was, and how much.

    Raises:
        InputError: A kind has no bound, or would have a lower one than before, or more than can be counted.
    """
    bounds = dict(zip(KINDS, account.most.bounds, strict=True))
    for kind, (added, amount) in more.items():
        most = bounds[kind]
        if most is None:
            msg = f"run `{account.run_id}` has no bound on {WRITTEN[kind]}"
            raise InputError(msg, code="input.budget")
        new = most + amount if added else amount
        if new < most or new > MOST:
            msg = f"{WRITTEN[kind]} of run `{account.run_id}` can be raised from {written(kind, most)}, not to {written(kind, new)}"
            raise InputError(msg, code="input.budget", hint=f"write `{WRITTEN[kind]}=+N`")
        bounds[kind] = new
    return replace(account, most=Budget(**bounds))
