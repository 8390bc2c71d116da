"""What agents that wait take, whatever the machine: bytes of Python's heap for each, and no task, queue or timer."""

import asyncio
import gc
import tracemalloc

import pytest

from symbi.runtime.course import Order
from symbi.testing.runtime import open_in

pytestmark = pytest.mark.anyio

TEXT = "agent worker() { with sandbox = interpreter { 1 } }"
CONFIG = '[runtime]\nmax_living_agents = {living}\n[agents.worker]\nmode = "persistent"\n'
PERMIT = "permit (principal, action, resource);"
MANY = 3000
KIB = 1024


def owned():
    """Tasks and timers that there are."""
    timers = [one for one in asyncio.get_running_loop()._scheduled if not one.cancelled()]
    return len(asyncio.all_tasks()) + len(timers)


async def test_an_agent_that_waits_takes_less_than_four_kib_and_owns_no_task(tmp_path):
    async with open_in(tmp_path, TEXT, config=CONFIG.format(living=MANY * 2), policies=PERMIT) as opened:
        order = Order(opened.compiled, opened.compiled.agents[0])
        await opened.runtime.spawn(order, [f"first-{number}" for number in range(100)])
        before = owned()
        gc.collect()
        tracemalloc.start()
        try:
            names = await opened.runtime.spawn(order, [str(number) for number in range(MANY)])
            del names
            gc.collect()
            taken, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert opened.runtime.roster.living == MANY + 100
        assert owned() < before + MANY // 100
    assert taken / MANY < 4 * KIB


async def test_agents_that_are_known_and_passivated_take_no_memory(tmp_path):
    async with open_in(tmp_path, TEXT, config=CONFIG.format(living=50), policies=PERMIT) as opened:
        order = Order(opened.compiled, opened.compiled.agents[0])
        await opened.runtime.spawn(order, [f"first-{number}" for number in range(1000)])
        gc.collect()
        tracemalloc.start()
        try:
            await opened.runtime.spawn(order, [str(number) for number in range(MANY)])
            gc.collect()
            taken, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert opened.runtime.roster.living == 50
        assert sum(opened.runtime.roster.counts.values()) == MANY + 1000
    assert taken / MANY < 32
