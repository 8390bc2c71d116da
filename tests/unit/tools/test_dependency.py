"""Breaker and bulkhead before a dependency: what counts, what is refused, what the trail says, and that nothing gets stuck."""

from contextlib import AsyncExitStack, suppress

import anyio
import pytest

from symbi.errors import (
    EffectInDoubt,
    InputError,
    Overloaded,
    PolicyDenied,
    StoreUnavailable,
    SymbiError,
    TimeLimit,
    ToolFailed,
    ToolServerUnavailable,
    Unavailable,
)
from symbi.telemetry import DEPENDENCY_CHANGES, DEPENDENCY_REFUSALS, Metrics
from symbi.testing.clock import ManualClock
from symbi.testing.gate import open_gate
from symbi.tools.breaker import BreakerState, BreakerTerms
from symbi.tools.dependency import Dependency, DependencyTerms
from symbi.tools.port import PROTOCOL_FAILURE

pytestmark = pytest.mark.anyio

GONE = ToolServerUnavailable("gone")
TERMS = DependencyTerms(2, 3, 60.0, BreakerTerms(3, 30.0, 8.0))


class Stage:
    def __init__(self, gate, clock, terms):
        self.gate, self.clock, self.metrics = gate, clock, Metrics()
        self.dependency = Dependency(
            "mcp.servers.mail", "tool server `mail`", terms, clock, gate.log, self.metrics, lambda: 0.0
        )

    async def ends(self, error=None, *, proves=True):
        """One call that ends so."""
        with suppress(SymbiError, ValueError):
            async with self.dependency.attempt(proves=proves):
                if error is not None:
                    raise error

    async def open(self):
        for _ in range(3):
            await self.ends(GONE)
        assert self.state is BreakerState.OPEN

    async def half_open(self):
        await self.open()
        self.clock.advance(100)

    @property
    def state(self):
        return self.dependency.status.state

    def told(self):
        return [
            (event.event_type.removeprefix("dependency."), dict(event.details))
            for event in self.gate.events()
            if event.event_type.startswith("dependency.")
        ]


@pytest.fixture
async def stage():
    clock = ManualClock()
    async with open_gate(clock=clock) as gate:
        yield Stage(gate, clock, TERMS)


async def test_it_opens_after_so_many_failures_and_each_change_is_on_the_trail(stage):
    for _ in range(2):
        await stage.ends(GONE)
    await stage.ends()
    assert stage.state is BreakerState.CLOSED
    await stage.ends(GONE)
    assert stage.state is BreakerState.OPEN
    with pytest.raises(
        Unavailable, match=r"tool server `mail` has failed too often, and is left alone for 6 s"
    ) as refused:
        async with stage.dependency.attempt():
            pytest.fail("it went through")
    assert refused.value.code == "unavailable.circuit_open"
    assert refused.value.fields["retry_after_s"] == 6.0
    with pytest.raises(Unavailable):
        stage.dependency.check()
    stage.clock.advance(6.0)
    await stage.ends()
    assert stage.state is BreakerState.CLOSED
    assert [kind for kind, _ in stage.told()] == ["opened", "half_open", "closed"]
    assert stage.told()[0][1] == {
        "dependency": "mcp.servers.mail", "opened": 1, "open_ms": 6000, "error": "unavailable.tool_server",
    }  # fmt: skip
    counted = {
        (s.metric, dict(s.labels).get("state", dict(s.labels).get("reason"))): s.count for s in stage.metrics.snapshot()
    }
    assert counted == {
        (DEPENDENCY_CHANGES, "open"): 1, (DEPENDENCY_CHANGES, "half_open"): 1, (DEPENDENCY_CHANGES, "closed"): 1,
        (DEPENDENCY_REFUSALS, "circuit_open"): 2,
    }  # fmt: skip


async def test_failures_that_are_long_ago_do_not_count(stage):
    for _ in range(10):
        await stage.ends(GONE)
        stage.clock.advance(20.0)
    assert stage.state is BreakerState.CLOSED


@pytest.mark.parametrize("error", [GONE, TimeLimit("late"), ToolFailed("no answer", code=PROTOCOL_FAILURE)], ids=str)
async def test_what_speaks_against_the_other_side_counts(stage, error):
    for _ in range(3):
        await stage.ends(error)
    assert stage.state is BreakerState.OPEN


@pytest.mark.parametrize(
    "error",
    [
        ToolFailed("the tool says no"), PolicyDenied("no"), InputError("odd"), EffectInDoubt("who knows"), StoreUnavailable("ours"),
        Overloaded("too much", retry_after_s=1.0), ValueError("a defect"),
    ],
    ids=str,
)  # fmt: skip
async def test_what_does_not_speak_against_it_does_not_count(stage, error):
    for _ in range(20):
        await stage.ends(error)
    assert stage.state is BreakerState.CLOSED


async def test_one_call_at_a_time_tries_it(stage):
    await stage.half_open()
    async with stage.dependency.attempt():
        assert stage.state is BreakerState.HALF_OPEN
        for _ in range(5):
            with pytest.raises(Unavailable, match="left alone"):
                async with stage.dependency.attempt():
                    pytest.fail("a second one went through")
    assert stage.state is BreakerState.CLOSED


