"""Processes that work for runs: interpreter workers while they run code, and tool servers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from symbi.types import JsonValue, RunId


@dataclass(frozen=True, slots=True)
class ProcessUse:
    """What a process uses.

    Attributes:
        cpu_ns: Processor time since they were started, in nanoseconds.
        memory_bytes: Resident memory.
    """

    cpu_ns: int
    memory_bytes: int

    def facts(self) -> dict[str, JsonValue]:
        """For machines."""
        return {"cpu_ms": self.cpu_ns // 1_000_000, "memory_bytes": self.memory_bytes}


@dataclass(slots=True)
class _Busy:
    """A worker that runs code: its processor time at the beginning, and the most that was seen of it."""

    pid: int
    began_ns: int
    cpu_ns: int
    memory_bytes: int = 0

    def see(self, used: ProcessUse | None) -> None:
        if used is not None:  # one that is dead and not yet taken away has its time still, and no memory
            self.cpu_ns = max(self.cpu_ns, used.cpu_ns)
            self.memory_bytes = max(self.memory_bytes, used.memory_bytes)


Measure = Callable[[int], ProcessUse | None]
"""What a process uses now, by its id; None where it is gone."""


def not_measured(_pid: int) -> ProcessUse | None:
    """The default of `measure`: nothing is known."""
    return None


def told_nobody(_run_id: RunId, _cpu_ns: int, _memory_bytes: int) -> None:
    """The default of `Workers.tell`: nothing."""


NO_SERVERS: Final[Mapping[str, Callable[[], int | None]]] = MappingProxyType({})


class Workers:
    """`symbi.sandbox.port.WorkerWatch` that measures the workers.

    Args:
        measure: What a process uses now.
        measure_all: Likewise, with those that it has started.
        servers: What tells the process of each tool server, by its name; None while it has none.

    Attributes:
        tell: Hears what the code of a run has used, and the most memory that was seen of its worker.
    """

    def __init__(
        self,
        measure: Measure = not_measured,
        measure_all: Measure = not_measured,
        servers: Mapping[str, Callable[[], int | None]] = NO_SERVERS,
    ) -> None:
        self._measure = measure
        self._measure_all = measure_all
        self._busy: dict[RunId, _Busy] = {}
        self.tell: Callable[[RunId, int, int], None] = told_nobody
        self._servers = servers

    def begins(self, run_id: RunId, pid: int) -> None:
        """A worker begins to run code."""
        before = self._measure(pid)
        began_ns = 0 if before is None else before.cpu_ns
        self._busy[run_id] = _Busy(pid, began_ns, began_ns)

    def ends(self, run_id: RunId, pid: int) -> None:
        """It has ended; of a worker that died, what was last seen of it counts."""
        busy = self._busy.pop(run_id, None) or _Busy(pid, 0, 0)
        busy.see(self._measure(pid))
        self.tell(run_id, busy.cpu_ns - busy.began_ns, busy.memory_bytes)

    def memory_of(self, run_id: RunId) -> int:
        """What the worker that runs the code of a run takes now, in bytes; 0 where none does."""
        busy = self._busy.get(run_id)
        used = None if busy is None else self._measure(busy.pid)
        if busy is not None:
            busy.see(used)
        return 0 if used is None else used.memory_bytes

    def processes(self) -> dict[str, ProcessUse]:
        """What the tool servers use, by name."""
        running = ((name, pid()) for name, pid in self._servers.items())
        measured = ((name, self._measure_all(pid)) for name, pid in running if pid is not None)
        return {name: used for name, used in measured if used is not None}
