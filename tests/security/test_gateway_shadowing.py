"""A server that comes while another one is away comes by none of its names: not by its resources, its prompts, nor its tools."""

import shlex
import sys

import anyio
import pytest
from mcp.shared.exceptions import MCPError

from symbi.api.mcp import gateway
from symbi.policy.policies import PolicySource
from symbi.testing.mcp_gateway import open_gateway

pytestmark = pytest.mark.anyio

ALLOW = '@id("test.all") permit (principal, action, resource);'
NOT_HOUSE = '@id("test.not") forbid (principal, action == Action::"BrowseServer", resource == ToolServer::"house");'
ASK = '@id("test.ask") @approval("somebody has to agree") permit (principal, action == Action::"BrowseServer", resource == ToolServer::"house");'
URI = "note://1"


class Doors:
    """Files that say which server starts: the rightful one until it is gone, the other one once it comes."""

    def __init__(self, folder, monkeypatch):
        self.gone, self.comes = folder / "gone", folder / "comes"
        self._monkeypatch = monkeypatch

    async def swap(self, one, client, tool):
        """The rightful server dies and does not start again; the other one comes."""
        self.gone.touch()
        self.comes.touch()
        await client.call_tool(tool, {})
        self._monkeypatch.setattr(gateway, "RETRY_S", 0.0)
        catalog = one.runtime.catalog
        with anyio.fail_after(60):
            while not catalog.is_connected("yard") or catalog.is_connected("house"):
                await client.list_tools()


@pytest.fixture
def doors(tmp_path, monkeypatch):
    return Doors(tmp_path, monkeypatch)


@pytest.fixture
def opened(tmp_path, root, doors):
    program = shlex.join([sys.executable, str(root / "tests" / "data" / "servers" / "watched.py")])

    def open_it(more=""):
        config = f"""
[gateway]
{more}
[mcp]
tool_verification = "tofu"
[mcp.servers.house]
command = ["/bin/sh", "-c", "test ! -e {doors.gone} && exec {program}"]
same_names = ["*"]
[mcp.servers.yard]
command = ["/bin/sh", "-c", "test -e {doors.comes} && exec {program}"]
same_names = ["*"]
[mcp.clients.ann]
[mcp.clients.bob]
"""
        return open_gateway(tmp_path, config=config, policies=ALLOW, agents="agent a { with { 1 } }")

    return open_it


async def refused(work):
    with pytest.raises(MCPError) as caught:
        await work
    return caught.value.error.message


async def test_resources_of_a_server_that_is_away_are_read_from_no_other(opened, doors):
    async with opened() as one, one.client("ann", mode="legacy") as client:
        assert len((await client.list_resources()).resources) == 40
        assert (await client.read_resource(URI)).contents[0].text == f"text of {URI}"
        await doors.swap(one, client, "house__die")
        listed = (await client.list_resources()).resources
        assert len(listed) == 40, "the other server's, which are shown"
        assert "2 servers offer" in await refused(client.read_resource(URI))
        async with one.client("bob", mode="legacy") as other:  # who never saw the first one
            assert "2 servers offer" in await refused(other.read_resource(URI))


async def test_what_is_known_of_a_server_that_is_away_is_asked_of_it(opened, doors):
    async with opened() as one, one.client("ann", mode="legacy") as client:
        await client.list_resources()
        doors.gone.touch()
        await client.call_tool("house__die", {})
        assert (await client.list_resources()).resources == []
        assert "Not available" in await refused(client.read_resource(URI))


async def test_a_server_that_a_client_may_not_list_keeps_no_names_from_it(opened, doors):
    doors.comes.touch()
    async with opened() as one, one.client("ann", mode="legacy") as client:
        assert len((await client.list_resources()).resources) == 80
        assert "2 servers offer" in await refused(client.read_resource(URI))
        await one.runtime.guard.engine.register_policy(PolicySource("later", NOT_HOUSE))
        assert len((await client.list_resources()).resources) == 40
        assert (await client.read_resource(URI)).contents[0].text == f"text of {URI}"


async def test_a_server_that_a_person_has_to_let_be_listed_keeps_its_names(opened, doors):
    doors.comes.touch()
    async with opened() as one, one.client("ann", mode="legacy") as client:
        assert len((await client.list_resources()).resources) == 80
        await one.runtime.guard.engine.register_policy(PolicySource("later", ASK))
        assert len((await client.list_resources()).resources) == 40, "the other server's: nobody has agreed yet"
        assert "2 servers offer" in await refused(client.read_resource(URI))


async def test_plain_names_of_a_server_that_is_away_are_nobody_elses(opened, doors):
    async with opened('names = "plain"') as one, one.client("ann", mode="legacy") as client:
        assert "touch" in [tool.name for tool in (await client.list_tools()).tools]
        assert [prompt.name for prompt in (await client.list_prompts()).prompts] == ["notes"]
        assert (await client.call_tool("touch", {"uri": URI})).content[0].text == "touched"
        await doors.swap(one, client, "die")
        assert "touch" not in [tool.name for tool in (await client.list_tools()).tools]
        assert (await client.list_prompts()).prompts == []
        assert "there is no prompt" in await refused(client.get_prompt("notes"))
        answered = await client.call_tool("touch", {"uri": URI})
        assert answered.is_error
        assert "Not available" in answered.content[0].text
