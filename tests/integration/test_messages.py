"""Messages between agents, through a whole runtime: what arrives, with which label, once, and what is refused."""

import anyio
import pytest

from symbi.adapters.sqlite import SqliteReader
from symbi.agent.journal import RunState
from symbi.agent.task import Task
from symbi.audit.event import AuditEventType, parse_event
from symbi.errors import AskFailed, EffectInDoubt, PolicyDenied, ScriptFailed, TimeLimit
from symbi.guard.approval import OPEN
from symbi.guard.budget import Allowance
from symbi.guard.desk import Ballot
from symbi.guard.spending import Budget
from symbi.policy.grants import Grant
from symbi.runtime.raising import raise_budget
from symbi.testing.runtime import open_in
from symbi.testing.servers import in_place_of, simulated
from symbi.tools.port import RawToolResult
from symbi.types import AgentId, Confidentiality, Integrity, Label

pytestmark = pytest.mark.anyio
ALL = '@id("all") permit (principal, action, resource);'
ONE_SEAT = "[runtime]\nmax_concurrent_agents = 1\n"


def spec_of(opened, agent):
    return next(one for one in opened.compiled.agents if one.id == agent)


async def run(opened, agent="a", task=None, **inputs):
    return await opened.runtime.run(opened.compiled, spec_of(opened, agent), inputs, task or Task())


async def resume(opened, run_id, agent="a"):
    record = await read(opened, lambda rooms: rooms.runs.get_run(run_id))
    return await opened.runtime.resume(opened.compiled, spec_of(opened, agent), record)


async def read(opened, look):
    rooms = opened.runtime.rooms
    return await rooms.world.log.read(lambda: look(rooms))


async def children(opened, run_id):
    return await read(opened, lambda rooms: [rooms.runs.get_run(one.run_id) for one in rooms.lineage.asked_by(run_id)])


def events(folder, kind):
    with SqliteReader(folder / ".symbi") as reader:
        return [event for one in reader.read(1) if (event := parse_event(one.record)).event_type == kind]


PAIR = """
agent a(x: Any) {{
    with {{ {body} }}
}}
agent b(n: Any, m: Optional<String>) {{
    with {{ {other} }}
}}
"""


def pair(body='return ask("b", { n: x });', other="return n;"):
    return PAIR.format(body=body, other=other)


async def test_an_agent_asks_another_and_gets_its_answer(tmp_path):
    text = pair('return ask("b", { n: x, m: "said" });', "return { n: n, m: m.upper() };")
    async with open_in(tmp_path, text, policies=ALL) as opened:
        outcome = await run(opened, x=3)
        assert outcome.error is None
        assert outcome.output == {"n": 3, "m": "SAID"}
        (child,) = await read(opened, lambda rooms: rooms.lineage.asked_by(outcome.run_id))
        assert (child.root, child.depth) == (outcome.run_id, 1)
        (record,) = await children(opened, outcome.run_id)
        assert (record.agent_id, record.state) == (f"b/{child.run_id}", RunState.FINISHED)
        effects = await read(opened, lambda rooms: rooms.effects.effects_of(outcome.run_id))
        assert [one.effect_id for one in effects] == [child.run_id]


@pytest.mark.parametrize("depth", [1, 4])
async def test_a_pool_of_one_seat_is_enough_for_whoever_waits(tmp_path, depth):
    """All seats are held by those who wait for others, and nobody waits for ever."""
    asks = "".join(f'agent a{n} {{ with {{ return ask("a{n + 1}", {{}}) + 1; }} }}\n' for n in range(depth))
    text = asks + f"agent a{depth} {{ with {{ return 0; }} }}"
    async with open_in(tmp_path, text, policies=ALL, config=ONE_SEAT) as opened:
        with anyio.fail_after(30):
            outcome = await run(opened, "a0")
        assert outcome.output == depth
        status = await opened.runtime.get_system_status()
        assert (status.running, sum(status.queued.values()), status.free) == (0, 0, status.capacity)


async def test_the_pool_is_full_again_while_the_answer_is_awaited(tmp_path):
    """Who waits holds nothing: another agent works meanwhile, and it works on once that has ended."""
    text = pair(other="now(); return n;") + "agent c { with { return 7; } }"
    async with open_in(tmp_path, text, policies=ALL, config=ONE_SEAT) as opened:
        results = []

        async def work(name, **inputs):
            results.append((await run(opened, name, **inputs)).output)

        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(lambda: work("a", x=1))
                tasks.start_soon(lambda: work("c"))
        assert sorted(results) == [1, 7]


