"""What a worker of the interpreter could still do if its code broke out of the interpreter: nothing.

A probe takes the worker's place behind the real launcher: a program of 150 bytes of machine code that makes whatever
system call it is told to. It answers what the kernel answered.
"""

import errno
import os
import platform
import select
import signal
import struct
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import anyio
import pytest

from symbi.adapters import monty
from symbi.adapters.monty import MontySandbox
from symbi.errors import SandboxUnavailable, TimeLimit
from symbi.guard.permit import Authority
from symbi.sandbox import confinement
from symbi.sandbox.confinement import CHECKED, PATH_ADDRESS, SIMPLE, confined_program, confinement_of
from symbi.testing.clock import ManualClock
from symbi.testing.contracts import SandboxUnderTest

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(
        sys.platform != "linux", reason="other systems have no such confinement; `symbi doctor` says so"
    ),
]
on_x86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="the probe is machine code of x86_64")

BASE = 0x400000
PROBE = bytes.fromhex(
    "4883ec40"  # sub rsp, 64
    "31ff 4889e6 ba38000000 31c0 0f05"  # loop: read(0, rsp, 56)
    "83f838 753e"  # not 56 bytes: end
    "488b0424 488b7c2408 488b742410 488b542418 4c8b542420 4c8b442428 4c8b4c2430 0f05"  # the call
    "48890424 bf01000000 4889e6 ba08000000 b801000000 0f05 ebaf"  # write(1, rsp, 8); loop
    "31ff b8e7000000 0f05".replace(" ", "")  # end: exit_group(0)
)
HEADERS = 64 + 56


