"""What an agent file may call without declaring it, and which errors its body may catch: tables only.

A call `f(…)` means, in this order: the effect or helper `f` of this page, a function declared in the agent, one
declared in the file, a variable that holds a lambda. Names of effects and helpers cannot be declared again as
functions; a variable may bear one (it is found where a value is asked for, never where one is called).
`x.f(y)` is the helper `f(x, y)`, for every helper in `METHODS`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from symbi.errors import (
    AgentFailed,
    ApprovalPending,
    ApprovalRequired,
    AskFailed,
    BudgetExceeded,
    CodeFailed,
    Denied,
    EffectInDoubt,
    InternalError,
    MemoryLimit,
    OutputLimit,
    Overloaded,
    PermitRefused,
    PinMismatch,
    PolicyDenied,
    RateLimited,
    SandboxUnavailable,
    ScriptFailed,
    SignatureInvalid,
    StepLimit,
    StoreUnavailable,
    SymbiError,
    TimeLimit,
    ToolFailed,
    ToolServerUnavailable,
)


@dataclass(frozen=True, slots=True)
class Signature:
    """How something is called.

    Attributes:
        name: The name.
        parameters: Names of the parameters, in order.
        required: How many of them, from the left, must be given.
        variadic: Any number of further arguments by position.
        keywords: Any further arguments by name. The parameters are then given by position alone, so that no name is
            lost to them: `tool("crm.find", name = "Ada")` hands `name` to the tool.
        function: Index of the parameter that takes a lambda; None where there is none.
    """

    name: str
    parameters: tuple[str, ...] = ()
    required: int = 0
    variadic: bool = False
    keywords: bool = False
    function: int | None = None

    def __str__(self) -> str:
        shown = [
            parameter if index < self.required else f"[{parameter}]" for index, parameter in enumerate(self.parameters)
        ]
        more = ["…"] if self.variadic or self.keywords else []
        return f"{self.name}({', '.join(shown + more)})"


def _table(*signatures: Signature) -> Mapping[str, Signature]:
    return MappingProxyType({signature.name: signature for signature in signatures})


EFFECTS: Final = _table(
    Signature("tool", ("name",), 1, keywords=True),
    Signature("python", ("code",), 1, keywords=True),
    Signature("run", ("image", "command", "inputs", "outputs", "network", "env", "timeout", "credentials"), 2),
    Signature("log", ("message",), 1),
    Signature("now"),
    Signature("random"),
    Signature("endorse", ("value", "name"), 2),
    Signature("declassify", ("value", "name", "to"), 2),
    Signature("approval", ("who", "what"), 2),
    Signature("send", ("agent", "message", "after"), 2),
    Signature("ask", ("agent", "message"), 2),
    Signature("publish", ("topic", "message"), 2),
    Signature("remember", ("content", "kind", "tags", "importance", "form", "half_life"), 1),
    Signature("search", ("about", "base", "limit"), 2),
    Signature("answer", ("question", "base"), 2),
    Signature(
        "recall", ("about", "kind", "tags", "text", "form", "since", "until", "limit", "tokens", "of", "whole"), 0
    ),
)
"""What reaches the world: each call passes the gate and is journalled."""

MEMORIES: Final = ("remember", "recall")
"""Effects on what the agent, or another one, remembers."""

MESSAGES: Final = ("send", "ask", "publish")
"""Effects that hand a value to other agents."""

RELEASES: Final = ("endorse", "declassify")
"""Effects that lower the label of a value: each is written with a name, which policies permit."""

RELEASE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
"""How a release is called."""

RELEASE_LEVELS: Final = ("public", "internal", "confidential")
"""What a value can be declassified to."""

IMAGE: Final = re.compile(r"(?:[a-z0-9][a-z0-9._/:-]{0,200}@)?sha256:[0-9a-f]{64}", re.ASCII)
"""How an image is named: by what is in it. A tag may be another image tomorrow."""

LATER_EFFECTS: Final = ("reason",)
"""Effects of the language that have no room yet; `check` refuses them where they stand."""

LATER_DECLARATIONS: Final = ("channel", "webhook")
"""Declarations of the language that have no room yet; `check` refuses them where they stand."""

PURE: Final = _table(
    # text
    Signature("len", ("value",), 1),
    Signature("upper", ("text",), 1),
    Signature("lower", ("text",), 1),
    Signature("trim", ("text",), 1),
    Signature("split", ("text", "separator"), 1),
    Signature("lines", ("text",), 1),
    Signature("join", ("list", "separator"), 1),
    Signature("replace", ("text", "old", "new"), 3),
    Signature("contains", ("value", "item"), 2),
    Signature("starts_with", ("text", "prefix"), 2),
    Signature("ends_with", ("text", "suffix"), 2),
    Signature("index_of", ("value", "item"), 2),
    Signature("format", ("template",), 1, variadic=True, keywords=True),
    # records
    Signature("keys", ("record",), 1),
    Signature("values", ("record",), 1),
    Signature("items", ("record",), 1),
    Signature("get", ("value", "key", "default"), 2),
    Signature("merge", ("record", "other"), 2),
    # lists
    Signature("sum", ("list",), 1),
    Signature("min", ("value",), 1, variadic=True),
    Signature("max", ("value",), 1, variadic=True),
    Signature("sort", ("list", "key"), 1, function=1),
    Signature("map", ("list", "function"), 2, function=1),
    Signature("filter", ("list", "function"), 2, function=1),
    Signature("any", ("list", "function"), 1, function=1),
    Signature("all", ("list", "function"), 1, function=1),
    Signature("count", ("list", "function"), 1, function=1),
    Signature("reverse", ("value",), 1),
    Signature("slice", ("value", "start", "end"), 2),
    Signature("append", ("list", "item"), 2),
    Signature("unique", ("list",), 1),
    Signature("flatten", ("list",), 1),
    Signature("first", ("list",), 1),
    Signature("last", ("list",), 1),
    Signature("range", ("start", "end", "step"), 1),
    # numbers
    Signature("abs", ("number",), 1),
    Signature("round", ("number", "digits"), 1),
    Signature("floor", ("number",), 1),
    Signature("ceil", ("number",), 1),
    # conversion
    Signature("str", ("value",), 1),
    Signature("int", ("value",), 1),
    Signature("float", ("value",), 1),
    Signature("bool", ("value",), 1),
    Signature("type_of", ("value",), 1),
    Signature("parse_json", ("text",), 1),
    Signature("to_json", ("value",), 1),
)
"""Helpers: same arguments, same answer, no effect. `range(n)` counts from 0; `range(a, b)` from a up to, without, b."""

METHODS: Final = frozenset(PURE) - {"range"}
"""Helpers that can be called on a value: `x.contains(y)` is `contains(x, y)`."""

BUILTIN_TYPES: Final = ("String", "Path", "int", "float", "bool", "Any")
"""Types that need no declaration. `Path` is the name of a file; `Any` is every JSON value."""

GENERIC_TYPES: Final[Mapping[str, int]] = MappingProxyType(
    {"List": 1, "Array": 1, "Set": 1, "Optional": 1, "Map": 2, "Result": 2}
)
"""Generic types and how many arguments they take. `Array` is another word for `List`."""

_UNAVAILABLE = (SandboxUnavailable, ToolServerUnavailable, Overloaded)
_WORK = (AgentFailed, ToolFailed, CodeFailed, ScriptFailed, AskFailed)
_LIMITS = (TimeLimit, MemoryLimit, OutputLimit)

CATCHABLE: Final[Mapping[str, tuple[type[SymbiError], ...]]] = MappingProxyType(
    {
        "Denied": (Denied,),
        "PolicyDenied": (PolicyDenied,),
        "ApprovalRequired": (ApprovalRequired,),
        "RateLimited": (RateLimited,),
        "VerificationError": (SignatureInvalid, PinMismatch),
        "SignatureInvalid": (SignatureInvalid,),
        "PinMismatch": (PinMismatch,),
        "LimitExceeded": _LIMITS,
        "TimeLimit": (TimeLimit,),
        "MemoryLimit": (MemoryLimit,),
        "OutputLimit": (OutputLimit,),
        "Unavailable": _UNAVAILABLE,
        "SandboxUnavailable": (SandboxUnavailable,),
        "ToolServerUnavailable": (ToolServerUnavailable,),
        "Overloaded": (Overloaded,),
        "AgentFailed": _WORK,
        "ToolFailed": (ToolFailed,),
        "CodeFailed": (CodeFailed,),
        "ScriptFailed": (ScriptFailed,),
        "AskFailed": (AskFailed,),
        "Error": (Denied, SignatureInvalid, PinMismatch, *_LIMITS, *_UNAVAILABLE, *_WORK),
    }
)
"""Kinds that a body may name in `catch (Kind e)`, and the classes each stands for; `catch (e)` is `catch (Error e)`."""

NEVER_CAUGHT: Final[tuple[type[SymbiError], ...]] = (
    PermitRefused,
    StepLimit,
    StoreUnavailable,
    EffectInDoubt,
    ApprovalPending,
    BudgetExceeded,
    InternalError,
)
"""What ends a run whatever its body says; to be looked at before `CATCHABLE`."""
