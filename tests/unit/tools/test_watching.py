"""Who hears of a resource: nothing is kept of one that nobody hears of."""

from types import SimpleNamespace

import anyio
import pytest

from symbi.errors import ToolFailed
from symbi.tools.watching import Notice, ResourceWatch

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(20)]


class Server:
    """A server that tells of resources, or refuses."""

    def __init__(self):
        self.refuses, self.told, self.ended = False, None, []

    def follow(self, told):
        self.told = told

    async def subscribe(self, permit):
        await anyio.lowlevel.checkpoint()
        if self.refuses:
            raise ToolFailed("no")

    async def unsubscribe(self, uri):
        await anyio.lowlevel.checkpoint()
        self.ended.append(uri)


class Reader:
    """Lets everything pass."""

    def __init__(self, server):
        self.server = server

    async def subscribe(self, action, opening):
        await opening(self.server, None)


@pytest.fixture
def server():
    return Server()


@pytest.fixture
def watch(server):
    link = SimpleNamespace(updates=server)
    catalog = SimpleNamespace(servers=["house"], link=lambda _name: link)
    guard = SimpleNamespace(authority=SimpleNamespace(redeem=lambda _permit, _kind: None))
    return ResourceWatch(catalog, guard)


def resource(number):
    return SimpleNamespace(server="house", uri=f"note://{number}")


async def test_nothing_is_kept_of_what_was_refused_ended_or_lost(server, watch):
    server.refuses = True
    for number in range(20):
        with pytest.raises(ToolFailed):
            await watch.subscribe(Reader(server), resource(number), print)
    assert (watch._turns, watch._hears) == ({}, {})
    server.refuses = False
    heard = []
    marks = [await watch.subscribe(Reader(server), resource(1), heard.append) for _ in range(2)]
    server.told("house", "note://1", Notice.OVER)
    for mark in marks:
        await watch.unsubscribe("house", "note://1", mark)
    assert heard == [Notice.OVER, Notice.OVER]
    assert (watch._turns, watch._hears, server.ended) == ({}, {}, [])


async def test_of_those_who_come_and_go_at_once_the_last_one_ends_it(server, watch):
    marks = [await watch.subscribe(Reader(server), resource(1), print) for _ in range(3)]
    async with anyio.create_task_group() as tasks:
        for mark in marks:
            tasks.start_soon(watch.unsubscribe, "house", "note://1", mark)
    assert (watch._turns, watch._hears, server.ended) == ({}, {}, ["note://1"])
