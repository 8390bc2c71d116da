"""The gateway, seen by the SDK's own client: what is served, what passes through unharmed, what is refused and how."""

import json
import sys
from contextlib import AsyncExitStack

import anyio
import mcp_types as types
import pytest
from mcp.shared.exceptions import MCPError

from symbi.audit.event import parse_event
from symbi.audit.query import EventFilter
from symbi.policy.library import BASE, GATEWAY
from symbi.testing.mcp_gateway import open_gateway
from symbi.types import Label

pytestmark = pytest.mark.anyio
ERAS = pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
AGENTS = """
agent adder(a: int, b: int) { with { a + b } }
agent stuck(word: String) { with { tool("desk.slow"); word } }
"""
ALLOW = '@id("test.all") permit (principal, action, resource);'
SHIPPED = "\n".join([BASE.text, *(source.text for source in GATEWAY.values())])
NOBODY = '@id("test.none") permit (principal == Agent::"nobody", action, resource);'


@pytest.fixture
def opened(tmp_path, root):
    servers = root / "tests" / "data" / "servers"

    def open_it(policies=ALLOW, config="", **options):
        text = f"""
[mcp]
tool_verification = "tofu"
[mcp.servers.desk]
command = ["{sys.executable}", "{servers / "desk.py"}"]
manifest = "{servers / "desk.toml"}"
asks = ["elicitation", "sampling"]
{config}
"""
        return open_gateway(tmp_path, config=text, policies=policies, agents=AGENTS, **options)

    return open_it


def said(result):
    return " ".join(block.text for block in result.content if block.type == "text")


def wrong(result):
    """What an answer says to programs of what went wrong."""
    assert result.is_error
    return result.meta["symbi/error"]


async def events(one, **wanted):
    log = one.runtime.rooms.world.log
    rows = await log.read(lambda: list(one.runtime.rooms.effects.select(EventFilter(**wanted))))
    return [parse_event(row.record, sequence=row.sequence) for row in rows]


# --- what is served -------------------------------------------------------------------------------


@ERAS
async def test_tools_are_served_under_stable_names_with_all_that_their_server_says_of_them(opened, mode):
    async with opened() as one, one.client(mode=mode) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert {name for name in tools if name.startswith("desk__")} == {
            f"desk__{tool}"
            for tool in [
                "read_mail",
                "read_record",
                "send_mail",
                "picture",
                "count",
                "fails",
                "slow",
                "steps",
                "changes",
                "asks",
                "thinks",
            ]
        }
        assert tools["desk__count"].output_schema["required"] == ["n"]
        assert tools["desk__send_mail"].description == "send a mail"


@ERAS
async def test_what_a_tool_answers_comes_through_as_it_was(opened, mode):
    async with opened() as one, one.client(mode=mode) as client:
        sent = await client.call_tool("desk__send_mail", {"to": "anna@example.com", "subject": "s", "body": "b"})
        assert (sent.is_error, said(sent)) == (False, "sent to anna@example.com")
        picture = await client.call_tool("desk__picture", {})
        assert [block.type for block in picture.content] == ["text", "image"]
        assert picture.content[1].mime_type == "image/png"
        assert picture.content[1].data.startswith("iVBOR")
        assert picture.meta["example.com/seen"] is True
        assert "symbi/error" not in picture.meta, "no server can say what the gateway says"
        count = await client.call_tool("desk__count", {})
        assert (count.structured_content, said(count)) == ({"n": 3}, '{"n": 3}')
        broken = await client.call_tool("desk__fails", {})
        assert (broken.is_error, broken.content[0].text) == (True, "it broke\nin two")
        assert broken.content[1].type == "image"


@ERAS
async def test_progress_reaches_the_client(opened, mode):
    async with opened() as one, one.client(mode=mode) as client:
        told = []

        async def progress(done, total, message):
            told.append((done, total, message))

        result = await client.call_tool("desk__steps", {}, progress_callback=progress)
        assert said(result) == "done"
        assert told == [(1, 3, "step 1"), (2, 3, "step 2"), (3, 3, "step 3")]


