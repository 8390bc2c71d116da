"""Enforcement point 1: agents are created and configured."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from symbi.guard.actions.base import Action, agent_resource
from symbi.policy.context import decimal_value, label_context
from symbi.types import JsonValue, Principal, RecoveryClass, Resource, SecurityTier


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateAgent(Action):
    """Bring an agent to life from a checked file.

    Attributes:
        source_digest: SHA-256 (hex) of the file.
        tier: Where what it computes runs.
        risk: Score from 0 to 1.
        inputs: Names of its inputs.
        factors: What went into the score, as decimal texts; for the trail.
        count: How many agents are made of the declaration at once.
    """

    kind: ClassVar[str] = "CreateAgent"
    own: ClassVar[bool] = True
    source_digest: str
    tier: SecurityTier
    risk: float
    inputs: tuple[str, ...] = ()
    factors: tuple[tuple[str, str], ...] = ()
    count: int = 1

    @property
    def recovery(self) -> RecoveryClass:
        """Creating an agent again changes nothing."""
        return RecoveryClass.READ_ONLY

    @property
    def resource(self) -> Resource:
        """The agent itself."""
        return agent_resource(self.principal)

    def context(self) -> Mapping[str, JsonValue]:
        """Tier, risk score, source digest and the names of the inputs; and how many, where that is not one."""
        return {
            **({} if self.count == 1 else {"count": self.count}),
            "tier": self.tier.value,
            "risk": decimal_value(self.risk),
            "sourceDigest": self.source_digest,
            "inputs": sorted(set(self.inputs)),
        }

    def arguments(self) -> Mapping[str, JsonValue]:
        """Likewise; the score as text, for canonical JSON of the trail has no floats."""
        return {
            **({} if self.count == 1 else {"count": self.count}),
            "tier": self.tier.value,
            "risk": f"{self.risk:.4f}",
            "factors": dict(self.factors),
            "source_digest": self.source_digest,
            "inputs": sorted(set(self.inputs)),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigureAgent(Action):
    """Change settings of an agent that exists.

    Attributes:
        agent: Whose settings; by itself or by another.
        changes: New values by the name of the setting.
    """

    kind: ClassVar[str] = "ConfigureAgent"
    agent: Principal
    changes: Mapping[str, JsonValue] = field(default_factory=dict)

    @property
    def recovery(self) -> RecoveryClass:
        """Setting the same values again changes nothing more."""
        return RecoveryClass.IDEMPOTENT

    @property
    def resource(self) -> Resource:
        """The agent that is changed."""
        return agent_resource(self.agent)

    def context(self) -> Mapping[str, JsonValue]:
        """Names of the settings, and the label of their values."""
        return {"keys": sorted(self.changes), "label": label_context(self.label)}

    def arguments(self) -> Mapping[str, JsonValue]:
        """The new values."""
        return self.changes
