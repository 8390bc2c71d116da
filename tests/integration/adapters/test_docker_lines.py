"""Lines out of a container, both sides of them, without a container: what is said on one comes out at the other end, whole."""

import base64
import json
import os
import select
import socket
import threading
from contextlib import suppress

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from symbi.adapters.docker.lines import MOST_ENCODED, MOST_KEPT, Line, Lines, line_frame
from symbi.errors import SandboxUnavailable
from symbi.sandbox.inside import lines as inside

pytestmark = pytest.mark.anyio


class Container:
    """The first process's loop, on a thread, with pipes in place of its standard streams."""

    def __init__(self):
        self.in_out, self.in_in = os.pipe()
        self.out_out, self.out_in = os.pipe()
        self.most = 0
        self.lines = inside.Lines(self.send, port=0)
        self.port = self.lines.listener.getsockname()[1]
        self.thread = threading.Thread(target=self.loop, daemon=True)
        self.thread.start()

    def send(self, frame):
        data = json.dumps(frame).encode()
        data = b"%08x" % len(data) + data
        while data:
            data = data[os.write(self.out_in, data) :]

    def loop(self):
        while True:
            readers, writers = self.lines.descriptors()
            ready = select.select([self.in_out, *readers], writers, [])
            if self.in_out in ready[0]:
                head = os.read(self.in_out, 8)
                if not head:
                    return
                data = b""
                while len(data) < int(head, 16):
                    data += os.read(self.in_out, int(head, 16) - len(data))
                self.lines.take(json.loads(data))
            self.lines.ready([one for one in ready[0] if one in readers], ready[1])
            kept = max((len(one.waiting) for one in self.lines.channels.values()), default=0)
            self.most = max(self.most, kept)

    async def write(self, frame):
        data = json.dumps(frame).encode()
        await anyio.to_thread.run_sync(self._write, b"%08x" % len(data) + data)

    def _write(self, data):
        while data:
            data = data[os.write(self.in_in, data) :]

    async def read(self):
        head = await anyio.to_thread.run_sync(self._read, 8)
        return json.loads(await anyio.to_thread.run_sync(self._read, int(head, 16)))

    def _read(self, count):
        data = b""
        while len(data) < count:
            data += os.read(self.out_out, count - len(data))
        return data

    def close(self):
        os.close(self.in_in)
        self.thread.join()
        self.lines.close()
        for one in (self.in_out, self.out_out, self.out_in):
            os.close(one)


async def through(serve, *clients):
    """What clients, each on a thread, get of lines that are served so."""
    container = Container()
    told = []

    async def client(work):
        with socket.create_connection(("127.0.0.1", container.port), 10) as line:
            line.settimeout(20)
            told.append(await anyio.to_thread.run_sync(work, line))

    async def pump(lines):
        while True:
            lines.take(await container.read())

    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(pump, Lines(container.write, serve, tasks))
            async with anyio.create_task_group() as working:
                for work in clients:
                    working.start_soon(client, work)
            container.send({"kind": "line", "op": "open", "id": container.lines.last + 1})  # wakes who reads
            tasks.cancel_scope.cancel()
    container.close()
    return told, container


def all_of(line):
    data = b""
    while piece := line.recv(65_536):
        data += piece
    return data


async def echo(stream):
    """All that is said, said again."""
    data = b""
    try:
        while True:
            data += await stream.receive()
    except anyio.EndOfStream:
        await stream.send(data[::-1])
        await stream.send_eof()


async def test_what_is_said_comes_out_whole_in_both_directions_and_no_side_keeps_more_than_its_window():
    body = os.urandom(3_000_000)

    def work(line):
        sent = threading.Thread(target=lambda: (line.sendall(body), line.shutdown(socket.SHUT_WR)))
        sent.start()
        heard = all_of(line)
        sent.join()
        return heard

    told, container = await through(echo, work, work)
    assert told == [body[::-1]] * 2
    assert container.most <= inside.WINDOW
    assert container.lines.channels == {}


async def test_a_line_that_nobody_reads_holds_up_no_other():
    begun, heard = anyio.Event(), threading.Event()

    async def serve(stream):
        if await stream.receive() == b"quick":
            await begun.wait()
            await stream.send(b"hello")
            return
        begun.set()
        with suppress(anyio.BrokenResourceError):
            await stream.send(bytes(50_000_000))  # more than all buffers on the way take

    def deaf(line):
        line.sendall(b"deaf")
        heard.wait(20)
        return b"deaf"

    def quick(line):
        line.sendall(b"quick")
        said = all_of(line)
        heard.set()
        return said

    told, container = await through(serve, deaf, quick)
    assert sorted(told) == [b"deaf", b"hello"]
    assert container.most <= inside.WINDOW


