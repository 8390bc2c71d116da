"""What is wrong in a configuration is an error with its place and a hint."""

from pathlib import Path

import pytest

from symbi.config import parse_settings
from symbi.errors import ConfigError

FILE = Path("/srv/app/symbi.toml")


def read(text, environ=None, overrides=None):
    return parse_settings(text, file=FILE, cwd=FILE.parent, environ=environ or {}, overrides=overrides or {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\n[runtime]\nmax_agents = 1", "symbi.toml:3:1: unknown key `max_agents` in .runtime."),
        ("[runtime]\nmax_concurent_agents = 1", "symbi.toml:2:1: .*did you mean `max_concurrent_agents`"),
        ("[runtim]\n", "symbi.toml:1:1: unknown section `runtim`; did you mean `runtime`"),
        ("[mcp]\n[mcp.server.a]", "symbi.toml:2:1: unknown key `server` in .mcp.; did you mean `servers`"),
        ("mode = 'production'", "symbi.toml:1:1: .*`mode` belongs in .runtime."),
        ("[security]\ndata_dir = 'x'", "symbi.toml:2:1: unknown key `data_dir` in .security.; it belongs in .runtime."),
        ("runtime = 1", "symbi.toml:1:1: `runtime` must be a table, not `1`; write .runtime."),
        ("[runtime]\nmode = 'prod'", "symbi.toml:2:1: `runtime.mode` must be one of `development`, `production`, not"),
        ("[runtime]\nmode = 'Production'", "symbi.toml:2:1: .*did you mean `production`"),
        ("[runtime]\nscheduler_threads = true", r"symbi.toml:2:1: .*must be an integer \(threads\), not `true`"),
        ("[runtime]\nscheduler_threads = 1.0", r"symbi.toml:2:1: .*must be an integer \(threads\), not `1.0`"),
        ("[runtime]\nscheduler_threads = '8'", r"symbi.toml:2:1: .*must be an integer \(threads\), not the text `8`"),
        ("[runtime]\nscheduler_threads = 0", "symbi.toml:2:1: .*must be from 1 to 256 threads, not `0`"),
        ("[runtime]\nscheduler_threads = 0x" + "f" * 9000, "symbi.toml:2:1: .*not an integer of 36000 bits"),
        ("[runtime]\nshutdown_grace_s = nan", "symbi.toml:2:1: .*from 0 to 3600 seconds, not `nan`"),
        ("[runtime]\nshutdown_grace_s = true", "symbi.toml:2:1: .*must be a number"),
        ("[runtime]\ndata_dir = '~/x'", "symbi.toml:2:1: .*`~` is not expanded"),
        ("[security]\nenforce_policies = 'true'", "symbi.toml:2:1: .*must be true or false, not the text `true`"),
        ("[security]\nenforce_policies = 1", "symbi.toml:2:1: .*must be true or false, not `1`"),
        ("[security]\ndefault_sandbox_tier = 'firecracker'", "symbi.toml:2:1: .*must be one of `interpreter`"),
        ("[context]\ncontext_cache_size = '1 GBs'", "symbi.toml:2:1: .*such as `1GB`"),
        ("[context]\ncontext_cache_size = '9000000TB'", "symbi.toml:2:1: .*must be from 0 to"),
        ("[context]\nvector_db_url = 'http://u:p@h'", "symbi.toml:2:1: .*holds credentials"),
        ("[context]\nvector_db_url = 'ftp://h'", "symbi.toml:2:1: .*must begin with one of"),
        ("[context]\nvector_db_url = 'http://'", "symbi.toml:2:1: .*names no host"),
        ("[policy]\npaths = 'policies'", "symbi.toml:2:1: .*must be a list.*brackets"),
        ("[policy]\npaths = ['a', 'a']", "symbi.toml:2:1: .*names `/srv/app/a` twice"),
        ("[secrets]\nsources = ['env', 'vault']", "symbi.toml:2:1: .*must be one of `env`, `file`, `keyring`"),
        ("[runtime]\nmode = 'a\\nb", "symbi.toml:2:.*not valid TOML"),
        ('[runtime]\nmode = "a', "symbi.toml:2:.*not valid TOML"),
        ("[runtime]\n[runtime]", "symbi.toml:2:.*not valid TOML: cannot declare"),
        ("x = " + "[" * 5000, "nested too deeply"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_refused_at_its_place(text, message):
    with pytest.raises(ConfigError, match=message):
        read(text)


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"SYMBI_RUNTIME_MOD": "x"}, "unknown environment variable `SYMBI_RUNTIME_MOD`; .*`SYMBI_RUNTIME_MODE`"),
        ({"SYMBI_MCP_SERVERS": "x"}, "unknown environment variable `SYMBI_MCP_SERVERS`"),
        ({"SYMBI_AGENTS_A_OWNER": "x"}, "unknown environment variable"),
        ({"SYMBI_RUNTIME_MODE": ""}, "`SYMBI_RUNTIME_MODE` is empty"),
        ({"SYMBI_SECURITY_ENFORCE_POLICIES": " "}, "`SYMBI_SECURITY_ENFORCE_POLICIES` is empty"),
        ({"SYMBI_RUNTIME_SCHEDULER_THREADS": "8.0"}, "`SYMBI_RUNTIME_SCHEDULER_THREADS` must be an integer"),
        ({"SYMBI_RUNTIME_SCHEDULER_THREADS": "٨"}, "`SYMBI_RUNTIME_SCHEDULER_THREADS` must be an integer"),
        ({"SYMBI_RUNTIME_SHUTDOWN_GRACE_S": "inf"}, "`SYMBI_RUNTIME_SHUTDOWN_GRACE_S` must be from 0 to 3600"),
        ({"MCP_SERVER_DISCOVERY": "maybe"}, "`MCP_SERVER_DISCOVERY` must be true or false"),
        ({"SYMBI_LOG_LEVEL": "loud"}, "`SYMBI_LOG_LEVEL` must be one of"),
        (
            {"SYMBI_CRYPTO_PROVIDER": "ring", "SYMBI_SECURITY_CRYPTO_PROVIDER": "libsodium"},
            "`SYMBI_SECURITY_CRYPTO_PROVIDER` and `SYMBI_CRYPTO_PROVIDER` disagree",
        ),
    ],
)
def test_a_wrong_variable_is_refused_by_its_name(environ, message):
    with pytest.raises(ConfigError, match=message):
        read("", environ)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"runtime.mod": "x"}, "`runtime.mod` is no known key; did you mean `runtime.mode`"),
        ({"mode": "production"}, "`mode` is no known key"),
        ({"limits.steps": 1.5}, "`limits.steps` must be an integer"),
        ({"security.enforce_policies": "no"}, "`security.enforce_policies` must be true or false"),
        ({"runtime.data_dir": None}, "`runtime.data_dir` must be a path, not a NoneType"),
    ],
)
def test_a_wrong_override_is_refused_by_its_key(overrides, message):
    with pytest.raises(ConfigError, match=message):
        read("", overrides=overrides)


