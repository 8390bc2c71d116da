"""What operators do just as an agent begins with a message: it holds, and the message is neither lost nor begun."""

from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel
import pytest

from symbi.errors import StoreUnavailable, ToolServerUnavailable
from symbi.policy.engine import PolicySource
from symbi.policy.policies import PolicySet
from symbi.runtime.course import Order
from symbi.runtime.lifecycle import AgentState
from symbi.runtime.population import Population
from symbi.testing.clock import ManualClock
from symbi.testing.runtime import open_in

pytestmark = pytest.mark.anyio

PERMIT = "permit (principal, action, resource);"
WORKER = 'agent worker(n: int) { with sandbox = interpreter { log(format("{}", n)); n } }\n'
CONFIG = '[agents.worker]\nmode = "persistent"\n[limits]\nmemory_mb = 100000\ncpu_cores = 100.0\n'


class Stage:
    """An open runtime with agents that have one message each."""

    def __init__(self, runtime, said):
        self.runtime, self.said, self.population = runtime, said, Population(runtime)

    async def until(self, condition):
        with anyio.fail_after(30):
            while not condition():
                await anyio.lowlevel.checkpoint()

    async def state(self, agent):
        rooms = self.runtime.rooms
        return (await rooms.world.log.read(lambda: rooms.agents.get_agent(agent))).state

    def meanwhile(self, work):
        """Once a message was looked for, and before its run is anybody's to stop."""
        errands, look = self.runtime.errands, self.runtime.errands._next

        async def looked(living):
            errand = await look(living)
            errands._next = look
            await work()
            return errand

        errands._next = looked

    @asynccontextmanager
    async def at_work(self):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.runtime.carry_out_messages)
            yield
            self.runtime.dispatch.stop(self.runtime.at_work)

    async def nothing_begins(self):
        for _ in range(50):
            self.runtime.dispatch.wake()
            await anyio.lowlevel.checkpoint()
        await self.until(lambda: self.runtime.dispatch.busy == 0)
        assert self.said == []


@asynccontextmanager
async def staged(folder, *instances, text=WORKER, config=CONFIG, policies=PERMIT):
    said = []
    async with open_in(folder, text, config=config, policies=policies, emit=lambda *line: said.append(line)) as opened:
        order = Order(opened.compiled, opened.compiled.agents[0])
        names = await opened.runtime.spawn(order, instances)
        for number, name in enumerate(names):
            await opened.runtime.send(name, {"n": number})
        yield Stage(opened.runtime, said)


async def test_what_was_about_to_begin_when_everything_was_stopped_does_not_and_waits(tmp_path):
    async with staged(tmp_path, "0") as it:
        stopped = anyio.Event()

        async def stop_all():
            await it.population.stop_all("ada")
            stopped.set()

        it.meanwhile(stop_all)
        async with it.at_work():
            with anyio.fail_after(30):
                await stopped.wait()
            await it.nothing_begins()
            await it.population.go_on()
            await it.until(lambda: it.said == [("worker/0", "0")])


async def test_messages_whose_agents_waited_for_a_turn_when_everything_was_stopped_are_carried_out_later(tmp_path):
    """Their places in the order were passed by then: nothing but this tells that they are there."""
    config = CONFIG.replace("cpu_cores = 100.0", "cpu_cores = 0.1")  # one at a time
    async with staged(tmp_path, "0", "1", "2", config=config) as it:
        turns, free = it.runtime.errands._course.turns, anyio.Event()
        take = turns.take

        async def taken(*args):
            await free.wait()
            return await take(*args)

        turns.take = taken
        async with it.at_work():
            await it.until(lambda: len(it.runtime.at_work) == 3)
            await it.population.stop_all("ada")
            free.set()
            await it.nothing_begins()
            await it.population.go_on()
            await it.until(lambda: len(it.said) == 3)


async def test_who_is_suspended_as_it_was_about_to_begin_does_not(tmp_path):
    async with staged(tmp_path, "0") as it:
        it.meanwhile(lambda: it.population.suspend("worker/0", "ada"))
        async with it.at_work():
            await it.until(lambda: it.runtime.roster.counts.get(AgentState.SUSPENDED) == 1)
            await it.nothing_begins()
            assert await it.state("worker/0") is AgentState.SUSPENDED
            await it.population.resume("worker/0", "ada")
            await it.until(lambda: it.said == [("worker/0", "0")])


