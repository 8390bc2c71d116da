"""What processes use, as the system counts it."""

import psutil

from symbi.runtime.workers import ProcessUse


def measure_family(pid: int) -> ProcessUse | None:
    """What a process and those that it has started use now; None where it is gone or hides."""
    try:
        process = psutil.Process(pid)
        found = [process, *process.children(recursive=True)]
    except psutil.Error:
        return None
    cpu_ns, memory_bytes = 0, 0
    for one in found:
        try:
            with one.oneshot():
                times, memory = one.cpu_times(), one.memory_info()
        except psutil.Error:
            if one is process:
                return None
            continue  # what it had started has just ended
        cpu_ns += round((times.user + times.system) * 1e9)
        memory_bytes += memory.rss
    return ProcessUse(cpu_ns, memory_bytes)


def measure_process(pid: int) -> ProcessUse | None:
    """What a process that starts none uses now, without a look at all others; None where it is gone."""
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            times, memory = process.cpu_times(), process.memory_info()
    except psutil.Error:
        return None
    return ProcessUse(round((times.user + times.system) * 1e9), memory.rss)
