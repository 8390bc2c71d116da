"""Files in which other MCP clients name tool servers, read within bounds."""

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MAX_FILE_BYTES: Final = 1_048_576
MAX_REGISTRY_FILES: Final = 256


@dataclass(frozen=True, slots=True)
class ServerFile:
    """A file as it was read.

    Attributes:
        path: Where it is.
        text: What is in it; empty where that cannot be taken.
        problem: Why it cannot.
    """

    path: Path
    text: str = ""
    problem: str = ""


def read_server_files(files: Sequence[Path], registry: Path) -> Iterator[ServerFile]:
    """The files that are there: those named, then those of the registry by name. What is not there is passed over."""
    yield from (_read(path) for path in files if os.path.lexists(path))
    try:
        names = sorted(path for path in registry.iterdir() if path.suffix == ".json")
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        yield ServerFile(registry, problem=f"cannot be read: {(error.strerror or '').lower()}")
        return
    for number, path in enumerate(names):
        if number == MAX_REGISTRY_FILES:
            yield ServerFile(registry, problem=f"holds more than {MAX_REGISTRY_FILES} files; the rest is left out")
            return
        yield _read(path)


def _read(path: Path) -> ServerFile:
    """A file of ours, or of root's: it would choose what we run."""
    try:
        # A pipe or a terminal in its place must not hold us up.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        with os.fdopen(descriptor, "rb") as stream:
            owner = os.fstat(stream.fileno())
            if not stat.S_ISREG(owner.st_mode):
                return ServerFile(path, problem="is no file")
            if owner.st_uid not in {os.geteuid(), 0}:
                return ServerFile(path, problem="belongs to another user")
            if owner.st_mode & 0o022:
                return ServerFile(path, problem="can be written by others")
            raw = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        return ServerFile(path, problem=f"cannot be read: {(error.strerror or '').lower()}")
    if len(raw) > MAX_FILE_BYTES:
        return ServerFile(path, problem=f"has more than {MAX_FILE_BYTES} bytes")
    try:
        return ServerFile(path, raw.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return ServerFile(path, problem="is not valid UTF-8")
