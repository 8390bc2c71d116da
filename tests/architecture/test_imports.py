"""The floors, as import-linter checks them, and what it cannot see."""

import ast
import subprocess
import sys
from pathlib import Path

ASKS_THE_ROOT_FOR = {"__version__"}


def test_the_floors_hold(root):
    command = [Path(sys.executable).parent / "lint-imports", "--no-cache", "--no-logo"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_room_reaches_another_through_the_package_root(modules, root):
    """The root re-exports names of high floors lazily, so an import from it would pass by them; `cli` stands above all."""
    package = root / "src/symbi"
    found = []
    for path, _, tree in modules:
        if path.is_relative_to(package / "cli"):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names if alias.name == "symbi"]
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module == "symbi":
                names = [alias.name for alias in node.names if not is_module(package, alias.name)]
            else:
                continue
            found += [f"{path}:{node.lineno} {name}" for name in names if name not in ASKS_THE_ROOT_FOR]
    assert found == []


def is_module(package, name):
    return (package / f"{name}.py").exists() or (package / name).is_dir()
