"""What takes long to build, in a folder: kept where one is named, so that it is built once and measured again."""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter_ns
from typing import Final

import msgspec

from symbi.bench.measure import Measurement
from symbi.errors import InputError

NOTES: Final = "built.json"
GIB: Final = 2**30


@dataclass(slots=True)
class Built:
    """How far it is, and how that was measured.

    Attributes:
        took_ns: Of what was put in so far.
        load: Processes that wanted a core meanwhile, the most that was seen: a minute's mean.
        rows: Of the building, once it is done.
    """

    took_ns: int = 0
    load: float = 0.0
    rows: list[Measurement] = field(default_factory=list)


class Kept:
    """A folder and its notes.

    Args:
        folder: Is there.
        kept: Whether it stays.
    """

    def __init__(self, folder: Path, *, kept: bool) -> None:
        self.folder = folder
        self.kept = kept
        self.built = self._read()

    def _read(self) -> Built:
        try:
            return msgspec.json.decode((self.folder / NOTES).read_bytes(), type=Built)
        except FileNotFoundError:
            return Built()
        except (OSError, msgspec.MsgspecError) as error:
            msg = f"`{self.folder}` is no folder of a measurement: {error}"
            raise InputError(msg, code="input.benchmark", hint="remove it, or name another") from error

    def note(self, begun_ns: int, load: float) -> int:
        """Add the time since `begun_ns`; returns the time of now."""
        now_ns = perf_counter_ns()
        self.built.took_ns += now_ns - begun_ns
        self.built.load = max(self.built.load, load)
        self._write()
        return now_ns

    def done(self, rows: Sequence[Measurement]) -> None:
        """It is built."""
        self.built.rows = list(rows)
        self._write()

    def _write(self) -> None:
        new = self.folder / f"{NOTES}.new"
        new.write_bytes(msgspec.json.encode(self.built))
        new.replace(self.folder / NOTES)


@contextmanager
def keep(where: Path | None, name: str, needs_bytes: int) -> Iterator[Kept]:
    """A folder of that name: below `where`, else one that goes when it is left.

    Args:
        where: Made if it is not there.
        name: Of what is built: another size is another name.
        needs_bytes: Disk that building takes at most.

    Raises:
        InputError: The folder is something else, or the disk has no room.
    """
    if where is None:
        with tempfile.TemporaryDirectory(prefix="symbi-bench-") as made:
            _require_room(Path(made), needs_bytes)
            yield Kept(Path(made), kept=False)
        return
    folder = where / name
    folder.mkdir(parents=True, exist_ok=True)
    kept = Kept(folder, kept=True)
    if not kept.built.rows:
        there = sum(one.stat().st_blocks * 512 for one in folder.rglob("*") if one.is_file())
        _require_room(folder, needs_bytes - there)
    yield kept


def _require_room(folder: Path, needs_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needs_bytes:
        msg = f"`{folder}` has {free / GIB:.1f} GiB, and the index takes {needs_bytes / GIB:.1f} GiB while it is built"
        raise InputError(msg, code="input.benchmark", hint="name a folder of a larger disk with --keep, or a --scale")
