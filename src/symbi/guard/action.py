"""The actions that pass the gate, one class for each kind of effect.

An action is a value: who asks, for what, with which arguments and labels. It knows how it is put to the policy
engine (`request`) and how it stands in ledger and trail (`arguments`). The gate hands back a changed copy where
conditions redact, cap or raise the tier.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from symbi.policy.context import decimal_value, label_context, tool_context
from symbi.policy.decision import PolicyRequest
from symbi.types import (
    JsonValue,
    Label,
    Principal,
    Priority,
    RecoveryClass,
    Resource,
    ResourceLimits,
    RunId,
    SecurityTier,
    ToolName,
)


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
    """

    kind: ClassVar[str]
    leasable: ClassVar[bool] = False
    own: ClassVar[bool] = False
    principal: Principal
    slot: RunSlot | None = None
    label: Label = field(default_factory=Label)

    @property
    def recovery(self) -> RecoveryClass:
        """What may be done about this effect after a crash."""
        return RecoveryClass.NEVER_RETRY

    @property
    def holdable(self) -> bool:
        """Whether it may wait for people: it has a place in a run, or the runtime asks for it again by itself (`own`)."""
        return self.own or self.slot is not None

    def approvals(self) -> tuple[str, ...]:
        """What it asks of people by itself, beside what policies ask; in the form of `@approval`."""
        return ()

    @property
    def resource(self) -> Resource:
        """What is asked for."""
        raise NotImplementedError

    def context(self) -> Mapping[str, JsonValue]:
        """Facts for policies, as the schema declares them for this action."""
        return {"label": label_context(self.label)}

    def arguments(self) -> Mapping[str, JsonValue]:
        """What the ledger digests and the trail may show."""
        return {}

    def request(self) -> PolicyRequest:
        """The question for the policy engine."""
        return PolicyRequest(self.principal, self.kind, self.resource, self.context())


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateAgent(Action):
    """Bring an agent to life from a checked file.

    Attributes:
        source_digest: SHA-256 (hex) of the file.
        tier: Where what it computes runs.
        risk: Score from 0 to 1.
        inputs: Names of its inputs.
        factors: What went into the score, as decimal texts; for the trail.
    """

    kind: ClassVar[str] = "CreateAgent"
    own: ClassVar[bool] = True
    source_digest: str
    tier: SecurityTier
    risk: float
    inputs: tuple[str, ...] = ()
    factors: tuple[tuple[str, str], ...] = ()

    @property
    def recovery(self) -> RecoveryClass:
        """Creating an agent again changes nothing."""
        return RecoveryClass.READ_ONLY

    @property
    def resource(self) -> Resource:
        """The agent itself."""
        return agent_resource(self.principal)

    def context(self) -> Mapping[str, JsonValue]:
        """Tier, risk score, source digest and the names of the inputs."""
        return {
            "tier": self.tier.value,
            "risk": decimal_value(self.risk),
            "sourceDigest": self.source_digest,
            "inputs": sorted(set(self.inputs)),
        }

    def arguments(self) -> Mapping[str, JsonValue]:
        """Likewise; the score as text, for canonical JSON of the trail has no floats."""
        return {
            "tier": self.tier.value,
            "risk": f"{self.risk:.4f}",
            "factors": dict(self.factors),
            "source_digest": self.source_digest,
            "inputs": sorted(set(self.inputs)),
        }


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


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectServer(Action):
    """Start a tool server and list its tools.

    Attributes:
        server: Name in the configuration.
        command: What is run, as one line.
        secrets: Paths of the vault references in the server's environment.
    """

    kind: ClassVar[str] = "ConnectServer"
    own: ClassVar[bool] = True
    server: str
    command: str
    secrets: tuple[str, ...] = ()

    @property
    def recovery(self) -> RecoveryClass:
        """The process died with us."""
        return RecoveryClass.READ_ONLY

    @property
    def resource(self) -> Resource:
        """The server."""
        return Resource("ToolServer", self.server)

    def context(self) -> Mapping[str, JsonValue]:
        """The command as one line."""
        return {"command": self.command}

    def arguments(self) -> Mapping[str, JsonValue]:
        """The command, and the secrets that it is given."""
        return {"command": self.command, "secrets": list(self.secrets)}


