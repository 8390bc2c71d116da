"""Accounts of a tree of runs, as a state machine: over any interleaving and crash nothing is overspent, and nothing is lost."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule, run_state_machine_as_test

from symbi.adapters.sqlite import SqliteStore
from symbi.errors import BudgetExceeded, InputError
from symbi.guard.budget import NO_RUN, Account, cap_account, charge, line_of, open_account, raised, reserve, settle
from symbi.guard.spending import KINDS, MOST, NOTHING, TIMED, UNITS, Budget, Spend, read_amount, written
from symbi.types import AgentId, EffectId, RunId

small = st.integers(0, 6)
spends = st.builds(Spend, small, small, small, st.just(0), st.just(0))
bounds = st.one_of(st.none(), st.integers(0, 12))
budgets = st.builds(Budget, bounds, bounds, bounds, bounds, bounds)
times = st.builds(Spend, st.just(0), st.just(0), st.just(0), small, small)


class CrashedError(Exception):
    """The process is gone in the middle of a transaction."""


class Accounts(RuleBasedStateMachine):
    """The store against a model that keeps, for each effect and charge, who made it and what came of it."""

    runs = Bundle("runs")
    effects = Bundle("effects")

    def __init__(self):
        super().__init__()
        self.store = SqliteStore(None).__enter__()
        self.most: dict[str, Budget] = {}
        self.parents: dict[str, str] = {}
        self.held: dict[str, tuple[str, Spend]] = {}
        self.spent: list[tuple[str, Spend]] = []
        self.lowered: set[str] = set()

    def teardown(self):
        self.store.close()

    def transact(self, work, crash):
        """Do it in a transaction; where it crashes, it is tried once more after that."""
        if crash:
            with pytest.raises(CrashedError), self.store.transaction():
                work()
                raise CrashedError
        with self.store.transaction():
            work()

    def above(self, run):
        while run:
            yield run
            run = self.parents[run]

    def below(self, run):
        return {one for one in self.parents if run in self.above(one)}

    def totals(self, run):
        family = self.below(run)
        spent = sum((cost for one, cost in self.spent if one in family), start=NOTHING)
        held = sum((cost for one, cost in self.held.values() if one in family), start=NOTHING)
        return spent, held

    def add(self, parent, most, crash):
        run = f"r{len(self.parents)}"
        account = Account(RunId(run), AgentId("a"), RunId(parent), most)
        self.transact(lambda: open_account(self.store, account), crash)
        if not parent and not most.bounded:
            assert self.store.account_of(RunId(run)) is None, "who has no budget costs nothing"
            return multiple()
        self.parents[run], self.most[run] = parent, most
        return run

    @rule(target=runs, most=budgets, crash=st.booleans())
    def root(self, most, crash):
        return self.add("", most, crash)

    @rule(target=runs, parent=runs, most=budgets, crash=st.booleans())
    def child(self, parent, most, crash):
        return self.add(parent, most, crash)

    def fits(self, run, cost, given):
        for one in self.above(run):
            spent, held = self.totals(one)
            held = held - given
            for kind, most, gone, going, wanted in zip(
                KINDS, self.most[one].bounds, spent.amounts, held.amounts, cost.amounts, strict=True
            ):
                if most is not None and ((wanted and gone + going + wanted > most) or (kind in TIMED and gone >= most)):
                    return False
        return True

    def ask(self, effect, run, cost, crash):
        given = self.held.get(effect, (run, NOTHING))[1]
        if self.fits(run, cost, given):
            self.transact(lambda: reserve(self.store, EffectId(effect), RunId(run), cost), crash)
            self.held[effect] = (run, cost)
            return True
        with pytest.raises(BudgetExceeded) as refused, self.store.transaction():
            reserve(self.store, EffectId(effect), RunId(run), cost)
        assert refused.value.fields["account"] in self.above(run)
        return False

    @rule(target=effects, run=runs, cost=spends, crash=st.booleans())
    def begin(self, run, cost, crash):
        effect = f"e{len(self.held)}-{len(self.spent)}"
        return effect if self.ask(effect, run, cost, crash) else multiple()

    @rule(effect=effects, cost=spends, crash=st.booleans())
    def begin_again(self, effect, cost, crash):
        """What was in flight when the runtime ended is done once more under its id."""
        if effect in self.held:
            self.ask(effect, self.held[effect][0], cost, crash)

    @rule(effect=effects, how=st.sampled_from(["as held", "less", "given back"]), crash=st.booleans())
    def end(self, effect, how, crash):
        run, cost = self.held.pop(effect, ("", NOTHING))
        real = Spend(*(amount // 2 for amount in cost.amounts)) if how == "less" else None
        self.transact(lambda: settle(self.store, EffectId(effect), real, happened=how != "given back"), crash)
        if how != "given back" and run:
            self.spent.append((run, cost if real is None else real))

    @rule(run=runs, cost=times, crash=st.booleans())
    def work(self, run, cost, crash):
        self.transact(lambda: charge(self.store, RunId(run), cost), crash)
        self.spent.append((run, cost))

    @rule(run=runs, kind=st.sampled_from(KINDS), amount=small, crash=st.booleans())
    def give_more(self, run, kind, amount, crash):
        most = dict(zip(KINDS, self.most[run].bounds, strict=True))

        def work():
            self.store.put_account(raised(self.store.account_of(RunId(run)), {kind: (True, amount)}))

        if most[kind] is None:
            with pytest.raises(InputError), self.store.transaction():
                work()
            return
        self.transact(work, crash)
        most[kind] += amount
        self.most[run] = Budget(**most)

    @rule(run=runs, most=budgets, crash=st.booleans())
    def take_away(self, run, most, crash):
        unseen = Account(RunId(run), AgentId("a"))
        self.transact(lambda: cap_account(self.store, unseen, most), crash)
        self.most[run] = self.most[run].lowest(most)
        self.lowered |= {run}

    @invariant()
    def every_total_is_exact(self):
        for run, most in self.most.items():
            account = self.store.account_of(RunId(run))
            assert (account.most, (account.spent, account.held)) == (most, self.totals(run))

    @invariant()
    def nothing_is_overspent(self):
        for run, most in self.most.items():
            if run in self.lowered:  # what was spent before stays so
                continue
            used = [sum(pair) for pair in zip(*(one.amounts for one in self.totals(run)), strict=True)]
            for kind, bound, gone in zip(KINDS, most.bounds, used, strict=True):
                assert bound is None or kind in TIMED or gone <= bound


def test_over_any_interleaving_and_crash_nothing_is_overspent_and_nothing_is_lost():
    run_state_machine_as_test(Accounts, settings=settings(max_examples=150, stateful_step_count=40, deadline=None))


@given(st.sampled_from(list(UNITS)), st.integers(0, MOST))
def test_what_is_written_is_read_back(name, amount):
    kind = UNITS[name][0]
    assert read_amount(name, written(kind, amount)) == (kind, amount)


@given(
    st.sampled_from(list(UNITS)), st.one_of(st.text(max_size=20), st.floats(), st.integers(max_value=-1), st.booleans())
)
def test_an_amount_is_read_exactly_or_refused(name, value):
    try:
        kind, amount = read_amount(name, value)
    except InputError:
        return
    assert 0 <= amount <= MOST
    assert float(written(kind, amount)) == float(value)


def test_accounts_are_no_deeper_than_their_bound():
    with SqliteStore(None) as store, store.transaction():
        open_account(store, Account(RunId("r0"), AgentId("a"), NO_RUN, Budget(calls=1)))
        for depth in range(1, 64):
            open_account(store, Account(RunId(f"r{depth}"), AgentId("a"), RunId(f"r{depth - 1}")))
        assert len(line_of(store, RunId("r63"))) == 64
        with pytest.raises(InputError, match="64 other runs"):
            open_account(store, Account(RunId("r64"), AgentId("a"), RunId("r63")))
