"""The action by which a person puts other policies in force while a runtime is alive."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from symbi.guard.actions.base import Action
from symbi.types import JsonValue, RecoveryClass, Resource


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigurePolicies(Action):
    """Replace the operator's policies.

    Attributes:
        paths: What is read from here on.
        digest: SHA-256 (hex) of the files, with their names.
        files: How many there are.
    """

    kind: ClassVar[str] = "ConfigurePolicies"
    paths: tuple[str, ...]
    digest: str
    files: int

    @property
    def recovery(self) -> RecoveryClass:
        """What was put in force does not outlive the runtime; at the next start the configuration counts."""
        return RecoveryClass.READ_ONLY

    @property
    def resource(self) -> Resource:
        """The set in force."""
        return Resource("Resource", "policies")

    def context(self) -> Mapping[str, JsonValue]:
        """Paths, digest and number of files."""
        return {"paths": sorted(set(self.paths)), "digest": self.digest, "files": self.files}

    def arguments(self) -> Mapping[str, JsonValue]:
        """Likewise, in order."""
        return {"paths": list(self.paths), "digest": self.digest, "files": self.files}
