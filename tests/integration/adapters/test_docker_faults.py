"""The container driver on an engine that is not there, is another program, hangs, refuses, dies, or lies; and on hostile answers."""

import json
import os
from contextlib import asynccontextmanager
from dataclasses import replace

import anyio
import pytest
from tests.integration.adapters.lines import listening

from symbi.adapters.docker import DockerOptions, DockerSandbox, Engine, sandbox
from symbi.adapters.docker.probe import judge
from symbi.errors import (
    CodeFailed,
    ConfigError,
    MemoryLimit,
    OutputLimit,
    Overloaded,
    SandboxUnavailable,
    StepLimit,
    TimeLimit,
)
from symbi.guard.action import RunContainer
from symbi.guard.permit import Authority
from symbi.testing.clock import ManualClock
from symbi.testing.contracts import SandboxUnderTest
from symbi.types import AgentId, EffectId, Principal, SecurityTier

pytestmark = pytest.mark.anyio

MIB = 1_048_576
OPTIONS = DockerOptions(image="sha256:" + 64 * "0", runtime="runc", instance="test", start_timeout_s=5.0)
SEEN = {
    "uid": [65534] * 3, "gid": [65534] * 3, "groups": [65534], "pid": 1, "python": "3.12.1",
    "kernel": ["6.1.0", "#1 SMP"], "kernel_log": "",
    "status": dict.fromkeys(("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"), "0000000000000000")
    | {"NoNewPrivs": "1", "Seccomp": "2"},
    "mounts": [["/", "overlay", "ro,relatime"], ["/tmp", "tmpfs", "rw,nosuid,nodev,noexec,size=16384k"]],
    "limits": {"NOFILE": [256, 256], "FSIZE": [16 * MIB] * 2, "CORE": [0, 0]},
    "interfaces": ["lo"], "outside": "ENETUNREACH", "writable": ["/tmp"], "devices": ["null", "zero"],
    "pids_max": "64", "memory_max": str((64 + 16 + 32) * MIB), "swap_max": str((64 + 16 + 32) * MIB),
}  # fmt: skip
HANG = object()
VALUE = {"kind": "told", "told": json.dumps({"kind": "value", "value": 3}), "stdout": "hi\n"}


def http(payload, status="200 OK"):
    body = json.dumps(payload).encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"
UPGRADED = b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"


class FakeEngine:
    """Answers as an engine with one honest container would, unless `replies` says otherwise for a part of a path."""

    def __init__(self, path):
        self.path = path
        self.replies = {}
        self.seen = SEEN
        self.answer = VALUE
        self.containers = set()
        self.asked = []
        self.held = anyio.Event()

    @asynccontextmanager
    async def serving(self):
        async with listening(self.path, self._serve):
            yield self

    async def _serve(self, line):
        async with line:
            try:
                while True:
                    await self._one(line)
            except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
                return

    async def _one(self, line):
        head = b""
        while b"\r\n\r\n" not in head:
            head += await line.receive()
        head, _, body = head.partition(b"\r\n\r\n")
        words = head.decode().split("\r\n")[0].split()
        length = next(
            (int(one[15:]) for one in head.decode().lower().split("\r\n") if one.startswith("content-length:")), 0
        )
        while len(body) < length:
            body += await line.receive()
        asked = f"{words[0]} {words[1]}"
        self.asked.append(asked)
        for part, reply in self.replies.items():
            if part in asked:
                if reply is HANG:
                    self.held.set()
                    await anyio.sleep_forever()
                if callable(reply):
                    await reply(line)
                else:
                    await line.send(reply)
                    if not reply.startswith(b"HTTP/1.1"):
                        await line.aclose()
                return
        await self._honest(line, words, asked)

    async def _honest(self, line, words, asked):
        if "/version" in asked:
            await line.send(http({"Version": "20.10", "ApiVersion": "1.41", "MinAPIVersion": "1.12"}))
        elif "/info" in asked:
            await line.send(http({"Runtimes": {"runc": {}, "runsc": {}}}))
        elif "/create" in asked:
            self.containers.add(words[1].partition("name=")[2])
            await line.send(http({"Id": "c0"}, "201 Created"))
        elif "/start" in asked:
            await line.send(NO_CONTENT)
        elif words[0] == "DELETE":
            self.containers.discard(words[1].rpartition("/")[2].partition("?")[0])
            await line.send(NO_CONTENT)
        elif "/attach" in asked:
            await self._attach(line)
        else:
            await line.send(http({"State": {"ExitCode": 1, "OOMKilled": False}}))

    async def _attach(self, line):
        await line.send(UPGRADED)
        buffer = bytearray()

        async def frame():
            while len(buffer) < 8 or len(buffer) < 8 + int(bytes(buffer[:8]), 16):
                buffer.extend(await line.receive())
            length = int(bytes(buffer[:8]), 16)
            data = json.loads(bytes(buffer[8 : 8 + length]))
            del buffer[: 8 + length]
            return data

        self.nonce = (await frame())["nonce"]
        await line.send(self.framed(self.seen))
        self.request = await frame()
        if self.answer is HANG:
            self.held.set()
            await anyio.sleep_forever()
        if self.answer is not None:
            await line.send(self.answer if isinstance(self.answer, bytes) else self.framed(self.answer))
        await line.aclose()

    def framed(self, what, nonce=None):
        data = what if isinstance(what, bytes) else json.dumps(what).encode()
        return mux((nonce or self.nonce).encode() + b"%08x" % len(data) + data)


