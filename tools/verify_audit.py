"""Verify an exported audit trail: `python verify_audit.py FOLDER [--witness FILE] [--keys FILE]`.

This file is all there is: the standard library, `cryptography` for Ed25519, and nothing of Symbi. The format is
docs/reference/audit-format.md; numbers and names of the steps are the ones there. Exit code 0 only if everything holds,
1 if something does not (the first bad event is named), 2 if something cannot be read.
"""

import argparse
import base64
import hashlib
import json
import math
import re
import sys
from datetime import datetime
from decimal import Decimal
from io import BytesIO
from pathlib import Path
from typing import Any, NoReturn

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

MAX_RECORD, MAX_NOTE, MAX_KEYS, MAX_WITNESS = 1_048_576, 65_536, 1_048_576, 268_435_456  # bytes
MAX_DEPTH, MAX_INTEGER = 64, 2**53 - 1
HASH, WITNESS = "[0-9a-f]{64}", "what a witness has seen"
TIME = r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{9}Z"
TEXTS = {
    "event_id": ".+", "timestamp": TIME, "agent_id": ".+", "run_id": ".*", "event_type": r"[a-z_]+\.[a-z_]+",
    "previous_hash": HASH, "key_id": "[0-9a-f]{16}", "chain_hash": HASH, "signature": "([0-9a-f]{128})?",
}  # fmt: skip


class Bad(Exception):
    """The trail does not hold."""


class Unreadable(Exception):
    """A file is missing, or is not of its form at all."""


def bad(event: int, what: str) -> NoReturn:
    raise Bad(f"event {event} {what}")


def number(value: float) -> str:
    """A number as ECMAScript writes it (RFC 8785, 3.2.2.3), from the shortest digits that are read back as the same."""
    if not math.isfinite(value):
        raise ValueError("a number that is not finite")
    sign, figures, exponent = Decimal(repr(value)).as_tuple()
    point = len(figures) + int(exponent)  # value = 0.FIGURES * 10**point
    digits = "".join(map(str, figures)).rstrip("0")
    if not digits:
        return "0"
    if -6 < point <= 0:
        text = f"0.{'0' * -point}{digits}"
    elif 0 < point <= 21:
        text = digits[:point].ljust(point, "0") + (f".{digits[point:]}" if len(digits) > point else "")
    else:
        text = f"{digits[0]}{'.' + digits[1:] if digits[1:] else ''}e{point - 1:+d}"
    return "-" * sign + text


def canonical(value: Any, depth: int = 0) -> str:
    """The canonical form of a value (RFC 8785)."""
    if isinstance(value, dict | list) and depth >= MAX_DEPTH:
        raise ValueError("it is nested too deep")
    if isinstance(value, dict):
        ordered = sorted(value.items(), key=lambda item: item[0].encode("utf-16-be"))
        return "{" + ",".join(f"{canonical(k)}:{canonical(v, depth + 1)}" for k, v in ordered) + "}"
    if isinstance(value, list):
        return "[" + ",".join(canonical(v, depth + 1) for v in value) + "]"
    if value is None or isinstance(value, str | bool):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, int) and abs(value) <= MAX_INTEGER:
        return str(value)
    return number(float(value))


