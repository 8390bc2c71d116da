"""The container tiers on a real engine: what runs is what was asked for, in a place that was looked at, and nothing of it stays."""

import json
import shutil
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import psutil
import pytest
from typer.testing import CliRunner

from symbi.adapters.docker import DockerOptions, DockerSandbox, Engine
from symbi.adapters.machine import Wanted, probe_engine
from symbi.cli.main import app
from symbi.errors import CodeFailed, MemoryLimit, OutputLimit, SandboxUnavailable, TimeLimit
from symbi.guard.permit import Authority
from symbi.testing.clock import ManualClock
from symbi.testing.contracts import SandboxUnderTest
from symbi.testing.docker_engine import UNFILTERED, DockerEngine
from symbi.types import EffectId, SecurityTier

pytestmark = [pytest.mark.servers, pytest.mark.anyio]

RUNTIMES = {SecurityTier.TIER1: "runc", SecurityTier.TIER2: "runsc"}
AGENT = """
agent sums(x: int) -> int {{
    capabilities = ["python", "log"]
    with sandbox = {tier}, timeout = 60.seconds {{ python("print('counting')\\nsum(range(n))", n = x) }}
}}
"""


@asynccontextmanager
async def running(docker, tier, **changes):
    authority = Authority(ManualClock())
    options = DockerOptions(image=docker.image, runtime=RUNTIMES[tier], instance="real", **changes)
    async with Engine(docker.host) as engine, DockerSandbox(authority, tier, engine, options) as made:
        under_test = SandboxUnderTest(made, authority)
        yield under_test, engine


@pytest.fixture(params=RUNTIMES)
def tier(request):
    return request.param


async def test_what_a_sandbox_is_like_is_noted_before_the_code_runs(docker, tier):
    async with running(docker, tier) as (under_test, _):
        permit = under_test.authority.mint(EffectId("e"), under_test.action("1 / 0"))
        with pytest.raises(CodeFailed):
            await under_test.driver.run(permit)
    seen = permit.noted["sandbox"]
    assert (seen["uid"], seen["capabilities"], seen["interfaces"]) == (65534, 16 * "0", ["lo"])
    assert seen["gvisor"] is (tier is SecurityTier.TIER2)
    assert seen["writable"] == ["/tmp"]
    if tier is SecurityTier.TIER1:
        assert (seen["seccomp"], seen["no_new_privs"], seen["pids_max"], seen["unseen"]) == ("2", "1", "64", [])


async def test_a_runtime_that_is_not_gvisor_is_found_out(docker):
    async with running(docker, SecurityTier.TIER2) as (under_test, engine):
        options = DockerOptions(image=docker.image, runtime="runc", instance="real")
        driver = DockerSandbox(under_test.authority, SecurityTier.TIER2, engine, options)
        permit = under_test.authority.mint(EffectId("e"), under_test.action("1"))
        with pytest.raises(SandboxUnavailable) as caught:
            await driver.run(permit)
        assert caught.value.code == "unavailable.isolation"
        assert await engine.containers("symbi.instance=real") == []


async def test_a_gvisor_that_leaves_the_filter_of_system_calls_out_gets_no_code_and_doctor_says_so(docker):
    async with running(docker, SecurityTier.TIER2) as (under_test, engine):
        options = DockerOptions(image=docker.image, runtime=UNFILTERED, instance="real")
        driver = DockerSandbox(under_test.authority, SecurityTier.TIER2, engine, options)
        permit = under_test.authority.mint(EffectId("e"), under_test.action("1"))
        with pytest.raises(SandboxUnavailable, match="--oci-seccomp") as caught:
            await driver.run(permit)
        assert caught.value.code == "unavailable.isolation"
        assert permit.noted["sandbox"]["gvisor"] is True, "it is gVisor, and not what was promised"
        assert await engine.containers("symbi.instance=real") == []
        assert (await under_test.run("1 + 1")).value == 2
    for runtime, ok in ((UNFILTERED, False), ("runsc", True)):
        wanted = Wanted(docker.host, docker.image, ("runc", runtime))
        found = {one.name: one for one in probe_engine({}, shutil.which, wanted)}
        assert (found["gvisor"].ok, "--oci-seccomp" in found["gvisor"].install_hint) == (ok, not ok)


