"""`symbi compliance` on a real run of the example, on folders where nothing happened, and on trails that were altered."""

import hashlib
import json
import os
import re
import shutil
import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path

import anyio
import pytest
from typer.testing import CliRunner

from symbi.adapters.sqlite import SqliteReader
from symbi.api.control import ControlSocket
from symbi.audit.event import parse_event
from symbi.cli.main import app
from symbi.compliance.library import NAMES, framework_named
from symbi.policy.library import BASE
from symbi.testing.runtime import open_in

DENIED, BROKEN = 3, 4
STATUSES = {"met", "not met", "not applicable", "cannot be known from here"}


class Folder:
    """A folder with a symbi.toml, and commands in it."""

    def __init__(self, path):
        self.path = path

    def symbi(self, *arguments, code=0):
        before = Path.cwd()
        os.chdir(self.path)
        try:
            done = CliRunner().invoke(app, arguments, env={"SYMBI_LOG_LEVEL": "error"})
        finally:
            os.chdir(before)
        assert done.exception is None or isinstance(done.exception, SystemExit), repr(done.exception)
        assert done.exit_code == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    def report(self, *arguments):
        return json.loads(self.symbi("compliance", "report", *arguments, "--format", "json").stdout)

    def events(self, kind=None):
        with SqliteReader(self.path / ".symbi") as reader:
            events = [parse_event(stored.record) for stored in reader.read(1)]
        return [event for event in events if kind in {None, event.event_type}]


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The example after its run."""
    folder = Folder(tmp_path_factory.mktemp("compliance"))
    folder.symbi("demo", "demo")
    return folder.path / "demo"


@pytest.fixture
def demo(ran, tmp_path):
    shutil.copytree(ran, tmp_path / "demo")
    return Folder(tmp_path / "demo")


@pytest.fixture
def fresh(tmp_path):
    """A folder in which nothing has happened yet."""
    folder = Folder(tmp_path)
    folder.symbi("init")
    return folder


def statuses(document):
    return {control["id"]: control["status"] for control in document["controls"]}


SHOWN = {  # by a run of the example: what its policies, signed tools and trail show, and what nothing can
    "hipaa": {
        "312.a.1": "met", "312.a.2.i": "met", "312.a.2.ii": "cannot be known from here", "312.a.2.iii": "met", "312.b": "met",
        "312.c.1": "met", "312.c.2": "met", "312.d": "met", "312.e.1": "met", "312.e.2.ii": "cannot be known from here",
        "308.a.1.ii.D": "not met", "308.a.3.ii.A": "not applicable", "308.a.5.ii.C": "met", "308.a.8": "not met",
    },
    "gdpr": {
        "art.5.1.f": "met", "art.5.2": "met", "art.15": "not applicable", "art.17": "not applicable", "art.25.1": "met",
        "art.28": "cannot be known from here", "art.30": "met", "art.32.1.b": "met", "art.32.1.d": "not met",
        "art.33.1": "cannot be known from here", "art.33.5": "met",
    },
    "sox": {
        "AC-1": "met", "AC-2": "met", "AC-3": "not applicable", "AC-4": "met", "AC-5": "not met", "CM-1": "met",
        "CM-2": "not met", "CM-3": "met", "CM-5": "cannot be known from here", "CO-1": "met", "CO-2": "not applicable",
        "CO-3": "met", "CO-5": "not met", "SD-1": "not applicable", "SD-3": "cannot be known from here",
    },
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_report_on_a_real_run_in_three_formats_and_its_hashes_on_the_trail(demo, name):
    done = demo.symbi("compliance", "report", name, "--out", "r.html", "--out", "r.json", "--out", "r.md")
    document = json.loads((demo.path / "r.json").read_bytes())
    found = statuses(document)
    assert {one: found[one] for one in SHOWN[name]} == SHOWN[name]
    assert set(found.values()) == STATUSES
    page = (demo.path / "r.html").read_text()
    badges = dict(re.findall(r'id="control-([^"]+)">.*?class="badge[^"]*">. ([a-z ]+)<', page, re.DOTALL))
    assert badges == found
    md = (demo.path / "r.md").read_text()
    assert all(f"**{status}**" in md for status in set(found.values()))
    (told,) = demo.events("compliance.reported")
    files = {one["format"]: one["sha256"] for one in told.details["files"]}
    assert files == {form: hashlib.sha256((demo.path / f"r.{form}").read_bytes()).hexdigest() for form in files}
    assert set(files) == {"html", "json", "md"}
    assert (told.details["report_sha256"], told.details["framework"]) == (files["json"], name)
    assert f"recorded as event {told.sequence} of the trail" in done.stdout
    decided = [e for e in demo.events("decision.allow") if e.details["resource"] == "Resource::compliance.record"]
    assert len(decided) == 1
    assert decided[0].sequence < told.sequence
    verified = json.loads(demo.symbi("compliance", "verify", "r.json", "--json").stdout)
    assert verified["made_again"]
    assert verified["proofs"] > 10
    assert verified["recorded"]["sequence"] == told.sequence
    assert "its hash alone was checked" in demo.symbi("compliance", "verify", "r.html").stdout
    demo.symbi("audit", "verify")


def test_a_report_is_evidence_for_the_next(demo):
    assert statuses(demo.report("hipaa"))["308.a.8"] == "not met"
    assert statuses(demo.report("hipaa"))["308.a.8"] == "met"
    assert statuses(demo.report("sox"))["AC-5"] == "not met", "a report on other controls is none on these"


def test_nothing_of_a_report_is_written_where_the_trail_was_altered(demo):
    with closing(sqlite3.connect(demo.path / ".symbi" / "symbi.db")) as db, db:
        record = db.execute("SELECT record FROM events WHERE sequence = 10").fetchone()[0]
        db.execute("UPDATE events SET record = ? WHERE sequence = 10", (record.replace(b"log_triage", b"log_triagE"),))
    done = demo.symbi("compliance", "report", "hipaa", "--out", "r.html", code=BROKEN)
    assert "event 10" in done.stderr
    assert not (demo.path / "r.html").exists()
    assert demo.events()[-1].event_type == "runtime.stopped"
    demo.symbi("compliance", "verify", "symbi.toml", code=BROKEN)


def test_nothing_of_a_report_is_written_where_policy_lets_nobody_record_it(demo):
    policy = demo.path / "policies" / "operator.cedar"
    policy.write_text(policy.read_text().partition('@id("operator-report")')[0])
    (demo.path / "r.html").write_text("before")
    done = demo.symbi("compliance", "report", "hipaa", "--out", "r.html", code=DENIED)
    assert 'permit `ControlRuntime` on `Resource::"compliance.record"`' in done.stderr
    assert (demo.path / "r.html").read_text() == "before"
    assert [path.name for path in demo.path.glob(".r.html*")] == []
    assert demo.symbi("compliance", "report", "hipaa", code=DENIED).stdout == ""
    assert demo.events("compliance.reported") == []
    assert demo.events("decision.deny")[-1].details["resource"] == "Resource::compliance.record"


def test_an_altered_report_is_none(demo):
    demo.symbi("compliance", "report", "hipaa", "--out", "r.json")
    path = demo.path / "r.json"
    path.write_text(path.read_text().replace('"status": "not met"', '"status": "met"', 1))
    done = demo.symbi("compliance", "verify", "r.json", code=BROKEN)
    assert "no event of the trail tells of a report" in done.stderr


@pytest.mark.parametrize("name", NAMES)
def test_where_nothing_ever_happened_every_control_says_that_it_is_not_evidenced(fresh, name):
    document = fresh.report(name)
    assert document["trail"]["verified"] is False
    for control in document["controls"]:
        assert control["status"] in {"not met", "cannot be known from here"}
        assert not control["evidenced"]
        assert control["reason"].startswith("not evidenced")
    assert document["summary"]["met"] == document["summary"]["not applicable"] == 0
    assert fresh.events()[0].event_type == "trail.started"
    fresh.symbi(
        "compliance", "report", name, "--to", "2020-12-31", "--out", "r.html", "--out", "r.json", "--out", "r.md"
    )
    later = json.loads((fresh.path / "r.json").read_bytes())
    assert later["trail"]["verified"] is True
    assert all(control["reason"].startswith("not evidenced") for control in later["controls"])
    for form in ("html", "md"):
        text = (fresh.path / f"r.{form}").read_text()
        assert text.count("not evidenced") >= len(later["controls"])
        assert "is evidenced: the trail has no event of this period" in text
    fresh.symbi("compliance", "verify", "r.json")


def test_a_report_of_an_empty_trail_can_be_verified_too(fresh):
    fresh.symbi("compliance", "report", "gdpr", "--out", "r.json")
    told = json.loads(fresh.symbi("compliance", "verify", "r.json", "--json").stdout)
    assert (told["made_again"], told["proofs"]) == (True, 0)


def test_a_framework_of_ones_own(demo):
    demo.symbi("compliance", "init", "ours")
    demo.symbi("compliance", "init", "ours", code=2)
    assert json.loads(demo.symbi("compliance", "check", "ours.toml", "--json").stdout)["controls"] == 3
    demo.symbi("compliance", "report", "ours.toml", "--out", "r.json")
    found = statuses(json.loads((demo.path / "r.json").read_bytes()))
    assert found == {"OWN-1": "met", "OWN-2": "not applicable", "OWN-3": "cannot be known from here"}
    assert not json.loads(demo.symbi("compliance", "verify", "r.json", "--json").stdout)["made_again"]
    told = demo.symbi("compliance", "verify", "r.json", "--framework", "ours.toml", "--json")
    assert json.loads(told.stdout)["made_again"]
    path = demo.path / "ours.toml"
    path.write_text(path.read_text().replace('"decision.allow"', '"decision.alow"', 1))
    line = next(n for n, text in enumerate(path.read_text().splitlines(), 1) if "decision.alow" in text)
    done = demo.symbi("compliance", "check", "ours.toml", code=2)
    assert f"ours.toml:{line}:1: unknown event type `decision.alow`" in done.stderr
    demo.symbi("compliance", "report", "ours.toml", code=2)
    assert len(demo.events("compliance.reported")) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["report", "hippa"], "there is no framework `hippa`"),
        (["report", "no.toml"], "cannot read `no.toml`"),
        (["report", "hipaa", "--out", "r.pdf"], "does not tell a format"),
        (["report", "hipaa", "--out", "r.html", "--format", "md"], "is of the format `html` by its name"),
        (["report", "hipaa", "--out", "r.md", "--out", "r.md"], "is named twice"),
        (["report", "hipaa", "--out", "no/such/r.html"], "cannot write"),
        (["report", "hipaa", "--out", "policies", "--format", "md"], "it is a folder"),
        (["report", "hipaa", "--out", "r.md", "--out", "policies/../r.md"], "cannot write"),
        (["report", "hipaa", "--from", "tomorrow"], "`tomorrow` is no time"),
        (["report", "hipaa", "--from", "2026-02-01", "--to", "2026-01-01"], "is empty"),
        (["show", "nothing"], "there is no framework `nothing`"),
        (["check", "policies"], "cannot read `policies`"),
        (["init", "Not An Id"], "is no id"),
        (["verify", "no.json"], "cannot read `no.json`"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_recorded(demo, arguments, words):
    before = len(demo.events())
    done = demo.symbi("compliance", *arguments, code=2)
    assert words in done.stderr
    assert len(demo.events()) == before


def test_a_report_is_not_written_through_a_link_that_somebody_has_laid(demo):
    victim = demo.path / "victim"
    victim.write_text("mine")
    (demo.path / f".r.md.{os.getpid()}").symlink_to(victim)
    assert "cannot write" in demo.symbi("compliance", "report", "hipaa", "--out", "r.md", code=2).stderr
    assert victim.read_text() == "mine"


def test_the_frameworks_are_listed_and_shown(demo):
    listed = json.loads(demo.symbi("compliance", "list", "--json").stdout)
    assert [one["id"] for one in listed] == list(NAMES)
    plain = demo.symbi("compliance", "list").stdout
    for name in NAMES:
        assert name in plain
        shown = json.loads(demo.symbi("compliance", "show", name, "--json").stdout)
        assert len(shown["controls"]) == len(framework_named(name).controls)
        text = demo.symbi("compliance", "show", name).stdout
        assert all(control["question"] in text for control in shown["controls"])


WORK = 'agent work() -> String { with sandbox = interpreter, timeout = 5.seconds { format("x") } }'


@pytest.mark.anyio
async def test_a_runtime_that_is_alive_puts_the_report_on_its_trail(tmp_path):
    (tmp_path / "symbi.toml").write_text('[policy]\npaths = ["policies"]\n')
    config = str(tmp_path / "symbi.toml")
    command = ["compliance", "report", "hipaa", "--config", config, "--out", str(tmp_path / "r.json")]
    opened = open_in(tmp_path, WORK, config='[policy]\npaths = ["policies"]\n', policies=BASE.text)
    async with opened as running, ControlSocket(running.runtime, tmp_path / ".symbi"):
        done = await anyio.to_thread.run_sync(partial(CliRunner().invoke, app, command))
        assert done.exit_code == 0, done.stderr
    folder = Folder(tmp_path)
    (told,) = folder.events("compliance.reported")
    assert told.details["files"][0]["sha256"] == hashlib.sha256((tmp_path / "r.json").read_bytes()).hexdigest()
    assert told.details["person"]
    assert len([e for e in folder.events() if e.event_type == "runtime.started"]) == 1
    folder.symbi("compliance", "verify", "r.json")
