"""What servers offer beside tools, tell and ask: over pipes and over HTTP, in both forms of the protocol."""

import importlib.util
import json
import sys
from contextlib import ExitStack, asynccontextmanager

import anyio
import pytest

from symbi.adapters.mcp import HttpToolServer, StdioToolServer
from symbi.adapters.mcp.session import SessionTerms
from symbi.clock import SystemClock
from symbi.errors import InputError, PermitRefused, PolicyDenied, TimeLimit, ToolFailed, ToolServerUnavailable
from symbi.guard.action import (
    BrowseServer,
    Complete,
    ConnectServer,
    GetPrompt,
    InvokeTool,
    ReadResource,
    ServerElicitation,
    ServerRoots,
    ServerSampling,
    ToolRef,
)
from symbi.policy.catalog import ToolType
from symbi.policy.policies import PolicySet
from symbi.testing.gate import ALLOW_ALL, open_gate
from symbi.testing.tool_servers import PRINCIPAL, SECRET
from symbi.testing.web import served
from symbi.tools.asking import AskKind
from symbi.tools.catalog import Catalog, ServerLink, ToolVerifier, VerificationMode
from symbi.tools.invoke import Invoker
from symbi.tools.reading import ServerReader
from symbi.types import Confidentiality, EffectId, Integrity, ToolName

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning"),  # of what servers still do
]
ASKS = frozenset(AskKind)
ANSWERS = {
    ServerElicitation: {"action": "accept", "content": {"name": "ada"}},
    ServerSampling: {"role": "assistant", "content": {"type": "text", "text": "ok"}, "model": "m"},
    ServerRoots: {"roots": [{"uri": "file:///work"}]},
}


class Teller:
    """A caller that notes what it is told, and answers what it is asked."""

    def __init__(self, guard, answers=ANSWERS):
        self.guard = guard
        self.answers = answers
        self.told = []
        self.asked = []
        self.can = tuple(AskKind)

    def marked(self, mark):
        pass

    async def progress(self, progress):
        self.told.append((progress.done, progress.total, progress.message))

    async def log(self, message):
        self.told.append((message.level, message.logger, message.data))

    async def answer(self, permit):
        self.guard.authority.redeem(permit, type(permit.action))
        self.asked.append(permit.action)
        return self.answers[type(permit.action)]


class House:
    """A connected server behind a real gate."""

    def __init__(self, gate, server, state):
        self.gate, self.server, self.state = gate, server, state
        verifier = ToolVerifier(VerificationMode.DISABLED, gate.store, gate.log, gate.engine, gate.clock)
        link = ServerLink("house", server.command_line, server, timeout_s=10.0, session=server)
        self.catalog = Catalog(gate.guard, verifier, [link])
        self.invoker = Invoker(self.catalog, gate.guard)
        self.reader = ServerReader(self.catalog, gate.guard)
        self.teller = Teller(gate.guard)

    async def connect(self):
        await self.catalog.refresh("house")
        old = self.gate.engine.current
        tools = [ToolType(ref.name, ref.input_schema) for ref in self.catalog.refs]
        self.gate.engine.replace(PolicySet.load(old.sources, old.compiled, tools))

    async def call(self, tool, text="x", caller=None):
        return await self.invoker.call(self.invoker.prepare(PRINCIPAL, f"house.{tool}", {"text": text}), caller)

    def actions(self):
        return [e.details.get("action") for e in self.gate.events() if e.event_type.value == "decision.allow"]


WAYS = ["pipes", "pipes with sessions", "http", "http with sessions"]


@pytest.fixture
def open_house(root):
    path = root / "tests" / "data" / "servers" / "house.py"

    @asynccontextmanager
    async def house(way, policies=ALLOW_ALL, asks=ASKS):
        with ExitStack() as stack:
            async with open_gate(policies, clock=SystemClock()) as gate:
                state = None
                if way.startswith("pipes"):
                    server = StdioToolServer("house", [sys.executable, str(path)], gate.guard.authority)
                else:
                    spec = importlib.util.spec_from_file_location("house", path)
                    module = importlib.util.module_from_spec(spec)
                    spec.loader.exec_module(module)
                    url = stack.enter_context(served(module.application()))
                    server = HttpToolServer("house", f"{url}/mcp", gate.guard.authority)
                    state = module.STATE
                server.terms = SessionTerms(asks=asks, mode="legacy" if way.endswith("sessions") else "auto")
                async with server:
                    one = House(gate, server, state)
                    await one.connect()
                    yield one

    return house


