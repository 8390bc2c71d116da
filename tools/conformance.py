"""What came of the official conformance suite of MCP, and the page that says so.

    python tools/conformance.py            run it, and name what is not as it is recorded; status 1 if anything is
    python tools/conformance.py --write    run it, record what came of it, and write the page
    python tools/conformance.py --page     write the page from what is recorded

The record is tests/conformance/results.json; why something is missed stands in tests/conformance/misses.toml.
"""

import json
import sys
import tomllib
from pathlib import Path
from typing import Final, TypeAlias

import anyio

from symbi.testing.conformance_gateway import run_all

ROOT: Final = Path(__file__).parents[1]
RESULTS: Final = ROOT / "tests" / "conformance" / "results.json"
MISSES: Final = ROOT / "tests" / "conformance" / "misses.toml"
PAGE: Final = ROOT / "docs" / "reference" / "mcp-conformance.md"
NEWEST: Final = "2026-07-28"

Results: TypeAlias = dict[str, dict[str, dict[str, list[str]]]]

HEAD: Final = """\
# Conformance to MCP

The official conformance suite (npm `@modelcontextprotocol/conformance`, {version}) holds both halves of Symbi against the scenarios that a
revision of the protocol requires: the gateway as a server, in front of a reference server that has what the scenarios want
(`tests/conformance/reference_server.py`), and the client that speaks to tool servers. `tools/conformance.py` runs it and writes this page;
`make test-servers` fails where a run differs from it, in either direction (with `CONFORMANCE_TESTS=full` also the client's of 2026-07-28).

| half | revision | required scenarios | passed | missed |
| --- | --- | ---: | ---: | ---: |
"""
HOW: Final = """
The suite sends no tokens to servers, so the requests of its run get one on their way to the [door](mcp-gateway.md); it asks for tools by the names
that the reference server gives them, so the gateway runs with `names = "plain"`; and every action is permitted.
The client makes the calls of `http-custom-headers` below the gate, which refuses them: policies cannot see a number of five decimal places, and the schema has no null.
"""


def page(results: Results, misses: dict[str, dict[str, dict[str, str]]]) -> str:
    """The page.

    Args:
        results: Failed checks by half, revision and scenario.
        misses: Reasons, likewise.

    Raises:
        SystemExit: Something is missed without a reason, or has a reason and is not missed.
    """
    pinned = json.loads((ROOT / "tools" / "npm" / "package.json").read_text("utf-8"))["dependencies"]
    version = pinned["@modelcontextprotocol/conformance"]
    parts, tables = [HEAD.format(version=version)], []
    for leg, revisions in results.items():
        for revision, scenarios in revisions.items():
            required = {name: failed for name, failed in scenarios.items() if not name.endswith(")")}
            missed = [name for name, failed in required.items() if failed]
            passed = len(required) - len(missed)
            parts.append(f"| {leg} | {revision} | {len(required)} | {passed} | {len(missed)} |\n")
            tables.append(table(leg, revision, scenarios, misses.get(leg, {}).get(revision, {})))
    return "".join([*parts, HOW, *tables])


def table(leg: str, revision: str, scenarios: dict[str, list[str]], reasons: dict[str, str]) -> str:
    """What is missed of one half and revision, with the reasons; and what passed."""
    missed = {name: failed for name, failed in scenarios.items() if failed}
    unexplained = sorted({name.partition(" ")[0] for name in missed} - set(reasons))
    stale = sorted(set(reasons) - {name.partition(" ")[0] for name in missed})
    if unexplained or stale:
        sys.exit(f"misses.toml, {leg} {revision}: no reason for {unexplained}; not missed: {stale}")
    lines = [f"\n## {leg.capitalize()}, {revision}\n"]
    if missed:
        lines += ["\n| missed | scored | why |\n| --- | --- | --- |\n"]
        for name in missed:
            scenario, _, why = name.partition(" ")
            scored = "no: " + why.strip("()") if why else "yes"
            lines.append(f"| `{scenario}` | {scored} | {reasons[scenario]} |\n")
    passed = [name.partition(" ")[0] for name, failed in scenarios.items() if not failed]
    lines.append(f"\nPassed: {', '.join(f'`{name}`' for name in passed)}.\n")
    return "".join(lines)


def main() -> None:
    """Do what is asked."""
    wanted = sys.argv[1:]
    recorded: Results = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {}
    if wanted == ["--page"]:
        results = recorded
    else:
        results = anyio.run(run_all, ROOT)
        if not wanted:
            for leg, revisions in results.items():
                for revision, scenarios in revisions.items():
                    before = recorded.get(leg, {}).get(revision, {})
                    for name in sorted(scenarios.keys() | before.keys()):
                        if scenarios.get(name) != before.get(name):
                            print(f"{leg} {revision} {name}: {scenarios.get(name)}, recorded {before.get(name)}")
            sys.exit(results != recorded)
        RESULTS.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    misses = tomllib.loads(MISSES.read_text("utf-8"))
    PAGE.write_text(page(results, misses), encoding="utf-8")


if __name__ == "__main__":
    main()
