"""The control socket: who the system says is there, what the runtime started, what lies in the way, and long paths."""

import contextlib
import errno
import json
import os
import shutil
import socket
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from click.testing import Result
from typer.testing import CliRunner

from symbi.api.client import ask_owner, connect_owner
from symbi.api.control import MAX_OPERATIONS, OPERATIONS, SOCKET_NAME, ControlSocket, Peer, descends_from, peer_of
from symbi.cli.main import app
from symbi.cli.output import EXIT_UNAVAILABLE
from symbi.errors import ApprovalPending, InputError, PolicyDenied, StoreUnavailable, SymbiError
from symbi.guard.action import RunSlot, WriteLog
from symbi.policy.library import BASE
from symbi.testing.runtime import open_in
from symbi.types import AgentId, Principal, RunId

pytestmark = pytest.mark.anyio

AGENT = 'agent a() { with { "done" } }'
ASKS = '@id("ask") @approval("why") permit (principal, action == Action::"WriteLog", resource);'


@asynccontextmanager
async def served(folder: Path, policy: str = BASE.text + ASKS, **more):
    """A runtime with its socket, and an action that waits for people."""
    (folder / "policies").mkdir(parents=True, exist_ok=True)
    (folder / "policies" / "p.cedar").write_text(policy)
    async with open_in(folder, AGENT) as running, ControlSocket(running.runtime, folder / ".symbi", **more):
        action = WriteLog(principal=Principal(AgentId("a")), slot=RunSlot(RunId("r"), 0), message="x")
        with pytest.raises(ApprovalPending) as pending:
            async with running.runtime.guard.enforce(action):
                pytest.fail("the body ran")
        record = await running.runtime.desk.find(str(pending.value.fields["approval"]))
        yield running.runtime, record


async def ask(folder: Path, operation: str, **arguments: object) -> object:
    def work() -> object:
        connection = connect_owner(folder / ".symbi")
        assert connection is not None
        return ask_owner(connection, operation, arguments)

    return await anyio.to_thread.run_sync(work, limiter=anyio.CapacityLimiter(1))  # each on a thread of its own


async def test_the_owner_of_the_folder_lists_and_approves(tmp_path):
    async with served(tmp_path) as (runtime, record):
        (row,) = await ask(tmp_path, "approvals.list")
        assert row["id"] == record.id
        after = await ask(tmp_path, "approvals.approve", id=record.id, digest=record.digest)
        assert after["state"] == "granted"
        assert (await runtime.desk.find(record.id)).votes[0].uid == os.geteuid()


async def test_another_user_is_refused_by_default_and_never_votes(tmp_path):
    """The base policies permit the folder's owner alone; whatever policies say, an unknown user is no person."""
    stranger = {"peer": lambda _: Peer(os.getpid(), 65_534)}
    async with served(tmp_path, **stranger) as (runtime, record):
        for operation in ("approvals.list", "approvals.show", "approvals.approve", "approvals.deny"):
            with pytest.raises(PolicyDenied, match="no policy permits `ControlRuntime`"):
                await ask(tmp_path, operation, id=record.id, digest=record.digest)
        assert (await runtime.desk.find(record.id)).votes == ()
    everybody = BASE.text + ASKS + 'permit (principal, action == Action::"ControlRuntime", resource);'
    async with served(tmp_path / "more", everybody, **stranger) as (runtime, record):
        assert await ask(tmp_path / "more", "approvals.list")
        for operation in ("approvals.approve", "approvals.deny"):
            with pytest.raises(PolicyDenied, match="no registered person"):
                await ask(tmp_path / "more", operation, id=record.id, digest=record.digest)
        assert (await runtime.desk.find(record.id)).votes == ()


CLOCK = '@id("clock") permit (principal, action == Action::"ReadClock", resource);'


