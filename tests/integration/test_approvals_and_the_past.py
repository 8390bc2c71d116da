"""Approvals beside rates, counters, usage and time: what came before is no part of what people agree to, and still counts."""

from contextlib import asynccontextmanager, suppress

import anyio
import pytest

from symbi.errors import ApprovalPending, PolicyDenied, RateLimited
from symbi.guard.action import Action, CreateAgent, ReadClock, RunSlot, WriteLog
from symbi.guard.approval import ApprovalState as S
from symbi.guard.desk import Ballot, DeskRules
from symbi.guard.ledger import EffectState
from symbi.guard.people import People, Person
from symbi.testing.clock import ManualClock
from symbi.testing.gate import Gate, open_gate
from symbi.types import AgentId, Principal, RunId, SecurityTier

pytestmark = pytest.mark.anyio

AGENT = Principal(AgentId("a"), owner="carl")
RUN = RunId("r")
RATED = '@id("p") @approval("why") @rate("1/minute") permit (principal, action, resource);'


@asynccontextmanager
async def desk(policies: str, clock: ManualClock | None = None):
    async with open_gate(policies, clock=clock, desk=DeskRules(People([Person("ada", 1001, "ada")]))) as gate:
        yield gate


def log(position: int) -> WriteLog:
    return WriteLog(principal=AGENT, slot=RunSlot(RUN, position), message="x")


async def happens(gate: Gate, action: Action) -> str:
    async with gate.guard.enforce(action) as permit:
        gate.guard.authority.redeem(permit, type(action))
    return permit.effect_id


async def granted(gate: Gate, action: Action) -> str:
    with pytest.raises(ApprovalPending) as pending:
        await happens(gate, action)
    approval_id = str(pending.value.fields["approval"])
    record = await gate.guard.approvals.find(approval_id)
    await gate.guard.approvals.vote(Ballot(approval_id, record.digest, agrees=True, uid=1001))
    return approval_id


async def state(gate: Gate, approval_id: str) -> S:
    return (await gate.guard.approvals.find(approval_id)).state


async def test_a_rate_that_refuses_after_a_grant_leaves_it_unused():
    clock = ManualClock()
    async with desk(RATED, clock) as gate:
        first = await granted(gate, log(0))
        assert await happens(gate, log(0)) == first
        second = await granted(gate, log(1))
        with pytest.raises(RateLimited):
            await happens(gate, log(1))
        assert (await state(gate, first), await state(gate, second)) == (S.USED, S.GRANTED)
        refused = gate.store.effect_at(RUN, 1)
        assert refused.state is EffectState.DENIED
        assert refused.effect_id == second
        told = gate.events()[-1].details
        assert (told["verdict"], told["approval"]["id"], told["approval"]["people"]) == ("deny", second, ["ada"])
        clock.advance(60)
        assert await happens(gate, log(1)) == second  # asked for again at its place, nobody has to agree again
        assert await state(gate, second) is S.USED


async def test_a_grant_that_a_rate_left_unused_holds_for_the_same_action_later():
    clock = ManualClock()
    create = CreateAgent(principal=AGENT, source_digest="0" * 64, tier=SecurityTier.INTERPRETER, risk=0.1)
    async with desk(RATED, clock) as gate:
        await granted(gate, log(0))
        await happens(gate, log(0))
        approval_id = await granted(gate, create)
        for _ in range(2):
            with pytest.raises(RateLimited):
                await happens(gate, create)
        assert await state(gate, approval_id) is S.GRANTED
        clock.advance(61)
        assert await happens(gate, create) == approval_id
        assert await state(gate, approval_id) is S.USED
        with pytest.raises(ApprovalPending):
            await happens(gate, create)


async def test_many_grants_use_up_one_rate_once():
    async with desk(RATED) as gate:
        ids = [await granted(gate, log(position)) for position in range(8)]
        done: list[str] = []

        async def go(position: int) -> None:
            with suppress(RateLimited):
                done.append(await happens(gate, log(position)))

        async with anyio.create_task_group() as tasks:
            for position in range(8):
                tasks.start_soon(go, position)
        assert len(done) == 1
        assert {each for each in ids if await state(gate, each) is S.USED} == set(done)


PAST = """
    @id("p") @approval("why") permit (principal, action == Action::"WriteLog", resource)
    when { context.usage.effects < 2 && context.time.epochS > 0 };
    @id("clock") permit (principal, action == Action::"ReadClock", resource);
"""


def tick(position: int) -> ReadClock:
    return ReadClock(principal=AGENT, slot=RunSlot(RUN, position))


async def test_what_came_before_may_go_on_while_people_think():
    clock = ManualClock()
    async with desk(PAST, clock) as gate:
        approval_id = await granted(gate, log(5))
        await happens(gate, tick(0))
        clock.advance(60)
        assert await happens(gate, log(5)) == approval_id
        assert await state(gate, approval_id) is S.USED


async def test_a_limit_that_is_reached_while_people_think_denies_and_leaves_the_grant_unused():
    async with desk(PAST) as gate:
        approval_id = await granted(gate, log(5))
        await happens(gate, tick(0))
        await happens(gate, tick(1))
        with pytest.raises(PolicyDenied):
            await happens(gate, log(5))
        assert await state(gate, approval_id) is S.GRANTED
        assert gate.store.effect_at(RUN, 5).state is EffectState.DENIED
