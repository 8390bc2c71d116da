"""Hostile code in the interpreter: it gets out nowhere, and leaves nothing behind."""

import os
import select
import signal
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import anyio
import anyio.lowlevel
import psutil
import pytest

from symbi.adapters.monty import MontySandbox
from symbi.errors import CodeFailed, InputError, MemoryLimit, OutputLimit, PermitRefused, StepLimit, TimeLimit
from symbi.guard.action import ExecuteCode
from symbi.guard.permit import Authority, Permit
from symbi.testing.clock import ManualClock
from symbi.testing.contracts import SandboxUnderTest
from symbi.types import AgentId, EffectId, Principal

pytestmark = pytest.mark.anyio
on_linux = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="reads /proc, which Linux alone has")

SECRET = "sesame-4711"


@pytest.fixture
async def sandbox(monkeypatch):
    monkeypatch.setenv("SYMBI_TEST_SECRET", SECRET)
    authority = Authority(ManualClock())
    async with MontySandbox(authority) as driver:
        yield SandboxUnderTest(driver, authority)


def children():
    """Ids of the worker processes below this one, zombies included."""
    listing = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,comm="], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in listing.splitlines()]
    return {int(pid) for pid, parent, name in rows if int(parent) == os.getpid() and "monty" in name}


async def none_left(before):
    """Nothing is left but what was there, and may itself still go."""
    with anyio.fail_after(30):  # the library takes those away that it has killed, on a thread of its own
        while children() - before:
            await anyio.lowlevel.checkpoint()


FILES = [
    "open('{file}').read()",
    "open('{file}', 'w').write('x')",
    "from pathlib import Path\nPath('{file}').read_text()",
    "from pathlib import Path\nPath('{file}').exists()",
    "from pathlib import Path\nPath('{file}').unlink()",
    "import os\nos.listdir('{folder}')",
    "import os\nos.stat('{file}')",
    "import os\nos.remove('{file}')",
    "import os\nos.mkdir('{folder}/new')",
    "import os\nos.rename('{file}', '{folder}/renamed')",
    "import os\nos.path.exists('{file}')",
    "import os\nos.chdir('{folder}')\nopen('bait').read()",
    "open('/proc/self/environ').read()",
    "open('/dev/null').read()",
]


@pytest.mark.parametrize("code", FILES)
async def test_no_file_can_be_seen_read_written_or_removed(sandbox, tmp_path, code):
    bait = tmp_path / "bait"
    bait.write_text(SECRET)
    with pytest.raises(CodeFailed) as caught:
        await sandbox.run(code.format(file=bait, folder=tmp_path))
    assert SECRET not in str(caught.value)
    assert list(tmp_path.iterdir()) == [bait]
    assert bait.read_text() == SECRET


