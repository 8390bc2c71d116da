# ruff: noqa: RUF009 - the calls make dataclass fields, as `field` does
"""Every key that a configuration may have, declared once: type, default, meaning and variables stand with the field.

The loader, `symbi config show`, the reference page and the tests are all driven by these declarations.
"""

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Final

from symbi.config.agent_settings import AgentSettings
from symbi.config.approval_kinds import HexKey, Program, Webhook
from symbi.config.bus_settings import BusSettings
from symbi.config.collection_settings import CollectionSettings, DocumentRuleSettings, KnowledgeSettings
from symbi.config.declared import DECLARED, Declaration, Key
from symbi.config.declared import declare as _declare
from symbi.config.gateway_settings import ClientSettings, GatewaySettings
from symbi.config.kinds import (
    Address,
    ByteSize,
    FilePath,
    Flag,
    OneOf,
    Real,
    Secret,
    SecretText,
    Several,
    Text,
    Whole,
)
from symbi.config.knowledge_settings import ContextSettings
from symbi.config.mcp_settings import McpSettings, ServerSettings
from symbi.config.sandbox_settings import SandboxSettings
from symbi.config.schemapin_settings import SchemapinSettings
from symbi.config.topic_settings import TopicSettings
from symbi.policy.compose import AgentRules
from symbi.types import SecurityTier


class Mode(StrEnum):
    """How strict the runtime is about its own configuration."""

    DEVELOPMENT = "development"
    """What is unsafe warns."""
    PRODUCTION = "production"
    """What is unsafe is refused."""


class LogLevel(StrEnum):
    """What is worth a line in the log."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(StrEnum):
    """How a line of the log looks."""

    TEXT = "text"
    JSON = "json"


class CryptoProvider(StrEnum):
    """Which library does the cryptography."""

    OPENSSL = "openssl"
    LIBSODIUM = "libsodium"


class KeyStorage(StrEnum):
    """Where the runtime's own keys are."""

    FILE = "file"
    ENV = "env"
    KEYRING = "keyring"


class Confidential(StrEnum):
    """What of the payloads in the store is sealed."""

    SUBJECTS = "subjects"
    """What is about a data subject, under keys of the subjects."""
    ALL = "all"
    """Also what is about none, under a key of its agent."""


class SecretOrigin(StrEnum):
    """Where `vault://` references are looked up."""

    ENV = "env"
    FILE = "file"
    KEYRING = "keyring"


@dataclass(frozen=True, slots=True)
class RuntimeSettings:
    """`[runtime]`."""

    mode: Mode = _declare(
        Mode.DEVELOPMENT, OneOf(Mode), "in `production` every unsafe setting is refused; in `development` it warns"
    )
    data_dir: Path = _declare(
        Path(".symbi"), FilePath(), "folder of the trail, the ledger, keys and pins; one process at a time owns it"
    )
    log_level: LogLevel = _declare(
        LogLevel.INFO,
        OneOf(LogLevel, MappingProxyType({"warn": LogLevel.WARNING})),
        "least level that is logged",
        also=("SYMBI_LOG_LEVEL",),
    )
    log_format: LogFormat = _declare(LogFormat.TEXT, OneOf(LogFormat), "lines for people or JSON lines for machines")
    max_concurrent_agents: int = _declare(
        10_000, Whole(1, 1_000_000, "agents"), "agents that may be at work at a time; further ones wait"
    )
    max_living_agents: int = _declare(
        200_000,
        Whole(1, 10_000_000, "agents"),
        "persistent agents that are kept in memory while they wait for messages; further ones wait in the store",
    )
    scheduler_threads: int = _declare(8, Whole(1, 256, "threads"), "threads for drivers, hashing and signing")
    shutdown_grace_s: float = _declare(
        10.0, Real(0, 3600, "seconds"), "how long agents may finish at shutdown before they are cancelled"
    )
    journal_retention_days: int = _declare(
        30,
        Whole(0, 36_500, "days"),
        "age at which ledger and journal let go of runs that are over, which the trail goes on to tell of; 0 for never",
    )
    message_buffer_size: int = _declare(
        1_048_576, ByteSize(1024, 2**40), "bytes that may wait in each buffer of the message bus"
    )
    gc_interval_ms: int = _declare(100, Whole(1, 3_600_000, "milliseconds"), "time between two steps of the collector")


