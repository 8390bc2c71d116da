"""Counters, rates and usage through the gate on the real store: under concurrency, across restarts, when effects fail."""

from collections import Counter as Tallied

import anyio
import pytest

from symbi.errors import InternalError, PolicyDenied, ToolFailed
from symbi.guard.action import DrawRandom, InvokeTool, RunSlot, ToolRef
from symbi.guard.ledger import EffectState
from symbi.guard.tally import Tally
from symbi.policy.catalog import ToolType
from symbi.policy.engine import PolicySource
from symbi.policy.policies import PolicySet
from symbi.testing.clock import ManualClock
from symbi.testing.gate import ALLOW_ALL, open_gate
from symbi.types import AgentId, Integrity, Label, Principal, RecoveryClass, RunId, ToolName

pytestmark = pytest.mark.anyio

PAY = {"type": "object", "properties": {"amount": {"type": "number"}, "to": {"type": "string"}}}
TOOLS = [
    ToolType(ToolName("bank.pay"), PAY),
    ToolType(ToolName("crm.read"), {}),
    ToolType(ToolName("mail.send"), {}),
]
SCHEMAS = {tool.name: tool.input_schema for tool in TOOLS}

PAID = """
[history.paid]
kind = "sum"
action = "InvokeTool::bank.pay"
of = "arguments.amount"
unit = 0.01
per = "owner"
within = "24h"
"""
AT_MOST_500 = ALLOW_ALL + '@id("500") forbid (principal, action, resource) when { context.history.paid > 50000 };'

READ = """
[history.read_customer]
kind = "formerly"
action = "InvokeTool::crm.read"
per = "run"
"""
NO_MAIL = (
    ALLOW_ALL + '@id("no-mail") forbid (principal, action == Action::"InvokeTool::mail.send", resource)'
    " when { context.history.read_customer };"
)

SENT = """
[history.sent]
kind = "count"
action = "InvokeTool"
resource = "ToolServer::mail"
per = "agent"
"""
AT_MOST_3 = ALLOW_ALL + '@id("3") forbid (principal, action, resource) when { context.history.sent > 3 };'


def call(
    tool="mail.send", owner="ada", run=None, position=0, agent="a", groups=(), label=None, recovery=None, **values
):
    server = tool.partition(".")[0]
    return InvokeTool(
        principal=Principal(AgentId(agent), owner, groups),
        slot=None if run is None else RunSlot(RunId(run), position),
        tool=ToolRef(
            ToolName(tool),
            server,
            "d" * 64,
            SCHEMAS[tool],
            verified=True,
            recovery=recovery or RecoveryClass.NEVER_RETRY,
        ),
        values=values,
        label=label or Label(),
    )


async def perform(gate, action, error=None):
    async with gate.guard.enforce(action) as permit:
        gate.guard.authority.redeem(permit, InvokeTool)
        if error is not None:
            raise error


async def allowed(gate, action) -> bool:
    try:
        await perform(gate, action)
    except PolicyDenied:
        return False
    return True


async def at_once(gate, actions) -> list[bool]:
    """Each action in a task of its own, all in flight together."""
    results = [False] * len(actions)
    everybody = anyio.Event()

    async def one(index):
        try:
            async with gate.guard.enforce(actions[index]) as permit:
                gate.guard.authority.redeem(permit, InvokeTool)
                results[index] = True
                await everybody.wait()
        except PolicyDenied:
            pass

    async with anyio.create_task_group() as tasks:
        for index in range(len(actions)):
            tasks.start_soon(one, index)
        await settled(gate)
        everybody.set()
    return results


async def settled(gate):
    """Wait until nothing more is decided: the trail stands still."""
    before = -1
    while gate.log.sequence != before:
        before = gate.log.sequence
        for _ in range(20):
            await anyio.wait_all_tasks_blocked()
            await gate.log.read(lambda: None)


# --- the two policies of the issue ------------------------------------------------------------


