"""How settings are shown: the rows of `symbi config show`, and the reference page."""

from dataclasses import dataclass
from typing import Final, TypeAlias

from symbi.config.agent_settings import AgentSettings
from symbi.config.collection_settings import CollectionSettings, DocumentRuleSettings
from symbi.config.declared import Key
from symbi.config.gateway_settings import ClientSettings
from symbi.config.mcp_settings import ServerSettings
from symbi.config.sections import (
    CONFIG_PATH_VARIABLE,
    FOREIGN_PREFIXES,
    KEYS,
    SECTIONS,
    TABLE_KEYS,
    PersonSettings,
)
from symbi.config.settings import Origin, Settings
from symbi.config.topic_settings import TopicSettings


@dataclass(frozen=True, slots=True)
class Shown:
    """One row: a key, its value as text (secrets: `set`), and where it came from."""

    key: str
    value: str
    origin: Origin


_Named: TypeAlias = (
    AgentSettings
    | TopicSettings
    | CollectionSettings
    | DocumentRuleSettings
    | ServerSettings
    | ClientSettings
    | PersonSettings
)


def describe_settings(settings: Settings) -> tuple[Shown, ...]:
    """Every key with its value: sections in their order, then agents and tool servers by name."""
    rows = [
        Shown(name, key.show(getattr(getattr(settings, key.section), key.field)), settings.origin(name))
        for name, key in KEYS.items()
    ]
    tables: list[tuple[str, _Named]] = [
        *(("agents", agent) for agent in settings.agents),
        *(("topics", topic) for topic in settings.topics),
        *(("knowledge.collections", one) for one in settings.knowledge.collections),
        *(("knowledge.rules", one) for one in settings.knowledge.rules),
        *(("mcp.servers", server) for server in settings.mcp.servers),
        *(("mcp.clients", client) for client in settings.mcp.clients),
        *(("approvals.people", person) for person in settings.approvals.people),
    ]
    for section, table in tables:
        for field, key in TABLE_KEYS[section].items():
            name = f"{section}.{table.name}.{field}"
            rows.append(Shown(name, key.show(getattr(table, field)), settings.origin(name)))
    return tuple(rows)


_HEAD: Final = """\
# Configuration reference

`symbi.toml` is looked for in the working folder and those above it; `--config FILE` or `{path_variable}` names
another file. Without a file, the defaults hold. A value on the command line goes before the environment, the
environment before the file, the file before the default. `symbi config show --origin` tells every value and where it
came from.

An unknown section, key or `SYMBI_…` variable is an error, and so is a value of another type or out of range. Relative
paths of the file are seen from the file's folder, those of environment and command line from the working folder; `~`
and `${{…}}` are not expanded. In variables, a list is written with commas, and a boolean as `true`, `1`, `enabled` or
their opposites. Variables that begin with {foreign} hold secrets and keys, not settings.

This page is generated from the declarations that the program reads with.
"""


def config_reference() -> str:
    """The reference page, as Markdown."""
    foreign = " or ".join(f"`{prefix}`" for prefix in FOREIGN_PREFIXES)
    parts = [_HEAD.format(path_variable=CONFIG_PATH_VARIABLE, foreign=foreign)]
    for section in SECTIONS:
        keys = [key for key in KEYS.values() if key.section == section]
        parts.append(f"## `[{section}]`\n\n{_table(keys, variables=True)}")
    for section, keys_by_field in TABLE_KEYS.items():
        parts.append(f"## `[{section}.NAME]`\n\n{_table(list(keys_by_field.values()), variables=False)}")
    return "\n".join(parts)


def _table(keys: list[Key], *, variables: bool) -> str:
    head = ["key", "type", "default", *(["environment"] if variables else []), "meaning"]
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    for key in keys:
        names = [", ".join(f"`{name}`" for name in key.variables)] if variables else []
        cells = [f"`{key.field}`", key.kind.name, _default(key), *names, key.meaning]
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines) + "\n"


def _default(key: Key) -> str:
    if key.required:
        return "(required)"
    if key.default is None:
        return key.show(None)
    shown = key.show(key.default)
    return f"`{shown}`" if shown else "(none)"
