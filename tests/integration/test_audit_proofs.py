"""`symbi audit verify`, `export` and `prove` on a store of some thousand events: ranges, witnesses, proofs, whole or nothing."""

import json
import os
import shutil
import sqlite3
import tracemalloc
from contextlib import closing
from pathlib import Path

import anyio
import pytest
from typer.testing import CliRunner

from symbi.adapters.keys import FileKeyStore
from symbi.audit.checkpoint import parse_note
from symbi.audit.export import ExportWriter, read_keys, verify_folder
from symbi.audit.verify import BEGINNING, claims_of, verify_trail
from symbi.cli import audit_verify
from symbi.cli.main import app
from symbi.crypto.keys import KeyPurpose
from symbi.crypto.provider import open_provider
from symbi.errors import InputError, Unavailable
from symbi.testing.log import open_log
from symbi.testing.trail import TrailBuilder, fixed_signing_key, sample_draft
from symbi.wiring import on_all_cores

EVENTS = 3_001
BROKEN, USAGE = 4, 2


async def fill(folder):
    async with open_log(folder, provider="libsodium") as trail, anyio.create_task_group() as tasks:

        async def appender(start):
            for number in range(start, start + (EVENTS - 1) // 100):
                await trail.log.append(sample_draft(number))

        for number in range(100):
            tasks.start_soon(appender, number * 1000)


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    folder = tmp_path_factory.mktemp("filled")
    (folder / "symbi.toml").write_text('[runtime]\nmode = "development"\ndata_dir = ".symbi"\n')
    anyio.run(fill, folder / ".symbi")
    FileKeyStore(folder / ".symbi" / "keys").store(KeyPurpose.AUDIT_SIGNING, b"\x01" * 32)
    return folder


@pytest.fixture
def folder(filled, tmp_path):
    return Path(shutil.copytree(filled, tmp_path / "work"))


def symbi(folder, *arguments):
    done = CliRunner().invoke(app, ["audit", *map(str, arguments), "--config", str(folder / "symbi.toml")])
    assert done.exception is None or isinstance(done.exception, SystemExit), repr(done.exception)
    assert "Traceback" not in done.output + done.stderr
    return done


def told(done):
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


def alter(folder, *statements):
    with closing(sqlite3.connect(folder / ".symbi" / "symbi.db")) as db, db:
        for statement in statements:
            db.execute(*statement)


def first_bad(folder, *arguments):
    done = symbi(folder, *arguments, "--json")
    assert done.exit_code == BROKEN, done.stderr
    return json.loads(done.stdout)["details"]["sequence"]


@pytest.mark.parametrize(
    ("span", "expected"),
    [("1..3001", (1, 3001)), ("2..", (2, 3001)), ("..2000", (1, 2000)), ("257..512", (257, 512)), ("3001", (3001, 3001)),
     ("1", (1, 1)), ("1000..1000", (1000, 1000)), ("700..2901", (700, 2901))],
)  # fmt: skip
def test_a_range_is_verified_against_the_signed_head(filled, span, expected):
    report = told(symbi(filled, "verify", span, "--json"))
    assert (report["first"], report["last"], report["events"]) == (*expected, expected[1] - expected[0] + 1)


@pytest.mark.parametrize("span", ["0", "a", "..", "5..4", "3002", "4000..", "1..3002", "1-2"])
def test_what_is_no_range_of_the_trail_is_refused(filled, span):
    done = symbi(filled, "verify", span)
    assert done.exit_code == USAGE
    assert done.stderr.startswith("error: ")


def test_what_is_altered_is_found_by_every_range_that_holds_it(folder):
    change = "UPDATE events SET record = CAST(replace(record, 'triage', 'truage') AS BLOB) WHERE sequence = 1500"
    alter(folder, (change,))
    for span in ((), ("1500",), ("1400..1600",), ("..1500",), ("1500..",)):
        assert first_bad(folder, "verify", *span) == 1500
    for span in (("1501..",), ("..1499",)):
        # The events of the range are as they were; the tiles beside the store still say what was there.
        assert symbi(folder, "verify", *span).exit_code == 0


def test_a_tile_that_was_altered_leads_no_range_astray(folder):
    alter(folder, ("UPDATE tiles SET hashes = zeroblob(8192) WHERE level = 0 AND number = 3",))
    assert symbi(folder, "verify").exit_code == 0  # from the events alone
    assert first_bad(folder, "verify", "1025..2000") in range(1025, 3002)
    assert symbi(folder, "prove", "800").exit_code == BROKEN
    alter(folder, ("UPDATE tiles SET hashes = x'00' WHERE level = 0 AND number = 3",))
    assert symbi(folder, "verify", "1025..2000").exit_code == BROKEN


def test_a_witness_file_is_held_against_the_store_and_an_export(folder, tmp_path):
    with closing(sqlite3.connect(folder / ".symbi" / "symbi.db")) as db:
        (head,) = db.execute("SELECT record FROM head").fetchone()
    witness = tmp_path / "seen.witness"
    witness.write_bytes(head + b"\n")
    export = tmp_path / "export"
    assert symbi(folder, "export", export).exit_code == 0
    for arguments in ((), ("--export", export)):
        assert told(symbi(folder, "verify", *arguments, "--witness", witness, "--json"))["witnessed"] == EVENTS
        assert (
            f"a witness has seen the same up to event {EVENTS}"
            in symbi(folder, "verify", *arguments, "--witness", witness).stdout
        )
    for span, warned in ((f"{EVENTS}..", False), ("..10", True)):
        done = symbi(folder, "verify", span, "--witness", witness)
        assert (done.exit_code, "nothing was held against the witness" in done.stderr) == (0, warned)
    builder = TrailBuilder(fixed_signing_key())
    builder.start()
    witness.write_bytes(builder.checkpoint())
    assert first_bad(folder, "verify", "--witness", witness) == 1
    for content in (b"", b"nothing\n\n", head[:-1]):
        witness.write_bytes(content)
        assert symbi(folder, "verify", "--witness", witness).exit_code == USAGE
    assert symbi(folder, "verify", "--witness", tmp_path / "none").exit_code == USAGE


@pytest.mark.parametrize("place", [1, 2, 256, 257, 1500, EVENTS])
def test_an_event_is_proved_by_a_small_document_that_stands_for_itself(filled, tmp_path, place):
    export = tmp_path / "export"
    shutil.copytree(filled, tmp_path / "other")
    proof = tmp_path / "proof.json"
    done = symbi(filled, "prove", str(place), "--out", proof)
    assert done.exit_code == 0, done.stderr
    document = json.loads(proof.read_text("utf-8"))
    assert (document["index"], document["size"]) == (place - 1, EVENTS)
    assert len(document["hashes"]) <= 12
    by_id = symbi(filled, "prove", json.loads(document["record"])["event_id"])
    assert json.loads(by_id.stdout) == document
    # It is checked without the store, with the keys that somebody knows.
    assert symbi(filled, "export", export).exit_code == 0
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "symbi.toml").write_text('[runtime]\nmode = "development"\n')
    checked = symbi(elsewhere, "verify", "--proof", proof, "--keys", export / "keys.json")
    assert checked.exit_code == 0, checked.stderr
    assert f"event {place} (" in checked.stdout
    assert told(symbi(filled, "verify", "--proof", proof, "--json"))["sequence"] == place
    assert symbi(filled, "prove", str(place), "--out", proof).exit_code == USAGE  # it is there already


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"index": 7}, BROKEN),
        ({"hashes": []}, BROKEN),
        ({"record": "{}"}, BROKEN),
        ({"hashes": ["00" * 31]}, USAGE),
        ({"hashes": "00"}, USAGE),
        ({"hashes": [7]}, USAGE),
        ({"size": 5}, USAGE),
        ({"index": -1}, USAGE),
        ({"index": True}, USAGE),
        ({"checkpoint": "nothing"}, USAGE),
        ({"type": "symbi.inclusion/2"}, USAGE),
        ({"type": ["x"]}, USAGE),
        ({"more": 1}, USAGE),
        ({"record": 7}, USAGE),
        ({"record": "\ud800"}, USAGE),
    ],
)
def test_a_proof_that_was_altered_proves_nothing(filled, tmp_path, change, code):
    document = json.loads(symbi(filled, "prove", "1500").stdout)
    file = tmp_path / "proof.json"
    file.write_text(json.dumps(document | change))
    done = symbi(filled, "verify", "--proof", file)
    assert done.exit_code == code, done.stderr
    assert "verified" not in done.stdout


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"7", b"[" * 200_000, b"\xff", b"x" * 3_000_000])
def test_what_is_no_proof_is_refused(filled, tmp_path, content):
    file = tmp_path / "proof.json"
    file.write_bytes(content)
    assert symbi(filled, "verify", "--proof", file).exit_code == USAGE


