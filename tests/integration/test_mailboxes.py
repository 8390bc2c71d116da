"""Messages to agents that stay: in their order, once, on topics and later, and what becomes of them around a crash."""

import json
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import anyio
import pytest

from symbi.adapters.sqlite import SqliteReader
from symbi.agent.journal import RunState
from symbi.agent.task import Task, kept_task
from symbi.audit.event import AuditEventType, parse_event
from symbi.dsl.spec import CompiledFile
from symbi.errors import InputError, PolicyDenied
from symbi.guard.approval import OPEN
from symbi.guard.desk import Ballot
from symbi.policy.grants import Grant
from symbi.runtime.course import Order
from symbi.runtime.delivery import deliver
from symbi.runtime.host import Host
from symbi.runtime.runtime import Runtime
from symbi.testing.clock import ManualClock
from symbi.testing.runtime import open_in
from symbi.types import AgentId, Confidentiality, Integrity, Label

pytestmark = pytest.mark.anyio
BEGIN = round(datetime(2026, 1, 1, 12, tzinfo=UTC).timestamp()) * 1_000_000_000
ALL = '@id("all") permit (principal, action, resource);'
STAYS = '[agents.b]\nmode = "persistent"\n'
AGENTS = """
agent a(x: Any) {{ with {{ {body} }} }}
agent b(n: Any) {{ with {{ {other} }} }}
"""


def agents(body, other="log(n); return n;"):
    return AGENTS.format(body=body, other=other)


@dataclass
class Stage:
    runtime: Runtime
    compiled: CompiledFile
    lines: list


@asynccontextmanager
async def living(folder, text, *, config=STAYS, policies=ALL, make=("b",), topics=None, carry=True, **more):
    """A runtime in which some agents stay and carry out messages; the lines that were logged are `lines`."""
    lines = []
    emit = lambda agent, line: lines.append((agent, line))  # noqa: E731 - of this runtime alone
    async with (
        open_in(folder, text, policies=policies, config=config, emit=emit, **more) as opened,
        anyio.create_task_group() as tasks,
    ):
        runtime = opened.runtime
        specs = {spec.id: spec for spec in opened.compiled.agents}
        for name in make:
            declared, _, instance = name.partition("/")
            await runtime.spawn(Order(opened.compiled, specs[declared]), [instance])
        runtime.roster.declare(opened.compiled)
        for name, patterns in (topics or {}).items():
            await runtime.post.subscribe(Order(opened.compiled, specs[name]), patterns)
        if carry:
            tasks.start_soon(runtime.carry_out_messages)
            await anyio.wait_all_tasks_blocked()
        yield Stage(runtime, opened.compiled, lines)
        runtime.dispatch.stop()


async def run(opened, agent="a", task=None, **inputs):
    spec = next(one for one in opened.compiled.agents if one.id == agent)
    return await opened.runtime.run(opened.compiled, spec, inputs, task or Task())


async def read(opened, look):
    rooms = opened.runtime.rooms
    return await rooms.world.log.read(lambda: look(rooms))


async def runs_of(opened, agent):
    found = await read(opened, lambda rooms: rooms.runs.runs(100))
    return [one for one in reversed(found) if one.agent_id == agent]


async def until(condition):
    with anyio.fail_after(30):
        while not condition():
            await anyio.lowlevel.checkpoint()


async def idle(opened):
    await until(lambda: opened.runtime.dispatch.idle)


def events(folder, kind):
    with SqliteReader(folder / ".symbi") as reader:
        return [event for one in reader.read(1) if (event := parse_event(one.record)).event_type == kind]


