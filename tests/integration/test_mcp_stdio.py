"""`StdioToolServer` on real processes: well-behaved ones, and servers that die, hang, flood, lie and speak garbage."""

import json
import os
import sys
import tracemalloc
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from symbi.adapters.mcp import EFFECT_ID_KEY, StdioToolServer
from symbi.adapters.mcp.stdio import MAX_LINE_BYTES, ServerProcess
from symbi.adapters.mcp.traffic import MAX_UNASKED_BYTES
from symbi.adapters.secrets import EnvironmentSecrets
from symbi.clock import SystemClock
from symbi.errors import (
    ConfigError,
    InputError,
    OutputLimit,
    SymbiError,
    TimeLimit,
    ToolFailed,
    ToolServerUnavailable,
)
from symbi.guard.action import ConnectServer, InvokeTool, ToolRef
from symbi.guard.permit import Authority
from symbi.types import AgentId, EffectId, Principal, ToolName

pytestmark = pytest.mark.anyio
PRINCIPAL = Principal(AgentId("triage"))
SECRET = "hidden-value-1"
QUICK_S = 0.3


class Bench:
    def __init__(self, server, authority):
        self.server = server
        self.authority = authority

    async def connect(self):
        action = ConnectServer(
            principal=PRINCIPAL,
            server=self.server.name,
            command=self.server.command_line,
            secrets=self.server.secret_paths,
        )
        return await self.server.connect(self.authority.mint(EffectId("start"), action))

    def permit(self, text="hello", timeout_s=20.0, **more):
        ref = ToolRef(ToolName("hostile.echo"), "hostile", "", {})
        secrets = ("a/b",) if "vault://" in text else ()
        action = InvokeTool(
            principal=PRINCIPAL, tool=ref, values={"text": text, **more}, secrets=secrets, timeout_s=timeout_s
        )
        return self.authority.mint(EffectId("effect-1"), action)

    async def call(self, text="hello", timeout_s=20.0, **more):
        secrets = {"a/b": SECRET} if "vault://" in text else {}
        return await self.server.call(self.permit(text, timeout_s, **more), secrets)

    async def fails(self, text="hello", timeout_s=20.0):
        with pytest.raises(SymbiError) as caught:
            await self.call(text, timeout_s)
        assert SECRET not in repr((str(caught.value), caught.value.fields, caught.value.__context__))
        return caught.value


@pytest.fixture
def hostile(root):
    script = root / "tests" / "data" / "servers" / "hostile.py"

    @asynccontextmanager
    async def open_server(mode, **options):
        authority = Authority(SystemClock())
        if "variables" in options:
            options["secrets"] = EnvironmentSecrets(authority, options.pop("variables"))
        async with StdioToolServer("hostile", [sys.executable, str(script), mode], authority, **options) as server:
            yield Bench(server, authority)

    return open_server


