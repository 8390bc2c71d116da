"""What people agreed to, said no to, or were never asked about, where the same is asked for again at its place in a run."""

from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from symbi.audit.event import AuditEventType as T
from symbi.errors import ApprovalPending, ApprovalRequired, PolicyDenied, Unavailable
from symbi.guard.action import InvokeTool, RunSlot, ToolRef
from symbi.guard.desk import Ballot, DeskRules
from symbi.guard.ledger import EffectState
from symbi.guard.people import People, Person
from symbi.policy.catalog import ToolType
from symbi.policy.engine import PolicySource
from symbi.policy.policies import PolicySet
from symbi.testing.gate import open_gate
from symbi.types import AgentId, Principal, RecoveryClass, RunId, ToolName

pytestmark = pytest.mark.anyio

PEOPLE = People([Person("ada", 1001, "ada", groups=("finance",))])
TOOLS = [ToolType(ToolName("s.send"), {})]
ASKS = '@id("p") @approval("finance") permit (principal, action, resource);'


def send() -> InvokeTool:
    tool = ToolRef(ToolName("s.send"), "s", "d" * 64, {}, verified=True)
    return InvokeTool(
        principal=Principal(AgentId("a"), owner="carl"), slot=RunSlot(RunId("r"), 0), tool=tool, values={}
    )


@asynccontextmanager
async def desk(policies: str = ASKS):
    async with open_gate(policies, tools=TOOLS, desk=DeskRules(PEOPLE)) as gate:
        yield gate


async def held(gate, action=None) -> str:
    with pytest.raises(ApprovalPending) as pending:
        await happens(gate, action)
    return str(pending.value.fields["approval"])


async def vote(gate, approval_id: str, *, agrees: bool = True) -> None:
    record = await gate.guard.approvals.find(approval_id)
    await gate.guard.approvals.vote(Ballot(approval_id, record.digest, agrees=agrees, uid=1001))


async def happens(gate, action=None) -> str:
    async with gate.guard.enforce(action or send()) as permit:
        gate.guard.authority.redeem(permit, InvokeTool)
    return str(permit.effect_id)


def kinds(gate) -> list[str]:
    return [event.event_type for event in gate.events()][1:]


async def fails(gate, action, error) -> None:
    with pytest.raises(type(error)):
        async with gate.guard.enforce(action) as permit:
            gate.guard.authority.redeem(permit, InvokeTool)
            raise error


async def test_what_people_agreed_to_may_be_tried_again_and_nobody_is_asked_twice():
    action = replace(send(), tool=replace(send().tool, recovery=RecoveryClass.IDEMPOTENT))
    async with desk() as gate:
        approval_id = await held(gate, action)
        await vote(gate, approval_id)
        await fails(gate, action, Unavailable("gone"))
        await fails(gate, action, Unavailable("gone"))
        assert await happens(gate, action) == approval_id
        record = gate.store.effect_at(RunId("r"), 0)
        assert (record.state, record.attempt) == (EffectState.CONFIRMED, 3)
        assert kinds(gate).count(T.APPROVAL_ASKED) == kinds(gate).count(T.APPROVAL_USED) == 1


async def test_what_people_said_no_to_stays_so_however_often_it_is_asked_for():
    async with desk() as gate:
        approval_id = await held(gate)
        await vote(gate, approval_id, agrees=False)
        for attempt in (1, 2, 3):
            with pytest.raises(ApprovalRequired):
                await happens(gate)
            record = gate.store.effect_at(RunId("r"), 0)
            assert (record.effect_id, record.state, record.attempt) == (approval_id, EffectState.DENIED, attempt)
        assert kinds(gate).count(T.APPROVAL_ASKED) == 1


async def test_what_policy_refused_is_put_to_people_where_another_set_asks_them():
    async with desk("forbid (principal, action, resource);") as gate:
        with pytest.raises(PolicyDenied):
            await happens(gate)
        effect_id = gate.store.effect_at(RunId("r"), 0).effect_id
        gate.engine.replace(PolicySet.load([PolicySource("test.cedar", ASKS)], tools=TOOLS))
        assert await held(gate) == effect_id
        await vote(gate, effect_id)
        assert await happens(gate) == effect_id