def mux(data, stream=1):
    return bytes([stream, 0, 0, 0]) + len(data).to_bytes(4, "big") + data


@pytest.fixture
async def fake(tmp_path):
    async with FakeEngine(str(tmp_path / "d.sock")).serving() as engine:
        yield engine


@asynccontextmanager
async def driver(host, tier=SecurityTier.TIER1, **changes):
    authority = Authority(ManualClock())
    async with Engine(host) as engine, DockerSandbox(authority, tier, engine, replace(OPTIONS, **changes)) as made:
        yield SandboxUnderTest(made, authority)


async def fails(host, error=SandboxUnavailable, code=None, **changes):
    with anyio.fail_after(30):
        async with driver(host, **changes) as under_test:
            with pytest.raises(error) as caught:
                await under_test.run("1 + 2", timeout_s=1.0)
    assert code is None or caught.value.code == code
    return caught.value


async def test_an_honest_engine_runs_code_and_keeps_nothing(fake):
    async with driver(f"unix://{fake.path}") as under_test:
        action = under_test.action("1 + 2", {"x": [1]})
        permit = under_test.authority.mint(EffectId("e"), action)
        result = await under_test.driver.run(permit)
    assert (result.value, result.stdout) == (3, "hi\n")
    assert fake.request["inputs"] == {"x": [1]}
    assert permit.noted["sandbox"]["seccomp"] == "2"
    assert permit.noted["sandbox"]["capabilities"] == "0" * 16
    assert fake.containers == set()


# ----------------------------------------------------------------------------------- an engine that is not there


async def test_no_engine_is_said_with_what_to_install(tmp_path):
    error = await fails(f"unix://{tmp_path}/none.sock", code="unavailable.engine")
    assert "none.sock" in error.message
    assert "docker.io" in error.hint


async def test_a_socket_that_nobody_listens_on_is_said(tmp_path):
    await fails(f"unix://{tmp_path}", code="unavailable.engine")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give itself another user")
async def test_no_permission_is_said_with_the_group_to_be_in(fake):
    os.chmod(fake.path, 0o600)  # noqa: PTH101 - one line, and at once
    os.seteuid(65534)
    try:
        error = await fails(f"unix://{fake.path}", code="unavailable.engine")
    finally:
        os.seteuid(0)
    assert "group `docker`" in error.hint


