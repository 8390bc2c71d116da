"""The commands that keep a trail, on a folder with a real run in it: witness, anchor, segments, verify --archive."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import chdir, closing
from pathlib import Path

import anyio
import pytest
from typer.testing import CliRunner

from symbi.audit.segments import DAY_NS
from symbi.audit.witness import parse_witness_file
from symbi.cli.main import app
from symbi.clock import SystemClock
from symbi.config import load_settings
from symbi.crypto.provider import open_provider
from symbi.crypto.signing import SigningKey
from symbi.testing.clock import ManualClock
from symbi.testing.tsa import make_authority, serve_authority
from symbi.testing.witness_server import WitnessServer, serve_witness
from symbi.wiring import compile_agents, open_runtime, verifying_keys

OWN = SigningKey(bytes([2]) * 32, open_provider())
CONFIG = """\
[runtime]
log_level = "error"
[audit]
{audit}
"""
POLICY = '@id("all")\npermit (principal, action, resource);\n'
AGENT = """\
agent work(n: int) -> int {
    capabilities = ["log"]
    with sandbox = interpreter {
        for _step in range(n) {
            log("step");
        }
        n
    }
}
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keep") / "work"
    (folder / "policies").mkdir(parents=True)
    (folder / "policies/all.cedar").write_text(POLICY)
    (folder / "work.symbi").write_text(AGENT)
    configure(folder, "")
    run(folder, "run", "work.symbi", "--input", "n=5")
    return folder


@pytest.fixture
def folder(ran, tmp_path):
    place = tmp_path / "work"
    shutil.copytree(ran, place)
    return place


def configure(folder, audit):
    (folder / "symbi.toml").write_text(CONFIG.format(audit=audit))


def run(folder, *arguments, code=0):
    with chdir(folder):
        result = CliRunner().invoke(app, arguments)
    assert result.exit_code == code, result.output
    return result.stdout


def call(folder, *arguments, code=0, config=True):
    more = ("--config", str(folder / "symbi.toml")) if config else ()
    result = CliRunner().invoke(app, [*arguments, *more])
    assert result.exit_code == code, result.output
    return result.output


def as_json(folder, *arguments, code=0):
    return json.loads(call(folder, *arguments, "--json", code=code))


def rewritten(ran, place):
    """The same run again: another history of the same key."""
    shutil.copytree(ran, place)
    for name in ("symbi.db", "trail"):  # whoever begins anew takes the mark of the trail before away too
        (place / ".symbi" / name).unlink(missing_ok=True)
    run(place, "run", "work.symbi", "--input", "n=9")
    return place


# --- witness ------------------------------------------------------------------------------------------


def test_a_head_is_kept_elsewhere_and_recorded(folder, tmp_path):
    heads = tmp_path / "heads.witness"
    key = str(tmp_path / "w.key")
    first = as_json(folder, "audit", "witness", "--to", str(heads), "--key", key)
    assert first["recorded"] is True
    second = as_json(folder, "audit", "witness", "--to", str(heads), "--key", key)
    assert second["size"] > first["size"]
    assert [note.checkpoint.size for note in parse_witness_file(heads.read_bytes())] == [first["size"], second["size"]]
    report = as_json(folder, "audit", "verify", "--witness", str(heads))
    assert report["witnessed"] == second["size"]
    said = [
        json.loads(line)
        for line in call(folder, "audit", "show", "--type", "checkpoint.witnessed", "--json").splitlines()
    ]
    assert [event["details"]["size"] for event in said] == [first["size"], second["size"]]