SECRET = Label(Integrity.UNTRUSTED, Confidentiality.CONFIDENTIAL, categories=("pii",), subjects=("anna",))


async def test_labels_arrive_with_each_input_and_come_back_with_the_answer(tmp_path):
    """What a rule says of the label of one input at the far end holds, and of the answer at the near one."""
    rules = """
permit (principal, action, resource);
@id("near") forbid (principal == Agent::"a", action == Action::"WriteLog", resource) when { context.label.confidentiality == "confidential" };
@id("far") forbid (principal == Agent::"b", action == Action::"WriteLog", resource) when { context.label.confidentiality == "confidential" };
"""
    text = """
agent a(x: String) {
    with {
        let got = ask("b", { secret: x, open: "free" });
        log(got.open);
        try { log(got.secret); } catch (Denied refusal) { return [got.open, refusal.message]; }
    }
}
agent b(secret: String, open: String) {
    with {
        log(open);
        try { log(secret); return "told"; } catch (Denied refusal) { return { secret: secret, open: open }; }
    }
}
"""
    lines = []
    async with open_in(tmp_path, text, policies=rules, emit=lambda _, line: lines.append(line)) as opened:
        outcome = await run(opened, x="hers", task=Task(labels={"x": SECRET}))
        # A record's answer bears one label, the join of all: so what was open is not told at the near end either.
        assert outcome.error is not None
        assert outcome.error.fields["policies"] == ["near"]
    assert lines == ["free"]
    denied = [event.details["policies"][0]["id"] for event in events(tmp_path, AuditEventType.DECISION_DENY)]
    assert denied[1:] == ["far", "near"]  # behind the canary


async def test_a_value_that_nothing_secret_went_into_comes_back_free(tmp_path):
    rules = (
        ALL
        + """
@id("near") forbid (principal == Agent::"a", action == Action::"WriteLog", resource)
when { context.label.confidentiality == "confidential" || context.label.integrity == "untrusted" };
"""
    )
    text = pair('log(ask("b", { n: x, m: "m" })); return "told";', "return m;")
    async with open_in(tmp_path, text, policies=rules) as opened:
        assert (await run(opened, x="hers", task=Task(labels={"x": SECRET}))).output == "told"


async def test_the_label_of_a_name_joins_what_is_sent(tmp_path):
    rules = (
        ALL
        + """
@id("chosen") forbid (principal, action == Action::"SendMessage", resource) when { context.label.integrity == "untrusted" };
"""
    )
    untrusted = Task(labels={"x": Label(Integrity.UNTRUSTED)})
    async with open_in(tmp_path, pair('return ask(x, { n: "clean" });'), policies=rules) as opened:
        assert (await run(opened, x="b")).output == "clean"
        refused = await run(opened, x="b", task=untrusted)
        assert refused.error.fields["policies"] == ["chosen"]


async def test_an_untrusted_agent_answers_untrusted_words(tmp_path):
    rules = (
        ALL
        + """
@id("near") forbid (principal == Agent::"a", action == Action::"WriteLog", resource) when { context.label.integrity == "untrusted" };
"""
    )
    text = pair('log(ask("b", { n: x })); return "told";', 'return "mine";')
    for trust, told in (("standard", True), ("untrusted", False)):
        config = f'[agents.b]\ntrust = "{trust}"\n'
        async with open_in(tmp_path / trust, text, policies=rules, config=config) as opened:
            assert ((await run(opened, x=1)).error is None) is told


async def test_the_grant_of_a_task_goes_with_its_messages(tmp_path):
    text = pair(other="return n;")
    async with open_in(tmp_path, text, policies=ALL) as opened:
        outcome = await run(opened, x=1, task=Task(grant=Grant({"files.read": {}})))
        (child,) = await children(opened, outcome.run_id)
        mother = await read(opened, lambda rooms: rooms.runs.get_run(outcome.run_id))
        assert child.grant == mother.grant is not None


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('return ask("c", {});', "there is no agent `c`"),
        ('return ask("b/1", { n: 1 });', "lives for one run, and has no instances"),
        ('return send("b", { n: 1 });', "takes no messages: it lives for one run"),
        ("return ask(x, 5);", "has 2 inputs, and the message is no record"),
        ("return ask(x, { n: 1, z: 2 });", "has no input `z`"),
        ('return ask(x, { m: "m" });', "needs the input `n`"),
        ("return ask(x, { n: 1, m: 2 });", "input `m` of agent `b` must be Optional"),
        ('return ask(x + x + x + "!", {});', "is not the name of an agent"),
        ("return ask(5, {});", "must be a String"),
        ('return publish("no topic", 5);', "is not the name of a topic"),
        ("return send(x, 5, after = -1);", "`after` is a number of seconds"),
    ],
)
async def test_what_cannot_be_sent_is_an_error_that_the_body_may_catch_at_its_place(tmp_path, body, message):
    text = pair(body) if "no topic" not in body else pair(body.replace('"no topic"', "x"))
    async with open_in(tmp_path, text, policies=ALL) as opened:
        x = "no topic" if "no topic" in body else "b"
        failed = await run(opened, x=x)
        assert type(failed.error) is ScriptFailed
        assert message in str(failed.error)
        assert (failed.error.place.line, failed.error.place.column > 10) == (3, True)
    caught = f"try {{ {body} }} catch (ScriptFailed e) {{ return e.message; }}"
    async with open_in(tmp_path / "caught", pair(caught.replace('"no topic"', "x")), policies=ALL) as opened:
        assert message in (await run(opened, x=x)).output