@pytest.mark.parametrize(
    "reply",
    [b"SSH-2.0-OpenSSH_9.2\r\n", b"", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n[1]", http({"x": 1}), b"\xff" * 64,
     b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n" + b" " * 9_000_000, http({}, "500 Internal Server Error")],
    ids=["ssh", "nothing", "list", "another", "bytes", "endless", "error"],
)  # fmt: skip
async def test_what_is_no_engine_is_not_taken_for_one(fake, reply):
    fake.replies = {"/version": reply}
    await fails(f"unix://{fake.path}", code="unavailable.engine")


@pytest.mark.parametrize("host", ["ssh://h", "npipe:////./pipe/x", "", "unix://", "/var/run/docker.sock"])
def test_an_address_that_is_not_spoken_is_refused_at_once(host):
    with pytest.raises(ConfigError):
        Engine(host)


async def test_an_image_or_a_runtime_that_is_not_there_is_said(fake):
    fake.replies = {"/images/": http({"message": "No such image"}, "404 Not Found")}
    error = await fails(f"unix://{fake.path}", code="unavailable.image")
    assert "symbi sandbox image" in error.hint
    error = await fails(f"unix://{fake.path}", code="unavailable.runtime", runtime="kata")
    assert "`kata`" in error.message
    assert not any("create" in asked for asked in fake.asked)


async def test_a_program_is_what_the_authority_says_whatever_its_permit_was_made_to_say(fake):
    authority = Authority(ManualClock())
    other = "sha256:" + 64 * "7"
    options = replace(OPTIONS, images=frozenset({OPTIONS.image, other}))
    action = RunContainer(
        principal=Principal(AgentId("a")), image=OPTIONS.image, command=("p",), tier=SecurityTier.TIER1
    )
    permit = authority.mint(EffectId("e"), action)
    permit._action = replace(action, image=other, command=("q",))
    async with Engine(f"unix://{fake.path}") as engine:
        with pytest.raises(SandboxUnavailable):  # this engine's container knows code alone
            await DockerSandbox(authority, SecurityTier.TIER1, engine, options).run_command(permit)
    assert fake.request["argv"] == ["p"]
    assert any(OPTIONS.image in asked for asked in fake.asked)
    assert not any(other in asked for asked in fake.asked)


async def test_an_engine_that_comes_later_is_found(tmp_path):
    path = str(tmp_path / "d.sock")
    async with driver(f"unix://{path}") as under_test:
        with pytest.raises(SandboxUnavailable):
            await under_test.run("1 + 2")
        async with FakeEngine(path).serving():
            assert (await under_test.run("1 + 2")).value == 3


# ------------------------------------------------------------------------ an engine that hangs, refuses or dies


@pytest.mark.parametrize("part", ["/version", "/info", "/images/", "/create", "/attach", "/start"])
async def test_an_engine_that_hangs_is_given_up_in_time(fake, part, monkeypatch):
    monkeypatch.setattr("symbi.adapters.docker.engine.QUESTION_TIMEOUT_S", 0.2)
    fake.replies = {part: HANG}
    error = await fails(f"unix://{fake.path}", start_timeout_s=0.2)
    assert error.code in {"unavailable.engine", "unavailable.sandbox_start"}
    assert fake.containers == set()


@pytest.mark.parametrize("part", ["/create", "/attach", "/start"])
async def test_what_the_engine_refuses_is_said_in_its_words_and_leaves_nothing(fake, part):
    fake.replies = {part: http({"message": "no space left on device"}, "500 Internal Server Error")}
    error = await fails(f"unix://{fake.path}")
    assert error.code == "unavailable.engine"
    assert fake.containers == set()


async def test_an_engine_that_hangs_at_the_removal_costs_a_bound_and_no_value(fake, monkeypatch, caplog):
    monkeypatch.setattr("symbi.adapters.docker.cell.REMOVE_TIMEOUT_S", 0.2)
    fake.replies = {"DELETE": HANG}
    async with driver(f"unix://{fake.path}") as under_test:
        with anyio.fail_after(20):
            assert (await under_test.run("1 + 2")).value == 3
    assert "could not be removed" in caplog.text


async def test_a_container_that_was_dying_while_it_was_removed_is_removed_again(fake, caplog):
    async def late(line):
        del fake.replies["DELETE"]
        await line.send(http({"message": "Could not kill running container"}, "500 Internal Server Error"))

    fake.replies = {"DELETE": late}
    async with driver(f"unix://{fake.path}") as under_test:
        assert (await under_test.run("1 + 2")).value == 3
    assert (fake.replies, fake.containers, caplog.text) == ({}, set(), "")


async def test_a_container_that_never_says_what_it_is_like_is_given_up_and_removed(fake):
    async def silent(line):
        await line.send(UPGRADED)
        await anyio.sleep_forever()

    fake.replies = {"/attach": silent}
    await fails(f"unix://{fake.path}", code="unavailable.sandbox_start", start_timeout_s=0.3)
    assert fake.containers == set()


async def test_a_container_that_dies_is_said_with_its_last_words(fake):
    async def dies(line):
        await line.send(UPGRADED + mux(b"python3: not found\n", stream=2))
        await line.aclose()

    fake.replies = {"/attach": dies}
    error = await fails(f"unix://{fake.path}", code="unavailable.sandbox_died")
    assert "python3: not found" in error.message
    fake.replies["/json"] = http({"State": {"OOMKilled": True}})
    await fails(f"unix://{fake.path}", MemoryLimit)
    assert fake.containers == set()


async def test_an_answer_that_does_not_come_is_the_end_of_time_and_of_the_container(fake, monkeypatch):
    monkeypatch.setattr(sandbox, "GRACE_S", 0.1)
    fake.answer = HANG
    await fails(f"unix://{fake.path}", TimeLimit)
    assert fake.containers == set()


@pytest.mark.parametrize("part", ["/create", "/attach", "/start", None])
async def test_a_cancelled_run_leaves_no_container(fake, part, monkeypatch):
    if part is None:
        fake.answer = HANG
    else:
        fake.replies = {part: HANG}
    async with driver(f"unix://{fake.path}") as under_test, anyio.create_task_group() as tasks:
        tasks.start_soon(under_test.run, "1 + 2")
        with anyio.fail_after(20):
            await fake.held.wait()
        tasks.cancel_scope.cancel()
    assert fake.containers == set()
    assert fake.asked[-1].startswith("DELETE")


async def test_more_work_than_there_are_places_waits_in_bounds(fake, monkeypatch):
    monkeypatch.setattr(sandbox, "WAIT_TIMEOUT_S", 0.1)
    fake.answer = HANG
    async with driver(f"unix://{fake.path}", at_once=1) as under_test, anyio.create_task_group() as tasks:
        tasks.start_soon(under_test.run, "1 + 2")
        await fake.held.wait()
        with pytest.raises(Overloaded):
            await under_test.run("1 + 2")
        tasks.cancel_scope.cancel()


# ---------------------------------------------------------------------------------------------- hostile answers


def told(**what):
    return VALUE | {"told": json.dumps(what)}


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (None, SandboxUnavailable),
        (b"garbage", SandboxUnavailable),
        (mux(b"\0" * 200), SandboxUnavailable),
        (mux(b"x", stream=9), SandboxUnavailable),
        ({"kind": "nothing"}, SandboxUnavailable),
        ({"kind": "told", "told": 3, "stdout": ""}, SandboxUnavailable),
        (VALUE | {"stdout": 7}, SandboxUnavailable),
        (VALUE | {"told": "[" * 100_000}, CodeFailed),
        (VALUE | {"told": "["}, SandboxUnavailable),
        (VALUE | {"told": "[]"}, SandboxUnavailable),
        (VALUE | {"told": '{"kind": "value", "value": NaN}'}, CodeFailed),
        (VALUE | {"told": '{"kind": "value", "value": [' + "[]," * 1_000_000 + "1]}"}, OutputLimit),
        (told(kind="value", value=2**60), CodeFailed),
        (told(kind="value", value="x" * 2_000_000), OutputLimit),
        (told(kind="memory", place=["a", 1]), MemoryLimit),
        (told(kind="depth"), StepLimit),
        (told(kind="large", message=["no text"]), OutputLimit),
        (told(kind="raised", exception=1, message="\x1b[2J`x`" * 1000, place=[-1, 2**70]), CodeFailed),
        (told(kind="anything"), CodeFailed),
        ({"kind": "died", "status": "?", "oom": None}, CodeFailed),
        ({"kind": "died", "status": 9, "oom": 1}, MemoryLimit),
        ({"kind": "printed"}, OutputLimit),
        ({"kind": "time"}, TimeLimit),
    ],
    ids=range(23),
)
async def test_an_answer_is_a_value_or_an_error_of_its_own_and_never_a_defect_of_ours(fake, answer, error):
    fake.answer = answer
    raised = await fails(f"unix://{fake.path}", error)
    assert len(str(raised)) < 2000
    assert raised.message.isprintable()
    assert fake.containers == set()


