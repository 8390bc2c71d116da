"""Enforcement point 4: external tools, code and models."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Final

from symbi.guard.actions.base import Action
from symbi.policy.context import decimal_value, label_context, tool_context
from symbi.policy.fields import UNDECLARED, ToolFlow
from symbi.policy.grants import Grant, granted
from symbi.policy.sinks import CallFacts, call_facts
from symbi.types import JsonValue, Label, RecoveryClass, Resource, SecurityTier, ToolName

UNASSESSED_SCORE: Final = 1.0  # what nobody has looked at may be anything


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectServer(Action):
    """Start a tool server and list its tools.

    Attributes:
        server: Name in the configuration.
        command: What is run, as one line.
        secrets: Paths of the vault references in the server's environment.
        discovery: The domain that is asked under which key the server's tools are signed; empty where none is.
        source: The file that the server was found in; empty where the configuration names it.
    """

    kind: ClassVar[str] = "ConnectServer"
    own: ClassVar[bool] = True
    server: str
    command: str
    secrets: tuple[str, ...] = ()
    discovery: str = ""
    source: str = ""

    @property
    def recovery(self) -> RecoveryClass:
        """The process died with us."""
        return RecoveryClass.READ_ONLY

    @property
    def resource(self) -> Resource:
        """The server."""
        return Resource("ToolServer", self.server)

    def context(self) -> Mapping[str, JsonValue]:
        """The command as one line, the domain that is asked for a key, and the file that it was found in."""
        said = {"discovery": self.discovery, "source": self.source}
        return {"command": self.command} | {name: value for name, value in said.items() if value}

    def arguments(self) -> Mapping[str, JsonValue]:
        """The command, the secrets that it is given, the domain that is asked for a key, and the file it was found in."""
        said = {"discovery": self.discovery, "source": self.source}
        known: dict[str, JsonValue] = {"command": self.command, "secrets": list(self.secrets)}
        return known | {name: value for name, value in said.items() if value}


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
        flow: Likewise: effect, risk, and which arguments are sinks; by default all of them.
        findings: How many findings the screen of its definition made (`symbi.tools.screen`).
        severity: Of the worst: `none`, `notice`, `warning` or `severe`.
    """

    name: ToolName
    server: str
    schema_digest: str
    input_schema: Mapping[str, JsonValue] = field(compare=False)
    verified: bool = False
    recovery: RecoveryClass = RecoveryClass.NEVER_RETRY
    flow: ToolFlow = field(default=UNDECLARED, compare=False)
    findings: int = field(default=0, compare=False)
    severity: str = field(default="none", compare=False)


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
        grant: What the task's request calls for, or None where nobody has said.
        facts: What was found out about where its arguments come from, of an agent whose inside nobody sees; None where the
            labels say it.
    """

    kind: ClassVar[str] = "InvokeTool"
    tool: ToolRef
    values: Mapping[str, JsonValue]
    labels: Mapping[str, Label] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    timeout_s: float = 30.0
    recheck: Callable[["InvokeTool"], None] | None = field(default=None, compare=False)
    grant: Grant | None = None
    facts: CallFacts | None = field(default=None, compare=False)

    @property
    def recovery(self) -> RecoveryClass:
        """As the manifest declares."""
        return self.tool.recovery

    @property
    def begins_within_s(self) -> float | None:
        """Its deadline: who was asleep until then would call what another owner may have called since."""
        return self.timeout_s

    @property
    def action(self) -> str:
        """Each tool is an action of its own below `InvokeTool`."""
        return f"{self.kind}::{self.tool.name}"

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
                ("risk", self.tool.flow.risk.value),
                ("effect", self.tool.flow.effect.value),
                *((("findings", self.tool.findings), ("severity", self.tool.severity)) if self.tool.findings else ()),
            ),
            (("ToolServer", self.tool.server),),
        )

    def context(self) -> Mapping[str, JsonValue]:
        """Arguments by the tool's schema, the label of each, their join, the secrets asked for, the sinks and the grant."""
        facts = self.facts or call_facts(self.tool.flow, self.values, self.labels, self.label)
        grant = granted(self.grant, self.tool.name, self.values)
        return tool_context(self.tool.input_schema, self.values, self.labels, self.label, self.secrets, facts, grant)

    def arguments(self) -> Mapping[str, JsonValue]:
        """The arguments, with vault references unresolved."""
        return self.values


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecuteCode(Action):
    """Run code in a sandbox.

    Attributes:
        code: Source text.
        code_digest: SHA-256 (hex) of it.
        tier: Where it must run, at least.
        inputs: JSON values by variable name.
        memory_mib, timeout_s: Limits inside the sandbox.
        cpu_milli: Thousandths of a core that it may use there, where a sandbox of its tier has no less.
        risk: Score, factors and the tier that follows, as texts; where nobody assessed it, policies see the worst.
    """

    kind: ClassVar[str] = "ExecuteCode"
    code: str
    code_digest: str
    tier: SecurityTier = SecurityTier.INTERPRETER
    inputs: Mapping[str, JsonValue] = field(default_factory=dict)
    memory_mib: int = 64
    cpu_milli: int = 1_000
    timeout_s: float = 10.0
    risk: Mapping[str, JsonValue] = field(default_factory=dict)

    @property
    def recovery(self) -> RecoveryClass:
        """It has no network and no file of ours in any tier: whatever it does ends with its sandbox."""
        return RecoveryClass.READ_ONLY

    @property
    def resource(self) -> Resource:
        """The sandbox tier."""
        return Resource("Sandbox", self.tier.value, (("tier", self.tier.value),))

    def context(self) -> Mapping[str, JsonValue]:
        """Digest, tier, limits, the joined label, and the risk."""
        return {
            "codeDigest": self.code_digest,
            "tier": self.tier.value,
            "risk": decimal_value(float(str(self.risk.get("score", UNASSESSED_SCORE))), "risk"),
            "riskTier": str(self.risk.get("tier", SecurityTier.TIER2.value)),
            "memoryMib": self.memory_mib,
            "cpuMilli": self.cpu_milli,
            "timeoutMs": round(self.timeout_s * 1000),
            "label": label_context(self.label),
        }

    def arguments(self) -> Mapping[str, JsonValue]:
        """The digest of the code, its inputs, and its risk where it was assessed."""
        risk = {"risk": self.risk} if self.risk else {}
        return {"code_digest": self.code_digest, "tier": self.tier.value, "inputs": self.inputs, **risk}


