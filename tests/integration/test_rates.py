"""Usage of a run, time and rates through the gate on the real store."""

from collections import Counter as Tallied
from dataclasses import replace

import anyio
import pytest

from symbi.errors import InputError, PolicyDenied, RateLimited
from symbi.guard.action import InvokeTool, RunSlot, ToolRef, WriteLog
from symbi.guard.ledger import EffectState
from symbi.policy.catalog import ToolType
from symbi.testing.clock import ManualClock
from symbi.testing.gate import ALLOW_ALL, open_gate
from symbi.types import AgentId, Principal, RunId, ToolName

pytestmark = pytest.mark.anyio

TOOLS = [ToolType(ToolName("crm.read"), {}), ToolType(ToolName("mail.send"), {})]


def call(tool="mail.send", run=None, position=0, agent="a"):
    return InvokeTool(
        principal=Principal(AgentId(agent)),
        slot=None if run is None else RunSlot(RunId(run), position),
        tool=ToolRef(ToolName(tool), tool.partition(".")[0], "d" * 64, {}, verified=True),
        values={},
    )


async def perform(gate, action):
    async with gate.guard.enforce(action) as permit:
        gate.guard.authority.redeem(permit, InvokeTool)


async def allowed(gate, action) -> bool:
    try:
        await perform(gate, action)
    except PolicyDenied:
        return False
    return True


# --- usage and time ---------------------------------------------------------------------------


async def test_usage_is_that_of_the_run_so_far(tmp_path):
    policies = (
        ALLOW_ALL
        + 'forbid (principal, action, resource == Tool::"crm.read");'
        + '@id("calls") forbid (principal, action, resource) when { context.usage.calls >= 2 };'
        + '@id("denied") forbid (principal, action, resource) when { context.usage.denied >= 1 };'
        + '@id("old") forbid (principal, action, resource) when { context.usage.seconds > 60 };'
    )
    clock = ManualClock()

    async def by(gate, action):
        try:
            async with gate.guard.enforce(action):
                return []
        except PolicyDenied as denial:
            return denial.fields["policies"]

    line = WriteLog(principal=Principal(AgentId("a")), message="x")
    async with open_gate(policies, tools=TOOLS, folder=tmp_path, clock=clock) as gate:
        assert await by(gate, call(run="r", position=0)) == []
        assert await by(gate, replace(line, slot=RunSlot(RunId("r"), 1))) == []
        assert await by(gate, call(run="r", position=2)) == []
    async with open_gate(policies, tools=TOOLS, folder=tmp_path, clock=clock) as gate:
        assert await by(gate, call(run="r", position=3)) == ["calls"]
        assert await by(gate, call("crm.read", run="s", position=0)) != []
        assert await by(gate, call(run="s", position=1)) == ["denied"]
        assert await by(gate, replace(line, within=RunId("t"))) == []
        clock.advance(61)
        assert await by(gate, call(run="t", position=0)) == ["old"]
        assert await by(gate, call(run="u", position=0)) == []


async def test_time_is_that_of_the_clock_in_utc():
    policies = (
        "permit (principal, action, resource) when { context.time.hour == 22 && context.time.minute == 59"
        " && context.time.weekday == 3 && context.time.day == 25 && context.time.epochS == 1795647599 };"
    )
    clock = ManualClock(1_795_647_599_999_999_999)  # Wednesday, 25 November 2026, 22:59:59 UTC
    async with open_gate(policies, tools=TOOLS, clock=clock) as gate:
        assert await allowed(gate, call())
        clock.advance(0.001)
        assert not await allowed(gate, call())


# --- rates ------------------------------------------------------------------------------------


async def test_a_rate_refuses_what_is_over_it_and_says_when_to_try_again(tmp_path):
    policies = '@id("p") @rate("2/minute") permit (principal, action, resource);'
    clock = ManualClock()
    async with open_gate(policies, tools=TOOLS, folder=tmp_path, clock=clock) as gate:
        await perform(gate, call())
        clock.advance(20)
        await perform(gate, call())
        await perform(gate, call(agent="b"))  # each agent has its own
    async with open_gate(policies, tools=TOOLS, folder=tmp_path, clock=clock) as gate:
        with pytest.raises(RateLimited, match="`p` allows agent `a` 2 in 60 s; try again in 40 s") as refusal:
            await perform(gate, call(run="r"))
        assert refusal.value.retry_after_s == 40
        denied = gate.events()[-1]
        assert denied.event_type == "decision.deny"
        assert denied.details["code"] == "policy.rate_limited"
        assert gate.store.effect_at(RunId("r"), 0).state is EffectState.DENIED
        clock.advance(39.999)
        with pytest.raises(RateLimited):
            await perform(gate, call())
        clock.advance(0.001)
        await perform(gate, call())
        with pytest.raises(RateLimited):
            await perform(gate, call())


async def test_a_rate_holds_for_many_at_once_and_of_several_rates_all_hold():
    policies = (
        '@id("p") @rate("7/minute") permit (principal, action, resource);'
        '@id("q") @rate("5/30s") permit (principal, action, resource);'
    )
    clock = ManualClock()
    async with open_gate(policies, tools=TOOLS, clock=clock) as gate:
        passed = Tallied()

        async def one():
            try:
                await perform(gate, call())
            except RateLimited as refusal:
                passed[refusal.fields["policies"][0]] += 1
            else:
                passed["yes"] += 1

        async def burst():
            passed.clear()
            async with anyio.create_task_group() as tasks:
                for _ in range(50):
                    tasks.start_soon(one)
            return dict(passed)

        assert await burst() == {"yes": 5, "q": 45}
        clock.advance(30)
        assert await burst() == {"yes": 2, "p": 48}


async def test_what_did_not_begin_does_not_use_a_rate_up():
    async with open_gate('@id("p") @rate("1/hour") permit (principal, action, resource);', tools=TOOLS) as gate:
        for _ in range(3):
            with pytest.raises(InputError):
                async with gate.guard.enforce(call()):
                    raise InputError("before the permit was used")
        await perform(gate, call())
        with pytest.raises(RateLimited):
            await perform(gate, call())
