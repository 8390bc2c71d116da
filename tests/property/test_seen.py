"""Which sequences have come, against a set of them: exactly, in whatever order, and however it was kept meanwhile."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symbi.bus import seen as module
from symbi.bus.seen import Arrivals, Seen
from symbi.errors import StoreUnavailable


@given(st.lists(st.integers(1, 60) | st.integers(1, 2**48 - 1), max_size=80))
def test_each_comes_once_in_whatever_order(numbers):
    seen, known = Seen(), set()
    for number in numbers:
        more = seen.with_one(number)
        assert (more is None) == (number in known)
        seen = more or seen
        known.add(number)
        assert Seen.from_bytes(seen.highest, seen.to_bytes()) == seen
    for number in range(1, 62):
        assert (seen.with_one(number) is None) == (number in known)
    assert seen.highest == max(known, default=0)


def test_what_comes_in_order_takes_no_room():
    seen = Seen()
    for number in range(1, 5000):
        seen = seen.with_one(number)
    assert seen.to_bytes() == b""


def test_what_is_kept_is_bounded_and_the_oldest_gap_closes(monkeypatch):
    monkeypatch.setattr(module, "MAX_GAPS", 3)
    seen = Seen()
    for number in range(2, 20, 2):
        seen = seen.with_one(number)
    assert seen.gaps == ((13, 13), (15, 15), (17, 17))
    assert seen.with_one(11) is None
    assert seen.with_one(13).gaps == ((15, 15), (17, 17))


@given(st.integers(0, 300), st.binary(max_size=12))
def test_any_bytes_are_what_it_wrote_or_damage(highest, kept):
    seen = None
    with suppress(StoreUnavailable):
        seen = Seen.from_bytes(highest, kept)
    assert seen is None or Seen.from_bytes(highest, seen.to_bytes()) == seen


@pytest.mark.parametrize("kept", [b"\x80", b"\x01", b"\x05\x00\x01\x00", b"\x7f\x00"])
def test_what_is_no_list_of_gaps_is_damage(kept):
    with pytest.raises(StoreUnavailable, match="not written by it"):
        Seen.from_bytes(100, kept)


@given(st.lists(st.lists(st.integers(1, 60) | st.integers(1, 2**48 - 1), max_size=20), max_size=8))
def test_arrivals_take_each_once_in_whatever_order(batches):
    arrivals, known = Arrivals(), set()
    for batch in batches:
        expected = []
        for number in batch:
            expected.append(number not in known)
            known.add(number)
        assert arrivals.admit(batch) == expected


@given(st.lists(st.integers(1, 200), max_size=200))
def test_arrivals_that_forget_take_nothing_twice(numbers):
    arrivals, known = Arrivals(most=3), set()
    for number in numbers:
        (taken,) = arrivals.admit([number])
        assert not (taken and number in known)
        known.add(number)
        assert len(arrivals._gaps) <= 3


def test_what_is_far_behind_is_taken_as_long_as_its_gap_is_known():
    arrivals = Arrivals(most=2)
    assert arrivals.admit([5, 1_000_000, 3]) == [True, True, True]
    assert arrivals.admit([10, 8]) == [True, True]  # 1, 2, 4 and 6, 7 are forgotten by now
    assert arrivals.admit([4, 7, 11]) == [False, False, True]
