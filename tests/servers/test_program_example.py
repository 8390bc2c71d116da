"""The example of programs on a real engine: the same result in both tiers by one word, and no other program by its policy."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from symbi.cli.main import app

pytestmark = pytest.mark.servers

EXAMPLE = Path(__file__).parents[2] / "examples" / "programs"


@pytest.fixture
def folder(docker, tmp_path, monkeypatch):
    """A copy of the example, with the engine and the image of this machine."""
    made = Path(shutil.copytree(EXAMPLE, tmp_path / "programs"))
    monkeypatch.chdir(made)
    monkeypatch.setenv("SYMBI_SANDBOX_DOCKER_HOST", docker.host)
    monkeypatch.setenv("SYMBI_SANDBOX_IMAGE", docker.image)
    return made


def run(image, table):
    done = CliRunner().invoke(app, ["run", "sales.symbi", "-i", f"image={image}", "-i", f"table={table}", "--json"])
    return done.exit_code, json.loads(done.stdout[done.stdout.index("{") :])


def test_one_word_changes_where_its_program_runs_and_nothing_else(docker, folder):
    agent, given = folder / "sales.symbi", []
    written = agent.read_text()
    for word in ("docker", "gvisor"):
        agent.write_text(written.replace("sandbox = docker", f"sandbox = {word}"))
        code, told = run(docker.image, (folder / "sales.csv").read_text())
        assert code == 0, told
        given.append(told["output"])
    sums = {"totals": {"north": 150, "south": 80}, "unread": 1}
    assert given == 2 * [{"code": 0, "sums": sums, "report": "north 150\nsouth 80\n"}]
    shown = CliRunner().invoke(app, ["audit", "show", "--type", "effect.outcome", "--json"])
    outcomes = [json.loads(line)["details"] for line in shown.stdout.splitlines() if "files_out" in line]
    assert [one["sandbox"]["gvisor"] for one in outcomes] == [False, True]
    assert sorted(outcomes[0]["files_in"]) == ["options.json", "sales.csv", "sum.py"]
    assert sorted(outcomes[0]["files_out"]) == ["report.txt", "totals.json"]


def test_a_table_that_it_cannot_read_is_a_result_that_says_so(docker, folder):
    code, told = run(docker.image, "a,b\n1,2\n")
    assert code == 0, told
    assert told["output"] == {"code": 1, "sums": None, "report": None}
    shown = CliRunner().invoke(app, ["audit", "show", "--json"])
    assert "there is no row with region and amount" in shown.stdout


def test_another_program_is_refused_before_there_is_a_container(docker, folder):
    agent = folder / "sales.symbi"
    agent.write_text(agent.read_text().replace("bad += 1", "bad += 2"))
    code, told = run(docker.image, "region,amount\nnorth,1\n")
    assert (code, told["error"]["code"]) == (3, "policy.denied")
