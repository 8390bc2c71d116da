"""Enforcement point 5: data is read, written and exported."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from symbi.guard.actions.base import Action
from symbi.policy.context import json_bytes, label_context
from symbi.types import JsonValue, RecoveryClass, Resource


@dataclass(frozen=True, slots=True)
class DataRef:
    """A memory or a knowledge base as the gate sees it.

    Attributes:
        type: `Memory` or `Knowledge`.
        name: Its name.
        owner: Who answers for it.
        kind: What sort it is, e.g. `short-term` or `documents`.
        classification: `public`, `internal`, `confidential` or `secret`: the most that it may hold. What nobody has
            classified is secret.
        purpose: What the data was gathered for.
    """

    type: str
    name: str
    owner: str = "unknown"
    kind: str = "unknown"
    classification: str = "secret"
    purpose: str = "unknown"

    @property
    def resource(self) -> Resource:
        """Its entity."""
        return Resource(
            self.type,
            self.name,
            (
                ("owner", self.owner),
                ("kind", self.kind),
                ("classification", self.classification),
                ("purpose", self.purpose),
            ),
        )


def embedder_context(embedder: str, *, remote: bool) -> Mapping[str, JsonValue]:
    """Which model reads what is looked for or written; nothing where none does."""
    return {"embedder": embedder, "remote": remote} if embedder else {}


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadData(Action):
    """Read from a memory or a knowledge base.

    Attributes:
        data: From which.
        query: What is looked for.
        purpose: What it is wanted for.
        max_items: The most items that may come back.
        embedder: Name of the model that turns the query into a vector; empty where none does.
        remote: Whether that model is not this machine's, so that the query leaves it.
    """

    kind: ClassVar[str] = "ReadData"
    leasable: ClassVar[bool] = True
    data: DataRef
    query: JsonValue = None
    purpose: str = "unknown"
    max_items: int = 100
    embedder: str = ""
    remote: bool = False

    @property
    def recovery(self) -> RecoveryClass:
        """Reading changes nothing."""
        return RecoveryClass.READ_ONLY

    @property
    def resource(self) -> Resource:
        """The memory or knowledge base."""
        return self.data.resource

    def context(self) -> Mapping[str, JsonValue]:
        """Label of the query, purpose and bound; and which model reads the query, where one does."""
        return {
            **embedder_context(self.embedder, remote=self.remote),
            "label": label_context(self.label),
            "purpose": self.purpose,
            "maxItems": self.max_items,
        }

    def arguments(self) -> Mapping[str, JsonValue]:
        """The query and its bound."""
        return {
            **embedder_context(self.embedder, remote=self.remote),
            "query": self.query,
            "purpose": self.purpose,
            "maxItems": self.max_items,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteData(Action):
    """Write to a memory or a knowledge base.

    Attributes:
        data: To which.
        content: What is written.
        purpose: What it is kept for.
        embedder: Name of the model that turns the content into vectors; empty where none does.
        remote: Whether that model is not this machine's, so that the content leaves it.
    """

    kind: ClassVar[str] = "WriteData"
    data: DataRef
    content: JsonValue = None
    purpose: str = "unknown"
    embedder: str = ""
    remote: bool = False

    @property
    def resource(self) -> Resource:
        """The memory or knowledge base."""
        return self.data.resource

    def context(self) -> Mapping[str, JsonValue]:
        """Label and size of what is written, and purpose; and which model reads it, where one does."""
        return {
            **embedder_context(self.embedder, remote=self.remote),
            "label": label_context(self.label),
            "purpose": self.purpose,
            "sizeBytes": json_bytes(self.content),
        }

    def arguments(self) -> Mapping[str, JsonValue]:
        """What is written."""
        return {
            **embedder_context(self.embedder, remote=self.remote),
            "content": self.content,
            "purpose": self.purpose,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportData(Action):
    """Take data out of a memory or a knowledge base, to where nothing of ours guards it.

    Attributes:
        data: From which.
        destination: Where to.
        content: What leaves.
        purpose: What it is wanted for.
    """

    kind: ClassVar[str] = "ExportData"
    data: DataRef
    destination: str
    content: JsonValue = None
    purpose: str = "unknown"

    @property
    def resource(self) -> Resource:
        """The memory or knowledge base."""
        return self.data.resource

    def context(self) -> Mapping[str, JsonValue]:
        """Label and size of what leaves, destination and purpose."""
        return {
            "label": label_context(self.label),
            "purpose": self.purpose,
            "destination": self.destination,
            "sizeBytes": json_bytes(self.content),
        }

    def arguments(self) -> Mapping[str, JsonValue]:
        """What leaves, and where to."""
        return {"content": self.content, "destination": self.destination, "purpose": self.purpose}
