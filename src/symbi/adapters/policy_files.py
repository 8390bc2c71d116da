"""Policy files in folders: which there are, whether one has changed, and what stands in them.

A path of `policy.paths` is a folder, of which every `.cedar` and `.toml` file counts at any depth, or one file. Links to
files are followed, links to folders are not.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from symbi.errors import InputError
from symbi.runtime.policy_signing import MANIFEST_NAME
from symbi.runtime.port import Bundle, PolicyFile

MAX_FILE_BYTES: Final = 4_194_304  # one policy file
MAX_FILES: Final = 100_000  # of one path
SUFFIXES: Final = (".cedar", ".toml")
"""What can change what is decided, and so is read, watched and signed."""

T = TypeVar("T")

Stamp = tuple[str, int, int, int, int]


class PolicyFolders:
    """Reads the policy files below paths.

    Args:
        folder: What relative paths are seen from, and names shown from.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def look(self, paths: Sequence[str]) -> tuple[Stamp, ...]:
        """Name, inode, size, and the times of writing and of change of every file, manifests included."""
        return tuple(
            stamp
            for path in paths
            for file in _reaching(path, partial(self._looked_at, path))
            for stamp in self._stamp(file)
        )

    def read(self, paths: Sequence[str]) -> tuple[Bundle, ...]:
        """A bundle for each path, in order; an empty one where nothing is there."""
        return tuple(_reaching(path, partial(self._bundle, path)) for path in paths)

    def manifest_of(self, path: str) -> Path:
        """Where the signature of a path is."""
        found = self._folder / path
        return found.with_name(f"{found.name}.sig.json") if found.is_file() else found / MANIFEST_NAME

    def _bundle(self, path: str) -> Bundle:
        root = self._folder / path
        files = tuple(
            PolicyFile(
                name=file.name if file == root else file.relative_to(root).as_posix(),
                shown=os.path.relpath(file, self._folder),
                data=_read(file),
            )
            for file in self._files(path)
        )
        manifest = self.manifest_of(path)
        signed = _read(manifest) if manifest.exists() else None
        return Bundle(path, files, signed, absent=not root.exists())

    def _files(self, path: str) -> list[Path]:
        root = self._folder / path
        if root.is_file():
            return [root]
        found = sorted(_walk(root)) if root.is_dir() else []
        if len(found) > MAX_FILES:
            msg = f"`{path}` has {len(found)} policy files; at most {MAX_FILES} are allowed"
            raise InputError(msg, code="input.size")
        return found

    def _looked_at(self, path: str) -> tuple[Path, ...]:
        return *self._files(path), self.manifest_of(path)

    def _stamp(self, file: Path) -> Iterator[Stamp]:
        try:
            status = file.stat()
        except FileNotFoundError:
            return  # it went since it was listed, or there is no manifest: the next look compares with that
        except OSError as error:
            raise _unreadable(file, error) from error
        yield str(file), status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _reaching(path: str, work: Callable[[], T]) -> T:
    """What is found at a path; an error of the system on the way there is one of ours."""
    try:
        return work()
    except OSError as error:
        raise _unreadable(Path(path), error) from error


def _walk(root: Path) -> Iterator[Path]:
    def fail(error: OSError) -> None:
        raise _unreadable(Path(error.filename or root), error) from error

    for folder, _, names in os.walk(root, onerror=fail):
        for name in names:
            if name.endswith(SUFFIXES):
                yield Path(folder, name)


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            data = opened.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise _unreadable(file, error) from error
    if len(data) > MAX_FILE_BYTES:
        msg = f"`{file}` is larger than {MAX_FILE_BYTES} bytes"
        raise InputError(msg, code="input.size")
    return data


def _unreadable(file: Path, error: OSError) -> InputError:
    msg = f"cannot read `{file}`: {error.strerror or error}"
    return InputError(msg, code="input.unreadable")
