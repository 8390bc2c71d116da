"""Enforcement point 3: resources are allocated."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from symbi.guard.actions.base import Action
from symbi.types import JsonValue, Priority, RecoveryClass, Resource, ResourceLimits


@dataclass(frozen=True, slots=True, kw_only=True)
class AllocateResources(Action):
    """Reserve memory, CPU and bandwidth in the pool."""

    kind: ClassVar[str] = "AllocateResources"
    own: ClassVar[bool] = True
    limits: ResourceLimits
    priority: Priority = Priority.NORMAL

    @property
    def recovery(self) -> RecoveryClass:
        """Reservations die with the process."""
        return RecoveryClass.READ_ONLY

    @property
    def resource(self) -> Resource:
        """The pool."""
        return Resource("Resource", "pool")

    def context(self) -> Mapping[str, JsonValue]:
        """Integer units."""
        return self.arguments()

    def arguments(self) -> Mapping[str, JsonValue]:
        """Integer units."""
        return {
            "memoryMib": self.limits.memory_mb,
            "cpuMilli": round(self.limits.cpu_cores * 1000),
            "diskMibps": self.limits.disk_io_mbps,
            "networkMibitps": self.limits.network_io_mbps,
            "timeoutMs": round(self.limits.execution_timeout * 1000),
            "priority": self.priority.value,
        }
