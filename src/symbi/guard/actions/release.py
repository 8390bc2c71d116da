"""Releases: the label of a value is lowered on purpose, under a name that policies permit."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from symbi.guard.actions.base import Action
from symbi.policy.context import label_context
from symbi.types import JsonValue, Label, RecoveryClass, Resource


@dataclass(frozen=True, slots=True, kw_only=True)
class EndorseValue(Action):
    """Believe a value that is not trusted.

    Attributes:
        name: What the release is called in the agent file.
        value_digest: SHA-256 (hex) of the value as JSON; the value itself is not kept.
        value_bytes: Its size as JSON.
        after: Join of the labels that it is to have.
    """

    kind: ClassVar[str] = "EndorseValue"
    name: str
    value_digest: str
    value_bytes: int = 0
    after: Label

    @property
    def recovery(self) -> RecoveryClass:
        """A label that was not recorded was not seen."""
        return RecoveryClass.READ_ONLY

    @property
    def resource(self) -> Resource:
        """The release."""
        return Resource("Release", self.name)

    def context(self) -> Mapping[str, JsonValue]:
        """The label before and after."""
        return {"label": label_context(self.label), "after": label_context(self.after)}

    def arguments(self) -> Mapping[str, JsonValue]:
        """Name, digest and size of the value, and the label after."""
        return _arguments(self.name, self.value_digest, self.value_bytes, self.after)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclassifyValue(Action):
    """Let a confidential value travel.

    Attributes:
        name: What the release is called in the agent file.
        value_digest: SHA-256 (hex) of the value as JSON; the value itself is not kept.
        value_bytes: Its size as JSON.
        after: Join of the labels that it is to have.
    """

    kind: ClassVar[str] = "DeclassifyValue"
    name: str
    value_digest: str
    value_bytes: int = 0
    after: Label

    @property
    def recovery(self) -> RecoveryClass:
        """A label that was not recorded was not seen."""
        return RecoveryClass.READ_ONLY

    @property
    def resource(self) -> Resource:
        """The release."""
        return Resource("Release", self.name)

    def context(self) -> Mapping[str, JsonValue]:
        """The label before and after."""
        return {"label": label_context(self.label), "after": label_context(self.after)}

    def arguments(self) -> Mapping[str, JsonValue]:
        """Name, digest and size of the value, and the label after."""
        return _arguments(self.name, self.value_digest, self.value_bytes, self.after)


def _arguments(name: str, digest: str, size: int, after: Label) -> Mapping[str, JsonValue]:
    return {"name": name, "valueDigest": digest, "valueBytes": size, "after": label_context(after)}