def test_a_wrong_value_is_refused_also_where_a_stronger_source_covers_it():
    with pytest.raises(ConfigError, match=r"symbi\.toml:2:1"):
        read("[runtime]\nmode = 'prod'", {"SYMBI_RUNTIME_MODE": "production"})


def test_two_variables_of_one_key_that_agree_are_fine():
    settings = read("", {"SYMBI_CRYPTO_PROVIDER": "ring", "SYMBI_SECURITY_CRYPTO_PROVIDER": "openssl"})
    assert settings.security.crypto_provider == "openssl"


def test_a_variable_that_other_programs_know_too_may_be_empty():
    settings = read("", {"QDRANT_URL": "", "OPENAI_API_KEY": "", "MCP_SERVER_DISCOVERY": ""})
    assert settings.models.openai_api_key is None
    assert settings.mcp.discovery_enabled


def test_variables_that_hold_secrets_and_keys_are_no_settings():
    read("", {"SYMBI_SECRET_SMTP_PASSWORD": "x", "SYMBI_KEY_AUDIT": "x", "SYMBIOSIS": "x"})


def test_a_message_stays_on_one_line_whatever_was_given():
    for value in ("a\\nb", "a" * 3000, "\\u202eabc"):
        with pytest.raises(ConfigError) as caught:
            read(f'[runtime]\nmode = "{value}"')
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 300
    for name in ("a\\nb", "x" * 3000):
        with pytest.raises(ConfigError) as caught:
            read(f'[runtime]\n"{name}" = 1')
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 300
