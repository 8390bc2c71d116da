"""How settings are shown."""

from pathlib import Path

from symbi.config import config_reference, describe_settings, parse_settings
from symbi.config.sections import KEYS, TABLE_KEYS

FILE = Path("/srv/app/symbi.toml")
TEXT = """
[runtime]
mode = "production"

[agents.triage]
owner = "ops"

[mcp.servers.files]
command = ["{python}", "server.py"]
"""


def test_every_key_has_a_row_with_value_and_origin():
    settings = parse_settings(TEXT, file=FILE, cwd=FILE.parent, environ={"SYMBI_LOG_LEVEL": "warn"}, overrides={})
    rows = {row.key: row for row in describe_settings(settings)}
    assert set(KEYS) <= set(rows)
    assert {f"agents.triage.{name}" for name in TABLE_KEYS["agents"]} <= set(rows)
    assert {f"mcp.servers.files.{name}" for name in TABLE_KEYS["mcp.servers"]} <= set(rows)
    assert (rows["runtime.mode"].value, str(rows["runtime.mode"].origin)) == ("production", "file (symbi.toml:3)")
    assert (rows["runtime.log_level"].value, str(rows["runtime.log_level"].origin)) == (
        "warning",
        "env (SYMBI_LOG_LEVEL)",
    )
    assert str(rows["agents.triage.owner"].origin) == "file (symbi.toml:6)"
    assert str(rows["limits.steps"].origin) == "default"
    assert rows["limits.memory_mb"].value == "(the machine's)"


def test_the_reference_names_every_key_with_its_variables():
    page = config_reference()
    for key in KEYS.values():
        (row,) = [line for line in page.splitlines() if line.startswith(f"| `{key.field}` ") and key.meaning in line]
        assert all(f"`{name}`" in row for name in key.variables)
    for section, keys in TABLE_KEYS.items():
        assert f"## `[{section}.NAME]`" in page
        assert all(f"| `{name}` |" in page for name in keys)
