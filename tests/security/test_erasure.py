"""After an erasure nothing of the person is left in any byte of the data folder: real runs, tools, approvals, errors.

The agent writes, sends, computes and fails on texts about people. Whom they are about is said by the run, or by the
manifest of the tool.
"""

import base64
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from symbi.adapters.sqlite import SqliteReader
from symbi.audit.event import AuditEventType as T
from symbi.audit.event import parse_event
from symbi.cli.main import app

ROOT = Path(__file__).parents[2]
SERVER = ROOT / "tests" / "data" / "servers" / "effects.py"
JANE, JOHN = "jane.roe@example.com", "john.doe@example.com"
NAME, STREET, CARD, OWES = "Jane Roe-Smith", "17 Elm Street", "4929123412341234", "Jane owes John 310 crowns"
MISSING = "/nowhere/of-jane-roe.txt"
HERS = (JANE, NAME, STREET, CARD, OWES, MISSING)
HIS = "John Doe lives at 4 Oak Lane"
CONFIG = """\
[mcp]
tool_verification = "tofu"
[mcp.servers.desk]
command = ["{{python}}", "{effects}"]
manifest = "desk.toml"
"""
MANIFEST = """\
[server]
name = "desk"
[tools.write]
recovery = "idempotent"
[tools.send]
recovery = "idempotent"
subject_argument = "to"
[tools.stat]
recovery = "read-only"
"""
AGENT = """\
agent work(text: String, to: String) -> String {
    capabilities = ["desk.write", "desk.send", "python", "log"]
    with sandbox = interpreter, timeout = 60.seconds {
        log("working on " + text);
        let upper = python("text.upper()", text = text);
        tool("desk.write", name = "report.md", text = text);
        tool("desk.send", to = to, text = "about " + upper);
        text
    }
}
"""
FAILS = """\
agent fails(path: String) -> String {
    capabilities = ["desk.stat"]
    with sandbox = interpreter, timeout = 60.seconds { tool("desk.stat", path = path) }
}
"""
PERMIT = '@id("all")\npermit (principal, action, resource);\n'
ASKS = (
    '@id("all")\npermit (principal, action, resource) unless { resource == Tool::"desk.send" };\n'
    '@id("ask") @approval("why") permit (principal, action, resource == Tool::"desk.send");\n'
)


@dataclass(frozen=True)
class Office:
    """A folder in which commands are given."""

    folder: Path

    def put(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, "utf-8")

    def inside(self, *arguments: str):
        """A command in this process; it ends by itself, and not by a defect."""
        before = Path.cwd()
        os.chdir(self.folder)
        try:
            done = CliRunner().invoke(app, arguments, env={"SYMBI_LOG_LEVEL": "error"})
        finally:
            os.chdir(before)
        assert done.exception is None or isinstance(done.exception, SystemExit), repr(done.exception)
        return done

    def events(self, kind: str) -> list[dict]:
        with SqliteReader(self.folder / ".symbi") as reader:
            parsed = [parse_event(stored.record) for stored in reader.read(1)]
        return [dict(event.details) for event in parsed if event.event_type == kind]


@pytest.fixture
def office(tmp_path):
    """A folder with the agents, and runs about Jane, about John and about both."""
    folder = tmp_path / "office"
    folder.mkdir()
    made = Office(folder)
    made.put("symbi.toml", CONFIG.format(effects=SERVER))
    made.put("desk.toml", MANIFEST)
    made.put("work.symbi", AGENT)
    made.put("fails.symbi", FAILS)
    made.put("policies/all.cedar", PERMIT)
    return made


def work(office, text: str, to: str, *subjects: str, code: int = 0):
    more = [part for subject in subjects for part in ("--subject", subject)]
    said = office.inside("run", "work.symbi", "--input", f"text={text}", "--input", f"to={to}", *more)
    assert said.exit_code == code, said.stderr
    return said


def records(office, subject: str) -> list[dict]:
    said = office.inside("privacy", "export", subject)
    assert said.exit_code == 0, said.stderr
    return json.loads(said.stdout)["records"]


def kept(office) -> dict[str, bytes]:
    folder = office.folder / ".symbi"
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def left(office, values=HERS) -> list[tuple[str, str]]:
    """Where a value stands in plain text, in capitals, or in a form that is easily read back."""
    found = []
    for name, data in kept(office).items():
        for value in values:
            text = value.encode()
            forms = [text, text.upper(), text.lower(), value.encode("utf-16-le"), text.hex().encode()]
            forms += [base64.b64encode(b" " * shift + text)[4:-4] for shift in range(3)]
            found += [(name, value) for form in forms if form in data]
    return found


def verify(office) -> None:
    """Both verifiers: ours on the store, and the one for auditors on an export."""
    assert office.inside("audit", "verify").exit_code == 0
    assert office.inside("audit", "export", "out").exit_code == 0
    other = ROOT / "tools" / "verify_audit.py"
    if other.is_file():
        done = subprocess.run([sys.executable, str(other), str(office.folder / "out")], timeout=100, check=False)
        assert done.returncode == 0


