"""Actions between people and the runtime: what an agent asks of people, and what people ask of the runtime."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from symbi.guard.actions.base import Action
from symbi.policy.context import label_context
from symbi.types import JsonValue, RecoveryClass, Resource


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestApproval(Action):
    """Ask people by `approval(who, what)`: the effect is that they agreed.

    Attributes:
        who: Person or group; empty for any person.
        what: What they are to agree to.
    """

    kind: ClassVar[str] = "RequestApproval"
    who: str
    what: str

    @property
    def recovery(self) -> RecoveryClass:
        """That they agreed is on record; saying so again changes nothing."""
        return RecoveryClass.READ_ONLY

    @property
    def resource(self) -> Resource:
        """The people."""
        return Resource("Resource", "people")

    def context(self) -> Mapping[str, JsonValue]:
        """Who is asked, and the label of what is asked."""
        return {"who": self.who, "label": label_context(self.label)}

    def arguments(self) -> Mapping[str, JsonValue]:
        """Who is asked, and what."""
        return {"who": self.who, "what": self.what}

    def approvals(self) -> tuple[str, ...]:
        """The one that it is."""
        return (f"who={self.who}" if self.who else "people=1",)


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlRuntime(Action):
    """Carry out an operation that somebody asks of the runtime through its control socket or at the command line.

    Attributes:
        operation: Its name, such as `approvals.approve`.
        uid: The operating-system user that asks.
        person: The registered person for whom that user acts; empty where there is none.
        folder_owner: That user owns the data folder.
        values: What is asked, as it was sent.
    """

    kind: ClassVar[str] = "ControlRuntime"
    operation: str
    uid: int
    person: str = ""
    folder_owner: bool = False
    values: Mapping[str, JsonValue] = field(default_factory=dict)

    @property
    def recovery(self) -> RecoveryClass:
        """An operation is a transaction of the store, and so happens as a whole or not at all."""
        return RecoveryClass.READ_ONLY

    @property
    def resource(self) -> Resource:
        """The operation."""
        return Resource("Resource", self.operation)

    def context(self) -> Mapping[str, JsonValue]:
        """Who asks."""
        return {"uid": self.uid, "person": self.person, "folderOwner": self.folder_owner}

    def arguments(self) -> Mapping[str, JsonValue]:
        """What is asked, and by whom."""
        return {"uid": self.uid, "person": self.person, "values": self.values}
