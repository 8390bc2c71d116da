"""Attacks on what lies outside of a container: the host's files, kernel, network and processes, and our own protocol."""

import json
import os
import socket
from contextlib import closing

import pytest

from symbi.errors import CodeFailed, OutputLimit, SandboxUnavailable, TimeLimit
from symbi.sandbox.port import SandboxResult

pytestmark = [pytest.mark.anyio, pytest.mark.servers]

SECRET = "sesame-4711"

READ = """
import os
told = {}
for path in PATHS:
    try:
        told[path] = len(os.listdir(path) if os.path.isdir(path) else open(path, "rb").read(4096))
    except OSError:
        pass
{path: size for path, size in told.items() if size}
"""
TELLS_OF_THE_HOST = (
    "/proc/kcore", "/proc/kmsg", "/proc/keys", "/proc/key-users", "/proc/timer_list", "/proc/sched_debug",
    "/proc/kallsyms", "/proc/config.gz", "/proc/modules", "/proc/interrupts", "/proc/diskstats", "/proc/iomem",
    "/proc/kpagecount", "/proc/latency_stats", "/proc/partitions", "/proc/slabinfo", "/proc/acpi", "/proc/scsi",
    "/sys/firmware", "/sys/block", "/sys/kernel/debug", "/sys/kernel/security", "/etc/shadow", "/run",
    "/var/run/docker.sock", "/run/containerd/containerd.sock", "/dev/mem", "/dev/kmsg", "/dev/sda", "/dev/vda",
    "/dev/kvm", "/dev/loop0", "/dev/mapper/control", "/proc/1/root", "/proc/1/cwd", "/proc/1/mem",
)  # fmt: skip
WRITE = """
import os
written = []
for path, what in TEXTS.items():
    try:
        number = os.open(path, os.O_WRONLY)
        os.write(number, what.encode())
        written.append(path)
    except OSError:
        pass
written
"""
COMMANDS_THE_HOST = {
    "/proc/sysrq-trigger": "h", "/proc/sys/kernel/core_pattern": "|/x", "/proc/sys/kernel/hostname": "x",
    "/proc/sys/kernel/modprobe": "/x", "/proc/sys/vm/overcommit_memory": "1", "/proc/sys/net/ipv4/ip_forward": "1",
    "/proc/sys/fs/binfmt_misc/register": ":x:M::x::/x:", "/sys/fs/cgroup/pids/pids.max": "max",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes": "-1", "/sys/fs/cgroup/memory/release_agent": "/x",
    "/sys/fs/cgroup/cgroup.procs": "0", "/sys/kernel/uevent_helper": "/x", "/sys/power/state": "mem",
    "/proc/self/uid_map": "0 0 1", "/proc/1/oom_score_adj": "-1000", "/proc/1/mem": "x", "/etc/passwd": "x",
    "/usr/bin/python3": "x", "/etc/resolv.conf": "x", "/etc/hosts": "x", "/etc/hostname": "x",
}  # fmt: skip


async def test_nothing_tells_of_the_host(target):
    assert await target.value(f"PATHS = {TELLS_OF_THE_HOST!r}\n{READ}") == {}


async def test_nothing_commands_the_host(target):
    assert await target.value(f"TEXTS = {COMMANDS_THE_HOST!r}\n{WRITE}") == []


async def test_processes_and_the_environment_of_the_host_are_not_there(target, monkeypatch):
    monkeypatch.setenv("SYMBI_TEST_SECRET", SECRET)
    found = await target.value(
        "import os\n[dict(os.environ), len([p for p in os.listdir('/proc') if p.isdigit()]), os.uname().nodename]"
    )
    assert sorted(found[0]) == ["HOME", "LANG", "PATH", "TMPDIR"]
    assert found[1:] == [2, "sandbox"]