async def test_at_most_500_euros_a_day_for_each_owner(tmp_path):
    clock = ManualClock()
    async with open_gate(AT_MOST_500, history=PAID, tools=TOOLS, folder=tmp_path, clock=clock) as gate:
        assert await allowed(gate, call("bank.pay", amount=499.99))
        assert not await allowed(gate, call("bank.pay", amount=0.02, agent="another"))
        assert await allowed(gate, call("bank.pay", amount=0.01, agent="another"))  # exactly 500
        assert not await allowed(gate, call("bank.pay", amount=0.01))
        assert await allowed(gate, call("bank.pay", amount=500, owner="bob"))
        assert await allowed(gate, call("mail.send"))  # pays nothing, so that it stays within
    clock.advance(86_399)
    async with open_gate(AT_MOST_500, history=PAID, tools=TOOLS, folder=tmp_path, clock=clock) as gate:
        assert not await allowed(gate, call("bank.pay", amount=0.01))  # also across a restart
        clock.advance(1)
        assert await allowed(gate, call("bank.pay", amount=500))


async def test_payments_at_once_stay_within_the_day(tmp_path):
    async with open_gate(AT_MOST_500, history=PAID, tools=TOOLS, folder=tmp_path) as gate:
        done = await at_once(gate, [call("bank.pay", amount=100, agent=f"a{i}") for i in range(50)])
        assert sum(done) == 5
        refused = [event for event in gate.events() if event.event_type == "decision.deny"]
        assert {tuple(p["id"] for p in event.details["policies"]) for event in refused} == {("500",)}
        assert {event.details["past"]["history"]["paid"] for event in refused} <= {"50000"}


async def test_no_mail_after_a_customer_record_was_read(tmp_path):
    async with open_gate(NO_MAIL, history=READ, tools=TOOLS, folder=tmp_path) as gate:
        assert await allowed(gate, call(run="r", position=0))
        assert await allowed(gate, call("crm.read", run="r", position=1))
        assert not await allowed(gate, call(run="r", position=2))
        assert await allowed(gate, call(run="s", position=0))  # another run has read nothing
    async with open_gate(NO_MAIL, history=READ, tools=TOOLS, folder=tmp_path) as gate:
        assert not await allowed(gate, call(run="r", position=3))


async def test_a_record_that_is_being_read_counts_as_read():
    async with (
        open_gate(NO_MAIL, history=READ, tools=TOOLS) as gate,
        gate.guard.enforce(call("crm.read", run="r", position=0)),
    ):
        assert not await allowed(gate, call(run="r", position=1))


async def test_what_is_read_between_decision_and_reservation_is_seen():
    """The gap that the second reading closes: another task commits just before the first one's transaction."""
    async with open_gate(NO_MAIL, history=READ, tools=TOOLS) as gate:
        transact, raced = gate.log.transact, []

        async def racing(work, **rest):
            if not raced:
                raced.append(True)
                assert await allowed(gate, call("crm.read", run="r", position=0))
            return await transact(work, **rest)

        gate.log.transact = racing
        assert not await allowed(gate, call(run="r", position=1))
        assert raced


# --- what counts ------------------------------------------------------------------------------


async def test_of_50_at_once_against_a_cap_of_3_exactly_3_pass():
    async with open_gate(AT_MOST_3, history=SENT, tools=TOOLS) as gate:
        assert sum(await at_once(gate, [call() for _ in range(50)])) == 3
        assert await allowed(gate, call(agent="b"))  # per agent
        assert not await allowed(gate, call())


async def test_a_hot_counter_that_changes_no_decision_holds_nobody_up():
    """Each reservation finds the counter changed, decides again in place, and does not go round."""
    policies = ALLOW_ALL + "forbid (principal, action, resource) when { context.history.sent > 1000 };"
    async with open_gate(policies, history=SENT, tools=TOOLS) as gate:
        rounds = Tallied()
        gate.guard.probe = lambda point: rounds.update([point])
        assert sum(await at_once(gate, [call() for _ in range(60)])) == 60
        assert rounds["before_dispatch"] == 60


