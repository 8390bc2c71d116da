"""What the place is like, as the first process of a container sees it before there is any foreign code."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import resource
import socket
from typing import Any, Dict

from symbi.sandbox.inside.frames import PIECE


def read_text(path: str, most: int = PIECE) -> str:
    """The beginning of a file; nothing where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read(most).decode("utf-8", "replace")
    except OSError:
        return ""


def first_of(*paths: str) -> str:
    """The first of some small files that is there."""
    return next((text for text in (read_text(path).strip() for path in paths) if text), "")


def can_write(folder: str) -> bool:
    """Whether a file can be made in a folder."""
    path = os.path.join(folder, ".symbi-probe")
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        os.unlink(path)
    except OSError:
        return False
    return True


def outside(address: str, port: int) -> str:
    """What a connection out of here meets, as a name of `errno`; empty where it is made."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as line:
        line.settimeout(0.5)
        try:
            line.connect((address, port))
        except OSError as error:
            return errno.errorcode.get(error.errno or 0, type(error).__name__)
    return ""


def is_filtered() -> bool:
    """Whether the filter of system calls is in force: it refuses memory files, which every kernel makes otherwise."""
    try:
        os.close(os.memfd_create("probe"))
    except PermissionError:  # a Python that cannot ask ends here, and gets no code
        return True
    return False


def kernel_says() -> str:
    """The beginning of the kernel's log, which gVisor makes up and names itself in."""
    try:
        said = ctypes.create_string_buffer(8192)
        count = ctypes.CDLL(None).klogctl(3, said, len(said) - 1)
        return said.raw[: max(0, count)].decode("utf-8", "replace")[:400]
    except (AttributeError, OSError):
        return ""


def probe() -> Dict[str, Any]:
    """What this place is like, as far as it can be seen from inside."""
    status: Dict[str, str] = {}
    for line in read_text("/proc/self/status").splitlines():
        name, _, rest = line.partition(":")
        if name in {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Seccomp_filters"}:
            status[name] = rest.strip()
    mounts = []
    for line in read_text("/proc/self/mounts", 4 * PIECE).splitlines():
        fields = line.split()
        if len(fields) >= 4:
            mounts.append([fields[1], fields[2], fields[3]])
    limits = {}
    for name in ("NOFILE", "FSIZE", "CORE", "NPROC", "MEMLOCK"):
        limits[name] = list(resource.getrlimit(getattr(resource, "RLIMIT_" + name)))
    interfaces = [line.partition(":")[0].strip() for line in read_text("/proc/net/dev").splitlines() if ":" in line]
    return {
        "uid": list(os.getresuid()),
        "gid": list(os.getresgid()),
        "groups": sorted(os.getgroups()),
        "pid": os.getpid(),
        "python": platform.python_version(),
        "kernel": list(os.uname())[2:4],
        "kernel_log": kernel_says(),
        "filtered": is_filtered(),
        "status": status,
        "mounts": mounts,
        "limits": limits,
        "interfaces": interfaces,
        "outside": outside("192.0.2.1", 80),  # RFC 5737: an address that is nobody's
        "writable": [folder for folder in ("/", "/usr", "/etc", "/tmp") if can_write(folder)],
        "devices": sorted(os.listdir("/dev")) if os.path.isdir("/dev") else [],
        "pids_max": first_of("/sys/fs/cgroup/pids.max", "/sys/fs/cgroup/pids/pids.max"),
        "memory_max": first_of("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"),
        "swap_max": first_of("/sys/fs/cgroup/memory.swap.max", "/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes"),
    }


def out_of_memory_kills() -> int:
    """How often the kernel has killed something here for want of memory."""
    said = first_of("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control")
    for line in said.splitlines():
        if line.startswith("oom_kill "):
            return int(line.split()[1])
    return 0
