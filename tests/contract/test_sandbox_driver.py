"""The sandbox port on every driver: the interpreter, runc, and gVisor's runsc."""

import pytest

from symbi.adapters.docker import DockerOptions, DockerSandbox, Engine
from symbi.adapters.monty import MontySandbox
from symbi.guard.permit import Authority
from symbi.testing.clock import ManualClock
from symbi.testing.contracts import SANDBOX_CHECKS, SandboxUnderTest, check_sandbox_driver
from symbi.types import SecurityTier

pytestmark = pytest.mark.anyio

CONTAINERS = {SecurityTier.TIER1: "runc", SecurityTier.TIER2: "runsc"}


@pytest.fixture
async def sandbox():
    authority = Authority(ManualClock())
    async with MontySandbox(authority) as driver:
        yield SandboxUnderTest(driver, authority)


@pytest.fixture(params=CONTAINERS)
async def container(request, docker):
    authority = Authority(ManualClock())
    options = DockerOptions(image=docker.image, runtime=CONTAINERS[request.param], instance="contract")
    async with Engine(docker.host) as engine, DockerSandbox(authority, request.param, engine, options) as driver:
        yield SandboxUnderTest(driver, authority)
        assert await engine.containers("symbi.instance=contract") == []


@pytest.mark.parametrize("check", SANDBOX_CHECKS, ids=lambda check: check.__name__)
async def test_the_contract_holds(sandbox, check):
    await check(sandbox)


async def test_the_whole_suite_runs_on_one_driver(sandbox):
    await check_sandbox_driver(sandbox.driver, sandbox.authority)


async def test_the_driver_says_its_tier(sandbox):
    assert sandbox.driver.tier is SecurityTier.INTERPRETER


@pytest.mark.servers
@pytest.mark.parametrize("check", SANDBOX_CHECKS, ids=lambda check: check.__name__)
async def test_the_contract_holds_in_containers(container, check):
    await check(container)
    assert container.driver.tier in CONTAINERS
