"""One message a line, each of bounded length, however it is cut on the way."""

import json
import os

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from symbi.api.mcp import lines
from symbi.api.mcp.lines import MAX_UNREAD, line_streams, lines_of, receive_from, send_to, unwrapped
from symbi.errors import StoreUnavailable, Unavailable

pytestmark = pytest.mark.anyio


def source(parts):
    left = list(parts)

    async def receive():
        return left.pop(0) if left else b""

    return receive


async def taken(parts, rest=b""):
    return [line async for line in lines_of(source(parts), rest)]


def run(work):
    """Drive what waits for nothing."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError


@given(st.lists(st.binary(max_size=20).filter(lambda one: b"\n" not in one)), st.integers(1, 7))
def test_lines_are_the_same_however_they_are_cut(said, size):
    data = b"".join(one + b"\n" for one in said)
    parts = [data[at : at + size] for at in range(0, len(data), size)]
    assert run(taken(parts)) == said
    assert run(taken(parts[1:], parts[0] if parts else b"")) == said


def test_the_last_line_needs_no_end():
    assert run(taken([b"a\nb"])) == [b"a", b"b"]


def test_a_line_that_is_too_long_ends_it_and_is_not_kept(monkeypatch):
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 100)
    with pytest.raises(Unavailable):
        run(taken([b"x" * 60, b"x" * 60, b"\n"]))


async def test_pipes_carry_what_is_larger_than_they_are(tmp_path):

    reading, writing = os.pipe()
    data = os.urandom(300_000)
    received = bytearray()

    async def read():
        while len(received) < len(data):
            received.extend(await receive_from(reading))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read)
        await send_to(writing, data)
    assert bytes(received) == data
    os.close(writing)
    assert await receive_from(reading) == b""
    os.close(reading)
    file = tmp_path / "f"
    file.write_bytes(b"abc")
    descriptor = os.open(file, os.O_RDONLY)
    assert await receive_from(descriptor) == b"abc"
    os.close(descriptor)


def test_an_error_of_ours_comes_out_of_its_group():
    with pytest.raises(StoreUnavailable), unwrapped():
        raise ExceptionGroup("g", [ExceptionGroup("h", [StoreUnavailable("s")])])
    with pytest.raises(ExceptionGroup), unwrapped():
        raise ExceptionGroup("g", [ValueError()])


PING = b'{"jsonrpc":"2.0","id":1,"method":"ping"}\n'


async def test_a_client_that_does_not_read_is_not_read_from_for_ever():
    reads, answers = [0], anyio.Event()

    async def receive():
        reads[0] += 1
        return PING

    async def send(_data):
        await answers.wait()

    async with (
        line_streams(receive, send) as (incoming, outgoing),
        incoming,
        outgoing,
        anyio.create_task_group() as tasks,
    ):

        async def serve():
            async for message in incoming:
                tasks.start_soon(outgoing.send, message)

        tasks.start_soon(serve)
        with anyio.fail_after(30):
            before = -1
            while reads[0] != before:
                before = reads[0]
                await later()
        assert MAX_UNREAD <= reads[0] <= MAX_UNREAD + 8, "and those that are on their way between"
        answers.set()
        with anyio.fail_after(30):
            while reads[0] < 2 * MAX_UNREAD:
                await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()


async def later():
    """Once everybody else has had many turns."""
    for _ in range(50):
        await anyio.lowlevel.checkpoint()


async def test_a_client_that_is_gone_while_much_waits_for_it_ends_the_session(monkeypatch):
    monkeypatch.setattr(lines, "MAX_UNREAD", 1)
    gone, left = anyio.Event(), [PING] * 8

    async def receive():
        return left.pop() if left else b""

    async def send(_data):
        await gone.wait()
        raise BrokenPipeError

    with anyio.fail_after(30):
        async with (
            line_streams(receive, send) as (incoming, outgoing),
            incoming,
            outgoing,
            anyio.create_task_group() as tasks,
        ):

            async def answer(message):
                with pytest.raises(anyio.BrokenResourceError):
                    for _ in range(2):  # the first may be on its way
                        await outgoing.send(message)

            number = 0
            async for message in incoming:
                number += 1
                tasks.start_soon(answer, message)
                await later()
                if number == 2:
                    gone.set()
            assert number == 8


async def test_what_is_no_message_is_answered_so_and_what_is_too_long_is_told_in_the_log(monkeypatch, caplog):
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 100)
    said, parts = [], [b"hello\n", b'[{"jsonrpc":"2.0"}]\n', PING, b"x" * 200, b""]

    async def receive():
        return parts.pop(0)

    async def send(data):
        said.append(json.loads(data))

    async with line_streams(receive, send) as (incoming, outgoing), incoming, outgoing:
        assert [message.message.method async for message in incoming] == ["ping"]
    assert [(one["id"], one["error"]["code"]) for one in said] == [(None, -32700)] * 2
    assert "a client is left: a message is longer than 100 bytes" in caplog.text
