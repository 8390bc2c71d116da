"""`symbi effects`: what nobody can look up is settled by people, and its run goes on with what they say."""

import json
import sqlite3
from contextlib import closing

import anyio
import pytest
from typer.testing import CliRunner

from symbi.adapters.sqlite import SqliteReader
from symbi.agent.journal import RunState
from symbi.api.control import OPERATIONS, Caller, operate
from symbi.audit.event import AuditEventType as T
from symbi.audit.event import parse_event
from symbi.cli.main import app
from symbi.errors import EffectInDoubt, StoreUnavailable
from symbi.guard.ledger import EffectState
from symbi.runtime.course import Order
from symbi.runtime.doubt import Doubt
from symbi.runtime.lifecycle import AgentState
from symbi.testing.clock import ManualClock
from symbi.testing.runtime import open_in
from symbi.testing.servers import in_place_of, simulated
from symbi.tools.port import RawToolResult

AGENT = """
agent sender(to: String) -> Any {
    capabilities = ["post.send"]
    with sandbox = interpreter { tool("post.send", to = to) }
}
"""
CONFIG = """
[mcp]
tool_verification = "tofu"
[mcp.servers.post]
command = ["none"]
manifest = "post.toml"
timeout_s = 10.0
"""
MANIFEST = """
[server]
name = "post"
[tools.look]
recovery = "read-only"
[tools.send]
recovery = "never-retry"
"""
QUERY = """
[tools.send.query]
tool = "look"
arguments = { key = "$effect" }
field = "status"
happened = ["sent"]
"""
ALL = '@id("all") permit (principal, action, resource);'
COUNTED = """
@id("rare") @rate("1/day") permit (principal, action == Action::"InvokeTool::post.send", resource);
@id("rest") permit (principal, action, resource) unless { action == Action::"InvokeTool::post.send" };
"""


class Post:
    """Sends letters, each as often as it is told to; and a folder in which an agent does."""

    def __init__(self, folder):
        self.folder, self.sent, self.dying, self.clock = folder, [], True, ManualClock()
        (folder / "symbi.toml").write_text(CONFIG)
        (folder / "post.toml").write_text(MANIFEST)
        self.policies = ALL

    async def send(self, values, effect_id):
        self.sent.append(effect_id)
        return RawToolResult("", {"n": len(self.sent), "to": values["to"]}, is_error=False)

    async def look(self, values, _effect_id):
        return RawToolResult("", {"status": "sent" if values["key"] in self.sent else "?"}, is_error=False)

    def probe(self, point):
        if point == "before_settle" and self.dying and self.sent:
            msg = "the process died"
            raise StoreUnavailable(msg)

    def open(self):
        return open_in(self.folder, AGENT, config=CONFIG, policies=self.policies, probe=self.probe, clock=self.clock)

    async def _dies(self):
        async with self.open() as one:
            with pytest.raises(StoreUnavailable):
                await one.runtime.run(one.compiled, one.compiled.agents[0], {"to": "ann"})
        self.dying = False

    def dies(self):
        """Run until the process dies after the letter was sent; returns the effect in doubt."""
        anyio.run(self._dies)
        (found,) = json.loads(self.symbi("effects", "list", "--in-doubt", "--json") or "[]") or self.dispatched()
        return found["effect"]

    def dispatched(self):
        """What is still told as in flight; the next start finds it in doubt."""
        anyio.run(self.started)
        return json.loads(self.symbi("effects", "list", "--in-doubt", "--json"))

    async def started(self):
        async with self.open():
            pass

    async def _resume(self):
        async with self.open() as one:
            record = await one.runtime.find_open_run(None, None)
            return await one.runtime.resume(one.compiled, one.compiled.agents[0], record)

    def resume(self):
        return anyio.run(self._resume)

    def symbi(self, *words, code=0):
        done = CliRunner().invoke(app, [*words, "--config", str(self.folder / "symbi.toml")])
        assert done.exit_code == code, done.output
        return done.stdout if code == 0 else done.stderr

    def events(self, kind):
        with SqliteReader(self.folder / ".symbi") as reader:
            found = [parse_event(stored.record) for stored in reader.read(1)]
        return [event for event in found if event.event_type == kind]

    def counted(self):
        """What the rate has counted."""
        with closing(sqlite3.connect(self.folder / ".symbi" / "symbi.db")) as db:
            return db.execute("SELECT coalesce(sum(total), 0) FROM tallies").fetchone()[0]

    def effect(self, effect_id):
        with SqliteReader(self.folder / ".symbi") as reader:
            return reader.get_effect(effect_id)


@pytest.fixture
def post(tmp_path):
    made = Post(tmp_path)
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "operator.cedar").write_text(ALL)
    with in_place_of({"post": simulated("post", {"send": made.send, "look": made.look})}):
        yield made


def test_what_a_person_says_happened_is_what_the_run_goes_on_with(post):
    effect = post.dies()
    held = post.resume()
    assert (held.state, type(held.error)) == (RunState.HELD, EffectInDoubt)
    assert "waits for a person" in post.symbi("effects", "list", "--in-doubt")
    assert "settle it" in post.symbi("effects", "show", effect)
    said = post.symbi("effects", "settle", effect, "--happened", "--result", '{"n": 7}', "--reason", "the post said so")
    assert f"--run {held.run_id}" in said
    assert post.symbi("effects", "list", "--in-doubt") == "nothing is in doubt\n"
    done = post.resume()
    assert (done.state, done.output) == (RunState.FINISHED, {"n": 7})
    assert post.sent == [effect]
    (event,) = post.events(T.EFFECT_RECONCILED)
    assert event.details["reason"] == "the post said so"
    assert event.details["by"]
    shown = post.symbi("audit", "show", "--type", "effect.reconciled")
    assert "it happened" in shown
    assert "the post said so" in shown
    assert (event.run_id, event.details["outcome"]) == (held.run_id, "happened")
    asked = [e for e in post.events(T.DECISION_ALLOW) if e.details["action"] == "ControlRuntime"]
    assert asked[-1].details["arguments"]["values"]["id"] == effect


