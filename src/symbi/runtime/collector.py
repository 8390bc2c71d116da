"""The collector: when the garbage collector of Python looks for cycles, so that no look holds the event loop for long.

A look stops everything for as long as it takes to visit what it visits, some 50 to 300 ns an object. Left to itself,
Python looks through all there is whenever enough is new, which with ten thousand agents takes half a second. Here:

1. what is there once the runtime is up (modules, policies, keys) is frozen: no look in between visits it again;
2. Python's own looks are off. What is new is looked through on a cadence (`runtime.gc_interval_ms`), and earlier where it
   becomes much or takes long; what has survived ten looks, or as many as took a few milliseconds, is looked through with
   what has survived such looks likewise; and what has survived these is frozen too. So each look is short;
3. when nobody does anything, what is frozen is looked through with all the rest, for then it holds nobody up;
4. and when there is more than twice as much as then, however long it takes: what cannot be reached does not grow
   without bound.

Nothing is looked at where nothing was done. How much there is to visit is told by the time that looks take: Python's own
count of what is new goes down with whatever ends, however old it was. Python 3.14 knows two ages, and takes the middle
look as one for what is new and a part of what is old; the rules fit it as they are.
"""

import gc
import sys
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from symbi.clock import Clock
from symbi.telemetry import COLLECTION_SECONDS, Metrics

YOUNG: Final = 0
MIDDLE: Final = 1
OLD: Final = 2

LEAST_NEW: Final = 1_000  # objects that tell of work by themselves
MOST_NEW: Final = 10_000  # objects that are looked through before their time
LOOKS: Final = 10  # at an age, after which what survived them is looked through too
MOST_S: Final = (0.001, 0.002)  # seconds of looks at what is young, and at the middle age, likewise
LONG_S: Final = 0.002  # a look at what is new that takes longer is followed by the next one earlier
IDLE_SHARE: Final = 0.05  # a look that fills no more of the time in which nothing was done is done then
MOST_MORE: Final = (
    2_000_000  # blocks of memory, beside twice what there was, after which all is looked through in any case
)
_FIRST_S: Final = 0.1  # that it takes to look through all, until it is measured


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
        blocks: How much there is, in blocks of memory.
    """

    def __init__(
        self,
        interval_s: float,
        clock: Clock,
        metrics: Metrics,
        heap: Heap = gc,
        blocks: Callable[[], int] = sys.getallocatedblocks,
    ) -> None:
        self._interval_s = interval_s
        self._clock = clock
        self._metrics = metrics
        self._heap = heap
        self._blocks = blocks
        self._in_charge = False
        self._every_s = interval_s
        self._next_s = clock.monotonic_s() + interval_s
        self._looks = [0, 0]  # at what is young and at the middle age, since those at the next one
        self._spent_s = [0.0, 0.0]  # that these took
        self._all_s = _FIRST_S  # that it takes to look through all
        self._had = 0  # blocks that there were after that
        self._touched = False  # something was done since

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
        self._had, self._in_charge = self._blocks(), True
        try:
            yield
        finally:
            self._in_charge = False
            if ours:
                heap.unfreeze()
            heap.enable()

    def look(self, *, worked: bool = False, idle_s: float = 0.0) -> bool:
        """Look through what is due; returns whether what is new tells of work.

        Args:
            worked: Something was done since the last call.
            idle_s: For how long nothing was.
        """
        if not self._in_charge:
            return False
        made, now_s = self._heap.get_count()[0], self._clock.monotonic_s()
        if made < LEAST_NEW and not worked:
            if self._touched and self._all_s <= idle_s * IDLE_SHARE:
                self._look_through_all()
            return False
        self._touched = True
        if now_s >= self._next_s or made >= MOST_NEW:
            self._look(self._age())
            self._next_s = self._clock.monotonic_s() + self._every_s
        return made >= LEAST_NEW

    def _age(self) -> int:
        """Up to which age to look now."""
        if not self._enough(YOUNG):
            return YOUNG
        return OLD if self._enough(MIDDLE) else MIDDLE

    def _enough(self, age: int) -> bool:
        """Whether as much has survived looks at an age as should be visited at once."""
        return self._looks[age] >= LOOKS or self._spent_s[age] >= MOST_S[age]

    def _look(self, age: int) -> None:
        took_s = self._collect(age, ("young", "middle", "old")[age])
        self._looks[:age], self._spent_s[:age] = [0] * age, [0.0] * age
        if age < OLD:
            self._looks[age] += 1
            self._spent_s[age] += took_s
        if age == YOUNG:
            self._every_s = min(self._interval_s, self._every_s * 2 if took_s < LONG_S / 2 else self._every_s)
            self._every_s = self._every_s / 2 if took_s > LONG_S else self._every_s
        if age == OLD:
            self._heap.freeze()
            self._all_s += took_s
            if self._blocks() > 2 * self._had + MOST_MORE:
                self._look_through_all()

    def _look_through_all(self) -> None:
        self._heap.unfreeze()
        self._all_s = self._collect(OLD, "all")
        self._heap.freeze()
        self._looks, self._spent_s = [0, 0], [0.0, 0.0]
        self._had, self._touched = self._blocks(), False

    def _collect(self, age: int, name: str) -> float:
        """Look; returns for how long."""
        begun_s = self._clock.monotonic_s()
        self._heap.collect(age)
        took_s = self._clock.monotonic_s() - begun_s
        self._metrics.observe(COLLECTION_SECONDS, took_s, age=name)
        return took_s
