"""Budgets of runs: through the gate with many at once, and through a whole runtime until somebody gives more."""

import json
from contextlib import suppress

import anyio
import anyio.lowlevel
import pytest

from symbi.adapters.sqlite import SqliteReader
from symbi.agent.journal import RunState
from symbi.api.caller import Caller, operate
from symbi.api.control import OPERATIONS
from symbi.audit.event import AuditEventType, parse_event
from symbi.errors import BudgetExceeded, InputError, PolicyDenied
from symbi.guard.action import InvokeTool, RunSlot, ToolRef
from symbi.guard.budget import Account, Allowance, open_account
from symbi.guard.spending import Budget, Spend
from symbi.policy.catalog import ToolType
from symbi.runtime.course import Order
from symbi.runtime.lifecycle import AgentState
from symbi.testing.gate import ALLOW_ALL, DENY_ALL, open_gate
from symbi.testing.runtime import open_in
from symbi.testing.servers import in_place_of, simulated
from symbi.tools.port import RawToolResult
from symbi.types import AgentId, EffectId, Principal, RecoveryClass, RunId, ToolName

pytestmark = pytest.mark.anyio

TOOL = ToolRef(ToolName("mail.send"), "mail", "d" * 64, {}, verified=True, recovery=RecoveryClass.IDEMPOTENT)
TOOLS = [ToolType(TOOL.name, {})]


def call(run, position):
    return InvokeTool(principal=Principal(AgentId("a")), slot=RunSlot(RunId(run), position), tool=TOOL, values={})


def account(run, parent="", **most):
    return Account(RunId(run), AgentId("a"), RunId(parent), Budget(**most))


async def opened_accounts(gate, *accounts):
    await gate.log.transact(lambda: ([open_account(gate.store, one) for one in accounts], ()))


async def amounts(gate, run):
    found = await gate.log.read(lambda: gate.store.account_of(RunId(run)))
    return found.spent, found.held


async def carry_out(gate, action):
    async with gate.guard.enforce(action) as permit:
        gate.guard.authority.redeem(permit, InvokeTool)


async def test_a_tree_of_runs_calls_as_often_as_its_root_may_however_many_ask_at_once():
    async with open_gate(tools=TOOLS) as gate:
        runs = ["root", "one", "two", "below"]
        await opened_accounts(
            gate,
            account("root", calls=20),
            account("one", "root"),
            account("two", "root", calls=5),
            account("below", "one"),
        )
        happened = []

        async def ask(run, position):
            with suppress(BudgetExceeded):
                await carry_out(gate, call(run, position))
                happened.append(run)

        async with anyio.create_task_group() as tasks:
            for position in range(15):
                for run in runs:
                    tasks.start_soon(ask, run, position)
        assert len(happened) == 20
        assert happened.count("two") <= 5
        assert await amounts(gate, "root") == (Spend(calls=20), Spend())
        own = {run: (await amounts(gate, run))[0].calls for run in runs}
        assert own["one"] == happened.count("one") + happened.count("below")
        assert own["two"] == happened.count("two")


async def test_what_did_not_begin_is_given_back_and_what_was_denied_costs_nothing():
    async with open_gate(tools=TOOLS) as gate:
        await opened_accounts(gate, account("r", calls=1))
        with suppress(RuntimeError):
            async with gate.guard.enforce(call("r", 0)):  # its permit is not redeemed
                assert await amounts(gate, "r") == (Spend(), Spend(calls=1)), "in flight"
                raise RuntimeError
        assert await amounts(gate, "r") == (Spend(), Spend())
        await carry_out(gate, call("r", 1))
        assert await amounts(gate, "r") == (Spend(calls=1), Spend())
        with pytest.raises(BudgetExceeded, match="has spent 1 of 1 calls"):
            await carry_out(gate, call("r", 2))
    async with open_gate(DENY_ALL, tools=TOOLS) as gate:
        await opened_accounts(gate, account("r", calls=1))
        with pytest.raises(PolicyDenied):
            await carry_out(gate, call("r", 0))
        assert await amounts(gate, "r") == (Spend(), Spend())


