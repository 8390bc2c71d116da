"""Requests and decisions of the policy engine: values only."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias

from symbi.types import JsonValue, PolicyId, Principal, Resource

VOLATILE: Final = frozenset({"time", "usage", "history"})
"""Facts of a context that change without the action: when it is asked for, and what came before."""

PASSING: Final = VOLATILE | {"request"}
"""These, and what tells one request of a run from the next: they differ where nothing else does."""


@dataclass(frozen=True, slots=True)
class PolicyRequest:
    """One question to the engine.

    Attributes:
        principal: Who asks.
        action: Cedar action id, e.g. `CreateAgent`, `InvokeTool::files.read_log`.
        resource: What is asked for.
        context: Facts that policies read, as JSON without floats and nulls (`symbi.policy.context` makes them).
    """

    principal: Principal
    action: str
    resource: Resource
    context: Mapping[str, JsonValue]


@dataclass(frozen=True, slots=True)
class PolicyRef:
    """A policy that took part in a decision: id, and where it stands."""

    id: PolicyId
    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.id} ({self.file}:{self.line})"


class ConditionKind(StrEnum):
    """What a permit may ask for before the effect happens, by annotation."""

    REDACT = "redact"
    """`@redact("arguments.body")`: the field is replaced by `[redacted]`."""
    CAP = "cap"
    """`@cap("arguments.amount=500")`: a larger number is lowered to the bound."""
    TIER = "tier"
    """`@tier("gvisor")`: the sandbox is at least of this tier."""
    TIMEOUT = "timeout"
    """`@timeout("30s")`: the effect gets no more time than this."""
    APPROVAL = "approval"
    """`@approval("…")`: a person must agree first."""
    RECORD = "record"
    """`@record("full" | "digest" | "redacted")`: how arguments stand in the trail."""
    OUTPUT = "output"
    """`@output("full" | "digest")`: how the result stands in the trail."""
    MARK = "mark"
    """`@mark("untrusted")`, `@mark("confidential:pii")`: the label of what comes back is raised to it."""
    RATE = "rate"
    """`@rate("500/minute")`: no more effects than this in a window."""
    LEASE = "lease"
    """`@lease("none")`: each effect is decided and recorded by itself."""
    LOG = "log"
    """`@log("warning")`: the decision is told in the log, at this level."""
    TAGS = "tags"
    """`@tags("SOC2, GDPR")`: the decision's event bears these compliance tags."""
    RETAIN = "retain"
    """`@retain("365d")`: the decision's event says that it is to be kept so long."""


@dataclass(frozen=True, slots=True)
class PolicyCondition:
    """One condition, and the policy that set it."""

    kind: ConditionKind
    value: str
    policy: PolicyId


@dataclass(frozen=True, slots=True)
class Allow:
    """Go on."""

    policies: tuple[PolicyRef, ...]
    version: str


@dataclass(frozen=True, slots=True)
class Deny:
    """Nothing may happen. `reason` is one line; `policies` is empty where no permit applied or evaluation failed."""

    reason: str
    policies: tuple[PolicyRef, ...]
    version: str
    errors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AllowWithConditions:
    """Go on once the conditions are carried out."""

    conditions: tuple[PolicyCondition, ...]
    policies: tuple[PolicyRef, ...]
    version: str


PolicyDecision: TypeAlias = Allow | Deny | AllowWithConditions