def test_what_a_person_says_did_not_happen_is_asked_for_again_through_the_gate(post):
    effect = post.dies()
    post.symbi("effects", "settle", effect, "--not-happened", "--reason", "the letter came back")
    assert post.effect(effect).state is EffectState.UNKNOWN
    assert post.symbi("effects", "list", "--in-doubt") == "nothing is in doubt\n"
    assert "not happened" in post.symbi("effects", "list")
    done = post.resume()
    assert done.output == {"n": 2, "to": "ann"}
    assert post.sent == [effect, effect]  # once in vain, as the person said
    assert (post.effect(effect).state, post.effect(effect).attempt) == (EffectState.CONFIRMED, 2)


@pytest.mark.parametrize(("word", "counted"), [("--happened", 1), ("--not-happened", 0)])
def test_what_is_settled_counts_or_not(post, word, counted):
    post.policies = COUNTED
    effect = post.dies()
    assert post.counted() == 1
    post.symbi("effects", "settle", effect, word, "--reason", "known")
    assert post.counted() == counted
    assert post.resume().state is RunState.FINISHED


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "say what became of it"),
        (("--not-happened",), "say how you know"),
        (("--not-happened", "--reason", "x", "--result", "1"), "has no result"),
        (("--happened", "--result", "{"), "is no JSON"),
        (("--happened", "--reason", "two\nlines"), "one line"),
    ],
)
def test_what_cannot_be_taken_is_refused(post, words, message):
    effect = post.dies()
    assert message in post.symbi("effects", "settle", effect, *words, code=2)
    assert post.effect(effect).state is EffectState.UNKNOWN
    assert post.events(T.EFFECT_RECONCILED) == []


def test_only_what_is_in_doubt_can_be_settled_and_only_once(post):
    assert "no effect `nothing` in doubt" in post.symbi("effects", "settle", "nothing", "--happened", code=2)
    effect = post.dies()
    post.symbi("effects", "settle", effect, "--happened")
    assert "in doubt" in post.symbi("effects", "settle", effect, "--happened", code=2)
    assert len(post.events(T.EFFECT_RECONCILED)) == 1


def test_policy_says_who_may_settle(post):
    effect = post.dies()
    (post.folder / "policies" / "operator.cedar").write_text(
        ALL
        + '\n@id("no") forbid (principal, action == Action::"ControlRuntime", resource == Resource::"effects.settle");'
    )
    assert "no" in post.symbi("effects", "settle", effect, "--happened", code=3)
    assert post.effect(effect).state is EffectState.UNKNOWN


def test_a_start_looks_up_what_can_be_asked_after_by_its_id(post):
    (post.folder / "post.toml").write_text(MANIFEST.replace("never-retry", "reconcilable") + QUERY)
    effect = post.dies()

    async def look_up():
        async with post.open() as one:
            return await Doubt(one.runtime.rooms).look_up()

    (settled,) = anyio.run(look_up)
    assert (settled.effect_id, settled.state) == (effect, EffectState.RECONCILED)
    assert anyio.run(look_up) == []
    done = post.resume()
    assert (done.state, done.output, post.sent) == (RunState.FINISHED, None, [effect])


def test_an_agent_that_stays_goes_on_once_what_it_waits_for_is_settled(post):
    stays = CONFIG + '[agents.sender]\nmode = "persistent"\n'

    async def life(work):
        async with open_in(post.folder, AGENT, config=stays, policies=ALL, probe=post.probe, clock=post.clock) as one:
            one.runtime.roster.declare(one.compiled)
            async with anyio.create_task_group() as tasks:
                await work(one, tasks)
                one.runtime.dispatch.stop(one.runtime.at_work)

    async def begin(one, _tasks):
        await one.runtime.spawn(Order(one.compiled, one.compiled.agents[0]))
        await one.runtime.send("sender", {"to": "ann"})
        with pytest.raises(StoreUnavailable):
            await one.runtime.carry_out_messages()
        post.dying = False

    async def go_on(one, tasks):
        tasks.start_soon(one.runtime.carry_out_messages)
        agents = one.runtime.rooms.agents
        with anyio.fail_after(60):
            while agents.get_agent("sender").state is not AgentState.SUSPENDED:
                await anyio.lowlevel.checkpoint()
            (effect,) = await Doubt(one.runtime.rooms).listed()
            arguments = {"id": effect.effect_id, "happened": True, "result": 7, "reason": "seen"}
            await operate(one.runtime, OPERATIONS, Caller(0, folder_owner=True), "effects.settle", arguments)
            while agents.get_agent("sender").state is not AgentState.READY:
                await anyio.lowlevel.checkpoint()
        assert one.runtime.rooms.runs.get_run(effect.run_id).output == b"7"

    anyio.run(life, begin)
    anyio.run(life, go_on)
    assert len(post.sent) == 1
