"""Gives up everything that a worker does not need, and becomes the worker.

A program of its own, with the standard library only: `symbi.sandbox.confinement` puts a line `TOLD = {…}` before this
text and has the Python that runs us run it (`-ISB`: no environment, no site packages). Whatever cannot be given up
ends it, and no worker runs. Order matters: the bounding set needs a capability, Landlock and the filter need
no-new-privileges, and the filter comes last, for it refuses what stands before it.
"""

# ruff: noqa: T201, PLR2004 - a program: it says on stderr why it ends; numbers are those of the kernel's interface
import ctypes
import os
import resource
import sys

PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_CAPBSET_READ, PR_CAPBSET_DROP = 1, 22, 23, 24
PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 38, 47, 4
SECCOMP_MODE_FILTER, SIGKILL = 2, 9
CAP_SETPCAP = 8
CAPABILITY_VERSION_3 = 0x20080522
LANDLOCK_CREATE, LANDLOCK_ADD, LANDLOCK_RESTRICT = 444, 445, 446
PROT_READ_WRITE, MAP_PRIVATE_ANONYMOUS, MAP_FIXED_NOREPLACE = 3, 0x22, 0x100000
REFUSED = 125

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.execve.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]


def must(what: str, answer: int) -> int:
    """The answer of a call that may not fail."""
    if answer < 0:
        print(f"symbi: a worker cannot be confined: {what}: {os.strerror(ctypes.get_errno())}", file=sys.stderr)
        os._exit(REFUSED)
    return answer


def prctl(what: str, *numbers: int) -> int:
    """The call of that name, with five numbers."""
    given = (*numbers, 0, 0, 0, 0)[:5]
    return must(what, libc.prctl(given[0], *(ctypes.c_ulong(number) for number in given[1:])))


def no_capabilities() -> None:
    """None effective, permitted, inheritable, ambient, and none to gain."""
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    held = (ctypes.c_uint32 * 6)()
    must("capget", libc.capget(header, held))
    if held[0] >> CAP_SETPCAP & 1:  # without it the set cannot shrink; no-new-privileges keeps it shut
        for capability in range(64):
            held_still = libc.prctl(PR_CAPBSET_READ, capability, 0, 0, 0)
            if held_still < 0:  # the kernel knows no such capability, and none above
                break
            if held_still:
                prctl("bounding set", PR_CAPBSET_DROP, capability)
    prctl("ambient set", PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    must("capset", libc.capset(header, (ctypes.c_uint32 * 6)()))


def no_files(rules: list[tuple[str, int]], version: int) -> None:
    """Only what the program is loaded from may be read, and nothing else run, written or connected to."""
    files = (1 << 13) - 1 | (version > 1) << 13 | (version > 2) << 14 | (version > 4) << 15
    wanted = (ctypes.c_uint64 * 3)(files, 3, 3)  # files; bind and connect; abstract sockets and signals
    size = 24 if version > 5 else 16 if version > 3 else 8
    ruleset = must("landlock", libc.syscall(LANDLOCK_CREATE, wanted, ctypes.c_size_t(size), 0))
    for path, rights in rules:
        try:
            place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        rule = rights.to_bytes(8, "little") + place.to_bytes(4, "little")
        must(f"landlock `{path}`", libc.syscall(LANDLOCK_ADD, ruleset, 1, rule, 0))
        os.close(place)
    must("landlock", libc.syscall(LANDLOCK_RESTRICT, ruleset, 0))
    os.close(ruleset)


def become(program: bytes, arguments: list[bytes], address: int, filter_code: bytes) -> None:
    """Install the filter and run the program.

    The filter lets `execve` pass for a path at one address only, and lets nobody map anything there: the address space
    of this program ends with the call, so the worker cannot make it again.
    """
    page = libc.mmap(address, 4096, PROT_READ_WRITE, MAP_PRIVATE_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0)
    if page != address:
        must("the page of the path", -1)
    ctypes.memmove(address, program + b"\0", len(program) + 1)
    words = (ctypes.c_char_p * (len(arguments) + 1))(*arguments, None)
    nothing = (ctypes.c_char_p * 1)(None)
    kept = ctypes.create_string_buffer(filter_code, len(filter_code))

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))

    given = Program(len(filter_code) // 8, ctypes.addressof(kept))
    prctl("the filter", PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(given))
    libc.execve(address, ctypes.addressof(words), ctypes.addressof(nothing))
    must("the program", -1)


def main(told: dict) -> None:  # type: ignore[type-arg]  # of any kind; `typing` takes too long to import
    """All of it."""
    prctl("the death of its parent", PR_SET_PDEATHSIG, SIGKILL)
    if os.getppid() != told["parent"]:  # which died before that
        os._exit(REFUSED)
    os.setsid()
    os.umask(0o077)
    os.closerange(3, 4096)
    os.chdir("/")
    for name, bound in told["limits"]:
        kind = getattr(resource, name)
        hard = resource.getrlimit(kind)[1]
        least = bound if hard == resource.RLIM_INFINITY else min(bound, hard)
        resource.setrlimit(kind, (least, least))
    no_capabilities()
    prctl("no new privileges", PR_SET_NO_NEW_PRIVS, 1)
    version = libc.syscall(LANDLOCK_CREATE, None, ctypes.c_size_t(0), 1)
    if version > 0:  # a kernel without it is told of by `symbi doctor`
        no_files(told["files"], version)
    program = os.fsencode(told["program"])
    become(program, [program, *map(os.fsencode, sys.argv[1:])], told["address"], told["filter"])


if __name__ == "__main__":
    main(TOLD)  # type: ignore[name-defined]  # noqa: F821 - stands in the line before this text
