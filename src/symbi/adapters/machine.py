"""What this machine can do: the facts behind `symbi doctor`.

Every probe is bounded in time, changes nothing that stays, and ends in a finding, whatever it meets.
"""

import fcntl
import locale
import os
import platform
import shutil
import stat
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from errno import ETIMEDOUT
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from io import BytesIO
from json import loads
from pathlib import Path
from socket import AF_INET, AF_INET6, AF_UNIX, SOCK_STREAM, socket
from typing import Final
from urllib.parse import quote, urlsplit

import keyring
import keyring.errors
import pydantic_monty

from symbi.clock import Clock, SystemClock, rfc3339
from symbi.errors import SandboxUnavailable
from symbi.sandbox.confinement import confined_program, confinement_here

MIN_PYTHON: Final = (3, 11)
MIN_FREE_BYTES: Final = 256 * 1024 * 1024  # below it a busy trail fills the disk within the hour
ENGINE_TIMEOUT_S: Final = 2.0  # one question to the container engine
INTERPRETER_TIMEOUT_S: Final = 10.0  # start of the interpreter and its first answer
MAX_ANSWER_BYTES: Final = 4_194_304  # what is read of an answer of the engine
ENGINE_PORT: Final = 2375  # of an engine without TLS, where DOCKER_HOST names none
DEFAULT_ENGINE: Final = "unix:///var/run/docker.sock"
OLDEST_NOW_NS: Final = 1_735_689_600_000_000_000  # 2025-01-01: a clock before this was never set
LATEST_NOW_NS: Final = 4_102_444_800_000_000_000  # 2100-01-01

_UNFIT_KEYRINGS: Final = ("keyring.backends.fail", "keyring.backends.null", "keyrings.alt")
"""Modules of backends that keep nothing, or keep it where others can read it."""

GVISOR_GAPS: Final = "write bandwidth is not bounded in it, and its own kernel takes part of the memory"
VERSION_TIMEOUT_S: Final = 5.0  # what a program may take to say its version

