"""The gateway in front of the reference server, as the conformance suite meets it, and what came of both of its halves."""

import json
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from shlex import quote
from typing import Final

import anyio.to_thread

from symbi.testing.conformance import REVISIONS, Outcome, run_client_suite, run_server_suite
from symbi.testing.gateway_http import over_http
from symbi.testing.mcp_gateway import open_gateway

REFERENCE: Final = Path("tests", "conformance", "reference_server.py")
DRIVER: Final = Path("tests", "conformance", "client.py")
LEGS: Final = ("server", "client")

_CONFIG: Final = """\
[mcp]
tool_verification = "tofu" # the reference server signs nothing
[gateway]
port = 0
names = "plain" # the suite asks for tools by the names of the reference server
calls_rate = 10000.0
[mcp.servers.reference]
command = ["{{python}}", {script}]
asks = ["elicitation", "sampling", "roots"]
"""
_ALLOW: Final = '@id("conformance") permit (principal, action, resource);'
_AGENT: Final = 'agent idle() { with { "done" } }'


@asynccontextmanager
async def reference_behind_gateway(root: Path) -> AsyncIterator[str]:
    """The address of a gateway in front of the reference server.

    The suite has no tokens for servers, so requests get one on their way; all else is as anybody meets it.

    Args:
        root: The repository.
    """
    config = _CONFIG.format(script=json.dumps(str(root / REFERENCE)))
    with tempfile.TemporaryDirectory(prefix="symbi-conformance-") as folder:
        opened = open_gateway(Path(folder), config=config, policies=_ALLOW, agents=_AGENT)
        async with opened as under_test, over_http(under_test, tokenless=True) as served:
            yield served.url.replace("127.0.0.1", "localhost")


async def run_leg(root: Path, leg: str, revision: str) -> Mapping[str, Outcome]:
    """One half of the suite: `server`, through the gateway, or `client`, through our client of servers.

    Args:
        root: The repository.
        leg: Which.
        revision: Of the protocol.
    """
    if leg == "client":
        command = f"{quote(sys.executable)} {quote(str(root / DRIVER))}"
        return await anyio.to_thread.run_sync(run_client_suite, root, command, revision)
    async with reference_behind_gateway(root) as url:
        return await anyio.to_thread.run_sync(run_server_suite, root, url, revision)


async def run_all(root: Path) -> dict[str, dict[str, dict[str, list[str]]]]:
    """Both halves, all revisions: the failed checks of each scenario, as they are recorded."""
    found: dict[str, dict[str, dict[str, list[str]]]] = {}
    for leg in LEGS:
        if not (root / (DRIVER if leg == "client" else REFERENCE)).exists():
            continue
        found[leg] = {revision: recorded(await run_leg(root, leg, revision)) for revision in REVISIONS}
    return found


def recorded(outcomes: Mapping[str, Outcome]) -> dict[str, list[str]]:
    """Outcomes as they stand in the record: what is scored by its name, what is not with the reason."""
    return {
        one.scenario if one.scored else f"{one.scenario} ({one.why})": list(one.failed) for one in outcomes.values()
    }
