"""The mark beside the store: which trail the data folder holds, so that a store that was lost is never begun anew in silence.

It is written once the first event is durable, and holds the origin of the trail's checkpoints: no secret and no proof.
A folder with a mark and without its trail is refused; so is one whose store is that of another trail.
"""

import os
import re
from pathlib import Path
from typing import Final

from symbi.adapters.sqlite.file import DATABASE_NAME
from symbi.errors import StoreUnavailable

MARK_NAME: Final = "trail"

_MAX_BYTES: Final = 256
_ORIGIN: Final = re.compile(rb"symbi\.trail/[0-9a-f-]{36}", re.ASCII)
_HINT: Final = (
    "restore it from a copy; what was sealed in the audit storage can be verified there; for a new trail, name another"
    " folder with `runtime.data_dir`"
)


def origin_in(head: bytes) -> bytes | None:
    """The origin that a head names; None where it is none of this version."""
    line = head.split(b"\n", 1)[0]
    return line if _ORIGIN.fullmatch(line) else None


def read_mark(folder: Path) -> bytes | None:
    """The origin of the trail that a folder holds, or None where none was begun.

    Raises:
        StoreUnavailable: The mark cannot be read, or is none.
    """
    try:
        with (folder / MARK_NAME).open("rb") as file:
            found = file.read(_MAX_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        msg = f"cannot read `{folder / MARK_NAME}`: {error.strerror}"
        raise StoreUnavailable(msg) from error
    origin = found.removesuffix(b"\n")
    if not _ORIGIN.fullmatch(origin):
        msg = f"`{folder / MARK_NAME}` does not name a trail: it was damaged"
        raise StoreUnavailable(
            msg, code="unavailable.store_damaged", hint="verify the trail, then remove the file: it is made anew"
        )
    return origin


def refuse_lost(folder: Path, mark: bytes | None) -> None:
    """Return if the file of the store is there, or no trail was begun.

    Raises:
        StoreUnavailable: A trail was begun, and its file is gone or empty.
    """
    path = folder / DATABASE_NAME
    if mark is not None and not (path.is_file() and path.stat().st_size):
        raise lost(folder, mark)


def lost(folder: Path, mark: bytes) -> StoreUnavailable:
    """The error for a folder whose trail is gone."""
    msg = f"the store in `{folder}` is gone or empty, and it held the trail `{mark.decode()}`"
    return StoreUnavailable(msg, code="unavailable.store_lost", hint=_HINT)


def refuse_other(folder: Path, mark: bytes, head: bytes | None) -> None:
    """Return if a store holds the trail of its folder's mark.

    Raises:
        StoreUnavailable: It holds none, or another.
    """
    if head is None:
        raise lost(folder, mark)
    origin = origin_in(head)
    if origin is not None and origin != mark:
        msg = (
            f"the store in `{folder}` holds the trail `{origin.decode()}`, and the folder was that of `{mark.decode()}`"
        )
        raise StoreUnavailable(msg, code="unavailable.store_lost", hint=_HINT)


def write_mark(folder: Path, origin: bytes) -> None:
    """Write the mark, durably.

    Raises:
        OSError: It cannot be written; there is none, then.
    """
    path = folder / MARK_NAME
    fresh = path.with_suffix(".new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.write(descriptor, origin + b"\n")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    fresh.replace(path)
    flush_folder(folder)


def flush_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
