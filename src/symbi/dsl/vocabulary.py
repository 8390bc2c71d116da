"""The words of policy rules: what a rule can be about (`VERBS`) and what its guard can read (`ATTRIBUTES`).

The tables follow `policy/schema.cedarschema`, whose names are camelCase; agent files write snake_case.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from symbi.policy.fields import Effect, Risk
from symbi.types import Confidentiality, Integrity, Priority, RecoveryClass, SecurityTier


@dataclass(frozen=True, slots=True)
class Verb:
    """One way to say what a rule is about.

    Attributes:
        name: The word.
        actions: Cedar actions that an `allow` with it permits.
        form: How it is written.
        meaning: What it covers.
        aliases: Further words for the same.
        bare: It may stand without an argument.
        denies: Cedar actions that a `deny` forbids beyond those; a deny is read as widely as it can be meant.
    """

    name: str
    actions: tuple[str, ...]
    form: str
    meaning: str
    aliases: tuple[str, ...] = ()
    bare: bool = False
    denies: tuple[str, ...] = ()


VERBS: Final = (
    Verb(
        "call",
        ("InvokeTool",),
        'call("server.tool"), call("server.*"), call(any)',
        "call a tool",
        aliases=("tool", "invoke"),
    ),
    Verb(
        "use",
        ("InvokeTool", "CallModel"),
        'use("server.tool"), use("llm"), use("python"), use(any)',
        "call a tool, a model, or what a capability names; `any` is every tool and model",
    ),
    Verb("model", ("CallModel",), 'model("name"), model(any)', "ask a model"),
    Verb("connect", ("ConnectServer",), 'connect("server"), connect(any)', "start a tool server and list its tools"),
    Verb(
        "browse",
        ("BrowseServer",),
        'browse("server"), browse(any)',
        "list the resources, templates and prompts of a tool server",
    ),
    Verb("resource", ("ReadResource",), 'resource("server"), resource(any)', "read a resource of a tool server"),
    Verb("prompt", ("GetPrompt",), 'prompt("server"), prompt(any)', "have a tool server fill in a prompt"),
    Verb(
        "complete",
        ("Complete",),
        'complete("server"), complete(any)',
        "ask a tool server how an argument of a prompt or a resource may go on",
    ),
    Verb(
        "sampling",
        ("ServerSampling",),
        'sampling("server"), sampling(any)',
        "let a tool server that was called have a model of the caller's answer",
    ),
    Verb(
        "elicitation",
        ("ServerElicitation",),
        'elicitation("server"), elicitation(any)',
        "let a tool server that was called ask the person behind the caller",
    ),
    Verb(
        "roots",
        ("ServerRoots",),
        'roots("server"), roots(any)',
        "let a tool server that was called know in which folders the caller works",
    ),
    Verb("create", ("CreateAgent",), "create(), create(self)", "bring the agent to life", bare=True),
    Verb("configure", ("ConfigureAgent",), "configure(), configure(self)", "change the agent's settings", bare=True),
    Verb("allocate", ("AllocateResources",), "allocate(), allocate(pool)", "reserve memory, CPU and time", bare=True),
    Verb(
        "execute",
        ("ExecuteCode",),
        'python, execute("interpreter"), execute(any)',
        "run code, in the named sandbox or in any",
        aliases=("python",),
        bare=True,
    ),
    Verb(
        "run",
        ("RunContainer",),
        "run, run(any)",
        'run a program of an image in a container: of any, or of one, `run("sha256:…")`',
        bare=True,
    ),
    Verb("log", ("WriteLog",), "log", "write a line to the run's log", bare=True),
    Verb("now", ("ReadClock",), "now", "read the clock", aliases=("clock",), bare=True),
    Verb("random", ("DrawRandom",), "random", "draw random numbers", bare=True),
    Verb(
        "approval",
        ("RequestApproval",),
        'approval, approval("finance-leads")',
        "ask people to agree, anybody or those named",
        bare=True,
    ),
    Verb(
        "read",
        ("ReadData",),
        'read("store"), read("server.tool"), read(data), read(any)',
        "read a memory or knowledge base; a tool only where it is declared read-only. "
        "`deny: read(any)` also stops every tool",
        denies=("InvokeTool",),
    ),
    Verb(
        "write",
        ("WriteData",),
        'write("store"), write("server.tool"), write(data), write(any)',
        "write to a memory or knowledge base, or call the named tool. "
        "`deny: write(any)` also stops every tool that is not declared read-only",
        denies=("InvokeTool",),
    ),
    Verb(
        "export",
        ("ExportData",),
        'export("store"), export("server.tool"), export(data), export(any)',
        "take data out of a memory or knowledge base, or call the named tool. "
        "`deny: export(any)` also stops every tool and model, for arguments leave with a call",
        denies=("InvokeTool", "CallModel"),
    ),
    Verb(
        "endorse",
        ("EndorseValue",),
        'endorse("name"), endorse(any)',
        'believe a value that is not trusted, at the `endorse(value, "name")` of that name',
    ),
    Verb(
        "declassify",
        ("DeclassifyValue",),
        'declassify("name"), declassify(any)',
        'let a confidential value travel, at the `declassify(value, "name")` of that name',
    ),
    Verb("send", ("SendMessage",), 'send("agent"), send(any)', "send a message to an agent, or ask it"),
    Verb("ask", ("SendMessage",), 'ask("agent"), ask(any)', "send a message to an agent, and wait for its answer"),
    Verb("publish", ("PublishMessage",), 'publish("topic"), publish(any)', "publish to a topic"),
    Verb(
        "remember",
        ("WriteData",),
        "remember, remember(any)",
        "keep things in the memory of the agent, and forget them; `any` is every memory",
        bare=True,
    ),
    Verb(
        "recall",
        ("ReadData",),
        'recall, recall("agent"), recall(any)',
        "look into the memory of the agent, or into what another one shares; `any` is every memory",
        bare=True,
    ),
    Verb(
        "search",
        ("ReadData",),
        'search("collection"), search(any)',
        "look something up in a collection of documents",
        aliases=("answer",),
    ),
    Verb("subscribe", ("SubscribeTopic",), 'subscribe("topic"), subscribe(any)', "listen to a topic"),
)
"""All verbs. `any` and `all` stand for every resource of the verb, and alone for every action."""

VERB_BY_WORD: Final[Mapping[str, Verb]] = MappingProxyType(
    {word: verb for verb in VERBS for word in (verb.name, *verb.aliases)}
)

ANY_WORDS: Final = ("any", "all", "all_operations", "everything")
"""Words for every resource of a verb, or every action."""

DATA_WORDS: Final = ("data", "input", "output")
"""Words for whatever data an action handles, beside the agent's own parameters: `export(data) if data.contains_pii`."""