@dataclass(frozen=True, slots=True)
class SecuritySettings:
    """`[security]`."""

    default_sandbox_tier: SecurityTier = _declare(
        SecurityTier.TIER2,
        OneOf(SecurityTier, MappingProxyType({"tier1": SecurityTier.TIER1, "tier2": SecurityTier.TIER2})),
        "least tier of code that is more than pure computation, which runs in the interpreter; never lowered",
    )
    enforce_policies: bool = _declare(
        default=True, kind=Flag(), meaning="if false, policies decide and are recorded, but a denial stops nothing"
    )
    audit_enabled: bool = _declare(default=True, kind=Flag(), meaning="if false, the trail is kept in memory only")
    crypto_provider: CryptoProvider = _declare(
        CryptoProvider.OPENSSL,
        OneOf(CryptoProvider, MappingProxyType({"ring": CryptoProvider.OPENSSL})),
        "library for signatures and encryption",
        also=("SYMBI_CRYPTO_PROVIDER",),
    )


@dataclass(frozen=True, slots=True)
class PolicySettings:
    """`[policy]`."""

    paths: tuple[Path, ...] = _declare(
        (Path("policies"),),
        Several(FilePath()),
        "`.cedar` files and `history.toml`, or folders of them; nothing permitted is all denied",
    )
    watch: bool = _declare(
        default=True, kind=Flag(), meaning="take up policy files that change while a runtime is alive"
    )
    watch_interval_s: float = _declare(
        1.0, Real(0.05, 3600, "seconds"), "time between two looks at them; a change is taken up at the second"
    )
    require_signed: bool = _declare(
        default=False, kind=Flag(), meaning="refuse policy files that no key of `policy.trusted_keys` has signed"
    )
    trusted_keys: tuple[Path, ...] = _declare(
        (), Several(FilePath()), "PEM files of the Ed25519 keys that may sign policies"
    )
    agent_rules: AgentRules | None = _declare(
        None,
        OneOf(AgentRules),
        "what the `allow` rules of agent files are worth: `full` permits, `restrict` permits nothing",
        unset="`restrict` in production mode, else `full`",
    )
    shadow: tuple[Path, ...] = _declare(
        (),
        Several(FilePath()),
        "a candidate set, as `policy.paths`: it decides too, what differs is recorded, nothing is enforced",
    )


class SigningMode(StrEnum):
    """What covers an event of the trail."""

    EVENT = "event"
    """A signature of its own."""
    BATCH = "batch"
    """The signature of the checkpoint that each commit makes."""


