"""The command line when it is interrupted."""

import os
import signal

import anyio
import anyio.lowlevel
import pytest
from typer.testing import CliRunner

from symbi.cli import audit_verify, output, run
from symbi.cli.main import app


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
