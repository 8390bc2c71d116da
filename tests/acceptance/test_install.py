"""What `make` does on a machine that cannot have Symbi: a clear message, and nothing half made."""

import re
import shutil
import subprocess

import pytest

OLD = '#!/bin/sh\nif [ "$1" = --version ]; then echo "Python 3.9.6"; else exit 1; fi\n'
NO_ENSUREPIP = '#!/bin/sh\ncase "$2" in *ensurepip*) exit 1 ;; esac\n'
VERBS = {
    "test-crash",
    "test-forgery",
    "demo",
    "test",
    "check",
    "servers",
    "test-servers",
    "bench",
    "docs",
    "lock",
    "clean",
    "help",
}


@pytest.fixture
def machine(root, tmp_path):
    """A machine with a shell and the `python3` given; runs the installer there."""
    tools = tmp_path / "repository/tools"
    tools.mkdir(parents=True)
    shutil.copy(root / "tools/install.sh", tools)
    commands = tmp_path / "bin"
    commands.mkdir()
    for name in ("dirname", "ls", "touch"):
        (commands / name).symlink_to(shutil.which(name))

    def run(python3, **environment):
        (commands / "python3").write_text(python3)
        (commands / "python3").chmod(0o755)
        done = subprocess.run(
            ["/bin/sh", tools / "install.sh"],
            env={"PATH": str(commands)} | environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert not (tmp_path / "repository/.venv").exists()
        return done.returncode, done.stderr

    return run


def test_an_old_python_is_refused_and_named(machine):
    status, message = machine(OLD)
    assert status == 1
    assert "Python 3.11 or newer is needed (found: Python 3.9.6)" in message
    assert "make PYTHON=/path/to/python3.11" in message


def test_an_old_python_asked_for_by_name_is_refused(machine):
    status, message = machine(NO_ENSUREPIP, PYTHON="/bin/false")
    assert status == 1
    assert message == "install: PYTHON=/bin/false is not a Python of 3.11 or newer\n"


def test_a_python_without_venv_says_what_to_install(machine):
    status, message = machine(NO_ENSUREPIP)
    assert status == 1
    assert "apt-get install python3-venv" in message


def test_the_makefile_has_every_verb_and_help_tells_of_each(root):
    text = (root / "Makefile").read_text("utf-8")
    phony = set(re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)[1].split())
    told = set(re.findall(r"^([a-z-]+):.*## ", text, re.MULTILINE))
    assert phony == told == VERBS
