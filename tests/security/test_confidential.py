"""Nothing of a data subject stands in plain text in the data folder: not while running, not after kill -9, not in exports."""

import hashlib
import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from symbi.adapters.sqlite import SqliteReader, SqliteStore
from symbi.audit.event import parse_event
from symbi.audit.verify import verify_trail
from symbi.cli.main import app
from symbi.clock import SystemClock
from symbi.config import load_settings
from symbi.crypto.canonical import canonical_json
from symbi.crypto.provider import open_provider
from symbi.guard.vault import Vault
from symbi.wiring import verifying_keys
from symbi.wiring.runtime import sealing_ring

DATA = Path(__file__).parents[1] / "data"
HELD, SIGKILLED = 7, -9
CUSTOMERS = {
    "cust-0017": {
        "email": "Anna.Quux@example.com",
        "name": "Anna Quuxbury",
        "note": "allergic-to-zinnober",
        "age": 847110482715,
    },
    "cust-0018": {
        "email": "ben@example.org",
        "name": "Benedikt Wobbleton",
        "note": "owes-ninety-groats",
        "age": 582298130466,
    },
}
ANNA = ("anna.quux", "Anna.Quux", "Quuxbury", "zinnober", "847110482715", "cust-0017")
BEN = ("ben@example", "Wobbleton", "groats", "582298130466", "cust-0018")
AGENT = """\
agent work(id: String) -> String {
    capabilities = ["crm.find", "crm.all", "crm.fail", "crm.send", "python", "log", "endorse", "approval"]
    with sandbox = interpreter, timeout = 60.seconds {
        let found = tool("crm.find", id = id);
        let said = "";
        try { tool("crm.fail", id = id); } catch (e) { said = e.message; }
        let size = python("len(x) + age", x = found.customer.name, age = found.customer.age);
        log(format("{} has {}", found.customer.name, size));
        let sure = endorse(found.customer.note, "note");
        tool("crm.send", to = found.customer.email, text = format("{} {} {}", found.customer.name, sure, said));
        format("{}: {}", found.customer.name, found.customer.note)
    }
}
"""
CONFIG = """\
[mcp]
tool_verification = "tofu"
connection_timeout_s = 20.0
[audit]
confidential = "{mode}"
[mcp.servers.crm]
command = ["{{python}}", "{server}"]
manifest = "crm.toml"
[approvals.people.ada]
user = "{uid}"
groups = ["ops"]
{more}
"""
MANIFEST = """\
[server]
name = "crm"
[tools.find]
recovery = "read-only"
subject_argument = "id"
subject_field = "customer.email"
[tools.all]
recovery = "read-only"
subject_field = "customers[*].email"
[tools.fail]
recovery = "read-only"
subject_argument = "id"
subject_field = "customer.email"
[tools.send]
recovery = "idempotent"
"""
POLICY = '@id("all")\n@output("full")\npermit (principal, action, resource);\n'
ASK = """\
@id("ask")
@approval("who=ops; why=it leaves the house")
permit (principal, action == Action::"InvokeTool::crm.send", resource);
"""
SHADOW = '@id("other") permit (principal, action == Action::"WriteLog", resource);'


