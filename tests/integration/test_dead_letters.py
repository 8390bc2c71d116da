"""What was given up: it is kept once, sealed as its run was, replayed once whatever dies when, and dropped for a reason."""

import json
import os
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from typer.testing import CliRunner

from symbi.adapters.sqlite import DATABASE_NAME, SqliteReader
from symbi.agent.journal import RunState
from symbi.agent.task import Task
from symbi.audit.event import AuditEventType, parse_event
from symbi.audit.verify import verify_trail
from symbi.cli.main import app
from symbi.compliance.rooms import Order
from symbi.config import load_settings
from symbi.errors import InputError, InternalError, ToolServerUnavailable
from symbi.guard.budget import Allowance
from symbi.guard.spending import NOTHING, Budget
from symbi.policy.grants import read_grant
from symbi.runtime import letters
from symbi.runtime.course import Order as Who
from symbi.runtime.host import Host
from symbi.runtime.letters import GivenUp, LetterKind, LetterState, Payload, Wanted, read_json
from symbi.runtime.replays import left_open
from symbi.testing.runtime import open_in
from symbi.types import AgentId, Integrity, Label, RunId
from symbi.wiring import verifying_keys

pytestmark = pytest.mark.anyio

PERMIT = "permit (principal, action, resource);"
WORKER = 'agent worker(name: String) { with sandbox = interpreter { log("works"); name } }\n'
GONE = ToolServerUnavailable("tool server `mail` is not connected")
JANE = "jane@example.com"
DRIVER = Path(__file__).parents[1] / "data" / "replay_run.py"
SIGKILLED = -9


@asynccontextmanager
async def opened_in(folder, **more):
    async with open_in(folder, WORKER, policies=PERMIT, **more) as running:
        yield running


async def give_up(running, name="Roswitha", task=None, error=GONE, **more):
    """A run that has ended, as one that nobody could bring to its end."""
    spec = running.compiled.agents[0]
    outcome = await running.runtime.run(running.compiled, spec, {"name": name}, task or Task(), **more)
    return await running.runtime.letters.put(GivenUp(LetterKind.RUN, outcome.run_id, error, 7))


def trail(folder):
    with SqliteReader(folder / ".symbi") as reader:
        return [parse_event(stored.record) for stored in reader.read(1)]


def told(folder, kind):
    return [event for event in trail(folder) if event.event_type == kind]


async def test_a_letter_has_what_its_run_had_and_is_put_once(tmp_path):
    task = Task(read_grant({"mail.send": {}}, ""), {"name": Label(Integrity.UNTRUSTED)})
    async with opened_in(tmp_path) as running:
        queue = running.runtime.letters
        put = await give_up(running, task=task)
        again = await queue.put(GivenUp(LetterKind.RUN, put.run_id, GONE, 99))
        assert again == put
        found = await queue.opened(put.run_id)
        assert (found.state, found.attempts, found.code) == (LetterState.OPEN, 7, "unavailable.tool_server")
        assert read_json(found.inputs) == {"name": "Roswitha"}
        assert found.task.labels["name"].integrity is Integrity.UNTRUSTED
        assert found.task.grant == task.grant
        with pytest.raises(InternalError, match="nothing is on record"):
            await queue.put(GivenUp(LetterKind.RUN, RunId("nobody"), GONE, 1))
    (event,) = told(tmp_path, AuditEventType.LETTER_PUT)
    assert event.run_id == put.run_id
    assert (event.details["code"], event.details["attempts"], event.details["letter_kind"]) == (GONE.code, 7, "run")