async def test_the_owner_of_the_folder_puts_other_policies_in_force(tmp_path):
    (tmp_path / "next").mkdir()
    (tmp_path / "next/n.cedar").write_text(BASE.text + CLOCK)
    async with served(tmp_path) as (runtime, _):
        before = runtime.policies.current
        for paths in (None, "next", [1], [["next"]], ["a\0b"], [""], []):
            with pytest.raises(InputError):
                await ask(tmp_path, "policy.set", paths=paths)
        with pytest.raises(InputError, match="is not there"):
            await ask(tmp_path, "policy.set", paths=[str(tmp_path / "absent")])
        assert runtime.policies.current is before

        def command() -> Result:
            return CliRunner().invoke(
                app, ["policy", "set", str(tmp_path / "next"), "--json", "--config", str(tmp_path / "symbi.toml")]
            )

        (tmp_path / "symbi.toml").write_text(f'[runtime]\ndata_dir = "{tmp_path / ".symbi"}"\n')
        done = await anyio.to_thread.run_sync(command)
        assert done.exit_code == 0, done.output
        said = json.loads(done.stdout)
        assert said["version"] == runtime.policies.current.version != said["previous"] == before.version
        assert "clock" in runtime.policies.current.by_id
        assert "ask" not in runtime.policies.current.by_id
    refused = CliRunner().invoke(
        app, ["policy", "set", str(tmp_path / "next"), "--json", "--config", str(tmp_path / "symbi.toml")]
    )
    assert refused.exit_code == EXIT_UNAVAILABLE
    assert "no runtime is alive" in refused.output


async def test_a_stranger_and_an_agent_put_no_policies_in_force(tmp_path):
    (tmp_path / "next").mkdir()
    (tmp_path / "next/n.cedar").write_text("permit (principal, action, resource);")
    async with served(tmp_path, peer=lambda _: Peer(os.getpid(), 65_534)) as (runtime, _):
        before = runtime.policies.current
        with pytest.raises(PolicyDenied, match="no policy permits `ControlRuntime`"):
            await ask(tmp_path, "policy.set", paths=[str(tmp_path / "next")])
        with pytest.raises(PolicyDenied, match="no policy permits `ConfigurePolicies`"):
            await runtime.set_policies(Principal(AgentId("a")), [str(tmp_path / "next")])
        assert runtime.policies.current is before


async def test_who_may_ask_still_needs_the_permit_for_the_policies(tmp_path):
    (tmp_path / "next").mkdir()
    only_asks = ASKS + 'permit (principal, action == Action::"ControlRuntime", resource);'
    async with served(tmp_path, only_asks) as (runtime, _):
        before = runtime.policies.current
        with pytest.raises(PolicyDenied, match="no policy permits `ConfigurePolicies`"):
            await ask(tmp_path, "policy.set", paths=[str(tmp_path / "next")])
        assert runtime.policies.current is before


async def test_a_name_in_the_request_changes_nothing(tmp_path):
    async with served(tmp_path, peer=lambda _: Peer(os.getpid(), 65_534)) as (_, record):
        with pytest.raises(PolicyDenied):
            await ask(
                tmp_path, "approvals.approve", id=record.id, digest=record.digest, uid=os.geteuid(), person="root"
            )


async def test_what_the_runtime_started_gives_it_no_orders(tmp_path):
    """A tool server runs as our user and is still nobody to approve what it was asked to do."""
    async with served(tmp_path) as (runtime, record):
        program = (
            "import json, socket, sys\n"
            "s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])\n"
            "s.sendall(json.dumps({'operation': 'approvals.approve',"
            " 'arguments': {'id': sys.argv[2], 'digest': sys.argv[3]}}).encode() + b'\\n')\n"
            "print(s.makefile().read())\n"
        )
        command = [sys.executable, "-c", program, str(tmp_path / ".symbi" / SOCKET_NAME), record.id, record.digest]
        if len(command[3]) > 100:
            pytest.skip("the path of the test's folder is too long for a plain client")
        done = await anyio.run_process(command)
        assert json.loads(done.stdout)["error"]["code"] == "control.descendant"
        assert (await runtime.desk.find(record.id)).votes == ()