class Place:
    """A folder with an agent that works on what is about people."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.write()

    def write(self, agent: str = AGENT, mode: str = "subjects", policy: str = POLICY + ASK, more: str = "") -> None:
        files = {
            "work.symbi": agent,
            "symbi.toml": CONFIG.format(server=DATA / "servers" / "crm.py", uid=os.geteuid(), mode=mode, more=more),
            "crm.toml": MANIFEST,
            "policies/all.cedar": policy,
            "customers.json": json.dumps(CUSTOMERS),
        }
        for name, text in files.items():
            path = self.folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, "utf-8")

    def drive(self, point: str = "-", number: int = 0, *more: str) -> int:
        """The agent in a process of its own."""
        command = [sys.executable, str(DATA / "confidential_run.py"), str(self.folder), point, str(number), *more]
        done = subprocess.run(
            command, cwd=self.folder, capture_output=True, text=True, timeout=120, check=False,
            env={**os.environ, "SYMBI_LOG_LEVEL": "error"},
        )  # fmt: skip
        self.stderr = done.stderr
        return done.returncode

    def inside(self, *arguments: str):
        before = Path.cwd()
        os.chdir(self.folder)
        try:
            return CliRunner().invoke(app, arguments, env={"SYMBI_LOG_LEVEL": "error"})
        finally:
            os.chdir(before)

    @property
    def settings(self):
        return load_settings(self.folder / "symbi.toml", environ={})

    def found(self, *words: str) -> list[str]:
        """The words that stand in any byte of any file of ours, in any of the forms that a file could hold them in."""
        data = {path: path.read_bytes() for path in (self.folder / ".symbi").rglob("*") if path.is_file()}
        return [
            f"{word} in {path.name}"
            for word in words
            for path, held in data.items()
            for form in forms(word)
            if form in held
        ]

    def guessed(self, *values: object) -> list[str]:
        """The values that somebody who guesses them can confirm by a plain digest."""
        held = b"".join(path.read_bytes() for path in (self.folder / ".symbi").rglob("*") if path.is_file())
        texts = [canonical_json(value) for value in values] + [
            json.dumps(value, separators=(",", ":")).encode() for value in values
        ]
        return [text.decode() for text in texts if hashlib.sha256(text).hexdigest().encode() in held]

    def erase(self, *subjects: str) -> None:
        settings = self.settings
        with SqliteStore(settings.runtime.data_dir) as store, store.transaction():
            vault = Vault(store, sealing_ring(settings, store), open_provider(), SystemClock())
            for subject in subjects:
                assert vault.destroy(subject) == 1

    def verify(self):
        settings = self.settings
        with SqliteReader(settings.runtime.data_dir) as reader:
            verify_trail(reader.read(1), reader.head_record(), verifying_keys(settings))
            return [parse_event(stored.record) for stored in reader.read(1)]


def forms(word: str) -> set[bytes]:
    return {word.encode(), word.encode("utf-16-le"), word.encode().hex().encode()}


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


def approve(place):
    (row,) = json.loads(place.inside("approvals", "list", "--json").stdout)
    done = place.inside("approvals", "approve", row["id"], "--reason", "Quuxbury agreed")
    assert done.exit_code == 0, done.stderr
    return row


def test_a_whole_run_leaves_no_word_of_anybody(place):
    place.write(more='[policy]\nshadow = ["shadow"]\n')
    (place.folder / "shadow").mkdir()
    (place.folder / "shadow" / "other.cedar").write_text(SHADOW)
    assert place.drive("-", 0, "id=cust-0017", "--subject", "cust-0017") == HELD, place.stderr
    assert place.found(*ANNA) == []
    shown = place.inside("approvals", "list", "--json").stdout
    assert "Anna Quuxbury" in shown, "who has the key sees it"
    approve(place)
    assert place.found(*ANNA) == []
    assert place.drive("-", 0, "--resume") == 0, place.stderr
    assert place.found(*ANNA) == []
    assert "zinnober" in (place.folder / "outbox.jsonl").read_text(), "and it did its work"
    assert (
        place.guessed(
            {"id": "cust-0017"},
            {"to": CUSTOMERS["cust-0017"]["email"]},
            "allergic-to-zinnober",
            {"customer": CUSTOMERS["cust-0017"]},
        )
        == []
    )
    events = place.verify()
    kinds = {event.event_type for event in events if "private" in event.details}
    assert {"decision.allow", "effect.outcome", "approval.asked", "approval.voted", "policy.shadow"} <= kinds
    assert place.inside("audit", "export", "out").exit_code == 0
    exported = [path for path in (place.folder / "out").rglob("*") if path.is_file()]
    assert len(exported) > 2
    for path in exported:
        assert not [word for word in ANNA if any(form in path.read_bytes() for form in forms(word))]


@pytest.mark.slow
@pytest.mark.parametrize("point", ["before_dispatch", "dispatched", "done", "before_settle", "settled"])
def test_at_no_moment_of_a_run_that_is_killed(place, point):
    place.write(policy=POLICY)
    for number in (3, 5, 8):
        assert place.drive(point, number, "id=cust-0018", "--subject", "cust-0018") in {SIGKILLED, 0}, place.stderr
        assert place.found(*BEN) == []
        assert place.drive("-", 0, "--resume") in {0, 1, 2}, place.stderr
        assert place.found(*BEN) == []
    place.verify()


def test_who_has_no_key_verifies_and_reads_nothing(place):
    place.write(policy=POLICY)
    assert place.drive("-", 0, "id=cust-0017", "--subject", "cust-0017") == 0, place.stderr
    for path in (place.folder / ".symbi" / "keys").iterdir():
        if "sealing" in path.name:
            path.rename(place.folder / path.name)
    assert "847110482715" not in place.inside("audit", "show", "--json").stdout
    assert "[sealed]" in place.inside("audit", "show").stdout
    assert place.inside("audit", "verify").exit_code == 0
    place.verify()
    effect = next(e for e in place.verify() if "InvokeTool" in str(e.details.get("action")))
    why = place.inside("policy", "why", str(effect.details["effect_id"]))
    assert why.exit_code == 0, why.stderr
    assert "no key at hand" in why.stdout.replace("\n", " ")
    for path in place.folder.iterdir():
        if "sealing" in path.name:
            path.rename(place.folder / ".symbi" / "keys" / path.name)
    shown = place.inside("audit", "show", "--json").stdout
    assert "Quuxbury" in shown
    assert "[sealed]" not in shown
    why = place.inside("policy", "why", str(effect.details["effect_id"]))
    assert "derived again from the stored request" in why.stdout.replace("\n", " "), why.stdout


def test_who_was_erased_is_gone_and_others_are_not(place):
    place.write(policy=POLICY)
    assert place.drive("-", 0, "id=cust-0017") == 0, place.stderr
    assert place.drive("-", 0, "id=cust-0018") == 0, place.stderr
    place.erase("cust-0017", "anna.quux@example.com")
    shown = place.inside("audit", "show", "--json").stdout
    assert "Quuxbury" not in shown
    assert "[erased]" in shown
    assert "Wobbleton" in shown
    place.verify()
    assert place.inside("policy", "suggest", "--text").exit_code in {0, 1}
    assert place.inside("policy", "diff", "policies", "policies", "--trail").exit_code in {0, 1}


def test_a_run_whose_subject_was_erased_ends_and_says_so(place):
    assert place.drive("-", 0, "id=cust-0017", "--subject", "Anna.Quux@example.com") == HELD, place.stderr
    place.erase("anna.quux@example.com")
    listed = place.inside("approvals", "list", "--json")
    assert "was erased" in listed.stdout, listed.stdout
    done = place.inside("run", "--resume")
    assert done.exit_code == 2
    assert "was erased" in done.stderr.replace("\n", " ")
    assert "Traceback" not in done.stderr
    (finished,) = [
        event
        for event in place.verify()
        if event.event_type == "run.finished" and event.details.get("error") == "run.erased"
    ]
    assert finished.details["state"] == "failed"
    assert place.inside("run", "--resume").exit_code == 2, "it has ended"


def test_a_sealed_text_that_was_moved_does_not_open(place):
    place.write(policy=POLICY)
    for number in ("cust-0017", "cust-0017"):
        assert place.drive("-", 0, f"id={number}", "--subject", "cust-0017") == 0, place.stderr
    with sqlite3.connect(place.folder / ".symbi" / "symbi.db") as db:
        first, second = db.execute("SELECT run_id, output FROM runs ORDER BY run_id").fetchall()
        assert first[1][:1] == second[1][:1] == b"\x01"
        db.execute(
            "UPDATE runs SET state = 'running', output = NULL, inputs = (SELECT inputs FROM runs WHERE run_id = ?) WHERE run_id = ?",
            (first[0], second[0]),
        )
    done = place.inside("run", "--resume")
    assert done.exit_code == 4, done.stderr
    assert "belongs elsewhere" in done.stderr.replace("\n", " ")


def test_everything_is_sealed_where_that_is_configured(place):
    agent = (
        AGENT.replace('tool("crm.find", id = id)', 'tool("crm.send", to = "plain-recipient", text = id)').split(
            "let said"
        )[0]
        + '"plain-value"\n}}\n'
    )
    place.write(agent, "all", POLICY)
    assert place.drive("-", 0, "id=plain-input") == 0, place.stderr
    assert place.found("plain-recipient", "plain-value", "plain-input") == []
    place.verify()
    place.write(agent, "subjects", POLICY)
    assert place.drive("-", 0, "id=plain-input") == 0, place.stderr
    assert len({line.split()[0] for line in place.found("plain-recipient", "plain-value", "plain-input")}) == 3, (
        "the search finds what is there"
    )


def test_subjects_follow_values_item_by_item(place):
    agent = """\