_MAKE_IMAGE: Final = (
    "make one with `symbi sandbox image`, and name it in `sandbox.image` or, for `run(…)` alone, in `sandbox.images`"
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One fact.

    Attributes:
        name: What was looked at.
        ok: It is there and works.
        detail: What was found, one line.
        install_hint: What to do to have it; empty where nothing is missing.
        required: The runtime cannot do without it.
    """

    name: str
    ok: bool
    detail: str
    install_hint: str = ""
    required: bool = False


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the configuration says of containers.

    Attributes:
        host: Address of the engine; None for that of the environment.
        image: What code runs in; None where none is configured.
        runtimes: The engine's runtimes for tier 1 and tier 2.
        images: What programs may run in besides.
    """

    host: str | None = None
    image: str | None = None
    runtimes: tuple[str, str] = ("runc", "runsc")
    images: tuple[str, ...] = ()


def probe_machine(
    data_dir: Path,
    *,
    environ: Mapping[str, str] | None = None,
    clock: Clock | None = None,
    which: Callable[[str], str | None] = shutil.which,
    wanted: Wanted = Wanted(),
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
        return Finding("interpreter sandbox", ok=False, detail=_named(error), install_hint=hint, required=True)
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
        return Finding("disk", ok=False, detail=f"`{folder}`: {_named(error)}", install_hint=hint, required=True)
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
        return Finding(name, ok=False, detail=f"`{data_dir}`: {_named(error)}", install_hint=hint, required=True)
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
        return Finding("keyring", ok=False, detail=_named(error), install_hint=hint)
    unusable = type(backend).__module__.startswith(_UNFIT_KEYRINGS)
    return Finding(
        "keyring",
        ok=not unusable,
        detail="none" if unusable else str(backend.name),
        install_hint=hint if unusable else "",
    )


def probe_engine(
    environ: Mapping[str, str], which: Callable[[str], str | None], wanted: Wanted = Wanted()
) -> Iterator[Finding]:
    """The container engine, gVisor's runtime in it, and the image: what tiers 1 and 2 stand on."""
    address = wanted.host or environ.get("DOCKER_HOST", "").strip() or DEFAULT_ENGINE
    tls = bool(environ.get("DOCKER_TLS_VERIFY", "").strip())
    container, gvisor = wanted.runtimes
    runtimes: frozenset[str] = frozenset()
    answers = False
    try:
        version = _ask(address, "/version", tls=tls).get("Version")
        info = _ask(address, "/info", tls=tls)
        found = info.get("Runtimes")
        runtimes = frozenset(found) if isinstance(found, dict) else frozenset()
    except (OSError, HTTPException, ValueError) as error:
        hint = "for tiers `docker` and `gvisor`: install Docker Engine (package docker.io), or name it in DOCKER_HOST"
        if isinstance(error, PermissionError):
            hint = "let this account use the engine's socket, e.g. as a member of the group `docker`"
        yield Finding("docker", ok=False, detail=f"{_shown(address)}: {_named(error)}", install_hint=hint)
    else:
        answers = True
        shown = version if isinstance(version, str) and version.isprintable() else "of unknown version"
        gaps = tuple(_gaps(info))
        lacks = "a filter of system calls" in gaps or container not in runtimes
        detail = f"engine {shown[:40]} at {_shown(address)}, runtime `{container}`" + (
            f"; without {', '.join(gaps)}" if gaps else ""
        )
        hint = f"tier `docker` needs runtime `{container}` and a kernel with seccomp" if lacks else ""
        yield Finding("docker", ok=not lacks, detail=detail, install_hint=hint)
    path = which("runsc")
    ok = gvisor in runtimes
    if ok:
        release = f" ({_version_of(path)})" if path is not None else ""
        detail, hint = f"{gvisor} is a runtime of the engine{release}; {GVISOR_GAPS}", ""
    elif path is not None:
        detail, hint = f"`{path}` is no runtime of an engine that answers", "register runsc in the engine's daemon.json"
    else:
        detail, hint = "no runsc on PATH", "install gVisor (package runsc) and register it in the engine's daemon.json"
    yield Finding("gvisor", ok=ok, detail=detail, install_hint=hint)
    if answers:
        yield _probe_image(address, wanted, tls=tls)
        for image in dict.fromkeys(wanted.images):
            yield _image_there(address, image, "program image", tls=tls)


def _gaps(info: Mapping[str, object]) -> Iterator[str]:
    """What an engine says that it does not have, of what sandboxes ask of it."""
    options = info.get("SecurityOptions")
    have = " ".join(map(str, options)) if isinstance(options, list) else ""
    if "name=seccomp" not in have:
        yield "a filter of system calls"
    if "name=apparmor" not in have and "name=selinux" not in have:
        yield "AppArmor or SELinux"
    if "name=userns" not in have and "name=rootless" not in have:
        yield "user namespaces"
    for name, shown in (("MemoryLimit", "memory limits"), ("SwapLimit", "swap limits"), ("PidsLimit", "process limits"), ("CpuCfsQuota", "processor quotas")):  # fmt: skip
        if info.get(name) is not True:
            yield shown


def _probe_image(address: str, wanted: Wanted, *, tls: bool) -> Finding:
    name = "sandbox image"
    if wanted.image is None:
        what = "no container runs `python(…)`" if wanted.images else "no container tier is used"
        return Finding(name, ok=False, detail=f"none is configured: {what}", install_hint=_MAKE_IMAGE)
    return _image_there(address, wanted.image, name, tls=tls)


def _image_there(address: str, image: str, name: str, *, tls: bool) -> Finding:
    try:
        found = _ask(address, f"/images/{quote(image, safe=':@/')}/json", tls=tls)
    except (OSError, HTTPException, ValueError) as error:
        detail = f"`{_printable(image)}` is not in the engine: {_named(error)}"
        return Finding(name, ok=False, detail=detail, install_hint=_MAKE_IMAGE)
    size = found.get("Size")
    detail = f"`{_printable(image)}`, {size // 2**20} MiB" if isinstance(size, int) else f"`{_printable(image)}`"
    return Finding(name, ok=True, detail=detail)


def _version_of(program: str) -> str:
    """The first line of what a program says of its version."""
    try:
        said = subprocess.run(  # noqa: S603 - the runtime that the engine runs too
            [program, "--version"], capture_output=True, text=True, check=False, timeout=VERSION_TIMEOUT_S
        ).stdout
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return "of unknown version"
    lines = said.splitlines()
    return _printable(lines[0])[:60] if lines else "of unknown version"


def probe_terminal(environ: Mapping[str, str]) -> Finding:
    """Whether tables and signs can be shown."""
    encoding = (getattr(sys.stdout, "encoding", None) or locale.getpreferredencoding(do_setlocale=False)).lower()
    kind = "terminal" if sys.stdout is not None and sys.stdout.isatty() else "no terminal"
    detail = f"{kind}, {encoding}, TERM={environ.get('TERM', '')[:20] or 'unset'}"
    ok = encoding.replace("-", "").replace("_", "") == "utf8"
    hint = "" if ok else "set a UTF-8 locale, for example LC_ALL=C.UTF-8"
    return Finding("terminal", ok=ok, detail=detail, install_hint=hint)


def _ask(address: str, path: str, *, tls: bool) -> Mapping[str, object]:
    """One question to the engine, answered within `ENGINE_TIMEOUT_S` or not at all.

    Raises:
        OSError: It cannot be reached in time, or its address is of a kind that is not spoken here.
        HTTPException: It does not speak HTTP.
        ValueError: It answers something else than a JSON object.
    """
    parts = urlsplit(address)
    target: str | tuple[str, int]
    if tls:
        msg = "an engine behind TLS cannot be asked from here"
        raise OSError(msg)
    if parts.scheme == "unix" and parts.path:
        family, target = AF_UNIX, parts.path
    elif parts.scheme in {"tcp", "http"} and parts.hostname:
        family, target = AF_INET6 if ":" in parts.hostname else AF_INET, (parts.hostname, parts.port or ENGINE_PORT)
    else:
        msg = "only unix:// and tcp:// addresses can be asked from here"
        raise OSError(msg)
    clock = SystemClock()
    deadline_s = clock.monotonic_s() + ENGINE_TIMEOUT_S
    answer = bytearray()
    with socket(family, SOCK_STREAM) as line:
        line.settimeout(ENGINE_TIMEOUT_S)
        line.connect(target)
        line.sendall(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        while len(answer) <= MAX_ANSWER_BYTES:
            left_s = deadline_s - clock.monotonic_s()
            if left_s <= 0:
                raise TimeoutError(ETIMEDOUT, "does not answer in time")
            line.settimeout(left_s)
            part = line.recv(65_536)
            if not part:
                break
            answer += part
    return _object(bytes(answer))


class _Received:
    """What was read from a socket, for the standard library's parser of responses."""

    def __init__(self, received: bytes) -> None:
        self._received = received

    def makefile(self, mode: str) -> BytesIO:
        del mode
        return BytesIO(self._received)


def _object(received: bytes) -> Mapping[str, object]:
    response = HTTPResponse(_Received(received))  # type: ignore[arg-type]  # only makefile is called
    response.begin()
    decoded = loads(response.read()) if response.status == HTTPStatus.OK else None
    if not isinstance(decoded, dict):
        msg = f"answers {response.status} with {len(received)} bytes that are no JSON object"
        raise ValueError(msg)  # noqa: TRY004 - a wrong answer, not a wrong type of ours
    return decoded


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


def _shown(address: str) -> str:
    """An address without what may be a secret in it."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return "DOCKER_HOST"
    return _printable(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}")


def _named(error: BaseException) -> str:
    """An error as one line."""
    text = (error.strerror if isinstance(error, OSError) and error.strerror else str(error)) or type(error).__name__
    return _printable(text)


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text)[:200]
