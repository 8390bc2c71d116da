"""No setting is silent: each key is read by wiring or a door."""

import ast

from symbi.config.sections import KEYS, TABLE_KEYS

ELSEWHERE = {
    "mcp.max_concurrent_connections": "the loader refuses more configured servers than that",
    "agents.NAME.owner": "Settings.principal",
    "agents.NAME.groups": "Settings.principal",
    "agents.NAME.trust": "Settings.principal",
    "gateway.behind_proxy": "refuse_unsafe",
    "secrets.file": "Settings.secrets_file",
}


def reads(modules, root):
    """(owner, name) of every attribute that is read by those who may see settings: `settings.limits.steps` gives
    (`limits`, `steps`), and so does `limits.steps`."""
    return {
        (getattr(node.value, "attr", None) or getattr(node.value, "id", None), node.attr)
        for path, _, tree in modules
        if path.relative_to(root / "src/symbi").parts[0] in {"wiring", "cli", "api"}
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
    }


def test_every_key_is_read(modules, root):
    found = reads(modules, root)
    names = {name for _, name in found}
    silent = [name for name, key in KEYS.items() if (key.section, key.field) not in found]
    silent += [key.name for table in TABLE_KEYS.values() for key in table.values() if key.field not in names]
    assert [name for name in silent if name not in ELSEWHERE] == [], "read them where they act"
