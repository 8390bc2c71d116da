"""Unsafe settings: refused in production, said in development. What has no effect is said, too."""

from pathlib import Path

import pytest

from symbi.config import describe_settings, parse_settings, refuse_unsafe, require_embedding_dimension
from symbi.errors import ConfigError

FILE = Path("/srv/app/symbi.toml")
UNSAFE = {
    "security.enforce_policies": "[security]\nenforce_policies = false",
    "security.audit_enabled": "[security]\naudit_enabled = false",
    "mcp.tool_verification": "[mcp]\ntool_verification = 'disabled'",
    "policy.paths": "[policy]\npaths = []",
}


def read(text="", environ=None, overrides=None):
    return parse_settings(text, file=FILE, cwd=FILE.parent, environ=environ or {}, overrides=overrides or {})


@pytest.mark.parametrize("mode", ["development", "production"])
def test_the_defaults_are_safe_and_warn_of_nothing(mode):
    assert refuse_unsafe(read(overrides={"runtime.mode": mode})) == ()


@pytest.mark.parametrize("key", UNSAFE)
def test_an_unsafe_setting_is_refused_in_production_at_its_place(key):
    settings = read(UNSAFE[key], {"SYMBI_RUNTIME_MODE": "production"})
    with pytest.raises(ConfigError, match=rf"symbi.toml:2:1: refused in production mode: `{key}`") as caught:
        refuse_unsafe(settings)
    assert caught.value.code == "config.unsafe"


@pytest.mark.parametrize("key", UNSAFE)
def test_an_unsafe_setting_warns_in_development(key):
    (warning,) = refuse_unsafe(read(UNSAFE[key]))
    assert warning.startswith(f"unsafe: `{key}` (file (symbi.toml:2))")


def test_a_refusal_names_everything_that_is_unsafe():
    text = "[runtime]\nmode = 'production'\n" + "\n".join(
        ["[security]\nenforce_policies = false\naudit_enabled = false", UNSAFE["policy.paths"]]
    )
    with pytest.raises(ConfigError) as caught:
        refuse_unsafe(read(text))
    for key in ("security.enforce_policies", "security.audit_enabled", "policy.paths"):
        assert f"`{key}`" in str(caught.value)


def test_an_unsafe_setting_from_the_environment_is_refused_too():
    settings = read(environ={"SYMBI_SECURITY_AUDIT_ENABLED": "0", "SYMBI_RUNTIME_MODE": "production"})
    with pytest.raises(ConfigError, match=r"env \(SYMBI_SECURITY_AUDIT_ENABLED\)"):
        refuse_unsafe(settings)


def test_tofu_is_allowed_in_production_and_warns():
    settings = read("[mcp]\ntool_verification = 'tofu'", {"SYMBI_RUNTIME_MODE": "production"})
    (warning,) = refuse_unsafe(settings)
    assert "trusted at first sight" in warning


def test_a_server_without_a_key_is_named_where_signatures_are_asked_for():
    (warning,) = refuse_unsafe(read("[mcp.servers.files]\ncommand = ['x']"))
    assert "`mcp.servers.files` has no `public_key`" in warning
    assert refuse_unsafe(read("[mcp.servers.files]\ncommand = ['x']\npublic_key = 'k.pem'")) == ()


def test_ring_is_taken_as_openssl_and_said_so():
    (warning,) = refuse_unsafe(read("[security]\ncrypto_provider = 'ring'"))
    assert warning == "`security.crypto_provider` (file (symbi.toml:2)): `ring` is taken as `openssl`"
    (warning,) = refuse_unsafe(read(environ={"SYMBI_CRYPTO_PROVIDER": "RING"}))
    assert "`ring` is taken as `openssl`" in warning


def test_a_second_spelling_that_was_covered_is_not_spoken_of():
    settings = read("[security]\ncrypto_provider = 'ring'", overrides={"security.crypto_provider": "libsodium"})
    assert refuse_unsafe(settings) == ()


def test_a_key_that_other_programs_use_too_is_shown_as_set_alone():
    settings = read(environ={"OPENAI_API_KEY": "sk-canary"})
    assert refuse_unsafe(settings) == ()
    (row,) = [row for row in describe_settings(settings) if row.key == "models.openai_api_key"]
    assert row.value == "set"


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('vector_db_url = "http://db.example.com:6333"', "context.vector_db_url"),
        ('embedder = "openai:m"\nembedder_url = "http://models.example.com/v1"', "context.embedder_url"),
    ],
)
def test_texts_and_vectors_do_not_go_over_a_network_in_the_clear(text, key):
    (warning,) = refuse_unsafe(read(f"[context]\n{text}"))
    assert warning.startswith(f"unsafe: `{key}`")
    with pytest.raises(ConfigError, match=key):
        refuse_unsafe(read(f'[runtime]\nmode = "production"\n[context]\n{text}'))
    for near in ("https://db.example.com", "http://127.0.0.1:1", "http://localhost", "http://[::1]:2"):
        assert refuse_unsafe(read(f'[context]\nembedder = "openai:m"\nembedder_url = "{near}"')) == ()
        assert refuse_unsafe(read(f'[context]\nvector_db_url = "{near}"')) == ()


@pytest.mark.parametrize("text", ["openai:", "sentence-transformers: ", "bultin", "openai", "x:y", "builtin:x", "a\nb"])
def test_an_embedder_is_one_of_three_kinds(text):
    with pytest.raises(ConfigError, match="must be `builtin`"):
        read(f"[context]\nembedder = {text!r}" if "\n" not in text else '[context]\nembedder = "a\\nb"')


def test_a_folder_of_a_model_is_seen_from_the_configuration_file():
    settings = read('[context]\nembedder = "sentence-transformers:models/m"')
    assert settings.context.embedder.endswith("/models/m")
    assert settings.context.embedder.startswith("sentence-transformers:/")


def test_a_dimension_other_than_the_embedders_is_an_error_that_names_both():
    settings = read("[context]\nembedding_dimension = 1536")
    with pytest.raises(ConfigError, match=r"symbi\.toml:2:1: .*1536, but the embedder `builtin` makes vectors of 256"):
        require_embedding_dimension(settings, "builtin", 256)
    require_embedding_dimension(settings, "openai", 1536)
    require_embedding_dimension(read(), "builtin", 256)


@pytest.mark.parametrize("said", ['topics = ["a.*"]', "idle_s = 5", "max_messages = 3"])
def test_what_is_said_of_a_mailbox_has_no_effect_on_an_agent_that_has_none(said):
    (warning,) = refuse_unsafe(read(f"[agents.a]\n{said}\n"))
    assert warning.startswith(f"no effect: `agents.a.{said.partition(' ')[0]}`")
    assert refuse_unsafe(read(f'[agents.a]\nmode = "persistent"\n{said}\n')) == ()