@dataclass(frozen=True, slots=True)
class AuditSettings:
    """`[audit]`."""

    signing: SigningMode = _declare(
        SigningMode.EVENT,
        OneOf(SigningMode),
        "`event` signs each event, `batch` only the checkpoint of each commit, which covers them: quicker, and one event"
        " is then proved by its place in the tree; a change is recorded",
    )
    checkpoint_events: int = _declare(
        1000, Whole(1, 1_000_000_000, "events"), "a checkpoint is kept after so many events"
    )
    checkpoint_interval_s: float = _declare(
        60.0, Real(0.1, 86_400, "seconds"), "and after so long where there were any; one is kept at each shutdown too"
    )

    storage: Path | None = _declare(
        None,
        FilePath(),
        "folder, which must be there, that receives a copy of each closed segment of the trail",
        unset="no copy",
    )
    storage_required: bool = _declare(
        default=False, kind=Flag(), meaning="stop effects while more than `storage_max_waiting` segments wait for it"
    )
    storage_max_waiting: int = _declare(
        4, Whole(0, 1_000_000, "segments"), "closed segments that may wait for a storage that is required"
    )
    segment_events: int = _declare(
        65_536, Whole(256, 2**32, "events"), "events after which a segment is closed, at the next checkpoint"
    )
    segment_interval_s: float = _declare(
        86_400.0, Real(1, 31_536_000, "seconds"), "time after which a segment is closed though it is not full"
    )
    retention_days: int | None = _declare(
        None,
        Whole(1, 36_500, "days"),
        "age at which events leave the live store, once their segment is in the storage",
        unset="never",
    )
    tsa_url: str | None = _declare(
        None, Address(("https", "http")), "time-stamping authority (RFC 3161) that anchors checkpoints", unset="none"
    )
    tsa_certificate: Path | None = _declare(
        None, FilePath(), "PEM file of the roots, and what stands between, that its answers are checked against"
    )
    tsa_interval_s: float | None = _declare(
        None,
        Real(1, 31_536_000, "seconds"),
        "time between two anchors",
        unset="only when `symbi audit anchor` asks",
    )
    tsa_timeout_s: float = _declare(30.0, Real(0.1, 300, "seconds"), "how long the authority may take")
    confidential: Confidential = _declare(
        Confidential.SUBJECTS,
        OneOf(Confidential),
        "which payloads are sealed: those about data subjects, or all, the rest under a key of their agent",
    )


@dataclass(frozen=True, slots=True)
class KeySettings:
    """`[keys]`."""

    store: KeyStorage = _declare(
        KeyStorage.FILE,
        OneOf(KeyStorage),
        "where the runtime's keys are: files of mode 0600 in the data folder, the environment, the system's keyring",
    )


@dataclass(frozen=True, slots=True)
class SecretSettings:
    """`[secrets]`."""

    sources: tuple[SecretOrigin, ...] = _declare(
        (SecretOrigin.ENV, SecretOrigin.FILE),
        Several(OneOf(SecretOrigin)),
        "where `vault://` references are looked up, in this order",
    )
    file: Path | None = _declare(
        None, FilePath(), "file of secrets, mode 0600", unset="`secrets.toml` in the data folder"
    )


@dataclass(frozen=True, slots=True)
class LimitSettings:
    """`[limits]`."""

    steps: int = _declare(2_000_000, Whole(1, 10**12, "steps"), "statements and calls of one run")
    nesting_depth: int = _declare(200, Whole(1, 256, "levels"), "nesting of calls and values in a run")
    output_bytes: int = _declare(1_048_576, ByteSize(1, 2**32), "largest result of a run or a piece of code")
    run_timeout_s: float = _declare(300.0, Real(0.001, 31_536_000, "seconds"), "wall time of one run")
    tool_timeout_s: float = _declare(30.0, Real(0.001, 86_400, "seconds"), "wall time of one tool call")
    code_timeout_s: float = _declare(10.0, Real(0.001, 86_400, "seconds"), "wall time of one piece of code")
    code_memory_mb: int = _declare(64, Whole(1, 1_048_576, "MiB"), "memory of one piece of code")
    memory_mb: int | None = _declare(
        None, Whole(1, 1_073_741_824, "MiB"), "memory that all agents share", unset="the machine's"
    )
    cpu_cores: float | None = _declare(
        None, Real(0.001, 65_536, "cores"), "processor cores that all agents share", unset="the machine's"
    )


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """`[models]`: secrets of model providers."""

    openai_api_key: Secret | None = _declare(
        None, SecretText(), "key for OpenAI's models; from the environment only", also=("OPENAI_API_KEY",)
    )


