"""One message a line, each of bounded length, however it is cut on the way."""

import os

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from symbi.api.mcp import lines
from symbi.api.mcp.lines import lines_of, receive_from, send_to, unwrapped
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
