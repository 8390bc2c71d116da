"""What all actions share: who asks, at which place of a run, with which label."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from symbi.guard.waits import Waits
from symbi.policy.context import NO_REQUEST, agent_attributes, label_context
from symbi.policy.decision import PolicyRequest
from symbi.types import JsonValue, Label, Principal, RecoveryClass, Resource, RunId


@dataclass(frozen=True, slots=True)
class RunSlot:
    """The place of an effect in a run: the `position`-th effect (from 0) that its body asked for."""

    run_id: RunId
    position: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """Base of all actions.

    Attributes:
        principal: Who asks.
        slot: The place in a run; None for what the runtime does by itself.
        label: Join of the labels of everything that goes into the effect.
        attempt: 1, or more where the effect was in doubt after a crash and is done again; the gate sets it.
        mark: What policies raise the label of the outcome to; set where conditions are carried out.
        leased: It stands for many small effects, each with arguments of its own; the gate sets it.
        within: The run that it belongs to, where it has no place of its own in one.
        session: The session of a client that asks; who asks so asks again once people have agreed.
        waits: Bounds how many effects of that client wait for people; None for no bound.
    """

    kind: ClassVar[str]
    leasable: ClassVar[bool] = False
    own: ClassVar[bool] = False
    principal: Principal
    slot: RunSlot | None = None
    label: Label = field(default_factory=Label)
    attempt: int = 1
    mark: Label = field(default_factory=Label)
    leased: bool = False
    within: RunId | None = None
    session: str = ""
    waits: Waits | None = field(default=None, compare=False, repr=False)

    @property
    def run_id(self) -> RunId:
        """The run that it belongs to; empty where it belongs to none."""
        return self.slot.run_id if self.slot is not None else self.within or RunId("")

    @property
    def recovery(self) -> RecoveryClass:
        """What may be done about this effect after a crash."""
        return RecoveryClass.NEVER_RETRY

    @property
    def begins_within_s(self) -> float | None:
        """Seconds from the decision in which the effect must begin, or not at all; None for as long as it takes."""
        return None

    @property
    def holdable(self) -> bool:
        """Whether it may wait for people: it has a place in a run, or the runtime (`own`), or a client, asks for it again."""
        return self.own or self.slot is not None or bool(self.session)

    def approvals(self) -> tuple[str, ...]:
        """What it asks of people by itself, beside what policies ask; in the form of `@approval`."""
        return ()

    @property
    def resource(self) -> Resource:
        """What is asked for."""
        raise NotImplementedError

    @property
    def action(self) -> str:
        """The Cedar action."""
        return self.kind

    def context(self) -> Mapping[str, JsonValue]:
        """Facts for policies, as the schema declares them for this action, without those that every action has."""
        return {"label": label_context(self.label)}

    def arguments(self) -> Mapping[str, JsonValue]:
        """What the ledger digests and the trail may show."""
        return {}

    def request(self) -> PolicyRequest:
        """The question for the policy engine."""
        context = {**self.context(), "request": self._request_facts()}
        return PolicyRequest(self.principal, self.action, self.resource, context)

    def _request_facts(self) -> Mapping[str, JsonValue]:
        if self.slot is None:
            return {**NO_REQUEST, "attempt": self.attempt}
        return {"run": self.slot.run_id, "position": self.slot.position, "attempt": self.attempt}


def agent_resource(principal: Principal) -> Resource:
    """The entity of an agent, as resource or principal."""
    return Resource(
        "Agent",
        principal.agent,
        agent_attributes(principal),
        tuple(("Group", group) for group in principal.groups),
    )