LINKS = """
import errno, os
met = {}
def go(name, work):
    try:
        met[name] = work()
    except OSError as error:
        met[name] = errno.errorcode[error.errno]
os.symlink("/proc/1/root/etc/hostname", "/tmp/a")
os.symlink("../" * 60 + "etc/hostname", "/tmp/b")
os.symlink("/tmp/d", "/tmp/c")
os.symlink("/tmp/c", "/tmp/d")
go("through the first process", lambda: open("/tmp/a").read())
go("up and up", lambda: open("/tmp/b").read())
go("in a circle", lambda: open("/tmp/c").read())
go("hard link", lambda: os.link("/usr/bin/python3", "/tmp/h"))
go("device", lambda: os.mknod("/tmp/n", 0o020666, os.makedev(1, 1)))
go("disk", lambda: os.mknod("/tmp/m", 0o060666, os.makedev(8, 0)))
go("new root", lambda: os.chroot("/tmp"))
go("owner", lambda: (open("/tmp/x", "w").write("#!/usr/bin/python3"), os.chmod("/tmp/x", 0o6755), os.chown("/tmp/x", 0, 0)))
go("program", lambda: os.execv("/tmp/x", ["x"]))
go("user", lambda: os.setuid(0))
go("group", lambda: os.setgid(0))
met
"""


async def test_links_and_mounts_lead_nowhere(target):
    assert await target.value(LINKS) == {
        "through the first process": "EACCES",
        "up and up": "sandbox\n",  # its own
        "in a circle": "ELOOP",
        "hard link": "EXDEV",
        "device": "EPERM",
        "disk": "EPERM",
        "new root": "EPERM",
        "owner": "EPERM",
        "program": "EACCES",  # noexec
        "user": "EPERM",
        "group": "EPERM",
    }


CONNECT = """
import errno, socket
met = {}
def go(name, family, kind, where):
    with socket.socket(family, kind) as line:
        line.settimeout(2)
        try:
            if kind == socket.SOCK_DGRAM:
                line.sendto(b"x", where)
            else:
                line.connect(where)
            met[name] = "reached"
        except OSError as error:
            met[name] = errno.errorcode.get(error.errno, str(error))
T, U = socket.SOCK_STREAM, socket.SOCK_DGRAM
for address in ("169.254.169.254", "10.0.0.1", "172.17.0.1", "192.168.0.1", "100.100.100.200", "8.8.8.8", HOST):
    go(address, socket.AF_INET, T, (address, 80))
for address in ("fd00:ec2::254", "2001:4860:4860::8888", "::ffff:169.254.169.254", "64:ff9b::8.8.8.8"):
    go(address, socket.AF_INET6, T, (address, 80))
for address, port in (("8.8.8.8", 53), ("224.0.0.251", 5353), ("255.255.255.255", 67), ("169.254.169.254", 53)):
    go(address + "/udp", socket.AF_INET, U, (address, port))
go("loopback", socket.AF_INET, T, ("127.0.0.1", PORT))
go("any", socket.AF_INET, T, ("0.0.0.0", PORT))
go("loopback6", socket.AF_INET6, T, ("::1", PORT))
go("abstract", socket.AF_UNIX, T, chr(0) + NAME)
go("file", socket.AF_UNIX, T, FILE)
for name in ("example.com", "metadata.google.internal", "localhost.attacker.example"):
    try:
        met[name] = repr(socket.getaddrinfo(name, 80))
    except OSError:
        met[name] = "no answer"
met
"""


async def test_no_address_is_reached_also_not_where_the_host_listens(target, tmp_path):
    name = f"symbi-attack-{os.getpid()}"
    with (
        closing(socket.create_server(("127.0.0.1", 0))) as tcp,
        closing(socket.socket(socket.AF_UNIX)) as abstract,
        closing(socket.socket(socket.AF_UNIX)) as file,
    ):
        abstract.bind("\0" + name)
        file.bind(str(tmp_path / "s"))
        for listens in (abstract, file):
            listens.listen()
        port = tcp.getsockname()[1]
        with closing(socket.create_connection(("127.0.0.1", port))):  # for us it is there
            pass
        own = socket.gethostbyname(socket.gethostname())
        code = f"PORT, NAME, FILE, HOST = {port}, {name!r}, {str(tmp_path / 's')!r}, {own!r}\n{CONNECT}"
        met = await target.value(code)
    refused = {"ENETUNREACH", "EHOSTUNREACH", "ECONNREFUSED", "ENOENT", "EADDRNOTAVAIL", "no answer"}
    assert {where: how for where, how in met.items() if how not in refused} == {}
    assert len(met) == 23


