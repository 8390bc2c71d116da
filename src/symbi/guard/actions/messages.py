"""Enforcement point 2: messages are sent and routed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from symbi.guard.actions.base import Action, agent_resource
from symbi.policy.context import json_bytes, label_context
from symbi.types import JsonValue, Principal, RecoveryClass, Resource


@dataclass(frozen=True, slots=True)
class TopicRef:
    """A topic as the gate sees it.

    Attributes:
        name: Its name.
        owner: Who answers for it.
        classification: `public`, `internal`, `confidential` or `secret`: the most that it may carry.
    """

    name: str
    owner: str = "unknown"
    classification: str = "public"

    @property
    def resource(self) -> Resource:
        """Its entity."""
        return Resource("Topic", self.name, (("owner", self.owner), ("classification", self.classification)))


def _sealed(message_id: str, digest: str) -> dict[str, JsonValue]:
    """What the trail knows of a message that is sealed: which one it is."""
    said: dict[str, JsonValue] = {"message": message_id, "sha256": digest}
    return {name: value for name, value in said.items() if value}


@dataclass(frozen=True, slots=True, kw_only=True)
class SendMessage(Action):
    """Send a message to an agent.

    Attributes:
        to: The agent.
        body: What is sent.
        expects_reply: The sender waits for an answer.
        after_s: How many seconds after it is sent the message is due.
        size_bytes: How large the body is at most, where it is sealed already or the action stands for many; None for as large as it is.
        message_id: The sealed message, where the action stands for one.
        digest: SHA-256 of its bytes, in hexadecimal.
    """

    kind: ClassVar[str] = "SendMessage"
    leasable: ClassVar[bool] = True
    to: Principal
    body: JsonValue = None
    expects_reply: bool = False
    after_s: float = 0.0
    size_bytes: int | None = None
    message_id: str = ""
    digest: str = ""

    @property
    def recovery(self) -> RecoveryClass:
        """A message has the id of its effect: one that is there already is not sent again."""
        return RecoveryClass.IDEMPOTENT

    @property
    def resource(self) -> Resource:
        """Who gets it."""
        return agent_resource(self.to)

    def context(self) -> Mapping[str, JsonValue]:
        """Label and size of the message, and whether an answer is expected."""
        return {
            "label": label_context(self.label),
            "sizeBytes": json_bytes(self.body) if self.size_bytes is None else self.size_bytes,
            "expectsReply": self.expects_reply,
        }

    def arguments(self) -> Mapping[str, JsonValue]:
        """The message, and to whom it goes: policies know many agents by one declaration."""
        later: dict[str, JsonValue] = {"after_s": self.after_s} if self.after_s else {}
        sealed = _sealed(self.message_id, self.digest)
        return {"to": self.to.name, "body": self.body, "expects_reply": self.expects_reply, **later, **sealed}


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishMessage(Action):
    """Publish a message to whoever listens to a topic.

    Attributes:
        topic: The topic.
        body: What is published.
        size_bytes, message_id, digest: As of `SendMessage`.
    """

    kind: ClassVar[str] = "PublishMessage"
    leasable: ClassVar[bool] = True
    topic: TopicRef
    body: JsonValue = None
    size_bytes: int | None = None
    message_id: str = ""
    digest: str = ""

    @property
    def recovery(self) -> RecoveryClass:
        """Each message has an id that is made of its effect's: none is sent again."""
        return RecoveryClass.IDEMPOTENT

    @property
    def resource(self) -> Resource:
        """The topic."""
        return self.topic.resource

    def context(self) -> Mapping[str, JsonValue]:
        """Label and size of the message."""
        return {
            "label": label_context(self.label),
            "sizeBytes": json_bytes(self.body) if self.size_bytes is None else self.size_bytes,
        }

    def arguments(self) -> Mapping[str, JsonValue]:
        """The message, and where it is published."""
        return {"topic": self.topic.name, "body": self.body, **_sealed(self.message_id, self.digest)}


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscribeTopic(Action):
    """Listen to a topic."""

    kind: ClassVar[str] = "SubscribeTopic"
    topic: TopicRef

    @property
    def recovery(self) -> RecoveryClass:
        """A subscription dies with the process."""
        return RecoveryClass.READ_ONLY

    @property
    def resource(self) -> Resource:
        """The topic."""
        return self.topic.resource
