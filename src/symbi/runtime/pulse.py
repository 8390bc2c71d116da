"""The pulse of the event loop: one timer, which measures how late it comes and lets the collector look.

A timer that is due while something holds the loop comes when that lets go: how late it is, is what everybody waits.
While there is work it is due every 20 ms. Where there is none it is due ever less often, up to every 2 s, until the
trail says that something happens: a process that does nothing wakes for next to nothing.
"""

import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

import anyio

from symbi.clock import Clock
from symbi.runtime.collector import Collector
from symbi.telemetry import LOOP_LAG_RECENT, LOOP_LAG_SECONDS, Metrics, log_fields

BUSY_S: Final = 0.02  # between two beats while there is work
QUIET_S: Final = 2.0  # at the most, while there is none
WINDOW_S: Final = 60.0  # of which the lag is told
WARNED_LAG_S: Final = 0.25  # that is worth a line
WARN_EVERY_S: Final = 60.0  # between two such lines
_MOST: Final = round(WINDOW_S / BUSY_S)

_log = logging.getLogger("symbi.runtime")


@dataclass(frozen=True, slots=True)
class Lag:
    """How late the event loop came to what was due, of late.

    Attributes:
        beats: How often it was measured.
        p50_s: Seconds that half of the beats were late by, at the most. Likewise `p99_s` and `p999_s`.
        max_s: The latest.
    """

    beats: int = 0
    p50_s: float = 0.0
    p99_s: float = 0.0
    p999_s: float = 0.0
    max_s: float = 0.0


class LagWindow:
    """Lags of the last minute."""

    def __init__(self) -> None:
        self._lags: deque[tuple[float, float]] = deque(maxlen=_MOST)

    def note(self, now_s: float, lag_s: float) -> None:
        """Take a measurement."""
        self._lags.append((now_s, lag_s))

    def lag(self, now_s: float) -> Lag:
        """What they come to, by nearest rank."""
        while self._lags and self._lags[0][0] < now_s - WINDOW_S:
            self._lags.popleft()
        lags = sorted(lag_s for _, lag_s in self._lags)
        if not lags:
            return Lag()
        p50_s, p99_s, p999_s = (lags[-(-len(lags) * per_mille // 1000) - 1] for per_mille in (500, 990, 999))
        return Lag(len(lags), p50_s, p99_s, p999_s, lags[-1])


class Pulse:
    """Beats; to be run.

    Args:
        collector: Looks at each beat for what is due.
        clock: Measures.
        metrics: Is told of every beat, and tells of the last minute.
        wait: Returns after some seconds, or once an event is set.
    """

    def __init__(
        self,
        collector: Collector,
        clock: Clock,
        metrics: Metrics,
        wait: Callable[[float, anyio.Event], Awaitable[None]] | None = None,
    ) -> None:
        self.collector = collector
        self._clock = clock
        self._metrics = metrics
        self._wait = wait or _wait
        self._window = LagWindow()
        self._changed: anyio.Event | None = None  # what a long rest waits for
        self._happened = False  # something did since the last beat
        self._worked_s = clock.monotonic_s()  # when there was work last
        self._rest_s = BUSY_S
        self._warned_s = -WARN_EVERY_S
        self._unsaid = 0
        self.beats = 0
        for name in ("p50", "p99", "p999", "max"):
            metrics.watch(LOOP_LAG_RECENT, partial(self._recent, f"{name}_s"), quantile=name)

    @property
    def lag(self) -> Lag:
        """How late the loop came in the last minute."""
        return self._window.lag(self._clock.monotonic_s())

    def _recent(self, name: str) -> float:
        return float(getattr(self.lag, name))

    def stir(self, _events: object = None) -> None:
        """Something happens: there is work."""
        self._happened = True
        if self._changed is not None:
            self._changed.set()

    async def run(self) -> None:
        """Beat for ever."""
        while True:
            await self.beat()

    async def beat(self) -> None:
        """Rest, measure, and let the collector look."""
        rest_s = BUSY_S if self._happened else self._rest_s
        due_s = self._clock.monotonic_s() + rest_s
        changed = anyio.Event()
        self._changed = changed if rest_s > BUSY_S else None
        await self._wait(rest_s, changed)
        self._changed = None
        now_s = self._clock.monotonic_s()
        self.beats += 1
        if not changed.is_set():  # who is woken early cannot tell
            self._note(now_s, max(0.0, now_s - due_s))
        worked, self._happened = self._happened, False
        if worked:
            self._worked_s = now_s
        if self.collector.look(worked=worked, idle_s=now_s - self._worked_s):
            worked, self._worked_s = True, now_s
        self._rest_s = BUSY_S if worked else min(2 * rest_s, QUIET_S)

    def _note(self, now_s: float, lag_s: float) -> None:
        self._window.note(now_s, lag_s)
        self._metrics.observe(LOOP_LAG_SECONDS, lag_s)
        if lag_s < WARNED_LAG_S:
            return
        if now_s - self._warned_s < WARN_EVERY_S:
            self._unsaid += 1
            return
        fields = log_fields(lag_ms=round(lag_s * 1000), more=self._unsaid)
        _log.warning("something held the event loop, and everybody waited", extra=fields)
        self._warned_s, self._unsaid = now_s, 0


async def _wait(seconds: float, changed: anyio.Event) -> None:
    with anyio.move_on_after(seconds):
        await changed.wait()
