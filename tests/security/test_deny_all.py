"""Every port method that takes a permit, found by reflection: reached under allow-all, and by nothing under deny-all.

The set of operations is one: an agent that reads the clock, draws a number, logs, runs code, calls a tool with a
secret of a server whose key its domain says, asks, sends to and publishes to other agents, and remembers and recalls; and documents that come, are ranked and answered from, and go. Under an empty policy set, an engine that raises, and a trail that cannot append, no port is touched.
"""

import contextlib
import importlib
import inspect
import pkgutil
import sys
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

import symbi
import symbi.adapters
import symbi.inference
import symbi.runtime
from symbi.adapters.mcp import StdioToolServer
from symbi.agent.messages import Letter
from symbi.config import load_settings
from symbi.errors import InternalError, PermitRefused, PolicyDenied, StoreUnavailable, ToolFailed
from symbi.guard.action import (
    BrowseServer,
    CallModel,
    Canary,
    Complete,
    ConnectServer,
    DataRef,
    ExecuteCode,
    GetPrompt,
    InvokeTool,
    PublishMessage,
    ReadData,
    ReadResource,
    RunContainer,
    SendMessage,
    ToolRef,
    TopicRef,
)
from symbi.guard.gate import Guard
from symbi.guard.permit import Authority, Permit
from symbi.knowledge.vectors import Namespace, Scope
from symbi.policy.engine import PolicyEngine
from symbi.runtime.lifecycle import AgentState
from symbi.runtime.roster import AgentRecord
from symbi.testing.clock import ManualClock
from symbi.testing.knowledge import UNREACHABLE, ask_unreachable_model
from symbi.testing.signed import HOST, document, revocations
from symbi.tools.reading import ServerReader
from symbi.tools.watching import ResourceWatch
from symbi.types import SYSTEM_AGENT, AgentId, EffectId, Principal, RunId, SecurityTier, ToolName
from symbi.wiring import compile_agents, open_runtime

pytestmark = pytest.mark.anyio

SERVER = """
import sys
import anyio
import mcp_types as types
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server

TOOL = types.Tool(name="echo", description="", input_schema={"type": "object", "properties": {"key": {"type": "string"}}})

async def list_tools(ctx, params):
    return types.ListToolsResult(tools=[TOOL])

async def call_tool(ctx, params):
    return types.CallToolResult(content=[types.TextContent(type="text", text="ok")])

async def main():
    server = Server("s", on_list_tools=list_tools, on_call_tool=call_tool)
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())

anyio.run(main)
"""
AGENT = """
agent everything {
    with sandbox = gvisor {
        log("hello");
        now();
        random();
        try { python("1 + 1"); } catch (Unavailable e) { }
        try { run("sha256:IMAGE", ["p"], network = ["8.8.8.8:443"]); } catch (Error e) { }
        tool("s.echo", key = vault://a/secret);
        ask("other", {});
        send("keeper", {});
        publish("news", {});
        remember("red");
        recall("red");
        "done"
    }
}
agent other { with { 1 } }
agent keeper { with { 1 } }
""".replace("IMAGE", 64 * "0")


PORT_MODULES = (".port", ".ledger", ".journal", ".agent.messages")
BEHIND = (symbi.adapters, symbi.inference, symbi.runtime)


def modules_of(package: ModuleType, *, in_ports: bool) -> Iterator[ModuleType]:
    for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if found.name.endswith(PORT_MODULES) is in_ports:
            yield importlib.import_module(found.name)


def takes_permit(method: object) -> bool:
    """Whether the first parameter after self is a Permit, or a union of them."""
    if not inspect.isfunction(method):
        return False
    parameters = list(inspect.signature(method).parameters.values())
    if len(parameters) < 2 or parameters[0].name != "self":
        return False
    hint = parameters[1].annotation
    if isinstance(hint, str) and "Permit" in hint:  # pragma: no cover - what hides from reflection would hide a port
        pytest.fail(f"the hints of {method} cannot be read")
    kinds = typing.get_args(hint) if typing.get_origin(hint) is not Permit else (hint,)
    return typing.get_origin(hint) is Permit or any(typing.get_origin(kind) is Permit for kind in kinds)


@dataclass(frozen=True)
class Method:
    cls: type
    name: str

    def __str__(self) -> str:
        return f"{self.cls.__name__}.{self.name}"