async def test_what_nobody_knows_stays_held_over_a_restart_and_is_counted_once_when_it_is_done_again(tmp_path):
    async def dies(*_):
        raise RuntimeError("no outcome is put on record")

    async with open_gate(folder=tmp_path, tools=TOOLS) as gate:
        await opened_accounts(gate, account("r", calls=1))
        gate.guard._settlement.success = dies
        with pytest.raises(RuntimeError):
            await carry_out(gate, call("r", 0))
    async with open_gate(folder=tmp_path, tools=TOOLS) as gate:
        await gate.guard.open()
        assert await amounts(gate, "r") == (Spend(), Spend(calls=1))
        with pytest.raises(BudgetExceeded, match="1 in flight or in doubt"):
            await carry_out(gate, call("r", 1))
        await carry_out(gate, call("r", 0))
        assert await amounts(gate, "r") == (Spend(calls=1), Spend())


async def test_what_was_broken_off_after_it_began_stays_held_too():
    async with open_gate(tools=TOOLS) as gate:
        await opened_accounts(gate, account("r", calls=1))
        with suppress(RuntimeError):
            async with gate.guard.enforce(call("r", 0)) as permit:
                gate.guard.authority.redeem(permit, InvokeTool)
                raise RuntimeError
        assert await amounts(gate, "r") == (Spend(), Spend(calls=1))


async def test_a_refusal_leaves_no_trace_at_its_place_so_that_the_run_can_go_on_there():
    async with open_gate(tools=TOOLS) as gate:
        await opened_accounts(gate, account("r", calls=0))
        with pytest.raises(BudgetExceeded) as refused:
            await carry_out(gate, call("r", 0))
        assert refused.value.fields == {
            "run": "r", "account": "r", "kind": "calls", "most": 0, "spent": 0, "held": 0, "wanted": 1
        }  # fmt: skip
        assert await gate.log.read(lambda: gate.store.effect_at(RunId("r"), 0)) is None
        assert await gate.log.read(lambda: gate.store.reservation_of(EffectId("r"))) is None


# --- through a whole runtime --------------------------------------------------------------------

PERMIT = "permit (principal, action, resource);"
SERVER = '[mcp]\ntool_verification = "disabled"\n[mcp.servers.bank]\ncommand = ["bank"]\n'
CALLS = """
agent a(n: int) {
    with sandbox = interpreter, timeout = 60.seconds {
        let done = 0;
        for i in range(n) {
            try { tool("bank.pay"); done += 1; } catch (e) { return "caught"; }
        }
        return done;
    }
}
"""


@pytest.fixture
def bank():
    paid = []

    async def pay(_arguments, _effect_id):
        paid.append(1)
        return RawToolResult("done", None, is_error=False)

    with in_place_of({"bank": simulated("bank", {"pay": pay})}):
        yield paid


def spec_of(opened, name="a"):
    return next(one for one in opened.compiled.agents if one.id == name)


async def run(opened, name="a", budget=None, **inputs):
    allowance = Allowance(budget or Budget())
    return await opened.runtime.run(opened.compiled, spec_of(opened, name), inputs, allowance=allowance)


async def resume(opened, run_id, name="a"):
    rooms = opened.runtime.rooms
    record = await rooms.world.log.read(lambda: rooms.runs.get_run(run_id))
    return await opened.runtime.resume(opened.compiled, spec_of(opened, name), record)


def events(folder, kind):
    with SqliteReader(folder / ".symbi") as reader:
        return [event for one in reader.read(1) if (event := parse_event(one.record)).event_type == kind]


async def test_a_run_that_has_spent_its_budget_is_held_whatever_its_body_catches_and_goes_on_once_it_has_more(
    tmp_path, bank
):
    config = SERVER + "[agents.a]\nbudget = { calls = 3 }\n"
    async with open_in(tmp_path, CALLS, config=config, policies=PERMIT) as opened:
        outcome = await run(opened, n=5)
        assert (outcome.state, outcome.error.code, len(bank)) == (RunState.HELD, "limit.budget", 3)
        again = await resume(opened, outcome.run_id)
        assert (again.state, len(bank)) == (RunState.HELD, 3), "nothing has changed"
        account = await opened.runtime.budgets.give(outcome.run_id, {"calls": (True, 1)}, "ada")
        assert (account.most.calls, account.left.calls) == (4, 1)
        assert (await resume(opened, outcome.run_id)).state is RunState.HELD
        await opened.runtime.budgets.give(outcome.run_id, {"calls": (False, 10)}, "ada")
        done = await resume(opened, outcome.run_id)
        assert (done.state, done.output, len(bank)) == (RunState.FINISHED, 5, 5)
    exceeded = [event.details for event in events(tmp_path, AuditEventType.BUDGET_EXCEEDED)]
    assert [(one["kind"], one["most"], one["spent"], one["wanted"]) for one in exceeded] == [
        ("calls", 3, 3, 1), ("calls", 3, 3, 1), ("calls", 4, 4, 1)
    ]  # fmt: skip
    raised = [event.details for event in events(tmp_path, AuditEventType.BUDGET_RAISED)]
    assert raised[0] == {"by": "ada", "from": {"calls": 3}, "to": {"calls": 4}}
    moves = [event.details["event"] for event in events(tmp_path, AuditEventType.AGENT_TRANSITION)]
    assert moves.count("Resources Exhausted") == 3


