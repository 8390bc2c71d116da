"""Where a piece of code runs: by what its agent is, by what goes into it, and by what policy asks for; never below any."""

import json
from contextlib import asynccontextmanager

import pytest

from symbi.adapters.sqlite import SqliteReader
from symbi.agent.containers import CodeLimits
from symbi.agent.effects import RunEffects, World
from symbi.agent.values import Value
from symbi.audit.event import parse_event
from symbi.clock import SystemClock
from symbi.dsl import ast
from symbi.errors import PolicyDenied, SandboxUnavailable
from symbi.guard.action import ExecuteCode
from symbi.sandbox.pool import Sandboxes
from symbi.sandbox.port import SandboxResult
from symbi.testing.gate import open_gate
from symbi.types import AgentId, Confidentiality, Integrity, Label, Principal, RunId, SecurityTier

pytestmark = pytest.mark.anyio

PERMIT = '@id("may") permit (principal, action, resource);'
RAISE = '@id("may") @tier("gvisor") permit (principal, action, resource);'
LOWER = '@id("may") @tier("docker") permit (principal, action, resource);'
STRANGERS = Label(integrity=Integrity.UNTRUSTED)
SECRET = Label(confidentiality=Confidentiality.SECRET)


class Sandbox:
    """Gives back which tier it is of, and counts."""

    def __init__(self, authority, tier):
        self.authority = authority
        self.tier = tier
        self.runs = 0

    async def run(self, permit):
        action = self.authority.redeem(permit, ExecuteCode)
        assert action.tier is self.tier
        self.runs += 1
        return SandboxResult(self.tier.value, "", 0.0)


@asynccontextmanager
async def running(policies, tier, tiers=tuple(SecurityTier), folder=None):
    async with open_gate(policies, folder=folder) as gate:
        drivers = {one: Sandbox(gate.guard.authority, one) for one in tiers}
        world = World(gate.guard, gate.log, SystemClock(), None, Sandboxes(drivers), lambda *_: None)
        yield RunEffects(world, Principal(AgentId("a")), RunId("r"), "t.symbi", CodeLimits(tier)), drivers, gate


@pytest.mark.parametrize(
    ("policies", "given", "code", "data", "where"),
    [
        (PERMIT, "docker", Label(), Label(), "docker"),
        (PERMIT, "docker", Label(), SECRET, "docker"),
        (PERMIT, "docker", Label(), STRANGERS, "gvisor"),
        (PERMIT, "docker", STRANGERS, Label(), "gvisor"),
        (PERMIT, "gvisor", Label(), Label(), "gvisor"),
        (PERMIT, "interpreter", STRANGERS, SECRET, "interpreter"),
        (RAISE, "docker", Label(), Label(), "gvisor"),
        (RAISE, "interpreter", Label(), Label(), "gvisor"),
        (LOWER, "gvisor", Label(), Label(), "gvisor"),
        (LOWER, "docker", Label(), STRANGERS, "gvisor"),
        (LOWER, "interpreter", Label(), Label(), "docker"),
    ],
)
async def test_code_runs_in_the_strongest_tier_that_anything_asks_for(policies, given, code, data, where):
    async with running(policies, SecurityTier(given)) as (effects, drivers, _):
        answer = await effects.python(Value("x", code), {"d": Value({"k": Value(1, data)})}, ast.NOWHERE)
    assert answer.data == where
    assert {tier: driver.runs for tier, driver in drivers.items() if driver.runs} == {SecurityTier(where): 1}


@pytest.mark.parametrize("given", ["docker", "interpreter"])
async def test_a_tier_that_is_not_there_is_refused_and_nothing_weaker_runs(given):
    weaker = (SecurityTier.INTERPRETER, SecurityTier.TIER1)
    async with running(RAISE, SecurityTier(given), weaker) as (effects, drivers, _):
        with pytest.raises(SandboxUnavailable, match="`gvisor` is not available here") as caught:
            await effects.python(Value("x"), {}, ast.NOWHERE)
    assert caught.value.code == "unavailable.tier"
    assert [driver.runs for driver in drivers.values()] == [0, 0]


