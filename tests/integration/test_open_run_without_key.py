"""An open run whose history cannot be opened now: a missing master key is no erasure."""

import anyio
import pytest

from symbi.agent.journal import RunState
from symbi.errors import ConfigError, InputError
from symbi.runtime import errands
from symbi.runtime.course import Order
from symbi.testing.runtime import open_in

pytestmark = pytest.mark.anyio

LOOPS = 'agent worker(n: int) { with sandbox = interpreter { for i in range(100000) { log("on"); } } }\n'
CONFIG = '[agents.worker]\nmode = "persistent"\n'
HALF_MINUTE = 30


async def until(condition):
    with anyio.fail_after(HALF_MINUTE):
        while not condition():
            await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (ConfigError("another master", code="config.master_key"), RunState.RUNNING),
        (InputError("was erased", code="run.erased"), RunState.FAILED),
    ],
)
async def test_only_what_was_erased_ends_an_open_run(tmp_path, monkeypatch, error, state):
    lines, asked = [], []

    def refuses(*_args):
        asked.append(1)
        raise error

    def opening():
        return open_in(
            tmp_path,
            LOOPS,
            config=CONFIG,
            policies="permit (principal, action, resource);",
            emit=lambda _who, text: lines.append(text),
        )

    async with opening() as first, anyio.create_task_group() as tasks:
        first.runtime.roster.declare(first.compiled)
        await first.runtime.spawn(Order(first.compiled, first.compiled.agents[0]), [""])
        message = await first.runtime.send("worker", {"n": 1})
        tasks.start_soon(first.runtime.carry_out_messages)
        await until(lambda: lines)
        tasks.cancel_scope.cancel()
    monkeypatch.setattr(errands, "opened_history", refuses)
    async with opening() as again:
        again.runtime.roster.declare(again.compiled)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(again.runtime.carry_out_messages)
            await until(lambda: len(asked) > 1 or again.runtime.dispatch.done)
            tasks.cancel_scope.cancel()
        log, runs = again.runtime.rooms.world.log, again.runtime.rooms.runs
        assert (await log.read(lambda: runs.get_run(message))).state is state