@dataclass(frozen=True, slots=True)
class ToolRef:
    """A catalogued tool as the gate sees it.

    Attributes:
        name: `server.tool`.
        server: Name of the server in the configuration.
        schema_digest: SHA-256 (hex) of the canonical definition that was verified or, unpinned, seen.
        input_schema: JSON Schema 2020-12 of the arguments.
        verified: A signature holds and the pin is unchanged.
        recovery: Declared in the operator's manifest; never-retry otherwise.
    """

    name: ToolName
    server: str
    schema_digest: str
    input_schema: Mapping[str, JsonValue] = field(compare=False)
    verified: bool = False
    recovery: RecoveryClass = RecoveryClass.NEVER_RETRY


@dataclass(frozen=True, slots=True, kw_only=True)
class InvokeTool(Action):
    """Call a tool.

    Attributes:
        tool: The catalogued tool.
        values: Arguments, valid against its schema; `vault://` references stand in them unresolved.
        labels: Label of each top-level argument.
        secrets: Paths of the vault references in the arguments.
        timeout_s: Deadline of the call.
        recheck: Runs before the call on the effective action: raises if tool, pin or schema no longer fit.
    """

    kind: ClassVar[str] = "InvokeTool"
    tool: ToolRef
    values: Mapping[str, JsonValue]
    labels: Mapping[str, Label] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    timeout_s: float = 30.0
    recheck: Callable[["InvokeTool"], None] | None = field(default=None, compare=False)

    @property
    def recovery(self) -> RecoveryClass:
        """As the manifest declares."""
        return self.tool.recovery

    @property
    def resource(self) -> Resource:
        """The tool, in its server."""
        return Resource(
            "Tool",
            self.tool.name,
            (
                ("server", self.tool.server),
                ("verified", self.tool.verified),
                ("recovery", self.tool.recovery.value),
            ),
            (("ToolServer", self.tool.server),),
        )

    def context(self) -> Mapping[str, JsonValue]:
        """Arguments by the tool's schema, the label of each, their join, and the secrets asked for."""
        return tool_context(self.tool.input_schema, self.values, self.labels, self.label, self.secrets)

    def arguments(self) -> Mapping[str, JsonValue]:
        """The arguments, with vault references unresolved."""
        return self.values

    def request(self) -> PolicyRequest:
        """Each tool is an action of its own below `InvokeTool`."""
        return PolicyRequest(self.principal, f"InvokeTool::{self.tool.name}", self.resource, self.context())


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecuteCode(Action):
    """Run code in a sandbox.

    Attributes:
        code: Source text.
        code_digest: SHA-256 (hex) of it.
        tier: Where it must run, at least.
        inputs: JSON values by variable name.
        memory_mib, timeout_s: Limits inside the sandbox.
    """

    kind: ClassVar[str] = "ExecuteCode"
    code: str
    code_digest: str
    tier: SecurityTier = SecurityTier.INTERPRETER
    inputs: Mapping[str, JsonValue] = field(default_factory=dict)
    memory_mib: int = 64
    timeout_s: float = 10.0

    @property
    def recovery(self) -> RecoveryClass:
        """Pure computation in the interpreter may run again; anything else may not."""
        return RecoveryClass.READ_ONLY if self.tier is SecurityTier.INTERPRETER else RecoveryClass.NEVER_RETRY

    @property
    def resource(self) -> Resource:
        """The sandbox tier."""
        return Resource("Sandbox", self.tier.value, (("tier", self.tier.value),))

    def context(self) -> Mapping[str, JsonValue]:
        """Digest, tier, limits and the joined label."""
        return {
            "codeDigest": self.code_digest,
            "tier": self.tier.value,
            "memoryMib": self.memory_mib,
            "timeoutMs": round(self.timeout_s * 1000),
            "label": label_context(self.label),
        }

    def arguments(self) -> Mapping[str, JsonValue]:
        """The digest of the code and its inputs."""
        return {"code_digest": self.code_digest, "tier": self.tier.value, "inputs": self.inputs}


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


def agent_resource(principal: Principal) -> Resource:
    """The entity of an agent, as resource or principal."""
    return Resource(
        "Agent",
        principal.agent,
        (("owner", principal.owner), ("trust", principal.trust)),
        tuple(("Group", group) for group in principal.groups),
    )