async def test_what_the_code_starts_ends_with_it(docker, tier):
    code = (
        "import os\n"
        "for _ in range(3):\n"
        "    if os.fork() == 0:\n"
        "        os.setsid()\n"
        "        if os.fork() == 0:\n"
        "            while True: pass\n"
        "        os._exit(0)\n"
        "'left behind'"
    )
    before = {one.pid for one in psutil.process_iter()}
    async with running(docker, tier) as (under_test, engine):
        assert (await under_test.run(code)).value == "left behind"
        assert await engine.containers("symbi.instance=real") == []
    left = [one for one in psutil.process_iter(["cmdline"]) if one.pid not in before]
    assert not [one for one in left if "os.fork" in " ".join(one.info["cmdline"] or [])]


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("import os\nos._exit(3)", CodeFailed),
        ("import os\nos.kill(os.getpid(), 9)", CodeFailed),
        ("import sys\nsys.exit(0)", CodeFailed),
        ("import os\nos.write(1, b'x' * 200_000)", OutputLimit),
        ("import os\nos.close(1)\nos.close(2)\nfor n in range(3, 64):\n    try: os.close(n)\n    except OSError: pass\nwhile True: pass", TimeLimit),
        ("import signal\nfor n in range(1, 65):\n    try: signal.signal(n, signal.SIG_IGN)\n    except (OSError, ValueError): pass\nwhile True: pass", TimeLimit),
        ("import os\nfor n in range(2, 64):\n    try: os.kill(1, n)\n    except OSError: pass\nos.kill(1, 19)\nos.kill(1, 9)\nwhile True: pass", (TimeLimit, CodeFailed)),
        ("import os, subprocess, sys\nsubprocess.run([sys.executable, '-c', 'x = []\\nwhile True: x.append(bytearray(1 << 20))'])\nb = bytearray(90 << 20)", MemoryLimit),
    ],
    ids=["exit", "kill", "sys.exit", "raw output", "closed", "deaf", "kills the runner", "memory of a child"],
)  # fmt: skip
async def test_code_that_plays_tricks_ends_in_an_error_and_the_next_run_works(docker, tier, code, error):
    async with running(docker, tier) as (under_test, engine):
        with pytest.raises(error):
            await under_test.run(code, timeout_s=3.0)
        assert (await under_test.run("1 + 1")).value == 2
        assert await engine.containers("symbi.instance=real") == []


async def test_a_program_in_the_image_runs_and_a_shell_s_output_is_kept(docker, tier):
    async with running(docker, tier) as (under_test, _):
        result = await under_test.run("import subprocess\nsubprocess.run(['cat', '/etc/passwd']).returncode")
    assert result.value == 0
    assert result.stdout.endswith("nobody:x:65534:65534:nobody:/tmp:/none\n")


async def test_code_cannot_write_an_answer_in_the_runner_s_place(docker, tier):
    code = (
        "import os\n"
        "seen = []\n"
        "for path in ('/proc/1/fd/1', '/proc/1/mem', '/proc/1/environ'):\n"
        "    try: seen.append(open(path, 'rb+', buffering=0).write(b'0' * 32 + b'00000002{}') and path)\n"
        "    except OSError as error: seen.append(type(error).__name__)\n"
        "seen"
    )
    async with running(docker, tier) as (under_test, _):
        code_of = ""
        try:
            assert "/proc/1/mem" not in (await under_test.run(code)).value
        except SandboxUnavailable as error:  # it got through to the stream, and is no answer
            code_of = error.code
        assert code_of in {"", "unavailable.sandbox_answer"}
        assert (await under_test.run("1 + 1")).value == 2


async def test_a_container_that_is_killed_from_outside_is_a_sandbox_that_died(docker, tier):
    async with running(docker, tier) as (under_test, engine):

        async def kill():
            while not (found := await engine.containers("symbi.instance=real")) or found[0]["State"] != "running":
                await anyio.lowlevel.checkpoint()
            await engine.remove(found[0]["Id"])

        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(kill)
                with pytest.raises(SandboxUnavailable):
                    await under_test.run("while True: pass", timeout_s=30)
        assert (await under_test.run("1 + 1")).value == 2