@pytest.mark.parametrize(
    ("configured", "asked", "cap", "calls"),
    [(4, 2, None, 2), (2, 4, None, 2), (None, 2, None, 2), (4, None, 3, 3), (2, None, 3, 2), (None, None, 3, 3)],
)
async def test_the_lowest_of_what_is_configured_asked_for_and_allowed_holds(
    tmp_path, bank, configured, asked, cap, calls
):
    config = SERVER + ("" if configured is None else f"[agents.a]\nbudget = {{ calls = {configured} }}\n")
    capped = "" if cap is None else f'@cap("arguments.budgetCalls={cap}") '
    policies = f'{PERMIT}\n{capped}permit (principal, action == Action::"AllocateResources", resource);'
    async with open_in(tmp_path, CALLS, config=config, policies=policies) as opened:
        outcome = await run(opened, budget=Budget(calls=asked), n=6)
        assert (outcome.state, len(bank)) == (RunState.HELD, calls)


async def test_a_policy_can_refuse_who_has_no_bound(tmp_path, bank):
    policies = f'{PERMIT}\n@id("bound") forbid (principal, action == Action::"AllocateResources", resource) when {{ context has budgetCalls && context.budgetCalls > 10 }};'
    async with open_in(tmp_path, CALLS, config=SERVER, policies=policies) as opened:
        with pytest.raises(PolicyDenied, match="bound"):
            await run(opened, n=1)
        assert (await run(opened, budget=Budget(calls=10), n=1)).output == 1


async def test_a_run_that_another_asked_for_spends_what_that_one_has(tmp_path, bank):
    text = CALLS + 'agent p { with { tool("bank.pay"); return ask("a", { n: 5 }); } }'
    async with open_in(tmp_path, text, config=SERVER, policies=PERMIT) as opened:
        budgets = opened.runtime.budgets
        outcome = await run(opened, "p", budget=Budget(calls=3))
        assert len(bank) == 3
        assert (outcome.state, outcome.error.code) == (RunState.HELD, "agent.unanswered")
        (root,) = await budgets.find(outcome.run_id)
        assert (root.spent.calls, root.held.calls) == (3, 0)
        rooms = opened.runtime.rooms
        (child,) = await rooms.world.log.read(lambda: rooms.lineage.asked_by(outcome.run_id))
        line = await budgets.find(child.run_id)
        assert [one.run_id for one in line] == [child.run_id, outcome.run_id]
        assert line[0].spent.calls == 2
        await budgets.give(outcome.run_id, {"calls": (True, 10)}, "ada")
        child_record = await rooms.world.log.read(lambda: rooms.runs.get_run(child.run_id))
        assert child_record.state is RunState.HELD
        done = await resume(opened, child.run_id)
        assert (done.output, len(bank)) == (5, 6)
        assert (await resume(opened, outcome.run_id, "p")).output == 5


async def test_a_body_that_computes_is_held_when_its_time_is_spent_and_what_it_used_is_charged(tmp_path):
    text = "agent a { with sandbox = interpreter, timeout = 60.seconds { let s = 0; for i in range(10000) { for j in range(10000) { s += 1; } } s } }"
    config = "[limits]\nsteps = 1000000000\n[agents.a]\nbudget = { cpu_s = 0.3 }\n"
    async with open_in(tmp_path, text, config=config, policies=PERMIT) as opened:
        outcome = await run(opened)
        assert (outcome.state, outcome.error.fields["kind"]) == (RunState.HELD, "cpu_ms")
        (account,) = await opened.runtime.budgets.find(outcome.run_id)
        assert 300 <= account.spent.cpu_ms < 600, "little more than it has"
        used = opened.runtime.measuring.book.of_agent(AgentId("a"))
        assert used.cpu_ns // 1_000_000 - 1 <= account.spent.cpu_ms <= used.cpu_ns // 1_000_000 + 1


