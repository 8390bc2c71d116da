"""Runs the official conformance suite of MCP, and says what came of each of its scenarios."""

import json
import os
import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from symbi.errors import InternalError, Unavailable

REVISIONS: Final = ("2025-11-25", "2026-07-28")
SUITE: Final = Path(".tools", "node_modules", "@modelcontextprotocol", "conformance")
NODE: Final = Path(".tools", "node_modules", ".bin", "node")
TIMEOUT_S: Final = 900.0  # of one whole run
CLIENT_TIMEOUT_MS: Final = 600_000  # of one process of a client: the suite starts them all at once

_RESULT: Final = re.compile(r"(?P<scenario>.+)-\d{4}-\d\d-\d\dT[\dZ-]+\Z")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one scenario.

    Attributes:
        scenario: Its name.
        scored: Whether the revision requires it.
        why: Why it is not scored; empty where it is.
        failed: The checks that failed, each once, sorted.
        passed: How many passed.
    """

    scenario: str
    scored: bool
    why: str
    failed: tuple[str, ...]
    passed: int


def node(root: Path) -> str:
    """Node as `make servers` installs it.

    Raises:
        Unavailable: It is not there.
    """
    if not (root / NODE).exists() or not (root / SUITE).exists():
        msg = f"there is no conformance suite in `{root / SUITE}`"
        raise Unavailable(msg, hint="`make servers` installs it")
    return str(root / NODE)


def run_server_suite(root: Path, url: str, revision: str) -> Mapping[str, Outcome]:
    """Hold a server against the required set of a revision, and against what is not scored of it.

    Args:
        root: The repository.
        url: Where the server answers; the suite wants `localhost` in it.
        revision: Of the protocol.

    Raises:
        Unavailable: The suite is not installed.
        InternalError: It gave no results.
    """
    return _run(root, "server", ["--url", url], revision)


def run_client_suite(root: Path, command: str, revision: str) -> Mapping[str, Outcome]:
    """Likewise a client, by a command that takes the URL of a server as its last argument."""
    return _run(root, "client", ["--command", command, "--timeout", str(CLIENT_TIMEOUT_MS)], revision)


def _run(root: Path, leg: str, arguments: Sequence[str], revision: str) -> Mapping[str, Outcome]:
    with tempfile.TemporaryDirectory(prefix="symbi-conformance-") as folder:
        command = [node(root), str(root / SUITE / "dist" / "index.js"), leg, *arguments]
        done = subprocess.run(  # noqa: S603 - our own tools folder
            [*command, "--requirements", revision, "-o", folder],
            capture_output=True, text=True, timeout=TIMEOUT_S, check=False, cwd=root,
            env={"PATH": os.environ.get("PATH", ""), "HOME": folder},
        )  # fmt: skip
        found = dict(_results(Path(folder), f"{leg}-" if leg == "server" else ""))
    required, other = _required(root, leg, revision)
    missing = [name for name in required if name not in found]
    if missing:
        msg = f"the suite gave no result for {', '.join(missing)}: {done.stderr[-2000:] or done.stdout[-2000:]}"
        raise InternalError(msg)
    return {
        name: Outcome(name, name in required, other.get(name, ""), *found[name])
        for name in (*required, *sorted(name for name in found if name not in required))
    }


def _results(folder: Path, prefix: str) -> Mapping[str, tuple[tuple[str, ...], int]]:
    results: dict[str, tuple[tuple[str, ...], int]] = {}
    for file in sorted(folder.rglob("checks.json")):
        named = _RESULT.fullmatch(file.parent.relative_to(folder).as_posix())
        if named is None:
            msg = f"the suite calls a result `{file.parent}`"
            raise InternalError(msg)
        checks: list[dict[str, Any]] = json.loads(file.read_text("utf-8"))
        failed = sorted({check["id"] for check in checks if check["status"] == "FAILURE"})
        results[named["scenario"].removeprefix(prefix)] = (
            tuple(failed),
            sum(check["status"] == "SUCCESS" for check in checks),
        )
    return results


def _required(root: Path, leg: str, revision: str) -> tuple[Sequence[str], Mapping[str, str]]:
    """The scenarios that a revision requires, and why others are not scored."""
    text = (root / SUITE / "requirements" / f"{revision}.yaml").read_text("utf-8")
    said: dict[str, Any] = yaml.safe_load(text)  # type: ignore[no-untyped-call] # it has no types
    return said[leg], {one["scenario"]: one["reason"] for one in said["not_scored"] if one["leg"] == leg}
