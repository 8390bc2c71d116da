"""Every declared key is read from file, environment and command line; the tests are driven by the declarations."""

from dataclasses import fields
from pathlib import Path
from types import UnionType
from typing import get_args, get_type_hints

import pytest

from symbi.config import Secret, Settings, load, parse_settings
from symbi.config.approval_kinds import Program, Webhook
from symbi.config.collection_settings import ModelName
from symbi.config.door_kinds import HostName, PageOrigin
from symbi.config.kinds import (
    Address,
    ByteSize,
    FilePath,
    Flag,
    Kind,
    OneOf,
    Real,
    SecretText,
    Several,
    Text,
    Whole,
)
from symbi.config.knowledge_settings import CollectionPrefix, EmbedderName
from symbi.config.mcp_settings import PlainVariable
from symbi.config.sandbox_settings import EngineAddress, Image, RuntimeName, UserNumbers, VariableName
from symbi.config.schemapin_settings import DnsServer, Host
from symbi.config.sections import KEYS, SECTIONS, TABLE_KEYS, TABLES, Key
from symbi.config.settings import OriginKind
from symbi.errors import ConfigError

FILE = Path("/etc/symbi/symbi.toml")
CWD = Path("/home/ops")

PLAIN = [key for key in KEYS.values() if not key.secret]
SEED_KEYS = {
    "runtime": {"max_concurrent_agents", "scheduler_threads", "message_buffer_size", "gc_interval_ms"},
    "security": {"default_sandbox_tier", "enforce_policies", "audit_enabled", "crypto_provider"},
    "context": {"vector_db_url", "embedding_dimension", "context_cache_size", "knowledge_retention_days"},
    "mcp": {"discovery_enabled", "tool_verification", "connection_timeout_s", "max_concurrent_connections"},
}
SEED_FILE = """
[runtime]
max_concurrent_agents = 10000
scheduler_threads = 8
message_buffer_size = 1048576
gc_interval_ms = 100

[security]
default_sandbox_tier = "gvisor"
enforce_policies = true
audit_enabled = true
crypto_provider = "ring"

[context]
vector_db_url = "http://localhost:6333"
embedding_dimension = 1536
context_cache_size = "1GB"
knowledge_retention_days = 365

[mcp]
discovery_enabled = true
tool_verification = "strict"
connection_timeout_s = 30
max_concurrent_connections = 100
"""
SEED_VARIABLES = {
    "SYMBI_LOG_LEVEL": ("info", "runtime.log_level", "info"),
    "SYMBI_RUNTIME_MODE": ("production", "runtime.mode", "production"),
    "SYMBI_CRYPTO_PROVIDER": ("ring", "security.crypto_provider", "openssl"),
    "SYMBI_AUDIT_STORAGE": ("/var/log/symbi/audit", "audit.storage", Path("/var/log/symbi/audit")),
    "QDRANT_URL": ("http://localhost:6333", "context.vector_db_url", "http://localhost:6333"),
    "OPENAI_API_KEY": ("your_api_key_here", "models.openai_api_key", Secret("your_api_key_here")),
    "MCP_SERVER_DISCOVERY": ("enabled", "mcp.discovery_enabled", True),
}


def read(text="", environ=None, overrides=None):
    return parse_settings(text, file=FILE, cwd=CWD, environ=environ or {}, overrides=overrides or {})


def value_of(settings: Settings, key: Key):
    return getattr(getattr(settings, key.section), key.field)