async def test_what_is_wrong_with_a_budget_is_said(tmp_path):
    for text, why in [
        ("budget = { calls = -1 }", "number from 0 on"),
        ("budget = { cals = 1 }", "nothing that has a budget"),
        ("budget = { calls = 1.5 }", "without a fraction"),
        ('budget = { money = "1.2345678" }', "6 digits after the point"),
        ("budget = 3", "table of amounts"),
        ("budget = { calls = 10000000000000000 }", "at most"),
        ("on_breach = 'kill'", "must be one of"),
    ]:
        with pytest.raises(InputError, match=why):
            async with open_in(tmp_path, CALLS, config=f"[agents.a]\n{text}\n"):
                pass


async def test_accounts_are_shown_and_what_has_none_is_an_error(tmp_path, bank):
    async with open_in(tmp_path, CALLS, config=SERVER, policies=PERMIT) as opened:
        outcome = await run(opened, n=1)
        with pytest.raises(InputError, match="nor an agent"):
            await opened.runtime.budgets.find(outcome.run_id)
        with pytest.raises(InputError, match="has no budget"):
            await opened.runtime.budgets.give(outcome.run_id, {"calls": (True, 1)}, "ada")
        await run(opened, budget=Budget(calls=2, money_micros=1_500_000), n=1)
        (account,) = await opened.runtime.budgets.find("a")
        facts = json.loads(json.dumps(account.facts()))
        assert facts["left"] == {"calls": 1, "money_micros": 1_500_000}
        await opened.runtime.budgets.charge(account.run_id, Spend(tokens=12, money_micros=250_000))
        (account,) = await opened.runtime.budgets.find("a")
        assert (account.spent.tokens, account.left.money_micros) == (12, 1_250_000)


async def test_no_effect_of_a_run_without_a_budget_reads_more_than_a_line():
    """Who has no budget pays one look by key for each call, and nothing for anything else."""
    counts = []
    for bounded in (False, True):
        async with open_gate(ALLOW_ALL, tools=TOOLS) as gate:
            if bounded:
                await opened_accounts(gate, account("r", calls=9))
            await carry_out(gate, call("r", 0))
            statements = []
            gate.store._connection.set_trace_callback(statements.append)
            await carry_out(gate, call("r", 1))
            gate.store._connection.set_trace_callback(None)
            counts.append(sum(" budget" in statement for statement in statements))
    assert counts[0] <= 3
    assert counts[1] > counts[0]


async def test_an_agent_that_stays_is_suspended_by_the_budget_of_a_message_and_goes_on_once_it_is_raised(
    tmp_path, bank
):
    config = SERVER + '[agents.a]\nmode = "persistent"\nbudget = { calls = 2 }\n'
    async with open_in(tmp_path, CALLS, config=config, policies=PERMIT) as opened:
        runtime = opened.runtime
        await runtime.spawn(Order(opened.compiled, spec_of(opened)))
        message = await runtime.send(AgentId("a"), {"n": 3})

        async def stands(state):
            with anyio.fail_after(60):
                while (await runtime.roster.find(AgentId("a"))).state is not state:
                    await anyio.lowlevel.checkpoint()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(runtime.carry_out_messages)
            await stands(AgentState.SUSPENDED)
            assert (len(bank), (await runtime.budgets.find(message))[0].left.calls) == (2, 0)
            arguments = {"run": message, "amounts": {"calls": "+1"}}
            answer = await operate(runtime, OPERATIONS, Caller(0, folder_owner=True), "budget.raise", arguments)
            assert answer["budget"] == {"calls": 3}
            await stands(AgentState.READY)
            runtime.dispatch.stop(runtime.at_work)
        assert len(bank) == 3
        assert runtime.measuring.book.of_agent(AgentId("a")).calls == 3
        record = await runtime.rooms.world.log.read(lambda: runtime.rooms.runs.get_run(message))
        assert record.state is RunState.FINISHED
        for amounts, why in [
            ({}, "needs `amounts`"),
            ({"calls": "+x"}, "number from 0 on"),
            ({"cals": 1}, "nothing that has"),
        ]:
            with pytest.raises(InputError, match=why):
                arguments = {"run": message, "amounts": amounts}
                await operate(runtime, OPERATIONS, Caller(0, folder_owner=True), "budget.raise", arguments)
