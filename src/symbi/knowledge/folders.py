"""What lies in a folder to be read, and what of it is left alone and why. Links are followed nowhere.

A file is opened component by component below the folder, none of which may be a link, so that nothing that somebody puts
into the folder meanwhile leads out of it. Blocking; for a thread.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from symbi.errors import InputError

_OPEN: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FOLDER: Final = _OPEN | os.O_DIRECTORY
MAX_SKIPS: Final = 10_000  # that are told one by one


@dataclass(frozen=True, slots=True)
class Limits:
    """What is read at most.

    Attributes:
        file_bytes: Of one file.
        files: In a folder.
        depth: Folders within folders.
        own: Folders that are never read, by their real paths: there are keys in them.
    """

    file_bytes: int = 33_554_432
    files: int = 100_000
    depth: int = 32
    own: tuple[Path, ...] = ()


USUAL_LIMITS: Final = Limits()


@dataclass(frozen=True, slots=True)
class FileRef:
    """A file to be read.

    Attributes:
        source: What it is called from here on: the name of the folder and the path below it.
        path: Below the folder.
        size_bytes: Of it.
        modified_ns: When it was changed last.
    """

    source: str
    path: str
    size_bytes: int
    modified_ns: int


@dataclass(frozen=True, slots=True)
class Skip:
    """Something that was not read.

    Attributes:
        source: What.
        code: Why, for machines.
        reason: Why, for people.
    """

    source: str
    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class Listing:
    """A folder, or one file.

    Attributes:
        root: The folder.
        name: What its files' sources begin with.
        single: It is one file alone, so that nothing is known of others.
        files: By source.
        skips: What is left alone.
        whole: Every folder in it was listed, so that what is not among the files is gone.
        moved: It was read from another place before.
    """

    root: Path
    name: str
    single: bool
    files: tuple[FileRef, ...]
    skips: tuple[Skip, ...]
    whole: bool = True
    moved: bool = False

    @property
    def called(self) -> str:
        """What it is known by in its collection: its name, or the source of the one file."""
        return self.name or (self.files[0].source if self.files else "")


def list_files(path: Path, limits: Limits, name: str = "") -> Listing:
    """What there is to be read.

    Args:
        path: A folder, or a file.
        limits: What is read at most.
        name: What sources begin with; the folder's own name if empty.

    Raises:
        InputError: It is neither, is of Symbi's own data, cannot be read, or has too many files.
    """
    try:
        path = path.resolve(strict=True)
        if any(path.is_relative_to(one) for one in limits.own):
            raise InputError(f"`{path}` is of Symbi's own data, which is not read", code="knowledge.own")
        single = not path.is_dir()
        root = path.parent if single else path
        name = name or ("" if single else root.name)
        skips: list[Skip] = []
        failed: list[OSError] = []
        found = (
            [_ref(root, path.name, name, limits, skips)] if single else list(_walk(root, name, limits, skips, failed))
        )
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        msg = f"cannot read `{path}`: {reason}"
        raise InputError(msg, code="input.unreadable") from error
    for one in failed:
        _skip(skips, _called(name, _below(root, one)), "unreadable", f"it cannot be read: {one.strerror or one}")
    files = sorted((ref for ref in found if ref is not None), key=lambda ref: ref.source)
    return Listing(root, name, single, tuple(files), tuple(skips), not failed)


def _below(root: Path, error: OSError) -> str:
    """What of a folder an error is about."""
    name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else ""
    return os.path.relpath(name, root) if os.path.isabs(name) else name  # noqa: PTH117 - no path of this system


def _walk(root: Path, name: str, limits: Limits, skips: list[Skip], failed: list[OSError]) -> Iterator[FileRef | None]:
    count = 0
    for here, folders, files in os.walk(root, onerror=failed.append, followlinks=False):
        below = os.path.relpath(here, root)
        depth = 0 if below == "." else below.count(os.sep) + 1
        kept = []
        for folder in sorted(folders):
            relative = folder if below == "." else f"{below}/{folder}"
            reason = _why_not(folder, Path(here, folder).is_symlink(), depth + 1, limits)
            if reason is None and root / relative in limits.own:
                reason = "own", "Symbi keeps its own data in it"
            if reason is None:
                kept.append(folder)
            else:
                _skip(skips, _called(name, relative), *reason)
        folders[:] = kept
        for file in sorted(files):
            relative = file if below == "." else f"{below}/{file}"
            count += 1
            if count > limits.files:
                msg = f"`{root}` has more than {limits.files} files"
                raise InputError(msg, code="knowledge.too_many", hint="add its folders one by one")
            try:
                yield _ref(root, relative, name, limits, skips)
            except FileNotFoundError:
                continue  # it has gone since
            except OSError as error:
                failed.append(OSError(error.errno, error.strerror, str(root / relative)))


def _why_not(name: str, link: bool, depth: int, limits: Limits) -> tuple[str, str] | None:  # noqa: FBT001 - a fact, no switch
    if link:
        return "link", "it is a symbolic link"
    if name.startswith("."):
        return "hidden", "its name begins with a dot"
    if depth > limits.depth:
        return "depth", f"it lies deeper than {limits.depth} folders"
    return None


def _ref(root: Path, relative: str, name: str, limits: Limits, skips: list[Skip]) -> FileRef | None:
    source = _called(name, relative)
    try:
        relative.encode()
    except UnicodeEncodeError:
        _skip(skips, source, "name", "its name is no text")
        return None
    facts = os.lstat(root / relative)
    reason = _why_not(os.path.basename(relative), stat.S_ISLNK(facts.st_mode), 0, limits)  # noqa: PTH119 - no path of this system
    if reason is None and not stat.S_ISREG(facts.st_mode):
        reason = "kind", "it is neither a file nor a folder"
    if reason is None and facts.st_size > limits.file_bytes:
        reason = "too_large", f"it has {facts.st_size} bytes, and at most {limits.file_bytes} are read"
    if reason is not None:
        _skip(skips, source, *reason)
        return None
    return FileRef(source, relative, facts.st_size, facts.st_mtime_ns)


def _called(name: str, relative: str) -> str:
    shown = relative.replace(os.sep, "/").encode("utf-8", "replace").decode()
    return f"{name}/{shown}" if name else shown


def _skip(skips: list[Skip], source: str, code: str, reason: str) -> None:
    if len(skips) < MAX_SKIPS:
        skips.append(Skip(source, code, reason))


def read_below(root: Path, relative: str, limits: Limits) -> tuple[bytes, int]:
    """The bytes of a file below a folder, and when it was changed last.

    Raises:
        InputError: It is not there any more, is a link or lies behind one, or is too large.
    """
    descriptors = []
    try:
        descriptors.append(os.open(root, _FOLDER))
        *folders, last = relative.split("/")
        for folder in folders:
            if folder in {"", ".", ".."}:
                raise InputError("the path leads out of the folder", code="knowledge.traversal")
            descriptors.append(os.open(folder, _FOLDER, dir_fd=descriptors[-1]))
        if last in {"", ".", ".."}:
            raise InputError("the path leads out of the folder", code="knowledge.traversal")
        descriptors.append(os.open(last, _OPEN, dir_fd=descriptors[-1]))
        facts = os.fstat(descriptors[-1])
        if not stat.S_ISREG(facts.st_mode):
            raise InputError("it is no file", code="knowledge.kind")
        with os.fdopen(os.dup(descriptors[-1]), "rb") as file:
            data = file.read(limits.file_bytes + 1)
    except OSError as error:
        raise InputError(f"it cannot be read: {error.strerror or error}", code="knowledge.unreadable") from error
    finally:
        for descriptor in descriptors:
            with suppress(OSError):  # it is read, or it is not
                os.close(descriptor)
    if len(data) > limits.file_bytes:
        raise InputError(f"it has more than {limits.file_bytes} bytes", code="knowledge.too_large")
    return data, facts.st_mtime_ns
