"""Containers that are kept ready: for one use each, looked at before it, gone after it."""

import anyio
import anyio.lowlevel
import pytest

from symbi.adapters.docker import LABEL_INSTANCE, DockerOptions, DockerSandbox, Engine
from symbi.guard.permit import Authority
from symbi.testing.clock import ManualClock
from symbi.testing.contracts import SANDBOX_CHECKS, SandboxUnderTest
from symbi.types import EffectId, SecurityTier

pytestmark = [pytest.mark.servers, pytest.mark.anyio]

RUNTIMES = {SecurityTier.TIER1: "runc", SecurityTier.TIER2: "runsc"}
READY_S = 60.0
LOOK = "import os\nfound = os.listdir('/tmp')\nopen('/tmp/mine', 'w').write('x')\nfound"


@pytest.fixture(params=RUNTIMES)
async def warm(request, docker):
    authority = Authority(ManualClock())
    options = DockerOptions(image=docker.image, runtime=RUNTIMES[request.param], instance="warm", warm=2)
    async with Engine(docker.host) as engine:
        async with DockerSandbox(authority, request.param, engine, options) as driver:
            await ready(driver)
            yield SandboxUnderTest(driver, authority)
        with anyio.fail_after(60):  # one that is paused goes in the engine's own time
            while await engine.containers(f"{LABEL_INSTANCE}=warm"):
                await anyio.lowlevel.checkpoint()
        assert engine.made == {}


async def ready(driver):
    with anyio.fail_after(READY_S):
        await driver.filled()


async def noted(warm, code, **limits):
    """The value of some code, and what stands in its effect's outcome of where it ran."""
    permit = warm.authority.mint(EffectId("e"), warm.action(code, **limits))
    result = await warm.driver.run(permit)
    return result.value, permit.noted["sandbox"]


@pytest.mark.parametrize("check", SANDBOX_CHECKS, ids=lambda check: check.__name__)
async def test_the_contract_holds_in_containers_that_were_ready(warm, check):
    await check(warm)


async def test_each_run_has_a_container_that_nobody_had_before(warm):
    seen = []
    for _ in range(4):
        await ready(warm.driver)
        files, facts = await noted(warm, LOOK)
        assert files == []
        assert facts["warm"] is True
        seen.append(facts["container"])
    assert len(set(seen)) == 4


async def test_other_limits_get_a_container_of_their_own(warm):
    _, facts = await noted(warm, "1", memory_mib=96)
    assert facts["warm"] is False


async def test_one_that_died_or_hangs_is_not_handed_out(warm):
    engine = warm.driver._engine
    names = sorted(engine.made)
    await engine._ask("POST", f"/containers/{names[0]}/kill")
    await engine._ask("POST", f"/containers/{names[1]}/pause")
    value, facts = await noted(warm, "20 + 22")
    assert value == 42
    assert facts["container"] not in names
