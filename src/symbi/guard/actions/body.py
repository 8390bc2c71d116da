"""What the body of an agent does to the world besides, and the canary."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from symbi.guard.actions.base import Action
from symbi.types import JsonValue, RecoveryClass, Resource


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadClock(Action):
    """Read the wall clock."""

    kind: ClassVar[str] = "ReadClock"
    leasable: ClassVar[bool] = True

    @property
    def recovery(self) -> RecoveryClass:
        """Reading changes nothing."""
        return RecoveryClass.READ_ONLY

    @property
    def resource(self) -> Resource:
        """The clock."""
        return Resource("Resource", "clock")

    def context(self) -> Mapping[str, JsonValue]:
        """Nothing."""
        return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawRandom(Action):
    """Draw random bytes."""

    kind: ClassVar[str] = "DrawRandom"
    leasable: ClassVar[bool] = True

    @property
    def recovery(self) -> RecoveryClass:
        """What was not recorded was not seen: draw again."""
        return RecoveryClass.READ_ONLY

    @property
    def resource(self) -> Resource:
        """The generator."""
        return Resource("Resource", "random")

    def context(self) -> Mapping[str, JsonValue]:
        """Nothing."""
        return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteLog(Action):
    """Write a line to the run's log."""

    kind: ClassVar[str] = "WriteLog"
    leasable: ClassVar[bool] = True
    message: str

    @property
    def recovery(self) -> RecoveryClass:
        """A line may be written again."""
        return RecoveryClass.READ_ONLY

    @property
    def resource(self) -> Resource:
        """The log."""
        return Resource("Resource", "log")

    def arguments(self) -> Mapping[str, JsonValue]:
        """The line."""
        return {"message": self.message}


@dataclass(frozen=True, slots=True, kw_only=True)
class Canary(Action):
    """What start-up asks for and must not get."""

    kind: ClassVar[str] = "Canary"

    @property
    def resource(self) -> Resource:
        """A resource that does nothing."""
        return Resource("Resource", "canary")

    def context(self) -> Mapping[str, JsonValue]:
        """Nothing."""
        return {}
