"""Agents that came and went leave nothing: counted in objects, by ratio."""

import gc

import anyio
import pytest

from symbi.agent.journal import RunState
from symbi.runtime import usage
from symbi.testing.runtime import open_in

pytestmark = pytest.mark.anyio

AGENT = "agent brief() -> int { with sandbox = interpreter { log(1); 7 } }"
PERMIT = "permit (principal, action, resource);"
LIVES = 1000
AT_ONCE = 50
KNOWN = 100  # agents of which totals are kept


async def live(running, lives):
    """So many agents, each an instance of its own, and how many objects there are after them."""
    numbers = iter(range(lives))

    async def in_turn():
        for number in numbers:
            outcome = await running.runtime.run(running.compiled, running.compiled.agents[0], {}, instance=str(number))
            assert outcome.state is RunState.FINISHED

    async with anyio.create_task_group() as tasks:
        for _ in range(AT_ONCE):
            tasks.start_soon(in_turn)
    gc.unfreeze()
    gc.collect()
    return len(gc.get_objects())


async def test_agents_that_were_created_and_ended_leave_no_objects(tmp_path, monkeypatch):
    monkeypatch.setattr(usage, "MAX_KNOWN", KNOWN)  # else totals of those that are new are kept, one object each
    async with open_in(
        tmp_path, AGENT, policies=PERMIT, config="[limits]\nmemory_mb = 100000\ncpu_cores = 1000.0\n"
    ) as running:
        assert not gc.isenabled()  # the runtime's own collector is in charge
        await live(running, 2 * KNOWN)  # caches and totals have their size from here on
        before = await live(running, 20)
        after = await live(running, LIVES)
        assert running.runtime.at_work == ()
    assert gc.isenabled()
    assert after - before < LIVES  # less than one object each, where each makes thousands
