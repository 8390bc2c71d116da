"""What a worker process of the interpreter is held to by the kernel, and the program that sees to it.

Linux only: no capability, no-new-privileges, a seccomp filter that refuses what is not in its list, Landlock where the
kernel has it (5.13 and later: nothing but the program's own libraries can be read), limits, a session of its own, and
death with us. The worker starts through `launcher.py`, which stands in an anonymous file of this process: no file is
left behind. Where any of it cannot be had (but Landlock) there is no worker. Other systems have none of it, and
`symbi doctor` says so.

The number of processes is bounded by the filter (threads only) and not by `RLIMIT_NPROC`, which counts all processes of
the account.
"""

import ctypes
import os
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from errno import ENOSYS, EPERM
from importlib.resources import files
from pathlib import Path
from struct import pack, unpack_from
from typing import Final, NamedTuple, TypeAlias

from symbi.errors import SandboxUnavailable

AVAILABLE: Final = sys.platform == "linux"
PATH_ADDRESS: Final = 0x100000  # where the launcher puts the path of the worker; see `launcher.become`
LOW_END: Final = 0x200000  # the worker maps nothing below it
ADDRESS_SPACE_BYTES: Final = 6 << 30  # the largest memory limit of a run, and half of that for program and stacks
OPEN_FILES: Final = 32
READ_FILE: Final = 1 << 2  # rights of Landlock
RUN_FILE: Final = 1 << 0 | READ_FILE
READ_BELOW: Final = READ_FILE | 1 << 3
LIBRARIES: Final = ("/lib", "/lib64", "/usr/lib", "/usr/lib64")
LOADER_FILES: Final = ("/etc/ld.so.cache", "/etc/ld-musl-x86_64.path", "/etc/ld-musl-aarch64.path")
MAX_SHEBANG_BYTES: Final = 200  # the kernel reads 256 bytes of a first line, and splits it at spaces

LIMITS: Final[Mapping[str, int]] = {
    "RLIMIT_CORE": 0,
    "RLIMIT_FSIZE": 0,
    "RLIMIT_MEMLOCK": 0,
    "RLIMIT_MSGQUEUE": 0,
    "RLIMIT_NOFILE": OPEN_FILES,
    "RLIMIT_AS": ADDRESS_SPACE_BYTES,
}


class Numbers(NamedTuple):
    """A system call on the machines that have it."""

    x86_64: int | None
    aarch64: int | None


SIMPLE: Final[Mapping[str, Numbers]] = {
    "read": Numbers(0, 63),
    "write": Numbers(1, 64),
    "readv": Numbers(19, 65),
    "writev": Numbers(20, 66),
    "pread64": Numbers(17, 67),
    "lseek": Numbers(8, 62),
    "close": Numbers(3, 57),
    "fstat": Numbers(5, 80),
    "newfstatat": Numbers(262, 79),
    "statx": Numbers(332, 291),
    "access": Numbers(21, None),
    "faccessat": Numbers(269, 48),
    "faccessat2": Numbers(439, 439),
    "poll": Numbers(7, None),
    "ppoll": Numbers(271, 73),
    "munmap": Numbers(11, 215),
    "brk": Numbers(12, 214),
    "madvise": Numbers(28, 233),
    "rt_sigaction": Numbers(13, 134),
    "rt_sigprocmask": Numbers(14, 135),
    "rt_sigreturn": Numbers(15, 139),
    "sigaltstack": Numbers(131, 132),
    "futex": Numbers(202, 98),
    "set_robust_list": Numbers(273, 99),
    "set_tid_address": Numbers(218, 96),
    "rseq": Numbers(334, 293),
    "getrandom": Numbers(318, 278),
    "sched_getaffinity": Numbers(204, 123),
    "sched_yield": Numbers(24, 124),
    "gettid": Numbers(186, 178),
    "getpid": Numbers(39, 172),
    "getrlimit": Numbers(97, 163),
    "clock_gettime": Numbers(228, 113),
    "clock_getres": Numbers(229, 114),
    "clock_nanosleep": Numbers(230, 115),
    "nanosleep": Numbers(35, 101),
    "gettimeofday": Numbers(96, 169),
    "restart_syscall": Numbers(219, 128),
    "exit": Numbers(60, 93),
    "exit_group": Numbers(231, 94),
}
"""What passes with any argument; what the worker was seen to use, and the same by its other names."""

_WORD: Final = 1 << 32
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_LOAD, _EQUAL, _ATLEAST, _ANY, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _MACHINE, _ARGUMENTS = 0, 4, 16  # offsets in what the kernel gives to a filter
_X32: Final = 0x40000000
_MACHINES: Final = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}

_PROT_WRITE, _PROT_EXEC, _MAP_ANONYMOUS, _MAP_FIXED, _MREMAP_FIXED = 2, 4, 0x20, 0x100010, 2
_CLONE_THREAD, _CLONE_NEW = 0x10000, 0x7E020000
_OPEN_CHANGES: Final = 0o3 | 0o100 | 0o1000 | 0o20000000  # write, read and write, create, truncate, temporary
_PR_SET_NAME, _PR_SET_VMA, _ARCH_SET_FS = 15, 0x53564D41, 0x1002