def permit_methods(*, in_ports: bool) -> list[Method]:
    found: list[Method] = []
    packages = (symbi,) if in_ports else BEHIND
    for module in (one for package in packages for one in modules_of(package, in_ports=in_ports)):
        own = [cls for cls in vars(module).values() if isinstance(cls, type) and cls.__module__ == module.__name__]
        for cls in own:
            if getattr(cls, "_is_protocol", False) is in_ports and not inspect.isabstract(cls):
                found += [
                    Method(cls, name)
                    for name in (vars(cls) if in_ports else dir(cls))  # an adapter has what it inherits, too
                    if not name.startswith("_") and takes_permit(inspect.getattr_static(cls, name))
                ]
    return found


PORT_METHODS = permit_methods(in_ports=True)
ADAPTER_METHODS = permit_methods(in_ports=False)


def adapters_of(port: Method) -> list[Method]:
    """The adapters whose method stands behind a port's: same name, and every method of the port is there."""
    wanted = {name for name, value in vars(port.cls).items() if inspect.isfunction(value) and not name.startswith("_")}
    return [m for m in ADAPTER_METHODS if m.name == port.name and wanted <= set(dir(m.cls))]


def test_reflection_finds_the_ports_and_an_adapter_behind_each():
    assert {str(method) for method in PORT_METHODS} >= {
        "ToolServer.connect", "ToolServer.call", "SandboxDriver.run", "SecretSource.resolve",
        "Post.deliver", "Post.ask", "Post.publish",
        "ServerSession.browse", "ServerSession.read", "ServerSession.prompt", "ServerSession.complete",
    }  # fmt: skip
    for port in PORT_METHODS:
        assert adapters_of(port), f"no adapter has {port}"
    behind = {id(adapter.cls) for port in PORT_METHODS for adapter in adapters_of(port)}
    assert {id(adapter.cls) for adapter in ADAPTER_METHODS} == behind, "an adapter takes permits for no port"


