"""Servers at an address that flood, stall, lie, lead elsewhere and ask unasked: each meets a bound, and harms nobody else."""

import json
from contextlib import asynccontextmanager

import anyio
import pytest

from symbi.adapters.mcp import HttpToolServer
from symbi.adapters.mcp.answers import MAX_PAGES
from symbi.adapters.mcp.bounded import GETS
from symbi.adapters.mcp.session import SessionTerms
from symbi.adapters.mcp.traffic import MAX_ASKING, MAX_MESSAGE_BYTES
from symbi.adapters.secrets import EnvironmentSecrets
from symbi.clock import SystemClock
from symbi.errors import OutputLimit, SymbiError, TimeLimit, ToolFailed, ToolServerUnavailable
from symbi.guard.action import ConnectServer, InvokeTool, ToolRef
from symbi.guard.permit import Authority
from symbi.testing.tool_servers import PRINCIPAL
from symbi.testing.web import scripted
from symbi.tools.asking import AskKind
from symbi.tools.port import PROTOCOL_FAILURE
from symbi.types import EffectId, ToolName

pytestmark = pytest.mark.anyio
TOOLS = [{"name": "echo", "inputSchema": {"type": "object"}}]
SOCKETS_BYTES = 16 * 1_048_576  # what the buffers of two sockets may hold beside