async def test_untrusted_inputs_make_a_run_fail_where_gvisor_is_missing_and_not_run_in_docker():
    async with running(PERMIT, SecurityTier.TIER1, (SecurityTier.TIER1,)) as (effects, drivers, _):
        with pytest.raises(SandboxUnavailable):
            await effects.python(Value("x"), {"d": Value("y", STRANGERS)}, ast.NOWHERE)
        assert drivers[SecurityTier.TIER1].runs == 0
        assert (await effects.python(Value("x"), {"d": Value("y")}, ast.NOWHERE)).data == "docker"


@pytest.mark.parametrize(
    ("condition", "data", "may"),
    [
        ('context.risk.lessThan(decimal("0.5"))', Label(), True),
        ('context.risk.lessThan(decimal("0.5"))', STRANGERS, False),
        ('context.risk.greaterThanOrEqual(decimal("0.55"))', STRANGERS, True),
        ('context.riskTier == "docker"', Label(), True),
        ('context.riskTier == "docker"', STRANGERS, False),
        ('context.tier == "interpreter" && context.riskTier == "gvisor"', STRANGERS, True),
        ("context.cpuMilli <= 500 && context.memoryMib <= 32", Label(), True),
        ("context.cpuMilli < 500", Label(), False),
    ],
)
async def test_policies_see_the_risk_of_each_piece_of_code_and_what_it_may_use(condition, data, may):
    policies = f'@id("may") permit (principal, action == Action::"ExecuteCode", resource) when {{ {condition} }};'
    tier = SecurityTier.INTERPRETER
    async with running(policies, tier) as (effects, drivers, _):
        effects._code = CodeLimits(tier, memory_mib=32, cpu_milli=500)
        if may:
            await effects.python(Value("x"), {"d": Value("y", data)}, ast.NOWHERE)
        else:
            with pytest.raises(PolicyDenied):
                await effects.python(Value("x"), {"d": Value("y", data)}, ast.NOWHERE)
    assert drivers[tier].runs == may


@pytest.mark.parametrize(("risk", "may"), [({}, False), ({"score": "0.4000", "tier": "docker"}, True)])
async def test_code_that_nobody_has_assessed_is_of_the_greatest_risk(risk, may):
    action = ExecuteCode(principal=Principal(AgentId("a")), code="1", code_digest="d", risk=risk)
    policies = '@id("may") permit (principal, action == Action::"ExecuteCode", resource) when { context.risk.lessThan(decimal("1.0")) && context.riskTier == "docker" };'
    async with open_gate(policies) as gate:
        try:
            async with gate.guard.enforce(action) as permit:
                gate.guard.authority.redeem(permit, ExecuteCode)
                permit.observe(None)
            assert may
        except PolicyDenied:
            assert not may


async def test_score_factors_and_tier_of_each_piece_of_code_are_on_the_trail(tmp_path):
    async with running(PERMIT, SecurityTier.TIER1, folder=tmp_path) as (effects, _, _gate):
        large = {"d": Value("y" * 100_000, STRANGERS)}  # more than a decision shows of its arguments
        await effects.python(Value("x"), large, ast.NOWHERE)
    with SqliteReader(tmp_path) as reader:
        events = [parse_event(stored.record) for stored in reader.read(1)]
    risks = [event.details["risk"] for event in events if "risk" in event.details]
    assert risks == [
        {
            "score": "0.5500",
            "tier": "gvisor",
            "factors": {
                "data_sensitivity": "0.0500",
                "code_trust_level": "0.5000",
                "network_access": "0.0000",
                "file_system_access": "0.0000",
                "external_integrations": "0.0000",
            },
        }
    ], json.dumps([event.details for event in events], default=str)