@pytest.mark.parametrize("way", WAYS)
async def test_all_that_a_server_offers_is_reached_through_the_gate(open_house, way):
    async with open_house(way) as house:
        assert house.server._session.modern is not way.endswith("sessions")
        found = await house.reader.browse(PRINCIPAL, "house", "resources")
        assert [one["uri"] for one in found.value] == ["note://n0", "note://n1", "note://n2"]
        assert found.label.integrity is Integrity.UNTRUSTED
        [template] = (await house.reader.browse(PRINCIPAL, "house", "templates")).value
        assert template["uriTemplate"] == "note://{name}"
        [prompt] = (await house.reader.browse(PRINCIPAL, "house", "prompts")).value
        assert prompt["name"] == "review"
        [note] = (await house.reader.read(PRINCIPAL, "house", "note://a")).value
        assert (note["uri"], note["text"]) == ("note://a", "of note://a")
        [picture] = (await house.reader.read(PRINCIPAL, "house", "note://picture")).value
        assert picture["blob"].startswith("iVBOR")
        filled = (await house.reader.prompt(PRINCIPAL, "house", "review", {"code": "x"})).value
        assert filled["messages"][0]["content"]["text"] == "review x"
        action = Complete(principal=PRINCIPAL, server="house", of="prompt", name="review", argument="code", value="al")
        assert (await house.reader.complete(action)).value.values == ["alpha", "alps"]
        await house.server.ping(5.0)
        asked = ["BrowseServer"] * 3 + ["ReadResource"] * 2 + ["GetPrompt", "Complete"]
        assert house.actions() == ["ConnectServer", *asked]


@pytest.mark.parametrize("kind", ["BrowseServer", "ReadResource", "GetPrompt", "Complete"])
async def test_what_policy_does_not_permit_never_reaches_the_server(open_house, kind, monkeypatch):
    sent = []
    policies = f'{ALLOW_ALL} @id("no") forbid (principal, action == Action::"{kind}", resource);'
    async with open_house("http", policies) as house:
        original = house.server._session.send

        async def send(request, call=None):
            sent.append(request.method)
            return await original(request, call)

        monkeypatch.setattr(house.server._session, "send", send)
        reader, complete = house.reader, Complete
        tries = {
            "BrowseServer": lambda: reader.browse(PRINCIPAL, "house", "prompts"),
            "ReadResource": lambda: reader.read(PRINCIPAL, "house", "note://a"),
            "GetPrompt": lambda: reader.prompt(PRINCIPAL, "house", "review", {}),
            "Complete": lambda: reader.complete(
                complete(principal=PRINCIPAL, server="house", of="prompt", name="review", argument="code", value="")
            ),
        }
        with pytest.raises(PolicyDenied):
            await tries.pop(kind)()
        assert sent == []
        for other in tries.values():
            await other()
        assert len(sent) == 3


@pytest.mark.parametrize("way", WAYS)
async def test_progress_and_logs_reach_the_caller_in_their_order(open_house, way):
    async with open_house(way) as house:
        result = await house.call("walk", "home", house.teller)
        assert result.value == "there"
        steps = [one for one in house.teller.told if isinstance(one[0], float)]
        assert steps == [(float(n), 3.0, f"step {n} of home") for n in (1, 2, 3)]
        logs = [one for one in house.teller.told if one[0] == "info"]
        assert logs == [("info", "walker", {"step": n, "of": "home"}) for n in (1, 2, 3)]


QUESTIONS = {"ask_person": ServerElicitation, "ask_model": ServerSampling, "ask_folders": ServerRoots}


@pytest.mark.parametrize("way", WAYS)
async def test_what_a_server_asks_reaches_its_caller_through_the_gate(open_house, way):
    async with open_house(way) as house:
        for tool, kind in QUESTIONS.items():
            result = await house.call(tool, "x", house.teller)
            assert json.loads(result.value) == json.loads(result.value) | ANSWERS[kind]
            asked = house.teller.asked.pop()
            assert isinstance(asked, kind)
            assert house.teller.asked == []
            assert (asked.principal, asked.during) == (PRINCIPAL, result.effect_id)
            assert asked.label.integrity is Integrity.UNTRUSTED
            assert house.actions()[-2:] == ["InvokeTool::house." + tool, kind.kind]