def test_nothing_of_the_person_is_left_and_nothing_of_another_is_touched(office):
    work(office, f"{NAME}, {STREET}, card {CARD}", JANE, JANE)
    work(office, HIS, JOHN, JOHN)
    work(office, OWES, JOHN, JANE, JOHN)
    failed = office.inside("run", "fails.symbi", "--input", f"path={MISSING}", "--subject", JANE)
    assert failed.exit_code == 1
    hers, his = records(office, JANE), records(office, JOHN)
    told = json.dumps(hers)
    for value in (NAME, STREET, CARD, OWES, MISSING):
        assert value in told  # so that the export and what is searched for are no empty lists
    assert {one["place"].split(".")[0] for one in hers} >= {"events", "effects", "requests", "runs", "run_labels"}
    assert all(one["at"] and one["run"] for one in hers if one["place"] != "events.record")
    said = office.inside("privacy", "erase", JANE, "--reason", "letter of 3 May")
    certificate = json.loads(said.stdout)
    assert said.exit_code == 0, said.stderr
    assert certificate["search"]["residue"] == 0
    assert certificate["search"]["searched_for"]["opened"] > 5
    assert left(office) == []
    verify(office)
    assert {one["unopened"] for one in records(office, JANE)} == {"erased"}
    after = records(office, JOHN)
    assert [one for one in after if one["also_about"] == 0] == [one for one in his if one["also_about"] == 0]
    assert {one["unopened"] for one in after if one["also_about"]} == {"erased"}
    assert HIS in json.dumps(after)
    (event,) = office.events(T.SUBJECT_ERASED)
    assert event["pseudonym"] == certificate["pseudonym"]


def test_whom_a_manifest_names_is_erased_as_well(office):
    work(office, f"hello {NAME}", JANE)  # nobody said at the start of the run whom it is about
    assert any(NAME.upper() in json.dumps(one["value"]) for one in records(office, JANE))
    said = office.inside("privacy", "erase", JANE)
    certificate = json.loads(said.stdout)
    finds = certificate["search"]["finds"]
    assert left(office, (JANE,)) != []  # the input was said to be about nobody, and the search says so
    assert said.exit_code == 4
    assert {find["place"].split("/")[0] for find in finds} <= {"symbi.db", "symbi.db-wal"}


def test_a_held_run_is_not_emptied_without_a_word_and_cannot_go_on_afterwards(office):
    office.put("policies/all.cedar", ASKS)
    work(office, f"{NAME}, {STREET}", JANE, JANE, code=7)
    refused = office.inside("privacy", "erase", JANE)
    assert refused.exit_code == 2
    assert all(word in refused.stderr for word in ("under way", "approval", "run", "--include-open"))
    assert len([one for one in records(office, JANE) if not one["unopened"]]) > 3
    said = office.inside("privacy", "erase", JANE, "--include-open")
    assert said.exit_code == 0, said.stderr
    assert {one["kind"] for one in json.loads(said.stdout)["open"]} == {"run", "approval"}
    assert left(office) == []
    resumed = office.inside("run", "--resume")
    assert resumed.exit_code == 2
    assert "was erased" in resumed.stderr
    assert not (office.folder / "outbox.jsonl").exists()
    verify(office)


def test_an_approval_that_was_given_leaves_nothing_either(office):
    office.put("policies/all.cedar", ASKS)
    work(office, f"{NAME}, {STREET}", JANE, JANE, code=7)
    (row,) = json.loads(office.inside("approvals", "list", "--json").stdout)
    agreed = office.inside("approvals", "approve", row["id"], "--reason", "she asked for it")
    assert agreed.exit_code == 0, agreed.stderr
    assert office.inside("run", "--resume").exit_code == 0
    assert any(one["place"].startswith("approvals.") for one in records(office, JANE))
    assert office.inside("privacy", "erase", JANE).exit_code == 0
    assert left(office) == []
    verify(office)


def test_a_copy_of_the_keys_is_of_no_use_once_they_are_destroyed(office):
    work(office, f"{NAME}, {STREET}", JANE, JANE)
    masters = (office.folder / ".symbi" / "keys" / "sealing-master.key").read_bytes()
    assert office.inside("privacy", "erase", JANE).exit_code == 0
    assert (office.folder / ".symbi" / "keys" / "sealing-master.key").read_bytes() == masters
    # With the master, the file and all the time in the world: no wrapped key of hers is left in any of its bytes.
    assert json.loads(office.inside("privacy", "scan", JANE, "--value", STREET, "--json").stdout)["clean"]
    with_rows = office.inside("privacy", "list", "--json")
    (row,) = [row for row in json.loads(with_rows.stdout) if row["kind"] == "person"]
    assert (row["living_keys"], row["destroyed_keys"], row["name"]) == (0, 1, None)
