"""Clients hear of resources that change: each subscription and each change through the gate, bounded, and no longer than the session."""

import sys
from contextlib import asynccontextmanager

import anyio
import mcp_types as types
import pytest
from mcp.client.subscriptions import SubscriptionLost
from mcp.shared.exceptions import MCPError

from symbi.api.mcp import gateway, watching
from symbi.audit.event import parse_event
from symbi.audit.query import EventFilter
from symbi.policy.policies import PolicySource
from symbi.testing.mcp_gateway import open_gateway

pytestmark = pytest.mark.anyio

LEGACY, MODERN = "legacy", "2026-07-28"
BOTH = pytest.mark.parametrize("server", [LEGACY, MODERN])
ERAS = pytest.mark.parametrize("mode", [LEGACY, MODERN])
ALLOW = '@id("test.all") permit (principal, action, resource);'
NOT_SEVEN = """
@id("test.seven") @reason("seven is nobody's business")
forbid (principal, action == Action::"ReadResource", resource) when { context.uri == "note://7" };
"""
NOT_AGAIN = '@id("test.again") forbid (principal, action == Action::"ConnectServer", resource);'


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(watching, "TELL_EVERY_S", 0.0)
    monkeypatch.setattr(watching, "RENEW_FIRST_S", 0.01)


@pytest.fixture
def opened(tmp_path, root):
    def open_it(server, policies=ALLOW):
        config = f"""
[gateway]
calls_rate = 10000.0
[mcp]
tool_verification = "tofu"
[mcp.servers.house]
command = ["{sys.executable}", "{root / "tests" / "data" / "servers" / "watched.py"}"]
protocol = "{server}"
asks = ["elicitation", "sampling"]
[mcp.clients.ann]
[mcp.clients.bob]
"""
        return open_gateway(tmp_path, config=config, policies=policies, agents="agent a { with { 1 } }")

    return open_it


class Heard:
    """What a client hears of, in order."""

    def __init__(self):
        self.uris = []
        self.more = anyio.Event()

    async def take(self, message):
        if isinstance(message, types.ResourceUpdatedNotification):
            self.uris.append(str(message.params.uri))
            self.more.set()
            self.more = anyio.Event()

    async def until(self, *uris):
        with anyio.fail_after(30):
            while not set(uris) <= set(self.uris):
                await self.more.wait()


@asynccontextmanager
async def hearing(client, *uris):
    """While it lasts, the client wants to hear of these; which of them it does."""
    if client.session.protocol_version == MODERN:
        async with client.listen(resource_subscriptions=list(uris)) as stream:
            yield list(stream.honored.resource_subscriptions or ())
        return
    for uri in uris:
        await client.session.send_request(
            types.SubscribeRequest(params=types.SubscribeRequestParams(uri=uri)), types.EmptyResult
        )
    yield list(uris)
    for uri in uris:
        await client.session.send_request(
            types.UnsubscribeRequest(params=types.UnsubscribeRequestParams(uri=uri)), types.EmptyResult
        )


async def said(client, tool, uri=""):
    return (await client.call_tool(f"house__{tool}", {"uri": uri})).content[0].text


async def until_subscribed(client, *uris):
    """The server is told beside whoever asked."""
    with anyio.fail_after(30):
        while (await said(client, "subscribed")).split() != sorted(uris):
            await anyio.lowlevel.checkpoint()


async def decisions(one, verdict=None):
    log = one.runtime.rooms.world.log
    rows = await log.read(lambda: list(one.runtime.rooms.effects.select(EventFilter(verdict=verdict))))
    found = [parse_event(row.record, sequence=row.sequence).details for row in rows]
    return [
        details["arguments"] for details in found if details.get("action") == "ReadResource" and "arguments" in details
    ]


