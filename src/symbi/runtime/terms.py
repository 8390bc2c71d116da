"""How an agent stands among others, and how long it lives."""

from dataclasses import dataclass

from symbi.guard.spending import UNBOUNDED, Budget
from symbi.types import AgentId, OnBreach, Priority


@dataclass(frozen=True, slots=True)
class Terms:
    """How an agent stands among others that want to run, as configured; policies can refuse it.

    Attributes:
        priority: Its class.
        batch: It may wait behind everything else.
        persistent: It stays, and carries out the messages that it is sent.
        idle_s: After which it is kept in the store alone, where it waits so long.
        max_messages: How many messages may wait for each agent that is made of the declaration.
        topics: Patterns of the topics to which all of them listen.
        budget: The most that each of its runs may spend.
        on_breach: What is done when it uses more than it claimed; nothing if None.
    """

    priority: Priority = Priority.NORMAL
    batch: bool = False
    persistent: bool = False
    idle_s: float = 3600.0
    max_messages: int = 1000
    topics: tuple[str, ...] = ()
    budget: Budget = UNBOUNDED
    on_breach: OnBreach | None = None


def no_terms(_agent: AgentId) -> Terms:
    """An agent of which nothing is said."""
    return Terms()
