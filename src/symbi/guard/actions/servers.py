"""Enforcement point 4, beside tools: what is asked of a tool server, and what a tool server asks of whoever called it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar
from urllib.parse import urlsplit

from symbi.guard.actions.base import Action
from symbi.policy.context import json_bytes, label_context
from symbi.types import JsonValue, RecoveryClass, Resource


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerQuestion(Action):
    """Base of what is asked of a server beside a tool call. It reads; a server that changes something then lies.

    Attributes:
        server: Name in the configuration.
        timeout_s: Deadline of the answer.
    """

    server: str
    timeout_s: float = 30.0

    @property
    def recovery(self) -> RecoveryClass:
        """Reading changes nothing."""
        return RecoveryClass.READ_ONLY

    @property
    def begins_within_s(self) -> float | None:
        """Its deadline, as of a tool call."""
        return self.timeout_s

    @property
    def resource(self) -> Resource:
        """The server."""
        return Resource("ToolServer", self.server)


@dataclass(frozen=True, slots=True, kw_only=True)
class BrowseServer(ServerQuestion):
    """List what a server offers beside tools.

    Attributes:
        what: `resources`, `templates` or `prompts`.
    """

    kind: ClassVar[str] = "BrowseServer"
    what: str

    def context(self) -> Mapping[str, JsonValue]:
        """What is listed."""
        return {"label": label_context(self.label), "what": self.what}

    def arguments(self) -> Mapping[str, JsonValue]:
        """What is listed."""
        return {"what": self.what}


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadResource(ServerQuestion):
    """Read a resource of a server, or hear of it.

    Attributes:
        uri: Which.
        how: `read`; `subscribe`, for its changes to be told; or `update`, before it is told that there was one.
    """

    kind: ClassVar[str] = "ReadResource"
    uri: str
    how: str = "read"

    @property
    def holdable(self) -> bool:
        """Nobody is asked whether a change may be told of: whoever hears of it has to ask before he reads it."""
        return self.how != "update" and super(ReadResource, self).holdable

    def context(self) -> Mapping[str, JsonValue]:
        """The URI, its scheme, and the label of what it was made of."""
        return {"label": label_context(self.label), "uri": self.uri, "scheme": _scheme(self.uri)}

    def arguments(self) -> Mapping[str, JsonValue]:
        """The URI, and what for if it is not read."""
        return {"uri": self.uri} if self.how == "read" else {"uri": self.uri, "how": self.how}


@dataclass(frozen=True, slots=True, kw_only=True)
class GetPrompt(ServerQuestion):
    """Have a server fill in one of its prompts.

    Attributes:
        name: Which.
        values: Its arguments.
    """

    kind: ClassVar[str] = "GetPrompt"
    name: str
    values: Mapping[str, str] = field(default_factory=dict)

    def context(self) -> Mapping[str, JsonValue]:
        """The prompt, the names of its arguments, and the label that joins them."""
        return {"label": label_context(self.label), "prompt": self.name, "inputs": sorted(self.values)}

    def arguments(self) -> Mapping[str, JsonValue]:
        """The prompt and its arguments."""
        return {"prompt": self.name, "values": dict(self.values)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Complete(ServerQuestion):
    """Ask a server how an argument of a prompt or of a resource template may go on.

    Attributes:
        of: `prompt` or `resource`.
        name: The prompt's name, or the template.
        argument: Which argument.
        value: What is written of it.
        others: The other arguments so far.
    """

    kind: ClassVar[str] = "Complete"
    of: str
    name: str
    argument: str
    value: str
    others: Mapping[str, str] = field(default_factory=dict)

    def context(self) -> Mapping[str, JsonValue]:
        """What is completed, and the label of what is written of it."""
        return {"label": label_context(self.label), "of": self.of, "name": self.name, "argument": self.argument}

    def arguments(self) -> Mapping[str, JsonValue]:
        """All that the server is told."""
        named = {"of": self.of, "name": self.name, "argument": self.argument}
        return {**named, "value": self.value, "others": dict(self.others)}


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerAsks(Action):
    """Base of what a server asks of whoever called it, while the call is under way.

    The principal is who called. Its label is that of the question: untrusted, and as confidential as the call.

    Attributes:
        server: Name in the configuration.
        during: The effect in which it asks.
        question: The parameters of the request, as they came.
        answer: What is to be answered, where that is decided once more, with a label of its own; None before.
        name: What the server calls the question, if it does.
        among: How many it asks at once, and waits for together; each is decided by itself.
    """

    server: str
    during: str
    question: Mapping[str, JsonValue]
    answer: Mapping[str, JsonValue] | None = None
    name: str = ""
    among: int = 1

    @property
    def holdable(self) -> bool:
        """It cannot wait for people: the server waits for it, and does not ask again."""
        return False

    @property
    def resource(self) -> Resource:
        """The server."""
        return Resource("ToolServer", self.server)

    def arguments(self) -> Mapping[str, JsonValue]:
        """The question, and how long its answer is where there is one: what a person writes is nothing for the trail."""
        asked: dict[str, JsonValue] = {"during": self.during, "question": self.question}
        if self.name:
            asked["name"] = self.name
        return asked if self.answer is None else {**asked, "answer_bytes": json_bytes(self.answer)}


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSampling(ServerAsks):
    """A server wants a model of the caller's to answer."""

    kind: ClassVar[str] = "ServerSampling"

    def context(self) -> Mapping[str, JsonValue]:
        """How much it sends and wants, and whether the model may ask for tools."""
        tools = self.question.get("tools")
        return {
            "label": label_context(self.label),
            "maxTokens": _whole(self.question.get("maxTokens")),
            "messages": len(_items(self.question.get("messages"))),
            "tools": bool(tools),
            "sizeBytes": json_bytes(self.question),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerElicitation(ServerAsks):
    """A server wants to know something of the person behind the caller."""

    kind: ClassVar[str] = "ServerElicitation"

    def context(self) -> Mapping[str, JsonValue]:
        """A form with these fields, or a page on this host that the person is to open."""
        schema = self.question.get("requestedSchema")
        fields = schema.get("properties") if isinstance(schema, Mapping) else None
        return {
            "label": label_context(self.label),
            "mode": "url" if self.question.get("mode") == "url" else "form",
            "fields": sorted(fields) if isinstance(fields, Mapping) else [],
            "host": _host(str(self.question.get("url", ""))),
            "sizeBytes": json_bytes(self.question),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerRoots(ServerAsks):
    """A server wants to know in which folders the caller works."""

    kind: ClassVar[str] = "ServerRoots"
    question: Mapping[str, JsonValue] = field(default_factory=dict)


def _items(value: JsonValue) -> Sequence[JsonValue]:
    return value if isinstance(value, Sequence) and not isinstance(value, str) else ()


def _whole(value: JsonValue) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _scheme(uri: str) -> str:
    return uri.partition(":")[0].lower() if ":" in uri else ""


def _host(url: str) -> str:
    """The host of a URL; empty where there is none to be read."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