@BOTH
@ERAS
async def test_a_client_hears_of_what_it_asked_for_and_of_nothing_else(opened, server, mode):
    heard = Heard()
    async with opened(server) as one, one.client("ann", mode=mode, message_handler=heard.take) as client:
        assert mode == MODERN or client.session.server_capabilities.resources.subscribe
        async with hearing(client, "note://1", "note://2") as honoured:
            assert honoured == ["note://1", "note://2"]
            await until_subscribed(client, "note://1", "note://2")
            for uri in ("note://3", "note://1", "note://2"):
                await said(client, "touch", uri)
            await heard.until("note://1", "note://2")
            assert sorted(heard.uris) == ["note://1", "note://2"]
        asked = await decisions(one)
        for uri in ("note://1", "note://2"):
            assert {"uri": uri, "how": "subscribe"} in asked
            assert {"uri": uri, "how": "update"} in asked
        with anyio.fail_after(30):
            while next(iter(one.gateway.sessions.values())).watched:
                await anyio.lowlevel.checkpoint()
        await said(client, "touch", "note://1")
        assert sorted(heard.uris) == ["note://1", "note://2"]


@BOTH
@ERAS
async def test_what_may_not_be_read_is_not_heard_of(opened, server, mode):
    async with opened(server, ALLOW + NOT_SEVEN) as one, one.client("ann", mode=mode) as client:
        if mode == MODERN:
            async with hearing(client, "note://1", "note://7", "note://2") as honoured:
                assert honoured == ["note://1", "note://2"], "the acknowledgement says what is heard of"
                await until_subscribed(client, "note://1", "note://2")
        else:
            with pytest.raises(MCPError) as denied:
                async with hearing(client, "note://7"):
                    pass
            assert denied.value.error.data["symbi/error"]["policies"] == ["test.seven"]
            await until_subscribed(client)


@ERAS
async def test_a_change_is_not_told_once_policy_does_not_let_it(opened, mode):
    heard = Heard()
    async with (
        opened(MODERN) as one,
        one.client("ann", mode=mode, message_handler=heard.take) as client,
        hearing(client, "note://7", "note://1"),
    ):
        await until_subscribed(client, "note://1", "note://7")
        await said(client, "touch", "note://7")
        await heard.until("note://7")
        heard.uris.clear()
        await one.runtime.guard.engine.register_policy(PolicySource("later", NOT_SEVEN))
        for uri in ("note://7", "note://7", "note://1"):
            await said(client, "touch", uri)
        await heard.until("note://1")
        with anyio.fail_after(30):
            while {"uri": "note://7", "how": "update"} not in await decisions(one, "deny"):
                await anyio.lowlevel.checkpoint()
        assert heard.uris == ["note://1"]


@BOTH
async def test_a_resource_is_subscribed_to_once_however_many_want_to_hear(opened, server):
    ann, bob = Heard(), Heard()
    async with (
        opened(server) as one,
        one.client("ann", mode=LEGACY, message_handler=ann.take) as first,
        one.client("bob", mode=MODERN, message_handler=bob.take) as second,
        hearing(second, "note://1"),
    ):
        async with hearing(first, "note://1"):
            await until_subscribed(second, "note://1")
            await said(second, "touch", "note://1")
            await ann.until("note://1")
            await bob.until("note://1")
        await until_subscribed(second, "note://1")
        bob.uris.clear()
        await said(second, "touch", "note://1")
        await bob.until("note://1")
        assert ann.uris == ["note://1"]


@BOTH
@ERAS
async def test_a_session_that_ends_takes_its_subscriptions_along(opened, server, mode):
    async with opened(server) as one, one.client("bob", mode=mode) as other:
        async with one.client("ann", mode=LEGACY) as client:
            for uri in ("note://1", "note://2"):
                await client.session.send_request(
                    types.SubscribeRequest(params=types.SubscribeRequestParams(uri=uri)), types.EmptyResult
                )
            await until_subscribed(other, "note://1", "note://2")
        await until_subscribed(other)
        assert not one.gateway.watch._hears