@ERAS
async def test_a_server_asks_the_person_at_the_client_where_policy_lets_it(opened, mode):
    asked = []

    async def answer(context, params):
        asked.append(params.message)
        return types.ElicitResult(action="accept", content={"n": 4})

    async def think(context, params):
        asked.append(params.messages[0].content.text)
        said = types.TextContent(type="text", text="4")
        return types.CreateMessageResult(role="assistant", content=said, model="m")

    both = {"elicitation_callback": answer, "sampling_callback": think}
    async with opened() as one, one.client(mode=mode, **both) as client:
        result = await client.call_tool("desk__asks", {})
        assert said(result) == "accept {'n': 4}"
        assert said(await client.call_tool("desk__thinks", {})) == "m says 4"
        assert asked == ["how many?", "what is 2 + 2?"]
    asked.clear()
    forbidding = ALLOW + '@id("mute") forbid (principal, action == Action::"ServerElicitation", resource);'
    async with opened(forbidding) as one, one.client(mode=mode, elicitation_callback=answer) as client:
        await client.call_tool("desk__asks", {})
        assert asked == []
        denied = await events(one, verdict="deny", policy="mute")
        assert denied[0].details["session"]


async def test_a_client_that_breaks_off_a_call_breaks_it_off_at_the_server(opened):
    async with opened() as one, one.client() as client:

        async def of_slow(kind):
            found = await events(one, agent="mcp.local", types=(kind,))
            return [event for event in found if "desk.slow" in event.details["resource"]]

        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(client.call_tool, "desk__slow", {})
                while not await of_slow("decision.allow"):
                    await anyio.wait_all_tasks_blocked()
                tasks.cancel_scope.cancel()
            while not await of_slow("effect.outcome"):
                await anyio.wait_all_tasks_blocked()
        assert (await of_slow("effect.outcome"))[0].details["error"] == "cancelled"
        assert (await client.call_tool("desk__count", {})).structured_content == {"n": 3}


@ERAS
async def test_a_run_whose_call_is_broken_off_is_stopped(opened, mode):
    async with opened() as one, one.client(mode=mode) as client:
        stuck = {"agent": "stuck", "inputs": {"word": "x"}}
        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(client.call_tool, "symbi__run_agent", stuck)
                while not one.runtime.at_work:
                    await anyio.wait_all_tasks_blocked()
                tasks.cancel_scope.cancel()
            while one.runtime.at_work:
                await anyio.wait_all_tasks_blocked()
        assert one.gateway.sessions


async def test_what_a_client_had_asked_for_ends_with_it(opened):
    async with opened() as one:
        async with one.client() as client:
            running = await client.call_tool(
                "symbi__run_agent", {"agent": "stuck", "inputs": {"word": "x"}, "wait_s": 1}
            )
            assert running.structured_content["state"] == "running"
            with anyio.fail_after(30):
                while not one.runtime.at_work:
                    await anyio.wait_all_tasks_blocked()
            assert len(one.runtime.at_work) == 1
        with anyio.fail_after(30):
            while one.runtime.at_work or one.gateway.sessions:
                await anyio.wait_all_tasks_blocked()
            kinds = []
            while "session.closed" not in kinds:  # what is gone is on its way to the trail
                kinds = [event.event_type for event in await events(one, agent="mcp.local")]
        assert kinds[0] == "session.opened"
        assert kinds[-1] == "session.closed"


@ERAS
async def test_a_tool_that_changes_is_gone_for_every_client_and_a_call_of_it_says_so(opened, mode):
    told, changes = anyio.create_memory_object_stream[object](16)

    async def hear(message):
        if isinstance(message, types.ToolListChangedNotification):
            await told.send(message)

    async with AsyncExitStack() as stack:
        stack.enter_context(told)
        stack.enter_context(changes)
        one = await stack.enter_async_context(opened())
        client = await stack.enter_async_context(one.client(mode=mode, message_handler=hear))
        other = await stack.enter_async_context(one.client())
        assert not (await client.call_tool("desk__read_mail", {})).is_error
        if mode != "legacy":
            changes = await stack.enter_async_context(client.listen(tools_list_changed=True))
        await other.call_tool("desk__changes", {})
        with anyio.fail_after(20):
            while "desk__read_mail" in [tool.name for tool in (await client.list_tools()).tools]:
                await anext(changes)
        refused = wrong(await client.call_tool("desk__read_mail", {}))
        assert refused["kind"] == "verification"
        assert not (await client.call_tool("desk__count", {})).is_error