async def test_a_cancelled_run_leaves_no_container_whenever_it_is_cancelled(docker, tier):
    async with running(docker, tier) as (under_test, engine):
        for tenth in range(8):
            with anyio.move_on_after(tenth / 8):
                await under_test.run("while True: pass", timeout_s=30)
            assert await engine.containers("symbi.instance=real") == []


async def test_an_image_that_is_not_there_is_said(docker, tier):
    async with running(docker, tier) as (under_test, engine):
        options = DockerOptions(image="sha256:" + 64 * "0", runtime=RUNTIMES[tier], instance="real")
        driver = DockerSandbox(under_test.authority, tier, engine, options)
        with pytest.raises(SandboxUnavailable) as caught:
            await driver.run(under_test.authority.mint(EffectId("e"), under_test.action("1")))
    assert caught.value.code == "unavailable.image"


async def test_an_engine_that_dies_in_the_middle_is_an_error_in_time_and_the_next_engine_has_what_it_left(tier):
    with DockerEngine() as own:
        await anyio.to_thread.run_sync(own.import_python)
        async with running(own, tier) as (under_test, engine):

            async def kill():
                while not (found := await engine.containers("symbi.instance=real")) or found[0]["State"] != "running":
                    await anyio.lowlevel.checkpoint()
                await anyio.to_thread.run_sync(own.stop, 9)

            with anyio.fail_after(60):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(kill)
                    with pytest.raises(SandboxUnavailable) as caught:
                        await under_test.run("while True: pass", timeout_s=40)
            assert caught.value.code in {"unavailable.engine", "unavailable.sandbox_died"}
            await anyio.to_thread.run_sync(own.start)
            left = await engine.containers("symbi.instance=real")
            assert len(left) == 1
            await engine.remove(left[0]["Id"])
            assert (await under_test.run("1 + 1")).value == 2


def test_one_word_changes_where_an_agent_s_code_runs(docker, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("policies").mkdir()
    Path("policies/all.cedar").write_text('@id("all") permit (principal, action, resource);')
    Path("symbi.toml").write_text(
        f'[security]\ndefault_sandbox_tier = "docker"\n[sandbox]\ndocker_host = "{docker.host}"\nimage = "{docker.image}"\n'
    )
    given = {}
    for word in ("interpreter", "docker", "gvisor"):
        Path("sums.symbi").write_text(AGENT.format(tier=word))
        done = CliRunner().invoke(app, ["run", "sums.symbi", "--input", "x=10", "--json"])
        assert done.exit_code == 0, done.output
        given[word] = json.loads(
            done.stdout.splitlines()[-1] if done.stdout.count("{") == 0 else done.stdout[done.stdout.index("{") :]
        )["output"]
    assert given == dict.fromkeys(given, 45)
    shown = CliRunner().invoke(app, ["audit", "show", "--type", "effect.outcome", "--json"])
    tiers = [json.loads(line)["details"].get("sandbox") for line in shown.stdout.splitlines() if "Sandbox::" in line]
    assert [one and one["gvisor"] for one in tiers] == [None, False, True]


def test_the_image_is_made_by_one_command(docker, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("symbi.toml").write_text(f'[sandbox]\ndocker_host = "{docker.host}"\n')
    done = CliRunner().invoke(app, ["sandbox", "image", "--name", "made:1", "--json"])
    assert done.exit_code == 0, done.output
    made = json.loads(done.stdout)["image"]
    assert made.startswith("sha256:")
    Path("symbi.toml").write_text(f'[sandbox]\ndocker_host = "{docker.host}"\nimage = "{made}"\n')
    looked = json.loads(CliRunner().invoke(app, ["doctor", "--json"]).stdout)
    assert {one["name"]: one["ok"] for one in looked if one["name"] in {"docker", "gvisor", "sandbox image"}} == {
        "docker": True,
        "gvisor": True,
        "sandbox image": True,
    }