def alive(pid):
    """Whether a process runs; one that has ended and waits to be reaped does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")
    return not state.exists() or ") Z " not in state.read_text()


@pytest.fixture(autouse=True)
def _short_patience(monkeypatch):
    monkeypatch.setattr("symbi.adapters.mcp.stdio.GRACE_S", 0.3)
    monkeypatch.setattr("symbi.adapters.mcp.stdio.TERMINATE_S", 0.2)


# --- starting ---------------------------------------------------------------------------------------------------------


async def test_a_plain_server_lists_and_answers(hostile):
    async with hostile("good") as bench:
        (definition,) = await bench.connect()
        assert (definition.server, definition.name) == ("hostile", "echo")
        assert definition.input_schema["required"] == ["text"]
        assert (await bench.call("hi")).content == "hi"


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("dies-at-start", ["ended with exit status 2", "cannot find my configuration"]),
        ("dies-at-listing", ["ended with exit status 0"]),
        ("silent", ["did not get ready within 1 s"]),
        ("garbage", ["not JSON-RPC"]),
        ("endless-line-at-start", [f"a line of more than {MAX_LINE_BYTES} bytes"]),
        ("old-protocol", ["does not speak the protocol"]),
        ("endless-pages", ["more than 16 pages"]),
        ("many-tools", ["more than 512 tools"]),
        ("large-pages", ["lists tools of more than 8388608 bytes"]),
    ],
)
async def test_a_server_that_cannot_start_says_why(hostile, mode, words):
    async with hostile(mode, start_timeout_s=1.0 if mode == "silent" else 20.0) as bench:
        with pytest.raises(ToolServerUnavailable) as caught:
            await bench.connect()
        for word in words:
            assert word in str(caught.value)
        assert isinstance(await bench.fails(), ToolServerUnavailable)


async def test_a_listing_of_the_wrong_shape_is_refused(hostile):
    async with hostile("wrong-listing") as bench:
        with pytest.raises(ToolFailed, match="no answer"):
            await bench.connect()


@pytest.mark.parametrize("command", [["/no/such/program"], ["/etc/passwd"], ["a\0b"]])
async def test_a_command_that_cannot_run_is_unavailable(command):
    authority = Authority(SystemClock())
    async with StdioToolServer("hostile", command, authority) as server:
        with pytest.raises(ToolServerUnavailable, match=r"cannot be started|does not speak"):
            await Bench(server, authority).connect()


async def test_a_banner_on_standard_output_is_passed_over(hostile):
    async with hostile("banner") as bench:
        await bench.connect()
        assert (await bench.call("hi")).content == "hi"


async def test_names_and_doubles_are_handed_on_for_the_catalogue_to_judge(hostile):
    async with hostile("twice") as bench:
        assert [one.name for one in await bench.connect()] == ["echo", "echo"]


# --- what a server gets --------------------------------------------------------------------------------------------------


async def test_a_server_gets_only_the_environment_it_is_meant_to_have(hostile, monkeypatch):
    monkeypatch.setenv("SYMBI_KEY_AUDIT", "key")
    monkeypatch.setenv("SYMBI_SECRET_A_B", "secret")
    monkeypatch.setenv("OPENAI_API_KEY", "key")
    monkeypatch.setenv("LD_PRELOAD", "")
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    async with hostile("environment", env={"MODE": "x"}) as bench:
        await bench.connect()
        given = json.loads((await bench.call()).content)
    allowed = {"PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR"}
    assert set(given) <= allowed | {"MODE"}
    assert given["MODE"] == "x"
    assert given["PATH"] == os.environ["PATH"]


@pytest.mark.parametrize("name", ["SYMBI_KEY_AUDIT", "SYMBI_SECRET_X"])
def test_keys_of_the_runtime_cannot_be_configured_for_a_server(name):
    with pytest.raises(ConfigError, match=name):
        StdioToolServer("s", ["x"], Authority(SystemClock()), env={name: "x"})
    with pytest.raises(ConfigError):
        StdioToolServer("s", [], Authority(SystemClock()))


async def test_the_effect_id_and_null_arguments_arrive(hostile):
    async with hostile("echo-meta") as bench:
        await bench.connect()
        given = json.loads((await bench.call("x", extra=None)).content)
        assert given["meta"][EFFECT_ID_KEY] == "effect-1"
        assert given["arguments"] == {"text": "x", "extra": None}


async def test_a_secret_in_its_environment_resolves_at_start_and_stays_inside(hostile):
    variables = {"SYMBI_SECRET_MAIL_TOKEN": SECRET}
    options = {"env": {"TOKEN": "vault://mail/token"}, "variables": variables}
    async with hostile("environment", **options) as bench:
        assert bench.server.secret_paths == ("mail/token",)
        await bench.connect()
        given = (await bench.call()).content
        assert json.loads(given)["TOKEN"] == "vault://mail/token"
    async with hostile("secret-in-definition", **options) as bench:
        with pytest.raises(ToolServerUnavailable, match="puts a secret") as caught:
            await bench.connect()
        assert SECRET not in str(caught.value)
    async with hostile("environment", env={"TOKEN": "vault://no/such"}, variables={}) as bench:
        with pytest.raises(InputError, match="no source has the secret `vault://no/such`"):
            await bench.connect()


# --- calls that go wrong ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "error", "words"),
    [
        ("dies-mid-call", ToolServerUnavailable, ["exit status 3", "about to fail"]),
        ("killed-mid-call", ToolServerUnavailable, ["killed by signal 9"]),
        ("floods", ToolServerUnavailable, [f"more than {MAX_UNASKED_BYTES} bytes that nobody had asked for"]),
        ("blank-lines", ToolServerUnavailable, ["nobody had asked for"]),
        ("endless-line", ToolServerUnavailable, [f"a line of more than {MAX_LINE_BYTES} bytes"]),
        ("garbage-mid-call", ToolServerUnavailable, ["not JSON-RPC"]),
    ],
)
async def test_a_server_that_breaks_off_is_unavailable_until_it_is_connected_anew(hostile, mode, error, words):
    async with hostile(mode) as bench:
        await bench.connect()
        first = await bench.fails()
        assert type(first) is error
        for word in words:
            assert word in str(first)
        permit = bench.permit()
        with pytest.raises(ToolServerUnavailable):
            await bench.server.call(permit, {})
        assert bench.authority.uses_left(permit) == 1, "nothing was sent, so nothing may look as if it had been"
        await bench.connect()


@pytest.mark.parametrize(
    ("mode", "error", "words"),
    [
        ("large", OutputLimit, "1500000 bytes; 1048576 are allowed"),
        ("huge-line", OutputLimit, f"more than {MAX_LINE_BYTES} bytes"),
        ("wrong-shape", ToolFailed, "no answer"),
        ("deep", ToolFailed, "not JSON-RPC"),
        ("nan", ToolFailed, "not finite"),
        ("input-required", ToolFailed, "no answer"),
    ],
)
async def test_a_bad_answer_harms_its_own_call_only(hostile, mode, error, words):
    async with hostile(mode) as bench:
        await bench.connect()
        for _ in range(2):
            failure = await bench.fails("huge")
            assert type(failure) is error
            assert words in str(failure)


@pytest.mark.parametrize("mode", ["hangs", "slow", "asks", "closes-stdin", "not-reading"])
async def test_a_server_that_does_not_answer_runs_into_the_deadline(hostile, mode):
    async with hostile(mode) as bench:
        await bench.connect()
        assert isinstance(await bench.fails("slow", QUICK_S), TimeLimit)


async def test_a_late_answer_is_not_taken_for_the_next_one(hostile):
    async with hostile("slow") as bench:
        await bench.connect()
        assert isinstance(await bench.fails("slow", QUICK_S), TimeLimit)
        assert (await bench.call("second")).content == "second"


async def test_requests_of_a_server_get_an_answer_and_no_more(hostile):
    async with hostile("asks-politely") as bench:
        await bench.connect()
        answer = json.loads((await bench.call()).content)
        assert answer["id"] == "s1"
        assert "error" in answer


async def test_other_parts_than_text_are_named_by_type_and_size(hostile):
    async with hostile("image") as bench:
        await bench.connect()
        assert (await bench.call()).content == "[image, 58 bytes]\nt"


async def test_a_flood_takes_no_memory(hostile):
    async with hostile("endless-line") as bench:
        await bench.connect()
        tracemalloc.start()
        try:
            await bench.fails()
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 4 * MAX_LINE_BYTES


async def test_standard_error_is_kept_by_whole_lines_and_bounded(hostile):
    async with hostile("noisy-stderr") as bench:
        await bench.connect()
        await bench.call()
        words = bench.server._session.line.last_words.text()
    assert words.endswith("[a line of 100000 bytes] | the end")
    assert "line 19999" in words
    assert len(words) < 8192


# --- secrets ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["error-secret", "echo-secret", "good"])
async def test_no_secret_comes_back_in_an_answer(hostile, mode):
    async with hostile(mode) as bench:
        await bench.connect()
        answer = repr(await bench.call("vault://a/b"))
        assert SECRET not in answer
        assert "vault://a/b" in answer


@pytest.mark.parametrize("mode", ["rpc-error-secret", "dies-with-secret"])
async def test_no_secret_comes_back_in_an_error_or_in_last_words(hostile, mode):
    async with hostile(mode) as bench:
        await bench.connect()
        assert "vault://a/b" in str(await bench.fails("vault://a/b"))


async def test_a_secret_of_an_earlier_call_does_not_come_back_in_a_later_one(hostile):
    async with hostile("later-secret") as bench:
        await bench.connect()
        await bench.call("vault://a/b")
        assert (await bench.call("next")).content == "first I was told vault://a/b"


async def test_the_servers_own_error_code_is_not_taken_for_a_closed_connection(hostile):
    async with hostile("rpc-error-secret") as bench:
        await bench.connect()
        failure = await bench.fails("x")
        assert isinstance(failure, ToolFailed)
        assert "bad token x" in failure.message


# --- tasks, cancellation and the end ----------------------------------------------------------------------------------------


async def test_connect_call_and_end_may_come_from_different_tasks(hostile):
    answers = []

    async def call(bench, text):
        answers.append((await bench.call(text)).content)

    async with hostile("good") as bench:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bench.connect)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call, bench, "a")
            tasks.start_soon(call, bench, "b")
    assert sorted(answers) == ["a", "b"]


async def test_a_cancelled_caller_leaves_the_other_its_answer(hostile):
    async with hostile("slow") as bench:
        await bench.connect()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bench.call, "slow")
            assert (await bench.call("a")).content == "a"
            tasks.cancel_scope.cancel()
        assert (await bench.call("b")).content == "b"


async def test_an_error_in_the_body_is_not_wrapped(hostile):
    async def fail():
        async with hostile("good") as bench:
            await bench.connect()
            raise KeyError

    with pytest.raises(KeyError):
        await fail()


async def test_a_start_that_is_cancelled_leaves_no_process(hostile, monkeypatch):
    made = []

    def make(*given):
        made.append(ServerProcess(*given))
        return made[-1]

    monkeypatch.setattr("symbi.adapters.mcp.server.ServerProcess", make)
    async with hostile("silent") as bench:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bench.connect)
            while not made or made[0].pid is None:
                await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
        assert [process.ended.is_set() for process in made] == [True]


async def test_the_whole_process_group_ends_with_the_session(hostile):
    async with hostile("grandchild") as bench:
        await bench.connect()
        await bench.call()
        words = bench.server._session.line.last_words.text()
        child = int(words.removeprefix("child "))
        assert alive(child)
    with anyio.fail_after(10):
        while alive(child):  # noqa: ASYNC110 - the kernel sets no event
            await anyio.sleep(0.01)


async def test_a_server_that_ignores_the_end_is_killed(hostile):
    async with hostile("hangs") as bench:
        await bench.connect()
        await bench.fails("x", QUICK_S)
        process = bench.server._session.line
    assert process.ended.is_set()


async def test_connecting_anew_ends_the_old_process(hostile):
    async with hostile("good") as bench:
        await bench.connect()
        first = bench.server._session.line
        await bench.connect()
        assert first.ended.is_set()
        assert first.exit_code == 0
        assert (await bench.call("x")).content == "x"


async def test_calls_are_bounded_in_number(hostile, monkeypatch):
    monkeypatch.setattr("symbi.adapters.mcp.base.MAX_CALLS", 2)
    async with hostile("slow") as bench:
        await bench.connect()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bench.call, "slow")
            tasks.start_soon(bench.call, "slow")
            await anyio.wait_all_tasks_blocked()
            permit = bench.permit()
            with pytest.raises(SymbiError, match="calls wait"):
                await bench.server.call(permit, {})
            assert bench.authority.uses_left(permit) == 1
            tasks.cancel_scope.cancel()