def samples(kind: Kind) -> list[tuple[str, str, object]]:
    """Three different values of a kind: as TOML, as text, and what they mean (a path: for file and elsewhere)."""
    match kind:
        case Flag():
            return [("false", "false", False), ("true", "true", True), ("false", "0", False)]
        case Whole(low=low):
            return [(str(low + n), str(low + n), low + n) for n in (1, 2, 3)]
        case Real(low=low):
            return [(f"{low + n}", f"{low + n}", low + n) for n in (0.5, 0.25, 0.125)]
        case ByteSize():
            return [('"2MB"', "2MB", 2_000_000), ('"1MiB"', "1MiB", 1_048_576), ("4096", "4096", 4096)]
        case OneOf(words=words):
            some = [word.value for word in words] * 2
            return [(f'"{word}"', word.upper(), words(word)) for word in some[:3]]
        case DnsServer():
            some = ["192.0.2.1", "192.0.2.2:5353", "[2001:db8::1]:5353"]
            return [(f'"{one}"', one, one) for one in some]
        case Host():
            return [(f'"h{n}.example.com"', f"H{n}.example.com", f"h{n}.example.com") for n in range(3)]
        case HostName():
            return [(f'"g{n}.example"', f"g{n}.example", f"g{n}.example") for n in range(3)]
        case PageOrigin():
            return [(f'"https://p{n}:44{n}"', f"https://p{n}:44{n}", f"https://p{n}:44{n}") for n in range(3)]
        case Webhook():
            return [(f'"https://h{n}"', f"https://h{n}", f"https://h{n}") for n in range(3)]
        case Program():
            return [(f'["p{n}", "a b"]', f"p{n} 'a b'", (f"p{n}", "a b")) for n in range(3)]
        case EngineAddress():
            return [(f'"unix:///s{n}"', f"unix:///s{n}", f"unix:///s{n}") for n in range(3)]
        case Image():
            some = [f"sha256:{n}" + 63 * "a" for n in range(3)]
            return [(f'"{one}"', one, one) for one in some]
        case VariableName() | PlainVariable():
            return [(f'"MODE_{n}"', f"MODE_{n}", f"MODE_{n}") for n in range(3)]
        case RuntimeName():
            return [(f'"r{n}"', f"r{n}", f"r{n}") for n in range(3)]
        case UserNumbers():
            return [(f'"{n}:{n + 1}"', f"{n}:{n + 1}", f"{n}:{n + 1}") for n in (1, 2, 3)]
        case Address():
            return [(f'"http://h{n}"', f"http://h{n}", f"http://h{n}") for n in range(3)]
        case CollectionPrefix():
            return [(f'"c{n}"', f"c{n}", f"c{n}") for n in range(3)]
        case ModelName():
            return [(f'"m{n}"', f"m{n}", f"m{n}") for n in range(3)]
        case EmbedderName():
            return [(f'"openai:m{n}"', f"openai:m{n}", f"openai:m{n}") for n in range(3)]
        case Text():
            return [(f'"t{n}"', f"t{n}", f"t{n}") for n in range(3)]
        case FilePath():
            return [(f'"/p{n}"', f"/p{n}", Path(f"/p{n}")) for n in range(3)]
        case Several(item=item):
            return [(f"[{toml}]", text, (value,)) for toml, text, value in samples(item)]
    raise NotImplementedError(kind)


@pytest.mark.parametrize("key", PLAIN, ids=lambda key: key.name)
def test_a_key_is_read_from_the_file(key):
    for toml, _, expected in samples(key.kind):
        settings = read(f"# a comment\n[{key.section}]\n\n{key.field} = {toml}\n")
        assert value_of(settings, key) == expected
        assert settings.origin(key.name).kind is OriginKind.FILE
        assert settings.origin(key.name).where == "/etc/symbi/symbi.toml:4"


@pytest.mark.parametrize(
    ("key", "variable"),
    [pytest.param(key, name, id=name) for key in PLAIN for name in key.variables],
)
def test_a_key_is_read_from_each_of_its_variables(key, variable):
    for _, text, expected in samples(key.kind):
        settings = read(environ={variable: text})
        assert value_of(settings, key) == expected
        assert (settings.origin(key.name).kind, settings.origin(key.name).where) == (OriginKind.ENV, variable)


@pytest.mark.parametrize("key", PLAIN, ids=lambda key: key.name)
def test_a_key_is_read_from_the_command_line_as_text_and_as_a_value(key):
    for _, text, expected in samples(key.kind):
        settings = read(overrides={key.name: text})
        assert value_of(settings, key) == expected
        assert settings.origin(key.name).kind is OriginKind.CLI
        native = key.kind.show(expected) if isinstance(key.kind, OneOf) else expected
        assert value_of(read(overrides={key.name: native}), key) == expected


@pytest.mark.parametrize("key", PLAIN, ids=lambda key: key.name)
def test_the_command_line_goes_before_the_environment_before_the_file_before_the_default(key):
    (toml, _, in_file), (_, text, in_environment), (_, typed, on_command_line) = samples(key.kind)
    file, environ = f"[{key.section}]\n{key.field} = {toml}", {key.variables[0]: text}
    assert read().origin(key.name).kind is OriginKind.DEFAULT
    assert value_of(read(file), key) == in_file
    assert value_of(read(file, environ), key) == in_environment
    strongest = read(file, environ, {key.name: typed})
    assert value_of(strongest, key) == on_command_line
    assert strongest.origin(key.name).kind is OriginKind.CLI


@pytest.mark.parametrize("key", KEYS.values(), ids=lambda key: key.name)
def test_a_default_is_of_the_declared_type_and_within_its_own_range(key):
    hint = get_type_hints(SECTIONS[key.section])[key.field]
    allowed = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    default = value_of(read(), key)
    assert any(isinstance(default, getattr(one, "__origin__", one)) for one in allowed)
    if default is not None:
        assert key.kind.from_text(key.kind.show(default), CWD) == default


@pytest.mark.parametrize("key", PLAIN, ids=lambda key: key.name)
def test_what_is_shown_of_a_value_can_be_given_back(key):
    for _, _, value in samples(key.kind):
        assert key.kind.from_text(key.kind.show(value), CWD) == value


