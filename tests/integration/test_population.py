"""Agents that stay: made many at once, each with a mailbox, at work one message at a time, and gone when they are told to."""

import json
from contextlib import asynccontextmanager

import anyio
import pytest

from symbi.adapters.sqlite import SqliteReader
from symbi.agent.journal import RunState
from symbi.agent.task import Task
from symbi.audit.event import AuditEventType, parse_event
from symbi.errors import InputError, Overloaded, PolicyDenied
from symbi.runtime import dispatch as dispatching
from symbi.runtime.course import Order
from symbi.runtime.intake import When
from symbi.runtime.lifecycle import AgentState, Event
from symbi.runtime.population import Population
from symbi.testing.clock import ManualClock
from symbi.testing.runtime import open_in

pytestmark = pytest.mark.anyio

PERMIT = "permit (principal, action, resource);"
WORKER = 'agent worker(n: int) { with sandbox = interpreter { log(format("{}", n)); n + 1 } }\n'
CONFIG = '[agents.worker]\nmode = "persistent"\n[limits]\nmemory_mb = 100000\ncpu_cores = 1000.0\n'
HALF_MINUTE = 30


class Opened:
    """A runtime with agents that stay, and what they have logged."""

    def __init__(self, opened, lines):
        self.runtime, self.compiled, self.lines = opened.runtime, opened.compiled, lines
        self.population = Population(opened.runtime)
        self.order = Order(opened.compiled, opened.compiled.agents[0])
        self.runtime.roster.declare(opened.compiled)

    async def spawn(self, *instances):
        return await self.runtime.spawn(self.order, instances)

    async def read(self, query):
        return await self.runtime.rooms.world.log.read(query)

    async def run_of(self, message):
        return await self.read(lambda: self.runtime.rooms.runs.get_run(message))

    async def agent(self, name):
        return await self.read(lambda: self.runtime.rooms.agents.get_agent(name))

    async def until(self, condition):
        with anyio.fail_after(HALF_MINUTE):
            while not condition():
                await anyio.lowlevel.checkpoint()

    @asynccontextmanager
    async def at_work(self):
        """While messages are carried out."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.runtime.carry_out_messages)
            yield
            self.runtime.dispatch.stop(self.runtime.at_work)

    async def carry_out_all(self, count):
        async with self.at_work():
            await self.until(lambda: self.runtime.dispatch.done >= count and self.runtime.dispatch.idle)


@asynccontextmanager
async def opening(folder, agents=WORKER, *, config=CONFIG, policies=PERMIT, **more):
    lines = []
    async with open_in(
        folder, agents, config=config, policies=policies, emit=lambda who, text: lines.append((who, text)), **more
    ) as opened:
        yield Opened(opened, lines)


def events(folder, kind=None):
    with SqliteReader(folder / ".symbi") as reader:
        found = [parse_event(stored.record) for stored in reader.read(1)]
    return [event for event in found if kind in {None, event.event_type}]


def moves(folder, agent):
    told = [event for event in events(folder, AuditEventType.AGENT_TRANSITION) if event.agent_id == agent]
    return [(event.details["from"], event.details["to"]) for event in told]


# --- making them ------------------------------------------------------------------------------------


async def test_many_are_made_by_one_decision_and_one_event_names_them(tmp_path):
    async with opening(tmp_path) as it:
        names = await it.spawn(*[str(number) for number in range(100)])
        assert (names[0], names[-1], len(names)) == ("worker/0", "worker/99", 100)
        assert it.runtime.roster.counts == {AgentState.READY: 100}
        assert (await it.agent("worker/7")).state is AgentState.READY
    decisions = [e for e in events(tmp_path, AuditEventType.DECISION_ALLOW) if e.details["action"] == "CreateAgent"]
    assert [event.details["arguments"]["count"] for event in decisions] == [100]
    (made,) = events(tmp_path, AuditEventType.AGENT_TRANSITION)
    assert {name: made.details[name] for name in ("from", "to", "count", "first", "last")} == {
        "from": "Initializing", "to": "Ready", "count": 100, "first": "worker/0", "last": "worker/99",
    }  # fmt: skip


async def test_policy_bounds_how_many_are_made_at_once(tmp_path):
    few = (
        'forbid (principal, action == Action::"CreateAgent", resource) when { context has count && context.count > 5 };'
    )
    async with opening(tmp_path, policies=f"{PERMIT}\n{few}") as it:
        await it.spawn("a", "b", "c")
        with pytest.raises(PolicyDenied):
            await it.spawn(*[str(number) for number in range(6)])
        assert await it.agent("worker/0") is None
        assert it.runtime.roster.counts == {AgentState.READY: 3}


@pytest.mark.parametrize(
    ("instances", "match"),
    [
        (("a", "a"), "named twice"),
        (("a/b",), "no name of an instance"),
        (("x" * 65,), "no name of an instance"),
        ((), "0 agents cannot be made"),
        (("there",), "`worker/there` is there already"),
    ],
)
async def test_what_cannot_be_made_is_refused_and_nothing_is_made(tmp_path, instances, match):
    async with opening(tmp_path) as it:
        await it.spawn("there")
        with pytest.raises(InputError, match=match):
            await it.spawn(*instances)
        assert it.runtime.roster.counts == {AgentState.READY: 1}


async def test_an_agent_that_is_not_said_to_stay_does_not(tmp_path):
    async with opening(tmp_path, config="") as it:
        with pytest.raises(InputError, match="does not stay") as caught:
            await it.spawn("")
        assert "mode" in caught.value.hint


async def test_a_stale_move_is_refused_with_both_states_and_moves_nothing(tmp_path):
    async with opening(tmp_path) as it:
        await it.spawn("")
        living = await it.runtime.roster.find("worker")
        stale = it.runtime.roster.moving(living, AgentState.TERMINATED, 1)
        await it.runtime.roster.move(living, Event.OPERATOR_SUSPENDED, "ada")
        with pytest.raises(
            InputError, match="`Suspended` by its move 2, so that it cannot become `Terminated`"
        ) as caught:
            await it.runtime.rooms.world.log.transact(lambda: (it.runtime.roster.write(stale), ()))
        assert (caught.value.code, caught.value.fields["state"], caught.value.fields["wanted"]) == (
            "lifecycle.stale", "Suspended", "Terminated",
        )  # fmt: skip
        with pytest.raises(InputError, match="no longer `Ready`"):
            await it.runtime.roster.move(living, Event.SHUTDOWN, "bob", seen=AgentState.READY)
        assert (await it.agent("worker")).state is AgentState.SUSPENDED
    assert moves(tmp_path, "worker") == [("Initializing", "Ready"), ("Ready", "Suspended")]


# --- messages ---------------------------------------------------------------------------------------


async def test_each_agent_carries_out_its_messages_once_and_in_their_order(tmp_path):
    agents, each = 20, 5
    async with opening(tmp_path) as it:
        before = (await it.runtime.get_system_status()).free
        names = await it.spawn(*[str(number) for number in range(agents)])
        sent = [await it.runtime.send(name, {"n": number}) for number in range(each) for name in names]
        await it.carry_out_all(agents * each)
        for name in names:
            assert [text for who, text in it.lines if who == name] == [str(number) for number in range(each)]
        runs = [await it.run_of(message) for message in sent]
        assert {run.state for run in runs} == {RunState.FINISHED}
        assert sorted(json.loads(run.output) for run in runs) == sorted(n + 1 for n in range(each) for _ in names)
        assert it.runtime.dispatch.done == agents * each
        assert it.runtime.dispatch.idle
        assert (await it.runtime.get_system_status()).free == before
        assert it.runtime.roster.counts[AgentState.READY] == agents
        assert await it.read(lambda: it.runtime.rooms.mailbox.count_messages(names[0], 9)) == 0
    assert len(events(tmp_path, AuditEventType.RUN_FINISHED)) == agents * each
    assert moves(tmp_path, "worker/3") == [("Ready", "Running"), ("Running", "Ready")] * each


async def test_what_is_sent_while_agents_are_at_work_is_carried_out_too(tmp_path):
    async with opening(tmp_path) as it:
        names = await it.spawn("a", "b")
        async with it.at_work():
            for number in range(6):
                await it.runtime.send(names[number % 2], {"n": number})
            await it.until(lambda: it.runtime.dispatch.done == 6)
            await it.runtime.send("worker/a", {"n": 7})
            await it.until(lambda: it.runtime.dispatch.done == 7)
        assert [text for who, text in it.lines if who == "worker/a"] == ["0", "2", "4", "7"]


async def test_no_task_waits_for_each_agent_that_has_a_message(tmp_path, monkeypatch):
    monkeypatch.setattr(dispatching, "WINDOW", 8)
    monkeypatch.setattr(dispatching, "PAGE", 16)
    config = CONFIG.replace("cpu_cores = 1000.0", "cpu_cores = 0.2")  # two at a time
    async with opening(tmp_path, config=config) as it:
        names = await it.spawn(*[str(number) for number in range(120)])
        for name in names:
            await it.runtime.send(name, {"n": 1})
        await it.carry_out_all(len(names))
        assert it.runtime.dispatch.most_tasks <= 8 + 2
        assert sorted(who for who, _ in it.lines) == sorted(names)


async def test_a_full_mailbox_a_wrong_message_and_an_unknown_agent_are_refused_at_once(tmp_path):
    config = CONFIG.replace('mode = "persistent"', 'mode = "persistent"\nmax_messages = 2')
    async with opening(tmp_path, config=config) as it:
        await it.spawn("", "x")
        for _ in range(2):
            await it.runtime.send("worker", {"n": 1})
        with pytest.raises(Overloaded, match="2 messages wait for agent `worker` already") as caught:
            await it.runtime.send("worker", {"n": 1})
        assert caught.value.retry_after_s > 0
        await it.runtime.send("worker/x", {"n": 1})
        for inputs, match in (({"n": "1"}, "must be int"), ({}, "needs the input `n`"), ({"m": 1}, "no input `m`")):
            with pytest.raises(InputError, match=match):
                await it.runtime.send("worker/x", inputs)
        with pytest.raises(InputError, match="no agent `worker/y`"):
            await it.runtime.send("worker/y", {"n": 1})
        with pytest.raises(InputError, match="no agent `workr` is declared") as caught:
            await it.runtime.send("workr", {"n": 1})
        assert "worker" in caught.value.hint
        with pytest.raises(InputError, match="cannot wait for -1 s"):
            await it.runtime.send("worker/x", {"n": 1}, when=When(after_s=-1))


async def test_one_id_is_one_message_also_once_it_was_carried_out(tmp_path):
    async with opening(tmp_path) as it:
        await it.spawn("")
        first = await it.runtime.send("worker", {"n": 1})
        for _ in range(2):
            assert await it.runtime.mail.send("worker", {"n": 1}, sender="x", message_id=first) == first
        await it.carry_out_all(1)
    async with opening(tmp_path) as it:
        await it.runtime.mail.send("worker", {"n": 1}, sender="x", message_id=first)
        assert await it.read(lambda: it.runtime.rooms.mailbox.next_message("worker")) is None
        assert it.lines == []


async def test_a_later_message_wakes_its_agent_when_it_is_due_and_an_expired_one_is_given_up(tmp_path):
    clock = ManualClock()
    async with opening(tmp_path, clock=clock) as it:
        await it.spawn("")
        later = await it.runtime.send("worker", {"n": 1}, when=When(after_s=60))
        gone = await it.runtime.send("worker", {"n": 2}, when=When(after_s=90, expires_s=120))
        async with it.at_work():
            await it.runtime.send("worker", {"n": 3})
            await it.until(lambda: it.runtime.dispatch.done == 1)
            for seconds in (59, -3000, 3000):  # the wall clock may be set
                clock.set_ns(clock.now_ns() + seconds * 10**9)
                looks = it.runtime.dispatch.looks
                it.runtime.dispatch.wake()
                await it.until(lambda looks=looks: it.runtime.dispatch.looks > looks)
                assert await it.run_of(later) is None
            clock.set_ns(clock.now_ns() + 10**9)
            it.runtime.dispatch.wake()
            await it.until(lambda: it.runtime.dispatch.done == 2)
            clock.set_ns(clock.now_ns() + 70 * 10**9)  # nobody looked between its two times
            it.runtime.dispatch.wake()
            await it.until(lambda: it.runtime.dispatch.done == 3)
        assert [text for _, text in it.lines] == ["3", "1"]
        assert await it.run_of(gone) is None
        letter = await it.runtime.letters.opened(gone)
        assert (letter.code, letter.agent_id) == ("input.expired", "worker")
        assert json.loads(letter.inputs) == {"n": 2}


# --- memory -----------------------------------------------------------------------------------------


async def test_who_waits_longest_is_kept_in_the_store_alone_and_woken_by_a_message(tmp_path):
    clock = ManualClock()
    config = CONFIG.replace("[limits]", "idle_s = 60.0\n[runtime]\nmax_living_agents = 3\n[limits]")
    async with opening(tmp_path, config=config, clock=clock) as it:
        names = await it.spawn(*"abcde")
        assert it.runtime.roster.living == 3
        assert set(it.runtime.roster.kind_of("worker").living) == {"worker/c", "worker/d", "worker/e"}
        for name in names:
            await it.runtime.send(name, {"n": 1})
        await it.carry_out_all(5)
        assert sorted(who for who, _ in it.lines) == names
        assert it.runtime.roster.living == 3
        clock.advance(61)
        assert it.runtime.roster.passivate_idle() is None
        assert it.runtime.roster.living == 0
        assert it.runtime.roster.counts[AgentState.READY] == 5


# --- what fails -------------------------------------------------------------------------------------


async def test_a_message_that_fails_is_given_up_and_its_agent_goes_on(tmp_path):
    async with opening(tmp_path, "agent worker(n: int) { with sandbox = interpreter { 1 / n } }\n") as it:
        await it.spawn("")
        sent = [await it.runtime.send("worker", {"n": number}) for number in (0, 1)]
        await it.carry_out_all(2)
        runs = [await it.run_of(message) for message in sent]
        assert [run.state for run in runs] == [RunState.FAILED, RunState.FINISHED]
        assert (await it.agent("worker")).state is AgentState.READY
        letter = await it.runtime.letters.opened(sent[0])
        assert json.loads(letter.inputs) == {"n": 0}


async def test_a_denied_message_suspends_its_agent_and_goes_on_once_policy_lets_it(tmp_path):
    quiet = 'forbid (principal, action == Action::"WriteLog", resource);'
    async with opening(tmp_path, policies=f"{PERMIT}\n{quiet}") as it:
        await it.spawn("", "x")
        sent = [await it.runtime.send("worker", {"n": number}) for number in (1, 2)]
        async with it.at_work():
            await it.until(lambda: it.runtime.dispatch.done == 1)
            assert (await it.run_of(sent[0])).state is RunState.HELD
            standing = await it.population.standing("worker")
            assert (standing.record.state, standing.messages) == (AgentState.SUSPENDED, 2)
            assert standing.record.reason.startswith("Policy Violation")
            assert await it.run_of(sent[1]) is None
            (tmp_path / "policies" / "operator.cedar").write_text(PERMIT)
            await it.runtime.rooms.policy_files.use(await it.runtime.rooms.policy_files.read())
            await it.until(lambda: it.runtime.dispatch.done == 3)
        assert [(await it.run_of(message)).state for message in sent] == [RunState.FINISHED] * 2
        assert [text for _, text in it.lines] == ["1", "2"]
    assert ("Suspended", "Running") in moves(tmp_path, "worker")


# --- operators --------------------------------------------------------------------------------------


async def test_the_mailbox_of_a_suspended_agent_waits_also_over_a_restart(tmp_path):
    async with opening(tmp_path) as it:
        await it.spawn("", "other")
        await it.population.suspend("worker", "ada")
        with pytest.raises(InputError, match="suspended already"):
            await it.population.suspend("worker", "bob")
        await it.runtime.send("worker", {"n": 1})
        await it.runtime.send("worker/other", {"n": 2})
        await it.carry_out_all(1)
        assert it.lines == [("worker/other", "2")]
    async with opening(tmp_path) as it:
        async with it.at_work():
            await it.until(lambda: it.runtime.dispatch.idle)
            assert it.lines == []
            await it.population.resume("worker", "ada")
            await it.until(lambda: it.runtime.dispatch.done == 1)
        assert it.lines == [("worker", "1")]
        with pytest.raises(InputError, match="not suspended: it is Ready"):
            await it.population.resume("worker", "ada")


async def test_a_stopped_agent_is_gone_until_it_is_made_anew_and_takes_no_messages(tmp_path):
    async with opening(tmp_path) as it:
        await it.spawn("")
        await it.runtime.send("worker", {"n": 1})
        assert await it.population.stop("worker", "ada") == []
        with pytest.raises(InputError, match="Terminated and takes no messages"):
            await it.runtime.send("worker", {"n": 2})
        with pytest.raises(InputError, match="Terminated already"):
            await it.population.stop("worker", "ada")
        async with it.at_work():
            await it.until(lambda: it.runtime.dispatch.idle)
            assert it.lines == []
            await it.spawn("")
            await it.until(lambda: it.runtime.dispatch.done == 1)
        assert it.lines == [("worker", "1")]
        assert it.runtime.roster.counts == {AgentState.READY: 1, AgentState.TERMINATED: 0, AgentState.RUNNING: 0}


LOOPS = 'agent worker(n: int) { with sandbox = interpreter, timeout = 300.seconds { for i in range(3000) { log(format("{}", n)); } } }\n'
LONG = CONFIG.replace("[limits]", "[limits]\nsteps = 1000000000")


async def test_an_agent_at_work_is_stopped_for_good_and_its_message_is_with_the_dead_letters(tmp_path):
    async with opening(tmp_path, LOOPS, config=LONG) as it:
        names = await it.spawn("a", "b")
        sent = [await it.runtime.send(name, {"n": 1}) for name in names]
        async with it.at_work():
            await it.until(lambda: {who for who, _ in it.lines} == set(names))
            assert await it.population.stop("worker/a", "ada") == [sent[0]]
            assert (await it.agent("worker/a")).state is AgentState.TERMINATED
            assert (await it.run_of(sent[0])).state is RunState.FAILED
            assert (await it.runtime.letters.found(sent[0])).code == "agent.stopped"
            assert (await it.run_of(sent[1])).state is RunState.RUNNING
            await it.population.stop_all("ada")


async def test_the_kill_switch_leaves_nothing_that_goes_on_by_itself_also_after_a_restart(tmp_path):
    async with opening(tmp_path, LOOPS, config=LONG) as it:
        names = await it.spawn("a", "b")
        for name in names:
            for _ in range(2):
                await it.runtime.send(name, {"n": 1})
        before = (await it.runtime.get_system_status()).free
        async with it.at_work():
            await it.until(lambda: {who for who, _ in it.lines} == set(names))
            assert len(await it.population.stop_all("ada")) == 2
            for _ in range(50):
                it.runtime.dispatch.wake()
                await anyio.lowlevel.checkpoint()
            assert it.runtime.at_work == ()
            assert it.runtime.dispatch.busy == 0
        assert (await it.runtime.get_system_status()).free == before
        assert (await it.agent("worker/a")).state is AgentState.READY  # it stays, and does nothing
    async with opening(tmp_path, LOOPS.replace("range(3000)", "range(1)"), config=LONG) as it:
        assert it.runtime.roster.halted == "ada"
        async with it.at_work():
            for _ in range(50):
                it.runtime.dispatch.wake()
                await anyio.lowlevel.checkpoint()
            assert it.lines == []
            await it.population.go_on()
            await it.until(lambda: it.runtime.dispatch.done == 2)
        with pytest.raises(InputError, match="nobody has stopped everything"):
            await it.population.go_on()
    told = [event.event_type for event in events(tmp_path) if event.event_type.startswith("runtime.")]
    assert told.count("runtime.halted") == told.count("runtime.released") == 1


# --- the end ----------------------------------------------------------------------------------------


async def test_shutdown_takes_nothing_in_and_what_outlives_the_grace_goes_on_at_the_next_start(tmp_path):
    """SCHED-8: the grace is what the caller gives before it cancels."""
    async with opening(tmp_path, LOOPS, config=LONG) as it:
        names = await it.spawn(*[str(number) for number in range(20)])
        sent = [await it.runtime.send(name, {"n": 1}) for name in names]
        before = (await it.runtime.get_system_status()).free
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(it.runtime.carry_out_messages)
            await it.until(lambda: {who for who, _ in it.lines} == set(names))
            it.runtime.dispatch.stop(it.runtime.at_work)
            with pytest.raises(Overloaded, match="shutting down"):
                await it.runtime.send(names[0], {"n": 2})
            held = len(it.lines)
            await it.until(lambda: len(it.lines) > held)  # they may finish
            tasks.cancel_scope.cancel()
        assert (await it.runtime.get_system_status()).free == before
        assert it.runtime.at_work == ()
        assert {(await it.run_of(message)).state for message in sent} == {RunState.RUNNING}
    async with opening(tmp_path, LOOPS, config=LONG) as it:
        assert it.runtime.roster.counts == {AgentState.RUNNING: 20}
        async with it.at_work():
            await it.until(lambda: {who for who, _ in it.lines} == set(names))
            await it.population.stop_all("ada")
        runs = [await it.run_of(message) for message in sent]
        assert {run.state for run in runs} == {RunState.FAILED}
    assert len(events(tmp_path, AuditEventType.RUN_RESUMED)) == 20


async def test_who_only_waits_for_a_turn_waits_no_longer_at_shutdown(tmp_path):
    config = LONG.replace("cpu_cores = 1000.0", "cpu_cores = 0.1")  # one at a time
    async with opening(tmp_path, LOOPS, config=config) as it:
        names = await it.spawn("a", "b", "c")
        sent = [await it.runtime.send(name, {"n": 1}) for name in names]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(it.runtime.carry_out_messages)
            await it.until(lambda: len(it.lines) > 3 and it.runtime.dispatch.busy == 3)
            await it.until(lambda: sum(one.waits for one in it.runtime.at_work) == 2)
            it.runtime.dispatch.stop(it.runtime.at_work)
            await it.until(lambda: it.runtime.dispatch.busy == 1)
            await it.runtime.stop(None, "ada")
        runs = [await it.run_of(message) for message in sent]
        assert sorted(run is None for run in runs) == [False, True, True]


# --- people -----------------------------------------------------------------------------------------


async def test_a_message_about_somebody_is_sealed_and_given_up_once_that_is_erased(tmp_path):
    async with opening(tmp_path, 'agent worker(n: String) { with sandbox = interpreter { "done" } }\n') as it:
        await it.spawn("")
        task = Task(subjects=("jane@example.com",))
        sent = await it.runtime.send("worker", {"n": "Jane lives in Graz"}, task)
        other = await it.runtime.send("worker", {"n": "Graz is a town"})
        kept = await it.read(lambda: it.runtime.rooms.mailbox.get_message(sent))
        assert b"Graz" not in kept.body
        privacy = it.runtime.rooms.privacy
        open_work = await it.read(
            lambda: privacy.rooms.store.open_work(privacy.rooms.keys_of("jane@example.com").subject().keys)
        )
        assert [(work.kind, work.id) for work in open_work] == [("message", sent)]
        await it.runtime.rooms.world.log.transact(lambda: (it.runtime.guard.vault.destroy("jane@example.com"), ()))
        await it.carry_out_all(2)
        assert await it.run_of(sent) is None
        assert (await it.run_of(other)).state is RunState.FINISHED
    (refused,) = events(tmp_path, AuditEventType.INPUT_REFUSED)
    assert (refused.details["code"], refused.run_id) == ("run.erased", sent)
