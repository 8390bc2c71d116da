"""`symbi kb`, alone and through the owner of the data folder, with the real engine, model and readers."""

import json
import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

from symbi.cli.main import app
from symbi.policy.library import BASE

CONFIG = """
[policy]
paths = ["policies"]

[knowledge.rules.people]
source = "*people*"
subjects = ["jane@example.com"]
"""
DISK = "# Disks\n\nWhere a disk is full, remove old snapshots with the prune command.\n"
MAIL = "# Mail\n\nMail that bounces stands in the queue; flush the queue by hand.\n"
PEOPLE = "# People\n\nJane Zyxwv repairs the violins of the orchestra.\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "symbi.toml").write_text(CONFIG)
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies/base.cedar").write_text(BASE.text)
    (tmp_path / "runbook").mkdir()
    (tmp_path / "runbook/disk.md").write_text(DISK)
    (tmp_path / "runbook/mail.md").write_text(MAIL)
    return tmp_path


def kb(*arguments, code=0):
    done = CliRunner().invoke(app, ["kb", *arguments])
    assert done.exit_code == code, done.output
    return done.stdout


def kb_json(*arguments, code=0):
    return json.loads(kb(*arguments, "--json", code=code))


def test_an_index_that_is_damaged_is_moved_away_and_made_anew(folder):
    kb("add", "runbook", "-k", "ops")
    vectors = folder / ".symbi" / "vectors" / "knowledge"
    current = (vectors / "current").read_bytes()
    (vectors / "current").unlink()
    refused = CliRunner().invoke(app, ["kb", "search", "mail"])
    assert refused.exit_code != 0
    said = " ".join(refused.stderr.split())
    assert "are damaged" in said
    assert (
        "move that folder away; `symbi kb verify --repair` and `symbi memory verify --repair` make the vectors anew"
        in said
    )
    (vectors / "current").write_bytes(current)
    vectors.rename(folder / "away")
    assert "2 chunks without a vector" in kb("verify", code=4)
    assert "so it was; what did not agree was put in order" in kb("verify", "--repair")
    again = kb("verify", "--repair")
    assert "2 vectors; 0 vectors without a chunk, 0 chunks without a vector" in again
    assert "put in order" not in again
    assert "runbook/mail.md" in kb("search", "mail that bounces")


def test_documents_come_are_found_answer_and_go(folder):
    report = kb_json("add", "runbook", "-k", "ops")
    assert report["added"] == ["runbook/disk.md", "runbook/mail.md"]
    assert kb_json("add", "runbook", "-k", "ops")["unchanged"] == 2
    answered = kb_json("answer", "how do I flush the mail queue")
    assert answered["found"]
    assert answered["sources"][0]["source"] == "runbook/mail.md"
    text = kb("answer", "how do I flush the mail queue", "--trace")
    assert "flush the queue by hand. [1]" in text
    assert "[1] ops:runbook/mail.md — Mail" in text
    for stage in ("query analysis", "retrieval", "document fetch", "ranking", "response"):
        assert stage in text
    assert "nothing in what may be read" in kb("answer", "who won the chess tournament of Zagreb", code=1)
    assert [one["source"] for one in kb_json("list")] == ["runbook/disk.md", "runbook/mail.md"]
    assert kb_json("stats")[0]["documents"] == 2
    assert b"flush the mail queue" not in (folder / ".symbi/symbi.db").read_bytes(), "a question may name somebody"
    (folder / "runbook/disk.md").write_bytes(b"\x00\x01")
    refused = kb_json("add", "runbook", "-k", "ops", code=1)
    assert refused["skipped"][0]["code"] == "malformed"
    assert kb_json("rm", "runbook/mail.md", "-k", "ops") == {"removed": 1}
    assert kb_json("verify")[0]["clean"]
    assert "no document" in CliRunner().invoke(app, ["kb", "rm", "nothing", "-k", "ops"]).output


def test_that_there_is_nothing_is_said_and_one_is_said_as_one(folder):
    for command in ("list", "stats", "verify"):
        assert kb(command).strip() == "there are no documents"
    assert "1 file: 1 added, 0 changed, 0 removed, 0 unchanged; 1 chunk written" in kb(
        "add", "runbook/mail.md", "-k", "ops"
    )
    assert "1 chunk," in kb("list")
    assert "ops 1 document, 1 chunk, 0 sealed" in kb("stats")
    assert "1 document, 1 chunk, 1 vector; 0 vectors without a chunk" in kb("verify")
    assert kb("list", "-k", "other").strip() == "there are no documents in other"
    assert kb("rm", "mail.md", "-k", "ops").strip() == "1 document removed"


