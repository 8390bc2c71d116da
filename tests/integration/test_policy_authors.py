"""The tools for authors at the command line: check, explain, suggest."""

import json
import sqlite3
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from symbi.cli.main import app
from symbi.cli.output import EXIT_DENIED, EXIT_OK, EXIT_UNAVAILABLE, EXIT_USAGE, EXIT_VERIFICATION

AGENT = 'agent clerk(name: String) -> String { with { let n = python("1 + 1"); log(name); name } }\n'

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


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    prepare()
    return tmp_path


def symbi(*arguments: str) -> Result:
    result = CliRunner().invoke(app, arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
    return result


def run() -> str:
    """Run the agent; the id of its run."""
    done = symbi("run", "clerk.symbi", "--input", "name=Ada")
    assert (done.exit_code, done.stdout) == (EXIT_OK, "Ada\n"), done.output
    return next(event["run_id"] for event in reversed(trail()) if event["run_id"])


def trail() -> list[dict[str, str]]:
    return [json.loads(line) for line in symbi("audit", "show", "--json").stdout.splitlines()]


# --- check ------------------------------------------------------------------------------------


def test_what_init_writes_has_nothing_to_warn_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert symbi("init").exit_code == EXIT_OK
    for paths in ('["policies"]', '["policies", "budgets"]'):
        config = Path("symbi.toml")
        config.write_text(config.read_text("utf-8").replace('["policies"]', paths), "utf-8")
        assert "budgets" in paths or "calls-of-a-run" not in symbi("policy", "check").stdout
        checked = symbi("policy", "check", "--strict", "--agent-file", "hello.symbi")
        assert checked.exit_code == EXIT_OK, checked.stdout
        assert "0 warnings" in checked.stdout
    assert "calls-of-a-run" in checked.stdout


def test_check_warns_and_strict_makes_it_an_error(folder: Path) -> None:
    assert symbi("policy", "check", "--strict").exit_code == EXIT_OK
    bad = 'permit (principal in Group::"nobody", action == Action::"WriteLog", resource) when { 1 == 2 };\n'
    (folder / "policies" / "bad.cedar").write_text(bad, "utf-8")
    warned = symbi("policy", "check")
    assert warned.exit_code == EXIT_OK
    assert "warning: policies/bad.cedar:1:1: permit `policies/bad.cedar:1`: can never fire" in warned.stdout
    assert "`nobody` is not among the groups of any configured agent" in warned.stdout
    strict = symbi("policy", "check", "--strict", "--json")
    assert strict.exit_code == EXIT_USAGE
    lints = json.loads(strict.stdout)["lints"]
    assert [(each["code"], each["file"], each["line"], each["column"]) for each in lints] == [
        ("never-fires", "policies/bad.cedar", 1, 1),
        ("unused", "policies/bad.cedar", 1, 1),
    ]


@pytest.mark.usefixtures("folder")
def test_check_knows_the_agents_of_files() -> None:
    Path("policies/typo.cedar").write_text(
        'permit (principal == Agent::"clerc", action == Action::"WriteLog", resource);', "utf-8"
    )
    assert "clerc" not in symbi("policy", "check").stdout.split("permit  ")[0]
    found = symbi("policy", "check", "-a", "clerk.symbi").stdout
    assert "`clerc` is not among the agent files or the configuration" in found
    assert "did you mean `clerk`?" in found


def test_a_malformed_policy_has_its_place(folder: Path) -> None:
    (folder / "policies" / "bad.cedar").write_text("\npermit (principal, action resource);\n", "utf-8")
    for command in (
        ("check",),
        ("suggest",),
        ("explain", "--agent", "a", "--action", "WriteLog", "--resource", "X::y"),
    ):
        result = symbi("policy", *command)
        if command == ("suggest",):
            continue  # there is no trail yet, and that comes first
        assert result.exit_code == EXIT_USAGE
        assert "policies/bad.cedar:2:27" in result.stderr


# --- explain ----------------------------------------------------------------------------------


def explained(*more: str) -> tuple[int, dict[str, object]]:
    context = {"codeDigest": "x", "tier": "docker", "risk": {"__extn": {"fn": "decimal", "arg": "0.25"}}, "riskTier": "docker", "cpuMilli": 1000, "memoryMib": 900, "timeoutMs": 1, "label": {"integrity": "user", "confidentiality": "public"}}  # fmt: skip
    result = symbi(
        "policy", "explain", "--agent", "clerk", "--action", "ExecuteCode", "--resource", "Sandbox::interpreter",
        "--context", json.dumps(context), *more,
    )  # fmt: skip
    return result.exit_code, json.loads(result.stdout) if "--json" in more else {"text": result.stdout}


@pytest.mark.usefixtures("folder")
def test_explain_says_which_parts_do_not_hold_and_what_would_do() -> None:
    code, found = explained("--json")
    assert code == EXIT_DENIED
    what_if = found["what_if"]
    assert isinstance(what_if, dict)
    (change,) = what_if["changes"]
    assert change["verdict"] == "allow"
    assert change["facts"] == [
        {"fact": "context.tier", "is": '"docker"', "would_be": '"interpreter"'},
        {"fact": "context.memoryMib", "is": "900", "would_be": "256"},
    ]
    (policy,) = what_if["policies"]
    assert [(each["text"], each["holds"]) for each in policy["clauses"]] == [
        ('context.tier == "interpreter"', False),
        ("context.memoryMib <= 256", False),
        ("context.timeoutMs <= 30000", True),
    ]
    _, text = explained()
    assert "context.memoryMib <= 256 is false: context.memoryMib is 900" in str(text["text"])
    assert 'with context.tier = "interpreter" (is "docker") and context.memoryMib = 256 (is 900): allowed by' in str(text["text"])  # fmt: skip


@pytest.mark.usefixtures("folder")
def test_explain_says_what_a_lifted_forbid_would_do() -> None:
    Path("policies/no.cedar").write_text(
        '@id("no") forbid (principal, action == Action::"ExecuteCode", resource);', "utf-8"
    )
    _, found = explained()
    assert "without no (policies/no.cedar:1): denied: no policy permits" in str(found["text"])


# --- suggest ----------------------------------------------------------------------------------


def test_an_agent_runs_with_what_was_suggested_from_its_run_and_with_nothing_more(folder: Path) -> None:
    run_id = run()
    result = symbi("policy", "suggest", "--run", run_id, "--json")
    assert result.exit_code == EXIT_OK, result.output
    found = json.loads(result.stdout)
    assert found["file"] == "policies/suggested.cedar"
    assert found["differing"] == found["left_out"] == []
    assert found["requests"] == 4
    (folder / "policies" / "base.cedar").unlink()
    (folder / "policies" / "suggested.cedar").write_text(found["text"], "utf-8")
    run()
    other = AGENT.replace("1 + 1", "1 + 2")
    Path("clerk.symbi").write_text(other, "utf-8")
    assert symbi("run", "clerk.symbi", "--input", "name=Ada").exit_code == EXIT_DENIED


def test_the_diff_adds_a_file_and_takes_out_what_it_replaces(folder: Path) -> None:
    run()
    plain = symbi("policy", "suggest").stdout
    assert plain.startswith("--- /dev/null\n+++ b/policies/suggested.cedar\n@@ ")
    replaced = symbi("policy", "suggest", "--replace").stdout
    assert "--- a/policies/base.cedar\n+++ b/policies/base.cedar\n" in replaced
    assert '-@id("base.log")' in replaced
    (folder / "policies" / "suggested.cedar").write_text(symbi("policy", "suggest", "--text").stdout, "utf-8")
    assert symbi("policy", "suggest").stdout == ""


@pytest.mark.usefixtures("folder")
def test_bad_input_to_suggest_is_named() -> None:
    assert symbi("policy", "suggest").exit_code == EXIT_UNAVAILABLE  # there is no store
    run_id = run()
    unknown = symbi("policy", "suggest", "--run", f"{run_id[:-1]}z")
    assert unknown.exit_code == EXIT_USAGE
    assert run_id in unknown.stderr
    for time in ("yesterday", "2026-13-01", "2026-01-01T00:00:00+02:00", ""):
        result = symbi("policy", "suggest", "--since", time)
        assert result.exit_code == EXIT_USAGE, time
        assert "is not a time in UTC" in result.stderr
    nothing = symbi("policy", "suggest", "--since", "2999-01-01")
    assert nothing.exit_code == EXIT_USAGE
    assert "nothing that was allowed" in nothing.stderr
    assert symbi("policy", "suggest", "--since", "2020-01-01T00:00:00Z").exit_code == EXIT_OK


def test_a_request_that_was_changed_is_not_suggested_from(folder: Path) -> None:
    run()
    with sqlite3.connect(folder / ".symbi" / "symbi.db") as db:
        db.execute("UPDATE requests SET request = CAST(replace(CAST(request AS TEXT), 'clerk', 'thief') AS BLOB)")
    db.close()
    result = symbi("policy", "suggest")
    assert result.exit_code == EXIT_VERIFICATION
    assert "is not the one that was decided on" in result.stderr


def test_what_was_redacted_is_left_out_and_said(folder: Path) -> None:
    hide = '@id("hide") @record("digest") permit (principal, action == Action::"ExecuteCode", resource);'
    (folder / "policies" / "hide.cedar").write_text(hide, "utf-8")
    run()
    result = symbi("policy", "suggest", "--json")
    found = json.loads(result.stdout)
    assert [each["reason"] for each in found["left_out"]] == ['a policy says `@record("digest")`']
    assert "ExecuteCode" not in found["text"]
