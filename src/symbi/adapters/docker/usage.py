"""What a container uses, as its control groups say: on this machine out of their files, on another by asking the engine.

The engine answers such a question with the next look of its own, up to a second later. So it is asked only where the
groups cannot be seen from here: the engine is on another machine, or we are in a container ourselves. A group is known by
the id of its container in its path, which nobody else has.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import anyio

from symbi.adapters.docker.engine import Engine
from symbi.errors import SandboxUnavailable
from symbi.sandbox.port import SandboxWatch
from symbi.sandbox.use import SandboxUse
from symbi.types import RunId

ROOT: Final = Path("/sys/fs/cgroup")
PROC: Final = Path("/proc")
STATS_TIMEOUT_S: Final = 3.0  # its own look, and one more


class ContainerUse:
    """Measures containers of one engine.

    Args:
        engine: Whose containers.
        own_bytes: Memory that a container takes beside the code's.
        watch: Is told of the container that runs the code of a run; nothing is measured where nobody is.
        root: Where control groups are mounted.
        proc: Where processes are.
    """

    def __init__(
        self, engine: Engine, own_bytes: int, watch: SandboxWatch | None = None, root: Path = ROOT, proc: Path = PROC
    ) -> None:
        self._engine = engine
        self._own_bytes = own_bytes
        self._watch = watch
        self._root = root
        self._proc = proc
        self._patterns: Mapping[str, str] | None = (
            None  # by controller, with `{}` for the id; none where they are not here
        )

    @asynccontextmanager
    async def measured(self, run_id: RunId, name: str) -> AsyncIterator[None]:
        """While the code of a run is in a container."""
        if self._watch is None:
            yield
            return
        await self.find(name)
        self._watch.opens(run_id, partial(self.ask, name), self.cpu_ns(name))
        last: SandboxUse | None = None
        try:
            yield
        finally:
            try:
                last = self.read(name)
                if not self.here and self._watch.is_held(run_id):
                    with anyio.CancelScope(shield=True):
                        last = await self.ask(name)
            finally:
                self._watch.closes(run_id, last)

    @property
    def here(self) -> bool:
        """Whether the control groups can be read from here, as far as is known."""
        return bool(self._patterns)

    async def find(self, name: str) -> None:
        """Find out where the control groups of containers are, by one of them; once. An engine that does not say is asked again."""
        if self._patterns is not None:
            return
        id_, pid = await self._process(name)
        if pid > 0:
            patterns = self._look(id_, pid)
            # One that ended meanwhile says nothing of where the groups of others are.
            if patterns or await self._process(name) == (id_, pid):
                self._patterns = patterns

    async def _process(self, name: str) -> tuple[str, int]:
        """Id and first process of a container that runs; 0 where there is none, or the engine does not say."""
        try:
            found = await self._engine.inspect(name) or {}
        except SandboxUnavailable:
            return "", 0  # whoever needs it is told when the code does not come back
        state = found.get("State")
        pid = state.get("Pid") if isinstance(state, dict) else None
        return str(found.get("Id", "")), pid if isinstance(pid, int) else 0

    def cpu_ns(self, name: str) -> int:
        """The processor time of a container until now, which is the least that can be read; 0 where it cannot be seen."""
        paths = self._paths(name)
        try:
            return _unified_cpu(paths[""]) if "" in paths else _split_cpu(paths["cpuacct"])
        except (OSError, ValueError, KeyError):
            return 0

    def read(self, name: str) -> SandboxUse | None:
        """What a container uses, without waiting; None where that cannot be seen from here, or it is gone."""
        paths = self._paths(name)
        try:
            return self._unified(paths[""]) if "" in paths else self._split(paths["cpuacct"], paths["memory"])
        except (OSError, ValueError, KeyError):
            return None

    def _paths(self, name: str) -> dict[str, Path]:
        """Folders of a container's control groups by controller; none where they cannot be seen, or it is nobody's."""
        id_ = self._engine.made.get(name, "")
        return {one: Path(pattern.format(id_)) for one, pattern in (self._patterns or {}).items()} if id_ else {}

    async def ask(self, name: str) -> SandboxUse | None:
        """What a container uses; the engine is asked where it cannot be seen from here. None where nobody knows."""
        if self.here:
            return self.read(name)
        with anyio.move_on_after(STATS_TIMEOUT_S):
            try:
                return self._told(await self._engine.stats(name, STATS_TIMEOUT_S))
            except SandboxUnavailable:
                return None
        return None

    def _look(self, id_: str, pid: int) -> Mapping[str, str]:
        """Patterns of the paths by one container; the process may be another one where its number is another machine's."""
        try:
            lines = (self._proc / str(pid) / "cgroup").read_text(encoding="ascii").splitlines()
        except (OSError, UnicodeDecodeError):
            return {}
        patterns: dict[str, str] = {}
        for line in lines:
            _, controllers, path = line.split(":", 2)
            if not id_ or path.count(id_) != 1 or "{" in path:
                continue
            for controller in controllers.split(","):
                folder = self._root / controllers / path.lstrip("/") if controllers else self._root / path.lstrip("/")
                wanted = controller in {"cpuacct", "memory"} or (
                    not controllers and (folder / "memory.current").is_file()
                )
                if wanted and folder.is_dir():
                    patterns[controller] = str(folder).replace(id_, "{}")
        return patterns if "" in patterns or {"cpuacct", "memory"} <= set(patterns) else {}

    def _split(self, cpu: Path, memory: Path) -> SandboxUse:
        """Version 1: a folder for each controller."""
        return self._use(
            _split_cpu(cpu),
            int((memory / "memory.usage_in_bytes").read_text()),
            int((memory / "memory.max_usage_in_bytes").read_text()),
            _field(memory / "memory.stat", "total_inactive_file"),
        )

    def _unified(self, folder: Path) -> SandboxUse:
        """Version 2: one folder; kernels before 5.19 tell no peak."""
        now = int((folder / "memory.current").read_text())
        peak = folder / "memory.peak"
        return self._use(
            _unified_cpu(folder),
            now,
            int(peak.read_text()) if peak.is_file() else now,
            _field(folder / "memory.stat", "inactive_file"),
        )

    def _told(self, stats: Mapping[str, Any]) -> SandboxUse | None:
        """What an engine says, of either version."""
        memory, more = _object(stats.get("memory_stats")), _object(_object(stats.get("memory_stats")).get("stats"))
        cpu = _object(_object(stats.get("cpu_stats")).get("cpu_usage")).get("total_usage")
        now = memory.get("usage")
        if not isinstance(cpu, int) or not isinstance(now, int) or not now:  # of one that has ended it says nothing
            return None
        peak, cached = memory.get("max_usage"), more.get("total_inactive_file", more.get("inactive_file"))
        return self._use(cpu, now, peak if isinstance(peak, int) else now, cached if isinstance(cached, int) else 0)

    def _use(self, cpu_ns: int, now: int, peak: int, cached: int) -> SandboxUse:
        """Without what is only kept of files, which the kernel takes back when it likes."""
        now = max(0, now - cached)
        return SandboxUse(cpu_ns, now, max(now, peak - cached), self._own_bytes)


def _split_cpu(folder: Path) -> int:
    return int((folder / "cpuacct.usage").read_text())


def _unified_cpu(folder: Path) -> int:
    return _field(folder / "cpu.stat", "usage_usec") * 1_000


def _field(path: Path, name: str) -> int:
    for line in path.read_text(encoding="ascii").splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return 0


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