async def test_who_is_not_read_is_held_up_and_nothing_of_what_he_says_is_lost():
    body = os.urandom(4 * inside.WINDOW)
    kept = []

    async def serve(stream):
        while len(stream._waiting) < inside.WINDOW:
            await anyio.lowlevel.checkpoint()
        for _ in range(100):  # turns in which more could come
            await anyio.lowlevel.checkpoint()
        kept.append(len(stream._waiting))
        await echo(stream)

    def work(line):
        sent = threading.Thread(target=lambda: (line.sendall(body), line.shutdown(socket.SHUT_WR)))
        sent.start()
        heard = all_of(line)
        sent.join()
        return heard

    told, _ = await through(serve, work)
    assert told == [body[::-1]]
    assert kept == [inside.WINDOW]


def frame(op, number, **more):
    return {"kind": "line", "op": op, "id": number, **more}


def turn(lines, timeout_s=0):
    """One turn of the first process's loop; whether anything was to be done."""
    readers, writers = lines.descriptors()
    ready = select.select(readers, writers, [], timeout_s)
    lines.ready(ready[0], ready[1])
    return bool(ready[0] or ready[1])


@pytest.fixture
def lines():
    told = []
    made = inside.Lines(told.append, port=0)
    made.told = told
    yield made
    made.close()


def connect(lines):
    line = socket.create_connection(lines.listener.getsockname(), 10)
    assert turn(lines, 10)
    return line


def connect_late(lines):
    """Where nothing else gets its turn."""
    line = socket.create_connection(lines.listener.getsockname(), 10)
    select.select([lines.listener], [], [], 10)
    lines.accept()
    return line


def test_what_was_said_before_the_end_is_heard_by_who_reads_late(lines):
    sent = b""
    with connect(lines) as line:
        channel = lines.channels[1]
        channel.line.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)  # as where the system keeps little
        while len(channel.waiting) < inside.WINDOW // 2:  # the connection takes no more
            piece = os.urandom(inside.PIECE)
            sent += piece
            lines.take(frame("data", 1, data=base64.b64encode(piece).decode()))
            turn(lines)
        lines.take(frame("close", 1))
        line.setblocking(False)
        heard = b""
        while len(heard) < len(sent):
            turn(lines)
            with suppress(BlockingIOError):
                piece = line.recv(65_536)
                assert piece, f"the last {len(sent) - len(heard)} bytes are lost"
                heard += piece
    assert heard == sent
    turn(lines, 10)
    assert lines.channels == {}


def test_who_still_talks_when_he_is_answered_hears_the_answer(lines):
    with connect(lines) as line:
        line.setblocking(False)
        with pytest.raises(BlockingIOError):
            while True:
                line.send(bytes(65_536))
                turn(lines)
        lines.take(frame("data", 1, data=base64.b64encode(b"no").decode()))
        lines.take(frame("close", 1))
        for _ in range(1000):  # and goes on talking
            turn(lines)
            with suppress(BlockingIOError):
                line.send(bytes(65_536))
        line.settimeout(10)
        assert line.recv(65_536) == b"no"
        assert line.recv(65_536) == b""
    while lines.channels:
        assert turn(lines, 10)
    assert lines.told[-1]["op"] == "data"  # of what came after the end nobody is told


def test_who_was_told_all_and_does_not_hang_up_gives_way_to_others(lines):
    kept = [connect(lines) for _ in range(inside.MOST)]
    for number in range(1, inside.MOST + 1):
        lines.take(frame("close", number))
    while turn(lines):
        pass
    kept.append(connect(lines))
    assert list(lines.channels) == [*range(2, inside.MOST + 2)]
    for line in kept:
        line.close()


def test_who_does_not_listen_gives_way_once_there_is_nobody_who_was_told_all(lines):
    kept = [connect(lines) for _ in range(inside.MOST)]
    piece = base64.b64encode(bytes(inside.PIECE)).decode()
    for number in range(1, inside.MOST + 1):
        lines.take(frame("data", number, data=piece))
        lines.take(frame("close", number))
    lines.channels[2].waiting.clear()
    lines.channels[2].shut = True
    lines.descriptors()
    assert 2 not in lines.channels
    kept.append(connect_late(lines))
    lines.descriptors()
    assert list(lines.channels)[:2] == [3, 4]
    for line in kept:
        line.close()