async def test_a_refused_recipient_stays_refused_when_the_run_goes_on(tmp_path):
    """It is on record at its place, though the agent is there later."""
    body = 'let said = ""; try { ask(x, {}); } catch (ScriptFailed e) { said = e.message; } approval("", "go on?"); return said;'
    config = '[approvals.people.ann]\nuser = "0"\n'
    async with open_in(tmp_path, pair(body), policies=ALL, config=config) as opened:
        held = await run(opened, x="late")
        assert held.state is RunState.HELD
        again = await resume(opened, held.run_id)
        assert again.replayed == 1
    (refused,) = events(tmp_path, AuditEventType.MESSAGE_REFUSED)
    assert refused.details["resource"] == "late"


async def test_a_secret_cannot_be_sent(tmp_path):
    async with open_in(tmp_path, pair("let s = vault://a/b; return ask(x, { n: s });"), policies=ALL) as opened:
        outcome = await run(opened, x="b")
        assert outcome.error.code == "script.secret"


async def test_a_message_has_a_bound(tmp_path):
    body = 'let t = "x"; for i in range(21) { t += t; } return ask("b", { n: t });'
    async with open_in(tmp_path, pair(body), policies=ALL) as opened:
        assert (await run(opened, x=1)).error.code == "limit.message"


async def test_policy_says_who_may_be_asked(tmp_path):
    rules = (
        ALL
        + '@id("no") forbid (principal, action == Action::"SendMessage", resource == Agent::"b") when { context.expectsReply };'
    )
    caught = pair('try { return ask("b", { n: x }); } catch (PolicyDenied e) { return "no"; }')
    async with open_in(tmp_path, caught, policies=rules) as opened:
        outcome = await run(opened, x=1)
        assert outcome.output == "no"
        assert await children(opened, outcome.run_id) == []


async def test_capabilities_tell_sending_from_asking(tmp_path):
    text = pair('try { return ask("b", { n: x }); } catch (PolicyDenied e) { return "no"; }')
    for word, answer in (("ask", 1), ("send", "no")):
        bound = text.replace("{\n    with", f'{{\n    capabilities = ["{word}"]\n    with', 1)
        async with open_in(tmp_path / word, bound, policies=ALL) as opened:
            assert (await run(opened, x=1)).output == answer


async def test_the_failure_of_the_other_is_ours_with_its_reason_and_its_label(tmp_path):
    body = 'try { ask("b", { n: x }); } catch (AgentFailed e) { log(e.message); return e.code; }'
    rules = (
        ALL
        + """
@id("near") forbid (principal == Agent::"a", action == Action::"WriteLog", resource) when { context.label.confidentiality == "confidential" };
"""
    )
    async with open_in(tmp_path, pair(body, "return int(n);"), policies=rules) as opened:
        assert (await run(opened, x="seven")).output == "agent.asked"
        hidden = await run(opened, x="seven", task=Task(labels={"x": SECRET}))
        assert type(hidden.error) is PolicyDenied
    async with open_in(tmp_path / "uncaught", pair(other="return int(n);"), policies=ALL) as opened:
        failed = await run(opened, x="seven")
        assert type(failed.error) is AskFailed
        assert "agent `b` failed" in failed.error.message
        assert failed.error.fields["reason"] == "agent.script"


@pytest.mark.parametrize("rule", ["CreateAgent", "WriteLog"])
async def test_an_agent_that_may_not_fails_whoever_asks_it(tmp_path, rule):
    """Before its body and in it; nothing waits for anybody."""
    rules = ALL + f'@id("no") forbid (principal == Agent::"b", action == Action::"{rule}", resource);'
    async with open_in(tmp_path, pair(other="log(1); return n;"), policies=rules) as opened:
        outcome = await run(opened, x=1)
        assert type(outcome.error) is AskFailed
        assert outcome.error.fields["reason"] == "policy.denied"


