"""The collector: when the garbage collector of Python looks for cycles, so that no look holds the event loop for long.

A collection stops everything, for as long as it takes to visit what it visits: some 50 ns an object. Left to itself,
Python looks through all there is whenever enough is new, which with ten thousand agents takes a tenth of a second. Here:

1. what is there once the runtime is up (modules, policies, keys) is frozen: no look visits it again;
2. Python's own looks are off. What is new is looked through on a cadence (`runtime.gc_interval_ms`), and earlier where
   it becomes much; what has survived ten times, or has become much, is looked through with it. Neither visits what is old;
3. what is old is looked through when enough has joined it, and the look will be short by what the last ones took; or
   when nobody does anything, for then it holds nobody up;
4. or when so much has joined it that it may be mostly garbage, however long it takes: what cannot be reached does not
   grow without bound.

Nothing is looked at where nothing was made. Python 3.14 knows two ages, and takes the middle look as one for what is
new and a part of what is old; the rules fit it as they are.
"""

import gc
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from symbi.clock import Clock
from symbi.telemetry import COLLECTION_SECONDS, Metrics

YOUNG: Final = 0
MIDDLE: Final = 1
OLD: Final = 2

LEAST_NEW: Final = 1_000  # objects below which no look is worth it
MOST_NEW: Final = 25_000  # objects that are looked through before their time: about a millisecond
YOUNG_LOOKS: Final = 10  # after which what survived them is looked through too
MOST_MIDDLE: Final = 50_000  # survivors that are looked through before that
LEAST_JOINED: Final = 25_000  # objects that have to become old before what is old is looked through
JOINED_SHARE: Final = 0.25  # or this part of it, by the time that a look takes
SHORT_S: Final = 0.005  # a look of this length is done in between
IDLE_SHARE: Final = 0.05  # a look that fills no more of the time in which nothing was done is done then
MOST_JOINED: Final = (
    1_000_000  # objects, beside twice what was old already, after which garbage is looked for in any case
)
_FIRST_COST_S: Final = 60e-9  # for one object, until it is measured
_COST_S: Final = (10e-9, 1e-6)  # what is believed of a measured one
_SMOOTHING: Final = 0.2


class Heap(Protocol):
    """What the collector asks of Python; the module `gc` is one."""

    def isenabled(self) -> bool:
        """Whether Python looks by itself."""

    def disable(self) -> None:
        """Have it not look by itself."""

    def enable(self) -> None:
        """Have it look by itself."""

    def freeze(self) -> None:
        """Have what is there never be looked through."""

    def unfreeze(self) -> None:
        """Have what was frozen be looked through again, as what is old."""

    def get_freeze_count(self) -> int:
        """How many objects are frozen."""

    def get_count(self) -> tuple[int, int, int]:
        """How many objects were made since the last look, less those that are gone; and two other numbers."""

    def collect(self, generation: int, /) -> int:
        """Look through what is so old or younger; returns how many objects were found that nobody can reach."""


class Collector:
    """Decides when to look.

    Args:
        interval_s: Seconds between two looks at what is new.
        clock: Measures the looks.
        metrics: Is told how long each took.
        heap: What is looked through.
    """

    def __init__(self, interval_s: float, clock: Clock, metrics: Metrics, heap: Heap = gc) -> None:
        self._interval_s = interval_s
        self._clock = clock
        self._metrics = metrics
        self._heap = heap
        self._in_charge = False
        self._next_s = clock.monotonic_s() + interval_s
        self._looks = 0  # at what is new, since the last at the middle
        self._middle = 0  # objects that have survived one
        self._joined = 0  # objects that have become old since that was looked through
        self._old_s = 0.0  # how long that takes
        self._cost_s = _FIRST_COST_S

    @contextmanager
    def in_charge(self) -> Iterator[None]:
        """Freeze what is there and decide from here on; at the end everything is as it was.

        Where Python does not look by itself, somebody has decided so, or another runtime of this process is in charge,
        and nothing is touched. Likewise in a build without the global lock, whose collector has one age only.
        """
        heap = self._heap
        if not heap.isenabled() or sysconfig.get_config_var("Py_GIL_DISABLED"):
            yield
            return
        ours = heap.get_freeze_count() == 0
        heap.disable()
        heap.freeze()
        self._in_charge = True
        try:
            yield
        finally:
            self._in_charge = False
            if ours:
                heap.unfreeze()
            heap.enable()

    def look(self, idle_s: float = 0.0) -> bool:
        """Look through what is due; returns whether something was made worth looking at.

        Args:
            idle_s: For how long nobody has done anything.
        """
        if not self._in_charge:
            return False
        made, now_s = self._heap.get_count()[0], self._clock.monotonic_s()
        if idle_s > 0 and self._waits_for_idle(made) and self._expected_s(made) <= idle_s * IDLE_SHARE:
            self._collect(OLD, made)
            return False
        if made < LEAST_NEW:
            return False
        if now_s < self._next_s and made < MOST_NEW:
            return True
        self._next_s = now_s + self._interval_s
        middle = self._looks + 1 >= YOUNG_LOOKS or self._middle + made >= MOST_MIDDLE
        self._collect(MIDDLE if middle else YOUNG, made)
        if self._is_due():
            self._collect(OLD, 0)
        return True

    def _waits_for_idle(self, made: int) -> bool:
        return made + self._middle + self._joined >= LEAST_JOINED

    def _expected_s(self, made: int) -> float:
        """How long it would take to look through everything."""
        return self._old_s + (made + self._middle + self._joined) * self._cost_s

    def _is_due(self) -> bool:
        """Whether what is old has to be looked through now, also while there is work."""
        if self._joined < LEAST_JOINED or self._joined * self._cost_s < self._old_s * JOINED_SHARE:
            return False
        if self._expected_s(0) <= SHORT_S:
            return True
        return (self._joined - MOST_JOINED) * self._cost_s > 2 * self._old_s

    def _collect(self, age: int, made: int) -> None:
        begun_s = self._clock.monotonic_s()
        found = self._heap.collect(age)
        took_s = self._clock.monotonic_s() - begun_s
        self._metrics.observe(COLLECTION_SECONDS, took_s, age=("young", "middle", "old")[age])
        visited = made + (self._middle if age >= MIDDLE else 0)
        if age == OLD:
            self._looks, self._middle, self._joined = 0, 0, 0
            self._old_s = max(0.0, took_s - found * self._cost_s)  # what is gone will not be visited again
            return
        if visited >= LEAST_NEW:
            measured_s = min(max(took_s / visited, _COST_S[0]), _COST_S[1])
            self._cost_s += (measured_s - self._cost_s) * _SMOOTHING
        survived = max(0, visited - found)
        if age == YOUNG:
            self._looks, self._middle = self._looks + 1, self._middle + survived
        else:
            self._looks, self._middle, self._joined = 0, 0, self._joined + survived
