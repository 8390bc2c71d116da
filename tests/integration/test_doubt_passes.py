"""Effects in doubt that cannot be asked for again just now: they are, once they can, and nobody has to say so."""

from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel
import pytest

from symbi.agent.again import Patience
from symbi.agent.journal import RunState
from symbi.audit.event import AuditEventType as T
from symbi.audit.event import parse_event
from symbi.errors import EffectInDoubt, StoreUnavailable, ToolServerUnavailable
from symbi.guard.ledger import EffectState
from symbi.policy.engine import PolicySource
from symbi.policy.policies import PolicySet
from symbi.runtime.course import Order
from symbi.runtime.doubt import Doubt, Word
from symbi.runtime.letters import Wanted
from symbi.runtime.population import Population
from symbi.runtime.supervision import Supervision, Work
from symbi.testing.clock import ManualClock
from symbi.testing.runtime import open_in
from symbi.testing.servers import in_place_of, simulated
from symbi.tools.port import RawToolResult
from symbi.types import RunId

pytestmark = pytest.mark.anyio

AGENT = """
agent payer {
    capabilities = ["bank.pay", "bank.find"]
    with sandbox = interpreter, timeout = 600.seconds {
        let receipt = tool("bank.pay", to = "ann");
        receipt
    }
}
"""
CONFIG = """
[mcp]
tool_verification = "tofu"
[mcp.servers.bank]
command = ["none"]
manifest = "bank.toml"
timeout_s = 10.0
breaker_failures = {failures}
breaker_open_s = {open_s}
"""
IDEMPOTENT = """
[server]
name = "bank"
[tools.find]
recovery = "read-only"
[tools.pay]
recovery = "idempotent"
"""
RECONCILABLE = """
[server]
name = "bank"
[tools.find]
recovery = "read-only"
[tools.pay]
recovery = "reconcilable"
[tools.pay.query]
tool = "find"
arguments = { key = "$effect" }
field = "status"
happened = ["booked"]
not_happened = ["absent"]
"""
PERMIT = "permit (principal, action, resource);"
ONCE = PERMIT + '\n@id("once") forbid (principal, action, resource) when { context.request.attempt > 1 };'
RUN = RunId("0190-run")


class Bank:
    """Books each payment once by its key; it is away for its first calls, and the process dies with some."""

    def __init__(self):
        self.clock = ManualClock()
        self.waits: list[float] = []
        self.calls = 0
        self.away = 0
        self.lost = self.breaks = 0
        self.dies = self.dead = False
        self.booked: list[str] = []

    async def pay(self, _values, effect_id):
        self.calls += 1
        self.dead = self.dies
        if self.away:
            self.away -= 1
            raise ToolServerUnavailable("the bank is away")
        if effect_id not in self.booked:
            self.booked.append(effect_id)
        if self.breaks:
            self.breaks -= 1
            raise ToolServerUnavailable("the line broke")
        return RawToolResult("", {"number": len(self.booked)}, is_error=False)

    async def find(self, values, _effect_id):
        if self.lost:
            self.lost -= 1
            raise ToolServerUnavailable("the bank is away")
        return RawToolResult("", {"status": "booked" if values["key"] in self.booked else "absent"}, is_error=False)

    def probe(self, point):
        if point == "before_settle" and self.dead:
            raise StoreUnavailable("the process died")

    async def wait(self, seconds):
        self.waits.append(seconds)
        assert len(self.waits) < 100, "it goes on for ever"
        self.clock.advance(seconds)


@pytest.fixture
def bank():
    made = Bank()
    with in_place_of({"bank": simulated("bank", {"pay": made.pay, "find": made.find})}):
        yield made


@asynccontextmanager
async def opened(folder, bank, manifest, *, policies=PERMIT, failures=5, open_s=5.0, agent=AGENT, more=""):
    (folder / "bank.toml").write_text(manifest)
    config = CONFIG.format(failures=failures, open_s=open_s) + more
    patience = Patience(bank.wait, lambda: 0.0)
    async with open_in(
        folder, agent, config=config, policies=policies, probe=bank.probe, clock=bank.clock, patience=patience
    ) as one:
        yield one


def work(one):
    return Work(one.compiled, one.compiled.agents[0], RUN)


def reconciled(one):
    events = [parse_event(stored.record) for stored in one.runtime.rooms.effects.read(1)]
    return [event.details["outcome"] for event in events if event.event_type is T.EFFECT_RECONCILED]