def test_a_rolled_back_store_is_found_by_the_witness_and_by_verify(folder, tmp_path):
    kept = tmp_path / "kept"
    shutil.copytree(folder / ".symbi", kept)
    heads, key = str(tmp_path / "heads.witness"), str(tmp_path / "w.key")
    run(folder, "run", "work.symbi", "--input", "n=3")
    seen = as_json(folder, "audit", "witness", "--to", heads, "--key", key)
    shutil.rmtree(folder / ".symbi")
    shutil.copytree(kept, folder / ".symbi")
    assert as_json(folder, "audit", "verify")["verified"]  # by itself it is a true trail
    error = as_json(folder, "audit", "witness", "--to", heads, "--key", key, code=4)
    assert error["details"]["reason"] == "rollback"
    assert f"at event {seen['size']}" in error["error"]
    assert error["details"]["head"] < error["details"]["seen"] == seen["size"]
    assert as_json(folder, "audit", "verify", "--witness", heads, code=4)["details"]["reason"] == "witness"


def test_a_trail_that_was_begun_anew_under_the_same_key_is_found(ran, folder, tmp_path):
    heads, key = str(tmp_path / "heads.witness"), str(tmp_path / "w.key")
    as_json(folder, "audit", "witness", "--to", heads, "--key", key)
    other = rewritten(ran, tmp_path / "other")
    assert as_json(other, "audit", "verify")["verified"]
    error = as_json(other, "audit", "witness", "--to", heads, "--key", key, code=4)
    assert error["details"]["reason"] == "origin"


def test_a_head_is_a_commit_in_git(folder, tmp_path, monkeypatch):
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.setenv(name, os.devnull)
    repository = tmp_path / "repository"
    repository.mkdir()

    def git(*arguments):
        done = subprocess.run(("git", *arguments), cwd=repository, check=True, capture_output=True, text=True)
        return done.stdout

    git("init", "--quiet")
    as_json(folder, "audit", "witness", "--git", str(repository), "--key", str(tmp_path / "w.key"), "--name", "me")
    assert git("log", "--format=%an").split() == ["me"]
    assert len(list(repository.glob("symbi.trail_*.witness"))) == 1


def test_an_export_is_witnessed_where_there_is_no_store(folder, tmp_path):
    heads, key = str(tmp_path / "heads.witness"), str(tmp_path / "w.key")
    call(folder, "audit", "export", str(tmp_path / "one"))
    run(folder, "run", "work.symbi", "--input", "n=3")
    call(folder, "audit", "export", str(tmp_path / "two"))
    keys = str(tmp_path / "one/keys.json")
    first = as_json(
        folder, "audit", "witness", "--from", str(tmp_path / "one"), "--keys", keys, "--to", heads, "--key", key
    )
    again = as_json(
        folder, "audit", "witness", "--from", str(tmp_path / "two"), "--keys", keys, "--to", heads, "--key", key
    )
    assert first["size"] < again["size"]
    assert again["recorded"] is None
    error = as_json(
        folder, "audit", "witness", "--from", str(tmp_path / "one"), "--keys", keys, "--to", heads, "--key", key, code=4
    )
    assert error["details"]["reason"] == "rollback"


def test_a_witness_on_another_host_countersigns(folder):
    keys = verifying_keys(load_settings(folder / "symbi.toml"))
    with serve_witness(WitnessServer("witness.example/w1", OWN, keys, 1_767_322_999)) as server:
        arguments = ("audit", "witness", "--url", server.url, "--witness-key", str(server.witness))
        first = as_json(folder, *arguments)
        second = as_json(folder, *arguments)
    assert (first["recorded"], second["recorded"]) == (True, True)
    assert second["size"] > first["size"]
    assert server.heads[first["origin"]].checkpoint.size == second["size"]