async def test_a_replay_is_a_new_run_with_the_same_inputs_labels_and_grant_and_is_done_once(tmp_path):
    task = Task(read_grant({"mail.send": {}}, ""), {"name": Label(Integrity.UNTRUSTED)})
    async with opened_in(tmp_path) as running:
        runtime = running.runtime
        put = await give_up(running, task=task, instance="17")
        old = await runtime.rooms.world.log.read(lambda: runtime.rooms.runs.get_run(put.run_id))
        begun = await runtime.replay(running.compiled, put.run_id, "ada")
        new = await runtime.rooms.world.log.read(lambda: runtime.rooms.runs.get_run(begun.run_id))
        assert new.run_id != old.run_id
        assert new.state is RunState.RUNNING
        assert (new.agent_id, new.inputs, new.labels, new.grant) == (old.agent_id, old.inputs, old.labels, old.grant)
        with pytest.raises(InputError, match=f"replayed as run `{begun.run_id}` before"):
            await runtime.replay(running.compiled, put.run_id, "ada")
        with pytest.raises(InputError, match="replayed as run"):
            await runtime.letters.drop(put.run_id, "ada", "too late")
        outcome = await runtime.resume(running.compiled, running.compiled.agents[0], new)
        assert (outcome.state, outcome.output) == (RunState.FINISHED, "Roswitha")
    (replayed,) = told(tmp_path, AuditEventType.LETTER_REPLAYED)
    assert (replayed.run_id, replayed.details["became"], replayed.details["by"]) == (put.run_id, begun.run_id, "ada")
    started = next(e for e in told(tmp_path, AuditEventType.RUN_STARTED) if e.run_id == begun.run_id)
    assert started.details["letter"] == put.run_id


async def test_many_at_once_replay_a_letter_once(tmp_path):
    async with opened_in(tmp_path) as running:
        put = await give_up(running)
        done, refused = [], []

        async def replay():
            try:
                done.append(await running.runtime.replay(running.compiled, put.run_id, "ada"))
            except InputError as error:
                refused.append(error)

        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(replay)
        assert (len(done), len(refused)) == (1, 19)
        runs = await running.runtime.rooms.world.log.read(lambda: running.runtime.rooms.runs.runs(100))
        assert len(runs) == 2


async def test_an_agent_that_does_not_take_the_inputs_any_more_leaves_the_letter_open(tmp_path):
    async with opened_in(tmp_path) as running:
        put = await give_up(running)
    async with open_in(
        tmp_path, WORKER.replace("name: String", "other: int").replace("; name", ""), policies=PERMIT
    ) as changed:
        with pytest.raises(InputError, match="has no input `name`"):
            await changed.runtime.replay(changed.compiled, put.run_id, "ada")
        assert (await changed.runtime.letters.found(put.run_id)).state is LetterState.OPEN
    async with open_in(tmp_path, WORKER.replace("worker", "other"), policies=PERMIT) as renamed:
        with pytest.raises(InputError, match="declares no agent `worker`"):
            await renamed.runtime.replay(renamed.compiled, put.run_id, "ada")


async def test_a_message_that_nobody_began_is_a_letter_too(tmp_path):
    async with opened_in(tmp_path) as running:
        payload = Payload(AgentId("worker"), str(tmp_path / "agent.symbi"), {"name": "x"}, Task())
        put = await running.runtime.letters.put(GivenUp(LetterKind.MESSAGE, RunId("message-1"), GONE, 0, payload))
        assert (put.kind, put.agent_id) == (LetterKind.MESSAGE, "worker")
        begun = await running.runtime.replay(running.compiled, RunId("message-1"), "ada")
        assert read_json(begun.record.inputs) == {"name": "x"}