class Probe:
    """The probe at work, confined as a worker is."""

    def __init__(self, program, strings):
        self.strings = strings
        self.process = subprocess.Popen(
            [program, "subprocess"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, env={}
        )

    def call(self, number, *arguments):
        """The kernel's answer; texts are given by address. None where the call ended the probe."""
        given = [self.strings.get(argument, argument) for argument in arguments]
        given += [0] * (6 - len(given))
        try:
            self.process.stdin.write(struct.pack("<7Q", number, *(value % 2**64 for value in given)))
        except BrokenPipeError:
            return None
        answer = self.process.stdout.read(8)
        return struct.unpack("<q", answer)[0] if answer else None


def program_with(strings):
    """The probe as an ELF program that has these texts, and their addresses."""
    start = BASE + HEADERS + len(PROBE)
    places, data = {}, b""
    for text in strings:
        places[text] = start + len(data)
        data += text.encode() + b"\0"
    size = HEADERS + len(PROBE) + len(data)
    elf = b"\x7fELF\x02\x01\x01" + bytes(9)
    elf += struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, BASE + HEADERS, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    elf += struct.pack("<IIQQQQQQ", 1, 5, 0, BASE, BASE, size, size, 4096)
    return elf + PROBE + data, places


@pytest.fixture
def start(tmp_path):
    """Starts probes that know some texts."""
    begun = []

    def one(*strings):
        text, places = program_with(("/etc/passwd", "/bin/sh", "/tmp", "/proc/self/exe", *strings))
        path = tmp_path / "probe"
        path.write_bytes(text)
        path.chmod(0o700)
        with confined_program(path) as program:
            probe = Probe(program, places)
            begun.append(probe)
            assert probe.call(39) == probe.process.pid  # getpid: it has started, and the launcher is not needed longer
        return probe

    yield one
    for probe in begun:
        probe.process.stdin.close()
        probe.process.stdout.close()
        probe.process.kill()
        probe.process.wait()


@pytest.fixture
async def sandbox():
    authority = Authority(ManualClock())
    async with MontySandbox(authority) as driver:
        yield SandboxUnderTest(driver, authority)


def workers():
    """Ids of the worker processes below this one."""
    listing = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,comm="], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in listing.splitlines()]
    return {int(pid) for pid, parent, name in rows if int(parent) == os.getpid() and "monty" in name}


async def test_every_worker_has_a_filter_and_no_capability_also_one_that_replaces_another(sandbox):
    first = workers()
    await sandbox.fails(TimeLimit, "while True:\n    pass", timeout_s=0.1)
    for pid in (begun := workers()):
        with suppress(ProcessLookupError):  # the one that took too long goes by itself
            os.kill(pid, signal.SIGKILL)
    with suppress(SandboxUnavailable):  # unless the pool has seen that it died
        await sandbox.run("1")
    await sandbox.run("1")
    with anyio.fail_after(30):  # the library takes those away that have ended, on a thread of its own
        while (later := workers()) & (first | begun):
            await anyio.lowlevel.checkpoint()
    assert first
    assert later
    assert not first & later
    for pid in later:
        is_stripped(pid)


def is_stripped(pid):
    """What the kernel says of a worker."""
    found = confinement_of(pid)
    assert (found.seccomp, found.no_new_privileges, found.capabilities) == (2, True, 0)
    if os.geteuid() == 0:
        assert found.bounding == 0
    limits = Path(f"/proc/{pid}/limits").read_text().splitlines()
    soft_and_hard = {line[:26].strip(): line[26:].split()[:2] for line in limits}
    assert soft_and_hard["Max core file size"] == ["0", "0"]
    assert soft_and_hard["Max file size"] == ["0", "0"]
    assert soft_and_hard["Max open files"] == ["32", "32"]
    assert os.getsid(pid) == pid
    assert len(list(Path(f"/proc/{pid}/fd").iterdir())) <= 3


async def test_a_worker_that_is_not_confined_runs_no_code(monkeypatch):
    loose = confinement.Confined(seccomp=0, no_new_privileges=True, capabilities=0, bounding=0)
    monkeypatch.setattr(monty, "confinement_of", lambda _: loose)
    with pytest.raises(SandboxUnavailable, match="not confined") as caught:
        async with MontySandbox(Authority(ManualClock())):
            pytest.fail("it started")
    assert caught.value.code == "unavailable.isolation"


async def test_a_launcher_that_cannot_confine_starts_nothing(monkeypatch):
    monkeypatch.setattr(confinement, "worker_filter", lambda _: b"\xff" * 8)
    with pytest.raises(SandboxUnavailable, match="cannot be started"):
        async with MontySandbox(Authority(ManualClock())):
            pytest.fail("it started")


def test_a_machine_whose_calls_are_not_known_is_refused(monkeypatch):
    monkeypatch.setattr(confinement.platform, "machine", lambda: "riscv64")
    with (
        pytest.raises(SandboxUnavailable, match="`riscv64` are not known") as caught,
        confined_program(Path("/bin/ls")),
    ):
        pytest.fail("it is there")
    assert caught.value.code == "unavailable.isolation"


def test_a_python_that_a_first_line_cannot_name_is_refused(monkeypatch):
    monkeypatch.setattr(confinement.sys, "executable", "/opt/my python/bin/python3")
    with pytest.raises(SandboxUnavailable, match="has spaces"), confined_program(Path("/bin/ls")):
        pytest.fail("it is there")


DANGEROUS = {
    "socket": (41, 2, 1, 0), "connect": (42, 0), "socketpair": (53, 1, 1), "bind": (49,), "sendmsg": (46,),
    "fork": (57,), "vfork": (58,), "clone without a thread": (56, 17), "clone into a user namespace": (56, 0x10010000),
    "clone of a process in a namespace of networks": (56, 0x40000011), "execve": (59, "/bin/sh"), "execveat": (322, -100, "/bin/sh"),
    "kill": (62, 1, 9), "tgkill": (234, 1, 1, 9), "tkill": (200, 1, 9), "pidfd_open": (434, 1), "pidfd_getfd": (438, 0, 0),
    "ptrace": (101, 16, 1), "process_vm_readv": (310, 1), "process_vm_writev": (311, 1), "personality": (135, 0),
    "mount": (165,), "umount2": (166,), "pivot_root": (155,), "chroot": (161, "/bin/sh"), "open_tree": (428,), "fsopen": (430,),
    "unshare": (272, 0x10000000), "setns": (308, 0), "bpf": (321,), "io_uring_setup": (425, 1), "userfaultfd": (323,),
    "keyctl": (250,), "add_key": (248,), "perf_event_open": (298,), "init_module": (175,), "finit_module": (313, 0),
    "kexec_load": (246,), "reboot": (169,), "swapon": (167,), "settimeofday": (164,), "clock_settime": (227,),
    "setuid": (105, 0), "setgid": (106, 0), "capset": (126,), "seccomp": (317, 1), "prctl dumpable": (157, 4, 1),
    "prctl seccomp": (157, 22, 0), "prctl death signal": (157, 1, 0), "prlimit sets": (302, 0, 7, BASE), "prlimit of another": (302, 1, 7),
    "setrlimit": (160, 7, BASE), "memfd_create": (319, "/bin/sh"), "open": (2, "/etc/passwd"), "creat": (85, "/bin/sh"),
    "openat to write": (257, -100, "/etc/passwd", 1), "openat to create": (257, -100, "/tmp", 0o100), "openat2": (437, -100),
    "unlink": (87, "/etc/passwd"), "rename": (82,), "link": (86,), "symlink": (88,), "mkdir": (83,), "mknod": (133,), "chmod": (90, "/etc/passwd"),
    "chown": (92,), "ioctl": (16, 0, 0x5412), "fcntl": (72, 0), "dup2": (33, 0, 9), "readlink": (89, "/proc/self/exe"), "getdents64": (217,),
    "memory that is written and run": (9, 0, 4096, 7, 0x22, -1), "memory without a file that is run": (9, 0, 4096, 5, 0x22, -1),
    "memory made to run": (10, BASE, 4096, 5), "memory where the path stood": (9, PATH_ADDRESS, 4096, 3, 0x32, -1),
    "memory around it": (9, 0, 0x200000, 3, 0x32, -1), "memory moved there": (25, BASE, 4096, 4096, 3, PATH_ADDRESS),
    "a hint to it": (9, PATH_ADDRESS, 4096, 3, 0x22, -1), "shmget": (29, 1, 4096), "msgget": (68, 1), "inotify_init1": (294,),
    "fanotify_init": (300,), "landlock_create_ruleset": (444,), "syslog": (103, 3), "acct": (163,), "sched_setaffinity": (203,), "setsid": (112,),
    "arch_prctl of the other base": (158, 0x1001, BASE),
}  # fmt: skip


@on_x86
def test_every_dangerous_call_is_refused_by_name(start):
    probe = start()
    answers = {name: probe.call(*call) for name, call in DANGEROUS.items()}
    assert {name: answer for name, answer in answers.items() if answer != -errno.EPERM} == {}


KERNELS_OWN = {335, 336}
"""`uretprobe` and `uprobe`: new kernels let no filter see them, and end whoever makes them outside of a probe."""


@on_x86
def test_every_call_that_is_not_in_the_list_is_refused(start):
    probe = start()
    listed = {numbers.x86_64 for numbers in SIMPLE.values()} | {numbers.x86_64 for numbers, _ in CHECKED.values()}
    unlisted = sorted(set(range(1024)) - listed - KERNELS_OWN)
    assert len(unlisted) > 950
    assert {number for number in unlisted if probe.call(number) != -errno.EPERM} == set()


@on_x86
def test_calls_of_another_interface_end_the_process(start):
    assert start().call(0x40000000 + 39) is None


@on_x86
def test_a_program_cannot_be_run_a_second_time_through_the_way_that_the_launcher_took(start):
    assert start().call(59, PATH_ADDRESS) == -errno.EFAULT


@on_x86
@pytest.mark.skipif(not confinement.landlock_version(), reason="this kernel has no Landlock; `symbi doctor` says so")
def test_no_file_of_ours_can_be_read(start, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("sesame")
    probe = start(str(secret), "/etc/ld.so.cache", "/", f"/proc/{os.getpid()}/environ", "/proc/self/mem")
    refused = [str(secret), "/etc/passwd", f"/proc/{os.getpid()}/environ", "/proc/self/mem"]
    assert {path: probe.call(257, -100, path, 0) for path in refused} == dict.fromkeys(refused, -errno.EACCES)
    assert probe.call(257, -100, "/etc/ld.so.cache", 0) >= 3  # what programs are loaded with can be


@on_x86
def test_a_worker_keeps_few_files_open(start):
    probe = start("/etc/ld.so.cache")
    answers = [probe.call(257, -100, "/etc/ld.so.cache", 0) for _ in range(40)]
    assert answers.count(-errno.EMFILE) >= 40 - confinement.OPEN_FILES


LIVE = """
import subprocess, sys
from pathlib import Path
from symbi.sandbox.confinement import confined_program
with confined_program(Path(sys.argv[1])) as program:
    worker = subprocess.Popen([program, "subprocess"], stdin=int(sys.argv[2]), stdout=subprocess.PIPE, bufsize=0)
    worker.stdout.read(8)
print(worker.pid, flush=True)
sys.stdin.read()
"""


@on_x86
def test_a_worker_dies_with_its_runtime_also_while_somebody_keeps_its_input_open(start, tmp_path):
    start()  # writes the program
    read, write = os.pipe()
    os.write(write, struct.pack("<7Q", 39, *[0] * 6))
    with subprocess.Popen(
        [sys.executable, "-c", LIVE, tmp_path / "probe", str(read)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, pass_fds=[read],
    ) as runtime:  # fmt: skip
        worker = os.pidfd_open(int(runtime.stdout.readline()))
        runtime.send_signal(signal.SIGKILL)
    ended, _, _ = select.select([worker], [], [], 30)
    assert ended
    for descriptor in (worker, read, write):
        os.close(descriptor)


def open_files():
    return {path.name for path in Path("/proc/self/fd").iterdir()}


def test_nothing_is_left_of_the_launcher():
    before = open_files()
    with confined_program(Path("/bin/ls")) as program:
        assert program.exists()
        assert len(open_files()) == len(before) + 1
    assert not program.exists()
    assert open_files() == before