async def test_who_hangs_up_is_gone_on_the_other_side():
    met = []

    async def serve(stream):
        await stream.receive()
        try:
            while True:
                await stream.send(bytes(100_000))
        except anyio.BrokenResourceError:
            met.append("broken")

    def rude(line):
        line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # a reset
        line.sendall(b"x")
        line.recv(1)
        return b""

    def after(line):
        line.sendall(b"y")
        line.recv(1)
        while not met:
            line.recv(65_536)
        return b""

    await through(serve, rude, after)
    assert met[0] == "broken"


async def nobody(_stream):
    await anyio.sleep_forever()


def data_of(count):
    return {"kind": "line", "op": "data", "id": 1, "data": base64.b64encode(bytes(count)).decode()}


FULL = [data_of(inside.PIECE)] * (inside.WINDOW // inside.PIECE)
OPEN = {"kind": "line", "op": "open", "id": 1}
BROKEN = {
    "an id twice": [OPEN, OPEN],
    "an id too far": [{**OPEN, "id": 2}],
    "no id": [{**OPEN, "id": "1"}],
    "a truth for an id": [{**OPEN, "id": True}],
    "data of a channel that never was": [data_of(1)],
    "a negative id": [{**data_of(1), "id": -1}],
    "more than the window": [OPEN, *FULL, data_of(1)],
    "a large piece": [OPEN, {**data_of(1), "data": "A" * (MOST_ENCODED + 4)}],
    "no base64": [OPEN, {**data_of(1), "data": "!"}],
    "nothing for data": [OPEN, data_of(0)],
    "data after the end": [OPEN, {**OPEN, "op": "end"}, data_of(1)],
    "more room than there is": [OPEN, {**OPEN, "op": "more", "count": 1}],
    "less than no room": [OPEN, {**OPEN, "op": "more", "count": -1}],
    "a word that is none": [OPEN, {**OPEN, "op": "shout"}],
    "too many channels": [{**OPEN, "id": n + 1} for n in range(MOST_KEPT + 1)],
}


@pytest.mark.parametrize("frames", BROKEN.values(), ids=BROKEN)
async def test_frames_that_break_the_rules_end_the_sandbox(frames):
    async def write(_frame):
        pass

    async with anyio.create_task_group() as tasks:
        lines = Lines(write, nobody, tasks)
        for frame in frames[:-1]:
            lines.take(frame)
        with pytest.raises(SandboxUnavailable):
            lines.take(frames[-1])
        tasks.cancel_scope.cancel()


async def test_the_window_is_open_again_once_bytes_were_taken():
    said = []

    async def write(frame):
        said.append(frame)

    async with anyio.create_task_group() as tasks:
        line = Line(1, write)
        for frame in FULL:
            assert line.heard("data", frame)
        assert not line.heard("data", data_of(1))
        taken = 0
        while taken < inside.WINDOW:
            taken += len(await line.receive())
        assert sum(frame["count"] for frame in said if frame["op"] == "more") == inside.WINDOW
        assert line.heard("data", data_of(1))
        tasks.cancel_scope.cancel()


async def test_half_a_frame_is_the_last_one(monkeypatch):
    monkeypatch.setattr("symbi.adapters.docker.lines.STALLED_S", 0.05)
    begun = []

    async def write(frame):
        begun.append(frame)
        await anyio.sleep_forever()

    async def serve(stream):
        with pytest.raises(anyio.BrokenResourceError):
            await stream.send(b"x")
        with pytest.raises(anyio.BrokenResourceError):
            await stream.send(b"y")

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            Lines(write, serve, tasks).take(OPEN)
    assert len(begun) == 1


@given(st.binary(max_size=200) | st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=8), st.lists, max_leaves=4)
       .map(lambda value: json.dumps({"kind": "line", "op": value, "id": value}).encode()))  # fmt: skip
def test_whatever_comes_is_a_line_or_none(data):
    frame = line_frame(data)
    assert frame is None or frame["kind"] == "line"
    assert line_frame(b'{"kind": "ended"}') is None
    assert line_frame(json.dumps(FULL[0]).encode()) is not None
