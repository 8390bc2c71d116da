"""What the library's budgets cost and hold through the gate: they are written by `symbi init`, and in force once named."""

import pytest

from symbi.errors import PolicyDenied
from symbi.guard.action import InvokeTool, RunSlot, ToolRef, WriteLog
from symbi.policy.catalog import ToolType
from symbi.policy.library import BUDGETS, LIBRARY
from symbi.testing.gate import ALLOW_ALL, open_gate
from symbi.types import AgentId, Principal, RecoveryClass, RunId, ToolName

pytestmark = pytest.mark.anyio

WHO = Principal(AgentId("a"), "ada", ("ops",))
TOOL = ToolRef(ToolName("mail.send"), "mail", "d" * 64, {}, verified=True, recovery=RecoveryClass.NEVER_RETRY)
TOOLS = [ToolType(TOOL.name, {})]
PLAIN = "\n".join([ALLOW_ALL, *(source.text for source in LIBRARY.values())])
BUDGETED = f"{PLAIN}\n{BUDGETS['budgets.cedar'].text}"
COUNTERS = BUDGETS["history.toml"].text


def call(position):
    return InvokeTool(principal=WHO, slot=RunSlot(RunId("r"), position), tool=TOOL, values={})


def line(position):
    return WriteLog(principal=WHO, slot=RunSlot(RunId("r"), position), message="x")


async def cost(gate, action) -> tuple[int, int]:
    """What one effect takes: visits to the store to read, and statements that read there or in its transactions."""
    visits, statements = 0, []
    read = gate.log.read

    async def counted(work):
        nonlocal visits
        visits += 1
        return await read(work)

    gate.log.read = counted
    gate.store._connection.set_trace_callback(statements.append)
    try:
        async with gate.guard.enforce(action) as permit:
            gate.guard.authority.redeem(permit, type(action))
    finally:
        gate.store._connection.set_trace_callback(None)
        del gate.log.read
    return visits, sum(statement.lstrip().upper().startswith("SELECT") for statement in statements)


async def costs(policies, history, make) -> tuple[int, int]:
    """Of an effect of a run that has begun."""
    async with open_gate(policies, history=history, tools=TOOLS) as gate:
        await cost(gate, make(0))
        return await cost(gate, make(1))


@pytest.mark.parametrize("make", [call, line], ids=["a call", "a line"])
async def test_budgets_cost_each_decision_one_visit_to_the_store_and_looks_by_key(make):
    """Why they are not in force by default."""
    plain, budgeted = await costs(PLAIN, "", make), await costs(BUDGETED, COUNTERS, make)
    print(f"(visits, look-ups): {plain} without budgets, {budgeted} with them")
    assert budgeted[0] == plain[0] + 1
    assert budgeted[1] > plain[1]


async def test_a_run_makes_a_thousand_calls_and_not_one_more():
    async with open_gate(BUDGETED, history=COUNTERS, tools=TOOLS) as gate:
        for position in range(1_000):
            await cost(gate, call(position))
        with pytest.raises(PolicyDenied, match="calls-of-a-run"):
            await cost(gate, call(1_000))
        await cost(gate, line(1_001))


async def test_a_run_of_more_than_an_hour_calls_no_tool():
    async with open_gate(BUDGETED, history=COUNTERS, tools=TOOLS) as gate:
        await cost(gate, line(0))
        gate.clock.advance(3_600)
        await cost(gate, call(1))
        gate.clock.advance(1)
        with pytest.raises(PolicyDenied, match="calls-of-a-run"):
            await cost(gate, call(2))
