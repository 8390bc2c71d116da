"""A container tier under attack: each attack has a sandbox of its own, and afterwards nothing of it may be left."""

import os
import resource
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from symbi.adapters.docker import LABEL_INSTANCE, DockerOptions, DockerSandbox, Engine
from symbi.adapters.docker.container import container_spec
from symbi.errors import SymbiError
from symbi.guard.action import RunContainer
from symbi.guard.permit import Authority
from symbi.sandbox.port import SandboxResult
from symbi.testing.clock import ManualClock
from symbi.testing.contracts import SandboxUnderTest
from symbi.types import AgentId, EffectId, Principal, SecurityTier

RUNTIMES = {SecurityTier.TIER1: "runc", SecurityTier.TIER2: "runsc"}
CONTROL_GROUPS = ("*/docker/{id}", "docker/{id}", "system.slice/docker-{id}.scope")
MOST_GROWTH_KIB = 65_536  # what an attack may make of our own process: bounded buffers, not what it sends
WAIT_S = 30.0


class Witness(Engine):
    """An engine whose containers are looked at from the host, the last time before they are removed."""

    def __init__(self, host):
        super().__init__(host)
        self.ids = {}  # name: id
        self.began_s = {}
        self.took_s = 0.0
        self.inspected = {}
        self.seen = {}

    async def create(self, name, spec, timeout_s):
        self.ids[name] = await super().create(name, spec, timeout_s)
        return self.ids[name]

    async def start(self, container, timeout_s):
        await super().start(container, timeout_s)
        self.began_s[container] = time.monotonic()

    async def remove(self, container, timeout_s=30.0):
        self.took_s = time.monotonic() - self.began_s.get(container, time.monotonic())
        self.inspected = await self.inspect(container) or {}
        self.seen = control_files(self.ids.get(container, "none"))
        await super().remove(container, timeout_s)


def control_files(container_id):
    """What the host's kernel counts of a container, by file name."""
    found = {}
    for pattern in CONTROL_GROUPS:
        for folder in Path("/sys/fs/cgroup").glob(pattern.format(id=container_id)):
            for file in folder.iterdir():
                if file.is_file():
                    with suppress(OSError):
                        found[file.name] = file.read_text().strip()
    return found


def processes_of(container_ids):
    """Processes of the host that belong to containers, by control group or command line."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            with suppress(OSError):
                about = (folder / "cgroup").read_text() + (folder / "cmdline").read_text(errors="replace")
                if any(one in about for one in container_ids):
                    found.append(folder.name)
    return found


def left_of(container_ids):
    """Processes and control groups of containers."""
    return processes_of(container_ids) + [one for one in container_ids if control_files(one)]


def mounts_of(folder):
    return sorted(line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines() if str(folder) in line)


@dataclass(frozen=True)
class Target:
    """A tier that is attacked."""

    docker: object
    engine: Witness
    options: DockerOptions
    tier: SecurityTier

    @property
    def gvisor(self):
        return self.tier is SecurityTier.TIER2

    async def attack(self, code, inputs=None, *, timeout_s=20.0, memory_mib=64, **options):
        """The result of code, or the error that it ended in."""
        authority = Authority(ManualClock())
        chosen = replace(self.options, **options)
        async with DockerSandbox(authority, self.tier, self.engine, chosen) as driver:
            sandbox = SandboxUnderTest(driver, authority)
            try:
                with anyio.fail_after(timeout_s + WAIT_S):
                    return await sandbox.run(code, inputs, timeout_s=timeout_s, memory_mib=memory_mib)
            except SymbiError as error:
                return error

    async def value(self, code, inputs=None, **how):
        """The value of code that has to end well."""
        ended = await self.attack(code, inputs, **how)
        assert isinstance(ended, SandboxResult), repr(ended)
        return ended.value

    async def fails(self, error, code, inputs=None, **how):
        """Code has to end in this class of error."""
        ended = await self.attack(code, inputs, **how)
        assert type(ended) is error, repr(ended)
        return ended

    async def program(self, *command, timeout_s=20.0, memory_mib=64, image=None, options=None, **asked):
        """The result of a program, or the error that it ended in, and what was noted of it."""
        authority = Authority(ManualClock())
        image = image or self.docker.image
        chosen = replace(self.options, images=frozenset({image, self.docker.image}), **options or {})
        action = RunContainer(
            principal=Principal(AgentId("attacker")), image=image, command=command, tier=self.tier,
            timeout_s=timeout_s, memory_mib=memory_mib, **asked,
        )  # fmt: skip
        permit = authority.mint(EffectId("attack"), action)
        async with DockerSandbox(authority, self.tier, self.engine, chosen) as driver:
            try:
                with anyio.fail_after(timeout_s + WAIT_S):
                    return await driver.run_command(permit), permit.noted
            except SymbiError as error:
                return error, permit.noted

    async def plain(self, command, change):
        """What a command prints in a container of ours that was changed: for what our own driver would refuse."""
        spec = container_spec(self.options, self.tier, command, {}, memory_mib=64)
        change(spec)
        said = b""
        try:
            await self.engine.create("symbi-plain", spec, WAIT_S)
            async with self.engine.attach("symbi-plain", WAIT_S) as stream:
                await self.engine.start("symbi-plain", WAIT_S)
                with anyio.fail_after(WAIT_S):
                    while piece := await stream.receive(4096):
                        said += piece
        finally:
            await self.engine.remove("symbi-plain")
        return said


@pytest.fixture(params=RUNTIMES, ids=RUNTIMES.get)
async def unwatched(request, docker):
    """A tier of which nothing is asked afterwards."""
    options = DockerOptions(image=docker.image, runtime=RUNTIMES[request.param], instance="attacks")
    async with Witness(docker.host) as engine:
        yield Target(docker, engine, options, request.param)


@pytest.fixture(params=RUNTIMES, ids=RUNTIMES.get)
async def target(request, docker):
    """A tier; after the test the host and the runtime are as before, and the tier works."""
    options = DockerOptions(image=docker.image, runtime=RUNTIMES[request.param], instance="attacks")
    async with Witness(docker.host) as engine:
        with anyio.move_on_after(WAIT_S):  # what a test before this one has left is on its way out
            while await engine.containers(LABEL_INSTANCE):
                await anyio.lowlevel.checkpoint()
        mounts = mounts_of(docker.folder)
        attacked = Target(docker, engine, options, request.param)
        before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        yield attacked
        grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib
        assert await attacked.value("20 + 22") == 42
        assert await engine.containers("symbi.instance=attacks") == []
        assert engine.ids
        with anyio.move_on_after(WAIT_S):  # what looked after a container goes in its own time, which is soon
            while left_of(engine.ids.values()) or mounts_of(docker.folder) != mounts:
                await anyio.lowlevel.checkpoint()
        assert left_of(engine.ids.values()) == []
        assert mounts_of(docker.folder) == mounts
        assert grown_kib < MOST_GROWTH_KIB
