"""What a container uses counts for the run whose code is in it, on runc and on gVisor; and what an agent claims is what its code has."""

import json
from contextlib import asynccontextmanager
from functools import partial

import anyio
import anyio.lowlevel
import pytest

from symbi.adapters.docker import DockerOptions, DockerSandbox, Engine
from symbi.adapters.docker.usage import ContainerUse
from symbi.adapters.sqlite import SqliteReader
from symbi.audit.event import AuditEventType, parse_event
from symbi.errors import MemoryLimit, TimeLimit
from symbi.guard.permit import Authority
from symbi.runtime.workers import Workers
from symbi.testing.clock import ManualClock
from symbi.testing.contracts import SandboxUnderTest
from symbi.testing.runtime import open_in
from symbi.types import AgentId, EffectId, SecurityTier

pytestmark = [pytest.mark.servers, pytest.mark.anyio]

RUNTIMES = {SecurityTier.TIER1: "runc", SecurityTier.TIER2: "runsc"}
MIB = 1 << 20
TRIES = 10
WORK = "s = 0\nfor i in range({millions} * 1000000): s += i\n"  # clocks in gVisor count otherwise than the host does
HOLD = "held = bytearray({mib} << 20)\nfor at in range(0, len(held), 4096): held[at] = 1\n"
PERMIT = "permit (principal, action, resource);"


@pytest.fixture(params=RUNTIMES)
def tier(request):
    return request.param


class LookedAt(Workers):
    """Lets a test wait until the code of a run has used so much."""

    async def has_used(self, cpu_ns):
        while True:
            await anyio.lowlevel.checkpoint()
            for opened in self._open.values():
                used = await opened.ask()
                if used is not None and used.cpu_ns - opened.told_ns > cpu_ns:
                    return


@asynccontextmanager
async def measured(docker, tier, *, warm=0, workers=None):
    """A driver whose containers are measured, and what was told of each run."""
    workers, heard = workers or Workers(), []
    workers.tell = lambda _run_id, cpu_ns, memory_bytes: heard.append((cpu_ns, memory_bytes))
    authority = Authority(ManualClock())
    options = DockerOptions(image=docker.image, runtime=RUNTIMES[tier], instance="use", warm=warm)
    async with Engine(docker.host) as engine, DockerSandbox(authority, tier, engine, options, watch=workers) as made:
        yield SandboxUnderTest(made, authority), heard, engine


async def test_processor_time_and_peak_of_the_code_are_told(docker, tier):
    async with measured(docker, tier) as (under_test, heard, _):
        await under_test.run(WORK.format(millions=4))
        await under_test.run(WORK.format(millions=16))
        await under_test.run(HOLD.format(mib=48))
    (some_ns, first), (more_ns, second), (_, large) = heard
    small = min(first, second)  # what a tier takes for itself varies, and only ever adds
    assert 2.5 < more_ns / some_ns < 6, "four times the work, on the host's count"
    assert 44 * MIB < large - small < 64 * MIB


async def test_the_start_of_a_container_is_not_the_code_s(docker, tier, monkeypatch):
    """A run that does next to nothing uses a fraction of what its container took to start, ready or not."""
    whole = []
    find = ContainerUse.find

    async def found(self, name):
        await find(self, name)
        whole.append(self.read(name).cpu_ns)

    monkeypatch.setattr(ContainerUse, "find", found)
    for warm in (0, 1):
        async with measured(docker, tier, warm=warm) as (under_test, heard, _):
            with anyio.fail_after(60):
                await under_test.driver.filled()
            await under_test.run("1")
            assert heard[0][0] < whole.pop() / 2


@pytest.mark.parametrize(
    ("code", "timeout_s", "error"),
    [("while True: pass", 2.5, TimeLimit), (HOLD.format(mib=900), 60.0, MemoryLimit)],
)
async def test_code_that_is_ended_counts_all_the_same(docker, tier, code, timeout_s, error):
    async with measured(docker, tier) as (under_test, heard, _):
        with pytest.raises(error):
            await under_test.run(WORK.format(millions=2) + code, timeout_s=timeout_s)
    if tier is SecurityTier.TIER1 or error is TimeLimit:  # gVisor ends with its memory, and its control group with it
        assert sum(cpu for cpu, _ in heard) > 0.05e9


async def test_a_cancelled_run_counts_until_then(docker, tier):
    workers = LookedAt()
    async with measured(docker, tier, workers=workers) as (under_test, heard, _):
        await under_test.run("1")
        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(partial(under_test.run, "while True: pass", timeout_s=120))
                await workers.has_used(4 * heard[0][0])
                tasks.cancel_scope.cancel()
    assert heard[1][0] > 3 * heard[0][0]


async def test_a_claim_of_cores_is_what_the_code_has(docker, tier):
    code = "import os\nfor _ in range(2):\n    if os.fork() == 0:\n        while True: pass\nwhile True: pass"
    async with measured(docker, tier) as (under_test, heard, _):

        async def used(cpu_milli):
            permit = under_test.authority.mint(
                EffectId("e"), under_test.action(code, timeout_s=2.0, cpu_milli=cpu_milli)
            )
            with pytest.raises(TimeLimit):
                await under_test.driver.run(permit)
            return heard.pop()[0]

        a_tenth = await used(100)
        assert a_tenth < 0.35e9, "a tenth of a core for two seconds, and some periods' worth"
        whole = [await used(1000)]
        while whole[-1] <= 1.5 * a_tenth and len(whole) < TRIES:  # what may be had is not always there
            whole.append(await used(1000))
    assert max(whole) > 1.5 * a_tenth


