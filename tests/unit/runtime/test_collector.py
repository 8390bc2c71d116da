"""The collector: what is looked through when, on a heap that counts, and on Python's own."""

import gc
import weakref

import pytest

from symbi.runtime.collector import (
    LEAST_JOINED,
    LEAST_NEW,
    MIDDLE,
    MOST_JOINED,
    MOST_NEW,
    OLD,
    YOUNG,
    Collector,
)
from symbi.telemetry import COLLECTION_SECONDS, Metrics
from symbi.testing.clock import ManualClock

INTERVAL_S = 0.1


class CountedHeap:
    """A heap of numbers, whose looks take time by the objects that they visit."""

    def __init__(self, clock, *, cost_s=50e-9, garbage=0.0, kept=None):
        self._clock = clock
        self._cost_s = cost_s
        self.garbage = garbage  # the part of what is new that nobody reaches at the first look
        self.kept = kept  # of what is old, where the rest is garbage, which only a look at all finds
        self.frozen, self.ages = 0, [0, 0, 0]
        self.enabled = True
        self.looks = []
        self.longest_s = {YOUNG: 0.0, MIDDLE: 0.0, OLD: 0.0}

    def make(self, count):
        self.ages[0] += count

    def isenabled(self):
        return self.enabled

    def disable(self):
        self.enabled = False

    def enable(self):
        self.enabled = True

    def freeze(self):
        self.frozen, self.ages = self.frozen + sum(self.ages), [0, 0, 0]

    def unfreeze(self):
        self.ages[2], self.frozen = self.ages[2] + self.frozen, 0

    def get_freeze_count(self):
        return self.frozen

    def get_count(self):
        return self.ages[0], 0, 0

    def collect(self, age, /):
        self.looks.append(age)
        took_s = sum(self.ages[: age + 1]) * self._cost_s
        self.longest_s[age] = max(self.longest_s[age], took_s)
        self._clock.advance(took_s)
        found = round(self.ages[0] * self.garbage)
        if age == OLD and self.kept is not None:
            found = max(0, sum(self.ages) - self.kept)
        left = sum(self.ages[: age + 1]) - found
        self.ages[: age + 1] = [0] * (age + 1)
        self.ages[min(age + 1, 2)] += left
        return found


@pytest.fixture
def clock():
    return ManualClock()


def collector_on(heap, clock, metrics=None):
    return Collector(INTERVAL_S, clock, metrics or Metrics(), heap)


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


def test_where_nothing_was_made_nothing_is_looked_at(clock):
    heap = CountedHeap(clock)
    collector = collector_on(heap, clock)
    with collector.in_charge():
        for _ in range(1000):
            clock.advance(INTERVAL_S)
            heap.make(LEAST_NEW // 2000)
            assert collector.look(idle_s=1000.0) is False
        assert heap.looks == []


def test_what_is_new_is_looked_at_on_the_cadence_and_before_it_where_it_is_much(clock):
    heap = CountedHeap(clock, garbage=1.0)
    collector = collector_on(heap, clock)
    with collector.in_charge():
        for _ in range(11):  # a beat every tenth of the interval
            clock.advance(INTERVAL_S / 10)
            heap.make(LEAST_NEW)
            assert collector.look() is True
        assert len(heap.looks) == 1
        heap.make(MOST_NEW)
        collector.look()
        assert len(heap.looks) == 2


def test_no_look_among_ten_thousand_agents_at_work_is_long(clock):
    """Many objects come and stay; what is old is looked through only a few times, each after it has more than doubled."""
    heap, metrics = CountedHeap(clock), Metrics()
    collector = collector_on(heap, clock, metrics)
    with collector.in_charge():
        for _ in range(500):
            clock.advance(INTERVAL_S)
            heap.make(10_000)
            collector.look()
    assert max(heap.longest_s[YOUNG], heap.longest_s[MIDDLE]) < 0.005
    long = [age for age in heap.looks if age == OLD]
    assert 0 < len(long) < 30  # of five hundred
    assert sum(series.count for series in metrics.snapshot() if series.metric is COLLECTION_SECONDS) == len(heap.looks)


def test_what_is_old_waits_until_nobody_does_anything(clock):
    heap = CountedHeap(clock)
    collector = collector_on(heap, clock)
    with collector.in_charge():
        for _ in range(40):
            clock.advance(INTERVAL_S)
            heap.make(MOST_NEW)
            collector.look()
        for _ in range(40):
            clock.advance(INTERVAL_S)
            heap.make(MOST_NEW // 2)
            collector.look()
        heap.looks.clear()
        assert collector.look(idle_s=0.01) is False
        assert heap.looks == []  # too short a rest for so long a look
        collector.look(idle_s=60.0)
        assert heap.looks == [OLD]
        collector.look(idle_s=120.0)
        assert heap.looks == [OLD]  # and once is enough


@pytest.mark.parametrize("kept", [0, 1_000_000])
def test_garbage_that_has_grown_old_does_not_grow_without_bound(clock, kept):
    heap = CountedHeap(clock, kept=kept)
    collector = collector_on(heap, clock)
    largest = 0
    with collector.in_charge():
        for _ in range(1000):  # twenty-five million in all
            clock.advance(INTERVAL_S / 5)
            heap.make(MOST_NEW)
            collector.look()
            largest = max(largest, sum(heap.ages))
    assert kept + LEAST_JOINED <= largest < 3 * kept + 2 * MOST_JOINED
    assert sum(heap.ages) < largest or not kept


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
        kept = [[Node(), Node()] for _ in range(LEAST_JOINED)]
        for pair in kept:
            pair[0].other, pair[1].other = pair[1], pair[0]
        refs = [weakref.ref(pair[0]) for pair in kept]
        for _ in range(3):
            clock.advance(INTERVAL_S)
            gc.collect(1)  # until they are old
            collector.look()
        del kept, pair
        collector._joined = LEAST_JOINED
        collector.look(idle_s=1e6)
        assert [ref for ref in refs if ref() is not None] == []