@pytest.mark.parametrize("key", PLAIN, ids=lambda key: key.name)
def test_a_value_of_another_type_is_refused_with_its_place(key):
    for wrong in ("2026-01-02", "{ a = 1 }", '""'):
        with pytest.raises(ConfigError, match=key.field) as caught:
            read(f"[{key.section}]\n{key.field} = {wrong}")
        assert caught.value.place is not None
        assert (caught.value.place.line, caught.value.place.column) == (2, 1)


@pytest.mark.parametrize("key", [key for key in PLAIN if "path" not in key.kind.name], ids=lambda key: key.name)
def test_nonsense_in_a_variable_is_refused_by_its_name_where_not_any_text_will_do(key):
    with pytest.raises(ConfigError, match=f"`{key.variables[0]}` "):
        read(environ={key.variables[0]: "?nonsense?"})


def test_every_key_of_the_seed_is_known_and_its_file_reads_as_it_stands():
    settings = read(SEED_FILE)
    for section, names in SEED_KEYS.items():
        for name in names:
            assert settings.origin(f"{section}.{name}").kind is OriginKind.FILE
    assert settings.context.context_cache_size == 10**9
    assert settings.context.embedding_dimension == 1536
    assert settings.mcp.connection_timeout_s == 30.0


@pytest.mark.parametrize("variable", SEED_VARIABLES)
def test_every_variable_of_the_seed_is_known(variable):
    text, name, expected = SEED_VARIABLES[variable]
    settings = read(environ={variable: text})
    assert value_of(settings, KEYS[name]) == expected
    assert settings.origin(name).where == variable


def test_every_key_with_one_value_has_a_systematic_variable_and_no_two_share_one():
    for key in PLAIN:
        assert key.variables[0] == f"SYMBI_{key.section}_{key.field}".upper()
    names = [name for key in KEYS.values() for name in key.variables]
    assert len(names) == len(set(names))


def test_every_field_of_every_section_is_declared():
    for section, cls in SECTIONS.items():
        declared = {key.field for key in KEYS.values() if key.section == section}
        assert {one.name for one in fields(cls)} - declared <= {"servers", "people", "clients", "collections", "rules"}
    for section, cls in TABLES.items():
        assert {one.name for one in fields(cls)} - set(TABLE_KEYS[section]) == {"name"}


@pytest.mark.parametrize(
    ("name", "variable"),
    [("models.openai_api_key", "OPENAI_API_KEY"), ("context.vector_db_api_key", "QDRANT_API_KEY")],
)
def test_a_secret_comes_from_its_variable_only_and_is_never_shown(name, variable):
    assert {key.name for key in KEYS.values() if isinstance(key.kind, SecretText)} == {
        "models.openai_api_key",
        "context.vector_db_api_key",
    }
    key = KEYS[name]
    settings = read(environ={variable: "sk-canary"})
    value = getattr(getattr(settings, key.section), key.field)
    assert value == Secret("sk-canary")
    assert value.reveal() == "sk-canary"
    assert "sk-canary" not in repr(settings)
    assert "sk-canary" not in f"{value} {key.show(value)}"
    for attempt in (
        lambda: read(f'[{key.section}]\n{key.field} = "sk-canary"'),
        lambda: read(overrides={key.name: "sk-canary"}),
        lambda: read(environ={f"SYMBI_{key.section}_{key.field}".upper(): "sk-canary"}),
    ):
        with pytest.raises(ConfigError) as caught:
            attempt()
        assert "sk-canary" not in str(caught.value)


def test_relative_paths_are_seen_from_the_file_in_a_file_and_from_the_working_folder_elsewhere():
    in_file = read('[runtime]\ndata_dir = "state"\n[policy]\npaths = ["a", "b.cedar"]')
    assert in_file.runtime.data_dir == Path("/etc/symbi/state")
    assert in_file.policy.paths == (Path("/etc/symbi/a"), Path("/etc/symbi/b.cedar"))
    elsewhere = read(environ={"SYMBI_RUNTIME_DATA_DIR": "state"}, overrides={"policy.paths": "a, b.cedar"})
    assert elsewhere.runtime.data_dir == Path("/home/ops/state")
    assert elsewhere.policy.paths == (Path("/home/ops/a"), Path("/home/ops/b.cedar"))


def test_default_paths_lie_beside_the_file_or_in_the_working_folder_where_there_is_none():
    assert read().runtime.data_dir == Path("/etc/symbi/.symbi")
    assert read().policy.paths == (Path("/etc/symbi/policies"),)
    assert read().secrets_file == Path("/etc/symbi/.symbi/secrets.toml")
    without = parse_settings(None, file=None, cwd=CWD, environ={}, overrides={})
    assert without.runtime.data_dir == CWD / ".symbi"
    assert without.file is None


def test_the_loader_bounds_what_it_reads():
    assert load.MAX_CONFIG_BYTES <= 2**20