@pytest.mark.parametrize("way", ["pipes with sessions", "http"])
@pytest.mark.parametrize("how", ["nobody stands behind the call", "a policy forbids it", "it may not ask at all"])
async def test_a_question_is_refused_otherwise(open_house, way, how):
    asked = 'action in [Action::"ServerElicitation", Action::"ServerSampling", Action::"ServerRoots"]'
    forbid = f' @id("no") forbid (principal, {asked}, resource);'
    policies = ALLOW_ALL + (forbid if how.startswith("a policy") else "")
    async with open_house(way, policies, frozenset() if how.startswith("it may") else ASKS) as house:
        caller = None if how.startswith("nobody") else house.teller
        for tool in QUESTIONS:
            with pytest.raises(ToolFailed):
                await house.call(tool, "x", caller)
        assert house.teller.asked == []
        assert (await house.call("echo", "still here")).value == "still here"


async def test_a_question_is_as_confidential_as_policy_marks_what_the_server_says(open_house):
    async with open_house("http", '@id("m") @mark("confidential") permit (principal, action, resource);') as house:
        await house.call("ask_person", "x", house.teller)
        (asked,) = house.teller.asked
        assert asked.label.confidentiality is Confidentiality.CONFIDENTIAL
        assert asked.label.integrity is Integrity.UNTRUSTED


async def test_a_server_over_pipes_that_does_not_say_which_call_it_means_is_refused(open_house):
    async with open_house("pipes with sessions") as house:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(house.call, "slow", "x", Teller(house.gate.guard))
            while house.server._session.waiting == 0:
                await anyio.lowlevel.checkpoint()
            with pytest.raises(ToolFailed, match="refused"):
                await house.call("ask_person", "x", house.teller)
            tasks.cancel_scope.cancel()
        assert house.teller.asked == []
        assert (await house.call("ask_person", "x", house.teller)).value
        assert len(house.teller.asked) == 1


@pytest.mark.parametrize("way", ["pipes", "http", "http with sessions"])
async def test_over_http_and_in_the_newer_form_each_question_reaches_its_own_caller(open_house, way):
    async with open_house(way) as house:
        tellers = [
            Teller(house.gate.guard, {ServerElicitation: {"action": "accept", "content": {"name": f"n{number}"}}})
            for number in range(4)
        ]
        answers = {}

        async def ask(number):
            answers[number] = json.loads((await house.call("ask_person", "x", tellers[number])).value)

        async with anyio.create_task_group() as tasks:
            for number in range(4):
                tasks.start_soon(ask, number)
        assert [answers[number]["content"]["name"] for number in range(4)] == ["n0", "n1", "n2", "n3"]
        assert [len(teller.asked) for teller in tellers] == [1, 1, 1, 1]


@pytest.mark.parametrize("way", ["http", "http with sessions"])
async def test_a_call_that_is_given_up_is_cancelled_at_the_server(open_house, way):
    async with open_house(way) as house:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(house.call, "slow")
            while not house.state["begun"]:
                await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
        line = house.server._session.line
        with anyio.fail_after(10):
            while house.state["cancelled"] == 0 or any(n for n in line._transport._open if not n.startswith("listen")):
                await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize("way", WAYS)
async def test_a_server_that_has_other_tools_says_so(open_house, way):
    async with open_house(way) as house:
        told = []
        seen = anyio.Event()

        async def changed(server, what):
            told.append((server, what))
            seen.set()

        house.server.watch(changed)
        await house.call("grow")
        with anyio.fail_after(10):
            await seen.wait()
        assert told[0] == ("house", "tools")


async def test_parts_of_an_answer_pass_unharmed_to_who_passes_them_on(open_house):
    async with open_house("http") as house:
        result = await house.call("picture", "look", house.teller)
        assert [block["type"] for block in result.raw.blocks] == ["text", "image", "resource_link"]
        assert result.raw.blocks[1]["mimeType"] == "image/png"
        assert "image" in result.value
        assert (await house.call("picture", "look")).raw is None


