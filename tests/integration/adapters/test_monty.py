"""The interpreter's driver: starting, stopping, and what its errors say."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from symbi.adapters import monty
from symbi.adapters.monty import MAX_STDOUT_BYTES, MontySandbox
from symbi.errors import (
    AgentFailed,
    CodeFailed,
    InputError,
    MemoryLimit,
    OutputLimit,
    Overloaded,
    SandboxUnavailable,
    StepLimit,
    TimeLimit,
)
from symbi.guard.permit import Authority
from symbi.testing.clock import ManualClock
from symbi.testing.contracts import SandboxUnderTest

ROUNDS = 20  # a worker that is not given back is gone after a few of them

pytestmark = pytest.mark.anyio


@pytest.fixture
async def sandbox():
    authority = Authority(ManualClock())
    async with MontySandbox(authority) as driver:
        yield SandboxUnderTest(driver, authority)


def workers():
    listing = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,comm="], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in listing.splitlines()]
    return [int(pid) for pid, parent, name in rows if int(parent) == os.getpid() and "monty" in name]


@pytest.mark.parametrize("program", ["absent", "python", "silent"])
async def test_a_program_that_is_no_interpreter_is_found_at_the_start(tmp_path, program):
    silent = tmp_path / "silent"
    silent.write_text("#!/bin/sh\nexit 0\n")
    silent.chmod(0o755)
    binary = {"absent": tmp_path / "absent", "python": Path(sys.executable), "silent": silent}[program]
    before = workers()
    with pytest.raises(SandboxUnavailable, match=r"cannot be started: .*install `pydantic-monty`"):
        async with MontySandbox(Authority(ManualClock()), binary=binary):
            pytest.fail("it started")
    assert workers() == before


async def test_an_environment_without_the_program_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(monty.sysconfig, "get_path", lambda *_: str(tmp_path))
    with pytest.raises(SandboxUnavailable, match="not in this environment; install `pydantic-monty`"):
        async with MontySandbox(Authority(ManualClock())):
            pytest.fail("it started")


async def test_a_driver_that_is_not_running_runs_nothing():
    authority = Authority(ManualClock())
    driver = MontySandbox(authority)
    with pytest.raises(SandboxUnavailable, match="not running"):
        await SandboxUnderTest(driver, authority).run("1")
    async with driver:
        pass
    with pytest.raises(SandboxUnavailable, match="not running"):
        await SandboxUnderTest(driver, authority).run("1")


async def test_a_driver_can_be_started_again():
    authority = Authority(ManualClock())
    driver = MontySandbox(authority)
    for _ in range(2):
        async with driver:
            assert (await SandboxUnderTest(driver, authority).run("6 * 7")).value == 42


class Busy:
    """Hears of the worker that runs code."""

    def __init__(self):
        self.begun = anyio.Event()

    def begins(self, _run_id, _pid):
        self.begun.set()

    def ends(self, _run_id, _pid):
        pass


async def test_more_runs_than_workers_are_refused_when_they_have_waited(monkeypatch):
    monkeypatch.setattr(monty, "CHECKOUT_TIMEOUT_S", 1.0)  # enough for the first, on any machine
    authority, busy = Authority(ManualClock()), Busy()
    async with MontySandbox(authority, workers=1, watch=busy) as driver, anyio.create_task_group() as tasks:
        sandbox = SandboxUnderTest(driver, authority)
        tasks.start_soon(sandbox.run, "while True:\n    pass")
        await busy.begun.wait()
        with pytest.raises(Overloaded) as caught:
            await sandbox.run("1")
        assert caught.value.retry_after_s > 0
        tasks.cancel_scope.cancel()


async def test_a_worker_that_dies_with_code_in_it_is_a_failure_of_the_code_and_is_replaced():
    authority, busy = Authority(ManualClock()), Busy()

    async def kill():
        await busy.begun.wait()
        for pid in workers():
            os.kill(pid, signal.SIGKILL)

    async with MontySandbox(authority, watch=busy) as driver:
        sandbox = SandboxUnderTest(driver, authority)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(kill)
            with pytest.raises(CodeFailed, match="worker died while it ran the code") as caught:
                await sandbox.run("while True:\n    pass")
        assert (await sandbox.run("6 * 7")).value == 42
    assert isinstance(caught.value, AgentFailed)
    assert not caught.value.retryable


async def test_a_worker_that_ignores_its_limit_is_killed_from_outside(sandbox, monkeypatch):
    monkeypatch.setattr(monty, "BACKSTOP_S", -1000.0)
    with pytest.raises(TimeLimit, match="ran longer than 900 s"):
        await sandbox.run("while True:\n    pass", timeout_s=900.0)
    monkeypatch.undo()
    assert (await sandbox.run("6 * 7")).value == 42


@pytest.mark.parametrize(
    ("code", "error", "message"),
    [
        ("x = 1\nx.y", CodeFailed, "<code>:2:1: the code raised `AttributeError: 'int' object has no attribute 'y'`"),
        ("x = (", CodeFailed, "<code>:1:6: the code does not parse: unexpected EOF while parsing"),
        ("raise ValueError('two\\nlines `x`')", CodeFailed, "<code>:1:7: the code raised `ValueError: two lines 'x'`"),
        (
            "import heapq",
            CodeFailed,
            "<code>:1:1: the code raised `ModuleNotFoundError: No module named 'heapq'`; " + monty._SUBSET_HINT,
        ),
        ("x = 1\neval('1 / 0')", CodeFailed, "<code>:2:1: the code raised `ZeroDivisionError: division by zero`"),
        ("{1, 2}", CodeFailed, "a set at `$` is not JSON; give a list: `sorted(…)`"),
        ("x = 'a' * 10 ** 10", MemoryLimit, "<code>:1:5: the code needed more than 64 MiB"),
        ("def f(): f()\nf()", StepLimit, "<code>:1:10: the code called itself deeper than 256 times"),
        ("while True: print('x' * 99)", OutputLimit, "the code printed more than 65536 bytes"),
        ("'x' * 2_000_000", OutputLimit, "the value is larger than 1048576 bytes"),
    ],
)
async def test_an_error_says_what_happened_and_where(sandbox, code, error, message):
    caught = await sandbox.fails(error, code)
    assert str(caught) == message


async def test_the_message_of_an_exception_is_bounded(sandbox):
    caught = await sandbox.fails(CodeFailed, "raise ValueError('x' * 100_000)")
    assert len(str(caught)) < 400


async def test_running_out_of_time_says_the_limit(sandbox):
    caught = await sandbox.fails(TimeLimit, "while True:\n    pass", timeout_s=0.2)
    assert (caught.message, caught.fields) == ("the code ran longer than 0.2 s", {"timeout_s": 0.2})


async def test_output_up_to_its_bound_comes_back_whole(sandbox):
    result = await sandbox.run(f"print('x' * {MAX_STDOUT_BYTES - 1})")
    assert result.stdout == "x" * (MAX_STDOUT_BYTES - 1) + "\n"
    await sandbox.fails(OutputLimit, f"print('x' * {MAX_STDOUT_BYTES})")
    await sandbox.fails(OutputLimit, f"print('é' * {MAX_STDOUT_BYTES // 2})")


async def test_code_that_ends_while_it_is_given_up_leaves_its_worker_to_the_next(monkeypatch):
    """It prints too much and is over, so that both ends of the run meet, and one time or another in the wrong order."""
    monkeypatch.setattr(monty, "CHECKOUT_TIMEOUT_S", 5.0)
    authority = Authority(ManualClock())
    async with MontySandbox(authority, workers=1) as driver:
        sandbox = SandboxUnderTest(driver, authority)
        for _ in range(ROUNDS):
            await sandbox.fails(OutputLimit, f"print('x' * {MAX_STDOUT_BYTES})")


async def test_code_and_inputs_have_bounds(sandbox):
    for code, inputs in (
        ("#" * 1_048_577, {}),
        ("1", {"x": "a" * 33_554_433}),
        ("1", {"x": 2**53}),
        ("1", {"x": b"a"}),
    ):
        with pytest.raises(InputError):
            await sandbox.run(code, inputs)


async def test_inputs_of_many_mebibytes_are_worked_on(sandbox):
    text = "10.0.0.1 GET /index 200\n" * 100_000
    code = "n = 0\nfor line in text.splitlines():\n    if line.split(' ')[3] == '200':\n        n += 1\nn"
    assert (await sandbox.run(code, {"text": text})).value == 100_000


async def test_code_with_a_lone_surrogate_fails_and_says_so(sandbox):
    await sandbox.fails(CodeFailed, "'\ud800'")
