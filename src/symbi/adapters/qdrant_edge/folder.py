"""Where the shard of one collection lies: a folder with a lock, what it is made of, and its generations.

space.json    which embedder made the vectors; of another one nothing goes in
lock          held by the one owner
current       name of the generation that counts
making        the first generation is being made: until it counts there is no `current`
rewrite       something was erased, and all has to be written anew
clean         nothing was deleted or replaced since all was written anew; without it, the files may hold what was
dead          how many points were deleted or replaced since it was put in order, as of the last close
g-000007/     a shard; every other generation is what an end of the process left of a copy, and is removed
"""

import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Final

import msgspec

from symbi.adapters.qdrant_edge.copying import copy_tree, disk_bytes
from symbi.errors import ConfigError, InputError, StoreUnavailable
from symbi.knowledge.vectors import VectorSpace

FORM: Final = 1
SPACE: Final = "space.json"
CURRENT: Final = "current"
LOCK: Final = "lock"
MAKING: Final = "making"
REWRITE: Final = "rewrite"
CLEAN: Final = "clean"
DEAD: Final = "dead"
_GENERATION: Final = re.compile(r"g-\d{6,}")
_PARTS: Final = (
    "edge_config.json",
    "segments",
    "wal",
)  # the engine makes those anew that are gone, with nothing in them
_AGAIN: Final = "`symbi kb verify --repair` and `symbi memory verify --repair` make the vectors anew"
_AWAY: Final = f"move that folder away; {_AGAIN}"


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
            StoreUnavailable: Another process owns it, it is damaged, or it cannot be read or written.
        """
        try:
            with self._used():
                return self._take(space)
        except InputError as error:
            self.give_back()
            if isinstance(error, ConfigError):
                raise
            raise StoreUnavailable(f"the vectors are damaged: {error.message}", hint=_AWAY) from error
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
        current, generations = self.current(), self._generations()
        if current is not None or generations or (self.path / SPACE).exists():
            check_space(self.path, space)
        else:
            write_space(self.path, space)
        if current is None:
            self._refuse_lost()
        else:
            (self.path / MAKING).unlink(missing_ok=True)
        self._tidy()
        return current is not None

    def give_back(self) -> None:
        """Let go of it. Twice does nothing."""
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)

    def current(self) -> Path | None:
        """The generation that counts; None where there is none.

        Raises:
            StoreUnavailable: It is damaged, or cannot be read.
        """
        found = self._named()
        if found is None:
            return None
        name = found.name
        if not all((found / one).exists() for one in _PARTS):
            msg = f"the vectors of `{self.path}` are damaged: `{name}` is not whole"
            raise StoreUnavailable(msg, hint=_AWAY)
        return found

    def _named(self) -> Path | None:
        with self._used():
            try:
                name = (self.path / CURRENT).read_text("utf-8", "replace").strip()
            except FileNotFoundError:
                return None
        if not _GENERATION.fullmatch(name):
            msg = f"the vectors of `{self.path}` are damaged: `{CURRENT}` does not say which of them count"
            raise StoreUnavailable(msg, hint=_AWAY)
        return self.path / name

    def next(self) -> Path:
        """A generation that is not there yet.

        Raises:
            StoreUnavailable: The folder cannot be read.
        """
        with self._used():
            numbers = [int(one.name.removeprefix("g-")) for one in self._generations()]
        return self.path / f"g-{max(numbers, default=0) + 1:06}"

    def begin(self) -> Path:
        """The first generation, which is to be made and then counted on.

        Raises:
            StoreUnavailable: The folder cannot be written, or it has one already, and lost the word of it.
        """
        with self._used():
            self._refuse_lost()
            _note(self.path / MAKING)
            _note(self.path / CLEAN)
        return self.next()

    def count_on(self, generation: Path) -> None:
        """From here on this one counts, whatever happens.

        Raises:
            StoreUnavailable: It cannot be written, and the one before counts.
        """
        with self._used():
            write_whole(self.path / CURRENT, f"{generation.name}\n".encode())
        with suppress(OSError):
            (self.path / MAKING).unlink(missing_ok=True)

    def tidy(self) -> None:
        """Remove every generation but the one that counts; what cannot be removed now goes at the next start."""
        with suppress(OSError, StoreUnavailable):
            self._tidy()

    def wipe(self) -> None:
        """As `tidy`, where it matters that nothing stays.

        Raises:
            StoreUnavailable: Something cannot be removed.
        """
        with self._used():
            self._tidy()

    def mark(self) -> None:
        """Remember that all has to be written anew.

        Raises:
            StoreUnavailable: It cannot be written.
        """
        with self._used():
            _note(self.path / REWRITE)

    def unmark(self) -> None:
        """It has been.

        Raises:
            StoreUnavailable: It cannot be written.
        """
        with self._used():
            (self.path / REWRITE).unlink(missing_ok=True)

    def is_marked(self) -> bool:
        """Whether all has to be written anew."""
        return (self.path / REWRITE).exists()

    def keep_left(self) -> None:
        """Remember that the files may hold what is deleted or replaced.

        Raises:
            StoreUnavailable: That cannot be written.
        """
        with self._used():
            if not self.has_left():
                (self.path / CLEAN).unlink(missing_ok=True)
                _sync(self.path)

    def none_left(self) -> None:
        """They do not, for all was written anew.

        Raises:
            StoreUnavailable: It cannot be written.
        """
        with self._used():
            _note(self.path / CLEAN)

    def has_left(self) -> bool:
        """Whether the files may hold what is deleted or replaced."""
        return not (self.path / CLEAN).exists()

    def holds_gone(self) -> bool:
        """Whether something that went may be in the files: also what went otherwise may have been about somebody."""
        return (self.path / CURRENT).exists() and (self.is_marked() or self.has_left())

    def dead(self) -> int:
        """How many points were dead when it was closed last; 0 where nothing says it, for it only tells when to tidy."""
        try:
            return max(0, int((self.path / DEAD).read_text("ascii")))
        except (OSError, ValueError):
            return 0

    def keep_dead(self, count: int) -> None:
        """Keep how many are dead; what cannot be kept is forgotten."""
        with suppress(OSError):
            (self.path / DEAD).write_text(f"{count}\n", "ascii")

    def size_bytes(self) -> int:
        """What the generation that counts takes on the disk; where another takes its place meanwhile, what that one takes.

        Raises:
            StoreUnavailable: It is damaged, or cannot be read.
        """
        while True:
            named = self._named()
            try:
                with self._used():
                    current = self.current()
                    size = 0 if current is None else disk_bytes(current)
            except StoreUnavailable:
                if self._named() == named:
                    raise
            else:
                if self._named() == current:
                    return size

    def _tidy(self) -> None:
        current = self.current()
        for one in self._generations():
            if one != current:
                shutil.rmtree(one)

    def _refuse_lost(self) -> None:
        if self._generations() and not (self.path / MAKING).exists():
            msg = f"the vectors of `{self.path}` are damaged: `{CURRENT}`, which says which of them count, is gone"
            raise StoreUnavailable(msg, hint=_AWAY)

    def _generations(self) -> list[Path]:
        return [one for one in self.path.iterdir() if _GENERATION.fullmatch(one.name)]

    @contextmanager
    def _used(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreUnavailable(f"the folder of vectors `{self.path}` cannot be used: {error.strerror}") from error


def check_space(folder: Path, space: VectorSpace) -> int | None:
    """Refuse vectors of another model than those that are there.

    Returns:
        How many there are, where the folder says it: that of a copy does.

    Raises:
        ConfigError: They are of another one, or of another form.
        InputError: The folder does not say which they are.
    """
    try:
        told = msgspec.json.decode((folder / SPACE).read_bytes(), type=dict[str, object])
        form, points = told.pop("form"), msgspec.convert(told.pop("points", None), int | None)
        found = msgspec.convert(told, VectorSpace)
    except (OSError, KeyError, msgspec.MsgspecError) as error:
        raise InputError(f"`{folder}` does not say of which model its vectors are", code="vectors.space") from error
    if form != FORM:
        raise ConfigError(
            f"the vectors of `{folder}` have form {form}, and this release reads {FORM}", code="vectors.form"
        )
    if found != space:
        msg = f"the vectors of `{folder}` were made by {_told(found)}, and the configuration has {_told(space)}"
        hint = f"name that embedder again, or {_AWAY}"
        raise ConfigError(msg, code="vectors.embedder", hint=hint)
    return points


def write_space(folder: Path, space: VectorSpace, points: int | None = None) -> None:
    """Note of which model the vectors are, and of a copy, how many."""
    counted = {} if points is None else {"points": points}
    write_whole(folder / SPACE, msgspec.json.encode({"form": FORM, **asdict(space), **counted}))


def copy_whole(source: Path, target: Path, space: VectorSpace, points: int) -> None:
    """Write a copy of a shard that says what it is; a part of one is removed again.

    Raises:
        InputError: Something is there already.
        StoreUnavailable: It cannot be written.
    """
    try:
        target.mkdir(mode=0o700, parents=True)
    except FileExistsError:
        raise InputError(f"there is something at `{target}` already", code="vectors.snapshot") from None
    except OSError as error:
        raise StoreUnavailable(f"the vectors cannot be copied to `{target}`: {error.strerror}") from error
    try:
        copy_tree(source, target / "shard")
        write_space(target, space, points)
    except OSError as error:
        raise StoreUnavailable(f"the vectors cannot be copied to `{target}`: {error.strerror}") from error
    finally:
        if not (target / SPACE).exists():
            shutil.rmtree(target, ignore_errors=True)


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that it is there in whole or as before, also after the power has failed."""
    new = path.with_name(f"{path.name}.new")
    with new.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    _sync(path.parent)


def _note(path: Path) -> None:
    """Have a file there that has nothing in it; several may do so at once."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    _sync(path.parent)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _told(space: VectorSpace) -> str:
    return f"`{space.embedder}` ({space.digest[:12]}, {space.dimension} dimensions, {space.distance})"