@pytest.fixture
def touched(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Names of the port methods that were called, noted by a recorder around every adapter's."""
    calls: set[str] = set()
    for port in PORT_METHODS:
        for adapter in adapters_of(port):
            monkeypatch.setattr(
                adapter.cls, adapter.name, recorder(calls, str(port), getattr(adapter.cls, adapter.name))
            )
    return calls


def recorder(calls: set[str], name: str, method: Callable) -> Callable:
    def call(self, *arguments, **named):
        calls.add(name)
        return method(self, *arguments, **named)

    return call


def write(folder: Path, policy: str) -> Path:
    (folder / "policies").mkdir(parents=True)
    (folder / "policies" / "p.cedar").write_text(policy)
    (folder / "server.py").write_text(SERVER)
    (folder / "agent.symbi").write_text(AGENT)
    (folder / "trust").mkdir()
    (folder / "trust" / f"{HOST}.json").write_bytes(document())
    (folder / "trust" / f"{HOST}.revocations.json").write_bytes(revocations())
    (folder / "symbi.toml").write_text(
        '[mcp]\ntool_verification = "tofu"\n[agents.keeper]\nmode = "persistent"\n[mcp.servers.s]\ncommand = ["{python}", "server.py"]\n'
        f'schemapin_domain = "{HOST}"\n[schemapin]\nfolder = "trust"\nonline = false\n'
        f'[sandbox]\ndocker_host = "unix://{folder}/none.sock"\nimage = "sha256:{64 * "0"}"\n'
    )
    return folder / "symbi.toml"


async def make_keeper(runtime, compiled):
    """The agent that has a mailbox is there, whatever policy says now."""
    agents, digest = runtime.rooms.agents, compiled.agents[0].source_digest
    record = AgentRecord(AgentId("keeper"), "/agent.symbi", digest, AgentState.READY, 1)
    with contextlib.suppress(StoreUnavailable):
        await runtime.rooms.world.log.transact(lambda: (agents.put_agents([record]), ()))


async def come_and_go(runtime, folder):
    """A collection of documents is read, verified, and removed."""
    knowledge, librarian = await runtime.rooms.knowledge.opened(), Principal(AgentId("librarian"))
    (folder / "page.md").write_text("# Page\n\nWhat a page says.")
    await knowledge.add(librarian, "books", folder / "page.md")
    await ask_unreachable_model(knowledge, runtime.guard.authority, librarian)
    await knowledge.verify(librarian, "books")
    async with runtime.guard.enforce(ReadData(principal=librarian, data=DataRef("Knowledge", "books"))) as permit:
        await knowledge.rooms.vectors.count(permit, Scope((Namespace("Knowledge", "books"),)))
    await knowledge.remove(librarian, "books", ())


async def operate(config: Path, lines: list[str] | None = None, *, documents: bool = False) -> object:
    settings = load_settings(config, environ={"PATH": ""})
    async with open_runtime(settings, emit=lambda _, line: [] if lines is None else lines.append(line)) as runtime:
        compiled = compile_agents(config.parent / "agent.symbi")
        await make_keeper(runtime, compiled)
        outcome = await runtime.run(compiled, compiled.agents[0], {})
        if outcome.error is not None:
            raise outcome.error
        await ask_the_server(runtime)
        if documents:
            await come_and_go(runtime, config.parent)
        return outcome.output


async def ask_the_server(runtime):
    """What is asked of a server beside tools, which no agent file can ask for."""
    reader, who = ServerReader(runtime.catalog, runtime.guard), Principal(AgentId("everything"))
    await runtime.catalog.noticed("s", "tools")  # as if it had said that it has others
    await reader.browse(who, "s", "resources")
    await reader.complete(Complete(principal=who, server="s", of="prompt", name="p", argument="a", value=""))
    watch = ResourceWatch(runtime.catalog, runtime.guard)
    changes = watch.subscribe(reader, ReadResource(principal=who, server="s", uri="note://a"), lambda _notice: None)
    for ask in (reader.read(who, "s", "note://a"), reader.prompt(who, "s", "p", {}), changes):
        with contextlib.suppress(ToolFailed):  # the server has none
            await ask


ALLOW_ALL = '@id("all") permit (principal, action, resource);'


async def test_allow_all_reaches_every_port(tmp_path, touched, monkeypatch):
    monkeypatch.setenv("SYMBI_SECRET_A_SECRET", "s3cret")
    assert await operate(write(tmp_path, ALLOW_ALL), documents=True) == "done"
    assert touched == {str(method) for method in PORT_METHODS}


async def test_an_empty_set_reaches_none(tmp_path, touched):
    with pytest.raises(PolicyDenied):
        await operate(write(tmp_path, ""))
    assert touched == set()


STEPS = [
    "CreateAgent",
    "ConnectServer",
    "AllocateResources",
    "WriteLog",
    "ReadClock",
    "DrawRandom",
    "ExecuteCode",
    "RunContainer",
    "InvokeTool",
    "SendMessage",
    "PublishMessage",
    "WriteData",
    "ReadData",
]


@pytest.mark.parametrize("permitted", range(len(STEPS)))
async def test_each_effect_waits_for_its_own_permit(tmp_path, touched, permitted, monkeypatch):
    """Permit the first so many kinds of effect, and only those: what comes after is not touched."""
    monkeypatch.setenv("SYMBI_SECRET_A_SECRET", "s3cret")
    lines: list[str] = []
    policy = "".join(f'permit (principal, action in Action::"{kind}", resource);\n' for kind in STEPS[:permitted])
    with pytest.raises(PolicyDenied):
        await operate(write(tmp_path, policy), lines)
    expected = set()
    if "ConnectServer" in STEPS[:permitted]:
        expected |= {"ToolServer.connect", "DiscoverySource.discovery", "DiscoverySource.revocation"}
    if "ExecuteCode" in STEPS[:permitted]:
        expected.add("SandboxDriver.run")
    if "RunContainer" in STEPS[:permitted]:
        expected |= {"CommandSandbox.run_command", "Egress.open"}
    if "InvokeTool" in STEPS[:permitted]:
        expected |= {"ToolServer.call", "SecretSource.resolve"}
    if "SendMessage" in STEPS[:permitted]:
        expected |= {"Post.ask", "Post.deliver"}
    if "PublishMessage" in STEPS[:permitted]:
        expected.add("Post.publish")
    if "WriteData" in STEPS[:permitted]:
        expected |= {"Embedder.embed", "VectorIndex.upsert"}
    assert touched == expected
    assert (lines == ["hello"]) is ("WriteLog" in STEPS[:permitted])


async def test_an_engine_that_raises_reaches_none(tmp_path, touched, monkeypatch):
    def broken(_self, request):
        if request.action == Canary.kind:
            return original(_self, request)
        msg = "the engine is broken"
        raise RuntimeError(msg)

    original = PolicyEngine.decide
    monkeypatch.setattr(PolicyEngine, "decide", broken)
    with pytest.raises(PolicyDenied, match="engine failed"):
        await operate(write(tmp_path, ALLOW_ALL))
    assert touched == set()


async def test_an_engine_that_always_raises_does_not_even_start(tmp_path, touched, monkeypatch):
    monkeypatch.setattr(PolicyEngine, "decide", lambda *_: 1 / 0)
    with pytest.raises(InternalError):
        await operate(write(tmp_path, ALLOW_ALL))
    assert touched == set()


async def test_a_trail_that_cannot_append_reaches_none(tmp_path, touched, monkeypatch):
    from symbi.adapters.sqlite import SqliteStore  # noqa: PLC0415 - named here, where it is broken

    opened = False
    original = SqliteStore.append
    guard_open = Guard.open

    def append(self, events, head):
        if opened:
            msg = "the disk is full"
            raise StoreUnavailable(msg)
        return original(self, events, head)

    async def after_opening(self):
        nonlocal opened
        report = await guard_open(self)
        opened = True
        return report

    monkeypatch.setattr(SqliteStore, "append", append)
    monkeypatch.setattr(Guard, "open", after_opening)
    with pytest.raises(StoreUnavailable):
        await operate(write(tmp_path, ALLOW_ALL))
    assert touched == set()


# --- forged, spent, closed and foreign permits, at every adapter ---------------------------------

CLOCK = ManualClock()
AGENT_A = Principal(AgentId("a"))
TOOL = ToolRef(ToolName("s.echo"), "s", "0" * 64, {"type": "object"})
PROGRAM = RunContainer(principal=AGENT_A, image=f"sha256:{64 * '0'}", command=("p",), tier=SecurityTier.TIER1)
ACTIONS = {
    "connect": ConnectServer(principal=AGENT_A, server="s", command="x"),
    "relist": ConnectServer(principal=AGENT_A, server="s", command="x"),
    "discovery": ConnectServer(principal=AGENT_A, server="s", command="x", discovery="tools.example.com"),
    "revocation": ConnectServer(principal=AGENT_A, server="s", command="x", discovery="tools.example.com"),
    "call": InvokeTool(principal=AGENT_A, tool=TOOL, values={}),
    "resolve": InvokeTool(principal=AGENT_A, tool=TOOL, values={}, secrets=("a/secret",)),
    "run": ExecuteCode(principal=AGENT_A, code="1", code_digest="0" * 64),
    "run_command": PROGRAM,
    "open": PROGRAM,
    "deliver": SendMessage(principal=AGENT_A, to=Principal(AgentId("keeper")), body={}),
    "ask": SendMessage(principal=AGENT_A, to=Principal(AgentId("other")), body={}, expects_reply=True),
    "publish": PublishMessage(principal=AGENT_A, topic=TopicRef("news"), body={}),
    "browse": BrowseServer(principal=AGENT_A, server="s", what="prompts"),
    "read": ReadResource(principal=AGENT_A, server="s", uri="note://a"),
    "subscribe": ReadResource(principal=AGENT_A, server="s", uri="note://a"),
    "prompt": GetPrompt(principal=AGENT_A, server="s", name="p"),
    "complete": Complete(principal=AGENT_A, server="s", of="prompt", name="p", argument="a", value=""),
    "write": CallModel(principal=AGENT_A, model=UNREACHABLE.ref, prompt={"system": "s", "user": "u"}, remote=True),
}
LETTER = Letter(RunId("r"), AGENT_A)
MORE = {"call": ({},), "resolve": ("a/secret",), "deliver": (LETTER,), "ask": (LETTER,), "publish": (LETTER,)}
MORE |= {"discovery": ("tools.example.com",), "revocation": ("tools.example.com", "https://tools.example.com/r.json")}
SPENT_ELSEWHERE = {"resolve", "open", "call", "deliver", "ask", "browse", "read", "prompt", "complete"}
SPENT_ELSEWHERE |= {"discovery", "revocation", "subscribe"}
"""Looking a secret up, asking for a key and granting a network spend nothing; the others say first what stands against it, and have a test of their own."""


LOOKED_AT = {"embed", "upsert", "query", "delete", "count", "ids", "scores"}
"""Of embedders, indexes and cross-encoders, which look at a permit and spend none; their contract suites and tests have what they refuse."""


def make(cls: type, authority: Authority, folder: Path) -> object:
    """An instance of an adapter, by the parameters that its constructor has."""
    values = {
        "authority": authority, "name": "s", "command": [sys.executable, "-c", "pass"], "environment": {},
        "file": folder / "secrets.toml", "sources": [], "config": None, "tier": SecurityTier.TIER1, "engine": None,
        "secrets": None, "tell": None, "clock": CLOCK, "url": "http://127.0.0.1:9/", "timeout_s": 1.0, "folder": folder, "model": UNREACHABLE,
        "options": SimpleNamespace(at_once=1, warm=0, warm_memory_mib=64, cpus=1.0),
        "rooms": SimpleNamespace(world=SimpleNamespace(guard=SimpleNamespace(authority=authority), log=None)),
    }  # fmt: skip
    parameters = inspect.signature(cls).parameters.values()
    return cls(**{p.name: values[p.name] for p in parameters if p.name in values})


def bad_permits(authority: Authority, name: str) -> dict[str, Permit]:
    action = ACTIONS[name]
    spent = authority.mint(EffectId("spent"), action)
    authority.redeem(spent, type(action))
    closed = authority.mint(EffectId("closed"), action)
    authority.close(closed)
    foreign_kind = authority.mint(EffectId("kind"), Canary(principal=Principal(SYSTEM_AGENT)))
    permits = {
        "forged": Permit(EffectId("forged"), action),
        "closed": closed,
        "of another gate": Authority(CLOCK).mint(EffectId("other"), action),
        "of another kind": foreign_kind,
    }
    return permits if name in SPENT_ELSEWHERE else {**permits, "spent": spent}


@pytest.mark.parametrize("method", [m for m in ADAPTER_METHODS if m.name not in LOOKED_AT], ids=str)
@pytest.mark.parametrize("kind", ["forged", "closed", "of another gate", "of another kind", "spent"])
async def test_every_adapter_refuses_a_bad_permit(method, kind, tmp_path):
    authority = Authority(CLOCK)
    permit = bad_permits(authority, method.name).get(kind)
    if permit is None:
        return  # there is no such case for this method
    instance = make(method.cls, authority, tmp_path)
    arguments = (permit, *MORE.get(method.name, ()))
    if method.cls.__name__ == "SecretChain":
        instance = make(method.cls, authority, tmp_path)
        inner = next(m for m in ADAPTER_METHODS if m.name == "resolve" and m.cls is not method.cls)
        instance = method.cls([make(inner.cls, authority, tmp_path)])
    with pytest.raises(PermitRefused):
        if hasattr(instance, "__aenter__"):
            async with instance:
                await getattr(instance, method.name)(*arguments)
        else:
            result = getattr(instance, method.name)(*arguments)
            if inspect.isawaitable(result):
                await result


@pytest.mark.parametrize("name", ["deliver", "ask"])
async def test_the_post_takes_a_permit_once(tmp_path, name):
    settings = load_settings(write(tmp_path, ALLOW_ALL), environ={"PATH": ""})
    async with open_runtime(settings) as runtime:
        compiled = compile_agents(tmp_path / "agent.symbi")
        await make_keeper(runtime, compiled)
        runtime.post.addresses.files.append(compiled)
        permit = runtime.guard.authority.mint(EffectId(runtime.rooms.ids.new()), ACTIONS[name])
        await getattr(runtime.post, name)(permit, LETTER)
        count = await runtime.rooms.world.log.read(lambda: (len(runtime.rooms.runs.runs(9)), mailed(runtime)))
        with pytest.raises(PermitRefused):
            await getattr(runtime.post, name)(permit, LETTER)
        assert await runtime.rooms.world.log.read(lambda: (len(runtime.rooms.runs.runs(9)), mailed(runtime))) == count
        assert sum(count) == 1


def mailed(runtime):
    return runtime.rooms.mailbox.count_messages(AgentId("keeper"), 9)


async def test_a_connected_server_takes_a_permit_once(tmp_path):
    authority = Authority(CLOCK)
    write(tmp_path, "")
    async with StdioToolServer("s", [sys.executable, str(tmp_path / "server.py")], authority) as server:
        action = ConnectServer(principal=AGENT_A, server="s", command=server.command_line)
        await server.connect(authority.mint(EffectId("c"), action))
        permit = authority.mint(EffectId("e"), ACTIONS["call"])
        assert (await server.call(permit, {})).content == "ok"
        with pytest.raises(PermitRefused):
            await server.call(permit, {})


@pytest.mark.parametrize("server", [m for m in ADAPTER_METHODS if m.name == "connect"], ids=str)
async def test_an_adapter_refuses_a_permit_for_another_server(tmp_path, server):
    authority = Authority(CLOCK)
    other = ConnectServer(principal=AGENT_A, server="other", command="x")
    async with make(server.cls, authority, tmp_path) as instance:
        with pytest.raises(PermitRefused):
            await instance.connect(authority.mint(EffectId("e"), other))