@dataclass(frozen=True, slots=True)
class ModelRef:
    """A model as the gate sees it.

    Attributes:
        name: As the configuration names it.
        provider: Who runs it.
    """

    name: str
    provider: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CallModel(Action):
    """Ask a model.

    Attributes:
        model: Which.
        prompt: What it is given.
        tools: Names of the tools that it may ask for.
        max_tokens: The most tokens that it may answer with.
        timeout_s: Deadline of the answer.
        remote: Whether the prompt leaves this machine; None where nobody says.
        documents: Whether it holds what documents say, which the trail never shows: they can be removed, and an event cannot.
    """

    kind: ClassVar[str] = "CallModel"
    model: ModelRef
    prompt: JsonValue = None
    tools: tuple[ToolName, ...] = ()
    max_tokens: int = 1024
    timeout_s: float = 60.0
    remote: bool | None = None
    documents: bool = False

    @property
    def recovery(self) -> RecoveryClass:
        """An answer that was not recorded was not seen. Asking again costs again, and changes nothing."""
        return RecoveryClass.READ_ONLY

    @property
    def resource(self) -> Resource:
        """The model."""
        return Resource("Model", self.model.name, (("provider", self.model.provider),))

    def context(self) -> Mapping[str, JsonValue]:
        """Label of the prompt, tools, limits, and whether the prompt leaves this machine."""
        return {
            **self._where(),
            "label": label_context(self.label),
            "tools": sorted(set(self.tools)),
            "maxTokens": self.max_tokens,
            "timeoutMs": round(self.timeout_s * 1000),
        }

    def arguments(self) -> Mapping[str, JsonValue]:
        """The prompt, the tools, the bound on the answer, and whether the prompt leaves this machine."""
        said = {"prompt": self.prompt, "tools": sorted(set(self.tools)), "maxTokens": self.max_tokens}
        return {**said, **self._where()}

    def _where(self) -> Mapping[str, JsonValue]:
        return {} if self.remote is None else {"remote": self.remote}
