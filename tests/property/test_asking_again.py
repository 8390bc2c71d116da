"""Whatever fails, and wherever the process dies: what is really called, by which key, and what a body gets to see of it."""

from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import anyio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from symbi.agent.again import LATE_RETRIES, MAX_RETRIES_OF_RUN
from symbi.agent.containers import CodeLimits
from symbi.agent.effects import World
from symbi.agent.interpreter import BodyLimits
from symbi.agent.journal import RunRecord, RunState
from symbi.agent.remedies import RETRIES
from symbi.agent.run import Bounds, RunPlan, execute
from symbi.clock import SystemClock
from symbi.dsl.compile import compile_file
from symbi.dsl.parser import parse
from symbi.errors import EffectInDoubt, TimeLimit, ToolFailed, ToolServerUnavailable
from symbi.guard.action import InvokeTool, ToolRef
from symbi.guard.earlier import may_ask_again
from symbi.guard.ledger import EffectState
from symbi.guard.outcome import decode_error
from symbi.policy.catalog import ToolType
from symbi.policy.fields import UNDECLARED, AnswerLabels
from symbi.policy.flow import join
from symbi.sandbox.pool import Sandboxes
from symbi.testing.gate import open_gate
from symbi.testing.runtime import IMPATIENT
from symbi.types import AgentId, Label, Principal, RecoveryClass, RunId, ToolName

RUN = RunId("r")
CLASSES = {"s.get": RecoveryClass.READ_ONLY, "s.put": RecoveryClass.IDEMPOTENT, "s.pay": RecoveryClass.NEVER_RETRY}
TOOLS = [ToolType(ToolName(name), {}) for name in CLASSES]
TEXT = """
agent a { with sandbox = interpreter {
    let seen = [];
    for name in ["s.get", "s.put", "s.pay", "s.put", "s.get"] {
        let got = "ok";
        try { tool(name); } catch (e) { got = e.code; }
        seen = append(seen, got);
    }
    seen
} }
"""
COMPILED = compile_file(parse(TEXT, "a.symbi"), TEXT)
ORDER = ("s.get", "s.put", "s.pay", "s.put", "s.get")


class Killed(BaseException):
    """The process dies."""


@dataclass
class Server:
    """`Invoker` over a server that does what a script says, and counts what really came to it."""

    guard: object
    script: list[str]
    calls: Counter = field(default_factory=Counter)
    keys: dict[int, set[str]] = field(default_factory=dict)

    def prepare(self, principal, name, values, *, labels, secrets, slot):
        ref = ToolRef(ToolName(name), "s", "d" * 64, {}, verified=True, recovery=CLASSES[name])
        return InvokeTool(principal=principal, slot=slot, tool=ref, values=values, labels=labels, secrets=secrets,
                          label=join(*labels.values()))  # fmt: skip

    @asynccontextmanager
    async def admitted(self, asked, on_refusal):
        if self.script[:1] == ["away"]:
            self.script.pop(0)
            refusal = ToolServerUnavailable("left alone")
            await on_refusal(refusal)
            raise refusal
        action = self.prepare(
            asked.principal, asked.tool.name, asked.values, labels=asked.labels, secrets=asked.secrets, slot=asked.slot
        )
        yield replace(action, label=asked.label)

    def recovery_of(self, name):
        return CLASSES[name]

    def flow_of(self, _name):
        return UNDECLARED

    def answer_labels(self, _name, given, effect_id, _arguments, _answer):
        return AnswerLabels(UNDECLARED, given, effect_id)

    async def call(self, action):
        step = self.script.pop(0) if self.script else "ok"
        async with self.guard.enforce(action) as permit:
            if step == "kill before":
                raise Killed
            if step == "gone before":
                raise ToolServerUnavailable("gone")
            self.guard.authority.redeem(permit, InvokeTool)
            self.calls[action.slot.position] += 1
            self.keys.setdefault(action.slot.position, set()).add(str(permit.effect_id))
            match step:
                case "kill":
                    raise Killed
                case "gone":
                    raise ToolServerUnavailable("gone")
                case "late":
                    raise TimeLimit("too late")
                case "no":
                    raise ToolFailed("it says no")
            permit.observe(None)
        if step == "kill after":
            raise Killed
        return replace(Answer(), effect_id=str(permit.effect_id))


@dataclass(frozen=True)
class Answer:
    value: object = None
    effect_id: str = ""
    mark: Label = field(default_factory=Label)


STEPS = ("ok", "away", "gone before", "gone", "late", "no", "kill before", "kill", "kill after")


async def played(script: list[str]):
    """Play a script to the end of the run; its outcome, the server, and the records, replayed once more to see the same."""
    async with open_gate(tools=TOOLS) as gate:
        settle = gate.guard._settlement.failure

        async def failure(admission, error, *, used):
            if not isinstance(error, Killed):  # the dead write nothing
                await settle(admission, error, used=used)

        gate.guard._settlement.failure = failure
        server = Server(gate.guard, script)
        world = World(gate.guard, gate.log, SystemClock(), server, Sandboxes({}), lambda *_: None, patience=IMPATIENT)
        spec = COMPILED.agents[0]
        record = RunRecord(RUN, AgentId("a"), "a.symbi", "", b"{}", RunState.RUNNING)
        await gate.log.transact(lambda: (gate.store.put_run(record), ()))
        bounds = Bounds(BodyLimits(), CodeLimits(), 10_000)

        async def once(current):
            recorded = gate.store.effects_of(RUN)
            plan = RunPlan(spec, Principal(AgentId("a")), current, bounds, recorded)
            return await execute(plan, world, gate.store)

        while True:
            try:
                outcome = await once(record)
                break
            except Killed:
                await gate.guard.open()  # the next owner finds what was in flight
        records = gate.store.effects_of(RUN)
        if outcome.state is RunState.FINISHED:
            before = server.calls.total()
            gate.store._db.execute("UPDATE runs SET state = 'running'")
            again = await once(record)
            assert (again.output, server.calls.total()) == (outcome.output, before), "a replay takes another path"
        return outcome, server, records


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.sampled_from(STEPS), max_size=40))
def test_no_schedule_of_failures_and_crashes_calls_more_often_than_it_says_or_shows_an_error_too_early(script):
    outcome, server, records = anyio.run(played, list(script))
    for record in records:
        name = ORDER[record.position]
        assert server.calls[record.position] <= record.attempt
        assert server.keys.get(record.position, set()) <= {record.effect_id}
        if CLASSES[name] is RecoveryClass.NEVER_RETRY:
            assert server.calls[record.position] <= 1
    retried = sum(record.attempt - 1 for record in records)
    if outcome.state is RunState.HELD:
        assert isinstance(outcome.error, EffectInDoubt)
        assert records[-1].state is EffectState.UNKNOWN
        never = CLASSES[ORDER[records[-1].position]] is RecoveryClass.NEVER_RETRY
        assert never != ("retry_after_s" in outcome.error.fields), "only what passes is tried again without a word"
        return
    assert outcome.state is RunState.FINISHED
    assert len(records) == len(ORDER)
    for record, seen in zip(records, outcome.output, strict=True):
        if seen == "ok":
            assert record.state is EffectState.CONFIRMED
            continue
        error = decode_error(record.error)
        assert error.code == seen
        if may_ask_again(record, record.recovery):
            most = {"limit.time": LATE_RETRIES, "agent.tool": 0}.get(seen, RETRIES.attempts)
            assert "away" in script or record.attempt > most or retried >= MAX_RETRIES_OF_RUN
