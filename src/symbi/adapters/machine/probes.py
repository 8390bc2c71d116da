"""What this machine can do: the facts behind `symbi doctor`.

Every probe is bounded in time, changes nothing that stays, and ends in a finding, whatever it meets.
"""

import fcntl
import locale
import os
import platform
import shutil
import stat
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import keyring
import keyring.errors
import pydantic_monty

from symbi.adapters.machine.engine import NOTHING_WANTED, Wanted, probe_engine
from symbi.adapters.machine.finding import Finding, named
from symbi.clock import Clock, SystemClock, rfc3339
from symbi.errors import SandboxUnavailable
from symbi.sandbox.confinement import confined_program, confinement_here

MIN_PYTHON: Final = (3, 11)
MIN_FREE_BYTES: Final = 256 * 1024 * 1024  # below it a busy trail fills the disk within the hour
INTERPRETER_TIMEOUT_S: Final = 10.0  # start of the interpreter and its first answer
OLDEST_NOW_NS: Final = 1_735_689_600_000_000_000  # 2025-01-01: a clock before this was never set
LATEST_NOW_NS: Final = 4_102_444_800_000_000_000  # 2100-01-01

_UNFIT_KEYRINGS: Final = ("keyring.backends.fail", "keyring.backends.null", "keyrings.alt")
"""Modules of backends that keep nothing, or keep it where others can read it."""


def probe_machine(
    data_dir: Path,
    *,
    environ: Mapping[str, str] | None = None,
    clock: Clock | None = None,
    which: Callable[[str], str | None] = shutil.which,
    wanted: Wanted = NOTHING_WANTED,
) -> list[Finding]:
    """Look at everything that the runtime needs or could use.

    Args:
        data_dir: The data folder; it need not exist, and is not made.
        environ: Environment variables; the process's own if None.
        clock: The machine's if None.
        which: Finds a program on PATH.
        wanted: What the configuration says of containers.
    """
    environ = os.environ if environ is None else environ
    return [
        probe_python(sys.version_info[:3], platform.python_implementation()),
        probe_interpreter(),
        probe_disk(data_dir),
        probe_data_folder(data_dir),
        probe_clock(clock or SystemClock()),
        probe_keyring(),
        *probe_engine(environ, which, wanted),
        probe_terminal(environ),
    ]


@dataclass(frozen=True, slots=True)
class Capacity:
    """What this process may use of the machine.

    Attributes:
        memory_mib: Mebibytes.
        cpu_milli: Thousandths of a core.
    """

    memory_mib: int
    cpu_milli: int


