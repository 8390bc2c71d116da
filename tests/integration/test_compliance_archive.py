"""Reports on a trail of which the first part has left the live store, and stands in the audit storage alone."""

import json
import shutil
import sqlite3
from contextlib import closing

import anyio
import pytest
from typer.testing import CliRunner

from symbi.audit.segments import DAY_NS
from symbi.cli.main import app
from symbi.clock import SystemClock, rfc3339
from symbi.config import load_settings
from symbi.testing.clock import ManualClock
from symbi.wiring import compile_agents, open_runtime

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
BROKEN, UNAVAILABLE = 4, 5


def configure(place, storage="storage"):
    text = f'[runtime]\nlog_level = "error"\n[audit]\nsegment_events = 256\nretention_days = 30\nstorage = "{place / storage}"\n'
    (place / "work/symbi.toml").write_text(text)


async def run_on(folder, days_ago, n):
    clock = ManualClock(SystemClock().now_ns() - days_ago * DAY_NS)
    async with open_runtime(load_settings(folder / "symbi.toml"), clock=clock) as runtime:
        compiled = compile_agents(folder / "work.symbi")
        await runtime.run(compiled, compiled.agents[0], {"n": n})


@pytest.fixture(scope="module")
def aged(tmp_path_factory):
    place = tmp_path_factory.mktemp("aged")
    folder = place / "work"
    (folder / "policies").mkdir(parents=True)
    (folder / "policies/all.cedar").write_text('@id("all")\npermit (principal, action, resource);\n')
    (folder / "work.symbi").write_text(AGENT)
    (place / "storage").mkdir()
    configure(place)
    for days_ago, n in ((40, 150), (39, 150), (2, 300)):
        anyio.run(run_on, folder, days_ago, n)
    return place


@pytest.fixture
def old(aged, tmp_path):
    for name in ("work", "storage"):
        shutil.copytree(aged / name, tmp_path / name)
    configure(tmp_path)
    return tmp_path


def call(place, *arguments, code=0):
    done = CliRunner().invoke(app, [*arguments, "--config", str(place / "work/symbi.toml")])
    assert done.exit_code == code, done.output
    return done


def report(place, *arguments, code=0):
    call(place, "compliance", "report", "sox", "--out", str(place / "r.json"), *arguments, code=code)
    return json.loads((place / "r.json").read_bytes())


def claim(document, control_id, claim_id):
    (control,) = [one for one in document["controls"] if one["id"] == control_id]
    return next(one for one in control["evidence"] if one["id"] == claim_id)


def test_what_has_left_the_live_store_is_evidence_too(old):
    live = json.loads(call(old, "audit", "segments", "--json").stdout)["live"]["first"]
    assert live > 256
    document = report(old)
    assert document["period"]["first"] == 2
    ran = claim(document, "CM-3", "digests")["bearing"]
    assert ran["count"] == 3
    assert ran["samples"][0]["sequence"] < live <= ran["samples"][-1]["sequence"]
    told = json.loads(call(old, "compliance", "verify", str(old / "r.json"), "--json").stdout)
    assert told["made_again"]
    later = report(old, "--from", rfc3339(SystemClock().now_ns() - 10 * DAY_NS)[:10])
    assert claim(later, "CM-3", "digests")["bearing"]["count"] == 1


def test_without_the_storage_there_is_no_report(old):
    shutil.move(old / "storage", old / "elsewhere")
    done = call(old, "compliance", "report", "sox", code=UNAVAILABLE)
    assert done.stdout == ""
    (old / "work/symbi.toml").write_text('[runtime]\nlog_level = "error"\n')
    done = call(old, "compliance", "report", "sox", code=UNAVAILABLE)
    assert "no audit storage is configured" in done.stderr


@pytest.mark.parametrize("attack", ["altered", "cut off", "a segment that is gone", "forgotten"])
def test_a_storage_that_was_altered_gives_no_report(old, attack):
    (first, *_) = sorted(old.glob("storage/*/*/events.jsonl"))
    match attack:
        case "altered":
            first.write_bytes(first.read_bytes().replace(b'"work"', b'"wark"', 1))
        case "cut off":
            first.write_bytes(first.read_bytes()[:-10])
        case "a segment that is gone":
            first.unlink()
        case "forgotten":
            with closing(sqlite3.connect(old / "work/.symbi/symbi.db")) as db, db:
                db.execute("DELETE FROM segments")
    done = call(old, "compliance", "report", "sox", code=BROKEN)
    assert done.stdout == ""
    assert "error:" in done.stderr


def test_what_is_not_there_was_not_searched_and_may_be_about_one_on_hold(old):
    for name in ("john", "jane"):
        call(old, "privacy", "hold", name, "--reason", "case 4711")
    call(old, "privacy", "release", "john")
    shutil.move(old / "storage", old / "elsewhere")
    (old / "storage").mkdir()
    for ask in ("erase", "export"):
        assert "cannot be found: audit-storage/" in call(old, "privacy", ask, "john", code=UNAVAILABLE).stderr
    call(old, "privacy", "release", "jane")
    certificate = json.loads(call(old, "privacy", "erase", "john", code=BROKEN).stdout)
    assert not certificate["search"]["clean"]
    assert all(one.endswith("it is not there") for one in certificate["search"]["unread"])
    shutil.rmtree(old / "storage")
    shutil.move(old / "elsewhere", old / "storage")
    assert json.loads(call(old, "privacy", "erase", "john").stdout)["search"]["clean"]


def test_a_certificate_stands_on_the_trail_when_its_event_has_left_the_live_store(old):
    call(old, "privacy", "hold", "john", "--reason", "case 4711")
    call(old, "privacy", "release", "john")
    call(old, "privacy", "erase", "john", "--out", str(old / "certificate.json"))
    anyio.run(run_on, old / "work", 0, 300)
    anyio.run(run_on, old / "work", -40, 1)
    live = json.loads(call(old, "audit", "segments", "--json").stdout)["live"]["first"]
    told = json.loads(call(old, "privacy", "verify-certificate", str(old / "certificate.json"), "--json").stdout)
    assert 0 < told["event"] < live