async def test_messages_are_carried_out_in_their_order_and_the_id_of_each_is_that_of_its_run(tmp_path):
    text = agents('let ids = []; for i in range(5) { ids += [send("b", { n: i })]; } return ids;')
    async with living(tmp_path, text) as opened:
        outcome = await run(opened, x=1)
        await until(lambda: len(opened.lines) == 5)
        assert opened.lines == [("b", str(i)) for i in range(5)]
        await idle(opened)
        assert [one.run_id for one in await runs_of(opened, "b")] == outcome.output
        assert await read(opened, lambda rooms: rooms.mailbox.count_messages(AgentId("b"), 9)) == 0


async def test_an_agent_that_stays_answers(tmp_path):
    async with living(tmp_path, agents('return ask("b", { n: x });', "return [n, n];")) as opened:
        assert (await run(opened, x=2)).output == [2, 2]
        assert (await run(opened, x=3)).output == [3, 3]
        failed = await run(opened, agent="a", x="x")
        assert failed.output == ["x", "x"]


async def test_each_of_many_instances_has_its_own_messages(tmp_path):
    text = agents('for i in range(3) { send(format("b/{}", i), { n: i }); } return ask("b/1", { n: "last" });')
    async with living(tmp_path, text, make=("b/0", "b/1", "b/2")) as opened:
        assert (await run(opened, x=1)).output == "last"
        await idle(opened)
        assert sorted(opened.lines) == [("b/0", "0"), ("b/1", "1"), ("b/1", "last"), ("b/2", "2")]


async def test_what_an_agent_fails_at_is_ours_and_it_goes_on(tmp_path):
    body = 'try { return ask("b", { n: x }); } catch (AskFailed e) { return e.message; }'
    async with living(tmp_path, agents(body, "return int(n);")) as opened:
        assert "agent `b` failed" in (await run(opened, x="seven")).output
        assert (await run(opened, x="7")).output == 7


async def test_labels_travel_with_the_message_through_the_store(tmp_path):
    """Sealed there, for it is about somebody; and judged at the far end by what they were."""
    secret = Label(Integrity.UNTRUSTED, Confidentiality.CONFIDENTIAL, categories=("pii",), subjects=("anna",))
    rules = (
        ALL
        + """
@id("far") forbid (principal == Agent::"b", action == Action::"WriteLog", resource)
when { context.label.confidentiality == "confidential" && context.label.integrity == "untrusted" && context.label.categories.contains("pii") };
"""
    )
    text = agents('send("b", { n: x }); return "sent";', 'try { log(n); } catch (PolicyDenied e) { log("not told"); }')
    async with living(tmp_path, text, policies=rules, make=("b",), carry=False) as opened:
        assert (await run(opened, x="hers", task=Task(labels={"x": secret}))).error is None
        message = await read(opened, lambda rooms: rooms.mailbox.next_message(AgentId("b")))
        assert b"hers" not in message.body
        assert b"anna" not in message.body
        assert message.labels is None
    async with living(tmp_path, text, policies=rules, make=()) as opened:
        await until(lambda: opened.lines)
        await idle(opened)
        assert opened.lines == [("b", "not told")]


async def test_a_full_mailbox_is_an_error_that_the_body_may_catch(tmp_path):
    body = 'let n = 0; for i in range(5) { try { send("b", { n: i }); n += 1; } catch (Overloaded e) { log(e.code); } } return n;'
    config = STAYS + "max_messages = 2\n"
    async with living(tmp_path, agents(body), config=config, carry=False) as opened:
        outcome = await run(opened, x=1)
        assert outcome.output == 2
        assert await read(opened, lambda rooms: rooms.mailbox.count_messages(AgentId("b"), 9)) == 2


async def test_nobody_who_is_not_there_is_sent_anything(tmp_path):
    body = "try { send(x, { n: 1 }); } catch (ScriptFailed e) { return e.message; }"
    async with living(tmp_path, agents(body), make=("b/1",)) as opened:
        assert (await run(opened, x="b/2")).output == "agent `b/2` is not there"
        assert (await run(opened, x="b")).output == "agent `b` is not there"