MODEL_WORDS: Final = ("llm", "model")
"""Words for every model."""


class Kind(StrEnum):
    """Type of a value that guards compare, as shown in messages."""

    TEXT = "text"
    WHOLE = "a whole number"
    DECIMAL = "a decimal number"
    TRUTH = "true or false"
    MILLIS = "a duration"
    SET = "a set of texts"
    GROUPS = "the agent's groups"
    COUNTER = "a counter"
    """A counter of `history.toml`: a whole number, or true or false where it is a `formerly`."""
    ARGUMENT = "an argument"
    """An argument of a tool: its type is in the tool's schema, and what it is compared with must fit."""


@dataclass(frozen=True, slots=True)
class Attribute:
    """Something a guard can read.

    Attributes:
        cedar: The Cedar expression.
        kind: Its type.
        values: All values it can have, where they are few and known: a guard that names another is wrong.
        needs: Cedar tests, in order, that hold where the value is there; empty where it always is.
    """

    cedar: str
    kind: Kind
    values: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()


def _values(members: Iterable[StrEnum]) -> tuple[str, ...]:
    return tuple(member.value for member in members)


INTEGRITIES: Final = _values(Integrity)
CONFIDENTIALITIES: Final = _values(Confidentiality)
_TIERS: Final = _values(SecurityTier)
_TRUST: Final = ("untrusted", "standard", "trusted")


