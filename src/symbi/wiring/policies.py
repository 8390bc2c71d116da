"""Policies and what is asked of them, from settings."""

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from symbi.adapters.policy_files import PolicyFolders
from symbi.adapters.sqlite import DATABASE_NAME
from symbi.config import Settings
from symbi.config.sections import Mode
from symbi.config.settings import OriginKind
from symbi.crypto.pem import read_verifying_key
from symbi.crypto.provider import open_provider
from symbi.errors import ConfigError
from symbi.policy.catalog import ToolType
from symbi.policy.compose import AgentRules, compose
from symbi.policy.engine import PolicySource
from symbi.policy.policies import PolicySet
from symbi.runtime.policies import PolicyTerms, rules_of, sources_of
from symbi.runtime.policy_signing import verify_bundle
from symbi.tools.catalog import Pin, Review
from symbi.types import ToolName
from symbi.wiring.sources import compile_agents, open_reader, read_text


def read_policies(settings: Settings) -> list[PolicySource]:
    """The policies and counters that the settings name, in order; names as seen from the configuration's folder.

    Raises:
        ConfigError: A path that was set is not there.
        InputError: A file cannot be read.
    """
    reader = PolicyFolders(settings.folder)
    return list(sources_of(reader.read(policy_paths(settings))))


def policy_paths(settings: Settings) -> tuple[str, ...]:
    """`policy.paths` as seen from the configuration's folder.

    Raises:
        ConfigError: One that was set is not there.
    """
    return _present(settings, "policy.paths", settings.policy.paths)


def shadow_paths(settings: Settings) -> tuple[str, ...]:
    """`policy.shadow` as seen from the configuration's folder.

    Raises:
        ConfigError: One is not there.
    """
    return _present(settings, "policy.shadow", settings.policy.shadow)


def _present(settings: Settings, key: str, paths: Sequence[Path]) -> tuple[str, ...]:
    origin = settings.origin(key)
    for path in paths:
        if origin.kind is not OriginKind.DEFAULT and not (settings.folder / path).exists():
            msg = f"`{key}` names `{path}`, which is not there"
            raise ConfigError(msg, place=origin.place)
    return tuple(os.path.relpath(settings.folder / path, settings.folder) for path in paths)


def agent_rules(settings: Settings) -> AgentRules:
    """What the permits of agent files are worth."""
    strict = settings.runtime.mode is Mode.PRODUCTION
    return settings.policy.agent_rules or (AgentRules.RESTRICT if strict else AgentRules.FULL)


def policy_terms(settings: Settings) -> PolicyTerms:
    """What is asked of policies.

    Raises:
        ConfigError: Signatures are asked for, and no key is trusted.
        InputError: A key file cannot be read, or is no Ed25519 key.
    """
    if settings.policy.require_signed and not settings.policy.trusted_keys:
        place = settings.origin("policy.require_signed").place
        msg = "`policy.require_signed` is set and `policy.trusted_keys` names no key"
        raise ConfigError(msg, place=place, hint="name the PEM file of the key that signs policies")
    provider = open_provider(settings.security.crypto_provider.value)
    keys = [
        read_verifying_key(read_text(settings.folder / path).encode(), provider)
        for path in settings.policy.trusted_keys
    ]
    trusted = {key.key_id: key for key in keys}
    return PolicyTerms(agent_rules(settings), settings.policy.require_signed, trusted, str(settings.folder))


def verify_policies(settings: Settings) -> None:
    """Return if the policy files are signed as the settings ask.

    Whether they are newer than those of before is for the owner of the store to say.

    Raises:
        SignatureInvalid: Something is not what was signed, or not signed by a trusted key.
        ConfigError, InputError: Something cannot be read.
    """
    terms = policy_terms(settings)
    if terms.require_signed:
        for bundle in PolicyFolders(settings.folder).read(policy_paths(settings)):
            verify_bundle(bundle, terms.trusted)


def load_policies(settings: Settings, agent_files: Iterable[Path] = (), tools: Sequence[ToolType] = ()) -> PolicySet:
    """The whole policy set, with the policies of some agent files.

    Raises:
        PolicySyntaxError: A policy does not parse or does not fit the schema.
        DslError: An agent file is wrong.
        ConfigError, InputError: Something cannot be read.
    """
    return _with_agents(settings, read_policies(settings), agent_files, tools)


def policies_in(
    settings: Settings, path: str, agent_files: Iterable[Path] = (), tools: Sequence[ToolType] = ()
) -> PolicySet:
    """The policies of one path as seen from the working folder, in place of the configured ones.

    Raises:
        PolicySyntaxError, DslError, InputError: As `load_policies`.
    """
    sources = sources_of(policy_folders(Path.cwd()).read((path,)))
    return _with_agents(settings, sources, agent_files, tools)


def policy_folders(folder: Path) -> PolicyFolders:
    """Reads policy files; paths are seen from a folder."""
    return PolicyFolders(folder)


def _with_agents(
    settings: Settings, sources: Iterable[PolicySource], agent_files: Iterable[Path], tools: Sequence[ToolType]
) -> PolicySet:
    files = [rules_of(compile_agents(path), str(settings.folder)) for path in agent_files]
    rules, warnings = compose(files, agent_rules(settings))
    loaded = PolicySet.load(sources, rules, tools)
    return replace(loaded, warnings=(*loaded.warnings, *warnings))


def known_tools(settings: Settings) -> tuple[ToolType, ...]:
    """Tools whose definitions are pinned; none where there is no store yet.

    Raises:
        StoreUnavailable: The store is there and cannot be read.
    """
    definitions = [(pin.tool, json.loads(pin.definition)) for pin in known_pins(settings)]
    return tuple(ToolType(ToolName(name), definition["inputSchema"]) for name, definition in definitions)


def known_pins(settings: Settings) -> tuple[Pin, ...]:
    """The pins; none where there is no store yet.

    Raises:
        StoreUnavailable: The store is there and cannot be read.
    """
    if not (settings.runtime.data_dir / DATABASE_NAME).is_file():
        return ()
    with open_reader(settings) as reader:
        return tuple(reader.pins())


def known_reviews(settings: Settings) -> tuple[Review, ...]:
    """What of tools waits for a person, and what people have said; nothing where there is no store yet.

    Raises:
        StoreUnavailable: The store is there and cannot be read.
    """
    if not (settings.runtime.data_dir / DATABASE_NAME).is_file():
        return ()
    with open_reader(settings) as reader:
        return tuple(reader.reviews())