async def test_a_breaker_that_opens_while_a_call_is_retried_is_waited_for_in_place(tmp_path, bank):
    bank.away = 1
    async with opened(tmp_path, bank, IDEMPOTENT, failures=1, open_s=3.0) as one:
        outcome = await one.runtime.run(one.compiled, one.compiled.agents[0], {}, run_id=RUN)
        (effect,) = one.runtime.rooms.effects.effects_of(RUN)
    assert (outcome.state, outcome.output) == (RunState.FINISHED, {"number": 1})
    assert (bank.calls, bank.booked) == (2, [effect.effect_id])


async def test_a_call_in_doubt_whose_server_is_left_alone_for_long_is_held_and_goes_on_by_itself(tmp_path, bank):
    bank.away = 1
    async with opened(tmp_path, bank, IDEMPOTENT, failures=1, open_s=200.0) as one:
        outcome = await Supervision(one.runtime).see_through(work(one))
        (effect,) = one.runtime.rooms.effects.effects_of(RUN)
        assert not await one.runtime.letters.listed(Wanted())
    assert (outcome.state, outcome.output) == (RunState.FINISHED, {"number": 1})
    assert (bank.calls, bank.booked) == (2, [effect.effect_id])
    assert sum(bank.waits) >= 150.0


async def test_what_did_not_happen_is_done_once_that_is_believed_and_nobody_says_so(tmp_path, bank):
    bank.dies, bank.away = True, 1
    async with opened(tmp_path, bank, RECONCILABLE) as one:
        with pytest.raises(StoreUnavailable):
            await Supervision(one.runtime).see_through(work(one))
    bank.dies = bank.dead = False
    async with opened(tmp_path, bank, RECONCILABLE) as one:
        outcome = await Supervision(one.runtime).see_through(work(one))
        (effect,) = one.runtime.rooms.effects.effects_of(RUN)
        assert reconciled(one) == ["not_happened"]
    assert (outcome.state, effect.state, effect.attempt) == (RunState.FINISHED, EffectState.CONFIRMED, 2)
    assert bank.booked == [effect.effect_id]
    assert 25.0 <= sum(bank.waits) < 90.0


async def test_a_server_that_cannot_be_asked_just_now_is_asked_again(tmp_path, bank):
    bank.dies = True
    async with opened(tmp_path, bank, RECONCILABLE) as one:
        with pytest.raises(StoreUnavailable):
            await Supervision(one.runtime).see_through(work(one))
    bank.dies, bank.dead, bank.lost = False, False, 2
    async with opened(tmp_path, bank, RECONCILABLE) as one:
        outcome = await Supervision(one.runtime).see_through(work(one))
        assert reconciled(one) == ["happened"]
    assert (outcome.state, bank.calls) == (RunState.FINISHED, 1)


async def test_a_call_that_was_lost_is_looked_up_when_its_run_goes_on_and_not_believed_lost_too_early(tmp_path, bank):
    bank.away = 1
    async with opened(tmp_path, bank, RECONCILABLE) as one:
        bank.clock.advance(1000.0)  # the runtime has been there for long when it loses the call
        outcome = await Supervision(one.runtime).see_through(work(one))
        (effect,) = one.runtime.rooms.effects.effects_of(RUN)
        assert reconciled(one) == ["not_happened"]
        assert not one.runtime.guard.settlement.lost_s
    assert (outcome.state, effect.attempt, bank.booked) == (RunState.FINISHED, 2, [effect.effect_id])
    assert sum(bank.waits) >= 25.0


async def test_a_call_that_was_lost_and_happened_gives_its_run_the_result_and_is_not_done_again(tmp_path, bank):
    bank.breaks = 1
    async with opened(tmp_path, bank, RECONCILABLE) as one:
        outcome = await Supervision(one.runtime).see_through(work(one))
        (effect,) = one.runtime.rooms.effects.effects_of(RUN)
        assert reconciled(one) == ["happened"]
    assert (outcome.state, effect.state, bank.calls) == (RunState.FINISHED, EffectState.RECONCILED, 1)


