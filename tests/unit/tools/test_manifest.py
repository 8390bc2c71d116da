"""Operator manifests."""

import pytest

from symbi.errors import ConfigError
from symbi.tools.manifest import Manifest, ToolEntry, parse_manifest
from symbi.types import RecoveryClass

GOOD = """
[server]
name = "files"

[tools.read_log]
recovery = "read-only"

[tools.write_report]
recovery = "idempotent"
timeout_s = 5
max_output_bytes = 1024
"""


def test_a_manifest_is_read():
    assert parse_manifest("files.toml", GOOD) == Manifest(
        "files",
        {
            "read_log": ToolEntry(RecoveryClass.READ_ONLY),
            "write_report": ToolEntry(RecoveryClass.IDEMPOTENT, 5.0, 1024),
        },
    )


def test_a_tool_that_is_not_named_is_never_repeated():
    manifest = parse_manifest("files.toml", '[server]\nname = "files"\n[tools.a]\n')
    assert manifest.entry("a").recovery is RecoveryClass.NEVER_RETRY
    assert manifest.entry("unheard-of") == ToolEntry(RecoveryClass.NEVER_RETRY)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[server]\nname = = 3", "f.toml:2:8: not TOML"),
        ("[server]\nname = [", "f.toml:2:1: not TOML"),
        ("", "f.toml:1:1: `server.name` is missing; it is the server's name in the configuration"),
        ('[server]\nnme = "x"', "f.toml:2:1: unknown key `server.nme`; did you mean `name`?"),
        ('[server]\nname = "a"\n\n[tool.x]', "f.toml:4:1: unknown key `tool`; did you mean `tools`?"),
        ('[server]\nname = "a.b"', "f.toml:2:1: `a.b` cannot name a server; letters, digits, `_` and `-` can"),
        ("[server]\nname = 3", "f.toml:2:1: `server.name` must be text"),
        ('server = "a"', "f.toml:1:1: `server` must be a table"),
        (
            '[server]\nname = "a"\n[tools.x]\nrecovery = "readonly"',
            "f.toml:4:1: `readonly` is no recovery class; did you mean `read-only`?",
        ),
        (
            '[server]\nname = "a"\n[tools.x]\nrecovery = "read-only"\n[tools.y]\ntimeout = 3',
            "f.toml:6:1: unknown key `tools.y.timeout`; did you mean `timeout_s`?",
        ),
        (
            '[server]\nname = "a"\n[tools."rm -rf"]\n',
            "f.toml:3:1: `rm -rf` cannot name a tool; letters, digits, `_`, `-` and `.` can",
        ),
        (
            '[server]\nname = "a"\n[tools]\nx = { timeout_s = true }',
            "f.toml:4:1: `tools.x.timeout_s` must be seconds from 0.001 to 86400",
        ),
        ('[server]\nname = "a"\n[tools]\nx = 3', "f.toml:4:1: `tools.x` must be a table"),
        (
            '[server]\nname = "a"\n[tools.x]\nmax_output_bytes = 2000000',
            "f.toml:4:1: `tools.x.max_output_bytes` must be a number from 1 to 1048576",
        ),
    ],
)
def test_a_wrong_manifest_says_where_and_what(text, message):
    with pytest.raises(ConfigError) as caught:
        parse_manifest("f.toml", text)
    assert str(caught.value) == message


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "86401", '"3"', "[]"])
def test_a_timeout_is_a_number_of_seconds_in_bounds(value):
    with pytest.raises(ConfigError, match="timeout_s"):
        parse_manifest("f.toml", f'[server]\nname = "a"\n[tools.x]\ntimeout_s = {value}')


@pytest.mark.parametrize("server", ["files", "notify"])
def test_the_examples_manifests_declare_every_tool(root, server):
    path = root / "examples" / "log-triage" / "tools" / f"{server}.toml"
    manifest = parse_manifest(path.name, path.read_text())
    assert manifest.server == server
    assert RecoveryClass.NEVER_RETRY not in {entry.recovery for entry in manifest.tools.values()}