async def test_a_held_answer_holds_whoever_waits_and_both_go_on(tmp_path):
    """People are asked in the other run; the one that waits is held, and asks again by the same id."""
    config = '[approvals.people.ann]\nuser = "0"\n'
    text = pair('let got = ask("b", { n: x }); return got + 1;', 'approval("", "may I?"); return n;')
    async with open_in(tmp_path, text, policies=ALL, config=config) as opened:
        held = await run(opened, x=1)
        assert (held.state, type(held.error)) == (RunState.HELD, EffectInDoubt)
        (child,) = await children(opened, held.run_id)
        assert child.state is RunState.HELD
        desk = opened.runtime.desk
        (waiting,) = await desk.listed(tuple(OPEN))
        await desk.vote(Ballot(waiting.id, waiting.digest, agrees=True, uid=0))
        ended = await resume(opened, held.run_id)
        assert (ended.state, ended.output) == (RunState.FINISHED, 2)
        assert [one.run_id for one in await children(opened, held.run_id)] == [child.run_id]


async def test_who_waits_for_us_cannot_be_asked(tmp_path):
    ring = """
agent a { with { return ask("b", {}); } }
agent b { with { return ask("c", {}); } }
agent c { with { try { return ask("a", {}); } catch (ScriptFailed e) { return e.message; } } }
"""
    async with open_in(tmp_path, ring, policies=ALL) as opened:
        outcome = await run(opened)
        assert outcome.output.startswith("agent `a` waits for agent `c/")


async def test_a_chain_has_a_bound(tmp_path):
    asks = "".join(f'agent a{n} {{ with {{ return ask("a{n + 1}", {{}}); }} }}\n' for n in range(17))
    text = asks + "agent a17 { with { return 0; } }"
    async with open_in(tmp_path, text, policies=ALL) as opened:
        assert (await run(opened, "a1")).output == 0  # 16 below it
        refused = await run(opened, "a0")
        assert "17 runs wait for one another already" in refused.error.message


# --- ends that nobody wrote -------------------------------------------------------------------

PEOPLE = '[approvals.people.ann]\nuser = "0"\n'
WAITING = pair(other='log("begun"); approval("", "may I?"); log("done"); return n;')


async def begun(opened, lines):
    """Return once the other agent waits for people."""
    while not await opened.runtime.desk.listed(tuple(OPEN)):
        await anyio.lowlevel.checkpoint()
    assert lines == ["begun"]


async def agree(opened):
    (held,) = await opened.runtime.desk.listed(tuple(OPEN))
    await opened.runtime.desk.vote(Ballot(held.id, held.digest, agrees=True, uid=0))


async def test_who_is_stopped_stops_whom_it_asked(tmp_path):
    lines, ended = [], []
    async with open_in(
        tmp_path, WAITING, policies=ALL, config=PEOPLE, hold_s=None, emit=lambda _, line: lines.append(line)
    ) as opened:
        async with anyio.create_task_group() as tasks:

            async def work():
                ended.append(await run(opened, x=1))

            tasks.start_soon(work)
            await begun(opened, lines)
            await opened.runtime.stop([AgentId("a")], "ann")
        assert ended[0].error.code == "agent.stopped"
        (child,) = await children(opened, ended[0].run_id)
        assert child.state is RunState.FAILED
        assert f"was stopped by run {ended[0].run_id}" in child.error.decode()
        assert opened.runtime.at_work == ()
        status = await opened.runtime.get_system_status()
        assert (status.running, status.free) == (0, status.capacity)


async def test_whose_time_is_up_stops_whom_it_asked(tmp_path, later):
    lines, ended = [], []
    text = WAITING.replace("with {", "with timeout = 60 {", 1)
    emit = lambda _, line: lines.append(line)  # noqa: E731 - of this runtime alone
    async with open_in(tmp_path, text, policies=ALL, config=PEOPLE, hold_s=None, emit=emit) as opened:
        async with anyio.create_task_group() as tasks:

            async def work():
                ended.append(await run(opened, x=1))

            tasks.start_soon(work)
            await begun(opened, lines)
            await later(61, opened.runtime.rooms.world.log)
        assert type(ended[0].error) is TimeLimit
        (child,) = await children(opened, ended[0].run_id)
        assert child.state is RunState.FAILED