async def test_who_stays_cannot_be_asked_where_nobody_carries_out_messages(tmp_path):
    body = 'try { ask("b", { n: 1 }); } catch (ScriptFailed e) { return e.message; }'
    async with living(tmp_path, agents(body), carry=False) as opened:
        assert "nobody carries out its messages here" in (await run(opened, x=1)).output


async def test_two_that_stay_cannot_wait_for_each_other(tmp_path):
    """Each works on a message of its own and asks the other: one of them is refused, and so both end."""
    text = """
agent a(x: Any) { with { approval("", "now?"); return ask("b", { n: x }); } }
agent b(n: Any) { with { approval("", "now?"); try { return ask("a", { x: n }); } catch (ScriptFailed e) { return e.message; } } }
agent c { with { send("a", { x: 1 }); send("b", { n: 2 }); return 1; } }
"""
    config = STAYS + '[agents.a]\nmode = "persistent"\n[approvals.people.ann]\nuser = "0"\n'
    async with living(tmp_path, text, config=config, make=("a", "b"), hold_s=None) as opened:
        await run(opened, "c")
        desk = opened.runtime.desk
        ended = False
        with anyio.fail_after(30):
            while not ended:
                for held in await desk.listed(tuple(OPEN)):
                    if held.state.value == "waiting":
                        await desk.vote(Ballot(held.id, held.digest, agrees=True, uid=0))
                runs = [*await runs_of(opened, "a"), *await runs_of(opened, "b")]
                ended = (
                    bool(runs)
                    and opened.runtime.dispatch.idle
                    and all(one.state is not RunState.RUNNING for one in runs)
                )
                await anyio.lowlevel.checkpoint()
        said = [json.loads(one.output) for one in runs if one.output is not None]
        assert any("which would wait for it" in str(one) for one in said), said


# --- later ------------------------------------------------------------------------------------


async def test_a_message_for_later_waits_for_its_time(tmp_path):
    clock = ManualClock()
    async with living(tmp_path, agents('return send("b", { n: x }, after = 10m);'), clock=clock) as opened:
        await run(opened, x="late")
        await run(opened, x="later")
        await idle(opened)
        assert opened.lines == []
        clock.advance(601)
        opened.runtime.dispatch.wake()
        await until(lambda: len(opened.lines) == 2)
        assert opened.lines == [("b", "late"), ("b", "later")]


# --- topics -----------------------------------------------------------------------------------

EARS = """
agent a(x: Any) { with { return publish("incidents.open", { n: x }); } }
agent b(n: Any) { with { log(n); return n; } }
agent c(n: Any) { with { log(n); return n; } }
agent d(q: int) { with { log(q); return q; } }
"""
ALL_STAY = "".join(f'[agents.{name}]\nmode = "persistent"\n' for name in "bcd")


async def test_a_publication_is_a_message_to_each_who_listens(tmp_path):
    topics = {"b": ["incidents.*"], "c": ["other.>"]}
    async with living(tmp_path, EARS, config=ALL_STAY, make=("b/1", "b/2", "c"), topics=topics) as opened:
        outcome = await run(opened, x=5)
        assert outcome.output == 2
        await until(lambda: len(opened.lines) == 2)
        assert sorted(opened.lines) == [("b/1", "5"), ("b/2", "5")]


async def test_who_does_not_take_it_is_passed_over_and_that_is_told(tmp_path):
    topics = {"b": ["incidents.>"], "d": ["incidents.>"]}
    async with living(tmp_path, EARS, config=ALL_STAY, make=("b", "d"), topics=topics) as opened:
        assert (await run(opened, x=5)).output == 1
    (refused,) = events(tmp_path, AuditEventType.MESSAGE_REFUSED)
    assert (refused.details["resource"], refused.details["topic"]) == ("d", "incidents.open")
    assert "no input `n`" in refused.details["reason"]