async def test_the_newest_letters_of_an_agent_push_out_its_oldest_and_nobody_elses(tmp_path, monkeypatch):
    monkeypatch.setattr(letters, "MAX_OPEN", 3)
    async with opened_in(tmp_path) as running:
        queue = running.runtime.letters
        file = str(tmp_path / "agent.symbi")

        async def put(agent, number):
            payload = Payload(AgentId(agent), file, {"name": "x"}, Task())
            await queue.put(GivenUp(LetterKind.MESSAGE, RunId(f"{agent}-{number}"), GONE, 1, payload))

        await put("quiet", 0)
        for number in range(7):
            await put("loud", number)
            await put("loud/2", number)
        found = await queue.listed(Wanted(state=LetterState.OPEN))
        assert sorted(one.run_id for one in found) == ["loud-6", "loud/2-5", "loud/2-6", "quiet-0"]
        assert all(one.inputs is None for one in await queue.listed(Wanted(state=LetterState.DROPPED)))
    dropped = told(tmp_path, AuditEventType.LETTER_DROPPED)
    assert len(dropped) == 11
    assert {event.details["by"] for event in dropped} == {"symbi.system"}
    assert "was the oldest" in dropped[0].details["reason"]


# --- what is about somebody ----------------------------------------------------------------------


async def test_what_a_letter_says_of_somebody_is_sealed_exported_and_erased(tmp_path):
    failure = ToolServerUnavailable("the server said no to Roswitha")
    async with opened_in(tmp_path) as running:
        runtime = running.runtime
        put = await give_up(running, task=Task(subjects=(JANE,)), error=failure)
        other = await give_up(running, name="Egon")
        assert read_json((await runtime.letters.opened(put.run_id)).inputs) == {"name": "Roswitha"}
        assert b"Roswitha" not in b"".join(
            path.read_bytes() for path in (tmp_path / ".symbi").glob(f"{DATABASE_NAME}*")
        )
        found = await runtime.rooms.privacy.export(Order(JANE))
        places = {record["place"] for record in found["records"]}
        assert {"dead_letters.inputs", "dead_letters.error"} <= places
        told_of = [one["value"] for one in found["records"] if one["place"] == "dead_letters.inputs"]
        assert [one["inputs"] for one in told_of] == [{"name": "Roswitha"}]
        await runtime.rooms.privacy.erase(Order(JANE))
        with pytest.raises(InputError, match="erased"):
            await runtime.replay(running.compiled, put.run_id, "ada")
        assert (await runtime.letters.drop(put.run_id, "ada", "Roswitha is gone")).state is LetterState.DROPPED
        await runtime.replay(running.compiled, other.run_id, "ada")
    dropped = told(tmp_path, AuditEventType.LETTER_DROPPED)[-1]
    assert "reason" not in dropped.details
    assert b"Roswitha" not in b"".join(path.read_bytes() for path in (tmp_path / ".symbi").glob(f"{DATABASE_NAME}*"))


async def test_a_run_that_was_erased_before_it_was_given_up_leaves_no_payload(tmp_path):
    failure = ToolServerUnavailable("the server said no to Roswitha")
    async with opened_in(tmp_path) as running:
        runtime, spec = running.runtime, running.compiled.agents[0]
        outcome = await runtime.run(running.compiled, spec, {"name": "Roswitha"}, Task(subjects=(JANE,)))
        await runtime.rooms.privacy.erase(Order(JANE))
        put = await runtime.letters.put(GivenUp(LetterKind.RUN, outcome.run_id, failure, 2))
        assert put.inputs is None
        with pytest.raises(InputError, match="erased"):
            await runtime.letters.opened(put.run_id)
    assert "Roswitha" not in json.dumps([dict(event.details) for event in told(tmp_path, AuditEventType.LETTER_PUT)])


async def test_a_run_whose_record_was_altered_is_given_up_all_the_same_without_what_it_knew(tmp_path):
    failure = ToolServerUnavailable("the server said no to Roswitha")
    async with opened_in(tmp_path) as running:
        runtime, spec = running.runtime, running.compiled.agents[0]
        outcome = await runtime.run(running.compiled, spec, {"name": "Roswitha"}, Task(subjects=(JANE,)))

        def alter():
            db = runtime.rooms.privacy.rooms.store._db
            db.execute("UPDATE runs SET inputs = CAST(substr(inputs, 1, length(inputs) - 3) || x'000000' AS BLOB)")

        await runtime.rooms.world.log.read(alter)
        put = await runtime.letters.put(GivenUp(LetterKind.RUN, outcome.run_id, failure, 2))
        assert put.inputs is None
        with pytest.raises(InputError, match="nothing is left"):
            await runtime.letters.opened(put.run_id)
        assert (await runtime.letters.drop(put.run_id, "ada", "it was altered")).state is LetterState.DROPPED
    (event,) = told(tmp_path, AuditEventType.LETTER_PUT)
    assert "does not open" in event.details["reason"]