def head(status, kind, length=None, **more):
    lines = [f"HTTP/1.1 {status} X", f"content-type: {kind}", "connection: close"]
    lines += [] if length is None else [f"content-length: {length}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in more.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


async def answer(stream, message, status=200, **more):
    body = json.dumps(message).encode()
    await stream.send(head(status, "application/json", len(body), **more) + body)


def event(message):
    return f"data: {json.dumps(message)}\n\n".encode()


def result(number, **values):
    return {"jsonrpc": "2.0", "id": number, "result": values}


def text(number, value):
    return result(number, content=[{"type": "text", "text": value}])


class Hostile:
    """A server that behaves until a tool is called; `attack` is what it does then, and `listen` what a GET gets."""

    def __init__(self, attack=None, listing=None, listen=None, session="s1"):
        self.attack, self.listing, self.listen = attack, listing, listen
        self.session = {"mcp_session_id": session} if session else {}

    async def __call__(self, heard, stream):
        if heard.method == "GET":
            if self.listen is not None:
                await self.listen(stream)
            else:
                await stream.send(head(405, "text/plain", 0))
            return
        if heard.method == "DELETE" or not heard.body:
            await stream.send(head(200, "text/plain", 0))
            return
        message = json.loads(heard.body)
        number, method = message.get("id"), message.get("method")
        match method:
            case "initialize":
                info = {"name": "hostile", "version": "1"}
                given = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": info}
                await answer(stream, result(number, **given), **self.session)
            case "tools/list":
                more = self.listing(message) if self.listing else {}
                await answer(stream, result(number, tools=TOOLS, **more))
            case "tools/call" if message["params"]["arguments"].get("text") == "good":
                await answer(stream, text(number, "good"))
            case "tools/call":
                await self.attack(number, stream, heard)
            case _:
                await stream.send(head(202, "text/plain", 0))


class Bench:
    def __init__(self, server, heard, authority):
        self.server, self.heard, self.authority = server, heard, authority
        self.number = 0

    def mint(self, action):
        self.number += 1
        return self.authority.mint(EffectId(f"e{self.number}"), action)

    async def connect(self):
        action = ConnectServer(
            principal=PRINCIPAL, server="s", command=self.server.command_line, secrets=self.server.secret_paths
        )
        return await self.server.connect(self.mint(action))

    async def call(self, said="bad", timeout_s=10.0):
        ref = ToolRef(ToolName("s.echo"), "s", "", {})
        action = InvokeTool(principal=PRINCIPAL, tool=ref, values={"text": said}, timeout_s=timeout_s)
        return await self.server.call(self.mint(action), {})

    async def fails(self, error, said="bad", timeout_s=10.0):
        with pytest.raises(SymbiError) as caught:
            await self.call(said, timeout_s)
        assert type(caught.value) is error, repr(caught.value)
        return caught.value

    async def is_well(self):
        assert (await self.call("good")).content == "good"


@asynccontextmanager
async def against(script, **options):
    authority = Authority(SystemClock())
    if "variables" in options:
        options["secrets"] = EnvironmentSecrets(authority, options.pop("variables"))
    asks = options.pop("asks", frozenset())
    async with scripted(script) as (url, heard):
        server = HttpToolServer("s", f"{url}/mcp", authority, **options)
        server.terms = SessionTerms(asks=asks, mode="legacy")
        async with server:
            yield Bench(server, heard, authority)


# --- answers that are none ----------------------------------------------------------------------------


async def garbage(_number, stream, _heard):
    await stream.send(head(200, "application/json", 5) + b"{nope")


async def garbage_event(_number, stream, _heard):
    await stream.send(head(200, "text/event-stream") + b"data: {nope\n\n")


async def anothers_id(number, stream, _heard):
    await answer(stream, text(number + 1, "stolen"))


async def a_request_as_answer(number, stream, _heard):
    await answer(stream, {"jsonrpc": "2.0", "id": number, "method": "sampling/createMessage", "params": {}})


async def nothing_of_a_result(number, stream, _heard):
    await answer(stream, result(number, content="no list"))


@pytest.mark.parametrize(
    "attack",
    [garbage, garbage_event, anothers_id, a_request_as_answer, nothing_of_a_result],
    ids=lambda attack: attack.__name__,
)
async def test_what_is_no_answer_speaks_against_the_server_and_harms_nobody_else(attack):
    async with against(Hostile(attack)) as bench:
        await bench.connect()
        error = await bench.fails(ToolFailed)
        assert error.code == PROTOCOL_FAILURE
        await bench.is_well()


async def test_an_answer_to_anothers_call_does_not_reach_that_call():
    first = anyio.Event()

    async def attack(number, stream, _heard):
        if not first.is_set():
            first.set()
            await anyio.sleep(3600)
        await answer(stream, text(number - 1, "stolen"))

    async with against(Hostile(attack)) as bench:
        await bench.connect()
        async with anyio.create_task_group() as tasks:
            outcome = []

            async def waits():
                outcome.append(await bench.fails(TimeLimit, timeout_s=1.5))

            tasks.start_soon(waits)
            await first.wait()
            await bench.fails(ToolFailed)
        assert len(outcome) == 1


async def test_a_second_answer_is_passed_over():
    async def attack(number, stream, _heard):
        await stream.send(head(200, "text/event-stream") + event(text(number, "one")) + event(text(number, "two")))

    async with against(Hostile(attack)) as bench:
        await bench.connect()
        assert (await bench.call()).content == "one"
        await bench.is_well()


# --- too much, and too slow ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["application/json", "text/event-stream"])
async def test_an_output_bomb_is_cut_at_the_bound(kind):
    sent = []

    async def attack(_number, stream, _heard):
        await stream.send(head(200, kind) + b'data: {"x": "')
        for _ in range(4_096):
            await stream.send(b"x" * 65_536)
            sent.append(65_536)

    async with against(Hostile(attack)) as bench:
        await bench.connect()
        error = await bench.fails(OutputLimit)
        assert f"more than {MAX_MESSAGE_BYTES} bytes" in error.message
        assert sum(sent) < MAX_MESSAGE_BYTES + SOCKETS_BYTES
        await bench.is_well()


async def test_a_flood_of_messages_that_answer_nothing_ends_the_session():
    noise = event({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "x" * 900}})

    async def attack(_number, stream, _heard):
        await stream.send(head(200, "text/event-stream"))
        for _ in range(400):
            await stream.send(noise * 64)

    async with against(Hostile(attack)) as bench:
        await bench.connect()
        await bench.fails(OutputLimit)
        await bench.is_well()


async def slow_head(_number, stream, _heard):
    await stream.send(b"HTTP/1.1 200 OK\r\n")
    while True:
        await stream.send(b"x-a: b\r\n")
        await anyio.sleep(0.05)


async def slow_body(_number, stream, _heard):
    await stream.send(head(200, "application/json"))
    while True:
        await stream.send(b" ")
        await anyio.sleep(0.05)


async def slow_events(_number, stream, _heard):
    await stream.send(head(200, "text/event-stream"))
    while True:
        await stream.send(b": hold on\n\n")
        await anyio.sleep(0.05)