async def test_each_time_it_stays_open_for_twice_as_long_up_to_a_bound(stage):
    await stage.open()
    seen = []
    for _ in range(10):
        seen.append(stage.dependency.status.retry_after_s)
        stage.clock.advance(seen[-1])
        await stage.ends(GONE)
    assert seen == pytest.approx([6, 12, 24, 48, 96, 192, 225, 225, 225, 225])


@pytest.mark.parametrize("how", ["cancelled", "defect", "denied"])
async def test_a_try_that_tells_nothing_leaves_the_next_one_its_turn(stage, how):
    await stage.half_open()
    for _ in range(5):
        if how == "cancelled":
            with anyio.CancelScope() as scope:
                async with stage.dependency.attempt():
                    scope.cancel()
                    await anyio.lowlevel.checkpoint()
        else:
            await stage.ends(ValueError("x") if how == "defect" else PolicyDenied("no"))
        assert stage.state is BreakerState.HALF_OPEN
    await stage.ends()
    assert stage.state is BreakerState.CLOSED


async def test_what_began_before_it_opened_neither_closes_nor_opens_it(stage):
    await stage.ends(GONE)
    await stage.ends(GONE)
    async with stage.dependency.attempt():
        await stage.ends(GONE)
        assert stage.state is BreakerState.OPEN
    assert stage.state is BreakerState.OPEN
    assert len(stage.told()) == 1


async def test_failures_of_calls_from_before_do_not_open_it_again(stage):
    async with AsyncExitStack() as calls:
        for _ in range(5):
            calls.push_async_exit(await _begun(stage))
        await stage.open()
        stage.clock.advance(100)
        await stage.ends()
        assert stage.state is BreakerState.CLOSED
    assert stage.state is BreakerState.CLOSED
    assert [kind for kind, _ in stage.told()] == ["opened", "half_open", "closed"]


async def _begun(stage):
    """A call that is at work, and fails when its stack is left."""
    attempt = stage.dependency.attempt()
    await attempt.__aenter__()

    async def fail(*_how):
        with suppress(ToolServerUnavailable):
            await attempt.__aexit__(ToolServerUnavailable, ToolServerUnavailable("gone"), None)

    return fail


async def test_a_start_alone_does_not_show_that_it_is_well(stage):
    await stage.half_open()
    await stage.ends(proves=False)
    assert stage.state is BreakerState.HALF_OPEN
    await stage.ends(GONE, proves=False)
    assert stage.state is BreakerState.OPEN


async def test_a_change_that_cannot_be_recorded_lets_nothing_through(stage, monkeypatch):
    await stage.half_open()

    async def fails(*_arguments, **_options):
        raise StoreUnavailable("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(stage.gate.log, "transact", fails)
        with pytest.raises(StoreUnavailable):
            async with stage.dependency.attempt():
                pytest.fail("it went through unrecorded")
    await stage.ends()
    assert stage.state is BreakerState.CLOSED


# --- the bulkhead --------------------------------------------------------------------------------


async def test_so_many_at_a_time_so_many_wait_in_their_order_and_the_rest_is_refused(stage):
    done, refused, most, go = [], [], [0], anyio.Event()

    async def call(number):
        try:
            async with stage.dependency.seat():
                most[0] = max(most[0], stage.dependency.status.calls)
                await go.wait()
                done.append(number)
        except Overloaded as error:
            refused.append((number, error.retry_after_s))

    async with anyio.create_task_group() as tasks:
        for number in range(9):
            tasks.start_soon(call, number)
        while len(refused) < 4:
            await anyio.lowlevel.checkpoint()
        assert (stage.dependency.status.calls, stage.dependency.status.waiting) == (2, 3)
        go.set()
    assert done == [0, 1, 2, 3, 4]
    assert refused == [(number, 60.0) for number in range(5, 9)]
    assert most == [2]
    assert (stage.dependency.status.calls, stage.dependency.status.waiting) == (0, 0)


async def test_nobody_waits_longer_than_may_be_and_who_goes_away_takes_no_place(stage):
    terms = DependencyTerms(1, 1, 0.01, BreakerTerms())
    dependency = Dependency("d", "it", terms, stage.clock, stage.gate.log, stage.metrics)
    async with dependency.seat():
        with pytest.raises(Overloaded, match=r"no call to it came free within 0.01 s"):
            await dependency.take_seat(object())
        for _ in range(5):
            with anyio.move_on_after(0) as scope:
                await dependency.take_seat(object())
            assert scope.cancelled_caught
    async with dependency.seat():
        assert dependency.status.calls == 1


async def test_none_may_wait_where_the_configuration_says_so(stage):
    dependency = Dependency("d", "it", DependencyTerms(1, 0, 60.0), stage.clock, stage.gate.log, stage.metrics)
    async with dependency.seat():
        with pytest.raises(Overloaded):
            await dependency.take_seat(object())
    async with dependency.seat():
        pass
