"""`kill -9` around calls of runs that share a budget: never overspent, and nothing of it lost."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from symbi.adapters.sqlite import SqliteStore
from symbi.guard.ledger import EffectState

DRIVER = Path(__file__).parents[1] / "data" / "crash_budget.py"
SIGKILLED = -9
MOST = 170
BELOW = {"root": {"root", "one", "two", "below"}, "one": {"one", "below"}, "two": {"two"}, "below": {"below"}}
POINTS = ["before_dispatch", "dispatched", "done", "before_settle", "settled"]

pytestmark = pytest.mark.slow


def drive(folder, point, number, start):
    command = [sys.executable, str(DRIVER), str(folder), point, str(number), str(start)]
    return subprocess.run(command, capture_output=True, timeout=120, check=False).returncode


def check(folder) -> int:
    """Accounts against the ledger and against what really happened; returns what the root has spent and holds."""
    happened = Counter((folder / "calls").read_text().split()) if (folder / "calls").exists() else Counter()
    with SqliteStore(folder / "store") as store:
        effects = {state: store.effects_in(state) for state in EffectState}
        open_ = Counter(
            one.run_id
            for state in (EffectState.DISPATCHED, EffectState.UNKNOWN)
            for one in effects[state]
            if one.run_id
        )
        ended = Counter(one.run_id for one in effects[EffectState.CONFIRMED] if one.run_id)
        for run, family in BELOW.items():
            account = store.account_of(run)
            if account is None:
                assert not ended + open_, "nothing begins before its account is there"
                return 0
            assert account.spent.calls == sum(ended[one] for one in family)
            assert account.held.calls == sum(open_[one] for one in family)
            used = account.spent.calls + account.held.calls
            assert account.spent.calls <= sum(happened[one] for one in family) <= used
            assert account.most.calls is None or used <= account.most.calls
        root = store.account_of("root")
        return root.spent.calls + root.held.calls


@pytest.mark.parametrize("point", POINTS)
def test_accounts_are_exact_after_kill_9_at_each_point_and_all_of_a_budget_can_be_spent(tmp_path, point):
    for attempt, number in enumerate([1, 20, 9]):
        assert drive(tmp_path, point, number, attempt * 100) == SIGKILLED
        check(tmp_path)
    for start in range(1000, 1400, 100):
        assert drive(tmp_path, "never", 1, start) == 0
    assert check(tmp_path) == MOST, "what was in doubt holds its share, and the rest was there for others"
