"""What works for runs: interpreter workers and containers while they run code, and tool servers."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from symbi.sandbox.use import SandboxUse
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
    """A worker that runs code: its processor time that was told of, and the most that was seen of it."""

    pid: int
    told_ns: int
    cpu_ns: int
    memory_bytes: int = 0

    def see(self, used: ProcessUse | None) -> None:
        if used is not None:  # one that is dead and not yet taken away has its time still, and no memory
            self.cpu_ns = max(self.cpu_ns, used.cpu_ns)
            self.memory_bytes = max(self.memory_bytes, used.memory_bytes)


@dataclass(slots=True)
class _Open:
    """A sandbox that runs code, likewise."""

    ask: Callable[[], Awaitable[SandboxUse | None]]
    told_ns: int
    memory_bytes: int = 0


Measure = Callable[[int], ProcessUse | None]
"""What a process uses now, by its id; None where it is gone."""


def not_measured(_pid: int) -> ProcessUse | None:
    """The default of `measure`: nothing is known."""
    return None


def told_nobody(_run_id: RunId, _cpu_ns: int, _memory_bytes: int) -> None:
    """The default of `Workers.tell`: nothing."""


def nobody(_run_id: RunId) -> bool:
    """The default of `Workers.held`: none is."""
    return False


NO_SERVERS: Final[Mapping[str, Callable[[], int | None]]] = MappingProxyType({})


class Workers:
    """`symbi.sandbox.port.WorkerWatch` and `SandboxWatch` that measure where code runs.

    Args:
        measure: What a process uses now.
        measure_all: Likewise, with those that it has started.
        servers: What tells the process of each tool server, by its name; None while it has none.

    Attributes:
        tell: Hears what the code of a run has used since it heard last, and the most memory that was seen of its place.
        held: Whether something is done where a run uses more than it claimed.
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
        self._open: dict[RunId, _Open] = {}
        self.tell: Callable[[RunId, int, int], None] = told_nobody
        self.held: Callable[[RunId], bool] = nobody
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
        self._tell_busy(run_id, busy)

    def opens(self, run_id: RunId, ask: Callable[[], Awaitable[SandboxUse | None]], cpu_ns: int) -> None:
        """A sandbox begins to run code."""
        self._open[run_id] = _Open(ask, cpu_ns)

    def closes(self, run_id: RunId, last: SandboxUse | None) -> None:
        """It has ended; of one that is gone, what was last seen of it counts."""
        one = self._open.pop(run_id, None)
        if one is not None and last is not None:
            self._tell_open(run_id, one, last)

    def is_held(self, run_id: RunId) -> bool:
        """Whether something is done where the run uses more than it claimed."""
        return self.held(run_id)

    async def look(self, run_id: RunId) -> int:
        """Tell what the code of a run has used until now.

        Returns:
            The memory that it takes, without what a container itself may take beside it; 0 where no code runs.
        """
        busy, one = self._busy.get(run_id), self._open.get(run_id)
        if busy is not None:
            used = self._measure(busy.pid)
            busy.see(used)
            self._tell_busy(run_id, busy)
            return 0 if used is None else used.memory_bytes
        if one is not None:
            now = await one.ask()
            if now is not None and self._open.get(run_id) is one:  # else its end was told meanwhile
                self._tell_open(run_id, one, now)
                return max(0, now.memory_bytes - now.own_bytes)
        return 0

    def _tell_busy(self, run_id: RunId, busy: _Busy) -> None:
        self.tell(run_id, busy.cpu_ns - busy.told_ns, busy.memory_bytes)
        busy.told_ns = busy.cpu_ns

    def _tell_open(self, run_id: RunId, one: _Open, now: SandboxUse) -> None:
        one.memory_bytes = max(one.memory_bytes, now.peak_bytes)
        self.tell(run_id, max(0, now.cpu_ns - one.told_ns), one.memory_bytes)
        one.told_ns = max(one.told_ns, now.cpu_ns)

    def processes(self) -> dict[str, ProcessUse]:
        """What the tool servers use, by name."""
        running = ((name, pid()) for name, pid in self._servers.items())
        measured = ((name, self._measure_all(pid)) for name, pid in running if pid is not None)
        return {name: used for name, used in measured if used is not None}
