"""An export of the trail: a folder that an auditor can check with nothing else; docs/reference/audit-format.md is the contract.

```
events.jsonl                   one event a line, each the canonical JSON that was hashed
checkpoints/000000004096.note  signed notes by size; the last one is the head
keys.json                      the public keys that signed, by key id
frontier.json                  what stands before the first event, where that is not event 1
anchors/000000004096.tsr       RFC 3161 tokens, where there are any
```

A sealed segment is the same. Both are read and written in streams, so that their size does not matter.
"""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self

from symbi.audit.checkpoint import MAX_NOTE_BYTES, Note, parse_note
from symbi.audit.event import MAX_RECORD_BYTES, is_hash
from symbi.audit.port import StoredEvent
from symbi.audit.verify import BEGINNING, Run, Start, TrailReport, claims_of, in_process, verify_trail
from symbi.crypto.provider import CryptoProvider
from symbi.crypto.signing import VerifyingKey
from symbi.errors import ChainBroken, InputError
from symbi.types import KeyId

EVENTS_NAME: Final = "events.jsonl"
CHECKPOINTS_NAME: Final = "checkpoints"
KEYS_NAME: Final = "keys.json"
FRONTIER_NAME: Final = "frontier.json"
ANCHORS_NAME: Final = "anchors"
MAX_KEYS_BYTES: Final = 1_048_576  # of keys.json and frontier.json
MAX_WITNESS_BYTES: Final = 268_435_456  # some hundred thousand heads

_NOTE_NAME: Final = re.compile(r"([0-9]{12,16})\.note")


def keys_document(keys: Mapping[KeyId, VerifyingKey]) -> bytes:
    """`keys.json` for some public keys."""
    listed = {key_id: {"algorithm": "Ed25519", "public_key": key.hex} for key_id, key in keys.items()}
    return json.dumps(listed, indent=2, sort_keys=True).encode() + b"\n"