@ERAS
async def test_resources_prompts_and_completions_reach_the_client(opened, mode):
    async with opened() as one, one.client(mode=mode) as client:
        assert [str(found.uri) for found in (await client.list_resources()).resources] == ["desk://card"]
        templates = (await client.list_resource_templates()).resource_templates
        assert [found.uri_template for found in templates] == ["desk://note/{day}"]
        for uri in ("desk://card", "desk://note/monday"):
            assert uri in (await client.read_resource(uri)).contents[0].text
        assert [found.name for found in (await client.list_prompts()).prompts] == ["desk__greet"]
        prompt = await client.get_prompt("desk__greet", {"whom": "Ada"})
        assert prompt.messages[0].content.text == "Greet Ada"
        ref = types.ResourceTemplateReference(type="ref/resource", uri="desk://note/{day}")
        found = await client.complete(ref, {"name": "day", "value": "mon"})
        assert found.completion.values == ["monday"]
        with pytest.raises(MCPError, match="there is no prompt"):
            await client.get_prompt("desk__none", {})


async def test_what_was_read_as_a_resource_is_known_again(opened):
    async with opened(SHIPPED, "[gateway]\nwait_s = 0\n") as one, one.client() as client:
        await client.read_resource("desk://card")
        held = wrong(await client.call_tool("desk__send_mail", {"to": "+49 30 901820", "subject": "s", "body": "b"}))
        assert held["kind"] == "held"


async def test_what_a_server_lists_is_known_again_as_read(opened):
    mail = {"to": "desk://card", "subject": "s", "body": "b"}
    async with opened(SHIPPED, "[gateway]\nwait_s = 0\n") as one, one.client() as other, one.client() as client:
        assert not (await other.call_tool("desk__send_mail", mail)).is_error
        await client.list_resources()
        assert wrong(await client.call_tool("desk__send_mail", mail))["kind"] == "held"


# --- the runtime itself ---------------------------------------------------------------------------


@ERAS
async def test_an_agent_is_run_and_its_result_answered(opened, mode):
    async with opened() as one, one.client(mode=mode) as client:
        listed = await client.call_tool("symbi__list_agents", {})
        assert {"agent": "adder", "inputs": {"a": "int", "b": "int"}} in listed.structured_content["agents"]
        result = await client.call_tool("symbi__run_agent", {"agent": "adder", "inputs": {"a": 2, "b": 3}})
        told = result.structured_content
        assert (told["state"], told["output"]) == ("finished", 5)
        again = await client.call_tool("symbi__run_status", {"run_id": told["run_id"]})
        assert again.structured_content["output"] == 5
        wrong_inputs = await client.call_tool("symbi__run_agent", {"agent": "adder", "inputs": {"a": 2}})
        assert wrong(wrong_inputs)["kind"] == "input"
        nobody = await client.call_tool("symbi__run_agent", {"agent": "nobody"})
        assert wrong(nobody)["code"] == "mcp.agent"


async def test_a_run_belongs_to_the_session_that_asked_for_it(opened):
    async with opened() as one, one.client() as client, one.client() as other:
        result = await client.call_tool("symbi__run_agent", {"agent": "adder", "inputs": {"a": 2, "b": 3}})
        run_id = result.structured_content["run_id"]
        assert wrong(await other.call_tool("symbi__run_status", {"run_id": run_id}))["code"] == "mcp.run"


async def test_a_session_has_only_so_many_runs_at_work_and_agents_that_stay_are_not_run(opened):
    config = '[gateway]\nmax_calls = 1\n[agents.adder]\nmode = "persistent"\n'
    async with opened(config=config) as one, one.client() as client:
        first = {"agent": "stuck", "inputs": {"word": "x"}, "wait_s": 0}
        assert (await client.call_tool("symbi__run_agent", first)).structured_content["state"] == "running"
        assert wrong(await client.call_tool("symbi__run_agent", first))["code"] == "mcp.runs"
        stays = await client.call_tool("symbi__run_agent", {"agent": "adder", "inputs": {"a": 1, "b": 2}})
        assert wrong(stays)["code"] == "mcp.stays"


