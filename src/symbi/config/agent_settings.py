# ruff: noqa: RUF009 - the calls make dataclass fields, as `field` does
"""What is said of an agent in the configuration."""

from dataclasses import dataclass
from enum import StrEnum

from symbi.config.budget_kind import Amounts
from symbi.config.declared import declare as _declare
from symbi.config.kinds import Flag, OneOf, Real, Several, Text, Whole
from symbi.config.topic_kind import TopicPattern
from symbi.guard.spending import Budget
from symbi.types import OnBreach, Priority


class Trust(StrEnum):
    """How far an agent is trusted, as policies see it."""

    UNTRUSTED = "untrusted"
    STANDARD = "standard"
    TRUSTED = "trusted"


class AgentMode(StrEnum):
    """How long an agent lives."""

    EPHEMERAL = "ephemeral"
    """For one run."""
    PERSISTENT = "persistent"
    """Until it is stopped: each message that it is sent is a run."""


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """`[agents.NAME]`: what an agent is to policies, which it cannot say of itself."""

    name: str
    owner: str = _declare("unknown", Text(), "person or account that answers for it")
    groups: tuple[str, ...] = _declare((), Several(Text()), "groups that policies may name")
    trust: Trust = _declare(Trust.STANDARD, OneOf(Trust), "how far policies may trust it")
    purpose: str = _declare(
        "unknown",
        Text(),
        "what it looks things up in documents for; policies compare it with what they were gathered for",
    )
    priority: Priority = _declare(
        Priority.NORMAL, OneOf(Priority), "its class among those that wait; a critical one makes lower ones step aside"
    )
    batch: bool = _declare(default=False, kind=Flag(), meaning="whether it may wait behind everything else")
    budget: Budget | None = _declare(None, Amounts(), "the most that each of its runs may spend", unset="no bound")
    on_breach: OnBreach | None = _declare(
        None, OneOf(OnBreach), "what is done when it uses more than it claimed", unset="nothing"
    )
    mode: AgentMode = _declare(
        AgentMode.EPHEMERAL, OneOf(AgentMode), "a persistent one stays, and carries out the messages that it is sent"
    )
    idle_s: float = _declare(
        3600.0, Real(0, 31_622_400, "seconds"), "after which a persistent one that waits is kept in the store alone"
    )
    max_messages: int = _declare(
        1000, Whole(1, 1_000_000, "messages"), "messages that may wait for one agent; further ones are refused"
    )
    topics: tuple[str, ...] = _declare(
        (), Several(TopicPattern()), "topics to which a persistent one listens: `*` is one word, `>` the rest"
    )
