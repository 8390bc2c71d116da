"""Servers of others behind the gateway, and the official SDK's client in front of it: what they say passes unharmed.

`server-everything` has what the protocol can do, over its standard streams and over HTTP; `server-memory` keeps state.
"""

import json
import os
import subprocess
from contextlib import asynccontextmanager, contextmanager

import anyio
import mcp_types as types
import psutil
import pytest
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters
from mcp.shared.exceptions import MCPError

from symbi.errors import Unavailable
from symbi.testing.conformance import node
from symbi.testing.gateway_http import over_http
from symbi.testing.mcp_gateway import open_gateway

pytestmark = [pytest.mark.anyio, pytest.mark.servers]

ALLOW = '@id("all") permit (principal, action, resource);'
AGENT = 'agent idle() { with { "done" } }'
LEGACY, MODERN = "legacy", "2026-07-28"
ASKS = 'asks = ["elicitation", "sampling", "roots"]'

ARGUMENTS = {
    "echo": {"message": "hello"},
    "get-annotated-message": {"messageType": "success", "includeImage": True},
    "get-env": {},
    "get-resource-links": {"count": 2},
    "get-resource-reference": {"resourceType": "Blob", "resourceId": 1},
    "get-roots-list": {},
    "get-structured-content": {"location": "Chicago"},
    "get-sum": {"a": 2, "b": 40},
    "get-tiny-image": {},
    "gzip-file-as-resource": {"name": "x.gz", "data": "data:text/plain;base64,aGVsbG8=", "outputType": "resource"},
    "simulate-research-query": {"topic": "rain"},
    "toggle-simulated-logging": {},
    "toggle-subscriber-updates": {},
    "trigger-elicitation-request": {},
    "trigger-long-running-operation": {"duration": 0.2, "steps": 4},
    "trigger-sampling-request": {"prompt": "say something", "maxTokens": 20},
    "trigger-url-elicitation": {"url": "https://example.org/form", "message": "Open this"},
}
SAME = ("echo", "get-annotated-message", "get-resource-links", "get-sum", "get-structured-content", "get-tiny-image")
"""Tools that answer the same each time, so that both ways can be held side by side."""


class Host:
    """What a host of the protocol does when it is asked, and what it was told."""

    def __init__(self, action="accept"):
        self.action = action
        self.asked = []
        self.progress = []

    async def elicit(self, context, params):
        self.asked.append(("elicitation", params.message))
        content = {"name": "Ada", "check": True} if self.action == "accept" else None
        return types.ElicitResult(action=self.action, content=content)

    async def sample(self, context, params):
        self.asked.append(("sampling", params.max_tokens))
        said = types.TextContent(type="text", text="a word of a model")
        return types.CreateMessageResult(role="assistant", content=said, model="stub")

    async def roots(self, context):
        self.asked.append(("roots", None))
        return types.ListRootsResult(roots=[types.Root(uri="file:///srv/project", name="project")])

    async def told(self, done, total, message):
        self.progress.append((done, total))

    @property
    def callbacks(self):
        return {
            "elicitation_callback": self.elicit,
            "sampling_callback": self.sample,
            "list_roots_callback": self.roots,
        }


@pytest.fixture
def peer(root):
    def command(name):
        try:
            return [node(root), str(root / f".tools/node_modules/@modelcontextprotocol/server-{name}/dist/index.js")]
        except Unavailable as missing:
            pytest.fail(str(missing))

    return command


