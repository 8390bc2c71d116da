"""How a runtime stands, beyond its scheduler: agents, messages, what waits for people, what was used, how the loop is.

What is read is kept in memory, or counted by an index and no further than to a bound: a million agents cost no more
than a hundred.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from symbi.runtime.lifecycle import AgentState
from symbi.runtime.pulse import Lag
from symbi.runtime.workers import ProcessUse
from symbi.types import JsonValue

MOST_COUNTED: Final = 10_000  # messages, letters and so on that are counted; there may be more


@dataclass(frozen=True, slots=True)
class Waiting:
    """What waits in the store; each is `MOST_COUNTED` where there are more.

    Attributes:
        messages: That are due.
        later: That are due later.
        in_doubt: Effects of which nobody knows whether they happened.
        dead_letters: Open ones.
        approvals: Actions that wait for people.
    """

    messages: int = 0
    later: int = 0
    in_doubt: int = 0
    dead_letters: int = 0
    approvals: int = 0

    def facts(self) -> dict[str, JsonValue]:
        """By name, for machines."""
        return {
            "messages": self.messages,
            "later": self.later,
            "in_doubt": self.in_doubt,
            "dead_letters": self.dead_letters,
            "approvals": self.approvals,
        }


class WaitingStore(Protocol):
    """Counts what waits; the method blocks."""

    def waiting(self, most: int) -> Waiting:
        """What waits, counted no further than to a bound, each by an index.

        Raises:
            StoreUnavailable: The store cannot be read.
        """


@dataclass(frozen=True, slots=True)
class Standing:
    """How a runtime stands, beyond its scheduler.

    Attributes:
        agents: Agents that stay, by state.
        living: How many of these are in memory.
        at_work: Runs at work.
        resting: Runs that wait to be tried again, or are suspended.
        waiting: What waits in the store.
        used: What all agents have used since the start, as `symbi.runtime.usage.Used` tells it.
        processes: What the tool servers use, by name.
        breakers: Tool servers that are left alone, by the state of their breaker.
        lag: How late the event loop came of late.
        head: Sequence of the last event of the trail.
        policies: Version of the policy set in force.
        halted: Who has stopped everything; empty where nobody has.
    """

    agents: Mapping[AgentState, int]
    living: int
    at_work: int
    resting: int
    waiting: Waiting
    used: Mapping[str, JsonValue]
    processes: Mapping[str, ProcessUse]
    breakers: Mapping[str, str]
    lag: Lag
    head: int
    policies: str
    halted: str = ""

    def facts(self) -> dict[str, JsonValue]:
        """For machines."""
        lag = self.lag
        return {
            "agents": {state.value: count for state, count in self.agents.items()},
            "living": self.living,
            "at_work": self.at_work,
            "resting": self.resting,
            **self.waiting.facts(),
            "used": dict(self.used),
            "processes": {name: used.facts() for name, used in self.processes.items()},
            "breakers": dict(self.breakers),
            "loop_lag_ms": {
                "p50": round(lag.p50_s * 1000, 3),
                "p99": round(lag.p99_s * 1000, 3),
                "p999": round(lag.p999_s * 1000, 3),
                "max": round(lag.max_s * 1000, 3),
                "beats": lag.beats,
            },
            "head": self.head,
            "policies": self.policies,
            "halted": self.halted or None,
        }
