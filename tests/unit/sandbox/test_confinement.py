"""The filter of the workers, read as the kernel reads it, on each machine that it is made for."""

import struct

import pytest

from symbi.errors import SandboxUnavailable
from symbi.sandbox.confinement import (
    CHECKED,
    LOW_END,
    PATH_ADDRESS,
    SIMPLE,
    Confined,
    confinement_of,
    worker_filter,
)

MAGIC = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
ALLOW, KILL, EPERM, ENOSYS = 0x7FFF0000, 0x80000000, 0x00050001, 0x00050026
THREAD = 0x3D0F00  # the flags that C libraries start a thread with


def verdict(machine, number, *arguments, magic=None):
    """What the filter answers to a call."""
    steps = list(struct.iter_unpack("<HBBI", worker_filter(machine)))
    given = struct.pack("<iIQ6Q", number, magic or MAGIC[machine], 0, *[*arguments, *[0] * 6][:6])
    at = value = 0
    while True:
        code, yes, no, k = steps[at]
        at += 1
        match code:
            case 0x20:
                (value,) = struct.unpack_from("<I", given, k)
            case 0x15:
                at += yes if value == k else no
            case 0x35:
                at += yes if value >= k else no
            case 0x45:
                at += yes if value & k else no
            case 0x06:
                return k


@pytest.fixture(params=sorted(MAGIC))
def machine(request):
    return request.param


def number_of(machine, name):
    numbers = SIMPLE[name] if name in SIMPLE else CHECKED[name][0]
    return getattr(numbers, machine)


@pytest.mark.parametrize(
    ("name", "arguments", "answer"),
    [
        ("read", (0, 1, 2), ALLOW),
        ("exit_group", (), ALLOW),
        ("mmap", (0, 4096, 3, 0x22), ALLOW),
        ("mmap", (0, 4096, 5, 2, 3), ALLOW),
        ("mmap", (0x7F0000000000, 4096, 5, 0x12, 3), ALLOW),
        ("mmap", (0x7F0000000000, 4096, 3, 0x32, 3), ALLOW),
        ("mmap", (2**32, 4096, 3, 0x32), ALLOW),
        ("mmap", (LOW_END, 4096, 3, 0x32), ALLOW),
        ("mmap", (LOW_END - 1, 4096, 3, 0x32), EPERM),
        ("mmap", (PATH_ADDRESS, 4096, 3, 0x22), EPERM),
        ("mmap", (0, LOW_END, 3, 0x32), EPERM),
        ("mmap", (0, LOW_END, 3, 0x100022), EPERM),
        ("mmap", (0, 4096, 7, 2, 3), EPERM),
        ("mmap", (0, 4096, 4, 0x22), EPERM),
        ("mprotect", (LOW_END, 4096, 1), ALLOW),
        ("mprotect", (LOW_END, 4096, 5), EPERM),
        ("mremap", (LOW_END, 1, 2, 1), ALLOW),
        ("mremap", (LOW_END, 1, 2, 3), EPERM),
        ("openat", (2**32 - 100, 1, 0o2000000), ALLOW),
        ("openat", (2**32 - 100, 1, 0o1), EPERM),
        ("openat", (2**32 - 100, 1, 0o2), EPERM),
        ("openat", (2**32 - 100, 1, 0o100), EPERM),
        ("openat", (2**32 - 100, 1, 0o1000), EPERM),
        ("openat", (2**32 - 100, 1, 0o20200000), EPERM),
        ("prlimit64", (0, 3, 0, 1), ALLOW),
        ("prlimit64", (1, 3, 0, 1), EPERM),
        ("prlimit64", (2**32, 3, 0, 1), EPERM),
        ("prlimit64", (0, 3, 1), EPERM),
        ("prlimit64", (0, 3, 2**32), EPERM),
        ("clone", (THREAD,), ALLOW),
        ("clone", (17,), EPERM),
        *(("clone", (THREAD | 1 << bit,), EPERM) for bit in (17, 25, 26, 27, 28, 29, 30)),
        ("clone3", (1, 88), ENOSYS),
        ("prctl", (15,), ALLOW),
        ("prctl", (0x53564D41,), ALLOW),
        ("prctl", (22,), EPERM),
        ("execve", (PATH_ADDRESS,), ALLOW),
        ("execve", (PATH_ADDRESS + 1,), EPERM),
        ("execve", (PATH_ADDRESS + 2**32,), EPERM),
    ],
)
def test_a_call_is_judged_by_its_arguments(machine, name, arguments, answer):
    assert verdict(machine, number_of(machine, name), *arguments) == answer


def test_what_is_not_listed_is_refused_and_what_is_listed_once_passes(machine):
    simple = {number_of(machine, name) for name in SIMPLE} - {None}
    checked = {number_of(machine, name) for name in CHECKED} - {None}
    assert not simple & checked
    for number in range(600):
        if number not in checked:
            assert verdict(machine, number) == (ALLOW if number in simple else EPERM)


def test_another_machine_s_interface_ends_the_process(machine):
    assert verdict(machine, 0, magic=0x40000003) == KILL
    assert verdict(machine, 0x40000000) == KILL


def test_no_filter_is_made_for_a_machine_that_is_not_known():
    with pytest.raises(SandboxUnavailable, match="`sparc64` are not known"):
        worker_filter("sparc64")


STATUS = """Name:\tmonty
CapInh:\t{inherited}
CapPrm:\t0000000000000000
CapEff:\t0000000000000000
CapBnd:\t0000000000000000
CapAmb:\t0000000000000000
NoNewPrivs:\t{privileges}
Seccomp:\t{mode}
"""


@pytest.mark.parametrize(
    ("inherited", "privileges", "mode", "holds"),
    [
        ("0", "1", "2", True),
        ("4", "1", "2", False),
        ("0", "0", "2", False),
        ("0", "1", "0", False),
        ("0", "1", "1", False),
    ],
)
def test_what_the_kernel_says_is_read_as_it_is(tmp_path, inherited, privileges, mode, holds):
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "status").write_text(STATUS.format(inherited=inherited, privileges=privileges, mode=mode))
    found = confinement_of(7, tmp_path)
    assert found == Confined(int(mode), privileges == "1", int(inherited), 0)
    assert found.holds is holds


def test_a_kernel_that_does_not_say_it_is_not_believed(tmp_path):
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "status").write_text("Name:\tmonty\nCapEff:\t0\n")
    with pytest.raises(ValueError, match="does not say `CapPrm`"):
        confinement_of(7, tmp_path)
