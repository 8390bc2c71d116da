# ruff: noqa: RUF009 - the calls make dataclass fields, as `field` does
"""Every key of `[mcp]`, and what is said of a tool server in the configuration."""

import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from symbi.config.approval_kinds import Webhook
from symbi.config.declared import declare as _declare
from symbi.config.gateway_settings import ClientSettings
from symbi.config.kinds import (
    MAX_ITEMS,
    MAX_TEXT_CHARS,
    BadValue,
    Command,
    FilePath,
    Flag,
    Kind,
    OneOf,
    Real,
    Several,
    Text,
    Variables,
    Whole,
    describe,
)
from symbi.config.sandbox_settings import Image
from symbi.config.schemapin_settings import Domain

_PLAIN_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}", re.ASCII)
_HEADER: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}", re.ASCII)
_VAULT: Final = re.compile(r"vault://[A-Za-z0-9_./-]{1,256}")
_KEPT_HEADERS: Final = frozenset(
    {
        "accept",
        "accept-encoding",
        "connection",
        "content-length",
        "content-type",
        "host",
        "last-event-id",
        "transfer-encoding",
    }
)
"""What the transport itself writes."""


OF_A_URL: Final = (
    "headers",
    "private_addresses",
    *(f"oauth_{name}" for name in ("grant", "issuer", "client_id", "client_secret")),
    *(f"oauth_{name}" for name in ("private_key", "assertion", "scope", "redirect_uri", "metadata_url")),
)
"""Keys that go with a `url` alone."""


class ToolVerification(StrEnum):
    """Which tools may be called."""

    STRICT = "strict"
    """Signed ones, by a key that the configuration names or that was pinned."""
    TOFU = "tofu"
    """Also unsigned ones: their definition is pinned at first sight."""
    DISABLED = "disabled"
    """All, unchecked."""


class ServerProtocol(StrEnum):
    """Which form of the protocol is spoken with a server."""

    AUTO = "auto"
    """The newest that it knows; it is asked."""
    LEGACY = "legacy"
    """That with sessions: 2025-11-25 or older."""
    MODERN = "2026-07-28"
    """That without sessions, unasked."""


class ServerQuestion(StrEnum):
    """What a server may ask of whoever calls it; policy decides on each question."""

    SAMPLING = "sampling"
    """An answer of a model."""
    ELICITATION = "elicitation"
    """Something of a person."""
    ROOTS = "roots"
    """The folders."""


class OAuthGrant(StrEnum):
    """How a token for a server is got."""

    NONE = "none"
    """It is not."""
    CREDENTIALS = "client_credentials"
    """With credentials of our own."""
    KEY = "private_key_jwt"
    """With a key of our own, which signs who we are."""
    IDENTITY = "identity_assertion"
    """With what an identity provider has signed of who we are."""
    CODE = "authorization_code"
    """With the consent of a person."""


@dataclass(frozen=True, slots=True)
class Headers(Kind[tuple[tuple[str, str], ...]]):
    """Header fields of the requests to a server; `vault://…` values are resolved when it is connected."""

    @property
    def name(self) -> str:
        """For the reference."""
        return "table of texts"

    def from_toml(self, value: object, base: Path) -> tuple[tuple[str, str], ...]:
        """A table from names of fields to strings of one line."""
        del base
        if not isinstance(value, dict):
            raise BadValue(f"must be a table of texts, not {describe(value)}", 'write { Name = "value" }')
        if len(value) > MAX_ITEMS:
            raise BadValue(f"has {len(value)} entries; at most {MAX_ITEMS} are allowed")
        for name, text in value.items():
            if not _HEADER.fullmatch(name):
                raise BadValue(f"holds {describe(name)}, which is no name of a header field")
            if name.lower() in _KEPT_HEADERS or name.lower().startswith("mcp-"):
                raise BadValue(f"holds `{name}`, which the transport writes itself")
            if not isinstance(text, str) or not text.isprintable() or len(text) > MAX_TEXT_CHARS:
                raise BadValue(f"must hold texts of one line only; `{name}` is none")
        if len({name.lower() for name in value}) < len(value):
            raise BadValue("names a header field twice")
        return tuple(sorted(value.items()))

    def show(self, value: tuple[tuple[str, str], ...]) -> str:
        """Names only: values may be secret."""
        return ", ".join(f"{name} (set)" for name, _ in value)