async def test_one_full_mailbox_and_nobody_gets_it(tmp_path):
    body = EARS.replace(
        'return publish("incidents.open", { n: x });',
        'try { return publish("incidents.open", { n: x }); } catch (Overloaded e) { return e.code; }',
    )
    config = ALL_STAY.replace("[agents.c]\n", "[agents.c]\nmax_messages = 1\n")
    topics = {"b": ["incidents.>"], "c": ["incidents.>"]}
    async with living(tmp_path, body, config=config, make=("b", "c"), topics=topics, carry=False) as opened:
        assert (await run(opened, x=1)).output == 2
        assert (await run(opened, x=2)).output == "unavailable.mailbox_full"
        assert await read(opened, lambda rooms: rooms.mailbox.count_messages(AgentId("b"), 9)) == 1


async def test_nobody_hears_itself(tmp_path):
    text = 'agent b(n: int) { with { log(n); return publish("echo", { n: n + 1 }); } } agent a(x: Any) { with { send("b", { n: 1 }); } }'
    async with living(tmp_path, text, topics={"b": ["echo"]}) as opened:
        await run(opened, x=1)
        await until(lambda: opened.lines)
        await idle(opened)
        assert opened.lines == [("b", "1")]


async def test_policy_decides_who_listens_and_who_publishes(tmp_path):
    rules = (
        ALL
        + """
@id("ears") forbid (principal == Agent::"c", action == Action::"SubscribeTopic", resource);
@id("mouth") forbid (principal, action == Action::"PublishMessage", resource == Topic::"incidents.open");
"""
    )
    with pytest.raises(BaseExceptionGroup) as refused:
        async with living(tmp_path, EARS, config=ALL_STAY, policies=rules, make=("c",), topics={"c": ["x.>"]}):
            pytest.fail("it listens")
    assert refused.group_contains(PolicyDenied)
    async with living(
        tmp_path / "mouth", EARS, config=ALL_STAY, policies=rules, topics={"b": ["incidents.>"]}
    ) as opened:
        assert type((await run(opened, x=1)).error) is PolicyDenied
        assert await read(opened, lambda rooms: rooms.mailbox.count_messages(AgentId("b"), 9)) == 0


# --- crashes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("body", ['return send("b", { n: x });', 'publish("t", { n: x }); return 1;'])
async def test_what_was_sent_before_a_crash_is_sent_once(tmp_path, body):
    """The message is in its mailbox, or was carried out even, and the effect is in doubt."""

    class Crash(BaseException):
        """The process is gone."""

    passed: list[str] = []

    def probe(point):
        passed.append(point)
        if point == "done" and len([one for one in passed if one == "done"]) == crash_at:
            raise Crash

    for carried_out in (False, True):
        folder, passed[:] = tmp_path / str(carried_out), []
        text, topics = agents(body), {"b": ["t"]}
        async with living(folder, text, make=("b",), carry=False):
            pass
        passed.clear()
        crash_at = 4  # of the canary's successors: subscription, creation, resources, and then the message
        with pytest.raises(BaseExceptionGroup) as gone:
            async with living(folder, text, make=(), topics=topics, carry=False, probe=probe) as opened:
                await run(opened, x=1)
        assert gone.group_contains(Crash)
        if carried_out:
            async with living(folder, text, make=()) as opened:
                await until(lambda opened=opened: opened.lines)
                await idle(opened)
        async with living(folder, text, make=(), topics=topics) as opened:
            (mother,) = await runs_of(opened, "a")
            assert mother.state is RunState.RUNNING
            spec = opened.compiled.agents[0]
            again = await opened.runtime.resume(opened.compiled, spec, mother)
            assert again.error is None
            await idle(opened)
            (message,) = await runs_of(opened, "b")
            assert message.state is RunState.FINISHED


