"""A skill folder on disk: its files and their hashes. Links, devices and sockets are refused; nothing outside is read."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from symbi.errors import InputError
from symbi.tools.schemapin.skills import MAX_FILES, MAX_SIGNATURE_BYTES, SIGNATURE_FILE, file_hash

MAX_FILE_BYTES: Final = 67_108_864
MAX_DEPTH: Final = 32


def read_skill_folder(folder: Path) -> tuple[dict[str, str], bytes | None]:
    """Hash by path of every file in a folder, and its signature file, if there is one.

    Raises:
        InputError: It is no folder, cannot be read, or holds what is neither file nor folder, or too much.
    """
    signature: bytes | None = None
    hashes: dict[str, str] = {}
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise _refused(str(folder), error.strerror or str(error)) from error
    try:
        for path, content in _files(descriptor, "", 0):
            if path == SIGNATURE_FILE:
                signature = content
                continue
            hashes[path] = file_hash(path, content)
            if len(hashes) > MAX_FILES:
                raise _refused(str(folder), f"it has more than {MAX_FILES} files")
    finally:
        os.close(descriptor)
    return hashes, signature


def write_skill_signature(folder: Path, content: bytes) -> Path:
    """Put a signature file into a folder, in place of one that is there; never through a link.

    Raises:
        InputError: It cannot be written.
    """
    path, beside = folder / SIGNATURE_FILE, folder / f"{SIGNATURE_FILE}.new"
    if os.path.lexists(beside):
        msg = f"cannot write `{path}`: `{beside.name}` is there, of a signing that goes on or was broken off"
        raise InputError(msg, code="input.unwritable", hint="where none goes on, remove it; it is no part of the skill")
    try:
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644), "wb") as file:
            file.write(content)
        beside.replace(path)
    except OSError as error:
        msg = f"cannot write `{path}`: {error.strerror or error}"
        raise InputError(msg, code="input.unwritable") from error
    return path


def _files(folder: int, above: str, depth: int) -> Iterator[tuple[str, bytes]]:
    """Path and content of each file, by open folders, so that nothing can be exchanged for a link on the way."""
    if depth > MAX_DEPTH:
        raise _refused(above, f"it is nested deeper than {MAX_DEPTH} folders")
    for name in sorted(_names(folder, above)):
        path = f"{above}{name}"
        try:
            opened = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        except OSError as error:
            raise _refused(path, "it is a link, or cannot be read") from error
        try:
            mode = os.fstat(opened).st_mode
            if stat.S_ISDIR(mode):
                yield from _files(opened, f"{path}/", depth + 1)
            elif stat.S_ISREG(mode):
                yield path, _content(opened, path)
            else:
                raise _refused(path, "it is neither file nor folder")
        finally:
            os.close(opened)


def _names(folder: int, above: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError as error:
        raise _refused(above, error.strerror or str(error)) from error


def _content(opened: int, path: str) -> bytes:
    most = MAX_SIGNATURE_BYTES if path == SIGNATURE_FILE else MAX_FILE_BYTES
    with os.fdopen(os.dup(opened), "rb") as file:
        try:
            content = file.read(most + 1)
        except OSError as error:
            raise _refused(path, error.strerror or str(error)) from error
    if len(content) > most:
        raise _refused(path, f"it is larger than {most} bytes")
    return content


def _refused(path: str, why: str) -> InputError:
    shown = path.encode("utf-8", "replace").decode()
    return InputError(f"`{shown}` cannot be part of a skill: {why}", code="tool.skill")