def test_two_heads_are_proved_to_be_of_one_history(filled, tmp_path):
    builder = TrailBuilder(fixed_signing_key())
    builder.start()
    forked = tmp_path / "forked.note"
    with closing(sqlite3.connect(filled / ".symbi" / "symbi.db")) as db:
        (head,) = db.execute("SELECT record FROM head").fetchone()
        kept = db.execute("SELECT size, note FROM checkpoints ORDER BY size").fetchall()
    old = tmp_path / "old.note"
    old.write_bytes(kept[0][1])
    for named in (str(kept[0][0]), old):
        document = told(symbi(filled, "prove", "--consistency", named))
        assert (document["old_size"], document["size"]) == (kept[0][0], EVENTS)
        file = tmp_path / f"proof-{Path(str(named)).name}.json"
        file.write_text(json.dumps(document))
        assert told(symbi(filled, "verify", "--proof", file, "--json"))["old_size"] == kept[0][0]
        file.write_text(json.dumps(document | {"hashes": document["hashes"][1:] or ["00" * 32]}))
        assert symbi(filled, "verify", "--proof", file).exit_code == BROKEN
    forked.write_bytes(builder.checkpoint())
    assert symbi(filled, "prove", "--consistency", forked).exit_code == USAGE
    assert symbi(filled, "prove", "--consistency", "17").exit_code == USAGE
    assert parse_note(head).checkpoint.size == EVENTS


