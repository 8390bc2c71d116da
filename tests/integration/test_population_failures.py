"""What goes wrong in messages to agents that stay: tried again after a wait, given up after a crash loop, begun anew by hand."""

from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel
import pytest

from symbi.adapters.sqlite import SqliteReader
from symbi.agent.journal import RunState
from symbi.agent.remedies import RESTARTS
from symbi.audit.event import AuditEventType, parse_event
from symbi.errors import InputError, ToolFailed
from symbi.runtime.course import Order
from symbi.runtime.host import Host
from symbi.runtime.lifecycle import AgentState
from symbi.runtime.population import Population
from symbi.testing.clock import ManualClock
from symbi.testing.runtime import open_in

pytestmark = pytest.mark.anyio

PERMIT = "permit (principal, action, resource);"
WORKER = 'agent worker(n: int) { with sandbox = interpreter { log(format("{}", n)); n } }\n'
CONFIG = '[agents.worker]\nmode = "persistent"\n[limits]\nmemory_mb = 100000\ncpu_cores = 100.0\n'
LONGEST_S = 61.0


class Stage:
    """An open runtime whose agents fail to log what is among `bad`."""

    def __init__(self, opened, clock, said, bad):
        self.runtime, self.clock, self.said, self.bad = opened.runtime, clock, said, bad
        self.compiled, self.order = opened.compiled, Order(opened.compiled, opened.compiled.agents[0])

    async def until(self, condition):
        with anyio.fail_after(30):
            while not condition():
                await anyio.lowlevel.checkpoint()

    async def look(self):
        """Return when all is done that can be done now."""
        looks = self.runtime.dispatch.looks
        self.runtime.dispatch.wake()
        await self.until(lambda: self.runtime.dispatch.looks > looks and not self.runtime.dispatch.busy)

    async def agent(self, name):
        agents = self.runtime.rooms.agents
        return await self.runtime.rooms.world.log.read(lambda: agents.get_agent(name))

    async def run_of(self, message):
        runs = self.runtime.rooms.runs
        return await self.runtime.rooms.world.log.read(lambda: runs.get_run(message))


@asynccontextmanager
async def staged(folder, agents=WORKER, config=CONFIG, policies=PERMIT):
    clock, said, bad = ManualClock(), [], set()

    def emit(agent, line):
        if line in bad:
            raise ToolFailed("it says no")
        said.append((agent, line))

    async with open_in(folder, agents, config=config, policies=policies, clock=clock, emit=emit) as opened:
        stage = Stage(opened, clock, said, bad)
        stage.runtime.roster.declare(opened.compiled)
        yield stage


def events(folder, kind):
    with SqliteReader(folder / ".symbi") as reader:
        found = [parse_event(stored.record) for stored in reader.read(1)]
    return [event for event in found if event.event_type == kind]


async def test_a_message_that_fails_is_tried_again_before_the_next_and_keeps_no_other_agent_waiting(tmp_path):
    async with staged(tmp_path) as it:
        await it.runtime.spawn(it.order, ("a", "b"))
        it.bad.add("1")
        first = await it.runtime.send("worker/a", {"n": 1})
        for name, number in (("worker/a", 2), ("worker/b", 3)):
            await it.runtime.send(name, {"n": number})
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(it.runtime.carry_out_messages)
            await it.until(lambda: it.said == [("worker/b", "3")])
            await it.look()
            assert (await it.run_of(first)).state is RunState.HELD
            assert (await it.agent("worker/a")).state is AgentState.READY
            await it.runtime.send("worker/a", {"n": 4})  # which does not make it go on any sooner
            await it.look()
            assert it.said == [("worker/b", "3")]
            it.bad.clear()
            it.clock.advance(LONGEST_S)
            it.runtime.dispatch.wake()
            await it.until(lambda: it.runtime.dispatch.idle)
            it.runtime.dispatch.stop(it.runtime.at_work)
        assert [line for who, line in it.said if who == "worker/a"] == ["1", "2", "4"]
        assert (await it.run_of(first)).state is RunState.FINISHED


