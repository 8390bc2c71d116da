"""What every store of tallies must do, whatever it is made of."""

from symbi.errors import InputError
from symbi.guard.tally import Reading, RunUsage, Tally, TallyStore
from symbi.policy.counters import NS, Period, Window
from symbi.policy.history import LARGEST
from symbi.types import EffectId, RunId

_EVER = Tally("ever", "all:")
_MINUTE = Tally("minute", "all:", Window(60))
_DAY = Tally("day", "all:", Window(period=Period.DAY))
_ONE, _TWO, _THREE = EffectId("e1"), EffectId("e2"), EffectId("e3")
_NOW_NS = 1_767_225_600 * NS  # midnight


def check_tally_store(store: TallyStore) -> None:
    """Run the whole suite on an empty store, inside a transaction.

    Raises:
        AssertionError: The store does not keep the contract.
    """
    _what_was_never_added_to_is_zero(store)
    _totals_hold_what_is_in_the_window(store)
    _what_is_given_back_counts_no_more(store)
    _an_effect_can_be_left_out(store)
    _time_does_not_go_back(store)
    _nothing_is_beyond_the_largest_long(store)
    _usage_is_kept(store)


def _total(store: TallyStore, tally: Tally, now_ns: int, without: EffectId | None = None) -> int:
    """The total, which is the same before and after what is out of the window was dropped."""
    before = store.read_tallies([tally], now_ns, without=without)
    after = store.read_tallies([tally], now_ns, without=without, prune=True)
    assert before == after, "dropping what is out of the window changes no reading"
    return after[0].total


def _what_was_never_added_to_is_zero(store: TallyStore) -> None:
    assert list(store.read_tallies([_EVER, _MINUTE], _NOW_NS)) == [Reading(0), Reading(0)]
    assert list(store.read_tallies([], _NOW_NS)) == []
    store.settle_tallies(_ONE, happened=True)
    store.settle_tallies(_ONE, happened=False)


def _totals_hold_what_is_in_the_window(store: TallyStore) -> None:
    store.add_to_tallies(_ONE, [(_EVER, 5), (_MINUTE, 5), (_DAY, 5)], _NOW_NS)
    store.add_to_tallies(_TWO, [(_EVER, 2), (_MINUTE, 2), (_DAY, 2)], _NOW_NS + 30 * NS)
    store.settle_tallies(_ONE, happened=True)
    at_ns = _NOW_NS + 60 * NS - 1
    assert [_total(store, tally, at_ns) for tally in (_EVER, _MINUTE, _DAY)] == [7, 7, 7]
    assert store.read_tallies([_MINUTE], at_ns)[0].oldest_ns == _NOW_NS
    assert [_total(store, tally, at_ns + 1) for tally in (_EVER, _MINUTE, _DAY)] == [7, 2, 7]
    assert store.read_tallies([_MINUTE], at_ns + 1)[0].oldest_ns == _NOW_NS + 30 * NS
    assert [_total(store, tally, _NOW_NS + 86_400 * NS) for tally in (_EVER, _MINUTE, _DAY)] == [7, 0, 0]


def _what_is_given_back_counts_no_more(store: TallyStore) -> None:
    store.settle_tallies(_ONE, happened=False)  # it is final: nothing can be given back any more
    assert [_total(store, _EVER, _NOW_NS)] == [7]
    store.settle_tallies(_TWO, happened=False)
    store.settle_tallies(_TWO, happened=False)
    assert [_total(store, _EVER, _NOW_NS)] == [5]


def _an_effect_can_be_left_out(store: TallyStore) -> None:
    ever, minute = Tally("ever", "run:r"), Tally("minute", "run:r", Window(60))
    store.add_to_tallies(_ONE, [(ever, 5), (minute, 5)], _NOW_NS)
    store.add_to_tallies(_TWO, [(ever, 2), (minute, 2)], _NOW_NS + 1)
    assert [_total(store, tally, _NOW_NS + 1, _TWO) for tally in (ever, minute)] == [5, 5]
    assert [_total(store, tally, _NOW_NS + 60 * NS, _ONE) for tally in (ever, minute)] == [2, 2]


def _time_does_not_go_back(store: TallyStore) -> None:
    minute = Tally("minute", "run:back", Window(60))
    store.add_to_tallies(_ONE, [(minute, 5)], _NOW_NS)
    totals = [_total(store, minute, _NOW_NS + 3_600 * NS)]
    store.add_to_tallies(_TWO, [(minute, 2)], _NOW_NS)  # as the clock says now, an hour back
    totals.append(_total(store, minute, _NOW_NS + 3_600 * NS))
    assert totals == [0, 2]


def _nothing_is_beyond_the_largest_long(store: TallyStore) -> None:
    full = Tally("full", "all:")
    store.add_to_tallies(_ONE, [(full, LARGEST)], _NOW_NS)
    try:
        store.add_to_tallies(_THREE, [(full, 1)], _NOW_NS)
    except InputError as error:
        refusal = error
    else:
        raise AssertionError("a total beyond the largest Long was taken")
    assert refusal.code == "policy.history"
    assert _total(store, full, _NOW_NS) == LARGEST


def _usage_is_kept(store: TallyStore) -> None:
    run = RunId("r")
    assert store.usage_of(run) is None
    store.put_usage(run, RunUsage(_NOW_NS, 1, 2, 3))
    assert store.usage_of(run) == RunUsage(_NOW_NS, 1, 2, 3)
    store.put_usage(run, RunUsage(_NOW_NS, 4, 5, 6))
    assert store.usage_of(run) == RunUsage(_NOW_NS, 4, 5, 6)
    assert store.usage_of(RunId("s")) is None