def test_a_head_that_policy_does_not_let_us_record_is_kept_elsewhere_all_the_same(folder, tmp_path):
    (folder / "policies/all.cedar").write_text(POLICY.replace("action,", 'action == Action::"CreateAgent",'))
    heads, key = tmp_path / "heads.witness", str(tmp_path / "w.key")
    told = as_json(folder, "audit", "witness", "--to", str(heads), "--key", key, code=3)
    assert (told["recorded"], told["refused"]["code"]) == (None, "policy.denied")
    assert [note.checkpoint.size for note in parse_witness_file(heads.read_bytes())] == [told["size"]]
    assert "witnessed" in call(folder, "audit", "witness", "--to", str(heads), "--key", key, code=3)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "where is the head to be kept"),
        (("--to", "a", "--git", "b"), "where is the head to be kept"),
        (("--url", "http://127.0.0.1:9"), "--witness-key"),
        (("--url", "http://127.0.0.1:9", "--witness-key", "x"), "no witness key"),
        (("--to", "absent/heads"), "cannot use"),
        (("--git", "."), "Git repository"),
        (("--to", "heads", "--name", "a b"), "cannot be the name"),
        (("--to", "heads", "--from", "absent"), "cannot read"),
    ],
)
def test_what_is_asked_for_wrongly_is_told(folder, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    assert said in as_json(folder, "audit", "witness", "--key", "w.key", *arguments, code=2)["error"]


# --- anchors --------------------------------------------------------------------------------------------


def test_the_head_is_anchored_and_the_export_has_the_token(folder, tmp_path):
    with serve_authority(make_authority(tmp_path / "tsa")) as authority:
        configure(folder, f'tsa_url = "{authority.url}"\ntsa_certificate = "{authority.root}"')
        said = as_json(folder, "audit", "anchor")
        call(folder, "audit", "export", str(tmp_path / "out"))
        token = tmp_path / f"out/anchors/{said['size']:012}.tsr"
        assert authority.verify(tmp_path / f"out/checkpoints/{said['size']:012}.note", token)
        configure(folder, "")
        again = as_json(folder, "audit", "anchor", "--tsa", authority.url, "--certificate", str(authority.root))
        assert (again["authority"], again["size"] > said["size"]) == (authority.url, True)
        for wrong in (
            ("--tsa", authority.url),
            ("--certificate", str(authority.root)),
            ("--tsa", "x", "--certificate", "y"),
        ):
            assert "--tsa" in as_json(folder, "audit", "anchor", *wrong, code=2)["error"]
    assert authority.asked == 2
    assert as_json(folder, "audit", "verify", "--export", str(tmp_path / "out"))["verified"]


def test_anchoring_without_an_authority_says_what_to_set(folder):
    assert "audit.tsa_url" in as_json(folder, "audit", "anchor", code=2)["hint"]


@pytest.mark.parametrize(
    ("audit", "said"),
    [
        ('tsa_url = "https://tsa.example"', "`audit.tsa_certificate`"),
        ("tsa_interval_s = 60", "`audit.tsa_url`"),
        ("retention_days = 30", "`audit.storage`"),
        ("storage_required = true", "`audit.storage`"),
        ('tsa_url = "https://tsa.example"\ntsa_certificate = "absent.pem"', "holds no certificates"),
    ],
)
def test_half_a_configuration_is_refused(folder, audit, said):
    configure(folder, audit)
    assert said in run(folder, "run", "work.symbi", "--input", "n=1", "--json", code=2)


# --- segments -------------------------------------------------------------------------------------------


@pytest.fixture
def archived(folder, tmp_path):
    storage = tmp_path / "storage"
    storage.mkdir()
    configure(folder, f'storage = "{storage}"\nsegment_events = 256')
    for _ in range(2):
        run(folder, "run", "work.symbi", "--input", "n=300")
    run(folder, "run", "work.symbi", "--input", "n=1")
    return storage


def test_segments_are_listed_and_verify_alone_and_in_a_row(folder, archived):
    told = as_json(folder, "audit", "segments")
    rows = told["segments"]
    assert len(rows) >= 2
    assert told["open_from"] == rows[-1]["last"] + 1
    for row in rows:
        report = as_json(folder, "audit", "verify", "--export", str(archived / row["folder"]))
        assert (report["first"], report["last"], report["root"]) == (row["first"], row["last"], row["root"])
    for place in (archived, archived / Path(rows[0]["folder"]).parent):
        report = as_json(folder, "audit", "verify", "--archive", str(place))
        assert (report["first"], report["events"]) == (1, rows[-1]["last"])
    assert "in the audit storage" in call(folder, "audit", "segments")
    doctor = {row["name"]: row for row in json.loads(run(folder, "doctor", "--json"))}
    assert doctor["audit storage"]["ok"]


def test_a_segment_that_is_missing_or_of_another_trail_breaks_the_row(ran, folder, archived, tmp_path):
    rows = as_json(folder, "audit", "segments")["segments"]
    place = archived / rows[0]["folder"]
    aside = tmp_path / "aside"
    place.rename(aside)
    report = as_json(folder, "audit", "verify", "--archive", str(archived))
    assert report["first"] == rows[1]["first"]  # the beginning may be elsewhere, and the report says where it begins
    aside.rename(place)
    second = archived / rows[1]["folder"]
    renamed = second.with_name(f"{rows[1]['first']:012}-{rows[1]['last'] + 1:012}")
    second.rename(renamed)
    error = as_json(folder, "audit", "verify", "--archive", str(archived), code=4)
    assert "not what its name says" in error["error"]
    renamed.rename(second)
    shutil.copytree(second, aside)
    shutil.rmtree(second)
    shutil.copytree(place, second)
    error = as_json(folder, "audit", "verify", "--archive", str(archived), code=4)
    assert error["details"]["sequence"] == rows[1]["first"]


@pytest.mark.parametrize("place", ["absent", "."])
def test_what_is_no_archive_is_told(folder, tmp_path, place):
    assert "archive" in as_json(folder, "audit", "verify", "--archive", str(tmp_path / place), code=2)["code"]


def test_a_storage_that_is_missing_stops_nothing_unless_it_is_required(folder, tmp_path):
    configure(folder, f'storage = "{tmp_path / "absent"}"\nsegment_events = 256')
    run(folder, "run", "work.symbi", "--input", "n=300")
    doctor = {row["name"]: row for row in json.loads(run(folder, "doctor", "--json"))}
    assert not doctor["audit storage"]["ok"]
    configure(
        folder,
        f'storage = "{tmp_path / "absent"}"\nsegment_events = 256\nstorage_required = true\nstorage_max_waiting = 0',
    )
    assert "wait for the audit storage" in run(folder, "run", "work.symbi", "--input", "n=1", "--json", code=5)
    (tmp_path / "absent").mkdir()
    run(folder, "run", "work.symbi", "--input", "n=1")
    assert as_json(folder, "audit", "segments")["segments"] != []


# --- retention ------------------------------------------------------------------------------------------


async def run_on(folder, days_ago, n, starts=1):
    """Runs of another day: the trail's times are those of a clock that stood there."""
    settings = load_settings(folder / "symbi.toml")
    clock = ManualClock(SystemClock().now_ns() - days_ago * DAY_NS)
    for _ in range(starts):
        async with open_runtime(settings, clock=clock) as runtime:
            compiled = compile_agents(folder / "work.symbi")
            await runtime.run(compiled, compiled.agents[0], {"n": n})


@pytest.fixture(scope="module")
def aged(tmp_path_factory):
    """A folder whose first events, of forty days ago, have left, and where something happened since."""
    place = tmp_path_factory.mktemp("aged")
    folder = place / "work"
    (folder / "policies").mkdir(parents=True)
    (folder / "policies/all.cedar").write_text(POLICY)
    (folder / "work.symbi").write_text(AGENT)
    (place / "storage").mkdir()
    configure(folder, keeps(place))
    anyio.run(run_on, folder, 40, 200, 2)
    effects = [event["details"]["effect_id"] for event in shown(folder) if "effect_id" in event["details"]]
    anyio.run(run_on, folder, 2, 400)
    return place, effects


@pytest.fixture
def old(aged, tmp_path):
    place, effects = aged
    for name in ("work", "storage"):
        shutil.copytree(place / name, tmp_path / name)
    configure(tmp_path / "work", keeps(tmp_path))
    return tmp_path / "work", effects


def keeps(place):
    return f'storage = "{place / "storage"}"\nsegment_events = 256\nretention_days = 30'


def shown(folder):
    return [json.loads(line) for line in call(folder, "audit", "show", "--json").splitlines()]


def test_events_that_are_old_are_in_the_storage_and_what_is_live_verifies_from_there(old, tmp_path):
    folder, _ = old
    told = as_json(folder, "audit", "segments")
    first = told["live"]["first"]
    assert first > 256
    assert [row["last"] for row in told["segments"] if row["removed_at"]][-1] == first - 1
    assert shown(folder)[0]["sequence"] == first
    report = as_json(folder, "audit", "verify")
    assert (report["first"], report["last"]) == (first, told["live"]["last"])
    assert as_json(folder, "audit", "verify", f"{first + 3}..{first + 9}")["events"] == 7
    assert as_json(folder, "audit", "verify", f"{first}..")["first"] == first
    for span in ("5..9", f"{first - 1}.."):
        assert "have left" in as_json(folder, "audit", "verify", span, code=2)["error"]
    archive = as_json(folder, "audit", "verify", "--archive", str(tmp_path / "storage"))
    assert (archive["first"], archive["last"]) == (1, told["segments"][-1]["last"])
    call(folder, "audit", "export", str(tmp_path / "out"))
    exported = as_json(folder, "audit", "verify", "--export", str(tmp_path / "out"))
    assert (exported["first"], exported["last"]) == (first, told["live"]["last"])
    verifier = Path(__file__).parents[2] / "tools/verify_audit.py"
    subprocess.run((sys.executable, str(verifier), str(tmp_path / "out")), check=True, capture_output=True)


def test_what_has_left_is_told_and_proofs_go_on(old, tmp_path):
    folder, effects = old
    told = as_json(folder, "policy", "why", effects[5], code=2)
    assert (told["code"], "have left the live store" in told["error"]) == ("input.removed", True)
    live = [event for event in shown(folder) if "verdict" in event["details"]]
    assert as_json(folder, "policy", "why", live[-1]["details"]["effect_id"])["effect_id"]
    assert "has left" in call(folder, "audit", "prove", "5", code=2)
    call(folder, "audit", "prove", str(live[-1]["sequence"]), "--out", str(tmp_path / "proof.json"))
    assert as_json(folder, "audit", "verify", "--proof", str(tmp_path / "proof.json"))["verified"]
    as_json(folder, "policy", "diff", str(folder / "policies"), str(folder / "policies"))
    result = CliRunner().invoke(
        app, ["policy", "suggest", "--config", str(folder / "symbi.toml"), "--run", live[-1]["run_id"]]
    )
    assert "have left the live store" in result.output


def test_a_witness_that_saw_what_has_left_sees_the_rest(old, tmp_path):
    folder, _ = old
    heads, key = str(tmp_path / "heads.witness"), str(tmp_path / "w.key")
    as_json(folder, "audit", "witness", "--to", heads, "--key", key)
    anyio.run(run_on, folder, 0, 5)
    assert as_json(folder, "audit", "witness", "--to", heads, "--key", key)["recorded"]
    assert as_json(folder, "audit", "verify", "--witness", heads)["witnessed"]


@pytest.mark.parametrize("attack", ["one more", "a whole segment"])
def test_events_that_somebody_else_took_out_are_missing(old, attack):
    folder, _ = old
    told = as_json(folder, "audit", "segments")
    first = told["live"]["first"]
    live = [row["last"] for row in told["segments"] if not row["removed_at"]]
    last = first if attack == "one more" else live[0]
    assert last < told["live"]["last"] - 256
    with closing(sqlite3.connect(folder / ".symbi/symbi.db")) as db, db:
        db.execute("DELETE FROM events WHERE sequence <= ?", (last,))
        db.execute("UPDATE segments SET removed_at = sealed_at")
    error = as_json(folder, "audit", "verify", code=4)
    assert error["details"]["sequence"] == 1
    assert "missing" in error["error"]