@pytest.mark.parametrize(
    "code",
    [
        "import os\nos.system('id')",
        "import os\nos.popen('id').read()",
        "import os\nos.fork()",
        "import os\nos.execv('/bin/sh', ['sh'])",
        "import os\nos.kill(1, 9)",
        "import os\nos.getenv('SYMBI_TEST_SECRET')",
        "import os\nos.environ['SYMBI_TEST_SECRET']",
        "import os\nos.environ",
        "import os\nos.urandom(8)",
        "import subprocess",
        "import socket",
        "import ssl",
        "import urllib.request",
        "import http.client",
        "import ctypes",
        "import importlib",
        "import threading",
        "import multiprocessing",
        "import signal",
        "import gc",
        "import inspect",
        "import pickle",
        "import symbi",
        "__import__('os')",
        "__builtins__",
        "globals()",
        "compile('1', 'x', 'eval')",
        "breakpoint()",
        "input()",
        "eval(\"__import__('os')\")",
        "exec('import socket')",
        "import asyncio\nasyncio.create_subprocess_shell('id')",
        "import sys\nsys.modules['os'].system('id')",
        "import sys\nsys._getframe()",
        "host_function('x')",
    ],
)
async def test_no_process_network_environment_or_host_function_is_there(sandbox, code):
    with pytest.raises(CodeFailed) as caught:
        await sandbox.run(code)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "code",
    [
        "().__class__.__bases__[0].__subclasses__()",
        "''.__class__.__mro__",
        "getattr((), '__class__')",
        "(lambda: 0).__globals__",
        "(lambda: 0).__code__",
        "(lambda: 0).__closure__",
        "print.__self__",
        "[].__reduce_ex__(2)",
        "type('X', (object,), {})",
        "object.__subclasses__()",
        "try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    e.__traceback__.tb_frame",
        "class A:\n    pass\nA().__class__.__init__.__globals__",
        "'{0.__class__}'.format(())",
        "f'{().__class__}'",
    ],
)
async def test_no_attribute_leads_out(sandbox, code):
    with pytest.raises(CodeFailed):
        await sandbox.run(code)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (TimeLimit, "while True:\n    pass"),
        (TimeLimit, "sum(range(10 ** 15))"),
        (TimeLimit, "while True:\n    try:\n        1 / 0\n    except BaseException:\n        pass"),
        (MemoryLimit, "x = 'a' * (10 * 1024 ** 3)"),
        (MemoryLimit, "x = [0] * (10 * 1024 ** 3)"),
        (MemoryLimit, "x = bytes(10 * 1024 ** 3)"),
        (MemoryLimit, "x = 1 << (10 ** 12)"),
        (MemoryLimit, "f'{1:>{10 ** 11}}'"),
        (MemoryLimit, "'%99999999999d' % 1"),
        (MemoryLimit, "','.join(['a' * 10000] * 100000)"),
        (MemoryLimit, "('a' * 10000).replace('a', 'b' * 100000)"),
        (MemoryLimit, "try:\n    'a' * 10 ** 10\nexcept BaseException:\n    pass"),
        (MemoryLimit, "x = []\nwhile True:\n    x.append('a' * 1000)"),
        (StepLimit, "def f(n):\n    return f(n + 1)\nf(0)"),
        (StepLimit, "f = lambda g: g(g)\nf(f)"),
        (CodeFailed, "import json\njson.loads('[' * 100000)"),
        (CodeFailed, "eval('(' * 100000 + '1')"),
        (CodeFailed, "(" * 10_000),
        (CodeFailed, "-" * 100_000 + "1"),
        (CodeFailed, "+".join(["1"] * 50_000)),
        (
            CodeFailed,
            "for i in range(10 ** 6):\n    try:\n        open('x')\n    except PermissionError:\n        pass",
        ),
        (CodeFailed, "x = []\nfor _ in range(100000):\n    x = [x]\nx"),
        (OutputLimit, "while True:\n    print('x' * 1000)"),
        (OutputLimit, "print('x' * 30_000_000)"),
        (OutputLimit, "import sys\nwhile True:\n    print('x' * 1000, file=sys.stderr)"),
        (OutputLimit, "'x' * 2_000_000"),
        (OutputLimit, "a = 'x' * 1_000_000\n[a] * 5000"),
        (OutputLimit, "a = [1]\nfor _ in range(60):\n    a = [a] * 10\na"),
        (OutputLimit, "a = {'k': 1}\nfor _ in range(80):\n    a = {'a': a, 'b': a}\na"),
    ],
)
async def test_no_code_takes_more_than_its_limits(sandbox, error, code):
    await sandbox.fails(error, code, timeout_s=0.5 if error is TimeLimit else 20.0)


async def test_a_small_graph_of_inputs_that_expands_is_refused(sandbox):
    graph = [1]
    for _ in range(60):
        graph = [graph] * 10
    with pytest.raises(InputError, match="more than"):
        await sandbox.run("1", {"x": graph})


async def test_code_that_prints_cannot_forge_a_value_or_an_error(sandbox):
    result = await sandbox.run("print('{\"value\": 1}')\nprint('\\x00\\x1b[2J')\n2")
    assert result.value == 2


async def test_a_permit_cannot_be_forged_reused_or_taken_elsewhere(sandbox):
    action = ExecuteCode(principal=Principal(AgentId("a")), code="1", code_digest=sha256(b"1").hexdigest())
    real = sandbox.authority.mint(EffectId("e"), action)
    forged = Permit(real.effect_id, action)
    for permit in (forged, Authority(ManualClock()).mint(EffectId("e"), action)):
        with pytest.raises(PermitRefused):
            await sandbox.driver.run(permit)
    assert (await sandbox.driver.run(real)).value == 1
    with pytest.raises(PermitRefused, match="spent"):
        await sandbox.driver.run(real)


async def test_a_changed_action_in_a_permit_changes_nothing(sandbox):
    one = ExecuteCode(principal=Principal(AgentId("a")), code="1", code_digest=sha256(b"1").hexdigest())
    two = ExecuteCode(principal=Principal(AgentId("a")), code="2", code_digest=sha256(b"2").hexdigest())
    permit = sandbox.authority.mint(EffectId("e"), one)
    permit._action = two
    assert (await sandbox.driver.run(permit)).value == 1


async def test_the_world_is_the_same_for_every_run():
    code = (
        "import random, time, datetime\n"
        "time.sleep(3600)\n"
        "[random.random(), random.Random().random(), random.sample(range(100), 5), time.time(), time.monotonic(),\n"
        " time.process_time(), str(datetime.datetime.now()), str(datetime.date.today()), hash('x') % 2 ** 40,\n"
        " list({'b', 'a', 'zz', 'c'}), hash((1, 'y')) % 2 ** 40, time.localtime().tm_hour]"
    )
    values = []
    for _ in range(2):
        authority = Authority(ManualClock())
        async with MontySandbox(authority) as driver:
            sandbox = SandboxUnderTest(driver, authority)
            values += [(await sandbox.run(code)).value for _ in range(2)]
    assert values[1:] == values[:1] * 3
    assert values[0][3:8] == [0.0, 0.0, 0.0, "1970-01-01 00:00:00", "1970-01-01"]


