"""A root file system with the Python of this machine and nothing else, for an image that needs no registry.

It holds an interpreter, its standard library, the shared libraries that they load, and the programs that were asked
for. There is no package manager, no shell unless it is asked for, no set-user-id file, and no user but two.
"""

import io
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Final

from symbi.errors import InputError

LIST_TIMEOUT_S: Final = 30.0  # what the loader may take to say which libraries a program needs
LEFT_OUT: Final = frozenset(
    {"__pycache__", "ensurepip", "idlelib", "lib2to3", "site-packages", "dist-packages", "test", "tests", "tkinter", "turtledemo"}
)  # fmt: skip
FOLDER_MODE: Final = 0o755
FILE_MODE: Final = 0o644
PROGRAM_MODE: Final = 0o755

_TEXTS: Final = {
    "etc/passwd": "root:x:0:0:root:/:/none\nnobody:x:65534:65534:nobody:/tmp:/none\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}
_FOLDERS: Final = ("dev", "proc", "sys", "tmp", "inputs", "outputs", "run", "usr/bin", "bin")


def write_root(target: IO[bytes], programs: Sequence[Path] = ()) -> None:
    """Write the file system as a tar archive; the same machine gives the same bytes.

    Args:
        target: Where to.
        programs: Further programs, with the libraries that they load; they stand in `/bin`.

    Raises:
        InputError: This is no Linux, or a file that is needed is not there.
    """
    if not sys.platform.startswith("linux"):
        msg = "an image can be made of the Python of a Linux machine only"
        raise InputError(msg, code="sandbox.image", hint="name an image by its digest, e.g. of `python:3.12-slim`")
    python = Path(sys.executable).resolve()
    library = Path(sysconfig.get_path("stdlib")).resolve()
    files = {"usr/bin/python3": python}
    files |= {str(path).lstrip("/"): path for path in _library(library)}
    loaded = [python, *(path for path in files.values() if path.suffix == ".so")]
    for program in programs:
        found = program.resolve()
        if not found.is_file():
            msg = f"there is no program `{program}`"
            raise InputError(msg, code="sandbox.image")
        files[f"bin/{program.name}"] = found
        loaded.append(found)
    for shared in _needed(loaded):
        files[str(shared).lstrip("/")] = shared.resolve()
    # Python looks for its library beside the program that it was started as, so it has to be found from there too.
    home = library.parent.parent
    _write(
        target, files, links={f"usr/{library.parent.name}/{library.name}": str(library)}, at_home=str(home) == "/usr"
    )


def _library(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if not LEFT_OUT.isdisjoint(inside.parts) or any(part.startswith("config-") for part in inside.parts):
            continue
        if path.is_file() and path.suffix not in {".a", ".pyc"}:
            yield path


def _needed(programs: Iterable[Path]) -> list[Path]:
    """The shared libraries that programs load, and the loader, as the loader itself says.

    Raises:
        InputError: It does not say.
    """
    try:
        said = subprocess.run(  # noqa: S603 - programs of this machine, which the operator names
            ["ldd", *map(str, programs)],  # noqa: S607 - the loader's own tool, wherever it is
            capture_output=True, text=True, check=False, timeout=LIST_TIMEOUT_S,
        ).stdout  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        msg = f"cannot ask which libraries Python needs: {error}"
        raise InputError(msg, code="sandbox.image", hint="install the program `ldd`") from error
    found: set[Path] = set()
    for line in said.splitlines():
        if line.endswith(":"):  # the name of the program that the next lines are about
            continue
        name = line.partition("=>")[2] or line
        path = name.split("(")[0].strip()
        if path.startswith("/"):
            found.add(Path(path))
    return sorted(found)


def _write(target: IO[bytes], files: dict[str, Path], *, links: dict[str, str], at_home: bool) -> None:
    folders = {*_FOLDERS, "etc"}
    for name in (*files, *(() if at_home else links)):
        folders.update(str(parent) for parent in PurePosixPath(name).parents if str(parent) != ".")
    folders.update(str(p) for one in _FOLDERS for p in PurePosixPath(one).parents if str(p) != ".")
    with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in sorted(folders):
            archive.addfile(_entry(name, 0o1777 if name == "tmp" else FOLDER_MODE, tarfile.DIRTYPE))
        for name, text in _TEXTS.items():
            entry = _entry(name, FILE_MODE)
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
        for name, path in sorted(files.items()):
            entry = _entry(name, PROGRAM_MODE if path.stat().st_mode & 0o111 else FILE_MODE)
            entry.size = path.stat().st_size
            with path.open("rb") as content:
                archive.addfile(entry, content)
        for name, to in () if at_home else links.items():
            entry = _entry(name, 0o777, tarfile.SYMTYPE)
            entry.linkname = to
            archive.addfile(entry)


def _entry(name: str, mode: int, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.mode, entry.type = mode, kind
    return entry
