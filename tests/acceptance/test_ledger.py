"""The ledger: every promise has its tests or says what is missing, and every test that it names exists and has run."""

import ast
import shutil
import subprocess
import sys
import textwrap
import tomllib
from collections import Counter

import pytest

KEYS = {"id", "tests", "deferred"}


@pytest.fixture(scope="session")
def rows(root):
    return tomllib.loads((root / "tests/acceptance/ledger.toml").read_text("utf-8"))["row"]


@pytest.fixture(scope="session")
def requirements(root):
    return tomllib.loads((root / "tests/acceptance/requirements.toml").read_text("utf-8"))["requirement"]


def test_every_requirement_has_one_row_and_every_row_a_requirement(rows, requirements):
    wanted = Counter(entry["id"] for entry in requirements)
    assert {name for name, count in wanted.items() if count > 1} == set()
    assert Counter(row["id"] for row in rows) == wanted


def test_the_copy_of_the_requirements_is_the_list_beside_the_repository(root, requirements):
    original = root.parent / "shared" / "requirements.toml"
    if original.exists():
        assert tomllib.loads(original.read_text("utf-8"))["requirement"] == requirements


def test_every_row_names_tests_or_says_what_is_missing(rows):
    for row in rows:
        assert set(row) <= KEYS, row
        assert row.get("tests") or row.get("deferred"), row
        assert row.get("deferred", "reason").strip(), row
        assert len(set(row.get("tests", ()))) == len(row.get("tests", ())), row


def test_every_named_test_exists(rows, root):
    known = {}
    missing = []
    for row in rows:
        for name in row.get("tests", ()):
            file = name.partition("::")[0]
            if file not in known:
                known[file] = set(names_of_tests(root / file, file))
            if name not in known[file]:
                missing.append((row["id"], name))
    assert missing == []


def names_of_tests(path, file):
    if not path.is_file():
        return
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{file}::{node.name}"
        elif isinstance(node, ast.ClassDef):
            for part in node.body:
                if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef):
                    yield f"{file}::{node.name}::{part.name}"


@pytest.fixture
def small_project(root, tmp_path):
    """A project of two tests, one of which its ledger names, under this project's conftest."""
    (tmp_path / "tests/acceptance").mkdir(parents=True)
    shutil.copy(root / "tests/conftest.py", tmp_path / "tests/conftest.py")
    (tmp_path / "pytest.ini").write_text("[pytest]\ntestpaths = tests\nmarkers = servers: real ones\n")
    (tmp_path / "tests/acceptance/ledger.toml").write_text(
        '[[row]]\nid = "X-1"\ntests = ["tests/test_small.py::test_named"]\n',
    )

    def run(body, *arguments):
        (tmp_path / "tests/test_small.py").write_text(
            f"import pytest\n\n{textwrap.dedent(body)}\n\ndef test_other(): pass\n"
        )
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
        return done.returncode, done.stdout

    return run


NAMED_PASSES = "@pytest.mark.parametrize('n', [1, 2])\ndef test_named(n): pass"
NAMED_SKIPS_ONCE = "@pytest.mark.parametrize('n', [1, 2])\ndef test_named(n):\n    if n == 2: pytest.skip('no server')"
NAMED_NEEDS_A_SERVER = "@pytest.mark.servers\ndef test_named(): pass"


@pytest.mark.parametrize(
    ("body", "arguments", "status"),
    [
        pytest.param(NAMED_PASSES, (), 0, id="it passed"),
        pytest.param(NAMED_SKIPS_ONCE, (), 1, id="one of its cases was skipped"),
        pytest.param("", (), 1, id="it is gone"),
        pytest.param("", ("-k", "other"), 0, id="a part of the tests is not judged"),
        pytest.param("", ("tests/test_small.py",), 0, id="nor is a file"),
        pytest.param(NAMED_PASSES, ("-n", "2"), 0, id="it passed in two processes"),
        pytest.param(NAMED_SKIPS_ONCE, ("-n", "2"), 1, id="one of its cases was skipped in one of them"),
        pytest.param("", ("-n", "2"), 1, id="it is gone, and neither has it"),
        pytest.param(NAMED_NEEDS_A_SERVER, ("-n", "2", "-m", "not servers"), 0, id="both left it to the other run"),
        pytest.param(NAMED_NEEDS_A_SERVER, ("-m", "not servers"), 0, id="it belongs to the other run"),
        pytest.param(NAMED_NEEDS_A_SERVER, ("-m", "servers"), 0, id="and passes there"),
        pytest.param(NAMED_NEEDS_A_SERVER.replace("pass", "pytest.skip('none')"), ("-m", "servers"), 1, id="or fails"),
    ],
)
def test_a_whole_run_fails_unless_the_named_tests_passed(small_project, body, arguments, status):
    returned, output = small_project(body, *arguments)
    assert returned == status, output
    assert ("tests that the ledger names" in output) == (status == 1)
