"""Subscriptions in one session with a server: what it does not tell of any more is said, and a session that ended takes none."""

from contextlib import asynccontextmanager
from types import SimpleNamespace

import anyio
import pytest
from mcp.client.subscriptions import SubscriptionLost
from mcp.shared.exceptions import MCPError

from symbi.adapters.mcp import updates
from symbi.adapters.mcp.updates import Updates
from symbi.tools.port import Notice

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(20)]
RESOURCES = SimpleNamespace(resources=SimpleNamespace(subscribe=True))


async def test_a_session_that_ends_behind_its_answer_leaves_nobody_waiting():
    told = []

    async def answers(_request, _kind):
        watched.end()

    client = SimpleNamespace(session=SimpleNamespace(server_capabilities=RESOURCES, send_request=answers))
    watched = Updates("house", client, None, modern=False, told=lambda *one: told.append(one))
    with pytest.raises(MCPError, match="ended"):
        await watched.open("note://1")
    watched.noticed("note://1")
    assert told == []


class Streams:
    """The streams that a server opens, each with what it tells of; the last one is lost when it is told to be."""

    def __init__(self, *honoured):
        self.honoured, self.open, self.asked = list(honoured), [], []

    @asynccontextmanager
    async def listen(self, *, resource_subscriptions):
        self.asked.append(resource_subscriptions)
        stream = Events(self.honoured.pop(0))
        self.open.append(stream)
        yield stream


class Events:
    def __init__(self, honoured):
        self.honored = SimpleNamespace(resource_subscriptions=honoured)
        self.lost = anyio.Event()

    def __aiter__(self):
        return self

    async def __anext__(self):
        await self.lost.wait()
        raise SubscriptionLost("it is lost")


@pytest.mark.parametrize("lost", [False, True], ids=["another is opened", "it is lost"])
async def test_what_a_further_stream_does_not_tell_of_is_over(lost, monkeypatch):
    monkeypatch.setattr(updates, "LISTEN_AGAIN_S", 0.0)
    told, two = [], ["note://1", "note://2"]
    streams = Streams(two[:1], two, two[1:]) if lost else Streams(two[:1], two[1:])
    async with anyio.create_task_group() as tasks:
        watched = Updates("house", streams, tasks, modern=True, told=lambda *one: told.append(one))
        for uri in two:
            await watched.open(uri)
        if lost:
            streams.open[-1].lost.set()
            while len(streams.asked) < 3:
                await anyio.lowlevel.checkpoint()
            await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    assert told == [("note://1", Notice.OVER), *([("note://2", Notice.CHANGED)] if lost else [])]


async def test_a_session_that_ends_while_a_stream_is_opened_says_so_at_once():
    class Silent:
        @asynccontextmanager
        async def listen(self, *, resource_subscriptions):
            await anyio.sleep_forever()
            yield

    failures = []
    async with anyio.create_task_group() as tasks:
        watched = Updates("house", Silent(), tasks, modern=True, told=lambda *_one: None)

        async def opening():
            try:
                await watched.open("note://1")
            except MCPError as error:
                failures.append(error)

        async with anyio.create_task_group() as asking:
            asking.start_soon(opening)
            await anyio.wait_all_tasks_blocked()
            watched.end()
        tasks.cancel_scope.cancel()
    assert len(failures) == 1