async def test_who_is_suspended_before_it_has_a_seat_has_no_effect(tmp_path):
    async with staged(tmp_path, "0") as it:
        turns, free = it.runtime.errands._course.turns, anyio.Event()
        take = turns.take

        async def taken(*args):
            await free.wait()
            return await take(*args)

        turns.take = taken
        async with it.at_work():
            await it.until(lambda: len(it.runtime.at_work) == 1)
            await it.population.suspend("worker/0", "ada")
            free.set()
            await it.until(lambda: it.runtime.roster.living and it.runtime.at_work[0].life.state.value == "Suspended")
            assert it.said == []
            await it.population.resume("worker/0", "ada")
            await it.until(lambda: it.said == [("worker/0", "0")])


async def test_who_is_suspended_after_its_last_effect_begins_with_no_other_message(tmp_path):
    async with staged(tmp_path, "0") as it:
        later = await it.runtime.send("worker/0", {"n": 1})
        async with it.at_work():
            await it.until(lambda: it.said == [("worker/0", "0")])
            await it.population.suspend("worker/0", "ada")  # its run has nothing left that it could stop before
            await it.until(lambda: it.runtime.dispatch.busy == 0)
            assert await it.state("worker/0") is AgentState.SUSPENDED
            for _ in range(50):
                it.runtime.dispatch.wake()
                await anyio.lowlevel.checkpoint()
            assert len(it.said) == 1
            rooms = it.runtime.rooms
            assert await rooms.world.log.read(lambda: rooms.runs.get_run(later)) is None
            await it.population.resume("worker/0", "ada")
            await it.until(lambda: len(it.said) == 2)


@pytest.mark.parametrize("instance", ["", "0"])
async def test_a_message_waits_while_its_agent_cannot_be_brought_to_life(tmp_path, instance):
    async with staged(tmp_path, instance):
        pass
    said, clock = [], ManualClock()
    emit = lambda *line: said.append(line)  # noqa: E731 - of this runtime alone
    async with open_in(tmp_path, WORKER, config=CONFIG, policies=PERMIT, emit=emit, clock=clock) as opened:
        runtime = opened.runtime
        runtime.roster.declare(opened.compiled)
        create, asked = runtime.roster._create, []

        async def created(kind, count):
            asked.append(count)
            if len(asked) < 3:
                raise ToolServerUnavailable("it is not there yet", retry_after_s=1.0)
            return await create(kind, count)

        runtime.roster._create = created
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(runtime.carry_out_messages)
            with anyio.fail_after(20):
                while not said:
                    await anyio.wait_all_tasks_blocked()
                    if len(asked) < 3:
                        clock.advance(31)
                        runtime.dispatch.wake()
            runtime.dispatch.stop()
        assert len(asked) == 3


async def test_an_agent_that_has_moved_though_nobody_was_told_is_looked_at_again(tmp_path):
    """A commit that took too long is over all the same: what is in memory is not how the agent stands."""
    async with staged(tmp_path, "0") as it:
        log = it.runtime.rooms.world.log
        transact = log.transact

        async def unknown(work, **more):
            await transact(work, **more)
            log.transact = transact
            raise StoreUnavailable("the store did not commit in time")

        log.transact = unknown
        with pytest.raises(StoreUnavailable):
            await it.population.suspend("worker/0", "ada")
        async with it.at_work():
            await it.nothing_begins()
            await it.population.resume("worker/0", "ada")
            await it.until(lambda: it.said == [("worker/0", "0")])


async def test_an_agent_that_was_moved_behind_our_back_is_looked_at_again_before_it_begins(tmp_path):
    async with staged(tmp_path, "0") as it:
        rooms, roster = it.runtime.rooms, it.runtime.roster
        moved = roster.moving(await roster.find("worker/0"), AgentState.READY, 2)
        await rooms.world.log.transact(lambda: (roster.write(moved), ()))
        async with it.at_work():
            await it.until(lambda: it.said == [("worker/0", "0")])


async def test_who_an_operator_and_a_policy_have_suspended_does_not_go_on_by_another_policy_alone(tmp_path):
    quiet = PERMIT + '@id("quiet") forbid (principal, action == Action::"WriteLog", resource);'
    async with staged(tmp_path, "0", policies=quiet) as it:
        errands, engine = it.runtime.errands, it.runtime.guard.engine
        leave = errands._leave

        def left(errand, one, error):  # the operator is there between the refusal and the end
            one.suspended_by = "ada"
            leave(errand, one, error)

        errands._leave = left
        async with it.at_work():
            await it.until(lambda: it.runtime.roster.counts.get(AgentState.SUSPENDED) == 1)
            errands._leave = leave
            sources = [PolicySource(s.file, PERMIT) if s.text == quiet else s for s in engine.current.sources]
            engine.replace(PolicySet.load(sources, engine.current.compiled, engine.current.tools))
            await it.nothing_begins()
            await it.population.resume("worker/0", "ada")
            await it.until(lambda: it.said == [("worker/0", "0")])