@dataclass(frozen=True, slots=True)
class PersonSettings:
    """`[approvals.people.NAME]`: somebody who may agree to a held action, by a key, as an operating-system user, or both."""

    name: str
    public_key: str | None = _declare(
        None, HexKey(), "Ed25519 key that signs for the person; `symbi approvals keygen` makes one", unset="none"
    )
    user: str | None = _declare(
        None, Text("name or number of a user"), "operating-system user who acts for the person", unset="none"
    )
    groups: tuple[str, ...] = _declare((), Several(Text()), "groups that `@approval` may ask")
    accounts: tuple[str, ...] = _declare(
        (), Several(Text()), "further names by which an agent's `owner` may call the person, who never approves for it"
    )


@dataclass(frozen=True, slots=True)
class ApprovalSettings:
    """`[approvals]`."""

    expires_s: float = _declare(
        86_400.0, Real(1, 2_678_400, "seconds"), "how long a held action waits for people where no policy says so"
    )
    notify_command: tuple[str, ...] | None = _declare(
        None, Program(), "program that is told of each held action, as JSON on its standard input", unset="none"
    )
    notify_webhook: str | None = _declare(
        None, Webhook(), "address to which each held action is posted as JSON", unset="none"
    )
    notify_timeout_s: float = _declare(10.0, Real(0.1, 60, "seconds"), "how long telling somebody may take")
    people: tuple[PersonSettings, ...] = ()


SECTIONS: Final[Mapping[str, type]] = MappingProxyType(
    {
        "runtime": RuntimeSettings,
        "security": SecuritySettings,
        "policy": PolicySettings,
        "audit": AuditSettings,
        "keys": KeySettings,
        "secrets": SecretSettings,
        "limits": LimitSettings,
        "context": ContextSettings,
        "knowledge": KnowledgeSettings,
        "models": ModelSettings,
        "mcp": McpSettings,
        "gateway": GatewaySettings,
        "schemapin": SchemapinSettings,
        "sandbox": SandboxSettings,
        "bus": BusSettings,
        "approvals": ApprovalSettings,
    }
)
"""Sections with one table each, in the order in which they are shown."""

TABLES: Final[Mapping[str, type]] = MappingProxyType(
    {
        "agents": AgentSettings,
        "topics": TopicSettings,
        "knowledge.collections": CollectionSettings,
        "knowledge.rules": DocumentRuleSettings,
        "mcp.servers": ServerSettings,
        "mcp.clients": ClientSettings,
        "approvals.people": PersonSettings,
    }
)
"""Sections with a table for each name."""

CONFIG_PATH_VARIABLE: Final = "SYMBI_CONFIG_PATH"
"""Names the configuration file; `--config` goes before it."""

FOREIGN_PREFIXES: Final = ("SYMBI_SECRET_", "SYMBI_KEY_")
"""Variables that hold secrets and keys for the stores of kind `env`; no settings."""


def _declared(section: str, cls: type, prefix: str) -> Iterator[Key]:
    named = section in TABLES
    for one in fields(cls):
        declaration = one.metadata.get(DECLARED)
        if not isinstance(declaration, Declaration):
            continue
        systematic = () if named else (f"SYMBI_{section}_{one.name}".upper(),)
        variables = (*systematic, *declaration.variables)
        secret = isinstance(declaration.kind, SecretText)
        yield Key(
            name=f"{prefix}.{one.name}",
            section=section,
            field=one.name,
            kind=declaration.kind,
            default=None if one.default is MISSING else one.default,
            required=one.default is MISSING,
            meaning=declaration.meaning,
            unset=declaration.unset,
            variables=declaration.variables if secret else variables,
        )


KEYS: Final[Mapping[str, Key]] = MappingProxyType(
    {key.name: key for section, cls in SECTIONS.items() for key in _declared(section, cls, section)}
)
"""Every key with one value, by name."""

TABLE_KEYS: Final[Mapping[str, Mapping[str, Key]]] = MappingProxyType(
    {
        section: MappingProxyType({key.field: key for key in _declared(section, cls, f"{section}.NAME")})
        for section, cls in TABLES.items()
    }
)
"""Keys of the named tables, by section and field."""