async def test_a_crash_loop_ends_the_agent_and_who_makes_it_anew_has_it_go_on_with_the_next_message(tmp_path, caplog):
    async with staged(tmp_path) as it:
        await it.runtime.spawn(it.order)
        it.bad.add("1")
        sent = [await it.runtime.send("worker", {"n": number}) for number in (1, 2)]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(it.runtime.carry_out_messages)
            for tries in range(1, RESTARTS.attempts + 2):
                await it.until(lambda tries=tries: not it.runtime.dispatch.busy and it.runtime.dispatch.tried == tries)
                it.clock.advance(LONGEST_S)
                it.runtime.dispatch.wake()
            await it.until(lambda: it.runtime.dispatch.done == 1)
            failed = await it.agent("worker")
            assert (failed.state, failed.reason) == (AgentState.FAILED, "Crash Loop: agent.tool")
            assert (await it.run_of(sent[0])).state is RunState.FAILED
            letter = await it.runtime.letters.opened(sent[0])
            assert (letter.code, letter.attempts) == ("agent.tool", RESTARTS.attempts + 1)
            with pytest.raises(InputError, match="Failed and takes no messages"):
                await it.runtime.send("worker", {"n": 3})
            await it.runtime.spawn(it.order)
            await it.until(lambda: it.said == [("worker", "2")])
            # What was given up is begun anew as a message, behind those that there are.
            it.bad.clear()
            begun = await it.runtime.replay(it.compiled, sent[0], "ada")
            assert begun.record is None
            await it.until(lambda: it.said == [("worker", "2"), ("worker", "1")])
            await it.until(lambda: it.runtime.dispatch.idle)
            it.runtime.dispatch.stop(it.runtime.at_work)
        assert (await it.run_of(begun.run_id)).state is RunState.FINISHED
    loops = [e for e in events(tmp_path, AuditEventType.AGENT_TRANSITION) if e.details["event"] == "Crash Loop"]
    assert [(event.agent_id, event.details["tries"]) for event in loops] == [("worker", RESTARTS.attempts + 1)]
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert f"agent `worker` is Failed with message `{sent[0]}`: agent.tool" in told
    assert f"message `{sent[0]}` for agent `worker` is a dead letter: agent.tool" in told


OFTEN = """agent worker(n: int) { with sandbox = interpreter, timeout = 600.seconds {
    for one in [1, 2, 3, 4, 5, 6] { log(format("{}", one)); }
    n
} }
"""
RATED = """
@id("rated") @rate("1/60s") permit (principal, action == Action::"WriteLog", resource);
permit (principal, action, resource) unless { action == Action::"WriteLog" };
"""


async def test_a_message_whose_run_is_held_again_and_again_and_gets_further_is_in_no_crash_loop(tmp_path, monkeypatch):
    monkeypatch.setattr("symbi.runtime.errands.MAX_BEGINNINGS", 2)
    async with staged(tmp_path, OFTEN, policies=RATED) as it:
        await it.runtime.spawn(it.order)
        sent = await it.runtime.send("worker", {"n": 7})
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(it.runtime.carry_out_messages)
            for tries in range(1, 7):
                await it.until(lambda tries=tries: not it.runtime.dispatch.busy and it.runtime.dispatch.tried == tries)
                it.clock.advance(LONGEST_S)
                it.runtime.dispatch.wake()
            await it.until(lambda: it.runtime.dispatch.done == 1)
            it.runtime.dispatch.stop(it.runtime.at_work)
        assert (await it.run_of(sent)).state is RunState.FINISHED
    assert [line for _, line in it.said] == ["1", "2", "3", "4", "5", "6"]


SCHEDULED = """
agent worker { with sandbox = interpreter { log("ran"); 1 } }
schedule hourly { cron = "0 * * * *" agent = worker }
"""