def _text(cedar: str, *values: str) -> Attribute:
    return Attribute(cedar, Kind.TEXT, values)


_PRINCIPAL: Final[Mapping[str, Attribute]] = {
    "principal.owner": _text("principal.owner"),
    "principal.trust": _text("principal.trust", *_TRUST),
    "principal.groups": Attribute("principal", Kind.GROUPS),
    "principal.tier": _text("principal.tier", *_TIERS, "none"),
    "principal.capabilities": Attribute("principal.capabilities", Kind.SET),
    "request.run": _text("context.request.run"),
    "request.position": Attribute("context.request.position", Kind.WHOLE),
    "request.attempt": Attribute("context.request.attempt", Kind.WHOLE),
    **{
        f"usage.{name}": Attribute(f"context.usage.{name}", Kind.WHOLE)
        for name in ("effects", "denied", "calls", "seconds")
    },
    **{f"time.{name}": Attribute(f"context.time.{name}", Kind.WHOLE) for name in ("hour", "minute", "weekday", "day")},
    "time.epoch_s": Attribute("context.time.epochS", Kind.WHOLE),
}
_LABEL: Final[Mapping[str, Attribute]] = {
    "label.integrity": _text("context.label.integrity", *INTEGRITIES),
    "label.confidentiality": _text("context.label.confidentiality", *CONFIDENTIALITIES),
    "label.categories": Attribute("context.label.categories", Kind.SET),
}
_AGENT: Final[Mapping[str, Attribute]] = {
    "resource.owner": _text("resource.owner"),
    "resource.trust": _text("resource.trust", *_TRUST),
    "resource.tier": _text("resource.tier", *_TIERS, "none"),
    "resource.capabilities": Attribute("resource.capabilities", Kind.SET),
}
_STORE: Final[Mapping[str, Attribute]] = {
    "resource.owner": _text("resource.owner"),
    "resource.kind": _text("resource.kind"),
    "resource.classification": _text("resource.classification", *CONFIDENTIALITIES),
    "resource.purpose": _text("resource.purpose"),
    "purpose": _text("context.purpose"),
}
_TOPIC: Final[Mapping[str, Attribute]] = {
    "resource.owner": _text("resource.owner"),
    "resource.classification": _text("resource.classification", *CONFIDENTIALITIES),
}
_AFTER: Final[Mapping[str, Attribute]] = {
    "after.integrity": _text("context.after.integrity", *INTEGRITIES),
    "after.confidentiality": _text("context.after.confidentiality", *CONFIDENTIALITIES),
}
_SIZE: Final[Mapping[str, Attribute]] = {"size_bytes": Attribute("context.sizeBytes", Kind.WHOLE)}
_RUN_LIMITS: Final[Mapping[str, Attribute]] = {
    "memory_mib": Attribute("context.memoryMib", Kind.WHOLE),
    "timeout_ms": Attribute("context.timeoutMs", Kind.WHOLE),
    "timeout": Attribute("context.timeoutMs", Kind.MILLIS),
}
_MANIFEST: Final[Mapping[str, Attribute]] = {
    "risk": _text("resource.risk", *_values(Risk)),
    "effect": _text("resource.effect", *_values(Effect)),
}
_TOOL: Final[Mapping[str, Attribute]] = {
    **_MANIFEST,
    **{
        f"{root}.{name}": attribute
        for root in ("resource", "tool")
        for name, attribute in {
            "server": _text("resource.server"),
            "verified": Attribute("resource.verified", Kind.TRUTH),
            "recovery": _text("resource.recovery", *_values(RecoveryClass)),
            **_MANIFEST,
        }.items()
    },
}

