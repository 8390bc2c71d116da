"""`symbi privacy` at the command line: as the owner of the folder, through a running owner, and after kill -9."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from symbi.adapters.sqlite import SqliteReader
from symbi.api.control import ControlSocket
from symbi.audit.event import AuditEventType as T
from symbi.config import load_settings
from symbi.wiring import open_runtime

ROOT = Path(__file__).parents[2]
DRIVER = ROOT / "tests" / "data" / "crash_erase.py"
JANE, JOHN = "jane@example.com", "john@example.com"
STREET, CITY = "17 Elm Street", "Springfield Heights"


def drive(workshop, *arguments: str) -> int:
    """The driver, as a process of its own; returns its exit code."""
    command = [sys.executable, str(DRIVER), str(workshop.folder), *arguments]
    return subprocess.run(command, env={**os.environ, **workshop.environ}, timeout=100, check=False).returncode


@pytest.fixture
def kept(workshop):
    anyio.run(runpy.run_path(str(DRIVER))["keep"], workshop.folder)
    return workshop


def data(workshop) -> bytes:
    folder = workshop.folder / ".symbi"
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def test_an_export_is_json_on_standard_output_or_in_a_file_of_ones_own(kept):
    said = kept.inside("privacy", "export", JANE, "--reason", "letter of 3 May")
    assert said.code == 0, said.stderr
    document = json.loads(said.stdout)
    assert [record["value"] for record in document["records"]] == [{"at": STREET}]
    assert document["records"][0]["place"] == "runs.inputs"
    to = kept.folder / "export.json"
    assert kept.inside("privacy", "export", JANE, "--out", str(to)).stdout == ""
    assert json.loads(to.read_text())["records"] == document["records"]
    assert to.stat().st_mode & 0o777 == 0o600
    again = kept.inside("privacy", "export", JANE, "--out", str(to))
    again.error(2, "cannot write")
    assert JANE.encode() not in data(kept)


def test_an_erasure_prints_a_certificate_that_verifies_here_and_with_the_keys_of_an_export(kept):
    said = kept.inside("privacy", "erase", JANE, "--value", "AC-7781", "--reason", "letter of 3 May")
    assert said.code == 0, said.stderr
    assert "nothing of the subject is left" in said.stderr
    assert "out of reach: copies of the data folder: backups" in said.stderr
    kept.put("certificate.json", said.stdout)
    verified = kept.inside("privacy", "verify-certificate", "certificate.json")
    assert verified.code == 0, verified.stderr
    assert "its digest stands in event" in verified.stdout
    assert kept.inside("audit", "verify").code == 0
    assert kept.inside("audit", "export", "out").code == 0
    with_keys = kept.inside("privacy", "verify-certificate", "certificate.json", "--keys", "out/keys.json", "--json")
    assert json.loads(with_keys.stdout)["verified"]
    kept.put("certificate.json", said.stdout.replace("letter of 3 May", "letter of 4 May"))
    kept.inside("privacy", "verify-certificate", "certificate.json").error(4, "not by key")
    for text in ("{}", "[]", "no JSON", said.stdout[:100]):
        kept.put("certificate.json", text)
        kept.inside("privacy", "verify-certificate", "certificate.json").error(2, "certificate of erasure")
    assert kept.recorded(T.SUBJECT_ERASED, "letter of 3 May")
    for value in (JANE, STREET, "AC-7781"):
        assert value.encode() not in data(kept)
    (other,) = json.loads(kept.inside("privacy", "export", JOHN).stdout)["records"]
    assert other["value"] == {"at": CITY}


def test_what_is_left_is_told_and_gives_exit_code_4(kept):
    kept.put(".symbi/note.txt", f"... {STREET} ...")
    scanned = kept.inside("privacy", "scan", JANE)
    assert scanned.code == 4
    assert "note.txt at byte 4" in scanned.stderr
    said = kept.inside("privacy", "erase", JANE)
    assert said.code == 4
    assert STREET not in said.stderr + said.stdout
    assert json.loads(said.stdout)["search"]["residue"] == 1
    (kept.folder / ".symbi" / "note.txt").unlink()
    assert kept.inside("privacy", "scan", JANE, "--value", STREET).code == 0
    assert kept.inside("privacy", "erase", JANE, "--value", STREET).code == 0


def test_a_file_that_cannot_be_read_leaves_the_search_undone(kept, monkeypatch):
    opened = os.open

    def refuse(path, *arguments, **more):
        if str(path).endswith("secret.bin"):
            raise PermissionError(13, "Permission denied")
        return opened(path, *arguments, **more)

    kept.put(".symbi/secret.bin", "?")
    monkeypatch.setattr(os, "open", refuse)
    said = kept.inside("privacy", "scan", JANE, "--json")
    assert said.code == 4
    assert json.loads(said.stdout)["unread"] == ["secret.bin: Permission denied"]


def test_the_audit_storage_is_searched_too_and_links_are_not_followed(kept):
    kept.put("storage/1.txt", f"{JANE}")
    kept.put("elsewhere.txt", f"{JANE}")
    (kept.folder / ".symbi" / "link").symlink_to(kept.folder / "elsewhere.txt")
    storage = {"SYMBI_AUDIT_STORAGE": str(kept.folder / "storage")}
    said = json.loads(kept.symbi("privacy", "scan", JANE, "--json", env=storage).stdout)
    assert [find["place"] for find in said["finds"]] == ["audit-storage/1.txt"]
    assert json.loads(kept.inside("privacy", "scan", JANE, "--json").stdout)["finds"] == []


def test_a_hold_is_shown_and_refuses(kept):
    assert kept.inside("privacy", "hold", JANE, "--reason", "case 4711").code == 0
    kept.inside("privacy", "erase", JANE).error(2, "legal hold")
    listed = kept.inside("privacy", "list")
    assert JANE in listed.stdout
    assert "case 4711" in listed.stdout
    kept.inside("privacy", "hold", JANE, "--reason", "because of Jane").error(2, "names the subject")
    assert kept.inside("privacy", "release", JANE).code == 0
    kept.inside("privacy", "release", JANE).error(2, "no hold")
    assert kept.inside("privacy", "erase", JANE).code == 0
    after = kept.inside("privacy", "list")
    assert JANE not in after.stdout
    assert "(erased)" in after.stdout
    assert JOHN in after.stdout


@pytest.mark.parametrize("command", ["export", "erase"])
def test_who_is_unknown_is_told_so(kept, command):
    kept.inside("privacy", command, "nobody@example.com").error(2, "nothing is kept about this subject")
    kept.inside("privacy", command, "").error(2, "name of a data subject")
    assert b"nobody@example.com" not in data(kept)


def test_without_the_master_key_it_is_said_which_is_missing(kept):
    (kept.folder / ".symbi" / "keys" / "sealing-master.key").unlink()
    kept.inside("privacy", "erase", JANE).error(2, "sealing-master")
    said = kept.inside("privacy", "list")
    said.error(2, "sealing-master")


def test_the_policy_of_the_operator_decides(kept):
    kept.put("policies/all.cedar", '@id("no") forbid (principal, action == Action::"ControlRuntime", resource);')
    for asked in (
        ("export", JANE),
        ("erase", JANE),
        ("hold", JANE, "--reason", "x"),
        ("release", JANE),
        ("list",),
        ("scan", JANE),
    ):
        said = kept.inside("privacy", *asked)
        said.error(3)
        assert said.stdout == ""
    kept.put("policies/all.cedar", '@id("all")\npermit (principal, action, resource);\n')
    (record,) = json.loads(kept.inside("privacy", "export", JANE).stdout)["records"]
    assert record["value"] == {"at": STREET}
    for event in kept.trail():
        assert "jane" not in json.dumps(event.details).lower()


@pytest.mark.anyio
async def test_a_running_owner_is_asked_and_its_trail_names_nobody(kept):
    settings = load_settings(kept.folder / "symbi.toml", environ=kept.environ)
    async with open_runtime(settings) as runtime, ControlSocket(runtime, settings.runtime.data_dir):
        said = await anyio.to_thread.run_sync(lambda: kept.inside("privacy", "erase", JANE, "--value", STREET))
        assert said.code == 0, said.stderr
        assert json.loads(said.stdout)["search"]["clean"]
        refused = await anyio.to_thread.run_sync(lambda: kept.inside("privacy", "hold", JANE, "--reason", "Jane"))
        refused.error(2, "names the subject")
        for value in (JANE, STREET):
            assert value.encode() not in data(kept)
    assert kept.recorded(T.DECISION_ALLOW, "privacy.erase", '"values": 1')


@pytest.mark.parametrize("point", ["gathered", "in-transaction", "destroyed", "let-go", "searched", "certified"])
def test_an_erasure_that_is_killed_is_finished_by_asking_again(kept, point):
    assert drive(kept, "erase", point) == -9
    erased = kept.recorded(T.SUBJECT_ERASED)
    with SqliteReader(kept.folder / ".symbi") as reader:
        living = reader._use(
            lambda db: db.execute("SELECT count(*) FROM subject_keys WHERE wrapped IS NOT NULL").fetchone()[0]
        )
    assert living == (2 if point in {"gathered", "in-transaction"} else 1)
    assert erased is (point == "certified")  # never while the key lives
    said = kept.inside("privacy", "erase", JANE, "--value", STREET)
    assert said.code == 0, said.stderr
    assert json.loads(said.stdout)["stores"]["runs"]["places"] == {"runs.inputs": 1}
    assert kept.recorded(T.SUBJECT_ERASED)
    for value in (JANE, STREET):
        assert value.encode() not in data(kept)
    (other,) = json.loads(kept.inside("privacy", "export", JOHN).stdout)["records"]
    assert other["value"] == {"at": CITY}