@pytest.mark.parametrize(
    ("word", "calls", "output"),
    [(Word(True, "ada", result="receipt 7"), 1, "receipt 7"), (Word(False, "ada", "not booked"), 2, {"number": 1})],
)
async def test_what_a_person_says_of_a_lost_call_is_what_its_run_goes_on_with(tmp_path, bank, word, calls, output):
    bank.away = 1
    async with opened(tmp_path, bank, IDEMPOTENT.replace('"idempotent"', '"never-retry"')) as one:
        outcomes = []

        async def see_through():
            outcomes.append(await Supervision(one.runtime).see_through(work(one)))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(see_through)
            while not (rests := one.runtime.rests.all) or not isinstance(rests[0].error, EffectInDoubt):
                await anyio.lowlevel.checkpoint()
            (effect,) = await Doubt(one.runtime.rooms).listed()
            await Doubt(one.runtime.rooms).settle(effect.effect_id, word)
            await Population(one.runtime).settled(effect.agent_id, effect.run_id)
    assert [(outcome.state, outcome.output) for outcome in outcomes] == [(RunState.FINISHED, output)]
    assert bank.calls == calls


CAUGHT = """
agent payer {
    capabilities = ["bank.pay", "bank.find"]
    with sandbox = interpreter, timeout = 600.seconds {
        let got = "";
        try { got = tool("bank.pay", to = "ann"); } catch (e) { got = e.code; }
        tool("bank.find", key = "x");
        got
    }
}
"""


async def test_what_a_body_has_caught_and_gone_on_from_stays_whatever_a_person_says(tmp_path, bank):
    bank.away, bank.lost = 1, 100
    async with opened(tmp_path, bank, IDEMPOTENT.replace('"idempotent"', '"never-retry"'), agent=CAUGHT) as one:
        outcome = await one.runtime.run(one.compiled, one.compiled.agents[0], {}, run_id=RUN)
        assert outcome.state is RunState.HELD
        (effect,) = await Doubt(one.runtime.rooms).listed()
        await Doubt(one.runtime.rooms).settle(effect.effect_id, Word(True, "ada", result="receipt 7"))
        bank.lost = 0
        bank.clock.advance(600.0)
        outcome = await Supervision(one.runtime).see_through(work(one))
    assert (outcome.state, outcome.output, bank.calls) == (RunState.FINISHED, "unavailable.tool_server", 1)


async def test_a_message_of_an_agent_that_stays_goes_on_by_itself_too(tmp_path, bank):
    bank.away = 1
    stays = '[agents.payer]\nmode = "persistent"\n'
    async with opened(tmp_path, bank, IDEMPOTENT, failures=1, open_s=200.0, more=stays) as one:
        runtime = one.runtime
        runtime.roster.declare(one.compiled)
        await runtime.spawn(Order(one.compiled, one.compiled.agents[0]))
        sent = await runtime.send("payer", {})
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(runtime.carry_out_messages)
            with anyio.fail_after(40):
                while not runtime.dispatch.done:
                    await anyio.lowlevel.checkpoint()
                    if not runtime.dispatch.busy:
                        bank.clock.advance(31.0)
                        runtime.dispatch.wake()
            runtime.dispatch.stop(runtime.at_work)
        record = await runtime.rooms.world.log.read(lambda: runtime.rooms.runs.get_run(sent))
        (effect,) = runtime.rooms.effects.effects_of(sent)
    assert (record.state, record.output) == (RunState.FINISHED, b'{"number":1}')
    assert (bank.calls, bank.booked) == (2, [effect.effect_id])


async def test_what_was_in_doubt_and_policy_does_not_let_be_repeated_asks_again_under_another_set(tmp_path, bank):
    bank.dies = True
    async with opened(tmp_path, bank, IDEMPOTENT) as one:
        with pytest.raises(StoreUnavailable):
            await Supervision(one.runtime).see_through(work(one))
    bank.dies = bank.dead = False
    outcomes = []
    async with opened(tmp_path, bank, IDEMPOTENT, policies=ONCE) as one:
        runtime = one.runtime

        async def see_through():
            outcomes.append(await Supervision(runtime).see_through(work(one)))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(see_through)
            with anyio.fail_after(30):
                while not runtime.rests.all:
                    await anyio.lowlevel.checkpoint()
                assert isinstance(runtime.rests.all[0].error, EffectInDoubt)
                old = runtime.guard.engine.current
                sources = [PolicySource(s.file, PERMIT) if "operator" in s.file else s for s in old.sources]
                runtime.guard.engine.replace(PolicySet.load(sources, old.compiled, old.tools))
                while not outcomes:
                    await anyio.lowlevel.checkpoint()
    assert (outcomes[0].state, outcomes[0].output) == (RunState.FINISHED, {"number": 1})
    assert (bank.calls, len(bank.booked)) == (2, 1)