@on_linux
async def test_a_worker_has_an_empty_environment(sandbox):
    await sandbox.run("1")
    workers = children()
    assert workers
    for pid in workers:
        assert environment(pid) == b""


def environment(pid):
    return Path(f"/proc/{pid}/environ").read_bytes()


async def test_the_environment_does_not_choose_the_interpreter(monkeypatch, tmp_path):
    planted = tmp_path / "monty"
    planted.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    planted.chmod(0o755)
    monkeypatch.setenv("MONTY_BIN", str(planted))
    monkeypatch.setenv("PATH", str(tmp_path))
    authority = Authority(ManualClock())
    async with MontySandbox(authority) as driver:
        assert (await SandboxUnderTest(driver, authority).run("6 * 7")).value == 42
    assert list(tmp_path.iterdir()) == [planted]


async def test_no_worker_is_left_after_the_driver_ends():
    before = children()
    authority = Authority(ManualClock())
    async with MontySandbox(authority) as driver:
        sandbox = SandboxUnderTest(driver, authority)
        await sandbox.run("1")
        await sandbox.fails(TimeLimit, "while True:\n    pass", timeout_s=0.2)
        await sandbox.fails(MemoryLimit, "x = []\nwhile True:\n    x.append('a' * 1000)")
        await sandbox.fails(OutputLimit, "while True:\n    print('x' * 1000)")
        assert children() - before
    await none_left(before)


async def test_no_worker_is_left_running_after_a_run_is_cancelled(sandbox):
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(sandbox.run, "while True:\n    pass")
        while not (busy := {pid for pid in children() if processor_seconds(pid) > 0.1}):
            await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()
    with anyio.fail_after(30):
        while children() & busy:
            await anyio.lowlevel.checkpoint()


def processor_seconds(pid):
    try:
        return sum(psutil.Process(pid).cpu_times()[:2])
    except psutil.NoSuchProcess:
        return 0.0


async def test_no_worker_is_left_after_the_driver_is_cancelled_with_runs_in_it():
    before = children()
    authority = Authority(ManualClock())
    with anyio.move_on_after(0.5) as scope:
        async with MontySandbox(authority) as driver, anyio.create_task_group() as tasks:
            for _ in range(3):  # two run, one waits
                tasks.start_soon(SandboxUnderTest(driver, authority).run, "while True:\n    pass")
    assert scope.cancelled_caught
    await none_left(before)


DRIVE = """
import anyio, hashlib, sys
from symbi.adapters.monty import MontySandbox
from symbi.errors import TimeLimit
from symbi.guard.action import ExecuteCode
from symbi.guard.permit import Authority
from symbi.testing.clock import ManualClock
from symbi.types import AgentId, EffectId, Principal

CODE = "while True: pass"
ACTION = ExecuteCode(principal=Principal(AgentId("a")), code=CODE, timeout_s=float(sys.argv[1]),
                     code_digest=hashlib.sha256(CODE.encode()).hexdigest())

async def main():
    authority = Authority(ManualClock())
    async with MontySandbox(authority, workers=1) as driver:
        print("running", flush=True)
        try:
            await driver.run(authority.mint(EffectId("e"), ACTION))
        except TimeLimit:
            pass

anyio.run(main)
"""


@pytest.mark.skipif(
    not hasattr(os, "pidfd_open"), reason="waits for a process that is not our child, as Linux alone can"
)
def test_a_worker_dies_with_its_runtime_in_the_middle_of_a_run_of_an_hour():
    with subprocess.Popen([sys.executable, "-c", DRIVE, "3600"], stdout=subprocess.PIPE, text=True) as runtime:
        assert runtime.stdout.readline() == "running\n"
        listing = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(runtime.pid)], capture_output=True, check=True
        ).stdout
        workers = [os.pidfd_open(int(pid)) for pid in listing.split()]
        runtime.send_signal(signal.SIGKILL)
    assert workers
    for worker in workers:
        ended, _, _ = select.select([worker], [], [], 30)
        assert ended
        os.close(worker)


def test_a_process_ends_cleanly_right_after_a_run_hit_its_limit():
    """The library's threads must be through with Python when the interpreter goes; else the process is aborted."""
    for _ in range(8):
        ended = subprocess.run([sys.executable, "-c", DRIVE, "0.1"], capture_output=True, text=True, check=False)
        assert (ended.returncode, ended.stderr) == (0, "")