@pytest.mark.parametrize("attack", [slow_head, slow_body, slow_events], ids=lambda attack: attack.__name__)
async def test_a_slow_loris_ends_at_the_deadline(attack):
    async with against(Hostile(attack)) as bench:
        await bench.connect()
        await bench.fails(TimeLimit, timeout_s=0.5)
        await bench.is_well()
        transport = bench.server._session.line._transport
        with anyio.fail_after(5):
            while transport._open:
                await anyio.lowlevel.checkpoint()


async def test_a_server_that_does_not_get_ready_in_time_is_unavailable():
    async def script(_heard, _stream):
        await anyio.sleep(3600)

    async with against(script, start_timeout_s=0.3) as bench:
        with pytest.raises(ToolServerUnavailable, match=r"did not get ready within 0\.3 s"):
            await bench.connect()


# --- elsewhere ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed_not_even_to_the_same_host(status):
    async def lure(_heard, stream):
        await stream.send(head(200, "text/plain", 0))

    async with scripted(lure) as (elsewhere, lured):

        async def attack(_number, stream, _heard):
            await stream.send(head(status, "text/plain", 0, location=f"{elsewhere}/mcp?token=1"))

        async with against(Hostile(attack)) as bench:
            await bench.connect()
            error = await bench.fails(ToolServerUnavailable)
            assert f"redirect to `{elsewhere}/mcp`" in error.message
            assert "token" not in error.message
            assert lured == []
            count = len(bench.heard)
            await bench.is_well()
            assert len(bench.heard) == count + 1


async def test_what_is_compressed_is_refused_unread():
    async def attack(_number, stream, _heard):
        await stream.send(head(200, "application/json", 10, content_encoding="gzip") + b"x" * 10)

    async with against(Hostile(attack)) as bench:
        await bench.connect()
        error = await bench.fails(ToolServerUnavailable)
        assert "coding `gzip`" in error.message
        assert all(heard.headers["accept-encoding"] == "identity" for heard in bench.heard)
        await bench.is_well()


async def test_a_connection_that_breaks_off_fails_its_own_call_alone():
    async def attack(_number, stream, _heard):
        await stream.send(head(200, "application/json", 1_000) + b"{")

    async with against(Hostile(attack)) as bench:
        await bench.connect()
        error = await bench.fails(ToolServerUnavailable)
        assert "broke off" in error.message
        await bench.is_well()


@pytest.mark.parametrize("status", [400, 401, 403, 404, 500, 503])
async def test_an_error_of_http_speaks_against_the_server(status):
    async def attack(_number, stream, _heard):
        await stream.send(head(status, "text/html", 4) + b"oops")

    async with against(Hostile(attack, session="")) as bench:
        await bench.connect()
        error = await bench.fails(ToolServerUnavailable)
        assert f"answers with the status {status}" in error.message
        await bench.is_well()


async def test_an_error_of_the_protocol_is_an_answer_whatever_its_status():
    async def attack(number, stream, _heard):
        await answer(stream, {"jsonrpc": "2.0", "id": number, "error": {"code": -32602, "message": "no"}}, 400)

    async with against(Hostile(attack)) as bench:
        await bench.connect()
        assert (await bench.fails(ToolFailed)).fields["rpc_code"] == -32602


async def test_a_stream_that_ends_without_an_answer_fails_its_own_call():
    async def attack(_number, stream, _heard):
        await stream.send(head(200, "text/event-stream") + b": nothing\n\n")

    async with against(Hostile(attack)) as bench:
        await bench.connect()
        error = await bench.fails(ToolServerUnavailable)
        assert "broke off" in error.message
        await bench.is_well()


async def test_a_session_that_the_server_has_ended_is_over():
    async def attack(_number, stream, _heard):
        await stream.send(head(404, "text/plain", 0))

    async with against(Hostile(attack)) as bench:
        await bench.connect()
        error = await bench.fails(ToolServerUnavailable)
        assert "has ended the session" in error.message
        assert not bench.server.connected
        await bench.connect()
        await bench.is_well()


async def test_nobody_there_is_unavailable():
    authority = Authority(SystemClock())
    async with HttpToolServer("s", "http://127.0.0.1:9/mcp", authority) as server:
        bench = Bench(server, [], authority)
        with pytest.raises(ToolServerUnavailable, match="cannot be reached"):
            await bench.connect()


# --- lists without an end -------------------------------------------------------------------------------------


async def test_a_list_without_an_end_is_left():
    pages = []

    def listing(message):
        pages.append(message)
        return {"nextCursor": f"p{len(pages)}"}

    async with against(Hostile(listing=listing)) as bench:
        with pytest.raises(ToolServerUnavailable, match="more than"):
            await bench.connect()
        assert len(pages) == MAX_PAGES