async def test_a_schedule_sends_an_agent_that_stays_a_message_each_time(tmp_path):
    async with staged(tmp_path, SCHEDULED) as it:
        host = Host(it.runtime, [it.compiled])
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(host.run)
            await it.until(lambda: host.looks > 0)
            assert (await it.agent("worker")).state is AgentState.READY  # made by being declared to stay
            for times in (1, 2):
                it.clock.advance(3600)
                host.wake()
                await it.until(lambda times=times: len(it.said) == times)
            await it.until(lambda: it.runtime.dispatch.idle and not host.at_work)
            host.stop()
    due = events(tmp_path, AuditEventType.SCHEDULE_DUE)
    ended = events(tmp_path, AuditEventType.RUN_FINISHED)
    assert [event.run_id for event in due] == [event.run_id for event in ended]
    started = events(tmp_path, AuditEventType.RUN_STARTED)
    assert {event.details["by"] for event in started} == {"schedule hourly"}


@pytest.mark.parametrize("kept", ["_busy", "_resting"])
async def test_who_is_at_work_or_rests_is_not_begun_again_and_is_asked_when_that_is_over(tmp_path, kept):
    async with staged(tmp_path) as it:
        await it.runtime.spawn(it.order, ("a", "b"))
        dispatch, kind = it.runtime.dispatch, it.runtime.roster.kind_of("worker")
        lane = dispatch._lane(kind)
        lane.found.extend(["worker/a", "worker/b"])
        lane.again["worker/a"] = None
        lane.dry = True
        getattr(dispatch, kept).add("worker/a")
        assert [await dispatch._next(lane), await dispatch._next(lane)] == ["worker/b", None]
        assert lane.more == {"worker/a"}


PLAIN = """
agent plain { with sandbox = interpreter { log("ran"); 1 } }
schedule hourly { cron = "0 * * * *" agent = plain }
"""


async def test_what_an_earlier_process_had_claimed_waits_while_everything_is_stopped(tmp_path):
    async with staged(tmp_path, PLAIN, "") as it:
        host = Host(it.runtime, [it.compiled])
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(host.run)
            await it.until(lambda: host.looks > 0)
            it.bad.add("ran")
            it.clock.advance(3600)
            host.wake()
            await it.until(lambda: it.runtime.rests.all)  # its run is held, to be tried again
            tasks.cancel_scope.cancel()
        await it.runtime.roster.halt("ada")
    async with staged(tmp_path, PLAIN, "") as it:
        it.clock.advance(3600)
        host = Host(it.runtime, [it.compiled])
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(host.run)
            await it.until(lambda: host.looks > 0)
            it.clock.advance(3600)
            for _ in range(3):
                looks = host.looks
                host.wake()
                await it.until(lambda looks=looks: host.looks > looks)
            assert (it.said, host.at_work, it.runtime.at_work) == ([], set(), ())
            await Population(it.runtime).go_on()
            host.wake()
            await it.until(lambda: it.said and not host.at_work)
            host.stop()
        assert it.said == [("plain", "ran")]
    skipped = events(tmp_path, AuditEventType.SCHEDULE_SKIPPED)
    assert [event.details["reason"] for event in skipped] == ["`ada` has stopped everything"]


TWO = """
agent busy(n: int) { with sandbox = interpreter { log("busy"); n } }
agent rare(n: int) { with sandbox = interpreter { log("rare"); n } }
"""


async def test_no_declaration_keeps_another_out_by_its_numbers(tmp_path):
    stay = '[agents.busy]\nmode = "persistent"\n[agents.rare]\nmode = "persistent"\n'
    async with staged(tmp_path, TWO, f"{stay}[runtime]\nmax_concurrent_agents = 1\n") as it:
        for spec in it.compiled.agents:
            await it.runtime.spawn(Order(it.compiled, spec), [str(number) for number in range(10)])
        for number in range(10):
            await it.runtime.send(f"busy/{number}", {"n": 1})
        for number in range(3):
            await it.runtime.send(f"rare/{number}", {"n": 1})
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(it.runtime.carry_out_messages)
            await it.until(lambda: it.runtime.dispatch.idle)
            it.runtime.dispatch.stop(it.runtime.at_work)
        assert it.runtime.dispatch.most_tasks == 1
        order = [line for _, line in it.said]
        assert max(place for place, line in enumerate(order) if line == "rare") <= 2 * 3
        assert len(order) == 13
