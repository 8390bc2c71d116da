"""The sandbox port on every driver."""

import pytest

from symbi.adapters.monty import MontySandbox
from symbi.guard.permit import Authority
from symbi.testing.clock import ManualClock
from symbi.testing.contracts import SANDBOX_CHECKS, SandboxUnderTest, check_sandbox_driver
from symbi.types import SecurityTier

pytestmark = pytest.mark.anyio


@pytest.fixture(params=[MontySandbox])
async def sandbox(request):
    authority = Authority(ManualClock())
    async with request.param(authority) as driver:
        yield SandboxUnderTest(driver, authority)


@pytest.mark.parametrize("check", SANDBOX_CHECKS, ids=lambda check: check.__name__)
async def test_the_contract_holds(sandbox, check):
    await check(sandbox)


async def test_the_whole_suite_runs_on_one_driver(sandbox):
    await check_sandbox_driver(sandbox.driver, sandbox.authority)


async def test_the_driver_says_its_tier(sandbox):
    assert sandbox.driver.tier is SecurityTier.INTERPRETER
