"""The pulse: what it measures, and how seldom it beats where nothing happens."""

import logging

import anyio
import pytest

from symbi.runtime.collector import Collector
from symbi.runtime.pulse import BUSY_S, QUIET_S, WARN_EVERY_S, WARNED_LAG_S, WINDOW_S, Lag, LagWindow, Pulse
from symbi.telemetry import LOOP_LAG_RECENT, LOOP_LAG_SECONDS, Metrics
from symbi.testing.clock import ManualClock

pytestmark = pytest.mark.anyio


class Waiting:
    """Rests on the manual clock, some of them too long."""

    def __init__(self, clock):
        self.clock = clock
        self.late_s = 0.0
        self.rests = []

    async def __call__(self, seconds, changed):
        self.rests.append(seconds)
        self.clock.advance(seconds + self.late_s)


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def waiting(clock):
    return Waiting(clock)


@pytest.fixture
def pulse(clock, waiting):
    metrics = Metrics()
    return Pulse(Collector(0.1, clock, metrics), clock, metrics, waiting)


async def test_where_nothing_happens_it_beats_ever_less_often_up_to_a_bound(pulse, waiting):
    for _ in range(50):
        await pulse.beat()
    assert waiting.rests[0] == BUSY_S
    assert waiting.rests == sorted(waiting.rests)
    assert waiting.rests[-1] == QUIET_S
    assert sum(rest < QUIET_S for rest in waiting.rests) < 10


async def test_where_something_happens_it_beats_often_until_that_is_over(pulse, waiting):
    for _ in range(20):
        await pulse.beat()
    waiting.rests.clear()
    for _ in range(5):
        pulse.stir()
        await pulse.beat()
    assert waiting.rests == [BUSY_S] * 5
    await pulse.beat()
    await pulse.beat()
    assert waiting.rests[-1] > BUSY_S


async def test_a_long_rest_ends_as_soon_as_something_happens():
    clock = ManualClock()
    metrics = Metrics()
    pulse = Pulse(Collector(0.1, clock, metrics), clock, metrics)
    pulse._rest_s = 3600.0
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(pulse.beat)
            await anyio.lowlevel.checkpoint()
            pulse.stir()
    assert pulse.beats == 1
    assert pulse.lag.beats == 0  # who is woken before its time has measured nothing


async def test_it_tells_how_late_it_came(pulse, waiting, clock):
    for late_s in (0.0, 0.001, 0.002, 0.5):
        waiting.late_s = late_s
        pulse.stir()
        await pulse.beat()
    lag = pulse.lag
    assert lag.beats == 4
    assert (lag.p50_s, lag.p99_s, lag.p999_s, lag.max_s) == pytest.approx((0.001, 0.5, 0.5, 0.5))
    metrics = pulse._metrics
    told = {series.labels: series.count for series in metrics.snapshot() if series.metric is LOOP_LAG_RECENT}
    assert told[(("quantile", "max"),)] == pytest.approx(0.5)
    assert told[(("quantile", "p50"),)] == pytest.approx(0.001)
    (counted,) = [series for series in metrics.snapshot() if series.metric is LOOP_LAG_SECONDS]
    assert (counted.count, counted.total) == (4, pytest.approx(0.503))
    clock.advance(WINDOW_S + 1)
    assert pulse.lag == Lag()


def test_percentiles_are_those_of_the_nearest_rank_and_the_window_is_bounded():
    window = LagWindow()
    for number in range(100_000):
        window.note(number * 1e-6, float(number))
    lag = window.lag(0.1)
    assert lag.beats == round(WINDOW_S / BUSY_S)
    assert lag.max_s == 99_999.0
    assert lag.p50_s == 99_999 - lag.beats // 2
    assert lag.p99_s < lag.p999_s < lag.max_s


async def test_a_loop_that_stood_still_is_worth_a_line_and_not_one_at_each_beat(pulse, waiting, caplog):
    caplog.set_level(logging.WARNING, "symbi.runtime")
    waiting.late_s = WARNED_LAG_S / 2
    await pulse.beat()
    assert caplog.records == []
    waiting.late_s = WARNED_LAG_S
    for _ in range(5):
        pulse.stir()
        await pulse.beat()
    assert len(caplog.records) == 1
    waiting.clock.advance(WARN_EVERY_S)
    await pulse.beat()
    assert len(caplog.records) == 2
    assert caplog.records[1].symbi_fields["more"] == 4