def sha256(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def key_id(public: bytes) -> str:
    return sha256(public).hex()[:16]


def signed_by(public: bytes, signature: bytes, message: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def grow(frontier: list[bytes], size: int, leaf: bytes) -> None:
    """Append a leaf to a tree of some size, which is kept as the roots of its complete subtrees."""
    while size & 1:
        leaf, size = sha256(b"\x01", frontier.pop(), leaf), size >> 1
    frontier.append(leaf)


def root_of(frontier: list[bytes]) -> bytes:
    root = frontier[-1]
    for left in frontier[-2::-1]:
        root = sha256(b"\x01", left, root)
    return root


def is_time(value: str) -> bool:
    try:
        return re.fullmatch(TIME, value) is not None and bool(datetime.fromisoformat(value[:19]))
    except ValueError:
        return False


class Note:
    """A checkpoint: its text, fields and signature lines. ValueError unless it is what the format says, to the byte."""

    def __init__(self, data: bytes) -> None:
        text, _, lines = data.decode().partition("\n\n")
        self.origin, size, root, chain, time = text.split("\n")
        self.size, self.root = int(size), base64.b64decode(root, validate=True)
        self.chain_hash, self.time = chain.removeprefix("chain "), time.removeprefix("time ")
        split = [line.split(" ") for line in lines.split("\n")[:-1]]
        self.signatures = [(name, base64.b64decode(encoded, validate=True)) for _, name, encoded in split]
        self.text = f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\nchain {self.chain_hash}\ntime {self.time}\n"
        again = [f"\u2014 {name} {base64.b64encode(blob).decode()}\n" for name, blob in self.signatures]
        named = all(re.fullmatch(r"[^\s+\x00-\x1f]+", name) for name in (self.origin, *dict(self.signatures)))
        whole = len(data) <= MAX_NOTE and f"{self.text}\n{''.join(again)}".encode() == data
        formed = self.size > 0 and len(self.root) == 32 and re.fullmatch(HASH, self.chain_hash) and is_time(self.time)
        if not (named and whole and formed) or not 0 < len(again) <= 64 or any(len(b) < 5 for _, b in self.signatures):
            raise ValueError("it is not of the form of a signed note")

    def is_signed_by(self, public: bytes) -> bool:
        """Whether the trail's own line is there, and each that says it is by this key verifies."""
        own = sha256(f"{self.origin}\n".encode(), b"\x01", public)[:4]
        found = [blob[4:] for name, blob in self.signatures if name == self.origin and blob[:4] == own]
        return bool(found) and all(signed_by(public, signature, self.text.encode()) for signature in found)


def read_note(data: bytes) -> Note | None:
    try:
        return Note(data)
    except ValueError:  # also what is not UTF-8 and what is not base64
        return None


def read(path: Path, limit: int) -> bytes:
    """A file; of one that is larger than it may be, enough to see that."""
    with path.open("rb") as file:
        return file.read(limit + 1)


def read_keys(path: Path) -> dict[str, bytes]:
    try:
        keys = {name: bytes.fromhex(entry["public_key"]) for name, entry in json.loads(read(path, MAX_KEYS)).items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Unreadable(f"{path} is not a list of public keys: {error}") from error
    if any(len(public) != 32 or key_id(public) != name for name, public in keys.items()):
        raise Unreadable(f"{path} has a key under an id that is not its own")
    return keys


def read_frontier(path: Path) -> tuple[int, list[bytes], str]:
    """What stands before the first event: how many, the frontier of their tree, and the last chain hash."""
    try:
        fields = json.loads(read(path, MAX_KEYS))
        size, chain_hash, hashes = fields["size"], fields["chain_hash"], list(fields["hashes"])
        good = type(size) is int and size > 0 and len(hashes) == size.bit_count() and len(fields) == 3
        if not (good and all(re.fullmatch(HASH, one) for one in (chain_hash, *hashes))):
            raise ValueError("it is not of its form")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Unreadable(f"{path} is not a frontier: {error}") from error
    return size, [bytes.fromhex(one) for one in hashes], chain_hash


def read_witness(path: Path) -> dict[int, list[Note]]:
    data = read(path, MAX_WITNESS)
    parts = (data if data.endswith(b"\n\n") else data + b"\n").split(b"\n\n")
    if len(data) > MAX_WITNESS or parts.pop() or not parts or len(parts) % 2:
        raise Unreadable(f"{path} is too large, cut off, or not notes that are each followed by an empty line")
    notes: dict[int, list[Note]] = {}
    for text, lines in zip(parts[::2], parts[1::2], strict=True):
        if (note := read_note(text + b"\n\n" + lines + b"\n")) is None:
            raise Unreadable(f"{path} has something that is no signed note")
        notes.setdefault(note.size, []).append(note)
    return notes


class Trail:
    """One walk through the events."""

    def __init__(self, keys: dict[str, bytes], size: int = 0, frontier: Any = (), chain_hash: str = "0" * 64) -> None:
        self.trusted, self.size, self.frontier, self.chain_hash = keys, size, list(frontier), chain_hash
        self.key = b""  # in force at the last event
        self.next_key = b""  # in force for the next one; empty where any trusted key may begin
        self.signing = ""  # "event" or "batch"; empty where the walk begins later, and nobody can tell
        self.time, self.version, self.origin = "", 1, ""
        self.key_ids: dict[str, None] = {}
        self.first, self.unsigned = size + 1, 0  # the first event; the first that no signature vouches for yet
        self.fitting, self.witnessed = 0, 0  # how many checkpoints fitted; up to where a witness has seen the same

    def step(self, line: bytes) -> None:
        """Steps 1 to 7 for the next event."""
        place, record = self.size + 1, line[:-1]
        event = self.parse(place, line)
        kind, details = event["event_type"], event["details"]
        if event["sequence"] != place:  # 2
            bad(place, f"is missing: event {event['sequence']} stands in its place")
        if event["schema_version"] < self.version:
            bad(place, "is of an older schema than the event before it")
        if (kind == "trail.started") is not (place == 1):  # 3
            bad(place, f"is `{kind}`, and a trail starts once, with its first event")
        if place == 1:
            self.start(event)
        if event["previous_hash"] != self.chain_hash:  # 4
            bad(place, "does not follow the event before it")
        body = canonical({k: v for k, v in event.items() if k not in {"chain_hash", "signature"}}).encode()
        chain_hash = sha256(b"symbi/chain/1\0", bytes.fromhex(self.chain_hash), body)
        if event["chain_hash"] != chain_hash.hex():  # 5
            bad(place, "was altered: its hash is of something else")
        key = self.next_key or self.trusted.get(event["key_id"], b"")
        if not key or key_id(key) != event["key_id"]:  # 6
            bad(place, f"names key {event['key_id']}, which is not trusted or not in force")
        signature = bytes.fromhex(event["signature"])
        if signature and not signed_by(key, signature, b"symbi/sign/1\0\x0baudit.event" + chain_hash):
            bad(place, "has a wrong signature")
        if not signature and (self.signing == "event" or kind == "key.rotated"):
            bad(place, "has no signature")
        if event["timestamp"] < self.time:  # 7
            bad(place, "is dated before the event before it")
        grow(self.frontier, self.size, sha256(b"\0", record))
        self.size, self.chain_hash, self.time = place, event["chain_hash"], event["timestamp"]
        self.version, self.key, self.next_key = event["schema_version"], key, key
        self.unsigned = self.unsigned or (0 if signature else place)
        self.key_ids[event["key_id"]] = None
        if kind == "key.rotated":
            public = details.get("public_key")
            self.next_key = bytes.fromhex(public) if isinstance(public, str) and re.fullmatch(HASH, public) else key
            if self.next_key == key or key_id(self.next_key) != details.get("key_id"):
                bad(place, "does not name a new key and its id")
        elif kind == "signing.changed":
            if details.get("signing") not in ("event", "batch") or details["signing"] == self.signing:
                bad(place, "does not name another signing mode")
            self.signing = details["signing"]

    def parse(self, place: int, line: bytes) -> dict[str, Any]:
        """Step 1."""
        if not line.endswith(b"\n") or len(line) > MAX_RECORD + 1:
            bad(place, "is cut off or too long")
        try:
            event = json.loads(line[:-1].decode())
            same = canonical(event).encode() == line[:-1]
        except (ValueError, RecursionError, OverflowError) as error:
            bad(place, f"is not canonical JSON: {error}")
        if not same:
            bad(place, "is not in the canonical form of JSON")
        if not isinstance(event, dict) or event.keys() != {*TEXTS, "schema_version", "sequence", "details"}:
            bad(place, "has not the fields of an event")
        for name, form in TEXTS.items():
            if not isinstance(event[name], str) or not re.fullmatch(form, event[name], re.DOTALL):
                bad(place, f"has `{name}` in another form")
        if type(event["schema_version"]) is not int or event["schema_version"] not in {1, 2}:
            bad(place, "is of a schema that is unknown here")
        if type(event["sequence"]) is not int or type(event["details"]) is not dict or not is_time(event["timestamp"]):
            bad(place, "has its number, time or details in another form")
        return event

    def start(self, event: dict[str, Any]) -> None:
        """Step 3 for event 1."""
        details, public = event["details"], self.trusted.get(event["key_id"])
        self.signing = details.get("signing", "event" if event["schema_version"] == 1 else None)
        if canonical(details.get("format")) != str(event["schema_version"]) or self.signing not in ("event", "batch"):
            bad(1, "does not say its format, or how events are signed")
        if public is not None and details.get("public_key") != public.hex():
            bad(1, "says that the trail was started with another key than the one that signed it")
        self.origin = f"symbi.trail/{event['event_id']}"

    def hold(self, note: Note | None, name: str) -> None:
        """Steps 8 and 9: a checkpoint of this size, held against what was computed."""
        since = max(self.first, self.witnessed + 1) if name == WITNESS else self.unsigned or self.size
        if note is None or note.size != self.size or note.origin != (self.origin or note.origin):
            bad(since, f"is not vouched for: {name} at event {self.size} is of no form, another event or another trail")
        self.origin = note.origin
        if not note.is_signed_by(self.key):
            bad(since, f"is not vouched for: {name} at event {self.size} is not signed by the key in force")
        if (note.root, note.chain_hash, note.time) != (root_of(self.frontier), self.chain_hash, self.time):
            bad(since, f"or one after it up to event {self.size} is another: {name} does not fit")
        if name == WITNESS:
            self.witnessed = self.size
        else:
            self.unsigned, self.fitting = 0, self.fitting + 1


def verify(folder: Path, keys: dict[str, bytes], witness: dict[int, list[Note]]) -> Trail:
    later = (folder / "frontier.json").exists()
    trail = Trail(keys, *(read_frontier(folder / "frontier.json") if later else ()))
    first, paths = trail.size + 1, [path for path in folder.glob("checkpoints/*") if not path.name.startswith(".")]
    odd = [path.name for path in paths if not re.fullmatch(r"([0-9]{12}|[1-9][0-9]{12,15})\.note", path.name)]
    notes = {} if odd else {int(path.stem): path for path in paths}
    if odd or min(notes, default=first) < first:
        bad(first, f"is the first, and {odd or min(notes)} among the checkpoints does not belong to the events")
    head, events = max(notes, default=0), folder / "events.jsonl"
    with events.open("rb") if events.exists() else BytesIO() as file:
        while line := file.readline(MAX_RECORD + 2):
            if head and head == trail.size:
                bad(trail.size + 1, f"is too much: the head says that the trail ends with event {head}")
            trail.step(line)
            if trail.size in notes:
                note = read_note(read(notes[trail.size], MAX_NOTE))
                trail.hold(note, "the head" if trail.size == head else "the checkpoint")
            for seen in witness.get(trail.size, ()):
                trail.hold(seen, WITNESS)
    if trail.size < first:
        bad(first, "is missing: there are no events")
    head_note = read_note(read(notes[head], MAX_NOTE)) if head else None
    if head_note is None or head_note.size != head:
        bad(trail.unsigned or trail.size, "is not vouched for: the head, which tells the end, is missing or of no form")
    if head > trail.size:
        bad(trail.size + 1, f"is missing: the head says that the trail ends with event {head}")
    if max(witness, default=0) > trail.size:
        bad(trail.size + 1, f"is missing: a witness has seen event {max(witness)}")
    return trail


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Verify an exported audit trail of Symbi.")
    parser.add_argument("folder", type=Path, help="an export, or a sealed segment")
    parser.add_argument("--witness", type=Path, help="what a witness has seen: a file of signed notes")
    parser.add_argument("--keys", type=Path, help="trusted public keys, known from elsewhere; else those of the export")
    asked = parser.parse_args(arguments)
    try:
        if not asked.folder.is_dir():
            raise Unreadable(f"{asked.folder} is not a folder")
        keys = read_keys(asked.keys or asked.folder / "keys.json")
        trail = verify(asked.folder, keys, read_witness(asked.witness) if asked.witness else {})
    except (Bad, Unreadable, OSError) as error:
        print(f"NOT VERIFIED: {error}", file=sys.stderr)
        return 1 if isinstance(error, Bad) else 2
    seen = f", seen by a witness up to event {trail.witnessed}" if asked.witness else ""
    span = f"{trail.first} to {trail.size}" + (f" (1 to {trail.first - 1} are not here)" if trail.first > 1 else "")
    own = "\n  the keys are those of the export itself: compare their ids with those you know, or give --keys"
    print(f"verified: events {span}{seen}; {trail.fitting} checkpoints; keys {', '.join(trail.key_ids)}")
    print(f"  root {root_of(trail.frontier).hex()}, chain hash {trail.chain_hash}{'' if asked.keys else own}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