async def test_an_answer_comes_though_both_were_broken_off(tmp_path):
    """The message is in the mailbox when the process ends; the agent carries it out, and whoever asked is told."""
    text = agents('return ask("b", { n: x });', 'approval("", "may I?"); return n;')
    config = STAYS + '[approvals.people.ann]\nuser = "0"\n'
    with pytest.raises(BaseExceptionGroup):
        async with living(tmp_path, text, config=config, hold_s=None) as opened, anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: run(opened, x=4))
            while not await opened.runtime.desk.listed(tuple(OPEN)):
                await anyio.lowlevel.checkpoint()
            raise RuntimeError("gone")
    async with living(tmp_path, text, config=config, hold_s=None, make=()) as opened:
        (mother,) = await runs_of(opened, "a")
        ended = []
        async with anyio.create_task_group() as tasks:

            async def again():
                ended.append(await opened.runtime.resume(opened.compiled, opened.compiled.agents[0], mother))

            tasks.start_soon(again)
            (held,) = await opened.runtime.desk.listed(tuple(OPEN))
            await opened.runtime.desk.vote(Ballot(held.id, held.digest, agrees=True, uid=0))
        assert ended[0].output == 4
        assert len(await runs_of(opened, "b")) == 1


async def test_who_is_stopped_takes_back_what_it_asked_for(tmp_path):
    """A message that nobody has begun goes; one that is being carried out is stopped, and its agent stays."""
    text = agents('return ask("b", { n: x });', 'approval("", "may I?"); return n;')
    config = STAYS + '[approvals.people.ann]\nuser = "0"\n'
    async with living(tmp_path, text, config=config, hold_s=None) as opened:
        ended = []
        async with anyio.create_task_group() as tasks:

            async def asks(name):
                ended.append(await run(opened, x=name))

            tasks.start_soon(asks, 1)
            while not await opened.runtime.desk.listed(tuple(OPEN)):
                await anyio.lowlevel.checkpoint()
            await opened.runtime.stop([AgentId("a")], "ann")
        assert ended[0].error.code == "agent.stopped"
        await idle(opened)
        (child,) = await runs_of(opened, "b")
        assert (child.state, b"was stopped by run" in child.error) == (RunState.FAILED, True)
        agent = await read(opened, lambda rooms: rooms.agents.get_agent(AgentId("b")))
        assert agent.state.value == "Ready"


async def test_who_listens_is_configured_and_decided_when_messages_begin_to_be_carried_out(tmp_path):
    rules = ALL + '@id("ears") forbid (principal == Agent::"c", action == Action::"SubscribeTopic", resource);'
    config = ALL_STAY.replace("[agents.b]\n", '[agents.b]\ntopics = ["incidents.>"]\n')
    config = config.replace("[agents.c]\n", '[agents.c]\ntopics = ["incidents.*"]\n')
    async with living(tmp_path, EARS, config=config, policies=rules, make=("b", "c")) as opened:
        assert (await run(opened, x=5)).output == 1
        await until(lambda: opened.lines)
        assert opened.lines == [("b", "5")]
    assert [one.details["policies"][0]["id"] for one in events(tmp_path, AuditEventType.DECISION_DENY)][-1] == "ears"


# --- schedules --------------------------------------------------------------------------------

DAILY = """
agent daily { with { log("ran"); return 7; } }
schedule nine { cron = "0 9 * * *" agent = daily deliver = "reports.daily" }
agent b(n: int) { with { log(n); return n; } }
"""


