"""Tool servers in containers: spoken to as any other, without a network, our environment or a writable root; gone at the end."""

import json
from contextlib import asynccontextmanager

import pytest

from symbi.adapters.docker import DockerOptions, Engine, serve_from
from symbi.adapters.docker.serving import LABEL_SERVER
from symbi.adapters.mcp import StdioToolServer
from symbi.clock import SystemClock
from symbi.config import load_settings
from symbi.errors import ToolServerUnavailable
from symbi.guard.action import ConnectServer, InvokeTool, ToolRef
from symbi.guard.permit import Authority
from symbi.types import AgentId, EffectId, Principal, SecurityTier, ToolName
from symbi.wiring import open_runtime

pytestmark = [pytest.mark.servers, pytest.mark.anyio]
RUNTIMES = {SecurityTier.TIER1: "runc", SecurityTier.TIER2: "runsc"}
PRINCIPAL = Principal(AgentId("triage"))
LOOK = """
import json, os, sys, urllib.request
seen = {"env": sorted(os.environ), "uid": os.getuid()}
try:
    open("/x", "w").close(); seen["root"] = "writable"
except OSError as error:
    seen["root"] = "read-only"
seen["net"] = sorted(os.listdir("/sys/class/net")) if os.path.isdir("/sys/class/net") else []
"""


SMALL = """
import json, sys
TOOL = {"name": "echo", "inputSchema": {"type": "object"}}
for line in sys.stdin:
    message = json.loads(line)
    if "id" not in message:
        continue
    result, failure = None, {"code": -32601, "message": "no"}
    if message["method"] == "initialize":
        result = {"protocolVersion": message["params"]["protocolVersion"], "capabilities": {"tools": {}},
                  "serverInfo": {"name": "small", "version": "1"}}
    elif message["method"] == "tools/list":
        result = {"tools": [TOOL]}
    answer = {"error": failure} if result is None else {"result": result}
    print(json.dumps({"jsonrpc": "2.0", "id": message["id"], **answer}), flush=True)
"""


@pytest.fixture(params=RUNTIMES)
def tier(request):
    return request.param


@asynccontextmanager
async def contained(docker, tier, source, **env):
    """A server whose whole source is its argument, and a way to call its tool."""
    authority = Authority(SystemClock())
    options = DockerOptions(image=docker.image, runtime=RUNTIMES[tier], instance="served")
    async with Engine(docker.host) as engine:
        server = StdioToolServer("kept", ["python3", "-c", source], authority, env=env, start_timeout_s=60.0)
        server.start = serve_from(engine, options, tier, "kept", 64)
        async with server:

            async def connect():
                action = ConnectServer(principal=PRINCIPAL, server="kept", command=server.command_line)
                return await server.connect(authority.mint(EffectId("start"), action))

            async def call(text):
                ref = ToolRef(ToolName("kept.echo"), "kept", "", {})
                action = InvokeTool(principal=PRINCIPAL, tool=ref, values={"text": text}, timeout_s=30.0)
                return (await server.call(authority.mint(EffectId("call"), action), {})).content

            yield server, connect, call, engine


def source_of(root):
    """The hostile server in its mode `environment`, and what it sees from inside."""
    text = (root / "tests" / "data" / "servers" / "hostile.py").read_text("utf-8")
    answer = "return text(json.dumps(seen))"
    return LOOK + text.replace('MODE = sys.argv[1] if len(sys.argv) > 1 else "good"', 'MODE = "environment"').replace(
        "return text(json.dumps(dict(os.environ)))", answer
    )


async def test_it_is_spoken_to_as_any_other_and_sees_nothing_of_ours(docker, tier, root, monkeypatch):
    monkeypatch.setenv("CANARY_OF_OURS", "x")
    async with contained(docker, tier, source_of(root), GIVEN="y") as (server, connect, call, engine):
        (definition,) = await connect()
        assert definition.name == "echo"
        assert server.pid is None
        seen = json.loads(await call("x"))
        assert seen["root"] == "read-only"
        assert seen["uid"] == 65_534
        assert [name for name in seen["net"] if name != "lo"] == []
        assert "GIVEN" in seen["env"]
        assert "CANARY_OF_OURS" not in seen["env"]
        (made,) = await engine.containers(f"{LABEL_SERVER}=kept")
        found = await engine.inspect(made["Id"])
        assert found["HostConfig"]["NetworkMode"] == "none"
        await connect()  # anew: one container at a time
        assert len(await engine.containers(f"{LABEL_SERVER}=kept")) == 1
    async with Engine(docker.host) as engine:
        assert await engine.containers(f"{LABEL_SERVER}=kept") == []


async def test_one_that_dies_says_so_with_its_last_words(docker):
    source = "import sys; print('cannot find it', file=sys.stderr); sys.exit(3)"
    async with contained(docker, SecurityTier.TIER1, source) as (_, connect, _call, engine):
        with pytest.raises(ToolServerUnavailable, match="cannot find it"):
            await connect()
        assert await engine.containers(f"{LABEL_SERVER}=kept") == []


async def test_an_image_that_is_not_there_is_told_and_nothing_stays(docker):
    authority = Authority(SystemClock())
    options = DockerOptions(image="sha256:" + "0" * 64, runtime="runc", instance="served")
    async with Engine(docker.host) as engine, StdioToolServer("kept", ["x"], authority) as server:
        server.start = serve_from(engine, options, SecurityTier.TIER1, "kept", 64)
        action = ConnectServer(principal=PRINCIPAL, server="kept", command="x")
        with pytest.raises(ToolServerUnavailable, match="has no image"):
            await server.connect(authority.mint(EffectId("start"), action))
        assert await engine.containers(f"{LABEL_SERVER}=kept") == []


async def test_a_container_that_is_not_what_was_asked_for_is_refused(docker, monkeypatch):
    inspect = Engine.inspect

    async def other(self, container):
        found = await inspect(self, container)
        return found and {**found, "HostConfig": {**found["HostConfig"], "NetworkMode": "bridge"}}

    monkeypatch.setattr(Engine, "inspect", other)
    async with contained(docker, SecurityTier.TIER1, "x") as (_, connect, _call, engine):
        with pytest.raises(ToolServerUnavailable, match="not what tier `docker` promises: NetworkMode"):
            await connect()
        assert await engine.containers(f"{LABEL_SERVER}=kept") == []


async def test_the_configuration_says_where_a_server_runs(docker, tmp_path):
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "all.cedar").write_text('@id("all") permit (principal, action, resource);')
    source = json.dumps(SMALL)
    (tmp_path / "symbi.toml").write_text(
        f'[sandbox]\ndocker_host = "{docker.host}"\n[mcp]\ntool_verification = "tofu"\n'
        f'[mcp.servers.kept]\ncommand = ["python3", "-c", {source}]\nsandbox = "docker"\nimage = "{docker.image}"\nmemory_mb = 64\n'
    )
    async with open_runtime(load_settings(tmp_path / "symbi.toml", environ={})) as runtime:
        await runtime.connect(["kept"], PRINCIPAL)
        assert [ref.name for ref in runtime.catalog.refs] == ["kept.echo"]
        async with Engine(docker.host) as engine:
            assert len(await engine.containers(f"{LABEL_SERVER}=kept")) == 1
    async with Engine(docker.host) as engine:
        assert await engine.containers(f"{LABEL_SERVER}=kept") == []
