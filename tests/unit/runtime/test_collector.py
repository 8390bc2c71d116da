"""The collector: what is looked through when, on a heap that counts, and on Python's own."""

import gc
import weakref

import pytest

from symbi.runtime.collector import LEAST_NEW, MIDDLE, MOST_MORE, MOST_NEW, OLD, YOUNG, Collector
from symbi.telemetry import COLLECTION_SECONDS, Metrics
from symbi.testing.clock import ManualClock

INTERVAL_S = 0.1
COST_S = 100e-9


class CountedHeap:
    """A heap of numbers, whose looks take time by the objects that they visit.

    Args:
        clock: What they take the time of.
        kept: How much of what there is can be reached; the rest is garbage, found by a look at all. None: everything.
    """

    def __init__(self, clock, *, kept=None):
        self._clock = clock
        self.kept = kept
        self.frozen, self.ages = 0, [0, 0, 0]
        self._thawed = False
        self.enabled = True
        self.looks = []  # age and seconds

    def make(self, count):
        self.ages[0] += count

    def blocks(self):
        return self.frozen + sum(self.ages)

    def isenabled(self):
        return self.enabled

    def disable(self):
        self.enabled = False

    def enable(self):
        self.enabled = True

    def freeze(self):
        self.frozen, self.ages = self.frozen + sum(self.ages), [0, 0, 0]

    def unfreeze(self):
        self.ages[2], self.frozen, self._thawed = self.ages[2] + self.frozen, 0, True

    def get_freeze_count(self):
        return self.frozen

    def get_count(self):
        return self.ages[0], 0, 0

    def collect(self, age, /):
        visited = sum(self.ages[: age + 1])
        self._clock.advance(visited * COST_S)
        self.looks.append((age, visited * COST_S))
        found = max(0, visited - self.kept) if self.kept is not None and age == OLD and self._thawed else 0
        self._thawed = False
        self.ages[: age + 1] = [0] * (age + 1)
        self.ages[min(age + 1, 2)] += visited - found
        return found


@pytest.fixture
def clock():
    return ManualClock()


def collector_on(heap, clock, metrics=None):
    return Collector(INTERVAL_S, clock, metrics or Metrics(), heap, heap.blocks)


def test_what_is_there_is_frozen_and_at_the_end_everything_is_as_it_was(clock):
    heap = CountedHeap(clock)
    heap.make(5000)
    with collector_on(heap, clock).in_charge():
        assert (heap.enabled, heap.frozen, heap.ages) == (False, 5000, [0, 0, 0])
    assert (heap.enabled, heap.frozen, sum(heap.ages)) == (True, 0, 5000)
    assert heap.looks == []


def test_what_somebody_else_froze_stays_frozen(clock):
    heap = CountedHeap(clock)
    heap.frozen = 7
    with collector_on(heap, clock).in_charge():
        heap.make(10)
    assert heap.frozen == 7


def test_where_another_is_in_charge_nothing_is_touched(clock):
    heap = CountedHeap(clock)
    first, second = collector_on(heap, clock), collector_on(heap, clock)
    with first.in_charge(), second.in_charge():
        heap.make(10 * MOST_NEW)
        assert second.look() is False
        assert heap.looks == []
    assert heap.enabled