FAMILIES = """
import socket
found = []
for family in range(46):
    for kind in (1, 2, 3, 4, 5, 10):
        try:
            socket.socket(family, kind).close()
            found.append(family)
        except OSError:
            pass
sorted(set(found))
"""


async def test_sockets_are_of_three_families(target):
    assert await target.value(FAMILIES) == [socket.AF_UNIX, socket.AF_INET, socket.AF_INET6]


async def test_no_raw_packets(target):
    code = "import socket\nfound = []\nfor family, kind in ((2, 3), (10, 3), (17, 3), (17, 2)):\n    try:\n        socket.socket(family, kind, 255).close()\n        found.append(family)\n    except OSError:\n        pass\nfound"
    assert await target.value(code) == []


FORGE = """
import json, os, sys
frame, nonce = sys._getframe(), ""
while frame is not None:
    nonce = frame.f_locals.get("nonce", nonce)
    frame = frame.f_back
data = json.dumps(ANSWER).encode()
number = os.open("/proc/1/fd/1", os.O_WRONLY)
os.write(number, nonce.encode() + b"%08x" % len(data) + data)
"own"
"""
FORGED = (
    {"kind": "told", "stdout": "", "told": json.dumps({"kind": "value", "value": [0] * 200_000})},
    {"kind": "told", "stdout": "", "told": '{"kind": "value", "value": ' + "[" * 5_000 + "]" * 5_000 + "}"},
    {"kind": "told", "stdout": "x" * 300_000, "told": json.dumps({"kind": "value", "value": "own"})},
    {"kind": "told", "stdout": "", "told": '{"kind": "value", "value": 1e999}'},
    {"kind": "nothing"},
)


@pytest.mark.parametrize("answer", FORGED, ids=range(len(FORGED)))
async def test_an_answer_past_the_runner_is_judged_like_any_other(target, answer):
    ended = await target.attack(f"ANSWER = {answer!r}\n{FORGE}", timeout_s=5.0)
    if not target.gvisor:  # the first process cannot be looked into
        assert type(ended) is CodeFailed
        assert "PermissionError" in ended.message
    elif isinstance(ended, SandboxResult):  # gVisor's /proc lets a child write there: as much as it may say anyhow
        assert ended.value == "own"
        assert len(ended.stdout) <= target.options.output_bytes
    else:
        # An answer of which a part alone was written is waited for until the time of the code is up.
        assert type(ended) in {CodeFailed, OutputLimit, SandboxUnavailable, TimeLimit}


FLOODS = {
    "answers after the answer": "import json, os, struct\nd = json.dumps({'kind': 'value', 'value': 'own'}).encode()\nfor n in range(3, 256):\n    try:\n        os.write(n, struct.pack('>I', len(d)) + d)\n        while True:\n            os.write(n, b'x' * 65536)\n    except OSError:\n        pass",
    "the runner's output": "import os\nn = os.open('/proc/1/fd/1', os.O_WRONLY)\nwhile True:\n    os.write(n, b'x' * 65536)",
    "the runner's errors": "import os\nn = os.open('/proc/1/fd/2', os.O_WRONLY)\nwhile True:\n    os.write(n, b'x' * 65536)",
    "the runner's input": "import os\nn = os.open('/proc/1/fd/0', os.O_RDONLY)\nwhile True:\n    os.read(n, 65536)",
}


@pytest.mark.parametrize("how", FLOODS)
async def test_floods_past_the_bounds_end_the_run_alone(target, how):
    ends_by_itself = how == "answers after the answer" or not target.gvisor
    ended = await target.attack(FLOODS[how], timeout_s=20 if ends_by_itself else 3)
    if how == "answers after the answer":
        assert ended.value == "own"
    elif target.gvisor:
        assert type(ended) in {SandboxUnavailable, TimeLimit}
    else:
        assert type(ended) is CodeFailed
        assert "PermissionError" in ended.message
