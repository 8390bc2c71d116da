"""`symbi policy why` tells the truth about each decision, and loudly when the store does not fit the trail."""

import json
import sqlite3
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from symbi.cli.main import app
from symbi.cli.output import EXIT_OK, EXIT_UNAVAILABLE, EXIT_USAGE, EXIT_VERIFICATION

AGENT = """\
agent clerk(name: String) -> String {
    policy clerk { deny: log if label.integrity == "untrusted" }
    with { let x = python("1 + 1"); log(name); try { now() } catch (e) { "no" }
           try { tool("no.tool", x = 1) } catch (e) { "no" } }
}
"""
POLICIES = """\
@id("base.create")
permit (principal, action == Action::"CreateAgent", resource) when { context.tier == "interpreter" };
@id("base.allocate")
permit (principal, action == Action::"AllocateResources", resource) when { context.memoryMib <= 512 };
@id("base.interpreter")
permit (principal, action == Action::"ExecuteCode", resource == Sandbox::"interpreter")
when { context.tier == "interpreter" && context.memoryMib <= 256 && context.timeoutMs <= 30000 };
@id("base.log")
permit (principal, action == Action::"WriteLog", resource)
when { context.label.confidentiality != "secret" };
"""


def prepare() -> None:
    """A configuration with these policies, in the current folder."""
    Path("policies").mkdir()
    Path("policies/base.cedar").write_text(POLICIES, "utf-8")
    Path("symbi.toml").write_text('[policy]\npaths = ["policies"]\n', "utf-8")
    Path("clerk.symbi").write_text(AGENT, "utf-8")


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which an agent ran: some effects allowed, one denied."""
    folder = tmp_path_factory.mktemp("why")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        runner = CliRunner()
        prepare()
        done = runner.invoke(app, ["run", "clerk.symbi", "--input", "name=hello"])
        assert "unknown tool `no.tool`" in done.output  # its last statement
    return folder


@pytest.fixture
def folder(ran: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, to be damaged."""
    import shutil  # noqa: PLC0415 - here alone

    shutil.copytree(ran, tmp_path / "w")
    monkeypatch.chdir(tmp_path / "w")
    return tmp_path / "w"


def why(effect: str, *more: str) -> Result:
    result = CliRunner().invoke(app, ["policy", "why", effect, *more])
    assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
    return result


def effects() -> dict[str, str]:
    """Effect ids by action."""
    shown = CliRunner().invoke(app, ["audit", "show", "--json"]).stdout.splitlines()
    details = [json.loads(line)["details"] for line in shown]
    return {d["action"]: d["effect_id"] for d in details if "verdict" in d}


def change(folder: Path, sql: str, *values: object) -> None:
    with sqlite3.connect(folder / ".symbi" / "symbi.db") as db:
        assert db.execute(sql, values).rowcount > 0
    db.close()


@pytest.mark.usefixtures("folder")
def test_every_decision_of_a_run_is_derived_again() -> None:
    found = effects()
    assert {"Canary", "CreateAgent", "ExecuteCode", "WriteLog", "ReadClock"} <= set(found)
    for action, effect in found.items():
        result = why(effect, "--json")
        assert result.exit_code == EXIT_OK, result.output
        (decision,) = json.loads(result.stdout)["decisions"]
        assert decision["agrees"], (action, decision["problems"], decision["notes"])
        assert decision["derived"]["verdict"] == decision["event"]["details"]["verdict"]


@pytest.mark.usefixtures("folder")
def test_the_rule_its_line_its_text_and_what_would_have_stopped_it_are_shown() -> None:
    result = why(effects()["WriteLog"])
    assert result.exit_code == EXIT_OK
    text = result.stdout
    assert "permit base.log (policies/base.cedar:" in text
    assert 'when { context.label.confidentiality != "secret" };' in text
    assert 'with context.label.integrity = "untrusted" (is "user"): denied: forbidden by `clerk.symbi:2`' in text
    assert "all together: user, public, from task" in text
    assert "the same decision" in text


@pytest.mark.usefixtures("folder")
def test_what_the_runtime_itself_does_is_told_too() -> None:
    result = why(effects()["Canary"])
    assert result.exit_code == EXIT_OK
    assert "the runtime itself" in result.stdout
    assert "symbi.canary (symbi/canary.cedar:" in result.stdout


@pytest.mark.usefixtures("folder")
def test_an_unknown_effect_is_named_with_one_that_is_like_it() -> None:
    known = effects()["WriteLog"]
    result = why(f"{known[:-1]}x")
    assert result.exit_code == EXIT_USAGE
    assert "there is no effect" in result.stderr
    assert known[:13] in result.stderr
    assert why("no such thing").exit_code == EXIT_USAGE


@pytest.mark.usefixtures("folder")
def test_what_was_refused_before_policies_were_asked_says_so() -> None:
    shown = CliRunner().invoke(app, ["audit", "show", "--type", "tool.refused", "--json"]).stdout
    result = why(json.loads(shown)["details"]["effect_id"])
    assert result.exit_code == EXIT_USAGE
    assert "the trail has no decision on effect" in result.stderr
    assert "unknown tool `no.tool`" in result.stderr


def test_without_a_store_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = why("x")
    assert result.exit_code == EXIT_UNAVAILABLE
    assert "there is no store" in result.stderr


ATTACKS = {
    "the stored request is not the one": "UPDATE requests SET request = "
    "CAST(replace(CAST(request AS TEXT), 'user', 'trusted') AS BLOB) WHERE effect_id = ?",
    "is not in the store": "DELETE FROM requests WHERE effect_id = ?",
    "another set": "UPDATE policy_sets SET text = replace(text, 'secret', 'public') WHERE ? <> ''",
    "policy set `": "DELETE FROM policy_sets WHERE ? <> ''",
    "policy set is damaged": "UPDATE policy_sets SET text = 'x' WHERE ? <> ''",
    "no record of the effect": "DELETE FROM effects WHERE effect_id = ?",
    "the ledger's record of the decision": "UPDATE effects SET decision = CAST('{}' AS BLOB) WHERE effect_id = ?",
}


@pytest.mark.parametrize("told", ATTACKS)
def test_a_store_that_was_changed_is_found_out_loudly(told: str, folder: Path) -> None:
    effect = effects()["WriteLog"]
    change(folder, ATTACKS[told], effect)
    result = why(effect)
    assert result.exit_code == EXIT_VERIFICATION, result.output
    assert "DOES NOT FIT" in result.stdout
    assert told in result.stdout
    assert "the same decision" not in result.stdout
    as_json = why(effect, "--json")
    assert as_json.exit_code == EXIT_VERIFICATION
    assert any(told in problem for each in json.loads(as_json.stdout)["decisions"] for problem in each["problems"])


def test_an_altered_event_is_found_out(folder: Path) -> None:
    effect = effects()["WriteLog"]
    change(
        folder,
        "UPDATE events SET record = CAST(replace(CAST(record AS TEXT), 'hello', 'HELLO') AS BLOB) "
        "WHERE instr(CAST(record AS TEXT), 'hello') > 0 AND instr(CAST(record AS TEXT), ?) > 0",
        effect,
    )
    result = why(effect)
    assert result.exit_code == EXIT_VERIFICATION
    assert "was altered" in result.stderr


def test_an_effect_that_the_trail_does_not_know_is_no_unknown_effect(folder: Path) -> None:
    effect = effects()["WriteLog"]
    change(folder, "UPDATE effects SET effect_id = 'forged' WHERE effect_id = ?", effect)
    result = why("forged")
    assert result.exit_code == EXIT_VERIFICATION
    assert "the trail does not know it" in result.stderr
