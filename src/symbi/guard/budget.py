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
from functools import reduce
from types import MappingProxyType
from typing import Final, Protocol

from symbi.errors import BudgetExceeded, InputError, InternalError
from symbi.guard.action import Action, CallModel, InvokeTool
from symbi.types import AgentId, EffectId, JsonValue, RunId

KINDS: Final = ("calls", "tokens", "money_micros", "wall_ms", "cpu_ms")
TIMED: Final = frozenset({"wall_ms", "cpu_ms"})
"""What is measured and charged afterwards."""
UNITS: Final[Mapping[str, tuple[str, int]]] = MappingProxyType(
    {
        "calls": ("calls", 1),
        "tokens": ("tokens", 1),
        "money": ("money_micros", 1_000_000),
        "wall_s": ("wall_ms", 1000),
        "cpu_s": ("cpu_ms", 1000),
    }
)
"""As people write them: which kind, and how many of its units are one of theirs."""
WRITTEN: Final[Mapping[str, str]] = MappingProxyType({kind: name for name, (kind, _) in UNITS.items()})
MOST: Final = 2**53  # of any amount: what JSON carries exactly, and far below what the store can add up
MAX_DEPTH: Final = 64  # runs that asked for one another


@dataclass(frozen=True, slots=True)
class Spend:
    """Amounts.

    Attributes:
        calls: Calls of tools and models.
        tokens: Of models.
        money_micros: Millionths of the currency that the operator counts in.
        wall_ms: Milliseconds at work; what a run waits for people, for its turn, or for a run that it asked for is none.
        cpu_ms: Milliseconds of a processor.
    """

    calls: int = 0
    tokens: int = 0
    money_micros: int = 0
    wall_ms: int = 0
    cpu_ms: int = 0

    def __add__(self, other: "Spend") -> "Spend":
        return Spend(*(mine + its for mine, its in zip(self.amounts, other.amounts, strict=True)))

    def __sub__(self, other: "Spend") -> "Spend":
        return Spend(*(mine - its for mine, its in zip(self.amounts, other.amounts, strict=True)))

    @property
    def amounts(self) -> tuple[int, ...]:
        """In the order of `KINDS`."""
        return (self.calls, self.tokens, self.money_micros, self.wall_ms, self.cpu_ms)


NOTHING: Final = Spend()
NO_RUN: Final = RunId("")


@dataclass(frozen=True, slots=True)
class Budget:
    """The most that may be spent of each kind, as in `Spend`; None sets no bound."""

    calls: int | None = None
    tokens: int | None = None
    money_micros: int | None = None
    wall_ms: int | None = None
    cpu_ms: int | None = None

    @property
    def bounds(self) -> tuple[int | None, ...]:
        """In the order of `KINDS`."""
        return (self.calls, self.tokens, self.money_micros, self.wall_ms, self.cpu_ms)

    @property
    def bounded(self) -> bool:
        """Whether it bounds anything."""
        return any(bound is not None for bound in self.bounds)

    def lowest(self, *others: "Budget") -> "Budget":
        """What all of them let spend."""
        return reduce(_lower, others, self)

    def facts(self) -> dict[str, JsonValue]:
        """Its bounds by kind, for machines."""
        return {kind: bound for kind, bound in zip(KINDS, self.bounds, strict=True) if bound is not None}


UNBOUNDED: Final = Budget()


def _lower(one: Budget, other: Budget) -> Budget:
    pairs = zip(one.bounds, other.bounds, strict=True)
    return Budget(*(min((bound for bound in pair if bound is not None), default=None) for pair in pairs))


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


class BudgetStore(Protocol):
    """Durable accounts; the methods block, and those that write run inside the store's running transaction."""

    def account_of(self, run_id: RunId) -> Account | None:
        """The account of a run, or None where it has none.

        Raises:
            StoreUnavailable: The store cannot be read.
        """

    def accounts_of(self, agent_id: AgentId, limit: int) -> Sequence[Account]:
        """Accounts of an agent, newest run first.

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


def open_account(store: BudgetStore, account: Account) -> None:
    """Open an account, where it bounds anything or lies below one that does.

    Raises:
        InputError: Runs have asked for one another more often than there may be accounts above one.
    """
    above = line_of(store, account.parent) if account.parent else ()
    if len(above) >= MAX_DEPTH:
        msg = f"run `{account.run_id}` was asked for through {len(above)} other runs, and there may be {MAX_DEPTH - 1}"
        raise InputError(msg, code="input.depth")
    if above or account.most.bounded:
        store.put_account(account if above else replace(account, parent=NO_RUN))


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
    earlier = store.reservation_of(effect_id)
    given = NOTHING if earlier is None else earlier.amount
    line = line_of(store, run_id)
    for account in line:
        refuse_exceeded(replace(account, held=account.held - given), run_id, cost)
    for account in line:
        store.put_account(replace(account, held=account.held - given + cost))
    if line:
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


def lower(store: BudgetStore, run_id: RunId, most: Budget) -> None:
    """Let a run spend no more than this; what it has is never raised by it."""
    account = store.account_of(run_id)
    if account is not None and (lowered := account.most.lowest(most)) != account.most:
        store.put_account(replace(account, most=lowered))


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


def read_amount(name: str, value: object) -> tuple[str, int]:
    """An amount as people write it: its kind, and how much in the units of the kind.

    Raises:
        InputError: There is no such kind, or it is no number, negative, finer than the unit, or too large.
    """
    if name not in UNITS:
        msg = f"`{name[:40]}` is nothing that has a budget"
        raise InputError(msg, code="input.budget", hint=f"{', '.join(f'`{known}`' for known in UNITS)} have")
    kind, unit = UNITS[name]
    whole, dot, rest = (str(value) if isinstance(value, int | float) and not isinstance(value, bool) else
                        value if isinstance(value, str) else "").partition(".")  # fmt: skip
    digits = len(str(unit)) - 1
    good = whole.isascii() and whole.isdecimal() and (not dot or (rest.isascii() and rest.isdecimal()))
    if not good or len(whole) > 16 or len(rest.rstrip("0")) > digits:  # noqa: PLR2004 - digits of `MOST`
        fine = f"at most {digits} digits after the point" if digits else "without a fraction"
        msg = f"`{name}` of a budget is a number from 0 on, {fine}, not `{str(value)[:40]}`"
        raise InputError(msg, code="input.budget")
    amount = int(whole) * unit + int((rest[:digits]).ljust(digits, "0") or 0)
    if amount > MOST:
        msg = f"`{name}` of a budget is {written(kind, MOST)} at most"
        raise InputError(msg, code="input.budget")
    return kind, amount


def written(kind: str, amount: int) -> str:
    """An amount as people write it."""
    unit = UNITS[WRITTEN[kind]][1]
    if unit == 1:
        return str(amount)
    sign, (whole, rest) = "-" if amount < 0 else "", divmod(abs(amount), unit)
    return f"{sign}{whole}.{str(rest).zfill(len(str(unit)) - 1)}".rstrip("0").rstrip(".")