_Step: TypeAlias = tuple[int, int, int, int]


def _refuse(code: int = EPERM) -> _Step:
    return (_RETURN, 0, 0, _ERRNO | code)


_PASS: Final[_Step] = (_RETURN, 0, 0, _ALLOW)


def _low(argument: int) -> _Step:
    return (_LOAD, 0, 0, _ARGUMENTS + 8 * argument)


def _high(argument: int) -> _Step:
    return (_LOAD, 0, 0, _ARGUMENTS + 8 * argument + 4)


def _must_not_have(argument: int, bits: int) -> list[_Step]:
    return [_low(argument), (_ANY, 0, 1, bits), _refuse()]


def _must_be(argument: int, value: int) -> list[_Step]:
    return [
        *(_low(argument), (_EQUAL, 1, 0, value % _WORD), _refuse()),
        *(_high(argument), (_EQUAL, 1, 0, value // _WORD), _refuse()),
    ]


def _one_of(argument: int, values: Sequence[int]) -> list[_Step]:
    last = len(values) - 1
    tests: list[_Step] = [(_EQUAL, last - index + 1, 0, value) for index, value in enumerate(values)]
    return [_low(argument), *tests, _refuse()]


def _mapping() -> list[_Step]:
    """Memory that is written is never run, and nothing lies where the path of the worker stood."""
    return [
        *(
            _low(2),
            (_ANY, 0, 4, _PROT_EXEC),
            (_ANY, 2, 0, _PROT_WRITE),
            _low(3),
            (_ANY, 0, 1, _MAP_ANONYMOUS),
            _refuse(),
        ),
        *(_high(0), (_EQUAL, 0, 6, 0), _low(0), (_ATLEAST, 4, 0, LOW_END), (_EQUAL, 0, 2, 0), _low(3)),
        *((_ANY, 0, 1, _MAP_FIXED), _refuse()),
    ]


CHECKED: Final[Mapping[str, tuple[Numbers, tuple[_Step, ...]]]] = {
    "mmap": (Numbers(9, 222), tuple(_mapping())),
    "mprotect": (Numbers(10, 226), tuple(_must_not_have(2, _PROT_EXEC))),
    "mremap": (Numbers(25, 216), tuple(_must_not_have(3, _MREMAP_FIXED))),
    "openat": (Numbers(257, 56), tuple(_must_not_have(2, _OPEN_CHANGES))),
    "prlimit64": (Numbers(302, 261), (*_must_be(0, 0), *_must_be(2, 0))),
    "clone": (Numbers(56, 220), (*_must_not_have(0, _CLONE_NEW), (_ANY, 1, 0, _CLONE_THREAD), _refuse())),
    "clone3": (Numbers(435, 435), (_refuse(ENOSYS),)),  # its flags cannot be seen; the C library then uses `clone`
    "prctl": (Numbers(157, 167), tuple(_one_of(0, (_PR_SET_NAME, _PR_SET_VMA)))),
    "arch_prctl": (Numbers(158, None), tuple(_must_be(0, _ARCH_SET_FS))),
    "execve": (Numbers(59, 221), tuple(_must_be(0, PATH_ADDRESS))),
}
"""What passes with some arguments only."""


def worker_filter(machine: str) -> bytes:
    """The seccomp filter of a worker, as the kernel reads it (`struct sock_filter`, 8 bytes each).

    A call that is not in the lists is refused with EPERM; one by another machine's interface ends the process.

    Raises:
        SandboxUnavailable: The machine's system calls are not known here.
    """
    if machine not in _MACHINES:
        msg = f"the system calls of a `{machine}` are not known, so the interpreter's workers cannot be confined"
        raise SandboxUnavailable(msg, code="unavailable.isolation", hint="use a machine of x86_64 or aarch64")
    magic, column = _MACHINES[machine]
    steps: list[_Step] = [
        *((_LOAD, 0, 0, _MACHINE), (_EQUAL, 1, 0, magic), (_RETURN, 0, 0, _KILL)),
        *((_LOAD, 0, 0, _NUMBER), (_ATLEAST, 0, 1, _X32), (_RETURN, 0, 0, _KILL)),
    ]
    for name in SIMPLE:
        if (number := SIMPLE[name][column]) is not None:
            steps += [(_EQUAL, 0, 1, number), _PASS]
    for numbers, checks in CHECKED.values():
        if (number := numbers[column]) is not None:
            steps += [(_EQUAL, 0, len(checks) + 1, number), *checks, _PASS]
    return b"".join(pack("<HBBI", *step) for step in (*steps, _refuse()))


@dataclass(frozen=True, slots=True)
class Confined:
    """What the kernel says of a process.

    Attributes:
        seccomp: 2 where a filter holds.
        no_new_privileges: It cannot gain any.
        capabilities: Effective, permitted, inheritable and ambient ones, joined.
        bounding: What a program that it ran could gain.
    """

    seccomp: int
    no_new_privileges: bool
    capabilities: int
    bounding: int

    @property
    def holds(self) -> bool:
        """It has nothing and can gain nothing."""
        return self.seccomp == 2 and self.no_new_privileges and not self.capabilities  # noqa: PLR2004 - the kernel's


def confinement_of(pid: int, proc: Path = Path("/proc")) -> Confined:
    """What the kernel says of a process.

    Raises:
        OSError: It is gone.
        ValueError: The kernel says less than it should.
    """
    rows = (
        line.partition(":")
        for line in (proc / str(pid) / "status").read_text(encoding="ascii", errors="replace").splitlines()
    )
    told = {name: value.strip() for name, _, value in rows}
    try:
        held = [int(told[f"Cap{which}"], 16) for which in ("Eff", "Prm", "Inh", "Amb")]
        return Confined(
            int(told["Seccomp"]),
            told["NoNewPrivs"] == "1",
            held[0] | held[1] | held[2] | held[3],
            int(told["CapBnd"], 16),
        )
    except KeyError as error:
        msg = f"the kernel does not say `{error.args[0]}` of a process"
        raise ValueError(msg) from None


def landlock_version() -> int:
    """Of the kernel's interface; 0 where it has none."""
    if not AVAILABLE:
        return 0
    return max(0, int(ctypes.CDLL(None).syscall(444, None, ctypes.c_size_t(0), 1)))


def confinement_here() -> str:
    """What this machine has of it, and what it lacks."""
    if not AVAILABLE:
        return "workers are not confined by the kernel: this system has no seccomp"
    if version := landlock_version():
        return f"workers confined by seccomp and Landlock {version}"
    return "workers confined by seccomp; no Landlock in this kernel, so one that broke out could read files"


@contextmanager
def confined_program(program: Path) -> Iterator[Path]:
    """A program that starts another one confined; it is there while this is open.

    Raises:
        SandboxUnavailable: This machine or this Python cannot do it.
    """
    if not AVAILABLE:
        yield program
        return
    text = launcher_text(program, platform.machine())
    written = os.memfd_create("symbi-launcher")
    try:
        with open(written, "wb", closefd=False) as file:
            file.write(text)
        # opened again for reading only: what somebody may write cannot be run
        descriptor = os.open(f"/proc/self/fd/{written}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(written)
    try:
        yield Path(f"/proc/{os.getpid()}/fd/{descriptor}")  # not `self`: a child runs it
    finally:
        os.close(descriptor)


def launcher_text(program: Path, machine: str) -> bytes:
    """The launcher of a program, for this process as its parent.

    Raises:
        SandboxUnavailable: The machine is not known, or this Python lies where a first line cannot name it.
    """
    python = os.path.realpath(sys.executable)
    if not python or len(os.fsencode(python)) > MAX_SHEBANG_BYTES or any(mark.isspace() for mark in python):
        msg = f"a program cannot be started by the Python at `{python}`: its path has spaces or is too long"
        raise SandboxUnavailable(msg, code="unavailable.isolation", hint="install Python at a path without spaces")
    place = os.path.realpath(program)
    told = {
        "parent": os.getpid(),
        "program": place,
        "address": PATH_ADDRESS,
        "filter": worker_filter(machine),
        "limits": list(LIMITS.items()),
        "files": _file_rules(place),
    }
    source = files("symbi.sandbox").joinpath("launcher.py").read_bytes()
    return f"#!{python} -ISB\nTOLD = {told!r}\n".encode() + source


def _file_rules(program: str) -> list[tuple[str, int]]:
    """What may be read, and what run, of the files of this machine."""
    rules = [
        (program, RUN_FILE),
        *((path, READ_BELOW) for path in LIBRARIES),
        *((path, READ_FILE) for path in LOADER_FILES),
    ]
    loader = _loader_of(program)
    if loader is not None:
        rules += [(loader, RUN_FILE), (str(Path(loader).resolve().parent), READ_BELOW)]
    return rules


def _loader_of(program: str) -> str | None:
    """The loader that a 64-bit ELF program names; None where it names none, or is no such program."""
    try:
        with Path(program).open("rb") as file:
            head = file.read(4096)
    except OSError:
        return None
    if len(head) < 64 or head[:6] != b"\x7fELF\x02\x01":  # noqa: PLR2004 - the size of its header
        return None
    (at,), (size, count) = unpack_from("<Q", head, 32), unpack_from("<HH", head, 54)
    for start in range(at, min(at + size * count, len(head) - 55), size or 1):
        kind, _, offset, _, _, length = unpack_from("<IIQQQQ", head, start)
        if kind == 3 and offset + length <= len(head):  # noqa: PLR2004 - PT_INTERP
            return os.fsdecode(head[offset : offset + length].rstrip(b"\0"))
    return None
