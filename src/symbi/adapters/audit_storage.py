"""The audit storage: a folder, best on another disk or machine, that takes closed segments of the trail.

A segment is written beside its place under a name that begins with a dot, each file flushed, then the folder; then it
gets its name, and the folder above is flushed. So what has a segment's name is whole, and what a crash leaves behind is
thrown away by whoever writes the same segment again. Nothing is ever written over.
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from symbi.errors import Unavailable

EVENTS_NAME: Final = "events.jsonl"
READ_BYTES: Final = 1_048_576


def no_probe(_point: str) -> None:
    """The default of `probe`: nothing."""


class AuditStorage:
    """Keeps segments.

    Args:
        folder: Must be there: a disk that is not mounted must not look like an empty one.
        probe: Called at named points; tests crash the process there.
    """

    def __init__(self, folder: Path, *, probe: Callable[[str], None] = no_probe) -> None:
        self._folder = folder
        self._probe = probe

    def path(self, name: str) -> Path:
        """Where a segment is, or would be."""
        return self._folder / name

    def check(self) -> None:
        """Return if the storage is there and takes files.

        Raises:
            Unavailable: It does not.
        """
        with self._mapped("use"):
            beside = self._folder / f".check-{os.getpid()}"
            try:
                descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
                os.close(descriptor)
            finally:
                beside.unlink(missing_ok=True)

    def has(self, name: str) -> bool:
        """Whether a segment is there under its name; where it is, also after a crash of the machine.

        Raises:
            Unavailable: The storage is not there.
        """
        place = self._folder / name
        with self._mapped("use"):
            self._folder.stat()
            there = place.is_dir()
            if there:  # whoever gave it its name may have been killed before the folders were flushed
                for folder in (place.parent, self._folder):
                    _flush_folder(folder)
        return there

    def put(self, name: str, events: Iterable[bytes], files: Mapping[str, bytes]) -> str:
        """Write a segment; it is on the disk, whole and under its name, when this returns.

        Args:
            name: Where, with folders above it.
            events: Pieces of `events.jsonl`, in order.
            files: The other files, by their names.

        Returns:
            SHA-256 (hex) of `events.jsonl`.

        Raises:
            Unavailable: The storage is missing, read-only or full; nothing has the name.
        """
        place = self._folder / name
        beside = place.with_name(f".{place.name}.partial")
        with self._mapped("write to"):
            self._folder.stat()
            _make_folders(self._folder, place.parent)
            if beside.exists():
                shutil.rmtree(beside)
            beside.mkdir(mode=0o700)
            digest = hashlib.sha256()
            self._write(beside / EVENTS_NAME, _counted(events, digest.update))
            for file, data in files.items():
                (beside / file).parent.mkdir(mode=0o700, exist_ok=True)
                self._write(beside / file, (data,))
            for folder in {(beside / file).parent for file in files} | {beside}:
                _flush_folder(folder)
            self._probe("written")
            beside.rename(place)
            self._probe("renamed")
            _flush_folder(place.parent)
        return digest.hexdigest()

    def digest(self, name: str) -> str:
        """SHA-256 (hex) of a segment's `events.jsonl`, as it stands there.

        Raises:
            Unavailable: It cannot be read.
        """
        digest = hashlib.sha256()
        with self._mapped("read"), (self._folder / name / EVENTS_NAME).open("rb") as file:
            while part := file.read(READ_BYTES):
                digest.update(part)
        return digest.hexdigest()

    def _write(self, path: Path, parts: Iterable[bytes]) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            for part in parts:
                file.write(part)
            self._probe("writing")
            file.flush()
            os.fsync(file.fileno())

    @contextmanager
    def _mapped(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            msg = f"cannot {what} the audit storage `{self._folder}`: {error.strerror or error}"
            hint = "it must be there, writable, and have room; segments wait in the live store until it is"
            raise Unavailable(msg, code="unavailable.audit_storage", hint=hint) from error


def _counted(parts: Iterable[bytes], count: Callable[[bytes], object]) -> Iterator[bytes]:
    for part in parts:
        count(part)
        yield part


def _make_folders(above: Path, folder: Path) -> None:
    missing = [one for one in (folder, *folder.parents) if one.is_relative_to(above) and not one.exists()]
    for one in reversed(missing):
        one.mkdir(mode=0o700)
        _flush_folder(one.parent)


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
