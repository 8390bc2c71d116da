"""A server that lists resources without end is left out of a client's listing, and takes nobody's memory."""

import sys
from textwrap import dedent

import pytest

from symbi.testing.mcp_gateway import open_gateway

pytestmark = pytest.mark.anyio

ALLOW = '@id("all") permit (principal, action, resource);'
ENTRIES = """
    import sys

    import anyio
    import mcp_types as types
    from mcp.server.lowlevel import Server
    from mcp.server.stdio import stdio_server

    NAME, LENGTH = sys.argv[1], int(sys.argv[2])

    def entries(page):
        return [types.Resource(uri=f"{NAME}://{page}/{n}", name="n", description="x" * LENGTH) for n in range(4)]

    async def list_resources(ctx, params):
        page = int(params.cursor or 0) if params else 0
        return types.ListResourcesResult(resources=entries(page), next_cursor=str(page + 1) if page < 3 else None)

    async def main():
        async with stdio_server() as streams:
            server = Server(NAME, on_list_resources=list_resources)
            await server.run(*streams, server.create_initialization_options())

    anyio.run(main)
"""


async def test_resources_of_one_server_are_bounded_in_bytes_on_all_pages(tmp_path, monkeypatch):
    monkeypatch.setattr("symbi.adapters.mcp.base.MAX_LISTING_BYTES", 10_000)
    program = tmp_path / "entries.py"
    program.write_text(dedent(ENTRIES))
    config = f"""
[mcp]
tool_verification = "tofu"
[mcp.servers.small]
command = ["{sys.executable}", "{program}", "small", "10"]
[mcp.servers.large]
command = ["{sys.executable}", "{program}", "large", "1000"]
"""
    async with (
        open_gateway(tmp_path, config=config, policies=ALLOW, agents="agent a { with { 1 } }") as one,
        one.client() as client,
    ):
        listed = [str(resource.uri) for resource in (await client.list_resources()).resources]
        assert len(listed) == 16
        assert all(uri.startswith("small://") for uri in listed), "no page of the large one is over the bound by itself"
