"""`symbi agents` and `symbi runs` on a runtime that stays: list, suspend, resume, stop, and the kill switch under load."""

import json
import os
import subprocess
import sys
from pathlib import Path

import anyio
import pytest
from typer.testing import CliRunner

from symbi.adapters.sqlite import SqliteReader
from symbi.audit.event import AuditEventType, parse_event
from symbi.cli.main import app
from symbi.errors import InputError
from symbi.testing.runtime import open_in

pytestmark = pytest.mark.anyio

PERMIT = "permit (principal, action, resource);"
COUNT = 6
AGENTS = "".join(
    f'agent w{n} {{ with sandbox = interpreter, timeout = 300.seconds {{ for i in range(50000) {{ log("line"); }} }} }}\n'
    for n in range(COUNT)
)
CONFIG = f"[limits]\nmemory_mb = {64 * COUNT}\ncpu_cores = 64.0\nsteps = 1000000000\n"


def events(folder, kind):
    with SqliteReader(folder / ".symbi") as reader:
        found = [parse_event(stored.record) for stored in reader.read(1)]
    return [event for event in found if event.event_type == kind]


class Works:
    """Agents that would write lines for ever, in one runtime."""

    def __init__(self, opened, lines):
        self.runtime, self.opened, self.lines, self.outcomes = opened.runtime, opened, lines, {}

    async def run(self, name):
        spec = next(one for one in self.opened.compiled.agents if one.id == name)
        self.outcomes[name] = await self.runtime.run(self.opened.compiled, spec, {})

    async def until(self, condition):
        while not condition():
            await anyio.lowlevel.checkpoint()


async def play(folder, names, act):
    lines = []
    with anyio.fail_after(120):
        async with open_in(
            folder, AGENTS, config=CONFIG, policies=PERMIT, emit=lambda agent, _: lines.append(agent)
        ) as opened:
            works = Works(opened, lines)
            before = (await works.runtime.get_system_status()).free
            async with anyio.create_task_group() as tasks:
                for name in names:
                    tasks.start_soon(works.run, name)
                await works.until(lambda: set(lines) == set(names))
                await act(works)
            assert (await works.runtime.get_system_status()).free == before
            assert works.runtime.at_work == ()
    return works


async def test_the_kill_switch_stops_all_under_load_and_the_trail_says_who(tmp_path):
    async def act(works):
        stopped = await works.runtime.stop(None, "ada")
        assert len(stopped) == COUNT
        assert works.runtime.at_work == ()

    works = await play(tmp_path, [f"w{n}" for n in range(COUNT)], act)
    assert {outcome.error.code for outcome in works.outcomes.values()} == {"agent.stopped"}
    assert {outcome.state.value for outcome in works.outcomes.values()} == {"failed"}
    ends = [e for e in events(tmp_path, AuditEventType.AGENT_TRANSITION) if e.details["to"] == "Terminated"]
    assert [event.details["by"] for event in ends] == ["ada"] * COUNT
    assert len(events(tmp_path, AuditEventType.RUN_FINISHED)) == COUNT


async def test_one_is_stopped_and_the_others_go_on(tmp_path):
    async def act(works):
        with pytest.raises(InputError, match="`w9` is not at work"):
            await works.runtime.stop(("w0", "w9"), "ada")
        await works.runtime.stop(("w0",), "ada")
        seen = works.lines.count("w1")
        await works.until(lambda: works.lines.count("w1") > seen + 3)
        assert [one.life.agent for one in works.runtime.at_work] == ["w1"]
        await works.runtime.stop(None, "ada")

    await play(tmp_path, ["w0", "w1"], act)


async def test_an_operator_suspends_an_agent_and_lets_it_go_on(tmp_path):
    async def act(works):
        runtime = works.runtime
        await runtime.suspend("w0", "ada")
        with pytest.raises(InputError, match="suspended by `ada` already"):
            await runtime.suspend("w0", "bob")
        await works.until(lambda: runtime.at_work[0].life.state.value == "Suspended")
        held = works.lines.count("w0")
        seen = works.lines.count("w1")
        await works.until(lambda: works.lines.count("w1") > seen + 5)
        assert works.lines.count("w0") == held
        runtime.let_go_on("w0")
        with pytest.raises(InputError, match="not suspended by an operator"):
            runtime.let_go_on("w1")
        await works.until(lambda: works.lines.count("w0") > held + 3)
        await runtime.suspend("w1", "ada")
        await works.until(lambda: runtime.at_work[1].life.state.value == "Suspended")
        await runtime.stop(None, "bob")

    await play(tmp_path, ["w0", "w1"], act)
    told = [e.details for e in events(tmp_path, AuditEventType.AGENT_TRANSITION)]
    assert [
        (d["from"], d["event"], d.get("by")) for d in told if d["event"] in {"Suspended by Operator", "Resumed"}
    ] == [
        ("Running", "Suspended by Operator", "ada"),
        ("Suspended", "Resumed", None),
        ("Running", "Suspended by Operator", "ada"),
    ]
    assert ("Suspended", "Manual Override") in {(d["from"], d["event"]) for d in told}


