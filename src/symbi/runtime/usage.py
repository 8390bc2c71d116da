"""What agents really use: processor time, code, bytes and effects, by agent, by declaration and by owner.

Each run at work has a meter that only it writes to; what it has counted is added up where somebody asks, and when the
run ends. An agent that is idle costs nothing here but its line.
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from symbi.telemetry import AGENT_CPU_SECONDS, AGENT_EFFECTS, TOOL_BYTES, Metrics
from symbi.types import AgentId, JsonValue, RunId

MAX_KNOWN: Final = 100_000  # agents of which totals are kept, those that worked last; declarations and owners likewise
NS_PER_MS: Final = 1_000_000


@dataclass(slots=True)
class Used:
    """Amounts that only grow, but for the memory, which is the largest seen.

    Attributes:
        runs: Runs that have ended.
        cpu_ns: Processor time of this process in bodies, with what the runtime does for their effects on the same thread.
        code_cpu_ns: Processor time of interpreter workers that ran its code.
        wall_ns: Time at work.
        effects: Effects, tool calls among them.
        calls: Tool calls that were answered.
        tokens: Of models.
        bytes_out, bytes_in: JSON that tools were given, and answered.
        code_memory_bytes: Most memory of a worker that ran its code.
    """

    runs: int = 0
    cpu_ns: int = 0
    code_cpu_ns: int = 0
    wall_ns: int = 0
    effects: int = 0
    calls: int = 0
    tokens: int = 0
    bytes_out: int = 0
    bytes_in: int = 0
    code_memory_bytes: int = 0

    def add(self, other: "Used") -> None:
        """Take what another has."""
        self.runs += other.runs
        self.cpu_ns += other.cpu_ns
        self.code_cpu_ns += other.code_cpu_ns
        self.wall_ns += other.wall_ns
        self.effects += other.effects
        self.calls += other.calls
        self.tokens += other.tokens
        self.bytes_out += other.bytes_out
        self.bytes_in += other.bytes_in
        self.code_memory_bytes = max(self.code_memory_bytes, other.code_memory_bytes)

    def facts(self) -> dict[str, JsonValue]:
        """For machines; time in milliseconds."""
        return {
            "runs": self.runs,
            "cpu_ms": (self.cpu_ns + self.code_cpu_ns) // NS_PER_MS,
            "code_cpu_ms": self.code_cpu_ns // NS_PER_MS,
            "wall_ms": self.wall_ns // NS_PER_MS,
            "effects": self.effects,
            "calls": self.calls,
            "tokens": self.tokens,
            "bytes_out": self.bytes_out,
            "bytes_in": self.bytes_in,
            "code_memory_bytes": self.code_memory_bytes,
        }


@dataclass(frozen=True, slots=True)
class Whose:
    """Who is measured: the agent, what was declared, and who answers for it."""

    agent: AgentId
    declared: AgentId
    owner: str


class Counting(Protocol):
    """What a run at work has used since somebody took it last."""

    @property
    def whose(self) -> Whose:
        """Whose run it is."""

    def take(self) -> Used:
        """What was used since the last time; it counts from zero again."""


class UsageBook:
    """Totals of one process, since its start.

    Args:
        metrics: Are told what is added.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._agents: OrderedDict[str, Used] = OrderedDict()
        self._declared: OrderedDict[str, Used] = OrderedDict()
        self._owners: OrderedDict[str, Used] = OrderedDict()
        self._at_work: dict[RunId, Counting] = {}
        self._all = Used()

    def begin(self, run_id: RunId, meter: Counting) -> None:
        """A run is at work."""
        self._at_work[run_id] = meter

    def end(self, run_id: RunId) -> None:
        """It has ended."""
        meter = self._at_work.pop(run_id)
        self._take(meter, runs=1)

    def of_agent(self, agent: AgentId) -> Used:
        """What an agent has used until now; nothing, where it has not worked, or others have since then."""
        self._take_all()
        return self._agents.get(agent) or Used()

    def total(self) -> Used:
        """What all of them have used until now."""
        self._take_all()
        return self._all

    def by(self, kind: str) -> Mapping[str, Used]:
        """Totals until now: by `agent`, `declared` or `owner`."""
        self._take_all()
        return {"agent": self._agents, "declared": self._declared, "owner": self._owners}[kind]

    def _take_all(self) -> None:
        for meter in self._at_work.values():
            self._take(meter)

    def _take(self, meter: Counting, runs: int = 0) -> None:
        used, whose = meter.take(), meter.whose
        used.runs += runs
        _add(self._agents, whose.agent, used)
        _add(self._declared, whose.declared, used)
        _add(self._owners, whose.owner, used)
        self._all.add(used)
        declared = whose.declared
        self._metrics.inc(AGENT_CPU_SECONDS, (used.cpu_ns + used.code_cpu_ns) / 1e9, agent=declared)
        if used.effects:
            self._metrics.inc(AGENT_EFFECTS, used.effects, agent=declared)
        if used.calls:
            self._metrics.inc(TOOL_BYTES, used.bytes_out, agent=declared, direction="out")
            self._metrics.inc(TOOL_BYTES, used.bytes_in, agent=declared, direction="in")


def _add(totals: OrderedDict[str, Used], name: str, used: Used) -> None:
    """Add to a total, which is the newest from here on; the oldest goes where there are too many."""
    found = totals.get(name)
    if found is None:
        found = totals[name] = Used()
        if len(totals) > MAX_KNOWN:
            totals.popitem(last=False)
    else:
        totals.move_to_end(name)
    found.add(used)
