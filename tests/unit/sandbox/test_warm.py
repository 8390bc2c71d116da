"""Sandboxes that are kept ready: bounded, looked at, for one use each."""

import itertools
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel
import pytest

from symbi.errors import SandboxUnavailable
from symbi.sandbox.warm import MAX_AGE_S, WarmPool
from symbi.testing.clock import ManualClock

pytestmark = pytest.mark.anyio


class Box:
    def __init__(self, key, number):
        self.key, self.number = key, number
        self.fit = True


class World:
    """Starts and ends boxes, and remembers."""

    def __init__(self, size, first="a"):
        self.clock = ManualClock()
        self.numbers = itertools.count()
        self.alive, self.most, self.failures, self.pauses = set(), 0, 0, []
        self.pool = WarmPool(
            self.start, self.is_fit, size=size, first=first, clock=self.clock, pause=self.pause
        )  # fmt: skip
        self.look = anyio.Event()

    @asynccontextmanager
    async def start(self, key):
        await anyio.lowlevel.checkpoint()
        if self.failures:
            self.failures -= 1
            raise SandboxUnavailable("no engine")
        box = Box(key, next(self.numbers))
        self.alive.add(box)
        self.most = max(self.most, len(self.alive))
        try:
            yield box
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.lowlevel.checkpoint()
            self.alive.remove(box)

    async def is_fit(self, box):
        await anyio.lowlevel.checkpoint()
        return box.fit

    async def pause(self, seconds, until):
        self.pauses.append(seconds)
        if seconds < 30:  # a rest
            await anyio.lowlevel.checkpoint()
            return
        self.look = until
        await until.wait()

    def take(self, key):
        return self.pool.take(key, lambda: self.start(key))

    async def settle(self):
        await anyio.wait_all_tasks_blocked()


async def test_what_was_started_before_is_taken_and_replaced_and_each_is_used_once():
    world = World(2)
    async with world.pool:
        await world.settle()
        assert world.pool.waiting == 2
        used = []
        for _ in range(20):
            async with world.take("a") as (box, warm):
                assert warm
                assert box in world.alive
                used.append(box.number)
            assert box not in world.alive
            await world.settle()
        assert len(set(used)) == 20
        assert world.pool.waiting == 2
    assert not world.alive
    assert world.most <= 3  # those that wait, and the one in use


async def test_without_a_size_each_is_started_for_its_use():
    world = World(0)
    async with world.pool:
        async with world.take("a") as (_, warm):
            assert not warm
        await world.settle()
        assert world.pool.waiting == 0
        assert not world.alive


async def test_a_kind_never_stands_in_for_another_and_what_is_kept_follows_what_is_asked_for():
    world = World(2)
    async with world.pool:
        await world.settle()
        for warm_now in (False, True, True):
            async with world.take("b") as (box, warm):
                assert (box.key, warm) == ("b", warm_now)
            await world.settle()
        assert [one.key for one in world.pool._waiting] == ["b", "b"]
        assert world.pool.waiting == len(world.alive) == 2


async def test_one_that_died_while_it_waited_is_not_handed_out():
    world = World(2)
    async with world.pool:
        await world.settle()
        dead = world.pool._waiting[0].sandbox
        dead.fit = False
        async with world.take("a") as (box, warm):
            assert warm
            assert box is not dead
            assert dead not in world.alive


async def test_one_that_has_waited_too_long_is_replaced_at_the_next_look():
    world = World(1)
    async with world.pool:
        await world.settle()
        old = world.pool._waiting[0].sandbox
        world.clock.advance(MAX_AGE_S + 1)
        world.look.set()
        await world.settle()
        assert world.pool.waiting == 1
        assert old not in world.alive


async def test_where_none_starts_the_pool_rests_and_tries_again_and_who_asks_is_told():
    world = World(1)
    world.failures = 3
    async with world.pool:
        with pytest.raises(SandboxUnavailable, match="no engine"):
            async with world.take("a"):
                raise AssertionError
        await world.settle()
        assert [seconds < 30 for seconds in world.pauses].count(True) == 2
        assert world.pool.waiting == 1


async def test_a_use_that_is_cancelled_or_fails_ends_its_sandbox():
    world = World(1)
    async with world.pool:
        await world.settle()
        with anyio.CancelScope() as scope:
            async with world.take("a"):
                scope.cancel()
                await anyio.lowlevel.checkpoint()
        await world.settle()
        with pytest.raises(ZeroDivisionError):
            async with world.take("a") as (_, warm):
                assert warm
                raise ZeroDivisionError
        await world.settle()
        assert len(world.alive) == world.pool.waiting == 1
    assert not world.alive


async def test_those_that_wait_end_with_a_pool_that_is_cancelled():
    world = World(3)
    with anyio.CancelScope() as scope:
        async with world.pool:
            await world.settle()
            assert len(world.alive) == 3
            scope.cancel()
            await anyio.lowlevel.checkpoint()
    assert not world.alive


async def test_many_at_a_time_get_one_each():
    world = World(2)
    taken = []
    async with world.pool:
        await world.settle()

        async def one():
            async with world.take("a") as (box, _):
                taken.append(box.number)
                await anyio.lowlevel.checkpoint()

        async with anyio.create_task_group() as tasks:
            for _ in range(30):
                tasks.start_soon(one)
        await world.settle()
        assert world.pool.waiting == 2
    assert len(set(taken)) == 30
    assert not world.alive
