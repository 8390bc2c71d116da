"""Every byte of every file under some folders, for searches: in bounded memory, and never through a link."""

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

CHUNK_BYTES: Final = 1_048_576  # read at a time


def folder_files(folders: Iterable[tuple[str, Path]]) -> Iterator[tuple[str, Iterator[bytes]]]:
    """The files under folders, each with its bytes.

    Args:
        folders: What comes before the names of each folder's files, and the folder. One that is not there has none.

    Yields:
        A name, and the bytes: of a link where it leads to, of a folder that cannot be listed an iterator that raises.
        Sockets, pipes and devices have none and are left out.
    """
    for prefix, folder in folders:
        yield from _under(prefix, folder)


def _under(prefix: str, folder: Path) -> Iterator[tuple[str, Iterator[bytes]]]:
    try:
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
    except FileNotFoundError:
        return
    except OSError as error:
        yield prefix or ".", _raising(error)
        return
    for entry in entries:
        name = f"{prefix}{entry.name}"
        if entry.is_symlink():
            yield name, _link(entry.path)
        elif entry.is_dir(follow_symlinks=False):
            yield f"{name}/", iter(())  # its name may tell of somebody too
            yield from _under(f"{name}/", Path(entry.path))
        elif entry.is_file(follow_symlinks=False):
            yield name, _bytes(entry.path)


def _bytes(path: str) -> Iterator[bytes]:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            while chunk := os.read(descriptor, CHUNK_BYTES):
                yield chunk
    finally:
        os.close(descriptor)


def _link(path: str) -> Iterator[bytes]:
    yield os.fsencode(os.readlink(path))  # noqa: PTH115 - as it stands there, in bytes


def _raising(error: OSError) -> Iterator[bytes]:
    return map(_raise, (error,))


def _raise(error: OSError) -> bytes:
    raise error
