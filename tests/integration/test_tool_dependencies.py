"""Real tool servers that die under an agent: started again, left alone, and every refusal at its place in the run."""

import os
import signal

import anyio
import pytest

from symbi.adapters.sqlite import SqliteReader
from symbi.agent.journal import RunState
from symbi.audit.event import AuditEventType, parse_event
from symbi.guard.approval import OPEN
from symbi.guard.desk import Ballot
from symbi.guard.ledger import EffectState
from symbi.testing.runtime import open_in

pytestmark = pytest.mark.anyio

PEOPLE = '[approvals.people.ada]\nuser = "0"\ngroups = ["ops"]\n'
PERMIT = "permit (principal, action, resource);"
CONFIG = """
[mcp]
tool_verification = "tofu"
[mcp.servers.dying]
command = ["{{python}}", "{script}"]
manifest = "dying.toml"
breaker_failures = {failures}
breaker_open_s = 300.0
"""
MANIFEST = '[server]\nname = "dying"\n[tools.echo]\nrecovery = "{recovery}"\n'
ECHO = 'tool("dying.echo", text = "{text}")'
CAUGHT = """
    try {{ tool("dying.echo", text = "{text}") }} catch (e) {{ log(e.code); "" }}
"""


@pytest.fixture
def place(tmp_path, root):
    def prepare(*, failures=5, recovery="never-retry"):
        (tmp_path / "dying.toml").write_text(MANIFEST.format(recovery=recovery))
        script = root / "tests" / "data" / "servers" / "dying.py"
        return tmp_path, CONFIG.format(script=script, failures=failures)

    return prepare


def agent(*lines):
    body = "\n".join(lines)
    return f"agent a {{ with sandbox = interpreter, timeout = 60.seconds {{ {body} }} }}"


async def run(running, **more):
    return await running.runtime.run(running.compiled, running.compiled.agents[0], {}, **more)


def told(folder, *kinds):
    with SqliteReader(folder / ".symbi") as reader:
        events = [parse_event(stored.record) for stored in reader.read(1)]
    return [event for event in events if event.event_type in kinds]


def counted(folder, name):
    path = folder / name
    return len(path.read_text()) if path.exists() else 0


async def test_a_server_that_died_is_started_again_at_the_next_call_of_a_run(place):
    folder, config = place()
    text = agent(ECHO.format(text="1") + ";", 'approval("ops", "go on?");', ECHO.format(text="2") + ";", '"done"')
    outcomes = []
    async with open_in(folder, text, config=config + PEOPLE, policies=PERMIT, hold_s=None) as running:
        desk, catalog = running.runtime.desk, running.runtime.catalog

        async def work():
            outcomes.append(await run(running))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(work)
            while not (waiting := await desk.listed(tuple(OPEN))):
                assert not outcomes
                await anyio.lowlevel.checkpoint()
            os.kill(int((folder / "pid").read_text()), signal.SIGKILL)
            while catalog.is_connected("dying"):
                await anyio.lowlevel.checkpoint()
            await desk.vote(Ballot(waiting[0].id, waiting[0].digest, agrees=True, uid=0))
        assert [(one.state, one.error) for one in outcomes] == [(RunState.FINISHED, None)]
        assert (counted(folder, "starts"), counted(folder, "calls")) == (2, 2)
    connected = [e for e in told(folder, AuditEventType.DECISION_ALLOW) if e.details["action"] == "ConnectServer"]
    assert len(connected) == 2


async def test_runs_side_by_side_share_one_process(place):
    folder, config = place()
    text = agent(*(ECHO.format(text=f"{n}") + ";" for n in range(5)), '"done"')
    async with open_in(folder, text, config=config, policies=PERMIT) as running:
        states = []

        async def one(number):
            states.append((await run(running, instance=f"{number}")).state)

        async with anyio.create_task_group() as tasks:
            for number in range(8):
                tasks.start_soon(one, number)
        assert states == [RunState.FINISHED] * 8
    assert (counted(folder, "starts"), counted(folder, "calls")) == (1, 40)


async def test_an_open_breaker_is_a_refusal_at_its_place_which_a_body_can_catch_and_a_replay_repeats(place):
    folder, config = place(failures=1)
    (folder / "die").touch()
    text = agent(*(CAUGHT.format(text=f"{n}") for n in range(4)), 'approval("ops", "go on?"); "done"')
    lines = []
    async with open_in(
        folder, text, config=config + PEOPLE, policies=PERMIT, emit=lambda _agent, line: lines.append(line)
    ) as running:
        outcome = await run(running)
        assert outcome.state is RunState.HELD
        assert counted(folder, "calls") == 1
        runtime = running.runtime
        records = await runtime.rooms.world.log.read(lambda: runtime.rooms.effects.effects_of(outcome.run_id))
        refused = [one for one in records if one.state is EffectState.DENIED]
        assert len(refused) == 3
        assert lines[-3:] == ["unavailable.circuit_open"] * 3
    assert [event.details["code"] for event in told(folder, AuditEventType.TOOL_REFUSED)] == lines[-3:]
    (opened,) = told(folder, AuditEventType.DEPENDENCY_OPENED)
    assert opened.details["dependency"] == "mcp.servers.dying"
    (folder / "die").unlink()
    lines.clear()
    async with open_in(
        folder, text, config=config + PEOPLE, policies=PERMIT, emit=lambda _agent, line: lines.append(line)
    ) as running:
        record = await running.runtime.find_open_run(outcome.run_id, None)
        again = await running.runtime.resume(running.compiled, running.compiled.agents[0], record)
        assert again.state is RunState.HELD
        assert again.replayed == outcome.effects - 1
    assert counted(folder, "calls") == 1


async def test_a_call_that_is_tried_again_behind_an_open_breaker_is_refused_there_and_no_defect(place):
    """The server died within a read-only call, and is left alone when the call is tried again in place."""
    folder, config = place(failures=1, recovery="read-only")
    (folder / "die").touch()
    lines = []
    async with open_in(
        folder,
        agent(CAUGHT.format(text="1")),
        config=config,
        policies=PERMIT,
        emit=lambda _agent, line: lines.append(line),
    ) as running:
        outcome = await run(running)
        assert (outcome.state, outcome.error) == (RunState.FINISHED, None)
        records = await running.runtime.rooms.world.log.read(
            lambda: running.runtime.rooms.effects.effects_of(outcome.run_id)
        )
    assert lines == ["unavailable.circuit_open"]
    assert (records[0].state, records[0].attempt) == (EffectState.DENIED, 2)
    assert counted(folder, "calls") == 1