# --- crashes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("point", "begun"), [("before", False), ("after", True), ("at_work", True)])
def test_kill_9_around_a_replay_leaves_the_letter_or_one_run(tmp_path, point, begun):
    async def put():
        async with opened_in(tmp_path) as running:
            return await give_up(running)

    letter = anyio.run(put)
    (tmp_path / "symbi.toml").write_text("")
    killed = subprocess.run(
        [sys.executable, str(DRIVER), str(tmp_path), letter.run_id, point],
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert killed.returncode == SIGKILLED, killed.stderr.decode()

    async def after():
        async with opened_in(tmp_path) as running:
            runtime = running.runtime
            found = (await runtime.letters.listed(Wanted()))[0]
            assert (found.state is LetterState.REPLAYED) is begun
            if not begun:
                await runtime.replay(running.compiled, letter.run_id, "ada")
            host = Host(runtime, [running.compiled])
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(host.run)
                runs = []
                while [run.state for run in runs] != [RunState.FINISHED] * 2:
                    runs = await runtime.rooms.world.log.read(lambda: runtime.rooms.runs.runs(100))
                    assert {run.state for run in runs} <= {RunState.FINISHED, RunState.RUNNING}
                host.stop()

    with_deadline(after)
    settings = load_settings(tmp_path / "symbi.toml")
    with SqliteReader(tmp_path / ".symbi") as reader:
        verify_trail(reader.read(1), reader.head_record(), verifying_keys(settings))
    assert len(told(tmp_path, AuditEventType.LETTER_REPLAYED)) == 1


def with_deadline(work):
    async def bounded():
        with anyio.fail_after(60):
            await work()

    anyio.run(bounded)


# --- who stays carries out -----------------------------------------------------------------------


async def test_a_runtime_that_stays_carries_replays_out_one_after_the_other_of_an_agent(tmp_path):
    lines = []
    async with opened_in(tmp_path, emit=lambda agent, text: lines.append((agent, text))) as running:
        runtime = running.runtime
        put = [await give_up(running, name=f"n{number}") for number in range(5)]
        lines.clear()
        host = Host(runtime, [running.compiled])
        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(host.run)
                while not host.looks:
                    await anyio.lowlevel.checkpoint()
                begun = [await runtime.replay(running.compiled, one.run_id, "ada") for one in put]
                assert [runtime.take_up(one) for one in begun] == [True] * 5
                ended = []
                while len(ended) < 5:
                    runs = await runtime.rooms.world.log.read(lambda: runtime.rooms.runs.runs(100))
                    ended = [r for r in runs if r.run_id in {b.run_id for b in begun} and r.state is RunState.FINISHED]
                host.stop()
        assert len(lines) == 5
        assert runtime.take_up(begun[0]) is False


async def test_however_many_were_replayed_each_run_that_is_open_goes_on_at_the_next_start(tmp_path, monkeypatch):
    monkeypatch.setattr("symbi.adapters.sqlite.dead_letters.MAX_CLOSED", 2)
    async with opened_in(tmp_path) as running:
        put = [await give_up(running, name=f"n{number}") for number in range(5)]
        begun = [(await running.runtime.replay(running.compiled, one.run_id, "ada")).run_id for one in put]
    async with opened_in(tmp_path) as running:
        runtime = running.runtime
        assert [run.run_id for run in await left_open(runtime.rooms)] == begun
        for run in await left_open(runtime.rooms):
            await runtime.resume(running.compiled, running.compiled.agents[0], run)
        assert await left_open(runtime.rooms) == []
        put = [await give_up(running, name="more") for _ in range(3)]
        for one in put:
            await runtime.letters.drop(one.run_id, "ada", "enough")
        assert len(await runtime.letters.listed(Wanted())) == 2


async def test_a_replay_has_the_bounds_of_what_was_given_up(tmp_path):
    async with opened_in(tmp_path) as running:
        letter = await give_up(running, allowance=Allowance(Budget(calls=3, cpu_ms=5000)))
        begun = await running.runtime.replay(running.compiled, letter.run_id, "ada")
        (account,) = await running.runtime.budgets.find(begun.run_id)
        assert (account.most, account.spent, account.held) == (Budget(calls=3, cpu_ms=5000), NOTHING, NOTHING)
        free = await running.runtime.replay(running.compiled, (await give_up(running)).run_id, "ada")
        with pytest.raises(InputError, match="has a budget"):
            await running.runtime.budgets.find(free.run_id)


# --- the commands --------------------------------------------------------------------------------


def said(folder, *arguments):
    before = Path.cwd()
    os.chdir(folder)
    try:
        done = CliRunner().invoke(app, arguments, env={"SYMBI_LOG_LEVEL": "error"})
    finally:
        os.chdir(before)
    assert done.exception is None or isinstance(done.exception, SystemExit), repr(done.exception)
    return done.exit_code, done.stdout, done.stderr


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "symbi.toml").write_text("")

    async def put():
        async with opened_in(tmp_path) as running:
            return [(await give_up(running, name=f"n{number}")).run_id for number in range(4)]

    return tmp_path, anyio.run(put)


