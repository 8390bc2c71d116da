"""Meters of runs: what they count, what they charge, and what they do about an agent that uses more than it claimed."""

import anyio
import anyio.lowlevel
import pytest

from symbi.agent.meter import metered
from symbi.agent.turn import Unscheduled
from symbi.errors import BudgetExceeded
from symbi.guard.budget import Account, charge
from symbi.guard.spending import Budget, Spend
from symbi.runtime.metering import STEP_CPU_MS, STEP_WALL_MS, RunMeter
from symbi.runtime.share import WINDOW_S, Share
from symbi.runtime.usage import Whose
from symbi.testing.clock import ManualClock
from symbi.types import AgentId, OnBreach, ResourceLimits, RunId

pytestmark = pytest.mark.anyio

MS = 1_000_000
RUN = RunId("r")


class Books:
    """Accounts in memory, and how often something was charged."""

    def __init__(self, *accounts):
        self.line = {account.run_id: account for account in accounts}
        self.charges = []

    def account_of(self, run_id):
        return self.line.get(run_id)

    def put_account(self, account):
        self.line[account.run_id] = account

    async def pay(self, cost):
        self.charges.append(cost)
        return charge(self, RUN, cost)


CORE = ResourceLimits(cpu_cores=1.0)


def meter(books=None, limits=CORE, turn=None):
    clock = ManualClock()
    one = RunMeter(Whose(AgentId("a/1"), AgentId("a"), "ada"), RUN, clock, limits, turn or Unscheduled())
    if books is not None:
        one.charge_to(tuple(books.line.values()), books.pay)
    return one, clock


async def test_time_is_charged_in_steps_and_to_each_account_above():
    books = Books(
        Account(RUN, AgentId("a"), RunId("up"), Budget()),
        Account(RunId("up"), AgentId("u"), most=Budget(cpu_ms=10_000)),
    )
    one, clock = meter(books)
    one.worked((STEP_CPU_MS - 1) * MS)
    assert not one.must_stop
    one.worked(MS)
    assert one.must_stop
    await one.keep()
    assert not one.must_stop
    clock.advance(STEP_WALL_MS / 1000)
    assert one.must_stop
    await one.keep()
    assert [(cost.wall_ms, cost.cpu_ms) for cost in books.charges] == [(0, STEP_CPU_MS), (STEP_WALL_MS, 0)]
    assert books.line[RunId("up")].spent == Spend(wall_ms=STEP_WALL_MS, cpu_ms=STEP_CPU_MS)