ARGUMENT_SETS: Final[Mapping[str, Attribute]] = MappingProxyType(
    {
        "opaque": Attribute("context.opaque", Kind.SET),
        "sinks": Attribute("context.sinks", Kind.SET),
        "tainted": Attribute("context.tainted", Kind.SET),
        "confidential_sinks": Attribute("context.confidentialSinks", Kind.SET),
        "unexplained": Attribute("context.unexplained", Kind.SET),
    }
)
"""Sets of a call whose members are names of its arguments."""

_CALL: Final[Mapping[str, Attribute]] = {
    **ARGUMENT_SETS,
    "secrets": Attribute("context.secrets", Kind.SET),
    "words_known": Attribute("context.wordsKnown", Kind.TRUTH),
    **{f"grant.{name}": Attribute(f"context.grant.{name}", Kind.TRUTH) for name in ("given", "tool", "arguments")},
}

ATTRIBUTES: Final[Mapping[str, Mapping[str, Attribute]]] = MappingProxyType(
    {
        "CreateAgent": {
            **_PRINCIPAL,
            **_AGENT,
            "tier": _text("context.tier", *_TIERS),
            "risk": Attribute("context.risk", Kind.DECIMAL),
            "source_digest": _text("context.sourceDigest"),
            "inputs": Attribute("context.inputs", Kind.SET),
        },
        "ConfigureAgent": {**_PRINCIPAL, **_LABEL, **_AGENT, "keys": Attribute("context.keys", Kind.SET)},
        "SendMessage": {
            **_PRINCIPAL,
            **_LABEL,
            **_AGENT,
            **_SIZE,
            "expects_reply": Attribute("context.expectsReply", Kind.TRUTH),
        },
        "PublishMessage": {**_PRINCIPAL, **_LABEL, **_TOPIC, **_SIZE},
        "SubscribeTopic": {**_PRINCIPAL, **_LABEL, **_TOPIC},
        "AllocateResources": {
            **_PRINCIPAL,
            **_RUN_LIMITS,
            "cpu_milli": Attribute("context.cpuMilli", Kind.WHOLE),
            "disk_mibps": Attribute("context.diskMibps", Kind.WHOLE),
            "network_mibitps": Attribute("context.networkMibitps", Kind.WHOLE),
            "priority": _text("context.priority", *_values(Priority)),
        },
        "ConnectServer": {**_PRINCIPAL, "command": _text("context.command")},
        "BrowseServer": {**_PRINCIPAL, **_LABEL, "what": _text("context.what", "resources", "templates", "prompts")},
        "ReadResource": {**_PRINCIPAL, **_LABEL, "uri": _text("context.uri"), "scheme": _text("context.scheme")},
        "GetPrompt": {
            **_PRINCIPAL,
            **_LABEL,
            "prompt": _text("context.prompt"),
            "inputs": Attribute("context.inputs", Kind.SET),
        },
        "Complete": {
            **_PRINCIPAL,
            **_LABEL,
            "of": _text("context.of", "prompt", "resource"),
            **{name: _text(f"context.{name}") for name in ("name", "argument")},
        },
        "ServerSampling": {
            **_PRINCIPAL,
            **_LABEL,
            **_SIZE,
            "max_tokens": Attribute("context.maxTokens", Kind.WHOLE),
            "messages": Attribute("context.messages", Kind.WHOLE),
        },
        "ServerElicitation": {
            **_PRINCIPAL,
            **_LABEL,
            **_SIZE,
            "mode": _text("context.mode", "form", "url"),
            "fields": Attribute("context.fields", Kind.SET),
            "host": _text("context.host"),
        },
        "ServerRoots": {**_PRINCIPAL, **_LABEL},
        "InvokeTool": {**_PRINCIPAL, **_LABEL, **_TOOL, **_CALL},
        "ExecuteCode": {
            **_PRINCIPAL,
            **_LABEL,
            **_RUN_LIMITS,
            "code_digest": _text("context.codeDigest"),
            "tier": _text("context.tier", *_TIERS),
            "resource.tier": _text("resource.tier", *_TIERS),
            "risk": Attribute("context.risk", Kind.DECIMAL),
            "risk_tier": _text("context.riskTier", *_TIERS),
            "cpu_milli": Attribute("context.cpuMilli", Kind.WHOLE),
        },
        "RunContainer": {
            **_PRINCIPAL,
            **_LABEL,
            **_RUN_LIMITS,
            **{name: _text(f"context.{name}") for name in ("program", "command")},
            **{
                name: Attribute(f"context.{name}", Kind.SET)
                for name in ("inputs", "outputs", "network", "hosts", "env", "credentials")
            },
            "input_digests": Attribute("context.inputDigests", Kind.SET),
            "tier": _text("context.tier", *_TIERS),
            "risk": Attribute("context.risk", Kind.DECIMAL),
            "risk_tier": _text("context.riskTier", *_TIERS),
            "cpu_milli": Attribute("context.cpuMilli", Kind.WHOLE),
            "resource.reference": _text("resource.reference"),
        },
        "CallModel": {
            **_PRINCIPAL,
            **_LABEL,
            "resource.provider": _text("resource.provider"),
            "tools": Attribute("context.tools", Kind.SET),
            "max_tokens": Attribute("context.maxTokens", Kind.WHOLE),
            "timeout_ms": _RUN_LIMITS["timeout_ms"],
            "timeout": _RUN_LIMITS["timeout"],
        },
        "ReadData": {**_PRINCIPAL, **_LABEL, **_STORE, "max_items": Attribute("context.maxItems", Kind.WHOLE)},
        "WriteData": {**_PRINCIPAL, **_LABEL, **_STORE, **_SIZE},
        "ExportData": {**_PRINCIPAL, **_LABEL, **_STORE, **_SIZE, "destination": _text("context.destination")},
        "EndorseValue": {**_PRINCIPAL, **_LABEL, **_AFTER},
        "DeclassifyValue": {**_PRINCIPAL, **_LABEL, **_AFTER},
        "ReadClock": _PRINCIPAL,
        "DrawRandom": _PRINCIPAL,
        "WriteLog": {**_PRINCIPAL, **_LABEL},
        "RequestApproval": {**_PRINCIPAL, **_LABEL, "who": _text("context.who")},
    }
)
"""What guards can read, by action. A tool's arguments come on top: `to`, `arguments.to`, `labels.to.integrity`."""

