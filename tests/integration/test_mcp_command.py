"""`symbi mcp` as clients start it: standard streams that carry the protocol alone, and one runtime for several clients."""

import json
import os
import signal
import subprocess
import sys
from contextlib import asynccontextmanager

import anyio
import pytest
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

from symbi.policy.library import BASE

pytestmark = pytest.mark.anyio
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    },
}


@pytest.fixture
def folder(tmp_path, root):
    servers = root / "tests" / "data" / "servers"
    (tmp_path / "symbi.toml").write_text(
        f"""
[mcp]
tool_verification = "tofu"
[mcp.servers.desk]
command = ["{sys.executable}", "{servers / "desk.py"}"]
manifest = "{servers / "desk.toml"}"
[mcp.clients.other]
""",
        encoding="utf-8",
    )
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "all.cedar").write_text('@id("test.all") permit (principal, action, resource);\n')
    (tmp_path / "adder.symbi").write_text("agent adder(a: int, b: int) { with { a + b } }\n")
    return tmp_path


def command(*words):
    return [sys.executable, "-m", "symbi.cli.main", "mcp", *words]


@asynccontextmanager
async def started(folder, *words, **options):
    program, *arguments = command(*words)
    told = StdioServerParameters(command=program, args=arguments, cwd=folder, env=dict(os.environ))
    with (folder / f"stderr-{len(list(folder.iterdir()))}").open("w") as log:
        async with Client(stdio_client(told, errlog=log), cache=None, **options) as client:
            yield client


async def test_clients_share_one_runtime_and_each_is_who_the_operator_says(folder):
    async with started(folder, "adder.symbi", mode="legacy") as first:
        assert (await first.call_tool("desk__count", {})).structured_content == {"n": 3}
        async with started(folder, "--client", "other", mode="2026-07-28") as second:
            picture = await second.call_tool("desk__picture", {})
            assert picture.content[1].type == "image"
            result = await second.call_tool("symbi__run_agent", {"agent": "adder", "inputs": {"a": 2, "b": 3}})
            assert result.structured_content["output"] == 5
    events = symbi_json(folder, "audit", "show", "--json")
    opened = {one["agent_id"]: one["details"]["transport"] for one in events if one["event_type"] == "session.opened"}
    assert opened == {"mcp.local": "stdio", "mcp.other": "socket"}


async def test_a_client_for_which_there_is_no_room_is_told_so(folder):
    with (folder / "symbi.toml").open("a", encoding="utf-8") as config:
        config.write("[gateway]\nmax_sessions = 1\n")
    async with started(folder, mode="legacy") as first:
        await first.call_tool("desk__count", {})
        late = await anyio.run_process(command("--client", "other"), cwd=folder, check=False, input=line(INITIALIZE))
    assert late.returncode != 0
    assert b"as many sessions are open as `gateway.max_sessions` allows: 1" in late.stderr
    assert b"Traceback" not in late.stderr
    assert late.stdout == b""


def symbi_json(folder, *words):
    done = subprocess.run(
        [sys.executable, "-m", "symbi.cli.main", *words], cwd=folder, capture_output=True, text=True, check=True
    )
    lines = done.stdout.strip().splitlines()
    return json.loads(done.stdout) if lines[0] == "[" else [json.loads(one) for one in lines]


def spoken(folder, said, *words):
    """What `symbi mcp` answers to some bytes, and its exit code."""
    return subprocess.run(command(*words), cwd=folder, input=said, capture_output=True, timeout=60, check=False)


def line(message):
    return json.dumps(message).encode() + b"\n"


def test_standard_output_carries_the_protocol_alone_and_the_end_of_input_is_the_end(folder):
    done = spoken(folder, line(INITIALIZE), "adder.symbi")
    answers = [json.loads(one) for one in done.stdout.splitlines()]
    assert [one["id"] for one in answers] == [1]
    assert answers[0]["result"]["serverInfo"]["name"] == "symbi"
    assert b"enforcing" in done.stderr
    assert b"Traceback" not in done.stderr
    assert done.returncode == 0


def test_garbage_on_standard_input_harms_nothing(folder):
    garbage = [
        b"\xff\xfe\x00garbage\n",
        b"{}\n",
        b"[1,2]\n",
        b'{"jsonrpc":"2.0"}\n',
        b"\n\n",
        b'"' * 100_000 + b"\n",
        b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":5}}\n',
        b"[" * 100_000 + b"\n",
    ]
    done = spoken(folder, b"".join(garbage) + line(INITIALIZE))
    answers = [json.loads(one) for one in done.stdout.splitlines()]
    assert [one["result"]["serverInfo"]["name"] for one in answers if one.get("id") == 1] == ["symbi"]
    assert b"Traceback" not in done.stderr + done.stdout


def test_who_is_no_client_and_what_cannot_be_is_told_on_standard_error(folder):
    stranger = spoken(folder, b"", "--client", "nobody")
    assert (stranger.returncode, stranger.stdout) == (2, b"")
    assert b"there is no client `nobody`" in stranger.stderr
    missing = spoken(folder, b"", "none.symbi")
    assert (missing.returncode, missing.stdout) == (2, b"")


def test_a_termination_ends_it_in_order(folder):
    pipe = subprocess.PIPE
    with subprocess.Popen(command(), cwd=folder, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(line(INITIALIZE))
        process.stdin.flush()
        assert b"serverInfo" in process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    assert b"Traceback" not in said
    assert process.returncode in {0, 130}


def test_of_two_that_begin_at_once_one_is_the_owner_and_serves_the_other(folder):
    pipe = subprocess.PIPE
    with (
        subprocess.Popen(command(), cwd=folder, stdin=pipe, stdout=pipe, stderr=pipe) as one,
        subprocess.Popen(command(), cwd=folder, stdin=pipe, stdout=pipe, stderr=pipe) as other,
    ):
        for process in (one, other):
            assert process.stdin is not None
            process.stdin.write(line(INITIALIZE))
            process.stdin.flush()
        for process in (one, other):
            assert process.stdout is not None
            assert b"serverInfo" in process.stdout.readline()
        for process in (one, other):
            assert process.stdin is not None
            process.stdin.close()
        assert [process.wait(timeout=60) for process in (one, other)] == [0, 0]
        said = [process.stderr.read() for process in (one, other) if process.stderr is not None]
    assert sum(b"this session goes through it" in words for words in said) == 1


def test_the_base_lets_the_owner_of_the_folder_in_through_the_control_socket():
    assert 'Resource::"gateway.session"' in BASE.text
