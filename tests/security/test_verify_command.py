"""`symbi audit verify` on a real trail that somebody has been at: in the store's file, and in an export."""

import importlib.util
import json
import re
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from random import Random

import pytest
from typer.testing import CliRunner

from symbi.cli.main import app
from symbi.crypto.canonical import canonical_json

ROOT = Path(__file__).parents[2]
FIELDS = [
    "agent_id", "chain_hash", "details", "event_id", "event_type", "key_id", "previous_hash", "run_id", "schema_version",
    "sequence", "signature", "timestamp",
]  # fmt: skip
FLIPS_PER_FIELD = 5
BROKEN = 4


def second_verifier():
    spec = importlib.util.spec_from_file_location("verify_audit", ROOT / "tools" / "verify_audit.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


VERIFY_AUDIT = second_verifier()


def symbi(folder: Path, *arguments: str) -> None:
    command = [sys.executable, "-m", "symbi.cli.main", *arguments]
    subprocess.run(command, cwd=folder, capture_output=True, timeout=100, check=True)


def read(folder: Path) -> list[tuple[int, bytes, str]]:
    with closing(sqlite3.connect(folder / ".symbi" / "symbi.db")) as db:
        return db.execute("SELECT sequence, record, chain_hash FROM events ORDER BY sequence").fetchall()


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """The folder of a run that ended."""
    folder = tmp_path_factory.mktemp("trail") / "demo"
    symbi(folder.parent, "demo", str(folder))
    return folder


@pytest.fixture(scope="module")
def trail(first, tmp_path_factory):
    """The same folder after a second run."""
    folder = tmp_path_factory.mktemp("trail") / "demo"
    shutil.copytree(first, folder)
    symbi(folder, "run", "triage.symbi", "--input", "log=logs/access.log")
    return folder


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """Another folder, with keys of its own."""
    folder = tmp_path_factory.mktemp("other") / "hello"
    symbi(folder.parent, "init", str(folder))
    symbi(folder, "run", "hello.symbi", "--input", "name=Eve")
    return folder


@pytest.fixture(scope="module")
def events(trail):
    return read(trail)


@pytest.fixture
def folder(trail, tmp_path):
    place = tmp_path / "demo"
    place.mkdir()
    shutil.copy(trail / "symbi.toml", place)
    shutil.copytree(trail / ".symbi", place / ".symbi")
    return place


@pytest.fixture(scope="module")
def exported(trail, tmp_path_factory):
    place = tmp_path_factory.mktemp("export") / "evidence"
    symbi(trail, "audit", "export", str(place))
    return place


@pytest.fixture
def export(exported, tmp_path):
    place = tmp_path / "evidence"
    shutil.copytree(exported, place)
    return place


def alter(folder: Path, *statements: str | tuple[str, tuple[object, ...]]) -> None:
    """Run SQL on the store's file, as anybody may who can write it."""
    with closing(sqlite3.connect(folder / ".symbi" / "symbi.db")) as db, db:
        for statement in statements:
            db.execute(*((statement,) if isinstance(statement, str) else statement))


def verify(folder: Path, *arguments: str):
    done = CliRunner().invoke(app, ["audit", "verify", "--config", str(folder / "symbi.toml"), *arguments])
    assert done.exception is None or isinstance(done.exception, SystemExit), repr(done.exception)
    assert "Traceback" not in done.output + done.stderr
    return done


def first_bad(folder: Path, *arguments: str) -> int:
    """Number of the first bad event; fails if nothing is found, or if text and JSON do not both name it."""
    plain, machine = verify(folder, *arguments), verify(folder, *arguments, "--json")
    assert (plain.exit_code, machine.exit_code) == (BROKEN, BROKEN), plain.output + plain.stderr
    told = json.loads(machine.stdout)
    assert told["class"] == "ChainBroken"
    assert plain.stdout == ""
    assert plain.stderr.startswith("error: ")
    assert len(plain.stderr.splitlines()) <= 2
    number = told["details"]["sequence"]
    assert re.search(rf"\bevent (is )?{number}\b", plain.stderr), plain.stderr
    if "--export" in arguments:
        assert second_opinion(*arguments[1:]) == number
    return number


def second_opinion(*arguments: str) -> int | None:
    """The first bad event of an export by the verifier that stands alone; None if all holds."""
    told = StringIO()
    with redirect_stderr(told), redirect_stdout(StringIO()):
        code = VERIFY_AUDIT.main(list(arguments))
    found = re.match(r"NOT VERIFIED: event (\d+) ", told.getvalue())
    assert (code, found is None) in {(0, True), (1, False)}, told.getvalue()
    return int(found[1]) if found else None


def flipped(record: bytes, position: int, bit: int) -> bytes:
    altered = bytearray(record)
    altered[position] ^= 1 << bit
    return bytes(altered)


def test_an_untouched_trail_verifies_as_it_stands_and_as_it_was_exported(folder, export, events):
    for arguments in ((), ("--export", str(export))):
        done = verify(folder, *arguments)
        assert done.exit_code == 0, done.stderr
        assert f"verified: {len(events)} events" in done.stdout
        told = json.loads(verify(folder, *arguments, "--json").stdout)
        assert (told["verified"], told["events"], told["chain_hash"]) == (True, len(events), events[-1][2])
    assert second_opinion(str(export)) is None


# --- the store's file --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", FIELDS)
def test_a_flipped_bit_in_any_field_of_any_event_is_found_there(folder, events, field):
    random = Random(field)
    tried = 0
    while tried < FLIPS_PER_FIELD:
        sequence, record, _ = random.choice(events)
        value = canonical_json(json.loads(record)[field])
        if value == b'""':
            continue
        start = record.index(b'"%s":%s' % (field.encode(), value)) + len(field) + 3
        altered = flipped(record, random.randrange(start, start + len(value)), random.randrange(8))
        alter(folder, ("UPDATE events SET record = ? WHERE sequence = ?", (altered, sequence)))
        assert first_bad(folder) == sequence
        alter(folder, ("UPDATE events SET record = ? WHERE sequence = ?", (record, sequence)))
        tried += 1
    assert verify(folder).exit_code == 0


SHIFT_DOWN = "UPDATE events SET sequence = sequence - {count} WHERE sequence > {after}"
SHIFT_UP = (  # by way of negative numbers, for each number stands once at any time
    "UPDATE events SET sequence = -sequence - 1 WHERE sequence >= {place}",
    "UPDATE events SET sequence = -sequence WHERE sequence < 0",
)
COPY = (
    "INSERT INTO events (sequence, record, chain_hash, agent_id, run_id, event_type, verdict)"
    " SELECT {to}, record, chain_hash, agent_id, run_id, event_type, verdict FROM events WHERE sequence = {source}"
)
SWAP_ROWS = (
    "UPDATE events SET sequence = -9 WHERE sequence = 9",
    "UPDATE events SET sequence = 9 WHERE sequence = 5",
    "UPDATE events SET sequence = 5 WHERE sequence = -9",
)
DAMAGES = {
    "one deleted": (["DELETE FROM events WHERE sequence = 7"], 7),
    "one deleted, the rest numbered anew": (
        ["DELETE FROM events WHERE sequence = 7", SHIFT_DOWN.format(count=1, after=7)], 7,
    ),
    "several deleted": (["DELETE FROM events WHERE sequence IN (8, 30, 31)"], 8),
    "the first deleted": (["DELETE FROM events WHERE sequence = 1"], 1),
    "the beginning cut off": (["DELETE FROM events WHERE sequence <= 12"], 1),
    "the beginning cut off, the rest numbered anew": (
        ["DELETE FROM events WHERE sequence <= 12", SHIFT_DOWN.format(count=12, after=12)], 1,
    ),
    "the end cut off by one": (["DELETE FROM events WHERE sequence = {last}"], 0),
    "the end cut off": (["DELETE FROM events WHERE sequence > {last} - 20"], -19),
    "all deleted": (["DELETE FROM events"], 1),
    "all deleted with the head": (["DELETE FROM events", "DELETE FROM head"], 1),
    "two swapped": (list(SWAP_ROWS), 5),
    "one put in twice": ([*(s.format(place=10) for s in SHIFT_UP), COPY.format(to=10, source=9)], 10),
    "one from elsewhere put in": ([*(s.format(place=10) for s in SHIFT_UP), COPY.format(to=10, source=40)], 10),
    "the last one appended again": ([COPY.format(to="{last} + 1", source="{last}")], 1 + 0j),
    "an early one appended": ([COPY.format(to="{last} + 1", source=3)], 1 + 0j),
    "a number changed": (["UPDATE events SET sequence = sequence + 5 WHERE sequence = {last}"], 0),
    "the column of the hash changed": (
        ["UPDATE events SET chain_hash = (SELECT chain_hash FROM events WHERE sequence = 3) WHERE sequence = 20"], 20,
    ),
    "the column of the hash emptied": (["UPDATE events SET chain_hash = '' WHERE sequence = 20"], 20),
    "a record emptied": (["UPDATE events SET record = x'' WHERE sequence = 4"], 4),
    "a record cut off": (["UPDATE events SET record = substr(record, 1, length(record) - 1) WHERE sequence = 4"], 4),
    "a record replaced": (["UPDATE events SET record = (SELECT record FROM events WHERE sequence = 5) WHERE sequence = 4"], 4),
    "a record grown huge": (["UPDATE events SET record = zeroblob(4000000) WHERE sequence = 4"], 4),
    "a record nested without end": ([("UPDATE events SET record = ? WHERE sequence = 4", (b"[" * 500_000,))], 4),
    "the head removed": (["DELETE FROM head"], 0),
    "the head emptied": (["UPDATE head SET record = x''"], 0),
    "the head replaced by an object": (["UPDATE head SET record = CAST('{{}}' AS BLOB)"], 0),
    "the head replaced by an event": (["UPDATE head SET record = (SELECT record FROM events WHERE sequence = 9)"], 0),
    "the head grown huge": (["UPDATE head SET record = zeroblob(4000000)"], 0),
}  # fmt: skip


@pytest.mark.parametrize(("damage", "expected"), DAMAGES.values(), ids=DAMAGES)
def test_every_kind_of_damage_to_the_store_is_found_with_the_first_bad_event(folder, events, damage, expected):
    last = len(events)
    alter(folder, *(part.format(last=last) if isinstance(part, str) else part for part in damage))
    # 1 and up: that event; 0 and down: as far before the last one; with an imaginary part: so far beyond it.
    at = last + int(expected.real) if isinstance(expected, complex) else expected if expected > 0 else last + expected
    assert first_bad(folder) == at


def test_a_flipped_bit_anywhere_in_the_head_is_found(folder, events):
    random = Random(7)
    with closing(sqlite3.connect(folder / ".symbi" / "symbi.db")) as db:
        (head,) = db.execute("SELECT record FROM head").fetchone()
    for position in sorted(random.sample(range(len(head)), 20)):
        alter(folder, ("UPDATE head SET record = ?", (flipped(head, position, random.randrange(8)),)))
        assert 1 <= first_bad(folder) <= len(events) + 1


def test_an_older_head_of_the_same_trail_is_found_at_the_first_event_that_it_does_not_know(folder, first, events):
    with closing(sqlite3.connect(first / ".symbi" / "symbi.db")) as db:
        (older,) = db.execute("SELECT record FROM head").fetchone()
    alter(folder, ("UPDATE head SET record = ?", (older,)))
    assert first_bad(folder) == len(read(first)) + 1 <= len(events)


def test_head_and_events_of_another_trail_are_found(folder, other, events):
    strangers = read(other)
    with closing(sqlite3.connect(other / ".symbi" / "symbi.db")) as db:
        (head,) = db.execute("SELECT record FROM head").fetchone()
    alter(folder, ("UPDATE events SET record = ?, chain_hash = ? WHERE sequence = 6", strangers[5][1:]))
    assert first_bad(folder) == 6
    alter(folder, ("UPDATE events SET record = ?, chain_hash = ? WHERE sequence = 6", events[5][1:]))
    alter(folder, ("UPDATE head SET record = ?", (head,)))
    assert first_bad(folder) == len(strangers)
    # All of it, but not the key.
    shutil.copy(other / ".symbi" / "symbi.db", folder / ".symbi" / "symbi.db")
    assert first_bad(folder) == 1


@pytest.mark.parametrize(
    ("value", "column"),
    [
        (None, "record"),
        ("text", "record"),
        (7, "record"),
        (1.5, "record"),
        (None, "chain_hash"),
        (b"\xff", "chain_hash"),
    ],
)
def test_a_table_that_was_made_anew_without_types_gives_no_crash(folder, value, column):
    alter(
        folder,
        "ALTER TABLE events RENAME TO before",
        "CREATE TABLE events (sequence, record, chain_hash)",
        "INSERT INTO events SELECT sequence, record, chain_hash FROM before",
        (f"UPDATE events SET {column} = ? WHERE sequence = 11", (value,)),
    )
    assert first_bad(folder) == 11


@pytest.mark.parametrize("value", [None, "text", 7])
def test_a_head_of_another_type_gives_no_crash(folder, events, value):
    alter(folder, "DROP TABLE head", "CREATE TABLE head (id, record)", ("INSERT INTO head VALUES (1, ?)", (value,)))
    assert first_bad(folder) == len(events)


@pytest.mark.parametrize("statement", ["DROP TABLE head", "DROP TABLE events", "PRAGMA user_version = 9"])
def test_a_store_without_its_tables_is_no_store(folder, statement):
    alter(folder, statement)
    done = verify(folder)
    assert done.exit_code == 5
    assert done.stderr.startswith("error: the store ")


def test_other_keys_are_found_at_the_first_event(folder, other):
    shutil.rmtree(folder / ".symbi" / "keys")
    shutil.copytree(other / ".symbi" / "keys", folder / ".symbi" / "keys")
    assert first_bad(folder) == 1


def test_without_a_key_nothing_is_called_verified(folder):
    shutil.rmtree(folder / ".symbi" / "keys")
    done = verify(folder)
    assert done.exit_code == 2
    assert "there is no key" in done.stderr
    assert "verified" not in done.stdout
    assert not (folder / ".symbi" / "keys").exists()


def test_an_older_copy_of_the_whole_store_verifies_as_the_security_model_says(folder, first, events):
    """It is a true state of the trail; only a copy of a later head, kept elsewhere, tells."""
    shutil.copy(first / ".symbi" / "symbi.db", folder / ".symbi" / "symbi.db")
    done = verify(folder)
    assert done.exit_code == 0
    assert f"verified: {len(read(first))} events" in done.stdout
    assert len(read(first)) < len(events)
    limits = (ROOT / "docs" / "security" / "model.md").read_text("utf-8").partition("## What does not")[2]
    assert re.search(r"(earlier state|older copy)[^.]*\bverifies\b", limits)


def test_flipped_bits_anywhere_in_the_file_are_found_or_touch_no_event(folder):
    random = Random(11)
    file = folder / ".symbi" / "symbi.db"
    whole = file.read_bytes()
    with closing(sqlite3.connect(file)) as db:
        head = db.execute("SELECT record FROM head").fetchone()
    intact = read(folder)
    found = 0
    hashes = [place.end() for place in re.finditer(b'"chain_hash":"', whole)]
    for number in range(60):  # events are a small part of the file: every sixth flip is in one
        at = random.choice(hashes) if number % 6 == 0 else random.randrange(len(whole))
        file.write_bytes(flipped(whole, at, random.randrange(8)))
        done = verify(folder)
        found += done.exit_code != 0
        if done.exit_code == 0:
            assert read(folder) == intact
            with closing(sqlite3.connect(file)) as db:
                assert db.execute("SELECT record FROM head").fetchone() == head
        else:
            assert done.exit_code in (BROKEN, 5), done.stderr
            assert done.stderr.startswith("error: ")
    assert found


# --- an export -----------------------------------------------------------------------------------------------------------


def lines_of(export: Path) -> list[bytes]:
    return (export / "events.jsonl").read_bytes().splitlines(keepends=True)


def head_of(export: Path) -> Path:
    return max((export / "checkpoints").iterdir())


def put(export: Path, lines: list[bytes]) -> None:
    (export / "events.jsonl").write_bytes(b"".join(lines))


def test_a_flipped_bit_in_any_line_of_an_export_is_found_there(trail, export):
    random = Random(13)
    lines = lines_of(export)
    for _ in range(40):
        index = random.randrange(len(lines))
        position = random.randrange(len(lines[index]))
        altered = list(lines)
        altered[index] = flipped(lines[index], position, random.randrange(8))
        put(export, altered)
        # A line feed that is none any more joins two lines, which is found at the first of them.
        assert first_bad(trail, "--export", str(export)) == index + 1


EXPORT_DAMAGES = {
    "one deleted": (lambda lines: lines[:6] + lines[7:], 7),
    "the beginning cut off": (lambda lines: lines[4:], 1),
    "two swapped": (lambda lines: [*lines[:4], lines[8], *lines[5:8], lines[4], *lines[9:]], 5),
    "one put in twice": (lambda lines: [*lines[:9], lines[8], *lines[9:]], 10),
    "an empty line put in": (lambda lines: [*lines[:9], b"\n", *lines[9:]], 10),
    "a space put in": (lambda lines: [*lines[:9], b" " + lines[9], *lines[10:]], 10),
    "line ends of another system": (lambda lines: [line[:-1] + b"\r\n" for line in lines], 1),
    "nothing left": (lambda _: [], 1),
    "one endless line": (lambda lines: [*lines[:2], b"x" * 5_000_000], 3),
    "nested without end": (lambda lines: [*lines[:2], b"[" * 500_000 + b"\n"], 3),
    "bytes that are no text": (lambda lines: [*lines[:2], b"\xff\xfe\n", *lines[3:]], 3),
}


@pytest.mark.parametrize(("damage", "expected"), EXPORT_DAMAGES.values(), ids=EXPORT_DAMAGES)
def test_every_kind_of_damage_to_the_events_of_an_export_is_found(trail, export, damage, expected):
    put(export, damage(lines_of(export)))
    assert first_bad(trail, "--export", str(export)) == expected


@pytest.mark.parametrize("left", [1, 40, -1])
def test_an_export_that_was_cut_short_is_found(trail, export, events, left):
    put(export, lines_of(export)[:left])
    assert first_bad(trail, "--export", str(export)) == (left + 1 if left > 0 else len(events))


def test_an_export_that_ends_within_its_last_line_is_found(trail, export, events):
    lines = lines_of(export)
    for end in (-1, -2, -300):
        put(export, [*lines[:-1], lines[-1][:end]])
        assert first_bad(trail, "--export", str(export)) == len(events)


@pytest.mark.parametrize("head", [b"", b"{}\n", b"null", b"[" * 500_000, b"\xff", b"x" * 3_000_000, None])
def test_a_head_that_was_removed_or_replaced_in_an_export_is_found(trail, export, events, head):
    if head is None:
        shutil.rmtree(export / "checkpoints")
    else:
        head_of(export).write_bytes(head)
    assert first_bad(trail, "--export", str(export)) == len(events)


def test_events_beyond_the_last_checkpoint_of_an_export_are_found(trail, export):
    head_of(export).unlink()
    left = head_of(export)
    assert first_bad(trail, "--export", str(export)) == int(left.stem) + 1


@pytest.mark.parametrize("name", ["7.note", "000000000007.txt", "note", "000000000007.note.bak"])
def test_what_is_no_checkpoint_among_those_of_an_export_is_found(trail, export, name):
    (export / "checkpoints" / name).write_bytes(head_of(export).read_bytes())
    assert first_bad(trail, "--export", str(export)) == 1


def test_a_checkpoint_under_the_name_of_another_is_found(trail, export):
    head = head_of(export)
    head.rename(head.with_name("000000999999.note"))
    assert first_bad(trail, "--export", str(export)) == int(head.stem)


def test_events_that_were_removed_from_an_export_are_missed(trail, export):
    (export / "events.jsonl").unlink()
    assert first_bad(trail, "--export", str(export)) == 1


def test_other_keys_in_an_export_are_found_at_the_first_event(trail, export, other, tmp_path):
    symbi(other, "audit", "export", str(tmp_path / "others"))
    shutil.copy(tmp_path / "others" / "keys.json", export / "keys.json")
    assert first_bad(trail, "--export", str(export)) == 1


def test_a_whole_export_under_another_key_passes_by_its_own_keys_and_not_by_the_known_ones(
    trail, export, other, tmp_path
):
    forged = tmp_path / "others"
    symbi(other, "audit", "export", str(forged))
    by_its_own = verify(trail, "--export", str(forged))
    assert by_its_own.exit_code == 0
    assert "keys are those of the export itself" in by_its_own.stderr
    assert first_bad(trail, "--export", str(forged), "--keys", str(export / "keys.json")) == 1
    assert verify(trail, "--export", str(export), "--keys", str(export / "keys.json")).exit_code == 0
    assert verify(trail, "--keys", str(export / "keys.json")).exit_code == 2


@pytest.mark.parametrize(
    "keys",
    [b"", b"{", b"[]", b"7", b'{"a": 1}', b'{"a": {"public_key": "zz"}}', b'{"a": {"public_key": 7}}', b"[" * 500_000,
     b'{"0000000000000000": {"public_key": "' + b"00" * 32 + b'"}}', b"\xff", None],
)  # fmt: skip
def test_keys_that_are_none_are_an_error_of_the_input(trail, export, keys):
    if keys is None:
        (export / "keys.json").unlink()
    else:
        (export / "keys.json").write_bytes(keys)
    done = verify(trail, "--export", str(export))
    assert done.exit_code == 2, done.output
    assert done.stderr.startswith("error: ")


def test_a_damaged_trail_is_neither_exported_nor_shown_as_whole(folder, tmp_path):
    alter(folder, "UPDATE events SET record = substr(record, 2) WHERE sequence = 30")
    config = ["--config", str(folder / "symbi.toml")]
    exported = CliRunner().invoke(app, ["audit", "export", str(tmp_path / "out"), *config])
    assert exported.exit_code == BROKEN
    assert not (tmp_path / "out").exists()
    shown = CliRunner().invoke(app, ["audit", "show", *config])
    assert shown.exit_code == BROKEN
    assert "event 30" in shown.stderr