async def test_containers_that_are_ready_are_of_the_claim_that_was_asked_for_last(docker):
    async with measured(docker, SecurityTier.TIER1, warm=1) as (under_test, _, engine):

        async def is_ready(nano_cpus):
            while True:
                await anyio.lowlevel.checkpoint()
                found = [await engine.inspect(id_) for id_ in tuple(engine.made.values()) if id_]
                if [one and (one["State"]["Running"], one["HostConfig"]["NanoCpus"]) for one in found] == [
                    (True, nano_cpus)
                ]:
                    return await under_test.driver.filled()

        async def run(cpu_milli):
            permit = under_test.authority.mint(EffectId("e"), under_test.action("1", cpu_milli=cpu_milli))
            await under_test.driver.run(permit)
            return permit.noted["sandbox"]["warm"]

        with anyio.fail_after(60):
            await is_ready(1_000_000_000)
            assert await run(250) is False
            await is_ready(250_000_000)
            assert await run(5_000) is False
            await is_ready(1_000_000_000)  # more than any may have is as much as any may have
            assert await run(1_000) is True


def config(docker, more=""):
    return (
        "[limits]\nsteps = 1000000000\ncpu_cores = 64.0\ncode_memory_mb = 256\ncode_timeout_s = 60.0\n"
        f'[sandbox]\ndocker_host = "{docker.host}"\nimage = "{docker.image}"\n'
        f'[security]\ndefault_sandbox_tier = "docker"\n{more}'
    )


def written(code):
    return json.dumps(code)[1:-1]


def events(folder, kind):
    with SqliteReader(folder / ".symbi") as reader:
        return [event for one in reader.read(1) if (event := parse_event(one.record)).event_type == kind]


async def run(opened, name="a"):
    spec = next(one for one in opened.compiled.agents if one.id == name)
    return await opened.runtime.run(opened.compiled, spec, {})


@pytest.mark.parametrize(
    ("code", "what"),
    [("while True: pass", "cpu"), (HOLD.format(mib=220) + "import time\ntime.sleep(60)", "memory")],
)
async def test_who_uses_more_than_it_claimed_is_stopped_while_its_container_runs(docker, tmp_path, tier, code, what):
    """It claims nothing, so its code may have more than the 0.1 cores and 64 MiB that it takes from the pool."""
    text = f'agent a {{ with sandbox = {tier.value}, timeout = 60.seconds {{ return python("{written(code)}"); }} }}'
    async with open_in(
        tmp_path, text, config=config(docker, '[agents.a]\non_breach = "stop"\n'), policies=PERMIT
    ) as opened:
        with anyio.fail_after(55):
            outcome = await run(opened)
        assert outcome.error.message.endswith(f"symbi.limits: {what}")
        used = opened.runtime.measuring.book.of_agent(AgentId("a"))
        assert used.code_cpu_ns > 0
        async with Engine(docker.host) as engine:
            assert await engine.containers("symbi.run") == []
    (breach,) = events(tmp_path, AuditEventType.AGENT_BREACH)
    assert breach.details["what"] == what
    assert breach.details["used"] > breach.details["claimed"]


async def test_what_containers_use_is_the_agent_s_use(docker, tmp_path, tier):
    text = f'agent a {{ with sandbox = {tier.value}, timeout = 60.seconds {{ return python("{written(WORK.format(millions=8))}s"); }} }}'
    async with open_in(tmp_path, text, config=config(docker), policies=PERMIT) as opened:
        assert (await run(opened)).output > 0
        used = opened.runtime.measuring.book.of_agent(AgentId("a"))
    assert used.code_cpu_ns > 0.1e9
    assert used.code_memory_bytes > 5 * MIB


async def test_a_program_is_measured_and_held_to_its_claim_as_code_is(docker, tmp_path, tier):
    text = f"""
agent a {{
    with sandbox = {tier.value}, max_cpu_cores = 0.5, timeout = 60.seconds {{
        return run("{docker.image}", ["python3", "-c", "{written(WORK.format(millions=8))}"]).code;
    }}
}}
"""
    async with open_in(tmp_path, text, config=config(docker), policies=PERMIT) as opened:
        assert (await run(opened)).output == 0
        used = opened.runtime.measuring.book.of_agent(AgentId("a"))
    assert used.code_cpu_ns > 0.1e9
    assert used.wall_ns > 1.6 * used.code_cpu_ns, "half a core takes twice as long"


async def test_what_an_agent_s_file_claims_is_what_its_container_has(docker, tmp_path):
    text = 'agent a { with sandbox = docker, memory = "48MB", max_cpu_cores = 0.25, timeout = 60.seconds { return python("1"); } }'
    seen = []
    create = Engine.create

    async def watched(self, name, spec, timeout_s):
        seen.append((spec["HostConfig"]["NanoCpus"], spec["HostConfig"]["Memory"] // MIB))
        return await create(self, name, spec, timeout_s)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Engine, "create", watched)
        async with open_in(tmp_path, text, config=config(docker), policies=PERMIT) as opened:
            assert (await run(opened)).output == 1
    assert seen == [(250_000_000, 48 + 16 + 32)]
