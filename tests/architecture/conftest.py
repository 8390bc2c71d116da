"""Files of the repository, for the tests that read it."""

import ast
import os
import shutil
import subprocess

import pytest

NOT_OURS = {"build", "dist", "__pycache__"}


@pytest.fixture(scope="session")
def repository(root):
    """Every file that is or may be committed, sorted: what git lists, or what lies there where there is no git."""
    git = shutil.which("git")
    if git and (root / ".git").exists():
        command = [git, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=60, check=True).stdout
        return sorted(path for name in set(listed.split("\0")) if name and (path := root / name).is_file())
    found = []
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name not in NOT_OURS and (name == ".ci" or not name.startswith("."))]
        found += [root / folder / name for name in files]
    return sorted(found)


@pytest.fixture(scope="session")
def texts(repository):
    """(path, text) of every file that is text."""
    found = []
    for path in repository:
        content = path.read_bytes()
        if b"\0" not in content:
            found.append((path, content.decode("utf-8")))
    return found


@pytest.fixture(scope="session")
def modules(root):
    """(path, text, tree) of every module of the package."""
    found = []
    for path in sorted((root / "src/symbi").rglob("*.py")):
        text = path.read_text("utf-8")
        found.append((path, text, ast.parse(text)))
    return found