async def test_a_frame_of_another_run_is_no_answer(fake):
    async def forged(line):
        fake.nonce = "0" * 32
        await line.send(UPGRADED + fake.framed(SEEN))
        await anyio.sleep_forever()

    fake.replies = {"/attach": forged}
    await fails(f"unix://{fake.path}", code="unavailable.sandbox_answer")


async def test_a_frame_that_is_longer_than_may_be_is_not_read(fake):
    async def long(line):
        await line.send(UPGRADED)
        hello = b""
        while b"}" not in hello:
            hello += await line.receive()
        nonce = json.loads(hello[8:])["nonce"]
        await line.send(mux(nonce.encode() + b"ffffffff"))
        await anyio.sleep_forever()

    fake.replies = {"/attach": long}
    await fails(f"unix://{fake.path}", code="unavailable.sandbox_answer")


# -------------------------------------------------------------------------------------- what a tier has promised

BROKEN = {
    "uid": [0] * 3,
    "gid": [65534, 0, 65534],
    "groups": [0, 65534],
    "status": SEEN["status"] | {"CapEff": "00000000a80425fb"},
    "interfaces": ["lo", "eth0"],
    "outside": "",
    "writable": ["/", "/tmp"],
    "devices": ["null", "sda"],
    "mounts": [["/", "overlay", "rw"]],
    "limits": SEEN["limits"] | {"NOFILE": [1_048_576, 1_048_576]},
    "pids_max": "max",
    "memory_max": "9223372036854771712",
    "swap_max": "max",
}
FURTHER = [
    ("status", SEEN["status"] | {"Seccomp": "0"}),
    ("status", SEEN["status"] | {"NoNewPrivs": "0"}),
    ("status", SEEN["status"] | {"CapBnd": "0000000000000001"}),
    ("status", {}),
    ("outside", "ETIMEDOUT"),
    ("outside", None),
    ("mounts", [["/tmp", "tmpfs", "rw,nosuid,nodev"]]),
    ("mounts", [["/run/docker.sock", "tmpfs", "ro"]]),
    ("limits", {}),
    ("uid", "root"),
]


