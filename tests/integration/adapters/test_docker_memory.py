"""A container that died of want of memory is known as such, also where the engine tells of its end first, and of the memory later."""

import json

import anyio
import pytest
from tests.integration.adapters.test_docker_faults import HANG, FakeEngine, fails, http

from symbi.adapters.docker import cell
from symbi.errors import CodeFailed, MemoryLimit

pytestmark = pytest.mark.anyio

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"


def ended(code, *, known=False):
    return http({"State": {"Status": "exited", "ExitCode": code, "OOMKilled": known}})


def events(*told, goes_on=True):
    """Answers with events, and goes on as one that waits for more."""

    async def reply(line):
        await line.send(HEAD)
        for one in told:
            data = one if isinstance(one, bytes) else json.dumps({"Action": one, "Type": "container"}).encode() + b"\n"
            await line.send(b"%x\r\n%s\r\n" % (len(data), data))
        if goes_on:
            await anyio.sleep_forever()
        await line.send(b"0\r\n\r\n")

    return reply


@pytest.fixture
async def fake(tmp_path):
    async with FakeEngine(str(tmp_path / "d.sock")).serving() as engine:
        engine.answer = None  # the container ends without one
        yield engine


@pytest.mark.parametrize("code", [128, 137])
@pytest.mark.parametrize(
    "told", [["oom"], ["die", "oom"], [b'{"Action": ', b'"oom"}\n']], ids=["at once", "later", "in parts"]
)
async def test_memory_that_ran_out_is_known_by_the_engine_s_events(fake, code, told):
    fake.replies = {"/images/": http({}), "/json": ended(code), "/events": events(*told)}
    await fails(f"unix://{fake.path}", MemoryLimit)
    (asked,) = [one for one in fake.asked if "/events" in one]
    assert "oom" in asked


async def test_what_the_engine_knows_is_not_asked_again(fake):
    fake.replies = {"/images/": http({}), "/json": ended(137, known=True)}
    await fails(f"unix://{fake.path}", MemoryLimit)
    fake.replies = {"/images/": http({}), "/json": ended(3)}
    await fails(f"unix://{fake.path}", CodeFailed)
    assert not [one for one in fake.asked if "/events" in one]


@pytest.mark.parametrize(
    "reply",
    [events(), events("die", "kill"), events("die", goes_on=False), events(b"[1]\n", b"oom\n"), HANG,
     http({"message": "no"}, "500 Internal Server Error"), b"\xff" * 64],
    ids=["silence", "others", "an end", "no events", "nothing", "error", "bytes"],
)  # fmt: skip
async def test_code_that_ends_its_own_sandbox_is_told_of_as_such(fake, monkeypatch, reply):
    monkeypatch.setattr(cell, "MEMORY_TOLD_S", 0.1)
    fake.replies = {"/images/": http({}), "/json": ended(137), "/events": reply}
    error = await fails(f"unix://{fake.path}", CodeFailed)
    assert "ended its sandbox, with exit code 137" in error.message