async def test_nothing_of_it_is_lost_between_whole_milliseconds():
    books = Books(Account(RUN, AgentId("a"), most=Budget(cpu_ms=10_000)))
    one, _ = meter(books)
    for _ in range(1000):
        one.worked(MS // 3)
        await one.pay()
    assert books.line[RUN].spent.cpu_ms == 1000 * (MS // 3) // MS
    assert one.take().cpu_ns == 1000 * (MS // 3)


async def test_a_body_is_told_between_steps_when_its_time_or_that_of_an_account_above_is_used_up():
    books = Books(
        Account(RUN, AgentId("a"), RunId("up"), Budget()), Account(RunId("up"), AgentId("u"), most=Budget(cpu_ms=5))
    )
    one, _ = meter(books)
    one.worked(4 * MS)
    one.check()
    one.worked(MS)
    with pytest.raises(BudgetExceeded, match=r"run `up`, which asked for run `r`, has spent 0\.005 of 0\.005 cpu_s"):
        one.check()
    with pytest.raises(BudgetExceeded):
        await one.keep()
    assert books.line[RunId("up")].spent.cpu_ms == 5, "it is charged before it is refused"


async def test_what_a_run_waits_for_is_no_time_at_work():
    one, clock = meter()
    clock.advance(1.0)
    async with one.idle():
        clock.advance(10.0)
    async with one.away():
        clock.advance(10.0)
    clock.advance(0.5)
    assert one.take().wall_ns == 1_500 * MS
    assert one.take().wall_ns == 0


async def watched(remedy, limits, use):
    """What is done, and for how long it is waited, after something was used."""
    told, waited = [], []
    one, clock = meter(limits=limits)

    async def act(breach):
        told.append(breach)

    async def wait(seconds):
        waited.append(seconds)
        clock.advance(seconds)

    one.watch(remedy, act, wait)
    use(one)
    while one.must_stop:
        await one.keep()
    return one, clock, told, waited


async def test_an_agent_over_its_share_of_the_processor_waits_until_it_is_not():
    half = ResourceLimits(cpu_cores=0.5)
    one, clock, told, waited = await watched(OnBreach.THROTTLE, half, lambda one: one.worked(6_000 * MS))
    assert [(breach.what, breach.used, breach.claimed) for breach in told] == [("cpu", 6_000, 5_000)]
    assert waited == [pytest.approx(2.0)], "a second too much, at half a core"
    clock.advance(WINDOW_S)
    one.worked(5_000 * MS)
    assert not one.must_stop, "what it did not use meanwhile is saved, up to a window of it"
    assert one.take().wall_ns <= round(WINDOW_S * 1e9), "the wait is no time at work"


async def test_an_agent_that_is_suspended_or_stopped_is_told_of_once():
    for remedy in (OnBreach.SUSPEND, OnBreach.STOP):
        _, _, told, waited = await watched(remedy, ResourceLimits(cpu_cores=0.1), lambda one: one.worked(1_001 * MS))
        assert [(breach.what, breach.remedy) for breach in told] == [("cpu", remedy)]
        assert waited == []


async def test_bytes_count_against_what_of_the_network_was_claimed_and_not_where_nothing_was():
    some = ResourceLimits(cpu_cores=1.0, network_io_mbps=1)
    _, _, told, waited = await watched(OnBreach.THROTTLE, some, lambda one: one.moved(1_000_000, 441_792))
    assert [(breach.what, breach.used, breach.claimed) for breach in told] == [("bytes", 1_441_792, 1_310_720)]
    assert waited == [pytest.approx(1.0)]
    _, _, told, _ = await watched(OnBreach.THROTTLE, ResourceLimits(), lambda one: one.moved(10**9, 10**9))
    assert told == []


async def test_memory_of_a_worker_suspends_also_whoever_would_only_be_throttled():
    one, _, _, _ = await watched(OnBreach.THROTTLE, ResourceLimits(memory_mb=64), RunMeter.acted)
    assert one.breach(64 << 20) is None
    assert one.breach((64 << 20) + 1).remedy is OnBreach.SUSPEND


async def test_nothing_is_done_where_nothing_is_configured():
    one, _ = meter(limits=ResourceLimits(cpu_cores=0.001))
    one.worked(10**12)
    assert one.breach(10**12) is None
    assert not one.must_stop


def test_a_share_is_never_saved_beyond_its_window_and_time_that_goes_back_gives_nothing():
    share = Share(2.0, 100.0, window_s=5.0)
    share.use(10.0)
    assert share.over(100.0) == 0
    assert share.over(50.0) == 0
    share.use(4.0)
    assert share.wait_s(100.0) == 2.0
    assert share.over(103.0) == -2.0
    assert share.over(10_000.0) == -10.0


# --- the driver of coroutines -------------------------------------------------------------------


class Ticks:
    """A meter that counts, and a processor clock that moves where it is told to."""

    def __init__(self):
        self.now = self.seen = 0

    def worked(self, cpu_ns):
        self.seen += cpu_ns


async def test_a_coroutine_that_is_driven_behaves_as_before_and_its_steps_are_measured():
    ticks = Ticks()

    async def body():
        ticks.now += 5
        await anyio.lowlevel.checkpoint()
        ticks.now += 7
        with anyio.move_on_after(0.0):
            await anyio.sleep_forever()
        ticks.now += 3
        return "value"

    async def other():
        ticks.now += 1_000  # while the body waits

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(other)
        assert await metered(body(), ticks, lambda: ticks.now) == "value"
    assert ticks.seen == 15


async def test_a_cancellation_reaches_a_coroutine_that_is_driven_and_what_it_does_then_counts_too():
    ticks, ended = Ticks(), []

    async def body():
        try:
            await anyio.sleep_forever()
        finally:
            ticks.now += 3
            with anyio.CancelScope(shield=True):
                await anyio.lowlevel.checkpoint()
            ended.append(True)

    with anyio.move_on_after(0.01) as scope:
        await metered(body(), ticks, lambda: ticks.now)
    assert scope.cancelled_caught
    assert (ended, ticks.seen) == ([True], 3)


async def test_an_error_of_the_body_comes_out_as_it_is():
    async def body():
        await anyio.lowlevel.checkpoint()
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await metered(body(), Ticks(), lambda: 0)
