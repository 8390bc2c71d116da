"""Agents that were made to stay: what the store keeps of each, and the port that keeps it.

An agent is here from its creation on, in one state of the lifecycle table. Each move has the number of the one before
it: who moves an agent on that somebody else has moved meanwhile is refused, and told how it stands now.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from symbi.errors import InputError
from symbi.runtime.lifecycle import AgentState
from symbi.types import AgentId


@dataclass(frozen=True, slots=True)
class AgentRecord:
    """One agent.

    Attributes:
        agent_id: As ledger and trail call it: `declared`, or `declared/instance`.
        file: Its agent file, as an absolute path.
        source_digest: SHA-256 (hex) of that file as the agent was made from it.
        state: Where it stands.
        revision: How many moves it has made since it was created.
        reason: Why it stands there: a code, or who said so. Never text about what it worked on.
        parent: The agent that asked for it; empty where nobody has.
        created_at: RFC 3339.
        changed_at: RFC 3339 of its last move.
    """

    agent_id: AgentId
    file: str
    source_digest: str
    state: AgentState
    revision: int
    reason: str = ""
    parent: str = ""
    created_at: str = ""
    changed_at: str = ""

    @property
    def declared(self) -> AgentId:
        """The agent as its file declares it."""
        return declared_of(self.agent_id)

    @property
    def instance(self) -> str:
        """Which of several that were made of the declaration; empty where there is one alone."""
        return self.agent_id.partition("/")[2]


class AgentStore(Protocol):
    """Durable agents; the methods block, and those that write run inside the store's running transaction."""

    def put_agents(self, records: Sequence[AgentRecord]) -> None:
        """Insert agents, or make terminated ones of their names anew.

        Raises:
            InputError: One of them is there and is not terminated.
            StoreUnavailable: The store cannot be written.
        """

    def move_agent(self, record: AgentRecord, was_revision: int) -> None:
        """Write back where an agent stands, if it has made no move since the one that the caller saw.

        Raises:
            InputError: It has, or is not there (`lifecycle.stale`, with the state that was found).
            StoreUnavailable: The store cannot be written.
        """

    def get_agent(self, agent: AgentId) -> AgentRecord | None:
        """One agent, or None.

        Raises:
            StoreUnavailable: The store cannot be read.
        """

    def agents(self, state: AgentState | None, after: str, limit: int) -> Sequence[AgentRecord]:
        """Agents behind a name, by name; of one state, or of all.

        Raises:
            StoreUnavailable: The store cannot be read.
        """

    def count_agents(self) -> Mapping[AgentState, int]:
        """How many there are in each state; looks at all of them.

        Raises:
            StoreUnavailable: The store cannot be read.
        """

    def last_number(self, declared: AgentId) -> int:
        """The greatest number that is the name of an instance of a declaration; 0 where there is none.

        Raises:
            StoreUnavailable: The store cannot be read.
        """

    def halted(self) -> str:
        """Who has stopped everything, so that nothing is begun; empty where nobody has.

        Raises:
            StoreUnavailable: The store cannot be read.
        """

    def set_halted(self, by: str) -> None:
        """Note who has stopped everything, or, with an empty text, that things go on.

        Raises:
            StoreUnavailable: The store cannot be written.
        """


def declared_of(agent: AgentId) -> AgentId:
    """An agent as its file declares it."""
    return AgentId(agent.partition("/")[0])


def stale(record: AgentRecord, found: AgentRecord | None) -> InputError:
    """The error for a move of an agent that does not stand where the mover thinks."""
    now = "not there" if found is None else f"`{found.state}` by its move {found.revision}"
    msg = f"agent `{record.agent_id}` is {now}, so that it cannot become `{record.state}` by move {record.revision}"
    return InputError(
        msg,
        code="lifecycle.stale",
        hint="look at it again: `symbi agents show`",
        state="" if found is None else found.state.value,
        wanted=record.state.value,
    )
