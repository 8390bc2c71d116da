"""An engine's socket on this machine: waiting may be given up in any turn, and that loses nothing and is no error of the loop."""

import asyncio
import json
import os
import socket
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel
import httpcore2
import pytest

from symbi.adapters.docker import Engine
from symbi.adapters.docker.local import LocalNetwork, LocalStream

pytestmark = pytest.mark.anyio

VERSION = json.dumps({"Version": "20.10", "ApiVersion": "1.41", "MinAPIVersion": "1.12"}).encode()
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(VERSION), VERSION)
MUCH = 4_000_000  # bytes: more than the system keeps of a connection
BOUND_S = 30.0


@pytest.fixture
def bound(tmp_path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "d.sock"))
        listener.listen(0)  # one may wait to be accepted
        listener.settimeout(BOUND_S)
        yield listener


@asynccontextmanager
async def connected():
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.settimeout(BOUND_S)
    with theirs:
        stream = LocalStream(ours)
        yield stream, theirs
        await stream.aclose()


@pytest.fixture
async def reported():
    """What the loop reports of callbacks that failed."""
    loop = asyncio.get_running_loop()
    before, seen = loop.get_exception_handler(), []
    loop.set_exception_handler(lambda _, context: seen.append(context["message"]))
    yield seen
    loop.set_exception_handler(before)


async def given_up_as(happens, wait):
    """Cancel `wait` in the turn in which the loop has seen what happens, and has not acted on it."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        happens()
        await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()
    await anyio.lowlevel.checkpoint()


async def test_a_question_given_up_as_its_answer_comes_is_no_error_of_the_loop(bound, reported):
    async with Engine(f"unix://{bound.getsockname()}") as engine:

        def answer():
            with bound.accept()[0] as peer:
                assert peer.recv(65_536).startswith(b"GET /version HTTP/1.1\r\n")
                peer.sendall(ANSWER)

        await given_up_as(answer, engine.version)
        assert reported == []
        async with anyio.create_task_group() as tasks:  # and the next gets an answer of its own
            tasks.start_soon(anyio.to_thread.run_sync, answer)
            assert (await engine.version())["Version"] == "20.10"


async def test_what_came_as_a_read_was_given_up_is_read_next(reported):
    async with connected() as (stream, peer):
        await given_up_as(lambda: peer.sendall(b"said"), lambda: stream.read(100))
        assert reported == []
        assert await stream.read(100) == b"said"
        peer.shutdown(socket.SHUT_WR)
        assert await stream.read(100) == b""


async def test_a_write_is_given_up_as_there_is_room_again(reported):
    async with connected() as (stream, peer):
        await given_up_as(lambda: peer.recv(MUCH), lambda: stream.write(bytes(MUCH)))
        assert reported == []


async def test_much_is_said_and_heard_as_fast_as_it_is_taken():
    async with connected() as (stream, peer):
        said, heard = os.urandom(MUCH), bytearray()

        def echo():
            back = bytearray()
            while len(back) < MUCH:
                back += peer.recv(65_536)
            peer.sendall(back)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.to_thread.run_sync, echo)
            await stream.write(said)
            while len(heard) < MUCH:
                heard += await stream.read(100_000)
        assert heard == said


async def test_a_connection_that_is_closed_tells_who_waits_at_it(reported):
    async with connected() as (stream, _):
        async with anyio.create_task_group() as tasks:

            async def waits():
                with pytest.raises(httpcore2.ReadError):
                    await stream.read(1)

            tasks.start_soon(waits)
            await anyio.wait_all_tasks_blocked()
            await stream.aclose()
        assert stream.get_extra_info("is_readable")
        with pytest.raises(httpcore2.ReadError):
            await stream.read(1)
        with pytest.raises(httpcore2.WriteError):
            await stream.write(b"x")
        assert reported == []


async def test_a_peer_that_is_gone_is_told_of():
    async with connected() as (stream, peer):
        assert not stream.get_extra_info("is_readable")
        peer.close()
        assert stream.get_extra_info("is_readable")
        assert await stream.read(1) == b""
        with pytest.raises(httpcore2.WriteError):
            await stream.write(b"x")


async def test_what_does_not_come_in_time_is_told_of():
    async with connected() as (stream, peer):
        with pytest.raises(httpcore2.ReadTimeout):
            await stream.read(1, timeout=0.01)
        with pytest.raises(httpcore2.WriteTimeout):
            await stream.write(bytes(MUCH), timeout=0.01)
        peer.sendall(b"x")
        assert await stream.read(1, timeout=BOUND_S) == b"x"


async def test_where_nobody_listens_nobody_is_connected(tmp_path):
    network = LocalNetwork()
    for path in (tmp_path / "none", tmp_path, tmp_path / ("x" * 200)):
        with pytest.raises(httpcore2.ConnectError):
            await network.connect_unix_socket(str(path))


async def test_an_engine_with_many_at_its_door_is_waited_for(bound):
    network, path = LocalNetwork(), bound.getsockname()
    first = await network.connect_unix_socket(path)
    with pytest.raises(httpcore2.ConnectTimeout):
        await network.connect_unix_socket(path, timeout=0.01)
    async with anyio.create_task_group() as tasks:

        async def second():
            await (await network.connect_unix_socket(path)).aclose()

        tasks.start_soon(second)
        await anyio.wait_all_tasks_blocked()
        bound.accept()[0].close()
    await first.aclose()