agent work() -> String {
    capabilities = ["crm.all", "crm.send"]
    with sandbox = interpreter, timeout = 60.seconds {
        let found = tool("crm.all");
        for one in found.customers { tool("crm.send", to = one.email, text = format("{} {}", one.name, one.note)); }
        "done"
    }
}
"""
    place.write(agent, policy=POLICY)
    assert place.drive() == 0, place.stderr
    assert place.found(*ANNA, *BEN) == []
    place.erase("anna.quux@example.com")
    shown = place.inside("audit", "show", "--json").stdout
    assert "Quuxbury" not in shown
    sent = [
        json.loads(line) for line in shown.splitlines() if '"InvokeTool::crm.send"' in line and "decision.allow" in line
    ]
    assert [line["details"].get("arguments", {}).get("to") for line in sent] == [None, "ben@example.org"]


def test_bad_input_about_somebody_is_not_quoted_in_the_open(place):
    done = place.inside("run", "work.symbi", "--subject", "anna", "--input", "Quuxbury")
    assert done.exit_code == 2
    done = place.inside("run", "work.symbi", "--input", "id=x", "--label", "id=subject:anna,zinnober")
    assert done.exit_code == 2
    assert place.found(*ANNA) == []
    assert len([event for event in place.verify() if event.event_type == "input.refused"]) == 2


@pytest.mark.parametrize(
    ("call", "refused"),
    [('tool("crm.find", id = "cust-0017", bogus = 1)', 1), ('tool(format("crm.{}", id), to = "x")', 0)],
)
def test_what_does_not_get_to_the_gate_is_sealed_as_well(place, call, refused):
    agent = f"""\
agent work(id: String) -> String {{
    capabilities = ["crm.find"]
    with sandbox = interpreter, timeout = 60.seconds {{ {call}; "done" }}
}}
"""
    place.write(agent, policy=POLICY)
    assert place.drive("-", 0, "id=Quuxbury", "--subject", "anna.quux") == 1, place.stderr
    assert place.found(*ANNA) == []
    assert [event.event_type for event in place.verify()].count("tool.refused") == refused


@pytest.mark.slow
def test_a_manifest_that_forgets_whom_answers_are_about_opens_nothing(place):
    place.write(policy=POLICY)
    words = [word for word in BEN if word != "cust-0018"]  # nobody said of the input whom it is about
    assert place.drive("before_dispatch", 6, "id=cust-0018") == SIGKILLED, place.stderr
    manifest = place.folder / "crm.toml"
    manifest.write_text("\n".join(line for line in MANIFEST.splitlines() if not line.startswith("subject_")))
    assert place.drive("-", 0, "--resume") == 0, place.stderr
    assert "Wobbleton" in (place.folder / "outbox.jsonl").read_text()
    assert place.found(*words) == []
