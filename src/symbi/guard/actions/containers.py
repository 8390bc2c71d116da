"""Enforcement point 4, besides: a program in a container of its own."""

import hashlib
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from symbi.crypto.canonical import canonical_json
from symbi.guard.actions.base import Action
from symbi.policy.context import decimal_value, label_context
from symbi.types import JsonValue, RecoveryClass, Resource, SecurityTier

NOT_ASSESSED = 1.0  # the score of what nobody assessed


def file_bytes(value: JsonValue) -> bytes:
    """An input as a program finds it: a text as it is, in UTF-8, and any other value as canonical JSON (RFC 8785).

    Raises:
        InputError: It has no canonical form.
    """
    return value.encode("utf-8", "surrogatepass") if isinstance(value, str) else canonical_json(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunContainer(Action):
    """Run a program of an image.

    Attributes:
        image: Reference by digest (`name@sha256:…`), or an id (`sha256:…`).
        command: The program and its arguments.
        tier: Where it must run, at least.
        inputs: What it finds in files, by name: a text as it is, anything else as JSON.
        outputs: Names of the files that it is to write.
        network: What it may reach, each as `host:port`, or with methods before it (`GET,HEAD host:port`); nothing where it is empty.
        env: Names and values of its environment.
        credentials: Paths of the vault references, by the host that they are for, and its header where one is named.
        memory_mib, timeout_s: Limits inside the sandbox.
        cpu_milli: Thousandths of a core that it may use there, where a sandbox of its tier has no less.
        network_mibitps: Mebibits a second that its agent claims of a network; 0 where it claims none, and has what any may.
        score: Of its risk, from 0 to 1.
        risk: Score, factors and the tier that follows, as texts, for the trail; empty where nobody assessed it.
        digests: SHA-256 (hex) of each input.

    Raises:
        InputError: An input has no canonical form.
    """

    kind: ClassVar[str] = "RunContainer"
    image: str
    command: tuple[str, ...]
    tier: SecurityTier
    inputs: Mapping[str, JsonValue] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    network: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    credentials: Mapping[str, str] = field(default_factory=dict)
    memory_mib: int = 64
    cpu_milli: int = 1_000
    network_mibitps: int = 0
    timeout_s: float = 10.0
    score: float = NOT_ASSESSED
    risk: Mapping[str, JsonValue] = field(default_factory=dict)
    digests: Mapping[str, str] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        """Of what conditions have left of the inputs, too: a changed copy has digests of its own."""
        digests = {name: hashlib.sha256(file_bytes(value)).hexdigest() for name, value in self.inputs.items()}
        object.__setattr__(self, "digests", digests)

    @property
    def image_digest(self) -> str:
        """The digest that its image is named by."""
        return self.image.rpartition("@")[2]

    @property
    def secrets(self) -> tuple[str, ...]:
        """Paths of the vault references."""
        return tuple(sorted(set(self.credentials.values())))

    @property
    def recovery(self) -> RecoveryClass:
        """Without a network it reaches nothing: whatever it does ends with its sandbox."""
        return RecoveryClass.NEVER_RETRY if self.network else RecoveryClass.READ_ONLY

    @property
    def resource(self) -> Resource:
        """The image, by its digest."""
        return Resource("Image", self.image_digest, (("reference", self.image),))

    def context(self) -> Mapping[str, JsonValue]:
        """Program, what goes in and comes out by name and digest, what it may reach, limits, risk, and the joined label."""
        return {
            "program": self.command[0] if self.command else "",
            "command": shlex.join(self.command),
            "inputs": sorted(self.inputs),
            "inputDigests": sorted(set(self.digests.values())),
            "outputs": sorted(set(self.outputs)),
            "network": sorted(set(self.network)),
            "hosts": sorted({one.rpartition(" ")[2].rpartition(":")[0] for one in self.network}),
            "env": sorted(self.env),
            "credentials": list(self.secrets),
            "tier": self.tier.value,
            "risk": decimal_value(self.score),
            "riskTier": str(self.risk.get("tier", SecurityTier.TIER2.value)),
            "memoryMib": self.memory_mib,
            "cpuMilli": self.cpu_milli,
            "timeoutMs": round(self.timeout_s * 1000),
            "label": label_context(self.label),
        }

    def arguments(self) -> Mapping[str, JsonValue]:
        """All that the program is given, with vault references unresolved, and its risk where it was assessed."""
        return {
            "image": self.image,
            "command": list(self.command),
            "tier": self.tier.value,
            "inputs": self.inputs,
            "digests": self.digests,
            "outputs": list(self.outputs),
            "network": list(self.network),
            "env": self.env,
            "credentials": self.credentials,
            **({"risk": self.risk} if self.risk else {}),
        }
