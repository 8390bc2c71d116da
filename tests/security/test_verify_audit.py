"""`tools/verify_audit.py` stands alone, says what the package says, and meets every damage with a message."""

import ast
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symbi.audit.export import frontier_document, keys_document, note_name, read_keys, verify_folder
from symbi.audit.piece import chain_hash_of
from symbi.audit.verify import Start
from symbi.crypto.canonical import canonical_json
from symbi.crypto.chain import link
from symbi.crypto.merkle import Frontier, leaf_hash
from symbi.crypto.provider import open_provider
from symbi.errors import ChainBroken, InputError
from symbi.testing.trail import TrailBuilder, fixed_signing_key, sample_draft, seal_fields

ROOT = Path(__file__).parents[2]
TOOL = ROOT / "tools" / "verify_audit.py"
MAX_LINES = 350
PROVIDER = open_provider("libsodium")
KEYS = [fixed_signing_key(number, PROVIDER) for number in range(4)]


def load():
    spec = importlib.util.spec_from_file_location("verify_audit", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


VERIFY_AUDIT = load()


def test_it_can_be_read_in_ten_minutes_and_shares_no_code():
    source = TOOL.read_text("utf-8")
    assert len(source.splitlines()) <= MAX_LINES
    imported = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            imported.add(node.module.split(".")[0])
    assert "cryptography" in imported
    assert imported - {"cryptography"} <= set(sys.stdlib_module_names)
    assert not re.search(r"\b(__import__|import_module|exec|eval)\b", source)


@pytest.fixture(scope="module")
def trail(tmp_path_factory):
    """An export with rotations, both modes, and checkpoints on the way."""
    folder = tmp_path_factory.mktemp("trail") / "export"
    (folder / "checkpoints").mkdir(parents=True)
    builder = TrailBuilder(KEYS[1])
    records = [builder.start().record]
    for step in ("batch", None, KEYS[2], None, "event", None, KEYS[3], None, "batch", None, None):
        records.append(
            builder.add(sample_draft(builder.size)).record
            if step is None
            else (builder.sign_by(step) if isinstance(step, str) else builder.rotate(step)).record
        )
        if builder.size % 3 == 0:
            (folder / "checkpoints" / note_name(builder.size)).write_bytes(builder.checkpoint())
    (folder / "events.jsonl").write_bytes(b"".join(record + b"\n" for record in records))
    (folder / "keys.json").write_bytes(keys_document({KEYS[1].key_id: KEYS[1].verifying_key()}))
    return folder


@pytest.fixture
def export(trail, tmp_path):
    return Path(shutil.copytree(trail, tmp_path / "export"))


def by_package(folder):
    """What the package says: None, the first bad event, or `unreadable`."""
    try:
        keys = read_keys((folder / "keys.json").read_bytes(), PROVIDER)
        verify_folder(folder, keys)
    except ChainBroken as broken:
        return broken.fields["sequence"]
    except (InputError, OSError):
        return "unreadable"
    return None


def by_tool(folder, capsys, *arguments):
    code = VERIFY_AUDIT.main([str(folder), *arguments])
    told = capsys.readouterr()
    if code == 0:
        assert told.err == ""
        return None
    assert told.out == ""
    assert told.err.startswith("NOT VERIFIED: ")
    assert len(told.err.splitlines()) == 1
    named = re.search(r"event (\d+) ", told.err)
    return int(named[1]) if code == 1 else "unreadable"


def test_as_a_program_it_says_that_all_holds_and_names_what_does_not(export):
    command = [sys.executable, "-I", str(TOOL), str(export)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("verified: events 1 to 12; 4 checkpoints; keys ")
    assert "the keys are those of the export itself" in done.stdout
    lines = (export / "events.jsonl").read_bytes().splitlines(keepends=True)
    (export / "events.jsonl").write_bytes(b"".join(lines[:4] + lines[5:]))
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "NOT VERIFIED: event 5 is missing: event 6 stands in its place\n"


def test_events_that_are_not_there_are_named_and_no_witness_is_said_to_have_seen_them(export, capsys, tmp_path):
    lines = (export / "events.jsonl").read_bytes().splitlines(keepends=True)
    before = Frontier()
    for line in lines[:4]:
        before.append(leaf_hash(line[:-1]))
    start = Start(4, before.hashes, json.loads(lines[3])["chain_hash"])
    (export / "frontier.json").write_bytes(frontier_document(start))
    (export / "events.jsonl").write_bytes(b"".join(lines[4:]))
    seen = tmp_path / "seen.witness"
    seen.write_bytes((export / "checkpoints" / note_name(3)).read_bytes() + b"\n")
    (export / "checkpoints" / note_name(3)).unlink()
    keys = tmp_path / "keys.json"
    keys.write_bytes(keys_document({key.key_id: key.verifying_key() for key in KEYS}))
    for witness, told in (((), ""), (("--witness", str(seen)), ", seen by a witness up to event 0")):
        assert VERIFY_AUDIT.main([str(export), "--keys", str(keys), *witness]) == 0
        said = capsys.readouterr().out
        assert said.startswith(f"verified: events 5 to 12 (1 to 4 are not here){told}; 3 checkpoints; keys ")


FILES = ["events.jsonl", "keys.json", "checkpoints/000000000006.note", "checkpoints/000000000012.note"]


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_both_verifiers_say_the_same_of_any_damage_to_any_file(trail, tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("damaged") / "export"
    shutil.copytree(trail, folder)
    file = folder / data.draw(st.sampled_from(FILES))
    content = bytearray(file.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    match data.draw(st.sampled_from(["flip", "cut", "drop", "put", "empty", "gone"])):
        case "flip":
            content[at] ^= 1 << data.draw(st.integers(0, 7))
        case "cut":
            del content[at:]
        case "drop":
            del content[at : at + data.draw(st.integers(1, 900))]
        case "put":
            content[at:at] = data.draw(st.binary(min_size=1, max_size=30))
        case "empty":
            content.clear()
        case _:
            file.unlink()
    if file.exists():
        file.write_bytes(content)

    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = VERIFY_AUDIT.main([str(folder)])
    package = by_package(folder)
    assert (package is None) == (code == 0), (package, err.getvalue())
    if package == "unreadable":
        assert code == 2, err.getvalue()
    elif package is not None:
        assert code == 1
        assert int(re.search(r"event (\d+) ", err.getvalue())[1]) == package, err.getvalue()
    shutil.rmtree(folder.parent)


HUGE = b"[" * 400_000


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("keys.json", HUGE),
        ("keys.json", b"\xff"),
        ("keys.json", b"[]"),
        ("keys.json", b'{"a": 7}'),
        ("keys.json", b'{"0000000000000000": {"public_key": "' + b"00" * 32 + b'"}}'),
        ("frontier.json", b""),
        ("frontier.json", HUGE),
        ("frontier.json", b"[1]"),
        ("frontier.json", b'{"size": 3, "hashes": [], "chain_hash": "' + b"00" * 32 + b'"}'),
        ("frontier.json", b'{"size": -1, "hashes": [], "chain_hash": "' + b"00" * 32 + b'"}'),
        ("frontier.json", b'{"size": true, "hashes": ["' + b"00" * 32 + b'"], "chain_hash": "' + b"00" * 32 + b'"}'),
        ("frontier.json", b'{"size": 1, "hashes": ["zz"], "chain_hash": 7}'),
        ("frontier.json", b'{"size": 1, "hashes": ["' + b"AA" * 32 + b'"], "chain_hash": "' + b"00" * 32 + b'"}'),
    ],
)
def test_what_is_of_no_form_cannot_be_read(export, capsys, file, content):
    (export / file).write_bytes(content)
    assert by_package(export) == by_tool(export, capsys) == "unreadable"


def line_with(export, place, change):
    path = export / "events.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    lines[place - 1] = change(lines[place - 1])
    path.write_bytes(b"".join(lines))


def sealed(changes):
    def change(line):
        fields = json.loads(line) | changes
        return seal_fields(fields, KEYS[1]).record + b"\n"

    return change


@pytest.mark.parametrize(
    "change",
    [
        lambda _: b"\xff\xfe\n",
        lambda _: b"\n",
        lambda _: b"null\n",
        lambda _: b"NaN\n",
        lambda _: b"1e999\n",
        lambda _: b"9" * 5000 + b"\n",
        lambda _: HUGE + b"\n",
        lambda _: b"x" * 5_000_000 + b"\n",
        lambda _: b'"\\ud800"\n',
        lambda line: line[:-1] + b"\r\n",
        lambda line: b" " + line,
        lambda line: line.replace(b'"agent_id":', b'"agent_id":"","agent_id":'),
        sealed({"schema_version": 3}),
        sealed({"schema_version": True}),
        sealed({"schema_version": 1}),
        sealed({"sequence": 4}),
        sealed({"event_id": ""}),
        sealed({"event_type": "Nothing"}),
        sealed({"event_type": "trail.started"}),
        sealed({"event_type": "key.rotated", "details": {"public_key": "zz", "key_id": 7}}),
        sealed({"event_type": "signing.changed", "details": {"signing": ["event"]}}),
        sealed({"timestamp": "2026-02-30T00:00:00.000000000Z"}),
        sealed({"timestamp": "2026-01-01T00:00:00.000000000Z\n"}),
        sealed({"timestamp": "2025-12-31T00:00:00.000000000Z"}),
        sealed({"details": []}),
        sealed({"more": 1}),
        sealed({"details": json.loads('{"a":' * 63 + "1" + "}" * 63)}),
    ],
)
def test_an_event_of_no_form_is_named(export, capsys, change):
    line_with(export, 3, change)
    assert by_package(export) == by_tool(export, capsys) == 3


@pytest.mark.parametrize("note", [b"", b"\n\n", b"\xff", b"a\n1\n\n\n", "٣".encode(), HUGE, b"x" * 5_000_000])
def test_a_checkpoint_of_no_form_is_named(export, capsys, note):
    (export / "checkpoints" / note_name(12)).write_bytes(note)
    assert by_package(export) == by_tool(export, capsys) == 11  # events 11 and 12 have no signature of their own
    (export / "checkpoints" / note_name(6)).write_bytes(note)
    assert by_package(export) == by_tool(export, capsys) in {4, 5, 6}


def test_gaps_wrong_keys_and_missing_files_are_named(export, capsys, tmp_path):
    others = tmp_path / "others.json"
    others.write_bytes(keys_document({KEYS[0].key_id: KEYS[0].verifying_key()}))
    assert by_tool(export, capsys, "--keys", str(others)) == 1
    assert by_tool(export, capsys, "--keys", str(tmp_path / "none.json")) == "unreadable"
    assert by_tool(export, capsys, "--witness", str(tmp_path / "none.witness")) == "unreadable"
    assert by_tool(tmp_path / "nowhere", capsys) == "unreadable"
    (export / "checkpoints" / "seven.note").write_bytes(b"")
    assert by_package(export) == by_tool(export, capsys) == 1
    (export / "checkpoints" / "seven.note").unlink()
    (export / "events.jsonl").unlink()
    assert by_package(export) == by_tool(export, capsys) == 1


@pytest.mark.parametrize("cut", [b"", b"\n\n", b"a\n\nb", b"\xff\n\n\n\n"])
def test_a_witness_file_of_no_form_cannot_be_read(export, capsys, tmp_path, cut):
    file = tmp_path / "seen.witness"
    file.write_bytes(cut)
    assert by_tool(export, capsys, "--witness", str(file)) == "unreadable"
    head = (export / "checkpoints" / note_name(12)).read_bytes()
    file.write_bytes(head + b"\n" + head[:-20])
    assert by_tool(export, capsys, "--witness", str(file)) == "unreadable"
    for whole in (head, head + b"\n", (head + b"\n") * 2):
        file.write_bytes(whole)
        assert by_tool(export, capsys, "--witness", str(file)) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53 - 1), 2**53 - 1) | st.text() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)  # fmt: skip


@settings(max_examples=500)
@given(JSON)
def test_its_canonical_json_is_that_of_the_package(value):
    written = canonical_json(value)
    assert VERIFY_AUDIT.canonical(value).encode() == written
    assert VERIFY_AUDIT.canonical(json.loads(written)).encode() == written


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_its_numbers_are_those_of_the_package(value):
    assert VERIFY_AUDIT.number(value).encode() == canonical_json(value)


@given(st.text(min_size=1), st.text(), st.dictionaries(st.text(), JSON, max_size=3), st.booleans())
def test_the_body_is_cut_out_of_a_record_as_it_would_be_written(agent, run, details, signed):
    fields = {
        "schema_version": 2, "sequence": 7, "event_id": "e", "timestamp": "2026-01-01T00:00:00.000000000Z", "agent_id": agent,
        "run_id": run, "event_type": "run.started", "details": details, "previous_hash": "ab" * 32, "key_id": "cd" * 8,
    }  # fmt: skip
    stored = seal_fields(fields, KEYS[1] if signed else None)
    read = json.loads(stored.record)
    assert chain_hash_of(stored.record, read) == link(b"\xab" * 32, canonical_json(fields))
