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


@dataclass(frozen=True, slots=True, kw_only=True)
class SendMessage(Action):
    """Send a message to an agent.

    Attributes:
        to: The agent.
        body: What is sent.
        expects_reply: The sender waits for an answer.
    """

    kind: ClassVar[str] = "SendMessage"
    leasable: ClassVar[bool] = True
    to: Principal
    body: JsonValue = None
    expects_reply: bool = False

    @property
    def resource(self) -> Resource:
        """Who gets it."""
        return agent_resource(self.to)

    def context(self) -> Mapping[str, JsonValue]:
        """Label and size of the message, and whether an answer is expected."""
        return {
            "label": label_context(self.label),
            "sizeBytes": json_bytes(self.body),
            "expectsReply": self.expects_reply,
        }

    def arguments(self) -> Mapping[str, JsonValue]:
        """The message."""
        return {"body": self.body, "expects_reply": self.expects_reply}


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishMessage(Action):
    """Publish a message to whoever listens to a topic.

    Attributes:
        topic: The topic.
        body: What is published.
    """

    kind: ClassVar[str] = "PublishMessage"
    leasable: ClassVar[bool] = True
    topic: TopicRef
    body: JsonValue = None

    @property
    def resource(self) -> Resource:
        """The topic."""
        return self.topic.resource

    def context(self) -> Mapping[str, JsonValue]:
        """Label and size of the message."""
        return {"label": label_context(self.label), "sizeBytes": json_bytes(self.body)}

    def arguments(self) -> Mapping[str, JsonValue]:
        """The message."""
        return {"body": self.body}


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
