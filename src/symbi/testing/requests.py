"""Policy requests of every kind, and answers of the policies of one small agent file, for tests of rules."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from symbi.dsl.compile import compile_file
from symbi.dsl.names import Tools
from symbi.dsl.parser import parse
from symbi.guard.action import (
    AllocateResources,
    BrowseServer,
    CallModel,
    Complete,
    ConfigureAgent,
    ConnectServer,
    CreateAgent,
    DataRef,
    DeclassifyValue,
    DrawRandom,
    EndorseValue,
    ExecuteCode,
    ExportData,
    GetPrompt,
    InvokeTool,
    ModelRef,
    PublishMessage,
    ReadClock,
    ReadData,
    ReadResource,
    RunContainer,
    SendMessage,
    ServerAsks,
    ServerElicitation,
    ServerRoots,
    ServerSampling,
    SubscribeTopic,
    ToolRef,
    TopicRef,
    WriteData,
    WriteLog,
)
from symbi.policy.catalog import ToolType
from symbi.policy.decision import AllowWithConditions, Deny, PolicyDecision, PolicyRequest
from symbi.policy.engine import decide
from symbi.policy.policies import PolicySet
from symbi.types import (
    AgentId,
    Confidentiality,
    Integrity,
    JsonValue,
    Label,
    Principal,
    Priority,
    RecoveryClass,
    ResourceLimits,
    SecurityTier,
    ToolName,
)

_PATH: Final[Mapping[str, JsonValue]] = {
    "type": "object",
    "properties": {"path": {"type": "string"}},
    "required": ["path"],
}
SCHEMAS: Final[Mapping[str, Mapping[str, JsonValue]]] = MappingProxyType(
    {
        "mail.send": {
            "type": "object",
            "properties": {
                "to": {"type": "string"},
                "cc": {"type": "string"},
                "amount": {"type": "integer"},
                "score": {"type": "number"},
                "urgent": {"type": "boolean"},
                "tags": {"type": "array", "items": {"type": "string"}},
                "options": {"type": "object", "properties": {"deep": {"type": "string"}}},
                "x-y": {"type": "string"},
                "risk": {"type": "string"},
                "command": {"type": "string"},
                "anything": {},
            },
        },
        "files.read": _PATH,
        "files.write": _PATH,
        "other.path": {"type": "object", "properties": {"path": {"type": "integer"}, "to": {"type": "integer"}}},
    }
)
"""Input schemas of the tools there are; `files.read` is declared read-only, the others are not."""

ME: Final = Principal(AgentId("a"), owner="ada", groups=("ops",), trust="trusted")
"""Who asks."""

STRANGER: Final = Principal(AgentId("a"))
"""The same agent, without an owner, a group, or trust."""

TAINTED: Final = Label(Integrity.UNTRUSTED)
PERSONAL: Final = Label(Integrity.USER, Confidentiality.CONFIDENTIAL)

_SAMPLING: Final[Mapping[str, JsonValue]] = {
    "messages": [{"role": "user", "content": {"type": "text", "text": "hi"}}],
    "maxTokens": 100,
}
_FORM: Final[Mapping[str, JsonValue]] = {
    "message": "Who are you?",
    "requestedSchema": {"type": "object", "properties": {"name": {"type": "string"}}},
}

# --- requests ---------------------------------------------------------------------------------


def call(
    name: str,
    values: Mapping[str, JsonValue] | None = None,
    *,
    labels: Mapping[str, Label] | None = None,
    label: Label | None = None,
    verified: bool = True,
    secrets: tuple[str, ...] = (),
    principal: Principal = ME,
) -> PolicyRequest:
    """Call a tool of `SCHEMAS`."""
    recovery = RecoveryClass.READ_ONLY if name == "files.read" else RecoveryClass.NEVER_RETRY
    tool = ToolRef(ToolName(name), name.partition(".")[0], "0" * 64, SCHEMAS[name], verified, recovery)
    return InvokeTool(
        principal=principal,
        tool=tool,
        values=values or {},
        labels=labels or {},
        label=label or Label(),
        secrets=secrets,
    ).request()


def send(**values: JsonValue) -> PolicyRequest:
    """Call `mail.send`."""
    return call("mail.send", values)


def read(path: str = "x") -> PolicyRequest:
    """Call `files.read`."""
    return call("files.read", {"path": path})


def write(path: str = "x") -> PolicyRequest:
    """Call `files.write`."""
    return call("files.write", {"path": path})


def create(
    risk: float = 0.2,
    inputs: tuple[str, ...] = (),
    tier: SecurityTier = SecurityTier.TIER2,
    principal: Principal = ME,
) -> PolicyRequest:
    """Create the agent."""
    return CreateAgent(principal=principal, source_digest="d", tier=tier, risk=risk, inputs=inputs).request()


def allocate(memory: int = 64, timeout: float = 60.0, priority: Priority = Priority.NORMAL) -> PolicyRequest:
    """Reserve mebibytes and seconds."""
    limits = ResourceLimits(memory_mb=memory, execution_timeout=timeout)
    return AllocateResources(principal=ME, limits=limits, priority=priority).request()


def connect(server: str = "files") -> PolicyRequest:
    """Start a tool server."""
    return ConnectServer(principal=ME, server=server, command="python server.py").request()


def asked_of(action: str, server: str = "files") -> PolicyRequest:
    """`BrowseServer`, `ReadResource`, `GetPrompt` or `Complete` of a server."""
    match action:
        case "BrowseServer":
            return BrowseServer(principal=ME, server=server, what="resources").request()
        case "ReadResource":
            return ReadResource(principal=ME, server=server, uri="file:///notes.txt").request()
        case "GetPrompt":
            return GetPrompt(principal=ME, server=server, name="review", values={"code": "x"}).request()
        case _:
            return Complete(
                principal=ME, server=server, of="prompt", name="review", argument="code", value="x"
            ).request()


def asked_by(action: str, server: str = "files") -> PolicyRequest:
    """`ServerSampling`, `ServerElicitation` or `ServerRoots` of a server."""
    kind: type[ServerAsks]
    match action:
        case "ServerSampling":
            kind, question = ServerSampling, _SAMPLING
        case "ServerElicitation":
            kind, question = ServerElicitation, _FORM
        case _:
            kind, question = ServerRoots, {}
    return kind(principal=ME, server=server, during="e", question=question, label=TAINTED).request()


def execute(
    tier: SecurityTier = SecurityTier.INTERPRETER,
    timeout: float = 10.0,
    label: Label | None = None,
    *,
    risk: float | None = None,
    cpu_milli: int = 1_000,
) -> PolicyRequest:
    """Run code; nobody has assessed it where no risk is given."""
    assessed = {} if risk is None else {"score": f"{risk:.4f}", "tier": ("gvisor" if risk >= 0.5 else "docker")}  # noqa: PLR2004 - the seed's
    return ExecuteCode(
        principal=ME, code="1", code_digest="d", tier=tier, timeout_s=timeout, label=label or Label(),
        risk=assessed, cpu_milli=cpu_milli,
    ).request()  # fmt: skip


def program(network: tuple[str, ...] = (), label: Label | None = None) -> PolicyRequest:
    """Run a program of an image."""
    image = f"sha256:{64 * '0'}"
    return RunContainer(
        principal=ME, image=image, command=("p",), tier=SecurityTier.TIER1, network=network, label=label or Label()
    ).request()


def log(principal: Principal = ME) -> PolicyRequest:
    """Write a line."""
    return WriteLog(principal=principal, message="x").request()


def clock() -> PolicyRequest:
    """Read the clock."""
    return ReadClock(principal=ME).request()


def random() -> PolicyRequest:
    """Draw a number."""
    return DrawRandom(principal=ME).request()


def endorse(name: str = "checked", label: Label = TAINTED) -> PolicyRequest:
    """Believe a value."""
    after = Label(Integrity.TRUSTED, label.confidentiality)
    return EndorseValue(principal=ME, label=label, name=name, value_digest="d", after=after).request()


def declassify(name: str = "summary", to: Confidentiality = Confidentiality.PUBLIC) -> PolicyRequest:
    """Let a confidential value travel."""
    after = Label(confidentiality=to)
    return DeclassifyValue(principal=ME, label=PERSONAL, name=name, value_digest="d", after=after).request()


def model(name: str = "m") -> PolicyRequest:
    """Ask a model."""
    return CallModel(principal=ME, model=ModelRef(name, "acme")).request()


def memory(action: str, name: str = "notes", owner: str = "ada", label: Label | None = None) -> PolicyRequest:
    """`ReadData`, `WriteData` or `ExportData` on a memory."""
    return _data(action, DataRef("Memory", name, owner, "long", "internal", "support"), label)


def knowledge(action: str, name: str = "notes") -> PolicyRequest:
    """`ReadData`, `WriteData` or `ExportData` on a knowledge base."""
    return _data(action, DataRef("Knowledge", name, "ada", "documents", "internal", "support"))


def _data(action: str, data: DataRef, label: Label | None = None) -> PolicyRequest:
    label = label or Label()
    match action:
        case "ReadData":
            return ReadData(principal=ME, data=data, label=label, purpose="support").request()
        case "WriteData":
            return WriteData(principal=ME, data=data, label=label, content="x", purpose="support").request()
        case _:
            return ExportData(
                principal=ME, data=data, label=label, destination="archive", content="x", purpose="support"
            ).request()


def message(name: str = "b", *, reply: bool = False) -> PolicyRequest:
    """Send to an agent, or ask it."""
    return SendMessage(principal=ME, to=Principal(AgentId(name), "ada"), body="x", expects_reply=reply).request()


def publish(name: str = "news") -> PolicyRequest:
    """Publish to a topic."""
    return PublishMessage(principal=ME, topic=TopicRef(name, "ada", "internal"), body="x").request()


def subscribe(name: str = "news") -> PolicyRequest:
    """Listen to a topic."""
    return SubscribeTopic(principal=ME, topic=TopicRef(name, "ada", "internal")).request()


def configure(**changes: JsonValue) -> PolicyRequest:
    """Change settings of the agent itself."""
    return ConfigureAgent(principal=ME, agent=ME, changes=changes).request()


# --- answers ----------------------------------------------------------------------------------


def agent_file(rules: str, extra: str = "") -> str:
    """The source of an agent `a` with these rules in one policy, all on line 1, and `extra` beside the policy."""
    return f"agent a(records: String) {{ {extra} policy p {{ {rules} }} with {{ return 1; }} }}"


def load(source: str, tools: Tools = None, types: Sequence[ToolType] | None = None) -> PolicySet:
    """The validated policies of an agent file, called `t.symbi`."""
    compiled = compile_file(parse(source, "t.symbi"), source, tools=tools)
    policies = [*compiled.policies, *(policy for agent in compiled.agents for policy in agent.policies)]
    catalogue = [ToolType(name, schema) for name, schema in SCHEMAS.items()] if types is None else types
    return PolicySet.load([], policies, catalogue)


def judge(rules: str, request: PolicyRequest, extra: str = "") -> PolicyDecision:
    """What an agent with these rules gets."""
    return decide(load(agent_file(rules, extra)), request)


def allowed(rules: str, request: PolicyRequest, extra: str = "") -> bool:
    """Whether an agent with these rules may; an answer that comes of an error is none."""
    decision = judge(rules, request, extra)
    assert not (isinstance(decision, Deny) and decision.errors), decision
    return not isinstance(decision, Deny)


def conditions(rules: str, request: PolicyRequest) -> list[tuple[str, str]]:
    """Under which conditions an agent with these rules may, as sorted pairs of kind and value."""
    decision = judge(rules, request)
    assert not isinstance(decision, Deny), decision
    if not isinstance(decision, AllowWithConditions):
        return []
    return sorted((condition.kind.value, condition.value) for condition in decision.conditions)
