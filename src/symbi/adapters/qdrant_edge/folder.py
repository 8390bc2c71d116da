"""Where the shard of one collection lies: a folder with a lock, what it is made of, and its generations.

space.json    which embedder made the vectors; of another one nothing goes in
lock          held by the one owner
current       name of the generation that counts
g-000007/     a shard; every other generation is what an end of the process left of a copy, and is removed
"""

import fcntl
import os
import re
import shutil
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Final

import msgspec

from symbi.errors import ConfigError, InputError, StoreUnavailable
from symbi.knowledge.vectors import VectorSpace

FORM: Final = 1
SPACE: Final = "space.json"
CURRENT: Final = "current"
LOCK: Final = "lock"
REWRITE: Final = "rewrite"
_GENERATION: Final = re.compile(r"g-(\d{6,})")


class CollectionFolder:
    """The folder of one collection.

    Args:
        path: Made with mode 0700 if it is not there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None

    def take(self, space: VectorSpace) -> bool:
        """Own it, as one process alone does; returns whether there is a shard.

        Raises:
            ConfigError: It is of vectors of another space.
            StoreUnavailable: Another process owns it, or it cannot be read or written.
        """
        try:
            return self._take(space)
        except OSError as error:
            self.give_back()
            raise StoreUnavailable(f"the folder of vectors `{self.path}` cannot be used: {error.strerror}") from error
        except BaseException:
            self.give_back()
            raise

    def _take(self, space: VectorSpace) -> bool:
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreUnavailable(f"another process has the vectors of `{self.path}`") from None
        if (self.path / SPACE).exists():
            check_space(self.path, space)
        else:
            write_space(self.path, space)
        self._tidy()
        return self.current() is not None

    def give_back(self) -> None:
        """Let go of it. Twice does nothing."""
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)

    def current(self) -> Path | None:
        """The generation that counts; None where there is none."""
        try:
            name = (self.path / CURRENT).read_text("utf-8").strip()
        except FileNotFoundError:
            return None
        found = self.path / name
        if not _GENERATION.fullmatch(name) or not found.is_dir():
            raise StoreUnavailable(f"the vectors of `{self.path}` are gone: there is no `{name}`")
        return found

    def next(self) -> Path:
        """A generation that is not there yet."""
        numbers = [int(found[1]) for one in self.path.iterdir() if (found := _GENERATION.fullmatch(one.name))]
        return self.path / f"g-{max(numbers, default=0) + 1:06}"

    def count_on(self, generation: Path) -> None:
        """From here on this one counts, whatever happens.

        Raises:
            StoreUnavailable: It cannot be written, and the one before counts.
        """
        try:
            write_whole(self.path / CURRENT, f"{generation.name}\n".encode())
        except OSError as error:
            raise StoreUnavailable(
                f"the folder of vectors `{self.path}` cannot be written: {error.strerror}"
            ) from error

    def tidy(self) -> None:
        """Remove every generation but the one that counts; what cannot be removed now goes at the next start."""
        with suppress(OSError):
            self._tidy()

    def mark(self) -> None:
        """Remember that all has to be written anew."""
        write_whole(self.path / REWRITE, b"")

    def unmark(self) -> None:
        """It has been."""
        (self.path / REWRITE).unlink(missing_ok=True)

    def is_marked(self) -> bool:
        """Whether all has to be written anew."""
        return (self.path / REWRITE).exists()

    def size_bytes(self) -> int:
        """What the generation that counts takes on the disk."""
        current = self.current()
        total = 0
        for one in current.rglob("*") if current is not None else ():
            with suppress(FileNotFoundError):  # the engine has just removed it
                total += one.stat().st_blocks * 512
        return total

    def _tidy(self) -> None:
        current = self.current()
        for one in self.path.iterdir():
            if _GENERATION.fullmatch(one.name) and one != current:
                shutil.rmtree(one)


def check_space(folder: Path, space: VectorSpace) -> None:
    """Refuse vectors of another model than those that are there.

    Raises:
        ConfigError: They are of another one, or of another form.
        InputError: The folder does not say which they are.
    """
    try:
        told = msgspec.json.decode((folder / SPACE).read_bytes(), type=dict[str, object])
        form, found = told.pop("form"), msgspec.convert(told, VectorSpace)
    except (OSError, KeyError, msgspec.MsgspecError) as error:
        raise InputError(f"`{folder}` does not say of which model its vectors are", code="vectors.space") from error
    if form != FORM:
        raise ConfigError(
            f"the vectors of `{folder}` have form {form}, and this release reads {FORM}", code="vectors.form"
        )
    if found != space:
        msg = f"the vectors of `{folder}` were made by {_told(found)}, and the configuration has {_told(space)}"
        hint = "name that embedder again, or move the folder away and add the documents anew"
        raise ConfigError(msg, code="vectors.embedder", hint=hint)


def write_space(folder: Path, space: VectorSpace) -> None:
    """Note of which model the vectors are."""
    write_whole(folder / SPACE, msgspec.json.encode({"form": FORM, **asdict(space)}))


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that it is there in whole or as before, also after the power has failed."""
    new = path.with_name(f"{path.name}.new")
    with new.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _told(space: VectorSpace) -> str:
    return f"`{space.embedder}` ({space.digest[:12]}, {space.dimension} dimensions, {space.distance})"