def read_keys(document: bytes, provider: CryptoProvider) -> dict[KeyId, VerifyingKey]:
    """The public keys of a `keys.json`, or of one written by hand.

    Raises:
        InputError: It is not of that form, or an id is not that of its key.
    """
    try:
        listed = json.loads(document)
        keys = {KeyId(name): VerifyingKey.from_hex(entry["public_key"], provider) for name, entry in listed.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        msg = f"`{KEYS_NAME}` is not a list of public keys: {error}"
        raise InputError(msg, code="input.keys") from error
    for name, key in keys.items():
        if key.key_id != name:
            msg = f"key `{name}` of `{KEYS_NAME}` has the id `{key.key_id}`"
            raise InputError(msg, code="input.keys")
    return keys


def frontier_document(start: Start) -> bytes:
    """`frontier.json`: what stands before the first event."""
    listed = {"size": start.size, "hashes": [one.hex() for one in start.hashes], "chain_hash": start.chain_hash}
    return json.dumps(listed).encode() + b"\n"


def read_frontier(document: bytes) -> Start:
    """What a `frontier.json` says; only a checkpoint after it shows whether it is so.

    Raises:
        InputError: It is not of that form.
    """
    try:
        fields = json.loads(document)
        size, hashes, chain_hash = fields["size"], fields["hashes"], fields["chain_hash"]
        good = len(fields) == 3 and type(size) is int and size > 0 and is_hash(chain_hash)  # noqa: PLR2004 - those three
        good = good and isinstance(hashes, list) and all(map(is_hash, hashes)) and len(hashes) == size.bit_count()
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        msg = f"`{FRONTIER_NAME}` is not of its form: {error}"
        raise InputError(msg, code="input.frontier") from error
    if not good:
        msg = f"`{FRONTIER_NAME}` is not of its form: a size, its hashes and a chain hash"
        raise InputError(msg, code="input.frontier")
    return Start(size, tuple(map(bytes.fromhex, hashes)), chain_hash)


def read_witness(data: bytes) -> list[Note]:
    """What a witness has seen: its file of notes, each followed by an empty line, or one note alone.

    Raises:
        InputError: It is not of that form.
    """
    parts = (data if data.endswith(b"\n\n") else data + b"\n").split(b"\n\n")
    if parts.pop() or len(parts) % 2 or not parts:
        msg = "the witness file is cut off, or is not signed notes that are each followed by an empty line"
        raise InputError(msg, code="input.witness")
    notes = []
    for number, pair in enumerate(zip(parts[::2], parts[1::2], strict=True), 1):
        try:
            notes.append(parse_note(b"%b\n\n%b\n" % pair))
        except ChainBroken as error:
            msg = f"note {number} of the witness file: {error.message}"
            raise InputError(msg, code="input.witness") from error
    return notes


def note_name(size: int) -> str:
    """The name of a checkpoint's file."""
    return f"{size:012}.note"


def read_events(lines: Iterable[bytes], first: int = 1) -> Iterator[bytes]:
    """The records of an `events.jsonl`, to be verified.

    Raises:
        ChainBroken: A line is cut off.
    """
    for number, line in enumerate(lines, first):
        if not line.endswith(b"\n") and len(line) <= MAX_RECORD_BYTES:
            msg = f"event {number} is cut off"
            raise ChainBroken(msg, sequence=number, reason="canonical")
        yield line.removesuffix(b"\n")


@dataclass(frozen=True, slots=True)
class Notes:
    """The checkpoints of a folder.

    Attributes:
        folder: Where they are.
        sizes: By which they are named, ascending.
    """

    folder: Path
    sizes: tuple[int, ...]

    def read(self, size: int) -> bytes:
        """One of them; of one that is too large, enough to see that."""
        return read_bounded(self.folder / note_name(size), MAX_NOTE_BYTES)

    def kept(self, upto: int | None = None) -> Iterator[tuple[int, bytes]]:
        """All of them, or all but some at the end."""
        for size in self.sizes[:upto]:
            yield size, self.read(size)


def list_notes(folder: Path) -> Notes:
    """The checkpoints of an export.

    Raises:
        ChainBroken: Something else is among them.
    """
    place = folder / CHECKPOINTS_NAME
    if not place.is_dir():
        return Notes(place, ())
    sizes = []
    for path in place.iterdir():
        found = _NOTE_NAME.fullmatch(path.name)
        if path.name.startswith("."):
            continue  # what a file manager leaves behind
        if found is None or path.name != note_name(int(found[1])):
            msg = f"`{path.name}` is no checkpoint: they are named by the event, in twelve digits"
            raise ChainBroken(msg, sequence=1, reason="checkpoint")
        sizes.append(int(found[1]))
    return Notes(place, tuple(sorted(sizes)))


def verify_folder(
    folder: Path,
    keys: Mapping[KeyId, VerifyingKey],
    *,
    start: Start | None = None,
    witness: Sequence[Note] = (),
    run: Run = in_process,
    track: Callable[[Iterable[bytes]], Iterable[bytes]] = iter,
) -> TrailReport:
    """Verify an export or a segment.

    Args:
        folder: Where it is.
        keys: The trusted keys.
        start: What must stand before it, as the report of the one before says; else the folder is asked.
        witness: What a witness has seen.
        run: Where pieces are checked.
        track: Sees the events pass.

    Raises:
        ChainBroken: As of `symbi.audit.verify.verify_trail`.
        InputError: The folder cannot be read, or a file is not of its form.
    """
    with _mapped(folder):
        found = BEGINNING
        if (folder / FRONTIER_NAME).exists():
            found = read_frontier(read_bounded(folder / FRONTIER_NAME, MAX_KEYS_BYTES))
        if start is not None:
            if (found.size, found.hashes, found.chain_hash) != (start.size, start.hashes, start.chain_hash):
                msg = f"`{folder}` begins after event {found.size}, and does not continue what ends with event {start.size}"
                raise ChainBroken(msg, sequence=start.size + 1, reason="link")
            found = start
        notes = list_notes(folder)
        head, kept = _head_of(notes)
        with open_events(folder) as lines:
            events = track(read_events(lines, found.size + 1))
            claims = claims_of(kept, witness)
            return verify_trail(events, head, keys, start=found, claims=claims, run=run)


def _head_of(notes: Notes) -> tuple[bytes | None, Iterator[tuple[int, bytes]]]:
    """The head, and the other checkpoints; a last one that is of no form or under a wrong name is none, and is judged where it is."""
    if not notes.sizes:
        return None, iter(())
    head = notes.read(notes.sizes[-1])
    try:
        good = parse_note(head).checkpoint.size == notes.sizes[-1]
    except ChainBroken:
        good = False
    return (head, notes.kept(-1)) if good else (b"", notes.kept())


@contextmanager
def open_events(folder: Path) -> Iterator[Iterator[bytes]]:
    """The lines of an export, each in bounded memory; none where the file is missing, which is for the verifier to say."""
    path = folder / EVENTS_NAME
    if not path.exists():
        yield iter(())
        return
    with path.open("rb") as file:
        yield iter(partial(file.readline, MAX_RECORD_BYTES + 2), b"")


def read_bounded(path: Path, limit: int) -> bytes:
    """A small file; of one that is too large to be right, enough to see that."""
    with path.open("rb") as file:
        return file.read(limit + 2)


@contextmanager
def _mapped(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        msg = f"cannot read the export `{folder}`: {error.strerror or error}"
        raise InputError(msg, code="input.export") from error


class ExportWriter:
    """Writes an export beside its place; it gets its name when it is whole, or nothing is left of it.

    Args:
        folder: Where it is to be; must not exist.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._beside = folder.with_name(f".{folder.name}.partial")
        self._events: BinaryIO | None = None

    def __enter__(self) -> Self:
        """Begin.

        Raises:
            InputError: The folder exists, or cannot be made.
        """
        hint = "name a folder that does not exist yet"
        if self._folder.exists():
            msg = f"cannot make `{self._folder}`: File exists"
            raise InputError(msg, code="input.export", hint=hint)
        try:
            (self._beside / CHECKPOINTS_NAME).mkdir(parents=True)
            self._events = (self._beside / EVENTS_NAME).open("wb")
        except OSError as error:
            msg = f"cannot make `{self._folder}`: {error.strerror or error}"
            raise InputError(msg, code="input.export", hint=hint) from error
        return self

    def copy(self, events: Iterable[StoredEvent]) -> Iterator[StoredEvent]:
        """The events, each written as it passes.

        Raises:
            InputError: They cannot be written.
        """
        assert self._events is not None
        for event in events:
            with self._writing():
                self._events.write(event.record + b"\n")
            yield event

    def finish(self, notes: Iterable[tuple[int, bytes]], keys: Mapping[KeyId, VerifyingKey], start: Start) -> None:
        """Write the other files, flush all to the disk, and give the folder its name.

        Raises:
            InputError: They cannot be written.
        """
        assert self._events is not None
        with self._writing():
            _flush(self._events)
            self._events.close()
            for size, note in notes:
                self._write(Path(CHECKPOINTS_NAME) / note_name(size), note)
            self._write(Path(KEYS_NAME), keys_document(keys))
            if start.size:
                self._write(Path(FRONTIER_NAME), frontier_document(start))
            _flush_folder(self._beside / CHECKPOINTS_NAME)
            _flush_folder(self._beside)
            self._beside.rename(self._folder)
            _flush_folder(self._folder.parent)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._events is not None:
            with suppress(OSError):  # what a full disk did not take is thrown away with the rest
                self._events.close()
        shutil.rmtree(self._beside, ignore_errors=True)  # there is none once it has its name

    def _write(self, name: Path, data: bytes) -> None:
        with (self._beside / name).open("wb") as file:
            file.write(data)
            _flush(file)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            msg = f"cannot write in `{self._folder}`: {error.strerror or error}"
            raise InputError(msg, code="input.unwritable") from error


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
