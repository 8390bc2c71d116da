"""Configuration: TOML, environment and command line become frozen `Settings`; unsafe ones are refused."""

from symbi.config.agent_settings import AgentMode, AgentSettings, Trust
from symbi.config.budget_kind import read_budget
from symbi.config.gateway_settings import ClientSettings, GatewayNames, GatewaySettings
from symbi.config.kinds import Secret
from symbi.config.load import CONFIG_NAME, find_config, load_settings, parse_settings
from symbi.config.mcp_settings import ServerSettings, ToolVerification
from symbi.config.safety import is_this_machine, refuse_unsafe, require_embedding_dimension
from symbi.config.sections import (
    CryptoProvider,
    KeyStorage,
    LogFormat,
    LogLevel,
    Mode,
    SecretOrigin,
)
from symbi.config.settings import Origin, OriginKind, Settings
from symbi.config.show import Shown, config_reference, describe_settings

__all__ = [
    "CONFIG_NAME",
    "AgentMode",
    "AgentSettings",
    "ClientSettings",
    "CryptoProvider",
    "GatewayNames",
    "GatewaySettings",
    "KeyStorage",
    "LogFormat",
    "LogLevel",
    "Mode",
    "Origin",
    "OriginKind",
    "Secret",
    "SecretOrigin",
    "ServerSettings",
    "Settings",
    "Shown",
    "ToolVerification",
    "Trust",
    "config_reference",
    "describe_settings",
    "find_config",
    "is_this_machine",
    "load_settings",
    "parse_settings",
    "read_budget",
    "refuse_unsafe",
    "require_embedding_dimension",
]
