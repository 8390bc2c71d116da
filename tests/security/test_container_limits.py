"""Attacks on the limits of both container tiers: what stopped each, and that the host and the runtime are unhurt."""

import base64
import io
import zipfile

import pytest

from symbi.adapters.docker.container import INODES, MIB, RUNTIME_MIB, SENTRY_PIDS
from symbi.errors import CodeFailed, MemoryLimit, OutputLimit, TimeLimit

pytestmark = [pytest.mark.anyio, pytest.mark.servers]

COUNT_FORKS = """
import errno, os, time
made = 0
met = ""
try:
    while made < 5000:
        if os.fork() == 0:
            time.sleep(60)
            os._exit(0)
        made += 1
except OSError as error:
    met = errno.errorcode[error.errno]
[made, met]
"""
FORK_BOMB = """
import os
while True:
    try:
        os.fork()
    except OSError:
        pass
"""
THREADS = """
import threading, time
made = 0
try:
    while made < 5000:
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
        made += 1
except RuntimeError:
    pass
made
"""


async def test_processes_are_counted(target):
    made, met = await target.value(COUNT_FORKS, memory_mib=512, pids=16)
    assert 0 < made < 16
    assert met == "EAGAIN"
    # What the host counts: gVisor's own threads, and one process for each of the code's, have a bound of their own.
    assert int(target.engine.seen["pids.max"]) == (SENTRY_PIDS if target.gvisor else 16)


async def test_a_fork_bomb_ends_with_its_time_or_its_memory(target):
    ended = await target.attack(FORK_BOMB, timeout_s=3)
    assert type(ended) in ({MemoryLimit, TimeLimit} if target.gvisor else {TimeLimit})


async def test_threads_are_counted(target):
    assert 0 < await target.value(THREADS, memory_mib=512) < target.options.pids


ALLOCATIONS = {
    "at once": "len(bytearray(10 * 2**30))",
    "bit by bit": "kept = []\nwhile True:\n    kept.append(bytearray(2**20))",
    "shared": "import mmap\nm = mmap.mmap(-1, 10 * 2**30)\nfor i in range(0, len(m), 4096):\n    m[i] = 1",
}
HOLD = """
import os
for n in range(16):
    if os.fork() == 0:
        kept = bytearray(55 * 2**20)
        for i in range(0, len(kept), 4096):
            kept[i] = 1
        while True:
            pass
sum(os.wait()[1] == 9 for n in range(8))
"""


@pytest.mark.parametrize("how", ALLOCATIONS)
async def test_ten_gigabytes_are_not_to_be_had(target, how):
    await target.fails(MemoryLimit, ALLOCATIONS[how])


async def test_many_processes_have_the_memory_of_one(target):
    ended = await target.attack(HOLD)
    if target.gvisor:
        assert type(ended) is MemoryLimit  # the sandbox is one process to the host
        return
    assert ended.value == 8  # the kernel ends those that hold the most
    most = (64 + target.options.tmpfs_mib + RUNTIME_MIB[target.tier]) * MIB
    peak = target.engine.seen.get("memory.max_usage_in_bytes") or target.engine.seen["memory.peak"]
    assert int(peak) <= most


BUSY = """
import os, time
for n in range(4):
    if os.fork() == 0:
        while True:
            pass
end = time.monotonic() + 3
while time.monotonic() < end:
    pass
"""


async def test_a_busy_loop_on_all_cores_gets_its_share(target):
    await target.value(BUSY, cpus=0.1)
    seen = target.engine.seen
    stat = dict(line.split() for line in seen["cpu.stat"].splitlines())
    used_s = int(seen["cpuacct.usage"]) / 1e9 if "cpuacct.usage" in seen else int(stat["usage_usec"]) / 1e6
    assert int(stat["nr_throttled"]) > 0
    assert used_s < 0.1 * target.engine.took_s * 1.5


OUTPUTS = {
    "print": "while True:\n    print('x' * 1000)",
    "descriptor": "import os\nwhile True:\n    os.write(1, b'x' * 65536)",
    "error": "import os\nwhile True:\n    os.write(2, b'x' * 65536)",
    "processes": "import os\nfor n in range(8):\n    os.fork()\n    while True:\n        os.write(1, b'x' * 65536)",
    "answer": "import os\nfor n in range(3, 256):\n    try:\n        while True:\n            os.write(n, b'\\xff' * 65536)\n    except OSError:\n        pass",
    "value": "'x' * (8 * 1024 ** 2)",
    "shared parts": "a = []\nfor n in range(40):\n    a = [a, a]\na",
}


