"""What a configuration says, once it has been read: frozen values, and where each came from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

from symbi.config.agent_settings import AgentSettings
from symbi.config.bus_settings import BusSettings
from symbi.config.collection_settings import KnowledgeSettings
from symbi.config.gateway_settings import ClientSettings, GatewaySettings
from symbi.config.knowledge_settings import ContextSettings
from symbi.config.mcp_settings import McpSettings
from symbi.config.sandbox_settings import SandboxSettings
from symbi.config.schemapin_settings import SchemapinSettings
from symbi.config.sections import (
    ApprovalSettings,
    AuditSettings,
    KeySettings,
    LimitSettings,
    ModelSettings,
    PolicySettings,
    RuntimeSettings,
    SecretSettings,
    SecuritySettings,
)
from symbi.config.topic_settings import TopicSettings
from symbi.errors import Place
from symbi.types import AgentId, Principal


class OriginKind(StrEnum):
    """Which source gave a value, weakest first."""

    DEFAULT = "default"
    FILE = "file"
    ENV = "env"
    CLI = "cli"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value came from.

    Attributes:
        kind: Which source.
        where: `file:line`, the name of the variable, `command line`; empty for a default.
        place: Position in the file, if it came from there.
    """

    kind: OriginKind
    where: str = ""
    place: Place | None = None

    def __str__(self) -> str:
        return f"{self.kind.value} ({self.where})" if self.where else self.kind.value


DEFAULT: Final = Origin(OriginKind.DEFAULT)


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of one runtime.

    Attributes:
        folder: What relative paths of the file are seen from: its folder, or the working folder where there is none.
        file: The configuration file; None where there is none and all is default, environment or command line.
        agents: What is said of each agent, by name.
        topics: What is said of topics, by name.
        origins: Where each value that is not a default came from, by key.
        spelled: Second spellings that were given and taken as the first one, by key.
    """

    folder: Path
    file: Path | None = None
    runtime: RuntimeSettings = field(default_factory=RuntimeSettings)
    security: SecuritySettings = field(default_factory=SecuritySettings)
    policy: PolicySettings = field(default_factory=PolicySettings)
    audit: AuditSettings = field(default_factory=AuditSettings)
    keys: KeySettings = field(default_factory=KeySettings)
    secrets: SecretSettings = field(default_factory=SecretSettings)
    limits: LimitSettings = field(default_factory=LimitSettings)
    context: ContextSettings = field(default_factory=ContextSettings)
    knowledge: KnowledgeSettings = field(default_factory=KnowledgeSettings)
    models: ModelSettings = field(default_factory=ModelSettings)
    mcp: McpSettings = field(default_factory=McpSettings)
    gateway: GatewaySettings = field(default_factory=GatewaySettings)
    schemapin: SchemapinSettings = field(default_factory=SchemapinSettings)
    sandbox: SandboxSettings = field(default_factory=SandboxSettings)
    bus: BusSettings = field(default_factory=BusSettings)
    approvals: ApprovalSettings = field(default_factory=ApprovalSettings)
    agents: tuple[AgentSettings, ...] = ()
    topics: tuple[TopicSettings, ...] = ()
    origins: Mapping[str, Origin] = field(default_factory=dict)
    spelled: Mapping[str, str] = field(default_factory=dict)

    def origin(self, key: str) -> Origin:
        """Where the value of a key came from; `mcp.servers.NAME.command` names a key of a named table."""
        return self.origins.get(key, DEFAULT)

    def principal(self, agent: AgentId) -> Principal:
        """An agent as policies see it: what `[agents.NAME]` says, or the defaults."""
        known = self.of_agent(agent)
        return Principal(agent, known.owner, known.groups, known.trust.value)

    def of_agent(self, agent: AgentId) -> AgentSettings:
        """What `[agents.NAME]` says, or the defaults."""
        return next((one for one in self.agents if one.name == agent), AgentSettings(agent))

    def of_client(self, name: str) -> ClientSettings | None:
        """What `[mcp.clients.NAME]` says; None where nothing is said of that client."""
        return next((one for one in self.mcp.clients if one.name == name), None)

    @property
    def secrets_file(self) -> Path:
        """The file of secrets."""
        return self.secrets.file or self.runtime.data_dir / "secrets.toml"