@pytest.mark.parametrize(
    ("error", "use", "left"),
    [
        (None, True, 2),
        (ToolFailed("it said no"), True, 2),  # it answered, and nobody knows what it did first
        (RuntimeError("defect"), True, 2),
        (ToolFailed("not sent"), False, 3),
        (RuntimeError("defect before it began"), False, 3),
    ],
)
async def test_only_what_is_known_not_to_have_begun_is_given_back(error, use, left):
    async with open_gate(AT_MOST_3, history=SENT, tools=TOOLS) as gate:
        try:
            async with gate.guard.enforce(call()) as permit:
                if use:
                    gate.guard.authority.redeem(permit, InvokeTool)
                if error is not None:
                    raise error
        except (ToolFailed, RuntimeError):
            pass
        assert sum([await allowed(gate, call()) for _ in range(5)]) == left


async def test_a_cancelled_effect_that_had_not_begun_is_given_back():
    async with open_gate(AT_MOST_3, history=SENT, tools=TOOLS) as gate:
        for _ in range(4):
            with anyio.CancelScope() as scope:
                async with gate.guard.enforce(call()):
                    scope.cancel()
                    await anyio.sleep_forever()
        assert sum([await allowed(gate, call()) for _ in range(5)]) == 3


async def test_what_was_in_flight_at_a_crash_counts_once_also_when_it_is_done_again(tmp_path):
    action = call(run="r", recovery=RecoveryClass.IDEMPOTENT)
    with pytest.raises(InternalError):
        async with open_gate(AT_MOST_3, history=SENT, tools=TOOLS, folder=tmp_path) as gate:
            gate.guard._settlement.failure = crash  # the process dies before the outcome is written
            await perform(gate, action, InternalError("killed"))
    async with open_gate(AT_MOST_3, history=SENT, tools=TOOLS, folder=tmp_path) as gate:
        await gate.guard.open()
        assert gate.store.effect_at(RunId("r"), 0).state is EffectState.UNKNOWN
        assert await allowed(gate, call())
        assert await allowed(gate, call())
        assert not await allowed(gate, call())  # the one in doubt counts
        assert await allowed(gate, action)  # it is the third itself, and no fourth
        assert not await allowed(gate, call())


async def test_an_effect_in_doubt_is_not_counted_again_when_it_is_done_again(tmp_path):
    policies = AT_MOST_3 + '@id("2") forbid (principal, action, resource) when { context.usage.effects > 2 };'
    action = call(run="r", recovery=RecoveryClass.IDEMPOTENT)
    async with open_gate(policies, history=SENT, tools=TOOLS, folder=tmp_path) as gate:
        for _ in range(4):
            with pytest.raises(RuntimeError):
                await perform(gate, action, RuntimeError("whether it happened, nobody knows"))
        assert gate.store.effect_at(RunId("r"), 0).attempt == 4
        await perform(gate, action)
        assert await allowed(gate, call(run="r", position=1))
        assert await allowed(gate, call(run="r", position=2))
        assert not await allowed(gate, call())  # the fourth
        assert not await allowed(gate, call("crm.read", run="r", position=3))  # the fourth of the run


async def test_an_effect_in_doubt_is_not_among_what_its_run_has_used_when_it_is_done_again(tmp_path):
    policies = ALLOW_ALL + (
        '@id("use") forbid (principal, action, resource) when'
        " { context.usage.effects >= 2 || context.usage.calls >= 2 };"
    )
    action = call(run="r", position=1, recovery=RecoveryClass.IDEMPOTENT)
    async with open_gate(policies, history=SENT, tools=TOOLS, folder=tmp_path) as gate:
        assert await allowed(gate, call(run="r"))
        with pytest.raises(RuntimeError):
            await perform(gate, action, RuntimeError("whether it happened, nobody knows"))
        await perform(gate, action)  # it is the second itself, and no third
        assert not await allowed(gate, call(run="r", position=2))


async def crash(*_arguments, **_named):
    pass


