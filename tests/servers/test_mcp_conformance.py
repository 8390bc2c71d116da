"""The official conformance suite of MCP gives what docs/reference/mcp-conformance.md records, no less and no more."""

import json
import os
import runpy
import tomllib

import pytest

from symbi.testing.conformance import REVISIONS
from symbi.testing.conformance_gateway import recorded, run_leg

OF_THE_CLIENT = REVISIONS if os.environ.get("CONFORMANCE_TESTS") == "full" else REVISIONS[:1]
"""Each scenario of the client starts a process of its own; all of 2026-07-28 take minutes where much else is going on."""

pytestmark = [pytest.mark.anyio, pytest.mark.servers, pytest.mark.timeout(1000)]


@pytest.fixture
def results(root):
    return json.loads((root / "tests" / "conformance" / "results.json").read_text("utf-8"))


@pytest.mark.parametrize("revision", REVISIONS)
async def test_the_gateway_is_as_conformant_as_is_recorded(root, results, revision):
    assert recorded(await run_leg(root, "server", revision)) == results["server"][revision]


@pytest.mark.slow
@pytest.mark.parametrize("revision", OF_THE_CLIENT)
async def test_the_client_of_servers_is_as_conformant_as_is_recorded(root, results, revision):
    found = recorded(await run_leg(root, "client", revision))
    assert found == results["client"][revision]


def test_the_page_says_what_is_recorded_and_why_something_is_missed(root, results):
    tool = runpy.run_path(str(root / "tools" / "conformance.py"))
    misses = tomllib.loads((root / "tests" / "conformance" / "misses.toml").read_text("utf-8"))
    assert (root / "docs" / "reference" / "mcp-conformance.md").read_text("utf-8") == tool["page"](results, misses)