TICK = """
agent tick { with sandbox = interpreter, timeout = 60.seconds { for i in range(50000) { log("line"); } } }
schedule s { cron = "* * * * * *" agent = tick }
"""


def said(folder, *arguments):
    before = Path.cwd()
    os.chdir(folder)
    try:
        done = CliRunner().invoke(app, arguments, env={"SYMBI_LOG_LEVEL": "error"})
    finally:
        os.chdir(before)
    assert done.exception is None or isinstance(done.exception, SystemExit), repr(done.exception)
    return done.exit_code, done.stdout, done.stderr


def test_the_commands_act_on_a_runtime_that_is_alive(tmp_path):
    (tmp_path / "tick.symbi").write_text(TICK)
    (tmp_path / "policies").mkdir()
    base = f"{PERMIT}\n"
    (tmp_path / "policies" / "p.cedar").write_text(base)
    code, _, err = said(tmp_path, "agents", "list")
    assert code == 5
    assert "no runtime is alive" in err
    said_there = tmp_path / "said"
    with said_there.open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, "-c", "from symbi.cli.main import main; main()", "up", "tick.symbi"],
            cwd=tmp_path, env={**os.environ, "SYMBI_LOG_LEVEL": "error"}, stderr=stream,
        )  # fmt: skip
    try:
        while "tick |" not in said_there.read_text():
            assert process.poll() is None
        code, out, _ = said(tmp_path, "agents", "list", "--json")
        listed = json.loads(out)
        assert [row["agent"] for row in listed["agents"]] == ["tick"]
        code, out, _ = said(tmp_path, "agents", "list")
        assert "tick Running" in out
        assert "1 at work" in out
        code, out, _ = said(tmp_path, "agents", "show", "tick")
        assert (code, "tick is Running" in out, "milli-cores are held; normal" in out) == (0, True, True), out
        assert said(tmp_path, "agents", "show", "tock")[0] == 2
        assert said(tmp_path, "agents", "suspend", "tick")[0] == 0
        assert said(tmp_path, "agents", "suspend", "tock")[0] == 2
        assert said(tmp_path, "agents", "resume", "tick")[0] == 0
        assert said(tmp_path, "agents", "stop")[0] == 2
        code, out, err = said(tmp_path, "agents", "stop", "--all")
        assert (code, out) == (0, "stopped 1; nothing begins until `symbi agents resume --all`\n"), err
        run_id = listed["agents"][0]["run"]
        code, out, _ = said(tmp_path, "runs", "list", "--state", "failed", "--json")
        assert run_id in {row["run"] for row in json.loads(out)}
        code, out, _ = said(tmp_path, "runs", "show", run_id)
        assert "is failed" in out
        assert "WriteLog" in out
        assert "was stopped by" in out
        assert said(tmp_path, "runs", "show", "nothing")[0] == 2
        assert said(tmp_path, "runs", "list", "--state", "faild")[0] == 2
    finally:
        process.terminate()
        process.wait(timeout=60)


@pytest.mark.parametrize("command", ["up", "run"])
def test_a_standard_error_that_nobody_reads_holds_nothing_up(tmp_path, command):
    (tmp_path / "tick.symbi").write_text(TICK.replace('"line"', f'"{"x" * 2000}"'))
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "p.cedar").write_text(PERMIT)
    process = subprocess.Popen(
        [sys.executable, "-c", "from symbi.cli.main import main; main()", command, "tick.symbi"],
        cwd=tmp_path, env={**os.environ, "SYMBI_LOG_LEVEL": "error"}, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        lines = 0
        while lines * 2000 < 4 * 65_536:  # more than a pipe holds
            assert process.poll() is None
            code, out, _ = said(tmp_path, "runs", "list", "--json")
            if code == 0 and (runs := json.loads(out)):
                lines = len(json.loads(said(tmp_path, "runs", "show", runs[0]["run"], "--json")[1])["effects"])
        code, out, _ = said(tmp_path, "agents", "stop", "--all")
        if command == "up":
            assert (code, out.partition(";")[0]) == (0, "stopped 1")
            process.terminate()
        process.wait(timeout=60)  # who was to run one agent ends with it
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == (0 if command == "up" else 1)  # where its one run was stopped


def test_what_is_shown_of_a_run_about_somebody_opens_and_is_gone_once_it_is_erased(tmp_path):
    (tmp_path / "odd.symbi").write_text("agent odd(name: String) { with sandbox = interpreter { int(name) } }")
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "p.cedar").write_text(PERMIT)
    code, _, _ = said(tmp_path, "run", "odd.symbi", "--input", "name=Roswitha", "--subject", "r@example.com")
    assert code == 1
    (row,) = json.loads(said(tmp_path, "runs", "list", "--json")[1])
    assert row["error"]["code"] == "agent.script"
    assert said(tmp_path, "privacy", "erase", "r@example.com")[0] == 0
    code, out, _ = said(tmp_path, "runs", "show", row["run"], "--json")
    assert (code, json.loads(out)["error"]) == (0, {"message": "[erased]"})


