"""`symbi run --budget`, `symbi budget` and, on a runtime that is alive, `symbi status` and `symbi agents usage`."""

import cProfile
import json
import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from symbi.cli.main import app
from symbi.runtime.course import Order
from symbi.testing.runtime import open_in

PERMIT = "permit (principal, action, resource);"
SPIN = """
agent spin {
    with sandbox = interpreter, timeout = 60.seconds { let s = 0; for i in range(300) { for j in range(1000) { s += 1; } } s }
}
"""
FOR_EVER = 'agent tick { with sandbox = interpreter, timeout = 300.seconds { for i in range(50000) { log("line"); } } }'


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "p.cedar").write_text(PERMIT)
    return tmp_path


def said(*arguments):
    done = CliRunner().invoke(app, arguments, env={"SYMBI_LOG_LEVEL": "error"})
    return done.exit_code, done.stdout, done.stderr


def test_a_run_is_held_by_its_budget_shown_raised_and_resumed(folder):
    (folder / "spin.symbi").write_text(SPIN)
    code, out, _ = said("run", "spin.symbi", "--budget", "cpu_s=0.05,calls=3,money=1.50", "--json")
    assert (code, json.loads(out)["state"], json.loads(out)["error"]["code"]) == (6, "held", "limit.budget")
    run_id = json.loads(out)["run_id"]
    (row,) = json.loads(said("budget", "show", "spin", "--json")[1])
    assert (row["run"], row["budget"]) == (run_id, {"calls": 3, "money_micros": 1_500_000, "cpu_ms": 50})
    assert row["spent"]["cpu_ms"] >= 50
    code, out, _ = said("budget", "show", run_id)
    assert code == 0
    assert "calls   0 spent of 3, 3 left" in out
    assert said("run", "--resume")[0] == 6
    code, out, _ = said("budget", "raise", run_id, "cpu_s=+30", "calls=4")
    assert code == 0
    assert "of 4, 4 left" in out
    code, out, _ = said("run", "--resume")
    assert (code, out) == (0, "300000\n")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("run", "spin.symbi", "--budget", "cals=3"), "nothing that has a budget"),
        (("run", "spin.symbi", "--budget", "calls=3,calls=4"), "must name each amount once"),
        (("run", "spin.symbi", "--budget", "calls"), "must name each amount once"),
        (("run", "spin.symbi", "--budget", "wall_s=0.0001"), "at most 3 digits"),
        (("run", "--resume", "--budget", "calls=3"), "for a new run"),
        (("budget", "show", "nobody"), "has a budget"),
        (("budget", "raise", "nobody", "calls=+1"), "has no budget"),
        (("budget", "raise", "nobody", "calls"), "is not of the form"),
    ],
)
def test_what_is_wrong_is_said(folder, arguments, why):
    (folder / "spin.symbi").write_text(SPIN)
    code, _, err = said(*arguments)
    assert code == 2
    assert why in err.replace("\n", " ")


def test_status_and_usage_ask_the_runtime_that_is_alive(folder):
    (folder / "tick.symbi").write_text(FOR_EVER)
    (folder / "symbi.toml").write_text('[agents.tick]\nowner = "ada"\n')
    assert said("status")[0] == 5
    command = [
        sys.executable,
        "-c",
        "from symbi.cli.main import main; main()",
        "run",
        "tick.symbi",
        "--budget",
        "calls=7",
    ]
    process = subprocess.Popen(
        command, cwd=folder, env={**os.environ, "SYMBI_LOG_LEVEL": "error"}, stderr=subprocess.DEVNULL
    )
    try:
        rows = []
        while not rows or not rows[0]["effects"]:
            assert process.poll() is None
            code, out, _ = said("agents", "usage", "--by", "owner", "--json")
            rows = json.loads(out) if code == 0 else []
        assert (rows[0]["owner"], rows[0]["runs"]) == ("ada", 0)
        code, out, err = said("status", "--json")
        assert code == 0, err
        status = json.loads(out)
        assert (status["running"], status["at_work"], status["halted"]) == (1, 1, None)
        assert status["used"]["effects"] >= rows[0]["effects"]
        code, out, _ = said("status")
        assert code == 0
        assert out.startswith("1 of ")
        assert "trail: " in out
        assert json.loads(said("agents", "show", "tick", "--json")[1])["used"]["effects"] > 0
        assert said("agents", "usage")[1].startswith("tick ")
        assert said("agents", "usage", "--order", "cpus")[0] == 2
        assert json.loads(said("budget", "show", "tick", "--json")[1])[0]["left"]["calls"] == 7
    finally:
        process.terminate()
        process.wait(timeout=60)


@pytest.mark.anyio
async def test_the_status_costs_the_same_however_many_agents_there_are(tmp_path):
    worker = "agent worker(n: int) { with sandbox = interpreter { n } }"
    async with open_in(tmp_path, worker, config='[agents.worker]\nmode = "persistent"\n', policies=PERMIT) as opened:
        runtime, calls = opened.runtime, []
        runtime.roster.declare(opened.compiled)
        order = Order(opened.compiled, opened.compiled.agents[0])
        for at, count in ((0, 10), (10, 3000)):
            await runtime.spawn(order, [str(number) for number in range(at, at + count)])
            costs = []
            for _ in range(5):  # the least of them is without what else came up while it waited
                profile = cProfile.Profile()
                profile.enable()
                status = await runtime.get_system_status()
                profile.disable()
                costs.append(sum(one.callcount for one in profile.getstats()))
            calls.append(min(costs))
            assert sum(status.standing.agents.values()) == at + count
        assert calls[1] < 1.5 * calls[0]