async def test_a_client_has_so_many_in_all_of_its_sessions_and_others_have_theirs(opened, monkeypatch):
    monkeypatch.setattr(watching, "MAX_WATCHED", 3)
    async with (
        opened(LEGACY) as one,
        one.client("ann", mode=LEGACY) as first,
        one.client("ann", mode=MODERN) as second,
        one.client("bob", mode=LEGACY) as other,
        hearing(first, "note://1", "note://2"),
        hearing(second, "note://3", "note://4", "note://5") as honoured,
    ):
        assert honoured == ["note://3"]
        with pytest.raises(MCPError) as refused:
            async with hearing(first, "note://6"):
                pass
        assert refused.value.error.data["symbi/error"]["code"] == "mcp.subscriptions"
        async with hearing(first, "note://1"):
            pass  # which it has already
        async with hearing(other, "note://6"):
            await until_subscribed(other, "note://2", "note://3", "note://6")


@BOTH
async def test_where_a_server_dies_it_is_subscribed_to_again_through_the_gate(opened, server):
    heard = Heard()
    async with opened(server) as one, one.client("ann", mode=LEGACY, message_handler=heard.take) as client:
        async with hearing(client, "note://1"):
            await client.call_tool("house__die", {})
            await heard.until("note://1")  # what has changed meanwhile nobody knows
            heard.uris.clear()
            await until_subscribed(client, "note://1")
            await said(client, "touch", "note://1")
            await heard.until("note://1")
        subscribed = [one for one in await decisions(one) if one.get("how") == "subscribe"]
        assert len(subscribed) >= 2


@ERAS
async def test_each_subscription_is_decided_also_to_what_is_heard_of_already(opened, mode):
    async with (
        opened(MODERN) as one,
        one.client("ann", mode=mode) as client,
        hearing(client, "note://7", "note://1"),
    ):
        await one.runtime.guard.engine.register_policy(PolicySource("later", NOT_SEVEN))
        if mode == MODERN:
            async with hearing(client, "note://7", "note://1") as honoured:
                assert honoured == ["note://1"]
        else:
            params = types.SubscribeRequestParams
            await asked(client, types.SubscribeRequest(params=params(uri="note://1")))
            with pytest.raises(MCPError) as denied:
                await asked(client, types.SubscribeRequest(params=params(uri="note://7")))
            assert denied.value.error.data["symbi/error"]["policies"] == ["test.seven"]
        found = await decisions(one)
        assert found.count({"uri": "note://1", "how": "subscribe"}) == 2
        assert {"uri": "note://7", "how": "subscribe"} in await decisions(one, "deny")
        await until_subscribed(client, "note://1", "note://7")  # what it had it keeps


@ERAS
async def test_where_a_server_does_not_come_back_the_client_is_told_that_it_hears_no_more(opened, mode, monkeypatch):
    monkeypatch.setattr(watching, "RENEW_MOST_S", 0.0)
    heard, logged = Heard(), []

    async def log(params):
        logged.append((params.level, params.data))

    async with (
        opened(LEGACY) as one,
        one.client("ann", mode=mode, message_handler=heard.take, logging_callback=log) as client,
    ):

        async def dies():
            await one.runtime.guard.engine.register_policy(PolicySource("later", NOT_AGAIN))
            await client.call_tool("house__die", {})

        if mode == MODERN:
            with anyio.fail_after(60), pytest.raises(SubscriptionLost) as lost:
                async with client.listen(resource_subscriptions=["note://1", "note://2"]) as stream:
                    await dies()
                    async for _ in stream:
                        pass
            assert lost.value.__cause__.error.data["symbi/error"]["code"] == "unavailable.subscription"
            async with hearing(client, "note://1", "note://2") as honoured:
                assert honoured == []
        else:
            await asked(client, types.SubscribeRequest(params=types.SubscribeRequestParams(uri="note://1")))
            await dies()
            await heard.until("note://1")
            assert logged == [("warning", "changes of this resource are not told any more: note://1")]
            assert heard.uris == ["note://1"]
        tried = [one for one in await decisions(one, "allow") if one == {"uri": "note://1", "how": "subscribe"}]
        assert len(tried) == 1, "nothing was asked of a server that is not there"
        assert next(iter(one.gateway.sessions.values())).watched == {}


