"""What a measurement was made on: processor, memory, Python and system, and no name of the machine."""

import os
import platform
from pathlib import Path


def describe_machine(proc: Path = Path("/proc")) -> str:
    """One line, e.g. `AMD EPYC 7B13, 2 cores, 24 GiB; CPython 3.11.7; Linux 6.1 x86_64`."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = f"{round(os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30)} GiB"
    release = ".".join(platform.release().split(".")[:2])
    return (
        f"{_processor(proc)}, {cores} {'core' if cores == 1 else 'cores'}, {memory}; "
        f"{platform.python_implementation()} {platform.python_version()}; "
        f"{platform.system()} {release} {platform.machine()}"
    )


def describe_file_system(folder: Path, proc: Path = Path("/proc")) -> str:
    """Kind of the file system that a folder is on, e.g. `ext4`; durable writes on `tmpfs` cost nothing."""
    try:
        mounts = (proc / "self" / "mounts").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "an unknown file system"
    path, best, kind = str(folder.resolve()), "", "an unknown file system"
    for line in mounts.splitlines():
        _, point, type_, *_ = line.split(" ")
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, type_
    return kind


def resident_bytes(proc: Path = Path("/proc")) -> int:
    """What this process takes of the machine's memory.

    Raises:
        OSError: The system has no `/proc` to say so.
    """
    pages = (proc / "self" / "statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def _processor(proc: Path) -> str:
    try:
        lines = (proc / "cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model")))
    return next((name for name in named if name), platform.processor() or platform.machine())