async def test_knowledge_is_searched_where_there_is_any_and_not_offered_where_not(opened):
    async def search(principal, query, label, limit):
        return [{"text": f"{principal.agent} asks {query}", "limit": limit}], Label()

    async with opened(search=search) as one, one.client() as client:
        found = await client.call_tool("symbi__search_knowledge", {"query": "who?", "limit": 3})
        assert json.loads(said(found)) == [{"text": "mcp.local asks who?", "limit": 3}]
    async with opened() as one, one.client() as client:
        assert "symbi__search_knowledge" not in [tool.name for tool in (await client.list_tools()).tools]


# --- denials --------------------------------------------------------------------------------------

PERMIT_ONE = """
@id("calls") permit (principal, action, resource) unless { resource == Tool::"desk.send_mail" };
@id("one-address") @reason("mail goes to our own people alone")
permit (principal, action == Action::"InvokeTool::desk.send_mail", resource)
when { context.arguments has to && context.arguments.to == "anna@example.com" && principal.owner == "ops-9931" };
"""


@ERAS
async def test_a_denied_call_says_why_and_what_would_be_allowed_and_leaks_nothing(opened, mode, tmp_path):
    policies = (
        ALLOW
        + """
@id("our-people") @reason("mail goes to our own people alone")
forbid (principal, action == Action::"InvokeTool::desk.send_mail", resource)
unless { context.arguments has to && context.arguments.to == "anna@example.com" };
"""
    )
    async with opened(policies) as one, one.client(mode=mode) as client:
        result = await client.call_tool("desk__send_mail", {"to": "x@example.com", "subject": "s", "body": "b"})
        told = wrong(result)
        assert (told["code"], told["kind"], told["policies"]) == ("policy.denied", "denied", ["our-people"])
        text = said(result)
        assert "desk__send_mail" in text
        assert "`our-people`: mail goes to our own people alone" in text
        assert '`to` were "anna@example.com"' in text
        for leak in (".cedar", "policies/", str(tmp_path), "unless", "forbid (", "Traceback", "principal"):
            assert leak not in str(result.model_dump())
        why = await client.call_tool("symbi__explain_decision", {"decision": told["effect_id"]})
        assert why.structured_content["text"] == text
        allowed = await client.call_tool("desk__send_mail", {"to": "anna@example.com", "subject": "s", "body": "b"})
        assert not allowed.is_error


async def test_what_would_be_allowed_tells_nothing_of_others(opened):
    async with opened(PERMIT_ONE) as one, one.client() as client:
        result = await client.call_tool("desk__send_mail", {"to": "x@example.com", "subject": "s", "body": "b"})
        assert wrong(result)["kind"] == "denied"
        assert "ops-9931" not in str(result.model_dump())
        assert "No policy permits it." in said(result)


async def test_nobody_else_can_ask_why_a_client_was_denied(opened):
    config = '[mcp.clients.other]\nowner = "eve"\n'
    async with (
        opened(
            ALLOW + '@id("no") forbid (principal, action == Action::"InvokeTool::desk.count", resource);', config
        ) as one,
        one.client() as client,
        one.client("other") as other,
    ):
        told = wrong(await client.call_tool("desk__count", {}))
        answer = await other.call_tool("symbi__explain_decision", {"decision": told["effect_id"]})
        assert wrong(answer)["code"] == "mcp.decision"


@ERAS
async def test_where_everything_is_denied_nothing_is_touched(opened, mode):
    async with opened(NOBODY) as one, one.client(mode=mode) as client:
        tools = [tool.name for tool in (await client.list_tools()).tools]
        assert [name for name in tools if not name.startswith("symbi__")] == []
        assert one.runtime.catalog.tools == ()
        for name, arguments in (
            ("symbi__list_agents", {}),
            ("symbi__run_agent", {"agent": "adder", "inputs": {"a": 1, "b": 2}}),
            ("symbi__explain_decision", {"decision": "x"}),
        ):
            assert wrong(await client.call_tool(name, arguments))["kind"] == "denied"
        with pytest.raises(MCPError):
            await client.call_tool("desk__count", {})
        assert (await client.list_resources()).resources == []
        assert (await client.list_prompts()).prompts == []
        assert not one.runtime.at_work
        assert await events(one, verdict="allow", agent="mcp.local") == []