def test_letters_are_listed_shown_replayed_and_dropped(folder):
    place, given = folder
    code, out, _ = said(place, "dlq", "list", "--json")
    assert (code, [row["letter"] for row in json.loads(out)]) == (0, given[::-1])
    assert "unavailable.tool_server" in said(place, "dlq", "list")[1]
    code, out, _ = said(place, "dlq", "show", given[0])
    assert (code, "after 7 attempts" in out, "not connected" in out, '"name": "n0"' in out or '"name":"n0"' in out) == (
        0, True, True, True,
    ), out  # fmt: skip
    shown = json.loads(said(place, "dlq", "show", given[0], "--json")[1])
    assert (shown["inputs"], shown["error"]["code"]) == ({"name": "n0"}, "unavailable.tool_server")
    code, out, err = said(place, "dlq", "replay", given[0])
    assert (code, "is run" in out, "finished" in out) == (0, True, True), err
    code, _, err = said(place, "dlq", "replay", given[0])
    assert (code, "was replayed as run" in err) == (2, True), err
    code, out, err = said(place, "dlq", "drop", given[1], "--reason", "nobody needs it", "--json")
    assert (code, json.loads(out)) == (0, {"dropped": [given[1]]}), err
    code, out, _ = said(place, "dlq", "show", given[1])
    assert "dropped by" in out
    assert "nobody needs it" in out
    code, out, err = said(place, "dlq", "replay", "--all-of", "worker", "--json")
    answer = json.loads(out)
    assert (code, [row["letter"] for row in answer["replayed"]]) == (0, given[2:]), err
    assert {row["output"] for row in answer["replayed"]} == {"n2", "n3"}
    assert said(place, "dlq", "list")[1] == "no open dead letters\n"
    assert len(json.loads(said(place, "dlq", "list", "--state", "all", "--json")[1])) == 4


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("dlq", "replay"), "name a dead letter"),
        (("dlq", "replay", "a", "--all-of", "b"), "name a dead letter"),
        (("dlq", "replay", "nothing"), "there is no dead letter `nothing`"),
        (("dlq", "replay", "--all-of", "nobody"), "has no open dead letter"),
        (("dlq", "drop", "nothing", "--reason", "x"), "there is no dead letter"),
        (("dlq", "drop", "x"), "--reason"),
        (("dlq", "drop", "x", "--reason", "a\nb"), "one line"),
        (("dlq", "show", "nothing"), "there is no dead letter"),
        (("dlq", "list", "--state", "opne"), "did you mean `open`?"),
    ],
)
def test_bad_input_says_what_is_wrong(folder, arguments, what):
    code, _, err = said(folder[0], *arguments)
    assert (code, what in err) == (2, True), err