async def test_a_secret_does_not_come_back_by_another_way(open_house):
    async with open_house("http") as house:
        house.server._mask.add({"a/b": SECRET})
        [note] = (await house.reader.read(PRINCIPAL, "house", "note://secret")).value
        assert note["text"] == "vault://a/b"


async def test_a_server_that_knows_nothing_but_tools_offers_none_of_the_rest(root):
    script = root / "tests" / "data" / "servers" / "suite.py"
    async with (
        open_gate(ALLOW_ALL, clock=SystemClock()) as gate,
        StdioToolServer("house", [sys.executable, str(script)], gate.guard.authority) as server,
    ):
        house = House(gate, server, None)
        await house.connect()
        for what in ("resources", "templates", "prompts"):
            assert list((await house.reader.browse(PRINCIPAL, "house", what)).value) == []
        action = Complete(principal=PRINCIPAL, server="house", of="prompt", name="p", argument="a", value="")
        assert list((await house.reader.complete(action)).value.values) == []
        with pytest.raises(ToolFailed, match="Method not found"):
            await house.reader.read(PRINCIPAL, "house", "note://a")


async def test_what_cannot_be_asked_is_said_before_the_gate(open_house):
    async with open_house("http") as house:
        before = len(house.gate.events())
        for wrong in (
            house.reader.browse(PRINCIPAL, "house", "tools"),
            house.reader.read(PRINCIPAL, "house", ""),
            house.reader.read(PRINCIPAL, "house", "x" * 9_000),
            house.reader.read(PRINCIPAL, "nowhere", "note://a"),
        ):
            with pytest.raises(InputError):
                await wrong
        assert len(house.gate.events()) == before


@pytest.mark.parametrize("way", ["http"])
async def test_a_permit_for_another_server_or_action_is_refused(open_house, way):
    async with open_house(way) as house:
        authority, server = house.gate.guard.authority, house.server
        number = iter(range(99))

        def mint(action):
            return authority.mint(EffectId(f"x{next(number)}"), action)

        browse = BrowseServer(principal=PRINCIPAL, server="other", what="prompts")
        read = ReadResource(principal=PRINCIPAL, server="other", uri="note://a")
        prompt = GetPrompt(principal=PRINCIPAL, server="other", name="review")
        complete = Complete(principal=PRINCIPAL, server="other", of="prompt", name="p", argument="a", value="")
        for method, action in (
            (server.browse, browse),
            (server.read, read),
            (server.prompt, prompt),
            (server.complete, complete),
        ):
            with pytest.raises(PermitRefused):
                await method(mint(action))
            with pytest.raises(PermitRefused):
                await method(mint(ConnectServer(principal=PRINCIPAL, server="house", command="x")))
        permit = mint(ReadResource(principal=PRINCIPAL, server="house", uri="note://a"))
        await server.read(permit)
        for method in (server.read, server.subscribe):
            with pytest.raises(PermitRefused):
                await method(permit)


async def test_a_question_that_nobody_answers_ends_with_the_call(open_house, later):
    async with open_house("http with sessions") as house:
        started, ended = anyio.Event(), anyio.Event()

        class Asleep(Teller):
            async def answer(self, permit):
                started.set()
                try:
                    await anyio.sleep(3600)
                finally:
                    ended.set()

        ref = ToolRef(ToolName("house.ask_person"), "house", "", {})
        action = InvokeTool(principal=PRINCIPAL, tool=ref, values={"text": "x"}, timeout_s=60.0)
        from symbi.tools.caller import hooks_of  # noqa: PLC0415 - of this test alone

        caller = Asleep(house.gate.guard)
        permit = house.gate.guard.authority.mint(EffectId("e"), action)

        async def call():
            with pytest.raises(TimeLimit):
                await house.server.call(permit, {}, hooks_of(house.gate.guard, caller, action, permit.effect_id))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            await started.wait()
            await later(61.0, house.gate.log)
        with anyio.fail_after(5):
            await ended.wait()
        assert (await house.call("echo", "still here")).value == "still here"


async def test_a_server_that_is_gone_is_unavailable(open_house):
    async with open_house("http") as house:
        await house.server._end_session()
        with pytest.raises(ToolServerUnavailable):
            await house.server.ping(1.0)
