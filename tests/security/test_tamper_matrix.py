"""A log of 10,000 events, tampered with in every way that we know of: both verifiers find all of it and name the first bad event.

One verifier is the package's, the other is `tools/verify_audit.py`, which shares no code with it. Both get the trusted
keys from outside. Where a checkpoint alone can tell, the first event that nothing vouches for is named.
"""

import importlib.util
import json
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

import pytest

from symbi.audit.checkpoint import parse_note
from symbi.audit.export import keys_document, note_name, read_keys, read_witness, verify_folder
from symbi.audit.port import StoredEvent
from symbi.crypto.provider import open_provider
from symbi.errors import ChainBroken
from symbi.testing.trail import TrailBuilder, checkpoint_over, fixed_signing_key, sample_draft, seal_fields

ROOT = Path(__file__).parents[2]
EVENTS = 10_000
EVERY = 1_000  # events from one checkpoint to the next
PROVIDER = open_provider("libsodium")
KEY, THIEF = fixed_signing_key(1, PROVIDER), fixed_signing_key(9, PROVIDER)


def second_verifier():
    spec = importlib.util.spec_from_file_location("verify_audit", ROOT / "tools" / "verify_audit.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


VERIFY_AUDIT = second_verifier()


@dataclass
class Export:
    """An export in memory: lines without their ends, and notes by size."""

    signing: str
    lines: list[bytes] = field(default_factory=list)
    notes: dict[int, bytes] = field(default_factory=dict)

    def copy(self):
        return Export(self.signing, list(self.lines), dict(self.notes))

    def write(self, folder):
        (folder / "checkpoints").mkdir(parents=True)
        (folder / "events.jsonl").write_bytes(b"".join(line + b"\n" for line in self.lines))
        for size, note in self.notes.items():
            (folder / "checkpoints" / note_name(size)).write_bytes(note)
        (folder / "keys.json").write_bytes(keys_document({KEY.key_id: KEY.verifying_key()}))


def build(signing, start_ns=None):
    builder = TrailBuilder(KEY, signing=signing, **({} if start_ns is None else {"start_ns": start_ns}))
    export = Export(signing, [builder.start().record])
    while builder.size < EVENTS:
        export.lines.append(builder.add(sample_draft(builder.size)).record)
        if builder.size % EVERY == 0:
            export.notes[builder.size] = builder.checkpoint()
    return export


@pytest.fixture(scope="module", params=["event", "batch"])
def whole(request):
    return build(request.param)


@pytest.fixture(scope="module")
def witness(whole, tmp_path_factory):
    """What somebody else has seen: the head after each two thousand events."""
    file = tmp_path_factory.mktemp("witness") / "trail.witness"
    file.write_bytes(b"".join(whole.notes[size] + b"\n" for size in range(2 * EVERY, EVENTS + 1, 2 * EVERY)))
    return file


@pytest.fixture
def judge(tmp_path, capsys):
    """`judge(export, witness)`: which event both verifiers name; None if both say that all holds."""
    trusted = tmp_path / "trusted.json"
    trusted.write_bytes(keys_document({KEY.key_id: KEY.verifying_key()}))
    keys = read_keys(trusted.read_bytes(), PROVIDER)
    count = iter(range(1000))

    def judged(export, witness=None):
        folder = tmp_path / f"export-{next(count)}"
        export.write(folder)
        notes = read_witness(witness.read_bytes()) if witness else ()
        try:
            verify_folder(folder, keys, witness=notes)
            first = None
        except ChainBroken as broken:
            first = broken.fields["sequence"]
        arguments = [str(folder), "--keys", str(trusted), *(["--witness", str(witness)] if witness else [])]
        code = VERIFY_AUDIT.main(arguments)
        told = capsys.readouterr()
        assert (code, "verified" in told.out) == ((0, True) if first is None else (1, False)), told
        if first is not None:
            named = re.match(r"NOT VERIFIED: event (\d+) ", told.err)
            assert named is not None, told.err
            assert int(named[1]) == first, (first, told.err)
        return first

    return judged


def rebuilt(export, place, change, *, key=KEY, renamed=False, stop=EVENTS):
    """Some fields of one event changed, and all from there on linked, hashed and signed anew, the checkpoints too."""
    altered = export.copy()
    previous = json.loads(altered.lines[place - 2])["chain_hash"] if place > 1 else "0" * 64
    for number in range(place, stop + 1):
        fields = json.loads(altered.lines[number - 1]) | (change if number == place else {})
        fields |= {"previous_hash": previous} | ({"key_id": key.key_id} if renamed else {})
        sealed = seal_fields(fields, key if export.signing == "event" else None)
        altered.lines[number - 1], previous = sealed.record, sealed.chain_hash
    events = [StoredEvent(number, line, "") for number, line in enumerate(altered.lines, 1)]
    for size in altered.notes:
        if size >= place:
            altered.notes[size] = checkpoint_over(events[:size], key)
    return altered


def test_what_nobody_touched_verifies(whole, witness, judge):
    assert judge(whole, witness) is None


def test_flipped_bits(whole, judge):
    random = Random(whole.signing)
    for _ in range(8):
        place = random.randrange(1, 1200)
        altered = whole.copy()
        line = bytearray(altered.lines[place - 1])
        line[random.randrange(len(line))] ^= 1 << random.randrange(8)
        altered.lines[place - 1] = bytes(line)
        # A line feed put in makes two lines, of which the first is the bad one.
        assert judge(altered) == place


CHANGES = {
    "one deleted": (lambda lines: lines[:700] + lines[701:], 701),
    "many deleted": (lambda lines: lines[:700] + lines[1700:], 701),
    "one put in": (lambda lines: [*lines[:800], lines[5000], *lines[800:]], 801),
    "two swapped": (lambda lines: [*lines[:300], lines[900], *lines[301:900], lines[300], *lines[901:]], 301),
    "neighbours swapped": (lambda lines: [*lines[:600], lines[601], lines[600], *lines[602:]], 601),
    "one there twice": (lambda lines: [*lines[:900], lines[899], *lines[900:]], 901),
    "the head cut off": (lambda lines: lines[100:], 1),
    "the first deleted": (lambda lines: lines[1:], 1),
    "the tail cut off": (lambda lines: lines[:-50], EVENTS - 49),
    "the last deleted": (lambda lines: lines[:-1], EVENTS),
    "the last there twice": (lambda lines: [*lines, lines[-1]], EVENTS + 1),
    "all deleted": (lambda _: [], 1),
}  # fmt: skip


@pytest.mark.parametrize(("change", "expected"), CHANGES.values(), ids=CHANGES)
def test_lines_that_were_moved(whole, judge, change, expected):
    assert judge(replace(whole, lines=change(whole.lines))) == expected


def test_a_tail_that_was_cut_off_with_the_checkpoints_over_it(whole, witness, judge):
    """Rolled back: a true earlier state, which only a witness tells from the present one."""
    notes = {size: note for size, note in whole.notes.items() if size <= 3000}
    older = Export(whole.signing, whole.lines[:3000], notes)
    assert judge(older) is None
    assert judge(older, witness) == 3001


def test_a_file_that_was_replaced(whole, witness, judge):
    """The events of another trail by the same key: under these checkpoints, and under its own."""
    other = build(whole.signing, start_ns=1_767_225_600_000_000_777)
    found = judge(Export(whole.signing, other.lines, whole.notes))
    assert 1 <= found <= EVERY
    assert judge(Export(whole.signing, whole.lines[:500] + other.lines[500:], whole.notes)) == 501
    assert judge(other) is None
    assert 1 <= judge(other, witness) <= 2 * EVERY


def test_signed_anew_with_another_key(whole, judge):
    start = json.loads(whole.lines[0])["details"] | {"public_key": THIEF.verifying_key().hex}
    assert judge(rebuilt(whole, 1, {"details": start}, key=THIEF, renamed=True, stop=1500)) == 1
    assert judge(rebuilt(whole, 400, {"run_id": "x"}, key=THIEF, renamed=True, stop=1500)) == 400
    found = judge(rebuilt(whole, 400, {"run_id": "x"}, key=THIEF))
    # Without signatures of their own, events are vouched for by checkpoints: one of the first thousand is another.
    assert found == (400 if whole.signing == "event" else 1)


def test_the_clock_moved_back(whole, judge):
    earlier = json.loads(whole.lines[0])["timestamp"]
    assert judge(rebuilt(whole, 650, {"timestamp": earlier}, stop=1500)) == 650


def test_written_anew_by_the_holder_of_the_key(whole, witness, judge):
    """Every hash, signature and checkpoint is right: only what a witness has seen contradicts it."""
    altered = rebuilt(whole, 8_500, {"details": {"nothing": "happened"}})
    assert judge(altered) is None
    assert judge(altered, witness) == 8_001


def test_checkpoints_that_were_tampered_with(whole, judge):
    for size, note, expected in (
        (EVERY, b"", None),
        (EVERY, whole.notes[2 * EVERY], None),
        (EVERY, whole.notes[EVERY].replace(b"time 2026", b"time 2027"), None),
        (EVENTS, None, EVENTS - EVERY + 1),
    ):
        altered = whole.copy()
        if note is None:
            del altered.notes[size]
        else:
            altered.notes[size] = note
        since = EVERY if whole.signing == "event" else 1
        assert judge(altered) == (expected or since)


def test_the_notes_of_the_matrix_are_those_of_the_trail(whole):
    assert [parse_note(note).checkpoint.size for note in whole.notes.values()] == [*range(EVERY, EVENTS + 1, EVERY)]