@pytest.mark.parametrize(("name", "value"), [*BROKEN.items(), *FURTHER], ids=str)
async def test_a_sandbox_that_is_not_what_its_tier_promises_gets_no_code(fake, name, value):
    fake.seen = SEEN | {name: value}
    error = await fails(f"unix://{fake.path}", code="unavailable.isolation")
    assert "promises" in error.message
    assert not hasattr(fake, "request")
    assert fake.containers == set()


async def test_runc_is_not_taken_for_gvisor_and_is_not_less_than_gvisor(fake):
    error = await fails(f"unix://{fake.path}", code="unavailable.isolation", tier=SecurityTier.TIER2)
    assert "gVisor" in error.message
    gvisor = SEEN | {
        "kernel_log": "[    0.000000] Starting gVisor...",
        "filtered": True,
        "pids_max": "",
        "memory_max": "",
        "swap_max": "",
    }
    isolation = judge(gvisor, OPTIONS, SecurityTier.TIER2, 64)
    assert (isolation.broken, isolation.facts["unseen"]) == ((), ["memory_max", "pids_max", "swap_max"])
    for unfiltered in (gvisor | {"filtered": False}, {name: gvisor[name] for name in gvisor if name != "filtered"}):
        (broken,) = judge(unfiltered, OPTIONS, SecurityTier.TIER2, 64).broken
        assert "--oci-seccomp" in broken


@pytest.mark.parametrize("name", sorted(SEEN))
@pytest.mark.parametrize("value", [None, 7, "", "x", [], {}, [[]], {"a": []}], ids=str)
def test_a_look_from_inside_may_say_anything_and_is_judged_all_the_same(name, value):
    isolation = judge(SEEN | {name: value}, OPTIONS, SecurityTier.TIER1, 64)
    assert all(isinstance(line, str) and len(line) < 400 for line in isolation.broken)
    json.dumps(isolation.facts)