@dataclass(frozen=True, slots=True)
class PlainVariable(Kind[str]):
    """The name of a variable of our environment that holds no key or secret of ours."""

    @property
    def name(self) -> str:
        """For the reference."""
        return "name of an environment variable"

    def from_toml(self, value: object, base: Path) -> str:
        """A string of letters, digits and `_`."""
        del base
        if not isinstance(value, str) or not _PLAIN_VARIABLE.fullmatch(value):
            raise BadValue(f"must be the name of an environment variable, not {describe(value)}")
        if value.startswith(("SYMBI_KEY_", "SYMBI_SECRET_")):
            raise BadValue(f"names `{value}`, which holds a key or a secret of ours")
        return value


@dataclass(frozen=True, slots=True)
class VaultReference(Kind[str]):
    """A reference to a secret; the secret itself does not stand in a configuration."""

    @property
    def name(self) -> str:
        """For the reference."""
        return "`vault://path`"

    def from_toml(self, value: object, base: Path) -> str:
        """A string that is one."""
        del base
        if not isinstance(value, str) or not _VAULT.fullmatch(value):
            raise BadValue("must be a reference, and not the secret itself", "write `vault://path`")
        return value


class ServerSandbox(StrEnum):
    """Where the command of a server runs."""

    NONE = "none"
    """As a process of this machine, with what our user may."""
    DOCKER = "docker"
    """In a container of runc."""
    GVISOR = "gvisor"
    """In a container of gVisor."""


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """`[mcp.servers.NAME]`: a tool server; a process that is spoken to over its standard streams, or an address."""

    name: str
    command: tuple[str, ...] | None = _declare(
        None,
        Command(),
        "program and arguments, without a shell; `{python}` is the interpreter that runs Symbi",
        unset="it has a `url`",
    )
    url: str | None = _declare(
        None, Webhook(), "address at which it speaks streamable HTTP, in place of a command", unset="it has a `command`"
    )
    headers: tuple[tuple[str, str], ...] = _declare(
        (), Headers(), "header fields of each request to its `url`; `vault://…` values resolve when it is connected"
    )
    private_addresses: bool = _declare(
        default=False, kind=Flag(), meaning="its `url` may lead to an address of a private network"
    )
    oauth_grant: OAuthGrant = _declare(OAuthGrant.NONE, OneOf(OAuthGrant), "how a token for its `url` is got")
    oauth_issuer: str | None = _declare(
        None, Webhook(), "who gives it out; nobody else is asked for it", unset="whom the server names"
    )
    oauth_client_id: str | None = _declare(None, Text(), "who we are there", unset="we are registered as we ask")
    oauth_client_secret: str | None = _declare(
        None, VaultReference(), "our secret there; it resolves when the server is connected", unset="none"
    )
    oauth_private_key: str | None = _declare(
        None,
        VaultReference(),
        "our key there, in PEM: P-256 or RSA; it resolves when the server is connected",
        unset="none",
    )
    oauth_assertion: str | None = _declare(
        None,
        VaultReference(),
        "what an identity provider has signed of us for `oauth_issuer`; it resolves when the server is connected",
        unset="none",
    )
    oauth_scope: str | None = _declare(None, Text(), "what is asked for", unset="what the server says")
    oauth_redirect_uri: str | None = _declare(
        None, Webhook(), "where the code comes back to once a person has agreed: a port of this machine", unset="none"
    )
    oauth_metadata_url: str | None = _declare(
        None, Webhook(), "where our description is published, for whom takes that as an id", unset="none"
    )
    protocol: ServerProtocol = _declare(
        ServerProtocol.AUTO, OneOf(ServerProtocol), "which form of the protocol is spoken with it"
    )
    asks: tuple[ServerQuestion, ...] = _declare(
        (), Several(OneOf(ServerQuestion)), "what it may ask of whoever calls it; a policy has to permit it, too"
    )
    env: tuple[tuple[str, str], ...] = _declare(
        (), Variables(), "environment of its `command`; `vault://…` values resolve at start"
    )
    sandbox: ServerSandbox = _declare(
        ServerSandbox.NONE,
        OneOf(ServerSandbox),
        "where its `command` runs: as a process of this machine, or in a container without a network",
    )
    image: str | None = _declare(None, Image(), "what its container is made of", unset="it has no container")
    memory_mb: int = _declare(256, Whole(16, 1_048_576, "MiB"), "memory of its container")
    cwd: Path | None = _declare(None, FilePath(), "its working folder", unset="the folder of the configuration file")
    manifest: Path | None = _declare(None, FilePath(), "what its tools are: recovery classes", unset="none")
    public_key: Path | None = _declare(None, FilePath(), "PEM file of the key that signs its tools", unset="none")
    signatures: Path | None = _declare(
        None,
        FilePath(),
        "file of signatures of its tools, as `symbi tools sign` writes it, for a server that sends none along, or others",
        unset="those that it sends along",
    )
    schemapin_domain: str | None = _declare(
        None,
        Domain(),
        "whose tools they are: the domain that says under which key it signs, and which keys it has revoked",
        unset="none is asked",
    )
    same_names: tuple[str, ...] = _declare(
        (),
        Several(Text()),
        "names of its tools that may be those of another server's tools, or look like them; `*` for all",
    )
    timeout_s: float | None = _declare(
        None, Real(0.001, 86_400, "seconds"), "wall time of one call to it", unset="`limits.tool_timeout_s`"
    )
    max_concurrent: int = _declare(64, Whole(1, 64, "calls"), "calls to it at a time; further ones wait")
    max_waiting: int = _declare(
        256, Whole(0, 100_000, "calls"), "calls that wait for one of these to end; further ones are refused"
    )
    max_wait_s: float = _declare(30.0, Real(0.001, 3600, "seconds"), "the longest that a call waits for another to end")
    breaker_failures: int = _declare(
        5, Whole(0, 10_000, "failures"), "failures within the window after which it is left alone; 0: it never is"
    )
    breaker_window_s: float = _declare(30.0, Real(0.001, 86_400, "seconds"), "how long a failure counts")
    breaker_open_s: float = _declare(
        5.0,
        Real(0.001, 300, "seconds"),
        "how long it is left alone the first time; then twice as long each time, up to 300",
    )