WORKER = """
agent worker(n: int) { with sandbox = interpreter { log("had a message"); n + 1 } }
"""
STAYS = '[agents.worker]\nmode = "persistent"\n'


def written(folder, files):
    (folder / "policies").mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)


def refused_at_once(tmp_path):
    """What is wrong is said at once, and says what was meant."""
    for arguments, told in (
        (("send", "workr"), "worker"),
        (("send", "worker/4"), "did you mean `worker/"),
        (("send", "worker"), "needs the input `n`"),
        (("send", "worker", "--input", "n=x"), "must be int"),
        (("send", "worker", "--json-inputs", "[1]"), "no JSON object"),
        (("send", "worker", "--input", "n=1", "--after", "soon"), "`--after soon` is no time"),
        (("send", "worker", "--input", "n=1", "--expires", "until-decided"), "`--expires until-decided` is no time"),
        (("send", "worker", "--input", "n=1", "--after", "9s", "--expires", "9s"), "expire later than it is due"),
        (("spawn", "worker"), "is there already"),
        (("resume", "worker"), "not suspended"),
        (("list", "--state", "asleep"), "Suspended"),
    ):
        code, _, err = said(tmp_path, "agents", *arguments)
        assert (code, told in err) == (2, True), (arguments, err)


def test_agents_that_stay_are_made_sent_messages_and_put_away(tmp_path):
    written(tmp_path, {"worker.symbi": WORKER, "symbi.toml": STAYS, "policies/p.cedar": PERMIT})
    said_there = tmp_path / "said"
    with said_there.open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, "-c", "from symbi.cli.main import main; main()", "up", "worker.symbi"],
            cwd=tmp_path, env={**os.environ, "SYMBI_LOG_LEVEL": "error"}, stderr=stream,
        )  # fmt: skip
    try:
        while "agent worker stays" not in said_there.read_text():
            assert process.poll() is None
        while (listed := said(tmp_path, "agents", "list", "--json"))[0] or not json.loads(listed[1])["persistent"]:
            assert process.poll() is None
        code, out, err = said(tmp_path, "agents", "send", "worker", "--input", "n=41", "--json")
        assert code == 0, err
        run_id = json.loads(out)["message"]
        while said_there.read_text().count("had a message") < 1:
            assert process.poll() is None
        code, out, _ = said(tmp_path, "agents", "spawn", "worker", "--count", "3")
        assert (code, out) == (0, "worker/1 to worker/3: 3 made\n")
        assert said(tmp_path, "agents", "spawn", "worker", "--instance", "x")[0] == 0
        code, out, _ = said(tmp_path, "agents", "list", "--limit", "2")
        assert "worker is Ready" in out
        assert "5 Ready; 5 in memory" in out
        assert "agents list --after worker/1" in out
        assert "worker/2" not in out
        code, out, _ = said(tmp_path, "agents", "show", "worker/x")
        assert (code, "worker/x is Ready" in out, "0 messages wait" in out) == (0, True, True), out
        refused_at_once(tmp_path)
        assert said(tmp_path, "agents", "suspend", "worker/x")[0] == 0
        assert said(tmp_path, "agents", "send", "worker/x", "--json-inputs", '{"n": 1}', "--after", "1ms")[0] == 0
        code, out, _ = said(tmp_path, "agents", "list", "--state", "suspended", "--json")
        (row,) = json.loads(out)["persistent"]
        assert (row["agent"], row["reason"].startswith("Suspended by Operator")) == ("worker/x", True)
        assert said(tmp_path, "agents", "stop", "--all")[0] == 0
        assert said(tmp_path, "agents", "resume", "worker/x")[0] == 0
        assert "has stopped everything" in said(tmp_path, "agents", "list")[1]
        assert said_there.read_text().count("had a message") == 1
        assert said(tmp_path, "agents", "resume", "--all")[:2] == (0, "things begin again\n")
        while said_there.read_text().count("had a message") < 2:
            assert process.poll() is None
        assert said(tmp_path, "agents", "stop", "worker")[:2] == (0, "worker is stopped, and 0 runs of it\n")
        code, _, err = said(tmp_path, "agents", "send", "worker", "--input", "n=1")
        assert (code, "Terminated and takes no messages" in err) == (2, True), err
    finally:
        process.terminate()
        process.wait(timeout=60)
    assert process.returncode == 0
    code, out, _ = said(tmp_path, "runs", "show", run_id)
    assert "is finished" in out
    sent = [
        e for e in events(tmp_path, AuditEventType.DECISION_ALLOW) if e.details["resource"] == "Resource::agents.send"
    ]
    assert len(sent) == 8, "two that were taken, and six that the runtime refused"
    assert not [event for event in sent if "41" in json.dumps(event.details["arguments"])], "what is sent is not shown"
