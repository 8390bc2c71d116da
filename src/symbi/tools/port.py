"""The ports of this room: a server of tools and its session, where pins are kept, and where secrets come from."""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import TracebackType
from typing import Any, Final, Protocol, Self, TypeAlias

from symbi.guard.action import (
    BrowseServer,
    Complete,
    ConnectServer,
    GetPrompt,
    InvokeTool,
    ReadResource,
    RunContainer,
)
from symbi.guard.permit import Permit
from symbi.tools.asking import NO_CALLER, CallHooks
from symbi.types import JsonValue

PROTOCOL_FAILURE: Final = "agent.tool_protocol"
"""Code of an answer that is none: it speaks against the server, which an error of a tool's own does not."""
MAX_TOOL_OUTPUT_BYTES: Final = 1_048_576  # bounds what a tool can push into a context
SERVER_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")  # no dot: the first dot of `server.tool` parts the two
TOOL_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,128}")  # what the protocol asks of a tool's name


@dataclass(frozen=True, slots=True)
class ToolDefinition:
    """A tool as its server describes it: data from outside, not yet believed.

    Attributes:
        server: Name of the server in the configuration.
        name: Name on the server.
        description: What the server says it does; empty if nothing.
        input_schema: JSON Schema of the arguments.
        output_schema: JSON Schema of structured output, if declared.
        title: For display.
        annotations: MCP annotations (hints, never trusted).
        meta: `_meta` of the definition; a SchemaPin signature may stand there.
        rest: Every further member of the definition as it came, such as `icons`.
    """

    server: str
    name: str
    description: str
    input_schema: Mapping[str, JsonValue]
    output_schema: Mapping[str, JsonValue] | None = None
    title: str | None = None
    annotations: Mapping[str, JsonValue] = field(default_factory=dict)
    meta: Mapping[str, JsonValue] = field(default_factory=dict)
    rest: Mapping[str, JsonValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RawToolResult:
    """What a server answered, decoded from the protocol and nothing more.

    Attributes:
        content: Text parts, joined by line feeds; other parts are named by type and size.
        structured: Structured content, if any.
        is_error: The tool itself says that it failed.
        blocks: All parts as they came, in the protocol's form: text, images, audio, links, embedded resources.
        meta: `_meta` of the answer.
    """

    content: str
    structured: JsonValue
    is_error: bool
    blocks: Sequence[Mapping[str, JsonValue]] = field(default=(), compare=False)
    meta: Mapping[str, JsonValue] = field(default_factory=dict, compare=False)


class ToolServer(Protocol):
    """One server of tools; an async context manager that owns its process or connection."""

    async def __aenter__(self) -> Self:
        """Prepare; nothing is started before `connect`."""

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the session and the process, also after a cancellation."""

    @property
    def connected(self) -> bool:
        """Whether a session is up, as far as can be known without asking the server."""

    async def connect(self, permit: Permit[ConnectServer]) -> Sequence[ToolDefinition]:
        """Redeem the permit, start the session, and list the tools (all pages, no cache).

        Raises:
            PermitRefused: The permit cannot be redeemed, or is for another server.
            ToolServerUnavailable: It cannot be started, dies, or does not speak the protocol in time.
        """

    async def call(
        self, permit: Permit[InvokeTool], secrets: Mapping[str, str], hooks: CallHooks = NO_CALLER
    ) -> RawToolResult:
        """Redeem the permit and call its tool; the effect id goes along as the idempotency key.

        What comes back, error or not, holds no secret that the server was ever given: the reference stands there.
        An error of which it is known that nothing was sent leaves the permit unspent. A caller that is cancelled has the
        server told so.

        Args:
            permit: For a tool of this server.
            secrets: Values by vault path; they are put into the arguments here and stay here.
            hooks: Gets progress and log messages, and answers what the server asks; by default nobody does.

        Raises:
            PermitRefused: The permit cannot be redeemed, or is for another server.
            TimeLimit: No answer within the action's deadline.
            OutputLimit: The answer is larger than `MAX_TOOL_OUTPUT_BYTES`.
            ToolFailed: The server refused the call; or it answered what is no answer, with the code `PROTOCOL_FAILURE`.
            ToolServerUnavailable: The server is gone.
        """

    async def relist(self, permit: Permit[ConnectServer]) -> Sequence[ToolDefinition]:
        """Redeem the permit and list the tools anew on the session that is up (all pages, no cache).

        Raises:
            PermitRefused: The permit cannot be redeemed, or is for another server.
            ToolServerUnavailable: It is not connected, dies, or does not list them in time.
        """

    async def ping(self, within_s: float) -> None:
        """Ask the server whether it is there; nothing but the protocol's own words goes to it.

        Raises:
            TimeLimit: It does not say so in time.
            ToolServerUnavailable: It is not connected, or gone.
        """


RESOURCES: Final = "resources"
TEMPLATES: Final = "templates"
PROMPTS: Final = "prompts"
TOOLS: Final = "tools"
"""What a server may say has changed, and but for tools, what it can be browsed for."""

Changed: TypeAlias = Callable[[str, str], Awaitable[None]]
"""Told the server's name, and `tools`, `resources` or `prompts`."""


@dataclass(frozen=True, slots=True)
class Completion:
    """How an argument may go on.

    Attributes:
        values: At most 100.
        total: How many there are, if the server says.
        more: It has more than these.
    """

    values: Sequence[str]
    total: int | None = None
    more: bool = False


class ServerSession(Protocol):
    """What a connected server offers beside tools; no secret of a call comes back, and every answer is bounded.

    Every method raises `PermitRefused`, `TimeLimit`, `OutputLimit`, `ToolFailed` and `ToolServerUnavailable` as
    `ToolServer.call` does. A server that does not know a kind of thing offers none of it.
    """

    async def browse(self, permit: Permit[BrowseServer]) -> Sequence[Mapping[str, JsonValue]]:
        """Redeem the permit and list resources, templates or prompts, all pages, in the protocol's form."""

    async def read(
        self, permit: Permit[ReadResource], hooks: CallHooks = NO_CALLER
    ) -> Sequence[Mapping[str, JsonValue]]:
        """Redeem the permit and read its resource: the contents in the protocol's form (`text`, or `blob` in Base64)."""

    async def prompt(self, permit: Permit[GetPrompt], hooks: CallHooks = NO_CALLER) -> Mapping[str, JsonValue]:
        """Redeem the permit and have its prompt filled in: `description` and `messages` in the protocol's form."""

    async def complete(self, permit: Permit[Complete]) -> Completion:
        """Redeem the permit and ask how its argument may go on."""

    def watch(self, changed: Changed) -> None:
        """Have this told when the server says that it offers something else; one watcher, the last that was set."""


class Notice(StrEnum):
    """What is told of a resource that is watched."""

    CHANGED = "changed"
    """It has changed, and may be read again."""
    OVER = "over"
    """Nobody will be told of it any more: the session with its server has ended."""


Updated: TypeAlias = Callable[[str, str, Notice], None]
"""Told the server's name, the URI of a resource that is watched, and what there is to say of it."""


class ResourceUpdates(Protocol):
    """What a connected server tells of resources that change. A subscription ends with the server's session."""

    async def subscribe(self, permit: Permit[ReadResource]) -> None:
        """Redeem the permit and have changes of its resource told; also where they are told already.

        Raises:
            Overloaded: As many resources of the server are watched as may be.
            ToolFailed: The server does not tell of it.
            PermitRefused, TimeLimit, ToolServerUnavailable: As `ToolServer.call`.
        """

    async def unsubscribe(self, uri: str) -> None:
        """Have them told no more; nothing goes to the server but that.

        Raises:
            TimeLimit, ToolFailed, ToolServerUnavailable: As `subscribe`; they are told no more all the same.
        """

    def follow(self, updated: Updated) -> None:
        """Have this told of what changes; one follower, the last that was set. It must not block."""


@dataclass(frozen=True, slots=True)
class Pin:
    """What was verified and pinned for one tool.

    Attributes:
        tool: `server.tool`.
        key_fingerprint: SHA-256 (hex) of the DER public key that signed it; empty where unsigned (mode `tofu`).
        digest: SHA-256 (hex) of `definition`.
        form: `digest` or `bytes`: what the signature was made over (published implementations differ); then, where it is
            known, which version it is and where the key came from (see `symbi.tools.schemapin.lineage.Provenance`).
        definition: All of it in one form (`symbi.tools.review.covered_definition`).
        pinned_at: RFC 3339.
        state: `pinned`, or `quarantined` with the digest that was seen instead.
    """

    tool: str
    key_fingerprint: str
    digest: str
    form: str
    definition: str
    pinned_at: str
    state: str = "pinned"


@dataclass(frozen=True, slots=True)
class PinHead:
    """What of a pin is small.

    Attributes:
        tool: As in `Pin`.
        key_fingerprint: Likewise.
    """

    tool: str
    key_fingerprint: str


class PinStore(Protocol):
    """Durable pins; the methods block and run where the store's transactions run."""

    def get_pin(self, tool: str) -> Pin | None:
        """The pin of a tool, or None.

        Raises:
            StoreUnavailable: The store cannot be read.
        """

    def put_pin(self, pin: Pin) -> None:
        """Insert or replace, inside the running transaction.

        Raises:
            StoreUnavailable: The store cannot be written.
        """

    def pins(self) -> Sequence[Pin]:
        """All pins, by tool name.

        Raises:
            StoreUnavailable: The store cannot be read.
        """

    def pin_heads(self) -> Sequence[PinHead]:
        """Of all pins what is small, by tool name.

        Raises:
            StoreUnavailable: The store cannot be read.
        """


class ReviewKind(StrEnum):
    """What a person can be asked about."""

    TOOL = "tool"
    """`server.tool`."""
    KEY = "key"
    """A key that signs, by its fingerprint."""
    SERVER = "server"
    """A server that was discovered, by its name."""


class ReviewState(StrEnum):
    """How it stands with what a person can be asked about."""

    WAITING = "waiting"
    """Nobody has looked at what was seen."""
    ACCEPTED = "accepted"
    """Somebody has accepted exactly that. Of a tool this is not kept: its pin says so."""
    REJECTED = "rejected"
    """Somebody does not want exactly that."""
    REVOKED = "revoked"
    """Refused, whatever it is or becomes, until somebody accepts it anew."""


@dataclass(frozen=True, slots=True)
class Review:
    """What waits for a person, or what one has said.

    Attributes:
        kind: What it is about.
        name: Which one.
        state: How it stands.
        digest: SHA-256 (hex) of what was seen and is or was to be looked at; empty where nothing was.
        definition: That itself, as text: of a tool what `covered_definition` makes of it.
        reason: Why it waits, or was said; one line, printable.
        since: RFC 3339.
    """

    kind: ReviewKind
    name: str
    state: ReviewState
    digest: str
    definition: str
    reason: str
    since: str


class ReviewStore(Protocol):
    """Durable reviews; the methods block and run where the store's transactions run."""

    def get_review(self, kind: ReviewKind, name: str) -> Review | None:
        """The review of one thing, or None.

        Raises:
            StoreUnavailable: The store cannot be read.
        """

    def put_review(self, review: Review) -> None:
        """Insert or replace, inside the running transaction.

        Raises:
            StoreUnavailable: The store cannot be written.
        """

    def drop_review(self, kind: ReviewKind, name: str) -> None:
        """Forget it, inside the running transaction; also where there is none.

        Raises:
            StoreUnavailable: The store cannot be written.
        """

    def reviews(self) -> Sequence[Review]:
        """All of them, by kind and name.

        Raises:
            StoreUnavailable: The store cannot be read.
        """


class ToolStore(PinStore, ReviewStore, Protocol):
    """Both, in one store."""


class DiscoverySource(Protocol):
    """Where documents of SchemaPin come from: a trust bundle, a folder, the domain itself."""

    @property
    def name(self) -> str:
        """For the record: `bundle:…`, `folder:…`, `https`."""

    @property
    def remote(self) -> bool:
        """Whether its documents come over a network from whoever they are about."""

    async def discovery(self, permit: Permit[ConnectServer], domain: str) -> bytes | Mapping[str, Any] | None:
        """The discovery document of a domain, unread; None where this source does not know the domain.

        Does not spend the permit; it must be live, and its action must name the domain.

        Raises:
            PermitRefused: It is not, or does not.
            Unavailable: It cannot be had; it is not known whether there is one.
            InputError: What is there is no document.
            Denied: The domain is at an address that may not be asked.
        """

    async def revocation(
        self, permit: Permit[ConnectServer], domain: str, endpoint: str | None
    ) -> bytes | Mapping[str, Any] | None:
        """The revocation document of a domain, unread; None where this source has none.

        Args:
            permit: As in `discovery`.
            domain: Whose keys.
            endpoint: Where the discovery document says that it is.

        Raises:
            PermitRefused, Unavailable, InputError, Denied: As `discovery`.
        """


class SecretSource(Protocol):
    """Where `vault://` references resolve: environment, a 0600 file, the system's keyring."""

    def resolve(
        self, permit: Permit[InvokeTool] | Permit[ConnectServer] | Permit[RunContainer], path: str
    ) -> str | None:
        """The value of one path that the permit's action names, or None where this source has none.

        Does not spend the permit; it must be live. May block: it is called on a thread.

        Raises:
            PermitRefused: The permit is not live, or its action does not name the path.
            Unavailable: The source cannot be read, or is readable by others.
        """