@dataclass(frozen=True, slots=True)
class McpSettings:
    """`[mcp]`."""

    discovery_enabled: bool = _declare(
        default=True,
        kind=Flag(),
        meaning="look for tool servers beside those of `[mcp.servers]`: in `files` and `registry`",
        also=("MCP_SERVER_DISCOVERY",),
    )
    files: tuple[Path, ...] = _declare(
        (Path("mcp.json"), Path(".mcp.json"), Path(".vscode/mcp.json")),
        Several(FilePath()),
        "files of tool servers as other clients write them; one that is not there names none",
    )
    registry: Path = _declare(
        Path("mcp.d"), FilePath(), "folder of files `NAME.json`, a tool server each; one that is not there names none"
    )
    expand: tuple[str, ...] = _declare(
        (),
        Several(PlainVariable()),
        "environment variables that `${NAME}` may stand for in those files; no others are put in",
    )
    health_interval_s: float = _declare(
        30.0, Real(0, 86_400, "seconds"), "time between two questions whether a connected server is there; 0 for none"
    )
    health_timeout_s: float = _declare(5.0, Real(0.001, 3600, "seconds"), "how long it may take to say so")
    tool_verification: ToolVerification = _declare(
        ToolVerification.STRICT, OneOf(ToolVerification), "which tools may be called"
    )
    connection_timeout_s: float = _declare(
        30.0, Real(0.001, 3600, "seconds"), "time that a tool server has to start and to list its tools"
    )
    max_concurrent_connections: int = _declare(
        100,
        Whole(1, 10_000, "connections"),
        "tool servers that may be connected; more configured ones are an error, more found ones are left out",
    )
    servers: tuple[ServerSettings, ...] = ()
    clients: tuple[ClientSettings, ...] = ()