def test_another_folder_of_a_name_is_refused_and_one_that_has_moved_is_read_where_that_is_said(folder):
    kb("add", "runbook", "-k", "ops")
    (folder / "other/runbook").mkdir(parents=True)
    (folder / "other/runbook/disk.md").write_text(DISK)
    refused = CliRunner().invoke(app, ["kb", "add", "other/runbook", "-k", "ops"])
    assert refused.exit_code == 2, refused.output
    assert f"from `{folder / 'runbook'}`" in " ".join(refused.output.split())
    assert "--as NAME" in refused.output
    assert len(kb_json("list")) == 2
    report = kb_json("add", "other/runbook", "-k", "ops", "--moved")
    assert (report["unchanged"], report["removed"]) == (1, ["runbook/mail.md"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("add", "nothing"), "cannot read `nothing`: No such file"),
        (("rm",), "name documents"),
        (("rm", "a.md", "--all"), "not both"),
        (("search", ""), "a question needs a word"),
        (("search", "queue", "-n", "0"), "1 to 100 passages"),
        (("answer", "queue after:soon"), "takes a day"),
    ],
)
def test_what_is_wrong_with_a_command_is_said_before_anything_is_opened(tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["kb", *arguments])
    assert (done.exit_code, said in done.output) == (2, True), done.output
    assert list(tmp_path.iterdir()) == []


def test_where_nothing_permits_it_a_hint_says_what_would(tmp_path_factory, monkeypatch, folder):
    monkeypatch.chdir(tmp_path_factory.mktemp("empty"))
    done = CliRunner().invoke(app, ["kb", "list"])
    assert done.exit_code == 3
    assert "hint: no policy speaks of it: `base.knowledge` and `base.control`" in done.output
    for name in ("base.knowledge", "base.control"):
        assert f'@id("{name}")' in BASE.text
    monkeypatch.chdir(folder)
    forbidden = (
        '@id("no-lists") forbid (principal, action == Action::"ControlRuntime", resource == Resource::"kb.list");'
    )
    (folder / "policies/mine.cedar").write_text(forbidden)
    done = CliRunner().invoke(app, ["kb", "list"])
    assert (done.exit_code, "no-lists" in done.output, "hint" in done.output) == (3, True, False), done.output


def test_what_is_about_somebody_is_exported_and_leaves_no_byte_once_it_is_erased(folder):
    (folder / "runbook/people.md").write_text(PEOPLE)
    kb("add", "runbook", "-k", "ops")
    assert kb_json("search", "violins of the orchestra")["passages"][0]["source"] == "runbook/people.md"
    exported = CliRunner().invoke(app, ["privacy", "export", "jane@example.com"])
    assert "repairs the violins" in exported.stdout
    erased = CliRunner().invoke(app, ["privacy", "erase", "jane@example.com", "--value", "Zyxwv"])
    assert erased.exit_code == 0, erased.output
    certificate = json.loads(erased.stdout)
    assert certificate["stores"]["knowledge"]["what"] == "deleted"
    assert "runbook/people.md" not in [
        one["source"] for one in kb_json("search", "violins of the orchestra")["passages"]
    ]
    verified = kb_json("verify")[0]
    assert verified["clean"]
    assert verified["vectors"] == verified["chunks"] == 2
    for path in (folder / ".symbi").rglob("*"):
        assert not path.is_file() or b"Zyxwv" not in path.read_bytes()


def test_an_owner_that_is_alive_does_it_for_others(folder):
    (folder / "a.symbi").write_text('agent a() { with { "done" } }')
    (folder / "symbi.toml").write_text(CONFIG + '\n[agents.a]\nmode = "persistent"\n')
    command = [sys.executable, "-m", "symbi.cli.main", "up", "a.symbi"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as owner:
        try:
            until = time.monotonic() + 60
            while not (folder / ".symbi/symbi.sock").exists() and time.monotonic() < until:
                time.sleep(0.05)
            assert owner.poll() is None
            assert len(kb_json("add", str(folder / "runbook"), "-k", "ops")["added"]) == 2
            assert kb_json("search", "bounces")["passages"][0]["source"] == "runbook/mail.md"
            assert kb_json("verify")[0]["clean"]
        finally:
            owner.terminate()
            owner.wait(30)


def test_the_starting_policies_let_who_owns_the_folder_see_to_documents(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(app, ["init"]).exit_code == 0
    (tmp_path / "mail.md").write_text(MAIL)
    assert kb_json("add", "mail.md")["added"] == ["mail.md"]
    assert kb_json("answer", "how do I flush the mail queue")["found"]
