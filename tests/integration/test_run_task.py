"""`symbi run --grant … --label …`: kept with the run, told on the trail, and refused where they are wrong."""

import json

import pytest
from typer.testing import CliRunner

from symbi.cli.main import app

AGENT = """
agent teller(note: String, to: Optional<String>) -> String {
    with sandbox = interpreter { log(note); note }
}
"""
POLICIES = """
@id("all") permit (principal, action, resource);
@id("clean-lines") forbid (principal, action == Action::"WriteLog", resource)
when { context.label.categories.contains("pii") };
"""


@pytest.fixture
def symbi(tmp_path, monkeypatch):
    """The command line in a folder with an agent and policies."""
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "all.cedar").write_text(POLICIES)
    (tmp_path / "teller.symbi").write_text(AGENT)
    (tmp_path / "symbi.toml").write_text("")
    (tmp_path / "grant.toml").write_text('[mail.send]\nto = "a@b.example"\n')
    monkeypatch.chdir(tmp_path)
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words])


def run(symbi, *more):
    return symbi("run", "teller.symbi", "--input", "note=hello", *more, "--json")


def test_the_answer_says_what_went_into_it(symbi):
    labels = ["--label", "note=untrusted", "--label", "note=internal:office"]
    answer = json.loads(run(symbi, *labels).stdout)
    assert answer["output"] == "hello"
    assert answer["label"] == {"integrity": "untrusted", "confidentiality": "internal", "categories": ["office"]}
    clean = json.loads(run(symbi).stdout)
    assert clean["label"] == {"integrity": "user", "confidentiality": "public", "categories": []}


def test_labels_are_decided_on_and_a_run_that_fails_has_none(symbi):
    done = run(symbi, "--label", "note=confidential:pii")
    assert done.exit_code == 3
    answer = json.loads(done.stdout)
    assert answer["label"] is None
    assert answer["error"]["details"]["policies"] == ["clean-lines"]


def test_the_trail_shows_both(symbi):
    assert run(symbi, "--grant", "grant.toml", "--label", "note=internal:office").exit_code == 0
    (line,) = symbi("audit", "show", "--type", "run.started").stdout.splitlines()
    event = json.loads(symbi("audit", "show", "--type", "run.started", "--json").stdout)
    assert f"grant {event['details']['grant_digest'][:12]}" in line
    assert "note: user, internal:office" in line
    assert event["details"]["input_labels"] == {
        "note": {"integrity": "user", "confidentiality": "internal", "categories": ["office"]}
    }


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--label", "nota=untrusted"], "agent `teller` has no input `nota` to label"),
        (["--label", "note=clean"], "`--label note=clean`: `clean` is not a label"),
        (["--label", "note"], "`--label note` is not of the form NAME=LABEL"),
        (["--grant", "absent.json"], "absent.json"),
        (["--grant", "teller.symbi"], "teller.symbi:2:1: not JSON"),
    ],
)
def test_what_is_wrong_is_refused_and_recorded(symbi, more, message):
    done = symbi("run", "teller.symbi", "--input", "note=hello", *more)
    assert done.exit_code == 2
    assert message in done.stderr.replace("\n", " ")
    assert "input.refused" in symbi("audit", "show").stdout
    assert "run.started" not in symbi("audit", "show").stdout


@pytest.mark.parametrize("more", [["--grant", "grant.toml"], ["--label", "note=trusted"]])
def test_a_resumed_run_is_given_neither(symbi, more):
    done = symbi("run", "--resume", *more)
    assert done.exit_code == 2
    assert "a resumed run keeps those that it was started with" in done.stderr.replace("\n", " ")
