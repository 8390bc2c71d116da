"""Between standard streams and the owner of a data folder, whatever becomes of either."""

import json
import os
import socket

import anyio
import pytest

from symbi.api.mcp.relay import relay
from symbi.errors import Overloaded, StoreUnavailable
from symbi.guard.outcome import encode_error

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(20)]


@pytest.fixture
def ends():
    """Our end of a connection, the owner's, and a pipe each for standard input and output."""
    ours, theirs = socket.socketpair()
    pipes = (*os.pipe(), *os.pipe())
    with ours, theirs:
        yield ours, theirs, pipes
    for descriptor in pipes:
        os.close(descriptor)


async def test_an_owner_that_breaks_off_before_it_answers_is_unavailable(ends):
    ours, theirs, (reading, _, _, writing) = ends
    theirs.close()
    with pytest.raises(StoreUnavailable, match="broken off"):
        await relay(ours, "local", reading, writing)


async def test_an_owner_that_is_reset_within_the_session_ends_it(ends):
    ours, theirs, (reading, asking, said, writing) = ends
    theirs.sendall(b'{"ok": {}}\nand more')
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(relay, ours, "local", reading, writing)
        await anyio.wait_readable(theirs)
        await anyio.wait_readable(said)
        os.write(asking, b"words")
        theirs.close()  # with the greeting unread, so that the other end meets a reset
    assert os.read(said, 100) == b"and more"


async def test_the_owner_says_why_it_lets_nobody_in(ends):
    ours, theirs, (reading, _, _, writing) = ends
    told = json.loads(encode_error(Overloaded("64 sessions are open", retry_after_s=1.0, code="mcp.sessions")))
    theirs.sendall(json.dumps({"error": told}).encode() + b"\n")
    with pytest.raises(Overloaded, match="64 sessions are open"):
        await relay(ours, "local", reading, writing)