@pytest.mark.parametrize("how", OUTPUTS)
async def test_output_without_end_is_cut_off(target, how):
    await target.fails(OutputLimit, OUTPUTS[how], timeout_s=60)


FILL = """
import os, errno
written = {}
for folder in FOLDERS:
    written[folder] = [0, ""]
    try:
        for n in range(100):
            with open(folder + "/f%d" % n, "wb", buffering=0) as file:
                for i in range(8):
                    written[folder][0] += file.write(b"x" * 2**20)
    except OSError as error:
        written[folder][1] = errno.errorcode[error.errno]
written
"""
WRITABLE = """
import os
found = []
for folder, inner, files in os.walk("/"):
    inner[:] = [name for name in inner if os.path.join(folder, name) != "/proc"]
    try:
        os.close(os.open(folder + "/.mark", os.O_CREAT | os.O_WRONLY))
        found.append(folder)
        os.unlink(folder + "/.mark")
    except OSError:
        pass
sorted(found)
"""


async def test_a_disk_filler_fills_its_own_small_folders(target):
    folders = await target.value(WRITABLE)
    assert folders == ["/dev/shm", "/tmp"]
    written = await target.value(f"FOLDERS = {folders}\n{FILL}", memory_mib=128)
    assert written == {folder: [16 * MIB, "ENOSPC"] for folder in folders}


async def test_nothing_is_written_to_a_disk_of_the_host(target):
    await target.value(f"FOLDERS = ['/tmp', '/dev/shm']\n{FILL}", memory_mib=128)
    seen = target.engine.seen
    counted = seen.get("blkio.throttle.io_service_bytes_recursive", seen.get("io.stat", ""))
    writes = [int(line.split()[2]) for line in counted.splitlines() if " Write " in line]
    assert sum(writes) == 0


async def test_a_file_has_a_size(target):
    code = "import errno\nn = 0\ntry:\n    with open('/tmp/f', 'wb', buffering=0) as f:\n        while n < 2**30:\n            n += f.write(b'x' * 65536)\nexcept OSError as e:\n    met = errno.errorcode[e.errno]\n[n, met]"
    assert await target.value(code, file_size_mib=4) == [4 * MIB, "EFBIG"]
    sparse = "import errno, os\ntry:\n    os.truncate(os.open('/tmp/s', os.O_CREAT | os.O_RDWR), 2**40)\nexcept OSError as e:\n    met = errno.errorcode[e.errno]\nmet"
    assert await target.value(sparse) == "EFBIG"


async def test_an_inode_filler_ends_with_its_inodes_or_its_memory(target):
    code = "import errno, os\nn = 0\ntry:\n    while True:\n        os.close(os.open('/tmp/i%d' % n, os.O_CREAT | os.O_WRONLY))\n        n += 1\nexcept OSError as e:\n    met = errno.errorcode[e.errno]\n[n, met]"
    ended = await target.attack(code, timeout_s=60, memory_mib=16)
    if target.gvisor:
        assert type(ended) is MemoryLimit  # its file system counts no inodes; they are memory of the sandbox
    else:
        assert ended.value[1] == "ENOSPC"
        assert ended.value[0] < INODES


async def test_open_files_are_counted(target):
    code = "import errno, os\nn = 0\ntry:\n    while n < 5000:\n        os.open('/dev/null', os.O_RDONLY)\n        n += 1\nexcept OSError as e:\n    met = errno.errorcode[e.errno]\n[n, met]"
    opened, met = await target.value(code)
    assert opened < target.options.open_files
    assert met == "EMFILE"


async def test_no_limit_can_be_raised(target):
    code = "import resource\nraised = []\nfor name in ('NOFILE', 'FSIZE', 'CORE', 'DATA', 'MEMLOCK'):\n    which = getattr(resource, 'RLIMIT_' + name)\n    soft, hard = resource.getrlimit(which)\n    try:\n        resource.setrlimit(which, (hard + 1, hard + 1))\n        raised.append(name)\n    except (OSError, ValueError):\n        pass\nraised"
    assert await target.value(code) == []


