"""Enforcement point 3: resources are allocated."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from symbi.guard.actions.base import Action
from symbi.guard.spending import FIELDS, KINDS, MOST, UNBOUNDED, Budget
from symbi.types import JsonValue, Priority, RecoveryClass, Resource, ResourceLimits


@dataclass(frozen=True, slots=True, kw_only=True)
class AllocateResources(Action):
    """Reserve memory, CPU and bandwidth in the pool, and let the run spend its budget.

    Attributes:
        limits: What is reserved.
        priority: Its class among those that wait.
        budget: What the run may spend; policies see `MOST` where there is no bound.
    """

    kind: ClassVar[str] = "AllocateResources"
    own: ClassVar[bool] = True
    limits: ResourceLimits
    priority: Priority = Priority.NORMAL
    budget: Budget = UNBOUNDED

    @property
    def recovery(self) -> RecoveryClass:
        """Reservations die with the process."""
        return RecoveryClass.READ_ONLY

    @property
    def resource(self) -> Resource:
        """The pool."""
        return Resource("Resource", "pool")

    def context(self) -> Mapping[str, JsonValue]:
        """Integer units; a budget without a bound is the largest number that any amount may be."""
        return {**dict.fromkeys(FIELDS.values(), MOST), **self.arguments()}

    def arguments(self) -> Mapping[str, JsonValue]:
        """Integer units, and what of the budget is bounded."""
        return {
            "memoryMib": self.limits.memory_mb,
            "cpuMilli": round(self.limits.cpu_cores * 1000),
            "diskMibps": self.limits.disk_io_mbps,
            "networkMibitps": self.limits.network_io_mbps,
            "timeoutMs": round(self.limits.execution_timeout * 1000),
            "priority": self.priority.value,
            **{FIELDS[kind]: most for kind, most in zip(KINDS, self.budget.bounds, strict=True) if most is not None},
        }
