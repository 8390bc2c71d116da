"""A listing waits for no server longer than it may; what comes later is told of, and nothing is called or read meanwhile that may be another's."""

import sys

import anyio
import mcp_types as types
import pytest
from mcp.shared.exceptions import MCPError

from symbi.policy.policies import PolicySource
from symbi.testing.mcp_gateway import open_gateway

pytestmark = pytest.mark.anyio

ALLOW = '@id("test.all") permit (principal, action, resource);'
NOT_BROWSED = '@id("test.not") forbid (principal, action == Action::"BrowseServer", resource == ToolServer::"yard");'
LATE = "symbi/late"


class Told:
    """The notices of changes that a client gets."""

    def __init__(self):
        self.kinds = []
        self.more = anyio.Event()

    async def take(self, message):
        kind = {
            types.ToolListChangedNotification: "tools",
            types.ResourceListChangedNotification: "resources",
            types.PromptListChangedNotification: "prompts",
        }.get(type(message))
        if kind is not None:
            self.kinds.append(kind)
            self.more.set()
            self.more = anyio.Event()

    async def until(self, *kinds):
        with anyio.fail_after(60):
            while not set(kinds) <= set(self.kinds):
                await self.more.wait()


class Files:
    """What the slow server waits for."""

    def __init__(self, folder):
        self.starts, self.lists = folder / "starts", folder / "lists"


@pytest.fixture
def files(tmp_path):
    return Files(tmp_path)


@pytest.fixture
def opened(tmp_path, root, files):
    program = root / "tests" / "data" / "servers" / "watched.py"

    def open_it(more="", listing_s=0.5):
        config = f"""
[gateway]
listing_s = {listing_s}
calls_rate = 10000.0
{more}
[mcp]
tool_verification = "tofu"
[mcp.servers.house]
command = ["{sys.executable}", "{program}"]
same_names = ["*"]
[mcp.servers.yard]
command = ["{sys.executable}", "{program}", "{files.starts}", "{files.lists}"]
same_names = ["*"]
"""
        return open_gateway(tmp_path, config=config, policies=ALLOW, agents="agent a { with { 1 } }")

    return open_it


def named(listing, server):
    return {tool.name for tool in listing.tools if tool.name.startswith(f"{server}__")}


async def until_listed(client, server):
    """The tools of a server, once a listing that is made in time has them."""
    with anyio.fail_after(60):
        while not named(listing := await client.list_tools(), server):
            await anyio.lowlevel.checkpoint()
    return listing


async def test_a_slow_server_is_listed_without_and_told_of_once_it_comes(opened, files):
    told = Told()
    async with opened() as one, one.client(mode="legacy", message_handler=told.take) as client:
        listing = await until_listed(client, "house")
        assert not named(listing, "yard")
        assert "yard" in listing.meta[LATE]
        told.kinds.clear()
        files.starts.touch()
        files.lists.touch()
        await told.until("tools")
        whole = await until_listed(client, "yard")
        assert len(named(whole, "yard")) == len(named(whole, "house")) == 6
        assert not (whole.meta or {}).get(LATE)
        assert not next(iter(one.gateway.sessions.values())).coming


async def test_a_call_waits_for_its_own_server_and_is_answered_by_it_alone(opened, files):
    async with opened() as one, one.client(mode="legacy") as client, anyio.create_task_group() as tasks:
        await until_listed(client, "house")
        answers = []

        async def call():
            answers.append(await client.call_tool("yard__touch", {"uri": "note://1"}))

        tasks.start_soon(call)
        assert (await client.call_tool("house__touch", {"uri": "note://1"})).content[0].text == "touched"
        assert answers == []
        files.starts.touch()
        with anyio.fail_after(60):
            while not answers:
                await anyio.lowlevel.checkpoint()
        assert answers[0].content[0].text == "touched"


async def test_what_a_server_lists_too_late_is_in_the_next_listing(opened, files):
    told = Told()
    files.starts.touch()
    async with opened() as one, one.client(mode="legacy", message_handler=told.take) as client:
        await until_listed(client, "yard")
        with anyio.fail_after(60):
            while len((listing := await client.list_resources()).resources) != 40:
                await anyio.lowlevel.checkpoint()
        assert listing.meta[LATE] == ["yard"]
        session = next(iter(one.gateway.sessions.values()))
        assert session.homes == {}, "what the other one offers is not known"
        told.kinds.clear()  # of the house, if it came late
        files.lists.touch()
        await told.until("resources")
        whole = await client.list_resources()
        assert len(whole.resources) == 80
        assert not (whole.meta or {}).get(LATE)
        assert not session.answering
        assert session.homes == {}, "both offer the same"


async def test_a_name_that_may_be_anothers_waits_for_it(opened, files):
    async with opened('names = "plain"') as one, one.client(mode="legacy") as client:
        with anyio.fail_after(60):
            while "touch" not in {tool.name for tool in (await client.list_tools()).tools}:
                await anyio.lowlevel.checkpoint()
        session = next(iter(one.gateway.sessions.values()))
        assert session.coming
        assert session.servers_of("touch") is None, "all of them"
        async with anyio.create_task_group() as tasks:
            answers = []

            async def call():
                params = types.CallToolRequestParams(name="touch", arguments={"uri": "note://1"})
                request = types.CallToolRequest(params=params)
                with pytest.raises(MCPError, match="there is no tool `touch`"):
                    await client.session.send_request(request, types.CallToolResult)
                answers.append("refused")

            tasks.start_soon(call)
            while not session.turnstile.under_way:
                await anyio.lowlevel.checkpoint()
            files.starts.touch()
            with anyio.fail_after(60):
                while not answers:
                    await anyio.lowlevel.checkpoint()
        assert answers == ["refused"], "two have it, so it is nobody's"


async def test_what_nobody_lists_is_not_asked_of_one_server_while_another_cannot_be_asked(opened, files, tmp_path):
    files.starts.touch()
    files.lists.touch()
    async with opened() as one, one.client(mode="legacy") as client:
        await until_listed(client, "yard")
        await one.runtime.guard.engine.register_policy(PolicySource("later", NOT_BROWSED))
        with pytest.raises(MCPError, match="no server offers the resource"):
            await client.read_resource("note://unlisted")