@pytest.mark.parametrize(
    "arguments",
    [("prove",), ("prove", "1", "--consistency", "2"), ("prove", "0"), ("prove", "3002"), ("prove", "no-such-id"),
     ("prove", "--consistency", "/nowhere"), ("verify", "--proof", "x", "--export", "y"), ("verify", "5", "--export", "y"),
     ("verify", "--keys", "x")],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(filled, arguments):
    done = symbi(filled, *arguments)
    assert done.exit_code == USAGE
    assert done.stderr.startswith("error: ")


def test_an_export_is_whole_or_not_there(folder, tmp_path):
    export = tmp_path / "export"
    assert symbi(folder, "export", export).exit_code == 0
    assert sorted(path.name for path in export.iterdir()) == ["checkpoints", "events.jsonl", "keys.json"]
    assert symbi(folder, "export", export).exit_code == USAGE
    alter(folder, ("DELETE FROM events WHERE sequence = 2900",))
    broken = tmp_path / "broken"
    assert symbi(folder, "export", broken).exit_code == BROKEN
    assert symbi(folder, "export", tmp_path / "no" / "such" / "\0x").exit_code == USAGE
    assert [path.name for path in tmp_path.iterdir() if "broken" in path.name] == []


def test_a_full_disk_leaves_nothing_of_an_export(tmp_path, monkeypatch):
    builder = TrailBuilder(fixed_signing_key())
    events = [builder.start(), *(builder.add(sample_draft(number)) for number in range(50))]
    with pytest.raises(InputError, match="cannot write"), ExportWriter(tmp_path / "export") as writer:
        writer._events.close()
        monkeypatch.setattr(writer, "_events", open("/dev/full", "wb", buffering=0))  # noqa: PTH123, SIM115 - closed by the writer
        for _ in writer.copy(events):
            pass
    assert list(tmp_path.iterdir()) == []


def test_memory_does_not_grow_with_the_trail(tmp_path):
    """Writing and reading an export of four times as many events takes the same memory."""
    key = fixed_signing_key(1, open_provider("libsodium"))
    peaks = []
    for count in (6_000, 24_000):
        folder = tmp_path / f"export-{count}"
        builder = TrailBuilder(key, signing="batch")
        notes = []

        def events(builder=builder, notes=notes, count=count):
            yield builder.start()
            while builder.size < count:
                yield builder.add(sample_draft(builder.size))
                if builder.size % (count // 4) == 0:
                    notes.append((builder.size, builder.checkpoint()))

        tracemalloc.start()
        with ExportWriter(folder) as writer:
            for _ in writer.copy(events()):
                pass
            writer.finish(notes, {key.key_id: key.verifying_key()}, BEGINNING)
        report = verify_folder(folder, read_keys((folder / "keys.json").read_bytes(), open_provider()))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert (report.events, report.checkpoints) == (count, 3)
    assert peaks[1] < 1.5 * peaks[0]


@pytest.mark.parametrize("place", [None, 1, 3000, 21_000])
def test_on_several_cores_the_verdict_is_the_same(place):
    key = fixed_signing_key(1, open_provider("libsodium"))
    builder = TrailBuilder(key, signing="batch")
    records = [builder.start().record]
    notes = []
    while builder.size < 22_000:
        step = (
            builder.rotate(fixed_signing_key(2)) if builder.size == 9_000 else builder.add(sample_draft(builder.size))
        )
        records.append(step.record)
        if builder.size % 1_000 == 0:
            notes.append((builder.size, builder.checkpoint()))
    head = notes.pop()[1]
    if place is not None:
        records[place - 1] = records[place - 1].replace(b'"run_id":"', b'"run_id":"x')

    def verdict(run):
        try:
            return verify_trail(records, head, {key.key_id: key.verifying_key()}, claims=claims_of(notes), run=run)
        except Exception as error:  # noqa: BLE001 - whatever it is, it has to be the same
            return type(error), str(error)

    with on_all_cores(len(records), cores=2) as run, on_all_cores(1) as alone:
        assert run is not alone
        assert verdict(run) == verdict(alone)
        assert isinstance(verdict(run), tuple) is (place is not None)


def test_a_process_that_is_ended_from_outside_is_told():
    with pytest.raises(Unavailable, match="was ended from outside"), on_all_cores(100_000, cores=2) as run:
        list(run(os._exit, iter([7])))


def test_the_command_uses_all_cores_for_a_long_trail(filled, monkeypatch):
    asked = []

    def spy(events):
        asked.append(events)
        return on_all_cores(events)

    monkeypatch.setattr(audit_verify, "on_all_cores", spy)
    assert symbi(filled, "verify").exit_code == 0
    assert asked == [EVENTS]
