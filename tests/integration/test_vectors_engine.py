"""The engine's process where it hangs, dies, lies or is asked too much: nobody reads the answer to another's question."""

import os
import shutil
import signal
import sys
from contextlib import suppress

import anyio
import anyio.lowlevel
import psutil
import pytest

from symbi.adapters.qdrant_edge import EdgeVectors, process, program
from symbi.adapters.qdrant_edge.process import EngineProcess
from symbi.errors import InputError, StoreUnavailable
from symbi.knowledge.vectors import Scope
from symbi.testing.contracts_vectors import MINE, SPACE, YOURS, open_permits, sample_points

pytestmark = pytest.mark.anyio
BOTH = Scope((MINE, YOURS))
WAITS = """
import struct, sys
def told():
    (length,) = struct.unpack("<I", sys.stdin.buffer.read(4))
    return sys.stdin.buffer.read(length)
def answer(data, begin=0, end=None):
    out = struct.pack("<I", len(data)) + data
    sys.stdout.buffer.write(out[begin:end])
    sys.stdout.buffer.flush()
"""


@pytest.fixture
def permits():
    return open_permits()


@pytest.fixture
def scripted(tmp_path, monkeypatch):
    """An engine's process that does what a test says."""

    def write(text):
        file = tmp_path / "engine.py"
        file.write_text(WAITS + text)
        monkeypatch.setattr(process, "PROGRAM", file)

    return write


def asleep(pid):
    return psutil.Process(pid).status() == psutil.STATUS_STOPPED


async def test_the_answer_to_a_question_that_nobody_waits_for_is_read_as_no_other_ones(scripted, tmp_path):
    """The asker goes while half of the answer is there; the other half comes, and the next one gets its own."""
    go = tmp_path / "go"
    os.mkfifo(go)
    scripted(
        f"""
told(); answer(b"\\x93\\x01\\xa2ok\\x01", end=6); open({str(go)!r}).read(); answer(b"\\x93\\x01\\xa2ok\\x01", begin=6)
told(); answer(b"\\x93\\x02\\xa2ok\\x02")
told()
"""
    )
    got = []

    async def ask(engine, number):
        got.append((number, await engine.ask("count", wait_s=60)))

    async with EngineProcess() as engine, anyio.create_task_group() as tasks:
        with anyio.CancelScope() as first:
            async with anyio.create_task_group() as inner:
                inner.start_soon(ask, engine, 1)
                while engine._length is None:
                    await anyio.lowlevel.checkpoint()
                tasks.start_soon(ask, engine, 2)
                first.cancel()
                tasks.start_soon(anyio.to_thread.run_sync, go.write_text, "go")
    assert first.cancelled_caught
    assert got == [(2, 2)]


async def test_who_is_cancelled_does_not_wait_for_an_engine_that_hangs(permits, tmp_path, monkeypatch):
    monkeypatch.setattr(process, "END_S", 0.2)
    async with EdgeVectors(permits.authority, tmp_path, SPACE) as index:
        await index.upsert(permits.write(), sample_points(20))
        hung = index.engine_pid
        os.kill(hung, signal.SIGSTOP)
        with anyio.fail_after(60), anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(index.count, permits.read(), BOTH)
                while not asleep(hung) or not index._engine._turn.locked():
                    await anyio.lowlevel.checkpoint()
                scope.cancel()
        assert scope.cancelled_caught
        assert not psutil.pid_exists(hung)
        assert await index.count(permits.read(), BOTH) == 20


async def test_an_engine_that_gives_no_answer_in_time_is_ended_and_another_one_started(permits, tmp_path, monkeypatch):
    async with EdgeVectors(permits.authority, tmp_path, SPACE) as index:
        await index.upsert(permits.write(), sample_points(20))
        os.kill(index.engine_pid, signal.SIGSTOP)
        with pytest.raises(StoreUnavailable, match=r"no answer in 0\.2 s"):
            await index._engine.ask("count", [None, [], None], wait_s=0.2)
        assert await index.count(permits.read(), BOTH) == 20


@pytest.mark.parametrize(
    ("number", "hint"), [(signal.SIGBUS, "disk"), (signal.SIGKILL, "memory"), (signal.SIGTERM, None)]
)
async def test_of_what_an_engine_died_is_said(scripted, number, hint):
    scripted(f"import os; told(); os.kill(os.getpid(), {int(number)}); told()")
    async with EngineProcess() as engine:
        with pytest.raises(StoreUnavailable, match=f"ended by {number.name} while it was asked") as caught:
            await engine.ask("count")
        assert (hint is None) == (caught.value.hint is None)
        assert hint is None or hint in caught.value.hint


async def test_an_engine_that_has_fallen_silent_may_end_by_itself_so_that_it_can_be_said_of_what(
    scripted, monkeypatch, tmp_path
):
    monkeypatch.setattr(process, "DYING_S", 3600.0)
    go = tmp_path / "go"
    os.mkfifo(go)
    scripted(f"import os; told(); os.close(1); open({str(go)!r}).read(); os.kill(os.getpid(), 7)")
    async with EngineProcess() as engine, anyio.create_task_group() as tasks:

        async def ask():
            with pytest.raises(StoreUnavailable, match="ended by SIGBUS while it was asked"):
                await engine.ask("count")

        tasks.start_soon(ask)
        while engine.alive:  # until the end of its answers was seen
            await anyio.lowlevel.checkpoint()
        go.write_text("on")


