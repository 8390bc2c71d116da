"""How far a yes reaches: not to another run, and to a repetition only while it holds."""

from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from symbi.errors import ApprovalPending, EffectInDoubt
from symbi.guard.action import Action, CreateAgent, RunSlot, WriteLog
from symbi.guard.desk import Ballot, DeskRules
from symbi.guard.people import People, Person
from symbi.testing.clock import ManualClock
from symbi.testing.gate import Gate, open_gate
from symbi.types import AgentId, Principal, RunId, SecurityTier

pytestmark = pytest.mark.anyio

AGENT = Principal(AgentId("a"), owner="carl")
ADA, BOB = Person("ada", 1001, "ada"), Person("bob", 1002, "bob")
ASKS = '@id("p") @approval("why") permit (principal, action, resource);'


@asynccontextmanager
async def desk(*persons: Person, expires_s: float = 60.0, **more):
    async with open_gate(ASKS, desk=DeskRules(People(persons), expires_s), **more) as gate:
        yield gate


async def happens(gate: Gate, action: Action) -> str:
    async with gate.guard.enforce(action) as permit:
        gate.guard.authority.redeem(permit, type(action))
        return permit.effect_id


async def held(gate: Gate, action: Action) -> str:
    with pytest.raises(ApprovalPending) as pending:
        await happens(gate, action)
    return pending.value.fields["approval"]


async def granted(gate: Gate, action: Action) -> str:
    """The id of an approval that Ada has granted."""
    approval_id = await held(gate, action)
    record = await gate.guard.approvals.find(approval_id)
    await gate.guard.approvals.vote(Ballot(approval_id, record.digest, agrees=True, uid=1001))
    return approval_id


async def test_a_yes_to_what_one_run_asked_is_none_to_another_run_that_asks_the_same():
    async with desk(ADA) as gate:
        action = CreateAgent(
            principal=AGENT,
            source_digest="0" * 64,
            tier=SecurityTier.INTERPRETER,
            risk=0.1,
            inputs=("to",),  # what the inputs hold is no argument, and differs between runs
            within=RunId("shown"),
        )
        approval_id = await granted(gate, action)
        assert (await gate.guard.approvals.find(approval_id)).run_id == "shown"
        assert await held(gate, replace(action, within=RunId("other"))) != approval_id
        assert await happens(gate, action) == approval_id


@pytest.mark.parametrize(
    ("after_s", "persons", "why"),
    [
        (30, [ADA, BOB], None),
        (60, [ADA, BOB], "it held until"),
        (30, [BOB], "the people who agreed count no more"),
    ],
)
async def test_an_effect_in_doubt_is_repeated_only_as_long_as_its_approval_holds(after_s, persons, why, tmp_path):
    clock = ManualClock()
    action = WriteLog(principal=AGENT, slot=RunSlot(RunId("r"), 0), message="x")
    async with desk(ADA, BOB, folder=tmp_path, clock=clock) as gate:
        approval_id = await granted(gate, action)
        await gate.guard._admit(action)  # and the process dies
    clock.advance(after_s)
    async with desk(*persons, folder=tmp_path, clock=clock) as gate:
        await gate.guard.open()
        if why is None:
            assert await happens(gate, action) == approval_id
        else:
            with pytest.raises(EffectInDoubt, match=why):
                await happens(gate, action)