def test_descent_is_seen_through_several_processes():
    here = os.getpid()
    child = subprocess.Popen(["/bin/sh", "-c", "sleep 30 & echo $!; wait"], stdout=subprocess.PIPE, text=True)
    try:
        grandchild = int(child.stdout.readline())
        assert descends_from(grandchild, here)
        assert descends_from(child.pid, here)
        assert not descends_from(os.getppid(), here)
        assert not descends_from(1, here)
    finally:
        subprocess.run(["kill", str(grandchild)], check=False)
        child.wait(timeout=10)
        child.stdout.close()
    assert descends_from(grandchild, here)  # of one that is gone nobody can say


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="needs root and setpriv")
async def test_another_user_does_not_even_reach_the_socket(tmp_path):
    async with served(tmp_path) as (_, record):
        path = tmp_path / ".symbi" / SOCKET_NAME
        assert path.stat().st_mode & 0o777 == 0o600
        program = "import socket, sys\ns = socket.socket(socket.AF_UNIX)\ntry: s.connect(sys.argv[1])\nexcept OSError as e: print(e.errno)"
        plain = shutil.which("python3", path="/usr/bin:/bin") or sys.executable
        command = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", plain, "-c", program, str(path)]
        for folder in (tmp_path, tmp_path.parent, tmp_path.parent.parent, tmp_path / ".symbi"):
            folder.chmod(0o755)  # however open the folders are
        done = await anyio.run_process(command, check=False)
        assert done.stdout.strip() in {b"13", b""}, done.stdout
        assert done.stdout.strip() == b"13" or b"ermission" in done.stderr, done.stderr
        assert record.votes == ()


async def test_a_folder_with_a_long_name_has_a_socket_too(tmp_path):
    folder = tmp_path / ("long" * 40) / ("name" * 30)
    async with served(folder) as (_, record):
        (row,) = await ask(folder, "approvals.list")
        assert row["id"] == record.id


async def test_what_a_dead_owner_left_is_replaced_and_what_is_no_socket_is_not(tmp_path, monkeypatch):
    stale = tmp_path / ".symbi" / SOCKET_NAME
    async with served(tmp_path):
        pass
    assert not stale.exists()
    dead = socket.socket(socket.AF_UNIX)
    monkeypatch.chdir(stale.parent)
    dead.bind(SOCKET_NAME)
    dead.close()
    assert connect_owner(stale.parent) is None
    async with open_in(tmp_path, AGENT) as running, ControlSocket(running.runtime, stale.parent):
        assert await ask(tmp_path, "approvals.list") is not None
    stale.write_text("something of yours")
    async with open_in(tmp_path, AGENT) as running:
        with pytest.raises(StoreUnavailable, match="is no socket"):
            async with ControlSocket(running.runtime, stale.parent):
                pytest.fail("it was bound")
    assert stale.read_text() == "something of yours"


async def test_a_stranger_at_the_socket_is_not_believed(tmp_path, monkeypatch):
    async with served(tmp_path):
        monkeypatch.setattr("symbi.api.client.peer_of", lambda _: Peer(1, 65_533))
        with pytest.raises(StoreUnavailable, match="a stranger serves"):
            connect_owner(tmp_path / ".symbi")


async def test_many_at_a_time_and_silent_ones_do_not_stop_it(tmp_path):
    async with served(tmp_path) as (_, record):
        silent = [connect_owner(tmp_path / ".symbi") for _ in range(8)]
        answers: list[object] = []

        async def one() -> None:
            answers.append(await ask(tmp_path, "approvals.show", id=record.id))

        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(one)
        assert len(answers) == 20
        for connection in silent:
            connection.close()


