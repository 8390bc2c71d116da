"""How the files of a shard are copied: with their holes, for the engine makes files much larger than what is in them."""

import errno
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Final

from symbi.errors import StoreUnavailable

CHUNK: Final = 1024 * 1024
SPARE: Final = 64 * 1024 * 1024  # bytes of a disk that a copy leaves for what is written meanwhile


def copy_tree(source: Path, target: Path) -> None:
    """Copy a shard; what was copied of it goes again where that fails.

    Raises:
        StoreUnavailable: It cannot be read or written, or there is no room for it.
    """
    try:
        require_room(source, target.parent)
        shutil.copytree(source, target, copy_function=copy_file)
    except OSError as error:
        shutil.rmtree(target, ignore_errors=True)
        first = error.args[0][0][2] if isinstance(error, shutil.Error) else error.strerror  # it has one for each file
        raise StoreUnavailable(f"the vectors cannot be copied to `{target}`: {first}") from error


def require_room(source: Path, folder: Path) -> None:
    """Refuse to fill a disk with a copy: an engine that finds none for what it writes is ended by the system.

    Raises:
        StoreUnavailable: There is no room.
        OSError: Nothing says how much there is.
    """
    wanted, free = disk_bytes(source) + SPARE, shutil.disk_usage(folder).free
    if wanted > free:
        mib = 1024 * 1024
        msg = (
            f"no room for a copy of the vectors in `{folder}`: it takes {wanted // mib} MiB, and {free // mib} are free"
        )
        raise StoreUnavailable(msg)


def room_to_rewrite(source: Path) -> None:
    """Refuse to write a shard anew beside itself where there is no room.

    Raises:
        StoreUnavailable: There is none, or nothing says how much there is.
    """
    try:
        require_room(source, source.parent)
    except OSError as error:
        raise StoreUnavailable(f"the vectors of `{source}` cannot be written anew: {error.strerror}") from error


def disk_bytes(folder: Path) -> int:
    """What the files of a folder take on the disk, which may be less than their sizes.

    The engine writes while this counts: what it has just removed, files and folders, takes nothing.

    Raises:
        OSError: A folder cannot be read.
    """
    total = 0
    for place, _, names in os.walk(folder, onerror=_unless_gone):
        for name in names:
            with suppress(FileNotFoundError):
                total += (Path(place) / name).lstat().st_blocks * 512
    return total


def _unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


def copy_file(source: str, target: str) -> str:
    """Copy what is in a file, and leave out what is not.

    Raises:
        OSError: It cannot be read or written.
    """
    reading = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        writing = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            size = os.fstat(reading).st_size
            for begin, end in _filled(reading, size):
                _copy_part(reading, writing, begin, end)
            os.ftruncate(writing, size)
        finally:
            os.close(writing)
    finally:
        os.close(reading)
    return target


def _filled(file: int, size: int) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    at = 0
    while at < size:
        try:
            begin = os.lseek(file, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # from here on there is nothing
                break
            raise
        at = os.lseek(file, begin, os.SEEK_HOLE)
        found.append((begin, at))
    return found


def _copy_part(reading: int, writing: int, begin: int, end: int) -> None:
    while begin < end:
        piece = os.pread(reading, min(CHUNK, end - begin), begin)
        if not piece:
            return
        begin += os.pwrite(writing, piece, begin)