async def test_an_answer_that_is_given_twice_is_nobody_elses(scripted):
    scripted(r"""told(); answer(b"\x93\x01\xa2ok\x01"); answer(b"\x93\x01\xa2ok\x01"); told(); told()""")
    async with EngineProcess() as engine:
        assert await engine.ask("count") == 1
        with pytest.raises(StoreUnavailable, match="no answer that is one"):
            await engine.ask("count")
        assert not engine.alive


async def test_an_engine_is_not_ended_before_its_owner_is_done(permits, tmp_path):
    """As where all processes of a service are told to end."""
    async with EdgeVectors(permits.authority, tmp_path, SPACE) as index:
        before = index.engine_pid
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
            os.kill(before, number)
            await index.upsert(permits.write(), sample_points(20))
        assert await index.count(permits.read(), BOTH) == 20
        assert index.engine_pid == before
    assert not psutil.pid_exists(before)


@pytest.mark.parametrize(
    "answer", [r"\xc1", r"\x92\x01\xa2ok", r"\xd9\xff", r"\x93\x01\x02\x03", r"", r"\x93\x07\xa2ok\x01"]
)
async def test_an_answer_that_is_none_is_no_answer(scripted, answer):
    scripted(f'told(); answer(b"{answer}"); told()')
    async with EngineProcess() as engine:
        with pytest.raises(StoreUnavailable):
            await engine.ask("count")


async def test_an_answer_without_end_is_not_read(scripted):
    scripted('told(); sys.stdout.buffer.write(b"\\xff" * 100_000); sys.stdout.buffer.flush(); told()')
    async with EngineProcess() as engine:
        with pytest.raises(StoreUnavailable):
            await engine.ask("count")
        assert not engine.alive


async def test_a_question_has_a_bound_and_an_answer_too(permits, tmp_path, monkeypatch):
    monkeypatch.setattr(process, "MAX_FRAME", 100_000)
    async with EdgeVectors(permits.authority, tmp_path, SPACE) as index:
        before = index.engine_pid
        with pytest.raises(InputError, match="too much"):
            await index._engine.ask("count", "x" * 100_000)
        assert await index.count(permits.read(), BOTH) == 0
        assert index.engine_pid == before
    monkeypatch.setattr(program, "MAX_FRAME", 1_000)
    assert b"error" not in program.frame([1, "ok", "x" * 900])
    assert b"error" in program.frame([1, "ok", "x" * 1_000])
    assert len(program.frame([1, "ok", "x" * 1_000])) < 1_000


async def test_the_engine_knows_no_key_of_the_environment(permits, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary")
    async with EdgeVectors(permits.authority, tmp_path, SPACE) as index:
        assert "OPENAI_API_KEY" not in psutil.Process(index.engine_pid).environ()


async def test_the_engine_of_an_owner_that_was_killed_is_waited_for(permits, tmp_path, monkeypatch):
    """Its owner's lock is gone a moment before it is."""
    async with EdgeVectors(permits.authority, tmp_path / "a", SPACE) as index:
        await index.upsert(permits.write(), sample_points(20))
        terms = index._terms()
    paused = []
    async with EngineProcess() as left:
        await left.load(tmp_path / "a" / "g-000001", terms)

        async def pause(_seconds):
            paused.append(1)
            await left.end()

        monkeypatch.setattr(process.anyio, "sleep", pause)
        async with EdgeVectors(permits.authority, tmp_path / "a", SPACE) as index:
            assert await index.count(permits.read(), BOTH) == 20
        assert paused == [1]


async def test_an_engine_that_keeps_the_shard_is_not_waited_for_without_end(permits, tmp_path, monkeypatch):
    async with EdgeVectors(permits.authority, tmp_path / "a", SPACE) as index:
        terms = index._terms()
    monkeypatch.setattr(process, "TRIES", 2)
    async with EngineProcess() as left:
        await left.load(tmp_path / "a" / "g-000001", terms)
        with pytest.raises(StoreUnavailable, match="WouldBlock"):
            await EdgeVectors(permits.authority, tmp_path / "a", SPACE).__aenter__()


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="a small disk is mounted")
async def test_a_disk_without_room_loses_nothing_that_was_acknowledged(permits, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = await anyio.run_process(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(disk)], check=False)
    if mounted.returncode:
        pytest.skip("nothing can be mounted here")
    try:
        acknowledged = 0
        async with EdgeVectors(permits.authority, disk / "a", SPACE) as index:
            await index.upsert(permits.write(), sample_points(20))
            acknowledged = 20
            with (disk / "filling").open("wb", buffering=0) as file, suppress(OSError):
                while True:
                    file.write(bytes(4096))
            with pytest.raises(StoreUnavailable):
                for seed in range(2, 10_000):
                    await index.upsert(permits.write(), sample_points(200, seed))
                    acknowledged += 200
        (disk / "filling").unlink()
        await anyio.run_process(["mount", "-o", "remount,size=100m", str(disk)])
        async with EdgeVectors(permits.authority, disk / "a", SPACE) as index:
            assert await index.count(permits.read(), BOTH) >= acknowledged
            await index.upsert(permits.write(), sample_points(5, 20_000))
    finally:
        await anyio.run_process(["umount", str(disk)])
        shutil.rmtree(disk, ignore_errors=True)