def test_where_nothing_was_done_nothing_is_looked_at(clock):
    heap = CountedHeap(clock)
    collector = collector_on(heap, clock)
    with collector.in_charge():
        for _ in range(1000):
            clock.advance(INTERVAL_S)
            heap.make(LEAST_NEW // 2000)
            assert collector.look(idle_s=1000.0) is False
        assert heap.looks == []


def test_what_is_new_is_looked_at_on_the_cadence_and_before_it_where_it_is_much(clock):
    heap = CountedHeap(clock)
    collector = collector_on(heap, clock)
    with collector.in_charge():
        for _ in range(11):  # a beat every tenth of the interval
            clock.advance(INTERVAL_S / 10)
            heap.make(MOST_NEW // 20)
            collector.look(worked=True)
        assert len(heap.looks) == 1
        heap.make(MOST_NEW)
        assert collector.look() is True
        assert len(heap.looks) == 2


def test_where_there_was_work_what_is_new_is_looked_at_also_if_python_counts_little(clock):
    """Python's count goes down with whatever ends, however old."""
    heap = CountedHeap(clock)
    collector = collector_on(heap, clock)
    with collector.in_charge():
        clock.advance(2 * INTERVAL_S)
        heap.make(1)
        assert collector.look(worked=True) is False
        assert [age for age, _ in heap.looks] == [YOUNG]


def test_no_look_is_long_however_many_come_to_stay(clock):
    """Ten times as many agents: as many long looks, for those come only where there is more than twice as much as before."""
    seconds = {}
    for count in (300, 3000):
        heap, metrics = CountedHeap(clock), Metrics()
        collector = collector_on(heap, clock, metrics)
        with collector.in_charge():
            for _ in range(count):
                clock.advance(INTERVAL_S / 5)
                heap.make(MOST_NEW)
                collector.look()
        seconds[count] = sorted(took_s for _, took_s in heap.looks)
        told = sum(series.count for series in metrics.snapshot() if series.metric is COLLECTION_SECONDS)
        assert told == len(heap.looks)
    assert sum(took_s > 0.01 for took_s in seconds[300]) <= 1
    assert sum(took_s > 0.01 for took_s in seconds[3000]) <= 4  # of three thousand


def test_each_age_is_visited_less_often_than_the_one_before(clock):
    heap = CountedHeap(clock)
    collector = collector_on(heap, clock)
    with collector.in_charge():
        for _ in range(1100):
            clock.advance(INTERVAL_S)
            heap.make(LEAST_NEW)
            collector.look()
    ages = [age for age, _ in heap.looks]
    assert ages.count(YOUNG) > 5 * ages.count(MIDDLE) > 5 * ages.count(OLD) > 0


def test_everything_is_looked_through_when_nobody_does_anything_and_once_is_enough(clock):
    heap = CountedHeap(clock, kept=0)
    collector = collector_on(heap, clock)
    with collector.in_charge():
        for _ in range(40):
            clock.advance(INTERVAL_S)
            heap.make(MOST_NEW)
            collector.look()
        heap.looks.clear()
        collector.look(idle_s=0.1)
        assert heap.looks == []  # too short a rest for so long a look
        collector.look(idle_s=60.0)
        assert [age for age, _ in heap.looks] == [OLD]
        assert heap.blocks() == 0
        collector.look(idle_s=120.0)
        assert len(heap.looks) == 1


@pytest.mark.parametrize("kept", [0, 1_000_000])
def test_garbage_that_has_grown_old_does_not_grow_without_bound(clock, kept):
    heap = CountedHeap(clock, kept=kept)
    collector = collector_on(heap, clock)
    largest = 0
    with collector.in_charge():
        for _ in range(3000):  # thirty million in all
            clock.advance(INTERVAL_S / 5)
            heap.make(MOST_NEW)
            collector.look()
            largest = max(largest, heap.blocks())
    assert MOST_MORE < largest < 2 * kept + 1.1 * MOST_MORE
    assert heap.blocks() < largest


class Node:
    """What can be in a cycle, and can be seen to go."""


def make_cycle():
    one, other = Node(), Node()
    one.other, other.other = other, one
    return weakref.ref(one)


def test_on_pythons_own_heap_a_maker_of_cycles_leaves_little_and_all_is_restored(clock):
    assert gc.isenabled()
    before, frozen = gc.get_threshold(), gc.get_freeze_count()
    collector = Collector(INTERVAL_S, clock, Metrics())
    refs = []
    with collector.in_charge():
        assert not gc.isenabled()
        most = 0
        for _ in range(200):
            refs += [make_cycle() for _ in range(500)]
            clock.advance(INTERVAL_S)
            collector.look()
            refs = [ref for ref in refs if ref() is not None]
            most = max(most, len(refs))
        assert most < 10 * LEAST_NEW  # of a hundred thousand
    assert (gc.isenabled(), gc.get_threshold(), gc.get_freeze_count()) == (True, before, frozen)


def test_on_pythons_own_heap_cycles_that_grew_old_are_found_in_a_rest(clock):
    collector = Collector(INTERVAL_S, clock, Metrics())
    with collector.in_charge():
        kept = [[Node(), Node()] for _ in range(MOST_NEW)]
        for pair in kept:
            pair[0].other, pair[1].other = pair[1], pair[0]
        refs = [weakref.ref(pair[0]) for pair in kept]
        for _ in range(200):
            clock.advance(INTERVAL_S)
            collector.look(worked=True)
        frozen = gc.get_freeze_count()
        assert frozen > 2 * len(refs)
        del kept, pair
        assert all(ref() is not None for ref in refs)
        collector.look(idle_s=1e6)
        assert [ref for ref in refs if ref() is not None] == []