async def test_the_kill_switch_waits_for_no_other_operation_however_many_are_slow(tmp_path):
    begun, go_on = [], anyio.Event()

    async def slow(_runtime, _principal, _arguments):
        begun.append(1)
        await go_on.wait()
        return []

    slow_ones = {**OPERATIONS, "approvals.list": slow}
    with anyio.fail_after(60):
        async with served(tmp_path, operations=slow_ones) as (_runtime, _record), anyio.create_task_group() as tasks:
            for _ in range(MAX_OPERATIONS + 2):
                tasks.start_soon(ask, tmp_path, "approvals.list")
            while len(begun) < MAX_OPERATIONS:
                await anyio.lowlevel.checkpoint()
            try:
                await ask(tmp_path, "agents.stop", all=True)
                assert len(begun) == MAX_OPERATIONS  # the others wait for their turn
            finally:
                go_on.set()
    assert len(begun) == MAX_OPERATIONS + 2


async def test_a_defect_of_an_operation_answers_one_caller(tmp_path):
    async def broken(_runtime, _caller, _arguments):
        return 1 / 0

    policy = BASE.text + ASKS + 'permit (principal, action == Action::"ControlRuntime", resource);'
    async with served(tmp_path, policy, operations={"broken": broken}):
        for _ in range(2):
            with pytest.raises(SymbiError) as defect:
                await ask(tmp_path, "broken")
            assert defect.value.code == "internal"


def test_the_system_says_who_is_there():
    one, other = socket.socketpair(socket.AF_UNIX)
    assert peer_of(one) == Peer(os.getpid(), os.geteuid())
    one.close()
    other.close()


async def test_what_is_no_text_in_a_request_ends_no_owner(tmp_path):
    """An error quotes what was asked for, and goes back over the socket."""
    async with served(tmp_path):
        for operation, more in (("agents.\ud800", {}), ("approvals.show", {"id": "\udfff"})):
            with pytest.raises(SymbiError):
                await ask(tmp_path, operation, **more)
        assert await ask(tmp_path, "approvals.list")  # it is there


@pytest.mark.parametrize("operation", ["agents.\ud800", "agents.stop", "agents.suspend"])
async def test_half_a_character_in_a_request_ends_nobody_but_it(tmp_path, operation):
    async with served(tmp_path):
        with pytest.raises(InputError):
            await ask(tmp_path, operation, agent="\ud800")
        assert await ask(tmp_path, "agents.list")


@pytest.mark.parametrize("name", ["list", "show", "suspend", "resume", "stop"])
async def test_policy_can_refuse_each_thing_that_is_asked_about_agents(tmp_path, name):
    forbid = f'\nforbid (principal, action == Action::"ControlRuntime", resource == Resource::"agents.{name}");'
    async with served(tmp_path, BASE.text + ASKS + forbid):
        with pytest.raises(PolicyDenied):
            await ask(tmp_path, f"agents.{name}", agent="a", all=True)
    async with served(tmp_path):  # which the base policies permit to the owner of the folder
        with contextlib.suppress(InputError):  # it is not at work
            await ask(tmp_path, f"agents.{name}", agent="a", all=True)


async def test_a_connection_that_cannot_be_taken_is_not_tried_again_and_again_at_once(tmp_path):
    class Full:
        """A socket with somebody at the door, and no file left to let them in by."""

        def __init__(self, descriptor):
            self.descriptor, self.asked = descriptor, 0

        def fileno(self):
            return self.descriptor

        def accept(self):
            self.asked += 1
            raise OSError(errno.EMFILE, "Too many open files")

    reading, writing = os.pipe()
    os.write(writing, b"x")
    async with served(tmp_path) as (runtime, _), anyio.create_task_group() as tasks:
        full, control = Full(reading), ControlSocket(runtime, tmp_path)
        control._tasks = tasks
        async with anyio.create_task_group() as door:
            door.start_soon(control._accept, full)
            while not full.asked:
                await anyio.lowlevel.checkpoint()
            await anyio.sleep(0.35)
            door.cancel_scope.cancel()
        assert 1 <= full.asked <= 5
    os.close(reading)
    os.close(writing)