VARYING: Final = frozenset(
    name
    for table in ATTRIBUTES.values()
    for name, attribute in table.items()
    if any(attribute.kind is not other[name].kind for other in ATTRIBUTES.values() if name in other)
)
"""Names that are of another type from action to action: what they are compared with says which is meant."""

DATA_ATTRIBUTES: Final[Mapping[str, Attribute]] = MappingProxyType(
    {
        "integrity": _LABEL["label.integrity"],
        "confidentiality": _LABEL["label.confidentiality"],
        "categories": _LABEL["label.categories"],
        "verified": Attribute('(context.label.integrity != "untrusted")', Kind.TRUTH),
        "contains_pii": Attribute(
            '(["confidential", "secret"].contains(context.label.confidentiality))',
            Kind.TRUTH,
        ),
    }
)
"""What `data.NAME` means, for the actions that carry a label: the label that joins all the action is given.

`verified`: nothing untrusted went in. `contains_pii`: something confidential or secret went in; personal data is what
the operator has labelled so.
"""

HISTORY: Final = "history"
"""First word of the counters that `history.toml` declares: `history.NAME`. The set knows which there are."""

ARGUMENT_ROOTS: Final = (
    "arguments",
    "labels",
    "label",
    "secrets",
    *ARGUMENT_SETS,
    "words_known",
    "grant",
    "principal",
    "resource",
    "tool",
    "context",
    "request",
    "usage",
    "time",
    HISTORY,
    *_MANIFEST,
)
"""First words that are never the bare name of a tool's argument; `arguments.time` reads one that is called so."""
