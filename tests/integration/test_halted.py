"""The kill switch and what stands in a line behind what it stops: none of it begins until things may go on."""

from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel
import pytest

from symbi.agent.journal import RunState
from symbi.agent.task import NO_TASK
from symbi.errors import ToolFailed
from symbi.runtime.course import Order
from symbi.runtime.dead_letters import GivenUp, LetterKind, Payload
from symbi.runtime.host import Host
from symbi.runtime.population import Population
from symbi.runtime.supervision import Supervision, Work
from symbi.testing.runtime import open_in
from symbi.types import AgentId, RunId

pytestmark = pytest.mark.anyio

PERMIT = "permit (principal, action, resource);"
LOOPS = """
agent worker(n: int, times: int) { with sandbox = interpreter, timeout = 300.seconds {
    for i in range(times) { log(n); } n
} }
"""
CONFIG = "[limits]\nsteps = 1000000000\n"
GONE = ToolFailed("it failed", code="tool.failed")


@asynccontextmanager
async def hosted(folder):
    said = []
    async with open_in(folder, LOOPS, config=CONFIG, policies=PERMIT, emit=lambda _, line: said.append(line)) as opened:
        host = Host(opened.runtime, [opened.compiled])
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(host.run)
            await until(lambda: host.looks)
            yield opened, host, said
            host.stop()


async def until(condition):
    with anyio.fail_after(60):
        while not condition():
            await anyio.lowlevel.checkpoint()


async def letter(opened, n, times):
    runtime = opened.runtime
    payload = Payload(AgentId("worker"), opened.compiled.file, {"n": n, "times": times}, NO_TASK)
    put = await runtime.letters.put(GivenUp(LetterKind.RUN, RunId(runtime.rooms.ids.new()), GONE, 1, payload))
    return await runtime.replay(opened.compiled, put.run_id, "ada")


async def states(opened, begun):
    runs = opened.runtime.rooms.runs
    return await opened.runtime.rooms.world.log.read(lambda: [runs.get_run(one.run_id).state for one in begun])


async def test_replays_behind_one_that_is_stopped_with_everything_wait_until_things_go_on(tmp_path):
    async with hosted(tmp_path) as (opened, host, said):
        begun = [await letter(opened, n, 100_000 if n == 0 else 1) for n in range(3)]
        assert all(opened.runtime.take_up(one) for one in begun)
        await until(lambda: said)
        population = Population(opened.runtime)
        assert await population.stop_all("ada") == [begun[0].run_id]
        looks = host.looks
        while host.looks < looks + 5:
            host.wake()
            await anyio.lowlevel.checkpoint()
        await until(lambda: not host.at_work)
        assert set(said) == {"0"}
        assert await states(opened, begun) == [RunState.FAILED, RunState.RUNNING, RunState.RUNNING]
        await population.go_on()
        host.wake()
        await until(lambda: said[-2:] == ["1", "2"] and not host.at_work)
        assert await states(opened, begun) == [RunState.FAILED, RunState.FINISHED, RunState.FINISHED]


async def test_what_was_about_to_begin_or_go_on_when_everything_was_stopped_has_failed_with_that(tmp_path):
    async with hosted(tmp_path) as (opened, _, said):
        runtime = opened.runtime
        await Population(runtime).stop_all("ada")
        spec = opened.compiled.agents[0]
        new = Work(opened.compiled, spec, RunId(runtime.rooms.ids.new()), {"n": 1, "times": 1})
        outcome = await Supervision(runtime).see_through(new)
        assert (outcome.state, outcome.error.code) == (RunState.FAILED, "agent.stopped")
        assert await runtime.rooms.world.log.read(lambda: runtime.rooms.runs.get_run(new.run_id)) is None
        open_one = await letter(opened, 2, 1)
        outcome = await Supervision(runtime).see_through(Work(opened.compiled, spec, open_one.run_id))
        assert (outcome.state, outcome.error.code) == (RunState.FAILED, "agent.stopped")
        assert await states(opened, [open_one]) == [RunState.FAILED]
        assert said == []


async def test_what_is_replayed_for_an_agent_whose_file_is_not_here_is_no_error_once_it_is_on_record(tmp_path):
    config = CONFIG + '[agents.worker]\nmode = "persistent"\n'
    async with open_in(tmp_path, LOOPS, config=config, policies=PERMIT) as opened:
        await opened.runtime.spawn(Order(opened.compiled, opened.compiled.agents[0]))
    async with open_in(tmp_path, LOOPS, config=config, policies=PERMIT) as opened:
        Host(opened.runtime, [])
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(opened.runtime.carry_out_messages)
            await anyio.wait_all_tasks_blocked()
            begun = await letter(opened, 1, 1)
            opened.runtime.dispatch.stop()
        kept = await opened.runtime.rooms.world.log.read(lambda: opened.runtime.rooms.mailbox.get_message(begun.run_id))
        assert kept.agent_id == "worker"