async def test_caps_of_conditions_count_what_happened_and_decide_on_what_was_asked():
    policies = AT_MOST_500.replace('@id("all")', '@id("all") @cap("arguments.amount=100")').replace(
        "(principal, action, resource);", '(principal, action == Action::"InvokeTool::bank.pay", resource);', 1
    )
    async with open_gate(policies, history=PAID, tools=TOOLS) as gate:
        assert [await allowed(gate, call("bank.pay", amount=400)) for _ in range(3)] == [True, True, False]
        assert [await allowed(gate, call("bank.pay", amount=100)) for _ in range(4)] == [True, True, True, False]


@pytest.mark.parametrize(
    ("values", "says"),
    [({}, "is missing"), ({"amount": -0.01}, "is negative"), ({"amount": 0.001}, "is finer than 0.01")],
)
async def test_an_amount_that_cannot_be_added_up_denies(values, says):
    async with open_gate(AT_MOST_500, history=PAID, tools=TOOLS) as gate:
        with pytest.raises(PolicyDenied, match=f"`arguments.amount`.*`paid`.*{says}"):
            await perform(gate, call("bank.pay", **values))
        assert await allowed(gate, call("bank.pay", amount=500))


async def test_denials_are_counted_where_a_counter_asks_for_them():
    history = '[history.refused]\nkind = "count"\naction = "InvokeTool"\nverdict = "deny"\nper = "run"'
    policies = (
        ALLOW_ALL
        + 'forbid (principal, action, resource == Tool::"bank.pay");'
        + '@id("out") forbid (principal, action, resource) when { context.history.refused >= 2 };'
    )
    async with open_gate(policies, history=history, tools=TOOLS) as gate:
        steps = ["mail.send", "bank.pay", "mail.send", "bank.pay", "mail.send", "crm.read"]
        done = [await allowed(gate, call(tool, run="r", position=i)) for i, tool in enumerate(steps)]
        assert done == [True, False, True, False, False, False]


async def test_a_denial_counts_also_where_the_action_could_not_even_be_put_to_the_engine():
    history = '[history.refused]\nkind = "count"\naction = "InvokeTool"\nverdict = "deny"\nper = "agent"'
    policies = ALLOW_ALL + "forbid (principal, action, resource) when { context.history.refused >= 2 };"
    async with open_gate(policies, history=history, tools=TOOLS) as gate:
        for _ in range(2):
            assert await allowed(gate, call())
            assert not await allowed(gate, call("bank.pay", to="\ud800"))
        assert not await allowed(gate, call())


async def test_nothing_is_dropped_from_the_counters_outside_of_a_transaction(monkeypatch):
    async with open_gate(AT_MOST_3, history=SENT, tools=TOOLS) as gate:
        pruned, read = [], gate.store.read_tallies

        def read_tallies(*arguments, prune=False, **named):
            pruned.append((gate.store._db.in_transaction, prune))
            return read(*arguments, prune=prune, **named)

        monkeypatch.setattr(gate.store, "read_tallies", read_tallies, raising=False)
        assert await allowed(gate, call())
        assert (False, False) in pruned
        assert (True, True) in pruned
        assert (False, True) not in pruned


async def test_a_counter_may_be_about_a_label_and_a_group():
    history = (
        '[history.tainted]\nkind = "count"\naction = "InvokeTool"\nper = "group"\nwithin = "day"\n'
        'where = { integrity = ["untrusted"] }'
    )
    policies = ALLOW_ALL + "forbid (principal, action, resource) when { context.history.tainted > 2 };"
    bad = Label(Integrity.UNTRUSTED)
    clock = ManualClock()
    async with open_gate(policies, history=history, tools=TOOLS, clock=clock) as gate:
        assert await allowed(gate, call(groups=("x",), label=bad))
        assert await allowed(gate, call(groups=("x", "y"), label=bad))
        assert not await allowed(gate, call(groups=("x",), label=bad))
        assert not await allowed(gate, call(groups=("y", "x"), label=bad))  # the group that has used most
        assert await allowed(gate, call(groups=("y",), label=bad))
        assert await allowed(gate, call(groups=("x",)))
        clock.advance(86_400)
        assert await allowed(gate, call(groups=("x",), label=bad))


