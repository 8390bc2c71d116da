"""The lock files: complete, hashed, free of addresses; and the licences of what they name."""

import re
import tomllib
from importlib.metadata import PackageNotFoundError, distribution

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

LOCKS = (
    "requirements/runtime.txt",
    "requirements/dev.txt",
    "requirements/mutation.txt",
    "requirements/bench.txt",
)
GROUPS = {"runtime": (), "dev": ("dev",), "mutation": ("dev", "mutation"), "bench": ("bench",)}
LINE = re.compile(r"(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;]+)(?: ; (?P<marker>[^\\]+))? \\")
HASH = re.compile(r"    --hash=sha256:[0-9a-f]{64}(?: \\)?")

# MPL-2.0 is weak copyleft by file: what is used as it is, and not changed, asks for nothing more.
ALLOWED = {
    *("MIT", "MIT-0", "BSD-2-Clause", "BSD-3-Clause", "BSD", "0BSD"),
    *("Apache-2.0", "ISC", "PSF-2.0", "Zlib", "CC0-1.0", "MPL-2.0"),
}
NAMES = {"3-Clause BSD License": "BSD-3-Clause"}
CLASSIFIERS = {
    "License :: OSI Approved :: MIT License": "MIT",
    "License :: OSI Approved :: BSD License": "BSD",
    "License :: OSI Approved :: Apache Software License": "Apache-2.0",
    "License :: OSI Approved :: ISC License (ISCL)": "ISC",
    "License :: OSI Approved :: Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
}


def locked(root, lock):
    """Name to (version, marker) of a lock file; every line must be a pin, or a hash of the pin above it."""
    found = {}
    hashes = {}
    name = ""
    for number, line in enumerate((root / lock).read_text("utf-8").splitlines(), 1):
        if pin := LINE.fullmatch(line):
            name = canonicalize_name(pin["name"])
            if pin["marker"] and name in found and not Marker(pin["marker"]).evaluate():
                name += " elsewhere"  # a further version, for another Python
            found[name] = (pin["version"], pin["marker"])
            hashes[name] = 0
        else:
            assert HASH.fullmatch(line), f"{lock}:{number}: {line}"
            hashes[name] += 1
    assert all(hashes.values()), hashes
    return found


@pytest.fixture(scope="session")
def project(root):
    return tomllib.loads((root / "pyproject.toml").read_text("utf-8"))


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_file_has_versions_and_hashes_and_nothing_else(root, lock):
    assert locked(root, lock)
    text = (root / lock).read_text("utf-8")
    assert not re.search(r"://|@ |--index|--find-links|--trusted", text)


def test_what_is_tested_is_what_runs(root):
    runtime, dev, mutation, bench = ({(name, pin[0]) for name, pin in locked(root, lock).items()} for lock in LOCKS)
    assert runtime <= dev <= mutation
    assert runtime <= bench


@pytest.mark.parametrize("lock", LOCKS)
def test_the_lock_files_answer_to_pyproject(root, project, lock):
    wanted = [Requirement(text) for text in project["project"]["dependencies"]]
    for group in GROUPS[lock.removeprefix("requirements/").removesuffix(".txt")]:
        wanted += [Requirement(text) for text in project["dependency-groups"][group]]
    pins = locked(root, lock)
    for requirement in wanted:
        version, _ = pins[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), requirement


def test_every_direct_dependency_has_a_row_that_says_why(root, project):
    rows = re.findall(r"^\| ([a-z0-9, -]+) \|", (root / "docs/dependencies.md").read_text("utf-8"), re.MULTILINE)
    told = {name for row in rows for name in row.split(", ")} - {"package", "---"}
    wanted = project["project"]["dependencies"] + [
        one for group in project["dependency-groups"].values() for one in group
    ]
    assert told == {Requirement(text).name for text in wanted}


def test_what_is_installed_is_what_is_locked(root):
    for name, (version, marker) in locked(root, LOCKS[1]).items():
        try:
            installed = distribution(name).version
        except PackageNotFoundError:
            assert marker, f"{name} is locked for this machine and not installed"
        else:
            assert installed == version, name


@pytest.mark.parametrize("lock", [LOCKS[0], LOCKS[1], LOCKS[3]])
def test_every_dependency_has_an_allowed_licence(root, lock):
    unknown = {}
    for name in locked(root, lock):
        try:
            found = licences(distribution(name))
        except PackageNotFoundError:
            continue  # locked for another platform
        if not found or not any(choice <= ALLOWED for choice in found):
            unknown[name] = found
    assert unknown == {}


def licences(package):
    """The choices that a package leaves, each the set of licences that hold together."""
    expression = package.metadata.get("License-Expression")
    named = package.metadata.get("License")  # the older of two fields
    if not expression and named and set(re.split(" AND | OR ", named)) <= ALLOWED:
        expression = named
    if expression:
        return [set(choice.split(" AND ")) for choice in expression.replace("(", "").replace(")", "").split(" OR ")]
    known = {CLASSIFIERS[line] for line in package.metadata.get_all("Classifier") or () if line in CLASSIFIERS}
    if known:
        return [known]
    if named in NAMES:
        return [{NAMES[named]}]
    for file in package.files or ():
        if "LICENSE" in file.name.upper() and "dist-info" in str(file):
            text = " ".join(file.locate().read_text("utf-8").split())
            if "Apache License Version 2.0" in text:
                return [{"Apache-2.0"}]
    return []
