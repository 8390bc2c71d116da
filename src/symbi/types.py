"""Ids, principals, limits, labels: frozen values without behaviour, shared by every floor."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NewType, TypeAlias

JsonValue: TypeAlias = "bool | int | float | str | Sequence[JsonValue] | Mapping[str, JsonValue] | None"

AgentId = NewType("AgentId", str)
"""Identity of an agent: its declared name, unique in a data folder."""
RunId = NewType("RunId", str)
"""One execution of an agent (UUIDv7)."""
EffectId = NewType("EffectId", str)
"""One effect, made by the runtime and never by a model (UUIDv7); the idempotency key handed to tools."""
EventId = NewType("EventId", str)
"""One event of the audit trail (UUIDv7)."""
ToolName = NewType("ToolName", str)
"""A tool as policies and agents name it: `server.tool`."""
PolicyId = NewType("PolicyId", str)
"""A policy's `@id`, or `file:line` where it has none."""
KeyId = NewType("KeyId", str)
"""The first 16 hexadecimal digits of the SHA-256 of a public key, or of a secret key's label."""

SYSTEM_AGENT: Final = AgentId("symbi.system")
"""The principal of what the runtime does by itself: start-up, the canary, recovery."""

OPERATOR_AGENT: Final = AgentId("symbi.operator")
"""The principal of a person at the command line who acts without an agent, e.g. `symbi tools verify`."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks.

    Attributes:
        agent: The agent on whose behalf the action happens.
        owner: The person or account that answers for it; `unknown` where nobody does.
        groups: Groups that policies may name.
        trust: `untrusted`, `standard` or `trusted`, as configured; never what an agent says of itself.
        tier: Where its code runs; `none` before that is decided, and for whoever runs no code.
        capabilities: What its file lists; empty where the file sets no bound.
        instance: Which of the agents that its declaration was made into; empty where there is one alone. Policies know it
            by what was declared, so that none can be missed by one of many.
    """

    agent: AgentId
    owner: str = "unknown"
    groups: tuple[str, ...] = ()
    trust: str = "standard"
    tier: str = "none"
    capabilities: tuple[str, ...] = ()
    instance: str = ""

    @property
    def name(self) -> AgentId:
        """As ledger and trail call it: `agent`, or `agent/instance`."""
        return AgentId(f"{self.agent}/{self.instance}") if self.instance else self.agent


@dataclass(frozen=True, slots=True)
class Resource:
    """What is asked for: a Cedar entity, its attributes and its parents.

    Attributes:
        type: Entity type of the schema: `Tool`, `Topic`, `Memory`, `Knowledge`, `Model`, `Sandbox`, `Resource`, `Release`,
            `Agent`.
        id: Entity id.
        attributes: Attributes as the schema declares them for the type; JSON without floats and nulls.
        parents: (type, id) of the entities it is in.
    """

    type: str
    id: str
    attributes: tuple[tuple[str, JsonValue], ...] = ()
    parents: tuple[tuple[str, str], ...] = ()


class SecurityTier(StrEnum):
    """Where code runs. `INTERPRETER` stands outside the order of tiers: pure computation only."""

    INTERPRETER = "interpreter"
    TIER1 = "docker"
    TIER2 = "gvisor"


class Priority(StrEnum):
    """Scheduling class of a task, lowest first."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"
    CRITICAL = "critical"


class OnBreach(StrEnum):
    """What is done with an agent that uses more than it claimed, mildest first."""

    THROTTLE = "throttle"
    """It waits at its effects until it has used no more than its share."""
    SUSPEND = "suspend"
    """It stops before its next effect, until an operator lets it go on."""
    STOP = "stop"
    """Its run ends."""


class RecoveryClass(StrEnum):
    """What may be done about an effect that was in flight when the runtime died."""

    READ_ONLY = "read-only"
    """It changes nothing: do it again."""
    IDEMPOTENT = "idempotent"
    """It takes our effect id as a key and applies at most once: do it again with the same id."""
    RECONCILABLE = "reconcilable"
    """A query tells whether it happened."""
    NEVER_RETRY = "never-retry"
    """Nothing is known: hold it for a person. The default."""


class Integrity(StrEnum):
    """How far a value may be believed, most trusted first."""

    USER = "user"
    SYSTEM = "system"
    TRUSTED = "trusted"
    UNTRUSTED = "untrusted"


class Confidentiality(StrEnum):
    """How far a value may travel, most open first."""

    PUBLIC = "public"
    INTERNAL = "internal"
    CONFIDENTIAL = "confidential"
    SECRET = "secret"  # noqa: S105 - a classification, not a password


@dataclass(frozen=True, slots=True)
class Label:
    """Data-flow label of a value; `symbi.policy.flow.join` combines two.

    Attributes:
        integrity: Least trusted of what went into the value.
        confidentiality: Most confidential of what went into the value.
        sources: Effect ids, `task` or `file` that the value came from, sorted.
        categories: What kinds of data went into the value, e.g. `pii`, `health`; sorted.
        subjects: The people that the value is about, by the names that `symbi.guard.vault` knows them by; sorted.
    """

    integrity: Integrity = Integrity.USER
    confidentiality: Confidentiality = Confidentiality.PUBLIC
    sources: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    subjects: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ResourceLimits:
    """What one agent may use; the seed's names and units.

    Attributes:
        memory_mb: Mebibytes.
        cpu_cores: Cores; held exactly as milli-cores by the pool.
        disk_io_mbps: Mebibytes a second.
        network_io_mbps: Mebibits a second.
        execution_timeout: Seconds of wall time for one task.
    """

    memory_mb: int = 64
    cpu_cores: float = 0.1
    disk_io_mbps: int = 0
    network_io_mbps: int = 0
    execution_timeout: float = 300.0
