"""The command line when it is interrupted."""

import os
import signal

import anyio
import anyio.lowlevel
import pytest
from typer.testing import CliRunner

from symbi.cli import audit_verify, output, run
from symbi.cli.main import app
from symbi.cli.unread import PatientStream
from symbi.config import parse_settings


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_does_not_break_off_what_is_being_settled(number):
    settled: list[bool] = []

    async def work() -> None:
        with anyio.CancelScope(shield=True):  # as the trail waits for its commit
            os.kill(os.getpid(), number)
            for _ in range(100):
                await anyio.lowlevel.checkpoint()
            settled.append(True)
        await anyio.sleep_forever()

    with pytest.raises(KeyboardInterrupt):
        anyio.run(run.until_terminated, work, 0.0)
    assert settled == [True]


@pytest.mark.parametrize("command", [["demo"], ["tools", "verify"], ["run", "x.symbi"], ["audit", "verify"]])
def test_every_command_that_is_interrupted_says_so_in_its_exit_code(command, monkeypatch):
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    for module in (run, audit_verify):
        monkeypatch.setattr(module, "load_settings", interrupt)
    monkeypatch.setattr("symbi.cli.demo.copy_example", interrupt)
    monkeypatch.setattr("symbi.cli.tools.load_settings", interrupt)
    assert CliRunner().invoke(app, command).exit_code == output.EXIT_INTERRUPTED


def test_inputs_that_json_cannot_nest_are_taken_as_text():
    from symbi.dsl.compile import compile_file  # noqa: PLC0415 - named here alone
    from symbi.dsl.parser import parse  # noqa: PLC0415 - likewise

    text = "agent a(x: Any) { with { x } }"
    spec = compile_file(parse(text, "t.symbi"), text).agents[0]
    deep = "[" * 100_000
    assert run.parse_inputs([f"x={deep}"], spec) == {"x": deep}


def test_to_be_asked_again_to_end_is_no_respite():
    async def work() -> None:
        while True:
            os.kill(os.getpid(), signal.SIGTERM)
            await anyio.sleep(0.01)

    async def bounded() -> None:
        with anyio.fail_after(30):
            await run.until_terminated(work, 0.2)

    with pytest.raises(KeyboardInterrupt):
        anyio.run(bounded)


def test_who_is_told_to_end_while_it_is_opened_hears_of_it_once_it_can(tmp_path):
    heard = []

    async def work(on_stop) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        await anyio.sleep(0.05)
        on_stop(lambda: heard.append("stop"))

    run.run_until_stopped(
        work, parse_settings("", file=tmp_path / "symbi.toml", cwd=tmp_path, environ={}, overrides={})
    )
    assert heard == ["stop"]


def test_a_stream_that_nobody_reads_holds_nobody_up_and_says_what_it_left_out():
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as reader, os.fdopen(writing, "w") as stream:
        patient = PatientStream(stream, most_chars=200_000)
        for _ in range(1000):
            patient.write("x" * 999 + "\n")
        assert not patient.end(0.05)
        said = b""
        while b"left out" not in said:
            said += reader.read1(65536)
        assert patient.end(30)
    kept, left_out = said.count(b"x\n"), int(said.split(b"time: ")[1].split()[0])
    assert kept + left_out == 1000
    assert left_out > 500


def test_a_stream_whose_reader_has_gone_ends_nobody():
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stream:
        patient = PatientStream(stream)
        patient.write("lost\n")
        assert patient.end(30)