def machine_capacity(cgroup: Path = Path("/sys/fs/cgroup")) -> Capacity:
    """Memory and processors of the machine, or what a container (cgroup v2) leaves of them.

    It is the pool's size where `limits.memory_mb` and `limits.cpu_cores` are unset.
    """
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cpu_milli = cores * 1000
    bound = _words(cgroup / "memory.max")
    if len(bound) == 1 and bound[0].isdigit():
        memory = min(memory, int(bound[0]))
    quota = _words(cgroup / "cpu.max")
    if len(quota) == 2 and all(word.isdigit() for word in quota) and int(quota[1]):  # noqa: PLR2004 - quota and period
        cpu_milli = min(cpu_milli, int(quota[0]) * 1000 // int(quota[1]))
    return Capacity(max(1, memory // 2**20), max(1, cpu_milli))


def _words(path: Path) -> list[str]:
    """What stands in a small file; nothing where it is not there, as outside of a container."""
    try:
        return path.read_text(encoding="ascii").split()
    except (OSError, UnicodeDecodeError):
        return []


def probe_python(version: tuple[int, ...], implementation: str) -> Finding:
    """The interpreter that runs us."""
    shown = f"{implementation} {'.'.join(map(str, version))}"
    if version < MIN_PYTHON:
        return Finding("python", ok=False, detail=shown, install_hint="install Python 3.11 or newer", required=True)
    return Finding("python", ok=True, detail=shown, required=True)


def probe_interpreter(pool: Callable[..., pydantic_monty.Monty] = pydantic_monty.Monty) -> Finding:
    """The sandbox for pure computation: it starts and counts."""
    hint = "install the package pydantic-monty again, with its runtime"
    program = Path(sysconfig.get_path("scripts")) / "monty"  # the one that is run later; MONTY_BIN is not asked
    try:
        with (
            confined_program(program) as start,
            pool(
                binary_path=start if program.is_file() else None,
                checkout_timeout=INTERPRETER_TIMEOUT_S,
                request_timeout=INTERPRETER_TIMEOUT_S,
            ) as workers,
            workers.checkout() as session,
        ):
            answer = session.feed_run("sum([n * n for n in range(10)])")
    except (pydantic_monty.MontyError, OSError, RuntimeError, TimeoutError, SandboxUnavailable) as error:
        return Finding("interpreter sandbox", ok=False, detail=named(error), install_hint=hint, required=True)
    if answer != 285:  # noqa: PLR2004 - the squares of 0 to 9
        return Finding("interpreter sandbox", ok=False, detail="it miscounts", install_hint=hint, required=True)
    version = pydantic_monty.__version__
    return Finding(
        "interpreter sandbox", ok=True, detail=f"pydantic-monty {version}; {confinement_here()}", required=True
    )


def probe_disk(data_dir: Path) -> Finding:
    """Space, and whether files under the data folder can be written, locked and made durable."""
    folder = _nearest(data_dir)
    try:
        free = shutil.disk_usage(folder).free
        with tempfile.TemporaryFile(dir=folder) as probe:
            fcntl.flock(probe, fcntl.LOCK_EX | fcntl.LOCK_NB)
            probe.write(b"symbi")
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        hint = "give the runtime a folder that it may write, on a local disk, with `runtime.data_dir`"
        return Finding("disk", ok=False, detail=f"`{folder}`: {named(error)}", install_hint=hint, required=True)
    detail = f"`{folder}`: {free // 2**20} MiB free, writes, locks and syncs"
    if free < MIN_FREE_BYTES:
        hint = f"free some space: {MIN_FREE_BYTES // 2**20} MiB at least"
        return Finding("disk", ok=False, detail=detail, install_hint=hint, required=True)
    return Finding("disk", ok=True, detail=detail, required=True)


def probe_data_folder(data_dir: Path) -> Finding:
    """Nobody else may read keys and secrets, or write anything, in the data folder."""
    name = "data folder"
    try:
        if not data_dir.exists():
            return Finding(name, ok=True, detail=f"`{data_dir}` is made at the first start, mode 0700", required=True)
        open_to_others = next(_open_to_others(data_dir), None)
    except OSError as error:
        hint = "make it readable to the account that runs the runtime"
        return Finding(name, ok=False, detail=f"`{data_dir}`: {named(error)}", install_hint=hint, required=True)
    if open_to_others is not None:
        path, why = open_to_others
        hint = f"chmod {'700' if path.is_dir() else '600'} `{path}`, owned by the account that runs the runtime"
        return Finding(name, ok=False, detail=f"`{path}` {why}", install_hint=hint, required=True)
    return Finding(name, ok=True, detail=f"`{data_dir}` and its keys are closed to others", required=True)


def probe_clock(clock: Clock) -> Finding:
    """The wall clock was set, and the monotonic one goes on."""
    now_ns, first_s = clock.now_ns(), clock.monotonic_s()
    second_s = clock.monotonic_s()
    if not OLDEST_NOW_NS <= now_ns <= LATEST_NOW_NS:
        detail = f"says {rfc3339(now_ns)[:10]}"
        return Finding("clock", ok=False, detail=detail, install_hint="set the clock, best by NTP", required=True)
    if second_s < first_s:
        detail = "the monotonic clock goes back"
        return Finding("clock", ok=False, detail=detail, install_hint="use another machine", required=True)
    return Finding("clock", ok=True, detail=f"{rfc3339(now_ns)[:19]}Z", required=True)


def probe_keyring() -> Finding:
    """A keyring of the system, for `keys.store` or `secrets.sources`."""
    hint = "only for `keyring` in the configuration: a desktop session, or a package such as gnome-keyring"
    try:
        backend = keyring.get_keyring()
    except (keyring.errors.KeyringError, OSError, RuntimeError) as error:
        return Finding("keyring", ok=False, detail=named(error), install_hint=hint)
    unusable = type(backend).__module__.startswith(_UNFIT_KEYRINGS)
    return Finding(
        "keyring",
        ok=not unusable,
        detail="none" if unusable else str(backend.name),
        install_hint=hint if unusable else "",
    )


def probe_terminal(environ: Mapping[str, str]) -> Finding:
    """Whether tables and signs can be shown."""
    encoding = (getattr(sys.stdout, "encoding", None) or locale.getpreferredencoding(do_setlocale=False)).lower()
    kind = "terminal" if sys.stdout is not None and sys.stdout.isatty() else "no terminal"
    detail = f"{kind}, {encoding}, TERM={environ.get('TERM', '')[:20] or 'unset'}"
    ok = encoding.replace("-", "").replace("_", "") == "utf8"
    hint = "" if ok else "set a UTF-8 locale, for example LC_ALL=C.UTF-8"
    return Finding("terminal", ok=ok, detail=detail, install_hint=hint)


def _open_to_others(data_dir: Path) -> Iterator[tuple[Path, str]]:
    """Paths that others may read or write, or that are another's, with what is wrong."""
    keys = data_dir / "keys"
    for path in (data_dir, keys, *(sorted(keys.iterdir()) if keys.is_dir() else ()), data_dir / "secrets.toml"):
        try:
            found = path.stat() if path == data_dir else path.lstat()
        except FileNotFoundError:
            continue
        if found.st_uid != os.geteuid():
            yield path, "belongs to another user"
        elif stat.S_ISLNK(found.st_mode):
            yield path, "is a link"
        elif found.st_mode & 0o077:
            yield path, f"is open to others (mode {stat.S_IMODE(found.st_mode):04o})"


def _nearest(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    return next((one for one in (folder, *folder.absolute().parents) if one.is_dir()), Path("/"))
