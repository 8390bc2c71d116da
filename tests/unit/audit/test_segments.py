"""Where segments end, when they may leave, and what keeps them."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symbi.audit.segments import (
    DAY_NS,
    MAX_RETENTION_DAYS,
    KeepingRules,
    Segment,
    closed_at,
    is_due,
    kept_until,
    removable,
    segment_folder,
    waiting,
)
from symbi.clock import parse_rfc3339, rfc3339

START = 1_767_225_600_000_000_000
RULES = KeepingRules(events=1000, interval_s=60.0, retention_days=30)


def segment(first, last, *, day=0, keep_day=None, removed=False):
    until = "" if keep_day is None else rfc3339(START + keep_day * DAY_NS)
    at = rfc3339(START + day * DAY_NS)
    return Segment(first, last, "ab" * 32, "cd" * 32, "t/x", "ef" * 32, at, until, at, at if removed else "")


@given(st.integers(1, 10**6), st.lists(st.integers(1, 10**6), unique=True).map(sorted))
def test_a_segment_ends_at_the_first_checkpoint_after_enough_events(first, sizes):
    end = closed_at(first, sizes, RULES)
    fitting = [size for size in sizes if size - first + 1 >= RULES.events]
    assert end == (fitting[0] if fitting else None)


def test_an_open_segment_is_due_after_its_interval_and_not_before():
    at = rfc3339(START)
    assert not is_due(at, START + 59_999_999_999, RULES)
    assert is_due(at, START + 60_000_000_000, RULES)
    assert not is_due(at, START + 10**18, replace(RULES, interval_s=None))


def test_segments_leave_oldest_first_when_they_are_old_enough():
    all_three = [segment(1, 1000, day=0), segment(1001, 2000, day=1), segment(2001, 3000, day=5)]
    for day, gone in ((29, 0), (30, 1), (31, 2), (34, 2), (35, 3)):
        assert list(removable(all_three, 10_000, START + day * DAY_NS, RULES)) == all_three[:gone]
    assert list(removable(all_three, 10_000, START + 99 * DAY_NS, replace(RULES, retention_days=None))) == []


def test_what_must_stay_by_its_own_word_keeps_what_follows_too():
    some = [segment(1, 1000), segment(1001, 2000, keep_day=90), segment(2001, 3000)]
    assert list(removable(some, 10_000, START + 89 * DAY_NS, RULES)) == some[:1]
    assert list(removable(some, 10_000, START + 90 * DAY_NS, RULES)) == some


def test_what_is_gone_is_not_removed_again():
    some = [segment(1, 1000, removed=True), segment(1001, 2000)]
    assert list(removable(some, 10_000, START + 99 * DAY_NS, RULES)) == some[1:]


@pytest.mark.parametrize(("size", "stays"), [(2000, True), (2047, True), (2048, False)])
def test_the_edge_of_the_tree_stays(size, stays):
    assert list(removable([segment(1, 2000)], size, START + 99 * DAY_NS, RULES)) == (
        [] if stays else [segment(1, 2000)]
    )


def test_an_event_may_say_how_long_it_stays():
    at = rfc3339(START)
    assert parse_rfc3339(kept_until({"retention_days": 90}, at)) == START + 90 * DAY_NS
    assert parse_rfc3339(kept_until({"retention_days": 10**12}, at)) == START + MAX_RETENTION_DAYS * DAY_NS
    for details in (
        {},
        {"retention_days": True},
        {"retention_days": 0},
        {"retention_days": "90"},
        {"retention_days": -1},
    ):
        assert kept_until(details, at) == ""


@given(st.integers(0, 10**7), st.integers(0, 10**7))
def test_as_many_segments_wait_as_are_full(sequence, sealed):
    assert waiting(sequence, sealed, RULES) == max(0, sequence - sealed) // 1000


def test_folders_of_a_trail_sort_as_its_events_do():
    names = [segment_folder("symbi.trail/e1", first, first + 9) for first in (1, 11, 101, 100_001)]
    assert names == sorted(names)
    assert names[0] == "symbi.trail_e1/000000000001-000000000010"
    assert "/" not in segment_folder("../../etc", 1, 2).replace("/000000000001-000000000002", "")