async def test_arguments_that_do_not_fit_and_tools_that_are_not_there_are_told_so(opened):
    async with opened() as one, one.client() as client:
        result = await client.call_tool("desk__send_mail", {"to": 5})
        assert wrong(result)["kind"] == "input"
        with pytest.raises(MCPError, match="there is no tool"):
            await client.call_tool("desk__none", {})
        secret = await client.call_tool("desk__send_mail", {"to": "vault://a/b"})
        assert wrong(secret)["code"] == "secret.stray"


async def test_every_effect_of_a_session_is_on_the_trail_with_it(opened):
    async with opened() as one, one.client() as client:
        await client.call_tool("desk__count", {})
        await client.call_tool("symbi__list_agents", {})
        (session,) = one.gateway.sessions
        decided = await events(one, agent="mcp.local", verdict="allow")
        calls = [event for event in decided if event.details["action"] != "ConnectServer"]
        assert [event.details["session"] for event in calls] == [session, session]


@pytest.fixture
def beside_one_that_hangs(opened):
    hangs = f"""
[mcp.servers.hangs]
command = ["{sys.executable}", "-c", "import time; time.sleep(3600)"]
"""
    return lambda **options: opened(config=hangs, **options)


async def called(client, name, arguments):
    """A call alone: the SDK's client lists all tools beside it."""
    params = types.CallToolRequestParams(name=name, arguments=arguments)
    return await client.session.send_request(types.CallToolRequest(params=params), types.CallToolResult)


async def test_a_server_that_hangs_delays_no_call_to_another(beside_one_that_hangs):
    async with beside_one_that_hangs() as one, one.client() as client, anyio.create_task_group() as tasks:
        tasks.start_soon(client.list_tools)  # waits for every server
        session = next(iter(one.gateway.sessions.values()))
        while not session._ready:
            await anyio.wait_all_tasks_blocked()
        sent = await called(client, "desk__send_mail", {"to": "anna@example.com"})
        assert said(sent) == "sent to anna@example.com"
        assert not (await called(client, "symbi__list_agents", {})).is_error
        greeting = await client.get_prompt("desk__greet", {"whom": "Bob"})
        assert greeting.messages[0].content.text == "Greet Bob"
        assert "hangs" not in session.servers | set(session.down), "it is still waited for"
        tasks.cancel_scope.cancel()


async def test_calls_that_wait_for_their_server_are_counted(beside_one_that_hangs):
    async with beside_one_that_hangs() as one, one.client() as client, anyio.create_task_group() as tasks:
        session = next(iter(one.gateway.sessions.values()))
        tasks.start_soon(client.call_tool, "hangs__anything", {})
        tasks.start_soon(client.get_prompt, "hangs__anything", {})
        tasks.start_soon(client.read_resource, "hangs://anything")
        while not session._ready or session.turnstile.under_way < 3:
            await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    assert session.turnstile.under_way == 0


async def test_a_resource_that_one_server_has_listed_is_read_there_without_asking_the_others(opened):
    async with opened() as one, one.client() as client:
        await client.list_resources()
        before = len(await events(one, types=("decision.allow",)))
        await client.read_resource("desk://card")
        after = await events(one, types=("decision.allow",))
        assert [event.details["action"] for event in after[before:]] == ["ReadResource"]


async def test_names_that_were_seen_are_bounded(opened, monkeypatch):
    monkeypatch.setattr("symbi.api.mcp.gateway.MAX_SEEN", 20)
    async with opened() as one, one.client() as client:
        await client.list_tools()
        session = next(iter(one.gateway.sessions.values()))
        session._seen |= {f"gone__{number}": f"gone.{number}" for number in range(100)}
        there = session.named()
        assert len(session._seen) == 20
        assert there.items() <= session._seen.items()