async def test_a_session_ends_with_the_runtime_and_a_run_does_not(tmp_path):
    history = SENT.replace('"agent"', '"session"')
    for _ in range(2):
        async with open_gate(AT_MOST_3, history=history, tools=TOOLS, folder=tmp_path) as gate:
            assert sum([await allowed(gate, call()) for _ in range(5)]) == 3


async def test_a_clock_that_steps_back_gives_nothing_back():
    clock = ManualClock()
    async with open_gate(AT_MOST_500, history=PAID, tools=TOOLS, clock=clock) as gate:
        clock.advance(2 * 86_400)
        assert await allowed(gate, call("bank.pay", amount=500))
        clock.set_ns(clock.now_ns() - 2 * 86_400 * 10**9)
        assert not await allowed(gate, call("bank.pay", amount=1))
        clock.advance(86_400)
        assert not await allowed(gate, call("bank.pay", amount=1))
        clock.advance(2 * 86_400)
        assert await allowed(gate, call("bank.pay", amount=1))


async def test_a_clock_that_jumps_to_and_fro_frees_no_budget_over_and_over():
    clock = ManualClock()
    start_ns = clock.now_ns()
    paid = 0
    async with open_gate(AT_MOST_500, history=PAID, tools=TOOLS, clock=clock) as gate:
        for _ in range(5):
            paid += await allowed(gate, call("bank.pay", amount=500))
            clock.set_ns(start_ns + 2 * 86_400 * 10**9)
            await perform(gate, call())  # drops what the window does not hold any more
            clock.set_ns(start_ns)
    assert paid == 2  # and not once for each jump


async def test_a_lease_counts_for_all_its_uses():
    history = '[history.drawn]\nkind = "count"\naction = "DrawRandom"\nper = "all"'
    policies = ALLOW_ALL + "forbid (principal, action, resource) when { context.history.drawn > 10 };"
    draw = DrawRandom(principal=Principal(AgentId("a")))
    async with open_gate(policies, history=history) as gate:
        async with gate.guard.lease(draw, uses=8, seconds=10):
            pass
        with pytest.raises(PolicyDenied):
            async with gate.guard.lease(draw, uses=3, seconds=10):
                pytest.fail("granted")
        async with gate.guard.lease(draw, uses=2, seconds=10):
            pass


# --- what a set declares may change -----------------------------------------------------------


async def test_a_counter_keeps_what_it_counted_when_the_set_changes():
    async with open_gate(AT_MOST_3, history=SENT, tools=TOOLS) as gate:
        assert await allowed(gate, call())
        sources = [PolicySource("test.cedar", AT_MOST_3.replace("> 3", "> 2")), PolicySource("history.toml", SENT)]
        gate.engine.replace(PolicySet.load(sources, tools=TOOLS))
        assert await allowed(gate, call())
        assert not await allowed(gate, call())
        gate.engine.replace(PolicySet.load([PolicySource("test.cedar", ALLOW_ALL)], tools=TOOLS))
        assert await allowed(gate, call())  # nothing is declared


async def test_a_set_that_changes_while_the_store_is_read_is_decided_by_the_new_one():
    async with open_gate(AT_MOST_3, history=SENT, tools=TOOLS) as gate:
        read, changed = gate.log.read, []

        async def changing(query):
            if not changed:
                changed.append(True)
                sources = [PolicySource("test.cedar", AT_MOST_500), PolicySource("history.toml", PAID)]
                gate.engine.replace(PolicySet.load(sources, tools=TOOLS))
            return await read(query)

        gate.log.read = changing
        await perform(gate, call("bank.pay", amount=1))
        assert changed
        assert not await allowed(gate, call("bank.pay", amount=500))


async def test_where_no_policy_asks_what_came_before_the_store_is_not_read_for_a_decision():
    async with open_gate(history=SENT, tools=TOOLS) as gate:
        gate.log.read = None
        await perform(gate, call())
        (total,) = gate.store.read_tallies([Tally("sent/count//0/ever", "agent:a")], 0)
        assert total.total == 1  # and it counts all the same