SLEEPERS = {
    "sleep": "import time\ntime.sleep(600)",
    "deaf": "import signal, time\nfor s in range(1, 65):\n    try:\n        signal.signal(s, signal.SIG_IGN)\n    except (OSError, ValueError):\n        pass\nwhile True:\n    time.sleep(1)",
    "stopped": "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)",
    "stops the first process": "import os, signal, time\nos.kill(1, signal.SIGSTOP)\ntime.sleep(600)",  # gVisor lets it: the end comes from outside
    "in a read": "import os\nr, w = os.pipe()\nos.read(r, 1)",
}


@pytest.mark.parametrize("how", SLEEPERS)
async def test_the_time_is_up_for_whoever_sleeps(target, how):
    await target.fails(TimeLimit, SLEEPERS[how], timeout_s=1)


DAEMON = "import os\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        while True:\n            pass\n    os._exit(0)\nos.wait()\n'done'"


async def test_a_daemon_ends_with_the_run(target):
    assert await target.value(DAEMON) == "done"


async def test_a_daemon_does_not_keep_a_run_that_left_alive(target):
    await target.fails(CodeFailed, DAEMON.replace("'done'", "os._exit(0)"))


async def test_signals_to_all_hurt_the_code_alone(target):
    await target.fails(
        CodeFailed, "import os, signal\nos.kill(-1, signal.SIGKILL)\nos.kill(os.getpid(), signal.SIGKILL)"
    )


async def test_signals_to_the_first_process(target):
    every = "import os\nfor s in range(1, 65):\n    if s not in (9, 19, 32, 33):\n        try:\n            os.kill(1, s)\n        except OSError:\n            pass\n'alive'"
    assert await target.value(every) == "alive"
    ended = await target.attack("import os\nos.kill(1, 9)\n'alive'")
    if target.gvisor:  # its kernel does not keep the first process from that signal; the sandbox is all that it ends
        assert type(ended) is CodeFailed
        assert "ended its sandbox" in ended.message
    else:
        assert ended.value == "alive"


UNPACK = """
import base64, errno, io, zipfile
archive = zipfile.ZipFile(io.BytesIO(base64.b64decode(bomb)))
try:
    met = [HOW]
except OSError as error:
    met = errno.errorcode[error.errno]
met
"""


@pytest.fixture(scope="module")
def bomb():
    """A gigabyte of zeros in a megabyte."""
    packed = io.BytesIO()
    with (
        zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("zeros", "w", force_zip64=True) as f,
    ):
        for _ in range(1024):
            f.write(bytes(MIB))
    return base64.b64encode(packed.getvalue()).decode()


async def test_a_zip_bomb_in_the_inputs_is_not_unpacked_by_us_and_bursts_inside(target, bomb):
    assert len(bomb) < 2 * MIB
    await target.fails(MemoryLimit, UNPACK.replace("HOW", "len(archive.read('zeros'))"), {"bomb": bomb})
    assert await target.value(UNPACK.replace("HOW", "archive.extractall('/tmp')"), {"bomb": bomb}) in {
        "EFBIG",
        "ENOSPC",
    }


async def test_huge_names_are_refused(target):
    code = "import errno\nmet = []\nfor path in ('/tmp/' + 'n' * 5000, '/tmp/' + 'n' * 256, '/tmp/' + '/'.join(['d' * 200] * 40)):\n    try:\n        open(path, 'w')\n        met.append('made')\n    except OSError as e:\n        met.append(errno.errorcode[e.errno])\nmet"
    assert await target.value(code) == ["ENAMETOOLONG"] * 3


async def test_folders_in_folders_without_end_end(target):
    code = "import errno, os\nos.chdir('/tmp')\nn = 0\nmet = ''\ntry:\n    while n < 20000:\n        os.mkdir('d' * 255)\n        os.chdir('d' * 255)\n        n += 1\nexcept OSError as e:\n    met = errno.errorcode[e.errno]\n[n, met]"
    ended = await target.attack(code, timeout_s=60)
    if not target.gvisor:
        assert ended.value[1] == "ENOSPC"
        assert ended.value[0] < INODES