@BOTH
@ERAS
async def test_what_a_server_asks_at_once_is_answered_at_once(opened, server, mode):
    both = anyio.Event()
    asked = []

    async def meet(kind):
        asked.append(kind)
        if len(asked) == 2:
            both.set()
        with anyio.fail_after(20):
            await both.wait()  # in the older era: the other one is asked before this is answered

    async def person(context, params):
        if mode == LEGACY:
            await meet("person")
        return types.ElicitResult(action="accept", content={"n": 7})

    async def model(context, params):
        if mode == LEGACY:
            await meet("model")
        return types.CreateMessageResult(
            role="assistant", content=types.TextContent(type="text", text="four"), model="m"
        )

    async with (
        opened(server) as one,
        one.client("ann", mode=mode, elicitation_callback=person, sampling_callback=model) as client,
    ):
        assert await said(client, "asks_both") == "7 four"


@BOTH
@ERAS
async def test_a_client_hears_that_a_server_has_other_resources_and_prompts(opened, server, mode, monkeypatch):
    monkeypatch.setattr(gateway, "TELL_EVERY_S", 0.5)
    told, both = [], anyio.Event()

    async def take(message):
        kinds = (types.ResourceListChangedNotification, types.PromptListChangedNotification)
        if isinstance(message, kinds):
            told.append(type(message))
            if set(told) == set(kinds):
                both.set()

    async with opened(server) as one, one.client("ann", mode=mode, message_handler=take) as client:
        assert "note://new" not in [str(one.uri) for one in (await client.list_resources()).resources]

        async def heard():
            await client.call_tool("house__more", {"uri": "note://new"})
            with anyio.fail_after(30):
                await both.wait()

        if mode == MODERN:
            async with client.listen(resources_list_changed=True, prompts_list_changed=True):
                await heard()
        else:
            await heard()
        assert "note://new" in [str(one.uri) for one in (await client.list_resources()).resources]
        assert len(told) < 20, "fifty notices of each kind are not fifty for the client"


@pytest.mark.parametrize("uri", ["", "note://" + "x" * 9000], ids=["empty", "long"])
async def test_what_is_no_name_of_a_resource_is_not_subscribed_to(opened, uri):
    async with opened(LEGACY) as one, one.client("ann", mode=LEGACY) as client:
        with pytest.raises(MCPError) as refused:
            await asked(client, types.SubscribeRequest(params=types.SubscribeRequestParams(uri=uri)))
        assert refused.value.error.data["symbi/error"]["code"] == "tool.uri"
        assert await decisions(one) == []


async def asked(client, request):
    return await client.session.send_request(request, types.EmptyResult)


@pytest.mark.parametrize("kind", [types.SubscribeRequest, types.UnsubscribeRequest])
async def test_those_who_wait_for_their_turn_are_counted(opened, kind):
    params = types.SubscribeRequestParams if kind is types.SubscribeRequest else types.UnsubscribeRequestParams
    codes, enough = [], anyio.Event()
    async with opened(LEGACY) as one, one.client("ann", mode=LEGACY) as client:
        await client.list_tools()
        session = next(iter(one.gateway.sessions.values()))

        async def ask(number):
            try:
                await asked(client, kind(params=params(uri=f"note://{number}")))
            except MCPError as error:
                codes.append(error.error.data["symbi/error"]["code"])
                if len(codes) == 4:
                    enough.set()

        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks, session.watching:  # as while a person is asked for one
                for number in range(20):
                    tasks.start_soon(ask, number)
                await enough.wait()
        assert codes == ["mcp.calls"] * 4


async def test_a_session_that_ends_while_it_subscribes_leaves_nothing_behind(opened):
    async with opened(LEGACY) as one, one.client("ann", mode=LEGACY) as client:
        await client.list_tools()
        session = next(iter(one.gateway.sessions.values()))
        tasks = session.tasks
        ended = anyio.create_task_group()
        async with ended:
            pass
        session.tasks = ended
        with pytest.raises(RuntimeError):
            await watching.subscribe(session, "note://1", watching.THE_SESSION)
        session.tasks = tasks
        assert (session.watched, one.gateway.watch._hears) == ({}, {})
        await until_subscribed(client)