def test_a_policy_decides_who_may_replay_and_drop(folder):
    place, given = folder
    forbidden = "".join(
        f'forbid (principal, action, resource == Resource::"dlq.{name}");\n' for name in ("replay", "drop")
    )
    (place / "policies" / "operator.cedar").write_text(f"{PERMIT}\n{forbidden}")
    for arguments in (("replay", given[0]), ("drop", given[0], "--reason", "x")):
        code, _, err = said(place, "dlq", *arguments)
        assert code == 3, err
    assert len(json.loads(said(place, "dlq", "list", "--json")[1])) == 4


def test_an_agent_that_is_denied_leaves_its_replayed_run_and_the_commands_say_so(folder):
    place, given = folder
    (place / "policies" / "operator.cedar").write_text(
        f'{PERMIT}\nforbid (principal, action == Action::"CreateAgent", resource);'
    )
    code, _, err = said(place, "dlq", "replay", given[0], "--json")
    assert code == 3, err


async def test_an_agent_that_stays_gets_it_as_a_message_and_once(tmp_path):
    config = '[agents.worker]\nmode = "persistent"\n'
    async with opened_in(tmp_path, config=config) as running:
        runtime, spec = running.runtime, running.compiled.agents[0]
        await runtime.spawn(Who(running.compiled, spec))
        payload = Payload(
            AgentId("worker"), str(tmp_path / "agent.symbi"), {"name": "Roswitha"}, Task(subjects=(JANE,))
        )
        await runtime.letters.put(GivenUp(LetterKind.MESSAGE, RunId("message-1"), GONE, 3, payload))
        begun = await runtime.replay(running.compiled, RunId("message-1"), "ada")
        assert begun.record is None
        with pytest.raises(InputError, match="was replayed"):
            await runtime.replay(running.compiled, RunId("message-1"), "ada")
        assert b"Roswitha" not in b"".join(
            path.read_bytes() for path in (tmp_path / ".symbi").glob(f"{DATABASE_NAME}*")
        )
        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(runtime.carry_out_messages)
                run = None
                while run is None or run.state is not RunState.FINISHED:
                    run = await runtime.rooms.world.log.read(lambda: runtime.rooms.runs.get_run(begun.run_id))
                runtime.dispatch.stop()
        assert run.agent_id == "worker"


def test_a_runtime_that_is_alive_is_asked_and_carries_it_out(folder):
    place, given = folder
    assert said(place, "tools", "servers")[0] == 5
    with (place / "said").open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, "-c", "from symbi.cli.main import main; main()", "up", "agent.symbi"],
            cwd=place, env={**os.environ, "SYMBI_LOG_LEVEL": "error"}, stderr=stream,
        )  # fmt: skip
    try:
        while said(place, "tools", "servers", "--json")[0] != 0:
            assert process.poll() is None
        assert said(place, "tools", "servers")[1] == "no tool server is configured\n"
        code, out, err = said(place, "dlq", "replay", "--all-of", "worker")
        assert (code, out.count("it is carried out in its turn")) == (0, 4), err
        runs = []
        while [run["state"] for run in runs] != ["finished"] * 8:
            assert process.poll() is None
            runs = json.loads(said(place, "runs", "list", "--json")[1])
        code, _, err = said(place, "dlq", "drop", given[0], "--reason", "too late")
        assert (code, "was replayed as run" in err) == (2, True), err
    finally:
        process.terminate()
        process.wait(timeout=60)
    assert process.returncode == 0