@contextmanager
def over_network(command):
    """The server as somebody else's process that listens, at a port that the system gives it."""
    environment = {"PATH": os.environ["PATH"], "PORT": "0"}
    with subprocess.Popen([*command, "streamableHttp"], env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert any("listening" in line for line in process.stderr)
            listens = psutil.Process(process.pid).net_connections("tcp")
            (port,) = {one.laddr.port for one in listens if one.status == psutil.CONN_LISTEN}
            yield f"http://127.0.0.1:{port}/mcp"
        finally:
            process.kill()


@asynccontextmanager
async def behind_gateway(folder, servers, policies=ALLOW, **options):
    head = '[mcp]\ntool_verification = "tofu"\n[gateway]\nport = 0\ncalls_rate = 1000.0\nwait_s = 0.0\n'
    async with (
        open_gateway(folder, config=head + servers, policies=policies, agents=AGENT) as under_test,
        over_http(under_test) as served,
    ):
        yield under_test, served


def configured(name, command, more=""):
    return f"[mcp.servers.{name}]\ncommand = {json.dumps(command)}\n{more}\n"


@pytest.fixture(params=["stdio", "http"])
def everything(request, peer):
    """`server-everything` as it is configured, either way."""
    command = peer("everything")
    if request.param == "stdio":
        yield configured("everything", command, ASKS)
        return
    with over_network(command) as url:
        yield f'[mcp.servers.everything]\nurl = "{url}"\nprivate_addresses = true\n{ASKS}\n'


async def text_of(client, tool, arguments, **options):
    result = await client.call_tool(tool, arguments, **options)
    assert not result.is_error, result.content
    return "\n".join(block.text for block in result.content if block.type == "text")


@pytest.mark.parametrize("mode", [LEGACY, MODERN])
async def test_every_tool_of_server_everything_is_listed_and_answers(tmp_path, everything, mode):
    host = Host()
    async with (
        behind_gateway(tmp_path, everything) as (under_test, served),
        served.client(mode=mode, **host.callbacks) as client,
    ):
        names = [tool.name for tool in (await client.list_tools()).tools]
        theirs = {name.removeprefix("everything__") for name in names if name.startswith("everything__")}
        assert theirs == set(ARGUMENTS)
        assert not under_test.runtime.catalog.quarantined
        failed = {}
        for name, arguments in ARGUMENTS.items():
            result = await client.call_tool(f"everything__{name}", arguments)
            if result.is_error:
                failed[name] = result.content[0].text
        # The tasks extension is not part of this release; the answer is that of the server itself.
        assert list(failed) == ["simulate-research-query"], failed
        assert "task" in failed["simulate-research-query"]
        assert {kind for kind, _ in host.asked} >= {"elicitation", "sampling", "roots"}


async def test_answers_are_those_of_the_server_block_by_block(tmp_path, peer):
    command = peer("everything")
    straight = StdioServerParameters(command=command[0], args=command[1:])
    async with (
        Client(straight, mode=LEGACY) as alone,
        behind_gateway(tmp_path, configured("everything", command)) as (_, served),
        served.client(mode=LEGACY) as client,
    ):
        for name in SAME:
            there, here = [
                await one.call_tool(tool, ARGUMENTS[name])
                for one, tool in ((alone, name), (client, f"everything__{name}"))
            ]
            if name == "get-structured-content":
                assert here.structured_content.keys() == there.structured_content.keys()
                assert json.loads(here.content[0].text) == here.structured_content
                continue
            assert [block.model_dump() for block in here.content] == [block.model_dump() for block in there.content], (
                name
            )
        listed = {tool.name: tool for tool in (await alone.list_tools()).tools}
        for tool in (await client.list_tools()).tools:
            if tool.name.startswith("everything__"):
                own = listed[tool.name.removeprefix("everything__")]
                assert (tool.description, tool.input_schema, tool.output_schema) == (
                    own.description,
                    own.input_schema,
                    own.output_schema,
                )
                assert tool.annotations == own.annotations


async def test_progress_reaches_who_asked_for_it(tmp_path, everything):
    host = Host()
    async with behind_gateway(tmp_path, everything) as (_, served), served.client(mode=LEGACY) as client:
        arguments = ARGUMENTS["trigger-long-running-operation"]
        await text_of(client, "everything__trigger-long-running-operation", arguments, progress_callback=host.told)
    assert host.progress == [(1, 4), (2, 4), (3, 4), (4, 4)]


@pytest.mark.parametrize("mode", [LEGACY, MODERN])
@pytest.mark.parametrize(("action", "said"), [("accept", "provided"), ("decline", "declined"), ("cancel", "cancelled")])
async def test_a_question_of_a_server_reaches_the_person_at_the_client(tmp_path, peer, mode, action, said):
    host = Host(action)
    servers = configured("everything", peer("everything"), 'asks = ["elicitation"]')
    async with behind_gateway(tmp_path, servers) as (_, served), served.client(mode=mode, **host.callbacks) as client:
        answer = await text_of(client, "everything__trigger-elicitation-request", {})
    assert [kind for kind, _ in host.asked] == ["elicitation"]
    assert said in answer


async def test_what_policy_does_not_let_a_server_ask_reaches_nobody(tmp_path, peer):
    host = Host()
    servers = configured("everything", peer("everything"), ASKS)
    forbid = ALLOW + '@id("quiet") forbid (principal, action == Action::"ServerSampling", resource);'
    async with (
        behind_gateway(tmp_path, servers, forbid) as (_, served),
        served.client(mode=LEGACY, **host.callbacks) as client,
    ):
        arguments = ARGUMENTS["trigger-sampling-request"]
        result = await client.call_tool("everything__trigger-sampling-request", arguments)
        assert result.is_error
        assert not host.asked
        assert await text_of(client, "everything__echo", {"message": "still there"}) == "Echo: still there"


async def test_a_call_that_is_cancelled_ends_and_nothing_else_does(tmp_path, everything):
    async with behind_gateway(tmp_path, everything) as (under_test, served), served.client(mode=LEGACY) as client:
        await client.list_tools()
        begun = anyio.Event()

        async def told(done, total, message):
            begun.set()

        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                arguments = {"duration": 600, "steps": 6000}
                tasks.start_soon(
                    lambda: client.call_tool(
                        "everything__trigger-long-running-operation", arguments, progress_callback=told
                    )
                )
                await begun.wait()
                tasks.cancel_scope.cancel()
            assert await text_of(client, "everything__echo", {"message": "after"}) == "Echo: after"
            dependency = under_test.runtime.catalog.dependency_of("everything")
            while dependency.status.calls:  # what was cancelled is on its way out
                await anyio.lowlevel.checkpoint()


async def test_wrong_arguments_and_unknown_tools_are_errors_that_a_model_can_read(tmp_path, peer):
    servers = configured("everything", peer("everything"))
    async with behind_gateway(tmp_path, servers) as (_, served), served.client(mode=LEGACY) as client:
        wrong = await client.call_tool("everything__get-sum", {"a": "two"})
        assert wrong.is_error
        assert "get-sum" in wrong.content[0].text
        with pytest.raises(MCPError, match="there is no tool"):
            await client.call_tool("everything__missing", {})


async def test_resources_and_prompts_are_those_of_the_server(tmp_path, everything):
    async with behind_gateway(tmp_path, everything) as (_, served), served.client(mode=LEGACY) as client:
        uris = [str(one.uri) for one in (await client.list_resources()).resources]
        assert "demo://resource/static/document/architecture.md" in uris
        found = await client.read_resource("demo://resource/static/document/architecture.md")
        assert "Everything Server" in found.contents[0].text
        templates = (await client.list_resource_templates()).resource_templates
        assert "demo://resource/dynamic/text/{resourceId}" in {one.uri_template for one in templates}
        prompts = {one.name for one in (await client.list_prompts()).prompts}
        assert "everything__args-prompt" in prompts
        said = await client.get_prompt("everything__args-prompt", {"city": "Bergen"})
        assert "Bergen" in said.messages[0].content.text


async def test_server_memory_keeps_what_one_session_told_it_for_the_next(tmp_path, peer):
    file = tmp_path / "graph.jsonl"
    servers = configured("memory", peer("memory"), f'env = {{ MEMORY_FILE_PATH = "{file}" }}')
    async with behind_gateway(tmp_path / "gateway", servers) as (_, served):
        async with served.client(mode=LEGACY) as client:
            names = {tool.name for tool in (await client.list_tools()).tools if tool.name.startswith("memory__")}
            assert len(names) == 9
            ada = {"name": "Ada", "entityType": "person", "observations": ["writes programs"]}
            made = await client.call_tool("memory__create_entities", {"entities": [ada]})
            assert made.structured_content == {"entities": [ada]}
            loop = {"from": "Ada", "to": "Ada", "relationType": "knows"}
            await client.call_tool("memory__create_relations", {"relations": [loop]})
        async with served.client(mode=MODERN) as client:
            graph = (await client.call_tool("memory__read_graph", {})).structured_content
            assert graph == {"entities": [ada], "relations": [loop]}
            missing = await client.call_tool(
                "memory__add_observations", {"observations": [{"entityName": "Bob", "contents": ["x"]}]}
            )
            assert missing.is_error
            assert "Bob" in missing.content[0].text
    assert "Ada" in file.read_text()
