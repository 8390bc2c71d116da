"""The port of programs on runc and on gVisor's runsc."""

import pytest

from symbi.adapters.docker import DockerOptions, DockerSandbox, Engine
from symbi.guard.permit import Authority
from symbi.testing.clock import ManualClock
from symbi.testing.programs import PROGRAM_CHECKS, ProgramsUnderTest
from symbi.types import SecurityTier

pytestmark = [pytest.mark.anyio, pytest.mark.servers]

RUNTIMES = {SecurityTier.TIER1: "runc", SecurityTier.TIER2: "runsc"}


@pytest.fixture(params=RUNTIMES, ids=RUNTIMES.get)
async def programs(request, docker):
    authority = Authority(ManualClock())
    options = DockerOptions(
        image=docker.image, runtime=RUNTIMES[request.param], instance="contract", images=frozenset({docker.image})
    )
    async with Engine(docker.host) as engine, DockerSandbox(authority, request.param, engine, options) as driver:
        yield ProgramsUnderTest(driver, authority, request.param, docker.image)
        assert await engine.containers("symbi.instance=contract") == []


@pytest.mark.parametrize("check", PROGRAM_CHECKS, ids=lambda check: check.__name__)
async def test_the_contract_of_programs_holds_in_containers(programs, check):
    await check(programs)