# --- what is asked unasked -------------------------------------------------------------------------------------


@pytest.mark.parametrize("asks", [frozenset(), frozenset(AskKind)])
async def test_what_a_server_asks_where_nobody_stands_behind_the_call_is_refused(asks):
    question = {"messages": [], "maxTokens": 1_000_000}

    async def attack(number, stream, _heard):
        asked = {"jsonrpc": "2.0", "id": "q1", "method": "sampling/createMessage", "params": question}
        await stream.send(head(200, "text/event-stream") + event(asked))
        with anyio.fail_after(5):
            while not any(b'"q1"' in heard.body for heard in bench.heard):
                await anyio.lowlevel.checkpoint()
        await stream.send(event(text(number, "went on")))

    async with against(Hostile(attack), asks=asks) as bench:
        await bench.connect()
        assert (await bench.call()).content == "went on"
        [reply] = [json.loads(heard.body) for heard in bench.heard if b'"q1"' in heard.body]
        assert "error" in reply
        assert "result" not in reply
        opened = json.loads(bench.heard[0].body)["params"]["capabilities"]
        assert set(opened) == ({"sampling", "elicitation", "roots"} if asks else set())


async def test_more_questions_than_may_wait_end_the_session():
    async def attack(_number, stream, _heard):
        asked = {"jsonrpc": "2.0", "method": "elicitation/create", "params": {}}
        many = b"".join(event({**asked, "id": f"q{n}"}) for n in range(MAX_ASKING + 200))
        await stream.send(head(200, "text/event-stream") + many)
        await anyio.sleep(3600)

    async with against(Hostile(attack)) as bench:
        await bench.connect()
        with pytest.raises(SymbiError):
            await bench.call(timeout_s=2.0)
        assert len([heard for heard in bench.heard if b'"q' in heard.body]) <= MAX_ASKING + 200


async def test_a_stream_that_closes_at_once_again_and_again_is_not_opened_for_ever():
    async def listen(stream):
        await stream.send(head(200, "text/event-stream") + b"retry: 0\nid: 1\ndata:\n\n")

    async with against(Hostile(listen=listen)) as bench:
        await bench.connect()
        await bench.is_well()
        while not [heard for heard in bench.heard if heard.method == "GET"]:
            await anyio.lowlevel.checkpoint()
        await anyio.sleep(0.5)
        opened = [heard for heard in bench.heard if heard.method == "GET"]
        assert 1 <= len(opened) <= 2 * GETS + 1, "so many before the call, so many after it, and one more in that time"


async def test_a_message_without_an_end_on_the_stream_that_is_listened_on_ends_the_session():
    sent, part = [], b"x" * 65_536
    told = anyio.Event()

    async def listen(stream):
        await stream.send(head(200, "text/event-stream") + b"data: ")
        while True:
            for _ in range(16):  # less than may answer nothing between two calls
                await stream.send(part)
                sent.append(len(part))
            told.set()
            await anyio.sleep(0.05)

    async with against(Hostile(listen=listen)) as bench:
        await bench.connect()
        await told.wait()
        with pytest.raises(ToolServerUnavailable, match=f"more than {MAX_MESSAGE_BYTES} bytes"), anyio.fail_after(30):
            while True:
                await bench.is_well()
        assert sum(sent) < MAX_MESSAGE_BYTES + SOCKETS_BYTES


# --- secrets ---------------------------------------------------------------------------------------------------


async def test_a_secret_in_a_header_goes_to_the_server_and_does_not_come_back():
    async def attack(number, stream, heard):
        await answer(stream, text(number, heard.headers["authorization"]))

    variables = {"SYMBI_SECRET_A_TOKEN": "correct-horse"}
    async with against(Hostile(attack), headers={"Authorization": "vault://a/token"}, variables=variables) as bench:
        await bench.connect()
        assert (await bench.call()).content == "vault://a/token"
        assert {heard.headers.get("authorization") for heard in bench.heard} == {"correct-horse"}


async def test_the_session_is_ended_with_the_server():
    async with against(Hostile()) as bench:
        await bench.connect()
        heard = bench.heard
        await bench.server._end_session()
        assert [one.headers.get("mcp-session-id") for one in heard if one.method == "DELETE"] == ["s1"]