@pytest.mark.parametrize("denied", [False, True])
async def test_what_a_scheduled_run_gave_is_published(tmp_path, denied):
    clock = ManualClock(BEGIN)
    rules = ALL + '@id("no") forbid (principal, action == Action::"PublishMessage", resource);' * denied
    topics = {"b": ["reports.*"]}
    async with (
        living(tmp_path, DAILY, clock=clock, policies=rules, topics=topics, hold_s=None, carry=False) as opened,
        anyio.create_task_group() as tasks,
    ):
        host = Host(opened.runtime, [opened.compiled])
        tasks.start_soon(host.run)
        await until(lambda: host.looks)
        clock.advance(86_400)
        host.wake()
        await until(lambda: len(opened.lines) == 2 - denied and not host.at_work)
        await idle(opened)
        host.stop()
        assert opened.lines == [("daily", "ran"), ("b", "7")][: 2 - denied]
        # Published again, as after a crash between this and the end of the occurrence, it is there already.
        (run_,) = await runs_of(opened, "daily")
        order = Order(opened.compiled, opened.compiled.agents[0])
        if not denied:
            assert await deliver(opened.runtime, order, run_.run_id, "reports.daily") == 1
            await idle(opened)
            assert len(await runs_of(opened, "b")) == 1


async def test_an_agent_that_stays_publishes_by_itself(tmp_path):
    config = STAYS + '[agents.daily]\nmode = "persistent"\n'
    async with living(tmp_path, DAILY, config=config, carry=False) as opened:
        with pytest.raises(InputError, match="schedule `nine` cannot deliver"):
            Host(opened.runtime, [opened.compiled])


async def test_the_grant_of_a_task_goes_with_a_message_through_the_store(tmp_path):
    """An agent does no more for a task than the task calls for, whoever it is that works on it."""
    rules = (
        ALL
        + '@id("task") forbid (principal, action == Action::"SendMessage", resource) when { !context.expectsReply };'
    )
    text = agents('return ask("b", { n: x });', "return n;")
    async with living(tmp_path, text, policies=rules) as opened:
        grant = Grant({"files.read": {}})
        outcome = await run(opened, x=1, task=Task(grant=grant))
        assert outcome.output == 1
        (record,) = await runs_of(opened, "b")
        assert kept_task(record.grant, record.labels).grant == grant


async def test_a_topic_carries_no_more_than_its_classification(tmp_path):
    rules = (
        ALL
        + """
@id("within") forbid (principal, action == Action::"PublishMessage", resource)
when { context.label.confidentiality == "confidential" && resource.classification != "confidential" };
"""
    )
    said = '[topics.hot]\npattern = "incidents.*"\nowner = "ops"\nclassification = "{}"\n'
    secret = Task(labels={"x": Label(confidentiality=Confidentiality.CONFIDENTIAL)})
    for classification, told in (("internal", False), ("confidential", True)):
        config = ALL_STAY + said.format(classification)
        async with living(
            tmp_path / classification, EARS, config=config, policies=rules, topics={"b": ["incidents.>"]}
        ) as opened:
            assert ((await run(opened, task=secret, x=1)).error is None) is told


async def test_who_stays_and_is_denied_fails_whoever_asks_it_and_who_waits_for_people_is_waited_for(tmp_path):
    rules = ALL + '@id("no") forbid (principal == Agent::"b", action == Action::"WriteLog", resource);'
    body = 'try { return ask("b", { n: x }); } catch (AskFailed e) { return e.code; }'
    async with living(tmp_path / "denied", agents(body), policies=rules) as opened:
        assert (await run(opened, x=1)).output == "agent.asked"
    text = agents('return ask("b", { n: x });', 'approval("", "may I?"); return n;')
    config = STAYS + '[approvals.people.ann]\nuser = "0"\n'
    ended = []
    async with (
        living(tmp_path / "asked", text, config=config, hold_s=0.0) as opened,
        anyio.create_task_group() as tasks,
    ):

        async def asks():
            ended.append(await run(opened, x=4))

        tasks.start_soon(asks)
        with anyio.fail_after(30):
            while not (runs := await runs_of(opened, "b")) or runs[0].state is not RunState.HELD:
                await anyio.lowlevel.checkpoint()
        (held,) = await opened.runtime.desk.listed(tuple(OPEN))
        await opened.runtime.desk.vote(Ballot(held.id, held.digest, agrees=True, uid=0))
        assert not ended
        await opened.runtime.dispatch.clear(AgentId("b"))
    assert ended[0].output == 4