async def test_whom_it_asked_can_be_stopped_alone(tmp_path):
    lines, ended = [], []
    text = WAITING.replace(
        'return ask("b", { n: x });', 'try { ask("b", { n: x }); } catch (AgentFailed e) { return e.message; }'
    )
    async with (
        open_in(
            tmp_path, text, policies=ALL, config=PEOPLE, hold_s=None, emit=lambda _, line: lines.append(line)
        ) as opened,
        anyio.create_task_group() as tasks,
    ):

        async def work():
            ended.append(await run(opened, x=1))

        tasks.start_soon(work)
        await begun(opened, lines)
        (child,) = [one for one in opened.runtime.at_work if one.record.declared == "b"]
        await opened.runtime.stop([child.life.agent], "ann")
    assert "was stopped by ann" in ended[0].output


async def test_the_end_of_the_process_leaves_both_to_go_on(tmp_path):
    """Nothing is done twice, and the answer is the one that was asked for."""
    lines = []
    more = {"policies": ALL, "config": PEOPLE, "hold_s": None, "emit": lambda _, line: lines.append(line)}
    async with open_in(tmp_path, WAITING, **more) as opened:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: run(opened, x=1))
            await begun(opened, lines)
            tasks.cancel_scope.cancel()
        mother, child = sorted(await read(opened, lambda rooms: rooms.runs.runs(10)), key=lambda one: one.run_id)
        assert [mother.state, child.state] == [RunState.RUNNING, RunState.RUNNING]
    async with open_in(tmp_path, WAITING, **more) as opened, anyio.create_task_group() as tasks:
        ended = []

        async def work():
            ended.append(await resume(opened, mother.run_id))

        tasks.start_soon(work)
        await begun(opened, lines)
        await agree(opened)
    assert (ended[0].state, ended[0].output) == (RunState.FINISHED, 1)
    assert lines == ["begun", "done"]


async def test_an_answer_that_was_there_before_the_crash_is_given_and_nothing_runs_again(tmp_path):
    lines = []

    class Crash(BaseException):
        """The process is gone."""

    def probe(point):
        if point == "done" and lines:  # of the effect `ask`, with its answer at hand
            settled.append(point)
            if len(settled) == 2:
                raise Crash

    settled: list[str] = []
    text = pair(other='log("once"); return { n: n };')
    with pytest.raises(BaseException) as gone:
        async with open_in(
            tmp_path, text, policies=ALL, probe=probe, emit=lambda _, line: lines.append(line)
        ) as opened:
            await run(opened, x=1)
    assert gone.group_contains(Crash) if isinstance(gone.value, BaseExceptionGroup) else isinstance(gone.value, Crash)
    secret = []
    async with open_in(tmp_path, text, policies=ALL, emit=lambda _, line: secret.append(line)) as opened:
        mother, child = sorted(await read(opened, lambda rooms: rooms.runs.runs(10)), key=lambda one: one.run_id)
        assert (mother.state, child.state) == (RunState.RUNNING, RunState.FINISHED)
        outcome = await resume(opened, mother.run_id)
        assert outcome.output == {"n": 1}
        assert len(await children(opened, mother.run_id)) == 1
    assert (lines, secret) == (["once"], [])


# --- budgets ----------------------------------------------------------------------------------

PAYING = """
agent a(x: Any) { with sandbox = interpreter { tool("bank.pay"); let n = ask("b", { n: x }); tool("bank.pay"); return n; } }
agent b(n: int) { with sandbox = interpreter { for i in range(n) { tool("bank.pay"); } return n; } }
"""
BANK = '[mcp]\ntool_verification = "disabled"\n[mcp.servers.bank]\ncommand = ["bank"]\n'


async def test_whom_it_asks_can_spend_only_what_it_has_left_and_both_go_on_when_there_is_more(tmp_path):
    paid = []

    async def pay(_arguments, _effect_id):
        paid.append(1)
        return RawToolResult("done", None, is_error=False)

    with in_place_of({"bank": simulated("bank", {"pay": pay})}):
        async with open_in(tmp_path, PAYING, policies=ALL, config=BANK) as opened:
            spec = spec_of(opened, "a")
            allowance = Allowance(Budget(calls=3))
            held = await opened.runtime.run(opened.compiled, spec, {"x": 3}, allowance=allowance)
            assert len(paid) == 3  # one of its own, and two of whom it asked
            assert (held.state, held.error.code) == (RunState.HELD, "agent.unanswered")
            (child,) = await children(opened, held.run_id)
            assert (child.state, b"budget" in child.error) == (RunState.HELD, True)
            await raise_budget(opened.runtime, held.run_id, {"calls": (False, 5)}, "ann")
            ended = await resume(opened, held.run_id)
            assert (ended.output, len(paid)) == (3, 5)
            assert len(await children(opened, held.run_id)) == 1
